"""Kubeflow's controllers on a test's control plane: the training operator (v1), and Trainer (v2) with JobSet.

They need root: all read the certificates of their webhooks from the same fixed folder, and each sees its own there.
"""

import base64
import subprocess
from pathlib import Path

import yaml
from plane import HERE, Plane
from waiting import answers, free_port

WEBHOOK_CERTIFICATES = Path("/tmp/k8s-webhook-server")
CRDS = ("pytorchjobs.yaml", "trainer-v2/trainer.kubeflow.org_*.yaml", "jobset-v2/jobset.x-k8s.io_jobsets.yaml")


def crds(programs: Path) -> list[Path]:
    """Return the files of the kinds that the controllers follow."""
    return [path for pattern in CRDS for path in sorted(programs.glob(pattern))]


def training_operator(plane: Plane) -> None:
    """Start Kubeflow's training operator; the API server calls its webhook."""
    webhook, health = free_port(), free_port()
    for found in yaml.safe_load_all((HERE / "training-operator.yaml").read_text()):
        text = yaml.safe_dump(found).replace("ADDRESS", plane.address).replace("65535", str(webhook))
        plane.apply(yaml.safe_load(text))
    mine = plane.folder / "webhook"
    (mine / "serving-certs").mkdir(parents=True)
    _start(
        plane, "training-operator", mine, str(plane.programs / "training-operator.v1"), "--enable-scheme=pytorchjob",
        "--metrics-bind-address=0", f"--health-probe-bind-address=127.0.0.1:{health}",
        f"--webhook-server-port={webhook}",
    )  # fmt: skip
    secret = "/api/v1/namespaces/kubeflow/secrets/training-operator-webhook-cert"
    plane.until(lambda: "tls.key" in (plane.get(secret).get("data") or {}), "the training operator has certificates")
    for name in ("ca.crt", "tls.key", "tls.crt"):  # it waits for the last; a kubelet would mount them
        (mine / "serving-certs" / name).write_bytes(base64.b64decode(plane.get(secret)["data"][name]))
    plane.until(lambda: answers(health), "the training operator is ready")


def trainer(plane: Plane) -> None:
    """Start Kubeflow Trainer and JobSet; the API server calls their webhooks."""
    mine = plane.folder / "trainer"
    certificates = mine / "serving-certs"
    certificates.mkdir(parents=True)
    command = [
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "tls.key", "-out", "tls.crt",
        "-days", "30", "-subj", "/CN=webhook", "-addext", f"subjectAltName=IP:{plane.address}",
    ]  # fmt: skip
    subprocess.run(command, cwd=certificates, check=True, capture_output=True)
    own = {"jobset": "config.jobset.x-k8s.io/v1alpha1", "trainer": "config.trainer.kubeflow.org/v1alpha1"}
    plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kubeflow-system"}})
    for name, version in own.items():
        webhook, health = free_port(), free_port()
        _webhooks(plane, name, webhook, certificates / "tls.crt")
        managed = "internalCertManagement" if name == "jobset" else "certManagement"
        (mine / f"{name}.yaml").write_text(yaml.safe_dump({
            "apiVersion": version, "kind": "Configuration", "webhook": {"port": webhook},
            "health": {"healthProbeBindAddress": f"127.0.0.1:{health}"}, "metrics": {"bindAddress": "0"},
            "leaderElection": {"leaderElect": False}, managed: {"enable": False},
        }))  # fmt: skip
        _start(plane, name, mine, str(plane.programs / name), f"--config={mine / name}.yaml")
        plane.until(lambda port=health: answers(port), f"{name} is ready")  # type: ignore[misc]


def _start(plane: Plane, name: str, certificates: Path, *command: str) -> None:
    WEBHOOK_CERTIFICATES.mkdir(exist_ok=True)
    script = f'mount --bind "$0" {WEBHOOK_CERTIFICATES} && exec "$@"'
    environment = ["env", "MY_POD_NAMESPACE=kubeflow", f"KUBECONFIG={plane.kubeconfig}"]
    program = [*environment, "unshare", "-m", "sh", "-c", script, str(certificates), *command]
    plane.start(name, program=program)


def _webhooks(plane: Plane, name: str, port: int, certificate: Path) -> None:
    """Register the webhooks of a controller, at its address; those for pods ask about its own pods only."""
    bundle = base64.b64encode(certificate.read_bytes()).decode()
    for found in yaml.safe_load_all((plane.programs / f"{name}-v2" / "manifests.yaml").read_text()):
        found["metadata"]["name"] = f"{name}-{found['kind'].lower()}"
        for webhook in found["webhooks"]:
            path = webhook["clientConfig"]["service"]["path"]
            webhook["clientConfig"] = {"url": f"https://{plane.address}:{port}{path}", "caBundle": bundle}
            if path.endswith("-v1-pod"):
                label = {"key": "jobset.sigs.k8s.io/jobset-name", "operator": "Exists"}
                webhook["objectSelector"] = {"matchExpressions": [label]}
        plane.apply(found)
