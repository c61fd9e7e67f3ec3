"""The programs of a test cluster, and the check whether this machine can run one."""

import os
import re
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
KUBECONFIG = "CAPSFUSION_TEST_KUBECONFIG"


def programs(*options: str) -> Path:
    """Build the missing programs with build.sh and return their folder."""
    done = subprocess.run([str(HERE / "build.sh"), *options], check=True, stdout=subprocess.PIPE, text=True)
    return Path(done.stdout.strip().splitlines()[-1])


def unavailable() -> str | None:
    """Return why this machine cannot run a test cluster, or None if it can."""
    other = f"or name a cluster's kubeconfig in {KUBECONFIG}"
    if os.geteuid() != 0:
        return f"a test cluster needs root: run as root, {other}"
    absent = [name for name in ("openssl", "unshare", "setpriv") if not shutil.which(name)]
    if absent:
        return f"a test cluster needs {', '.join(absent)}: install them, {other}"
    command = ["go", "env", "GOVERSION"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout if shutil.which("go") else "0"
    if tuple(map(int, re.findall(r"\d+", said)[:2])) < (1, 26):
        return f"a test cluster is built with Go 1.26 or newer: install it, {other}"
    return None
