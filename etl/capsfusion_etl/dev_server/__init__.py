"""`capsfusion dev-server`: an HTTP server for tests and dry runs, with the part of the OpenAI API that is used here.

`server` answers chat completions and injects faults; `batches` serves files and batches.
"""

from capsfusion_etl.dev_server.server import FAULTS, Behaviour, application, completion, parse_shares, serve

__all__ = ["FAULTS", "Behaviour", "application", "completion", "parse_shares", "serve"]
