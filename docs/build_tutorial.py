"""Run the commands of docs/tutorial.md again and write what they print: `python docs/build_tutorial.py`.

A line `    $ command` is run in the root of the repository; the indented lines below it are replaced by its output.
Times and run ids differ from run to run, so this page is refreshed by hand, not by a test.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parent / "tutorial.md"
LONGEST = 40  # lines of output that are shown
_BLOCK = re.compile(
    r"^    \$ (?P<command>.*(?:\\\n.*)*)\n(?P<output>(?:    (?!\$ ).*\n|\n(?=    (?!\$ )))*)", re.MULTILINE
)


def refreshed(block: re.Match[str]) -> str:
    """Return the command with its present output."""
    command = block["command"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command, shell=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        env=os.environ | {"PATH": path, "COLUMNS": "110"},
    )  # fmt: skip
    print(f"$ {command}\n{done.stdout}", flush=True)
    lines = done.stdout.replace(f"{Path.cwd()}/", "").rstrip().splitlines()
    shown = lines if len(lines) <= LONGEST else [*lines[: LONGEST - 1], f"... {len(lines) - LONGEST + 1} more lines"]
    return "".join(f"    {line}".rstrip() + "\n" for line in [f"$ {command}", *shown])


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(_BLOCK.sub(refreshed, text), encoding="utf-8")
