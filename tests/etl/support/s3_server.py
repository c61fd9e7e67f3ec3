"""Fixtures with a real S3 server on the loopback interface."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import free_port

SECRET = "not-for-any-file"


def answers(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """The folder that holds the buckets of a server, and the AWS environment variables to reach it."""
    if not shutil.which("go") and "CAPSFUSION_S3_BIN" not in os.environ:
        (pytest.fail if "CAPSFUSION_WANT_CLUSTER" in os.environ else pytest.skip)("the S3 server is built with Go")
    script = Path(__file__).with_name("build_s3.sh")
    program = subprocess.run([script], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    root = tmp_path_factory.mktemp("s3")
    (root / "bucket").mkdir()
    port = free_port()
    server = subprocess.Popen(
        [program, "--port", f"127.0.0.1:{port}", "--quiet", "posix", str(root)],
        env=os.environ | {"ROOT_ACCESS_KEY": "tester", "ROOT_SECRET_KEY": SECRET},
        stdout=subprocess.DEVNULL,
    )
    try:
        while not answers(port):
            assert server.poll() is None
            time.sleep(0.05)
        yield root, {
            "AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ALLOW_HTTP": "true",
        }  # fmt: skip
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def s3(s3_server: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that holds the buckets; sets the AWS variables for this process and its children."""
    root, variables = s3_server
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return root
