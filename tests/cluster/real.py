"""A real node for the control plane: containerd, runc, a bridge, a kubelet and CoreDNS, as processes of this machine.

Its images have only empty folders: pods mount this machine's /usr, Python and checkout. Needs root and the Debian
packages containerd, runc, containernetworking-plugins, iptables and iproute2.
"""

import hashlib
import io
import json
import shutil
import socket
import subprocess
import sys
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from plane import Plane
from waiting import until

NEEDED = ("containerd", "runc", "iptables", "ip")
BRIDGE, GATEWAY, SUBNET = "capsfusion0", "10.244.0.1", "10.244.0.0/24"
IMAGE = "docker.io/capsfusion/host:1"  # imported by _containerd
PAUSE = "docker.io/capsfusion/pause:1"
LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}


def missing() -> str | None:
    """Return which packages a real node needs, or None if all are installed."""
    absent = [name for name in NEEDED if not shutil.which(name)]
    if absent or not Path("/usr/lib/cni/bridge").exists():
        return "a real node needs: apt-get install containerd runc containernetworking-plugins iptables iproute2"
    return None


def start(plane: Plane) -> None:
    """Start the node `real` and the cluster's DNS."""
    folder = plane.folder / "node"
    for name in ("cni", "kubelet", "containerd"):
        (folder / name).mkdir(parents=True)
    _bridge()
    _containerd(plane, folder)
    _kubelet(plane, folder)
    corefile = f"cluster.local:53 {{\n bind {GATEWAY}\n errors\n kubernetes cluster.local {{\n"
    (folder / "Corefile").write_text(corefile + f"  kubeconfig {plane.kubeconfig}\n  ttl 0\n }}\n}}\n")
    plane.start("coredns", "-conf", str(folder / "Corefile"))
    until(lambda: _resolves("kubernetes.default.svc.cluster.local"), "names are resolved")


def stop(plane: Plane) -> None:
    """Delete the pods while the kubelet still runs, then stop the node and remove its mounts and bridge."""
    for namespace in plane.get("/api/v1/namespaces").get("items", []):
        path = f"/api/v1/namespaces/{namespace['metadata']['name']}/pods?gracePeriodSeconds=1"
        with suppress(Exception):
            plane.call(path, "DELETE")
    with suppress(TimeoutError):
        until(lambda: not plane.get("/api/v1/pods")["items"], "the pods are gone", 40)
    plane.stop(*(name for name in ("coredns", "kubelet", "containerd") if name in plane.processes))
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(str(plane.folder))), reverse=True):
        subprocess.run(["umount", "-l", mount], check=False)
    subprocess.run(["ip", "link", "del", BRIDGE], check=False, capture_output=True)


def mounts(*writable: Path) -> dict[str, Any]:
    """Return a pod template that mounts this machine's programs read-only, and the `writable` folders."""
    root = Path(__file__).parents[2]
    readable = {Path("/usr"), Path(sys.base_prefix), Path(sys.prefix), root}
    paths = {path: False for path in readable if path not in writable} | dict.fromkeys(writable, True)
    names = {path: f"host-{number}" for number, path in enumerate(paths)}
    return {
        "spec": {
            "containers": [
                {
                    "name": "pytorch",
                    "imagePullPolicy": "Never",
                    "volumeMounts": [
                        {"name": names[path], "mountPath": str(path), "readOnly": not may}
                        for path, may in paths.items()
                    ],
                }
            ],
            "volumes": [{"name": names[path], "hostPath": {"path": str(path)}} for path in paths],
        }
    }


def _bridge() -> None:
    subprocess.run(["ip", "link", "add", BRIDGE, "type", "bridge"], check=False, capture_output=True)
    subprocess.run(["ip", "addr", "replace", f"{GATEWAY}/24", "dev", BRIDGE], check=True)
    subprocess.run(["ip", "link", "set", BRIDGE, "up"], check=True)


