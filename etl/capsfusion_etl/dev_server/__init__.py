"""`capsfusion dev-server`: an HTTP server with the part of the OpenAI API that is used here, for tests and dry runs."""

from capsfusion_etl.dev_server.server import FAULTS, Behaviour, application, completion, parse_faults, serve

__all__ = ["FAULTS", "Behaviour", "application", "completion", "parse_faults", "serve"]
