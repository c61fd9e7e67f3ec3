"""Run the whole pipeline on real photographs: `make demo`, or `python examples/demo/main.py FOLDER`."""

import os
import subprocess
import sys
from pathlib import Path

from sample import site, write_pairs
from server import serve

HERE = Path(__file__).parent

THE_END = """
tables      {lake}/pairs, rejects, fused_captions, training_pairs, ...
snapshot    {lake}/_capsfusion/snapshots/demo.json
model       {lake}/_capsfusion/checkpoints/demo/model
report      {lake}/report.html

Two queries to try:
  {bin}/capsfusion sql --lake {lake} "select stage, reason, count(*) as pairs from rejects group by all order by 1, 2"
  {bin}/capsfusion sql --lake {lake} "select raw_caption, caption, verdict from fused_captions order by verdict limit 5"
"""


def main(folder: Path) -> int:
    """Run `capsfusion run` over the sample, with its lake in `folder`; return the exit status."""
    lake, pairs = folder / "lake", folder / "pairs.jsonl"
    write_pairs(pairs)
    program = Path(sys.executable).parent / "capsfusion"
    with serve(site()) as proxy:
        job = [
            program, "run", "--lake", lake, "--pairs", pairs, "--config", HERE / "demo.yaml",
            "--set", f"fetch.proxy={proxy}",
        ]  # fmt: skip
        status = subprocess.run(job, check=False).returncode
    if status == 0:
        print(THE_END.format(lake=lake, bin=os.path.relpath(program.parent)))
    return status


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo")))
