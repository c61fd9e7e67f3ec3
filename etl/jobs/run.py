"""What spark-submit starts: `spark-submit ... run.py run --lake LAKE --pairs SOURCE` is `capsfusion run ...`.

With CAPSFUSION_DEADLINE_S it ends itself after so many seconds, as by SIGTERM: spark-operator has no deadline.
"""

import os
import signal

from capsfusion_etl.cli.main import main


def _late(number: int, frame: object) -> None:
    print("capsfusion: CAPSFUSION_DEADLINE_S have passed; the next run resumes", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    if deadline := os.environ.get("CAPSFUSION_DEADLINE_S"):
        signal.signal(signal.SIGALRM, _late)
        signal.alarm(int(deadline))
    main()
