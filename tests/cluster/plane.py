"""A local Kubernetes control plane without Docker.

It consists of etcd, API server, controller manager, scheduler, and fake nodes whose pods do what their annotations say
(stages.yaml). `controllers.py` adds those of Kubeflow. `build.sh` builds the programs.
"""

import json
import secrets
import socket
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config
from kubernetes.client import ApiException
from waiting import free_port, until

HERE = Path(__file__).parent
CHARTS = HERE.parents[1] / "charts"
CRD = CHARTS / "capsfusion-crds" / "templates" / "captiontrainingruns.yaml"
NODES = ("fake-0", "fake-1")


class Plane:
    """A control plane: its processes by name; logs, data and `kubeconfig` are in `folder`."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.folder = programs, folder
        self.kubeconfig = folder / "admin.yaml"
        self.authority = str(folder / "certs" / "apiserver.crt")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._token = secrets.token_hex(16)
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
            probe.connect(("192.0.2.1", 9))  # sends nothing, only selects the local IP address
            self.address = probe.getsockname()[0]

    def start(self, name: str, *arguments: str, program: list[str] | None = None) -> None:
        """Start a program; its output goes to NAME.log."""
        end_with_us = ["setpriv", "--pdeathsig", "TERM"]  # also if this process is killed
        command = [*end_with_us, *(program or [str(self.programs / name)]), *arguments]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, cwd=self.folder
            )

    def stop(self, *names: str) -> None:
        """Stop programs, by default all, in reverse order of their start."""
        for name in names or list(reversed(self.processes)):
            process = self.processes.pop(name)
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @classmethod
    def existing(cls, kubeconfig: Path, folder: Path) -> "Plane":
        """Use an existing cluster that runs the training operator, and kwok with our stages.yaml; install our CRD."""
        found = cls(Path(), folder)
        found.api = config.new_client_from_config(str(kubeconfig))
        found.kubeconfig, found.url = kubeconfig, found.api.configuration.host
        found.authority = str(found.api.configuration.ssl_ca_cert)
        found.apply(yaml.safe_load(CRD.read_text()))
        return found

    def control_plane(self, *crds: Path) -> None:
        """Start etcd, API server, controller manager and scheduler; wait until pods can be created."""
        etcd, peer, port = free_port(), free_port(), free_port()
        local = f"http://127.0.0.1:{etcd}"
        self.start(
            "etcd", "--data-dir=etcd", "--unsafe-no-fsync", f"--listen-client-urls={local}",
            f"--advertise-client-urls={local}", f"--listen-peer-urls=http://127.0.0.1:{peer}",
        )  # fmt: skip
        subprocess.run(
            ["openssl", "genrsa", "-out", "sa.key", "2048"], cwd=self.folder, check=True, capture_output=True
        )
        (self.folder / "tokens.csv").write_text(f'{self._token},admin,admin,"system:masters"\n')
        self.start(
            "kube-apiserver", f"--etcd-servers={local}", f"--secure-port={port}", "--bind-address=0.0.0.0",
            f"--advertise-address={self.address}", "--cert-dir=certs", "--token-auth-file=tokens.csv",
            "--authorization-mode=Node,RBAC", "--service-account-key-file=sa.key",
            "--service-account-signing-key-file=sa.key",
            "--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=10.0.0.0/24",
            f"--audit-policy-file={HERE / 'audit.yaml'}", f"--audit-log-path={self.folder / 'audit.log'}",
            "--allow-privileged=true", "--enable-aggregator-routing=true",
            "--enable-admission-plugins=NodeRestriction,PodSecurity", "--kubelet-preferred-address-types=InternalIP",
        )  # fmt: skip
        self.url = f"https://{self.address}:{port}"
        self.write_kubeconfig(self.kubeconfig, self._token)
        self.until(self.ready, "the API server is ready")
        self.api = config.new_client_from_config(str(self.kubeconfig))
        # Before the controllers: their garbage collector discovers new kinds only every 30 s.
        self.apply(*(found for path in crds for found in yaml.safe_load_all(path.read_text())))
        self.until(self._established, "the CRDs are established")
        plain = f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", "--bind-address=127.0.0.1"
        self.start(
            "kube-controller-manager", *plain, f"--secure-port={free_port()}", "--root-ca-file=certs/apiserver.crt",
            "--service-account-private-key-file=sa.key", "--kube-api-qps=200", "--kube-api-burst=400",
        )  # fmt: skip
        self.start("kube-scheduler", *plain, f"--secure-port={free_port()}")
        self.until(
            lambda: self.exists("/api/v1/namespaces/default/serviceaccounts/default"), "service accounts are made"
        )
        self.until(
            lambda: self.exists("/api/v1/namespaces/default/configmaps/kube-root-ca.crt"), "certificates are spread"
        )

    def fake_nodes(self) -> None:
        """Start kwok and create the fake nodes."""
        stages = self.programs / "stages"
        files = ["node/fast/node-initialize.yaml", "pod/fast/pod-ready.yaml"]
        self.start(
            "kwok", f"--kubeconfig={self.kubeconfig}",
            "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
            "--cidr=10.244.0.0/16", "--node-lease-duration-seconds=40", f"--node-ip={self.address}",
            *(f"--config={stages / file}" for file in files), f"--config={HERE / 'stages.yaml'}",
        )  # fmt: skip
        room = {"cpu": "640", "memory": "4096Gi", "pods": "1000", "nvidia.com/gpu": "8"}
        for name in NODES:
            annotations = {"kwok.x-k8s.io/node": "fake", "node.alpha.kubernetes.io/ttl": "0"}
            metadata = {"name": name, "annotations": annotations, "labels": {"kubernetes.io/hostname": name}}
            node = {"apiVersion": "v1", "kind": "Node", "metadata": metadata}
            self.call("/api/v1/nodes", "POST", node | {"status": {"allocatable": room, "capacity": room}})
        self.until(lambda: all(_node_ready(self.get(f"/api/v1/nodes/{name}")) for name in NODES), "the nodes are ready")

    def write_kubeconfig(self, path: Path, token: str, namespace: str = "default") -> None:
        """Write a kubeconfig that authenticates with `token`."""
        path.write_text(yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
            "users": [{"name": "test", "user": {"token": token}}],
            "clusters": [{"name": "test", "cluster": {"server": self.url, "certificate-authority": self.authority}}],
        }))  # fmt: skip

    def ready(self) -> bool:
        """Return whether the API server answers."""
        try:
            with closing(config.new_client_from_config(str(self.kubeconfig))) as api:
                return bool(client.CoreV1Api(api).list_namespace() is not None)
        except Exception:  # noqa: BLE001  not yet
            return False

    def call(self, path: str, method: str = "GET", body: Any = None, mime: str = "application/json") -> Any:
        """Send a request as admin and return the decoded response."""
        return self.api.call_api(
            path, method, body=body, header_params={"Accept": "application/json", "Content-Type": mime},
            response_type="object", auth_settings=["BearerToken"], _return_http_data_only=True, _request_timeout=30,
        )  # fmt: skip

    def get(self, path: str) -> Any:
        """Return an object, or {} if it does not exist."""
        try:
            return self.call(path)
        except ApiException as error:
            if error.status == 404:
                return {}
            raise

    def account(self, namespace: str, name: str) -> Path:
        """Write a kubeconfig for a service account and return its path."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        ask = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}}
        found = self.folder / f"{namespace}-{name}.yaml"
        self.write_kubeconfig(found, self.call(path, "POST", ask)["status"]["token"], namespace)
        return found

    def requests(self, account: str) -> list[Any]:
        """Return the requests of a service account (namespace:name) from the audit log."""
        log = self.folder / "audit.log"
        if not log.exists():
            pytest.skip("this cluster's audit log is not here")
        lines = (json.loads(line) for line in log.read_text().splitlines())
        mine = (line for line in lines if line["user"]["username"] == f"system:serviceaccount:{account}")
        return list({line["auditID"]: line for line in mine}.values())  # a watch has two entries

    def exists(self, path: str) -> bool:
        """Return whether an object exists."""
        return bool(self.get(path))

    def apply(self, *objects: Any, namespace: str = "default", query: str = "") -> list[Any]:
        """Apply objects as `kubectl apply --server-side` does; return the API server's responses."""
        answers = []
        for found in objects:
            resource = self._resource(found["apiVersion"], found["kind"])
            root = "/api/v1" if found["apiVersion"] == "v1" else f"/apis/{found['apiVersion']}"
            where = f"/namespaces/{found['metadata'].get('namespace', namespace)}" if resource["namespaced"] else ""
            path = f"{root}{where}/{resource['name']}/{found['metadata']['name']}?fieldManager=test&force=true{query}"
            answers.append(self.call(path, "PATCH", found, "application/apply-patch+yaml"))
        return answers

    def until(self, true: Callable[[], object], what: str) -> None:
        """Wait until `true` holds, as long as all programs live."""
        until(lambda: self._alive() and true(), what)

    def _alive(self) -> bool:
        for name, process in self.processes.items():
            if process.poll() is not None:
                said = (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{name} ended with {process.returncode}:\n{said}")
        return True

    def _resource(self, version: str, kind: str) -> Any:
        listed = self.call("/api/v1" if version == "v1" else f"/apis/{version}")["resources"]
        return next(r for r in listed if r["kind"] == kind and "/" not in r["name"])

    def _established(self) -> bool:
        listed = self.call("/apis/apiextensions.k8s.io/v1/customresourcedefinitions")["items"]
        return all(
            any(c["type"] == "Established" and c["status"] == "True" for c in crd["status"].get("conditions") or [])
            for crd in listed
        )


def _node_ready(node: Any) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node.get("status", {}).get("conditions", []))