def _containerd(plane: Plane, folder: Path) -> None:
    network = {
        "cniVersion": "0.4.0", "name": "pods",
        "plugins": [
            {
                "type": "bridge", "bridge": BRIDGE, "isGateway": True, "ipMasq": False, "hairpinMode": True,
                "ipam": {
                    "type": "host-local", "dataDir": str(folder / "ipam"),
                    "ranges": [[{"subnet": SUBNET}]], "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "loopback"},
        ],
    }  # fmt: skip
    (folder / "cni" / "10-pods.conflist").write_text(json.dumps(network))
    at = folder / "containerd"
    # Without CAP_SYS_RESOURCE runc cannot lower the pause container's oom_score_adj.
    (at / "config.toml").write_text(f"""version = 2
root = "{at}/root"
state = "{at}/state"
[grpc]
  address = "{at}/socket"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni"
""")
    plane.start("containerd", "--config", str(at / "config.toml"), program=["containerd"])
    control = ["ctr", "-a", str(at / "socket")]
    until(
        lambda: subprocess.run([*control, "version"], check=False, capture_output=True).returncode == 0,
        "containerd answers",
    )
    empty = dict.fromkeys(("usr/", "proc/", "sys/", "dev/", "tmp/", "root/", "work/"), b"")
    passwd = {"etc/passwd": b"root:x:0:0:root:/root:/bin/sh\ntrainer:x:1000:1000::/work:/bin/false\n"}
    pause = {"pause": (plane.programs / "pause").read_bytes()}
    for reference, files, entry in ((PAUSE, pause, "/pause"), (IMAGE, empty | passwd, None)):
        tar = folder / "image.tar"
        tar.write_bytes(_image(reference, files, entry))
        subprocess.run([*control, "-n", "k8s.io", "images", "import", str(tar)], check=True, capture_output=True)


def _kubelet(plane: Plane, folder: Path) -> None:
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "failCgroupV1": False, "cgroupDriver": "cgroupfs", "failSwapOn": False, "oomScoreAdj": 0,
        "containerRuntimeEndpoint": f"unix://{folder}/containerd/socket",
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"}, "makeIPTablesUtilChains": False, "podLogsDir": str(folder / "logs"),
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100, "clusterDNS": [GATEWAY], "clusterDomain": "cluster.local",
    }  # fmt: skip
    (folder / "kubelet.yaml").write_text(yaml.safe_dump(config))
    plane.start(
        "kubelet", f"--config={folder / 'kubelet.yaml'}", f"--kubeconfig={plane.kubeconfig}",
        f"--root-dir={folder / 'kubelet'}", f"--cert-dir={folder / 'kubelet' / 'pki'}", "--hostname-override=real",
        f"--node-ip={plane.address}",
    )  # fmt: skip

    def ready() -> bool:
        conditions = plane.get("/api/v1/nodes/real").get("status", {}).get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    until(ready, "the node is ready")


def _image(reference: str, files: dict[str, bytes], entry: str | None) -> bytes:
    """Return an OCI image of one layer as a tar archive."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name, data in files.items():
            item = tarfile.TarInfo(name.rstrip("/"))
            item.size, item.mode = len(data), 0o1777 if name == "tmp/" else 0o755
            item.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            tar.addfile(item, io.BytesIO(data))
        for name, target in LINKS.items() if entry is None else ():
            item = tarfile.TarInfo(name)
            item.type, item.linkname = tarfile.SYMTYPE, target
            tar.addfile(item)
    blobs: dict[str, bytes] = {}

    def put(data: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    content = put(layer.getvalue(), "layer.v1.tar")
    config = {
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [content["digest"]]},
        "config": {"Entrypoint": [entry] if entry else None, "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]},
    }  # fmt: skip
    about = {"schemaVersion": 2, "layers": [content], "config": put(json.dumps(config).encode(), "config.v1+json")}
    manifest = put(json.dumps(about).encode(), "manifest.v1+json")
    manifest["annotations"] = {"io.containerd.image.name": reference}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        index = json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode()
        whole = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index}
        for name, data in (whole | {f"blobs/sha256/{digest}": data for digest, data in blobs.items()}).items():
            item = tarfile.TarInfo(name)
            item.size = len(data)
            tar.addfile(item, io.BytesIO(data))
    return out.getvalue()


def _resolves(name: str) -> bool:
    """Return whether the cluster's DNS resolves a name."""
    labels = b"".join(bytes([len(part)]) + part for part in name.encode().split(b"."))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.settimeout(0.5)
        probe.sendto(b"\0\1\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1", (GATEWAY, 53))
        return bool(probe.recv(512)[3] & 15 == 0)
    return False
