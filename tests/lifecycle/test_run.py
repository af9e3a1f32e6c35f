"""The lifecycle scripts on nodes of each kind: what they change, that they change it once, and a reboot."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hyperpd.instances import INSTANCES
from hyperpd.placement import Ports
from tests.lifecycle.root import SCRIPTS, Root

NewRoot = Callable[..., Root]
LOG = "var/log/provision/provisioning.log"
# Everything that is changed on a node, besides the mounted NVMe and the sysctls.
EVERYWHERE = {
    *("etc/hyperpd", "etc/hyperpd/fabric.env", "etc/hyperpd/node.json"),
    *("etc/security/limits.d/99-hyperpd.conf", "etc/sysctl.d/99-zz-hyperpd.conf"),
    *("etc/systemd/system/hyperpd-node.service",),
    *("etc/systemd/system/multi-user.target.wants/hyperpd-node.service",),
    *("opt/hyperpd", "opt/hyperpd/data", "opt/hyperpd/lifecycle", "opt/hyperpd/lifecycle/steps"),
    *(f"opt/hyperpd/lifecycle/{path.relative_to(SCRIPTS)}" for path in SCRIPTS.rglob("*.sh")),
    *(f"opt/hyperpd/lifecycle/{name}.py" for name in ("node", "fabric", "check_fabric")),
    *("opt/hyperpd/lifecycle/hyperpd.env", "opt/hyperpd/lifecycle/instances.tsv"),
    *("var/log/provision", LOG),
}
CONTAINERD = {f"etc/systemd/system/containerd.service.d{name}" for name in ("", "/50-hyperpd.conf")}
SLURMD = {f"etc/systemd/system/slurmd.service.d{name}" for name in ("", "/50-hyperpd.conf")}
NVME = {"opt/dlami", "opt/dlami/nvme"}
NO_NVME = {"var/lib/hyperpd", "var/lib/hyperpd/models", "var/lib/hyperpd/kv"}
EFA = {"FI_PROVIDER": "efa", "FI_EFA_USE_DEVICE_RDMA": "1", "FI_EFA_USE_HUGE_PAGE": "1", "HYPERPD_NODE_FABRIC": "efa"}


@pytest.mark.parametrize(
    ("name", "cluster", "disks", "files", "fabric"),
    [
        ("ml.p5.48xlarge", "Kubernetes", 8, CONTAINERD | NVME, EFA),
        ("ml.p5en.48xlarge", "Kubernetes", 8, CONTAINERD | NVME, EFA),
        ("ml.p6-b200.48xlarge", "Slurm", 8, SLURMD | NVME, EFA),
        ("ml.g6e.48xlarge", "Slurm", 2, SLURMD | NVME, EFA),
        ("ml.g6e.4xlarge", "Kubernetes", 1, CONTAINERD | NVME, "tcp,cuda_copy"),
        ("ml.m5.2xlarge", "Kubernetes", 0, CONTAINERD | NO_NVME, "tcp"),
    ],
)
def test_a_node_is_set_up_once(
    new_root: NewRoot, name: str, cluster: str, disks: int, files: set[str], fabric: object
) -> None:
    root = new_root(name, cluster, disks=disks)
    first = root.run()
    assert first.code == 0, first.output
    before = root.files()
    assert set(before) == EVERYWHERE | files
    node = root.node()
    assert (node["status"], node["node"]["type"], node["node"]["group"]) == ("warnings", name, "workers")
    # The namespace does not show two of the settings as its own; a node's first namespace does.
    assert [text.split()[1] for text in node["warnings"]] == ["net.core.rmem_max", "net.core.wmem_max"]
    assert node["node"]["orchestrator"] == {"Slurm": "slurm", "Kubernetes": "eks"}[cluster]
    if isinstance(fabric, str):
        fabric = {
            "UCX_TLS": fabric,
            "UCX_TCP_USER_TIMEOUT": "5s",
            "UCX_NET_DEVICES": "eth0",
            "HYPERPD_NODE_FABRIC": "tcp",
        }
    assert node["set"]["40-fabric"] == fabric
    lines = root.read("etc/hyperpd/fabric.env").splitlines()
    assert dict(line.split("=", 1) for line in lines if line[0] != "#") == fabric
    assert root.sysctl("net.ipv4.tcp_retries2") == "5"
    assert root.sysctl("net.core.somaxconn") == "16384"
    assert root.sysctl("net.ipv4.ip_local_port_range") == "32768 60999"
    assert root.sysctl("net.ipv4.ip_local_reserved_ports") == "5557-5663,8080-8081,8100-8163,8300-8363"
    facts = next((one for one in INSTANCES if one.name == name), None)
    nodes = node["found"]["60-numa"]["nodes"].values()
    assert sum(len(one["efa"]) for one in nodes) == (facts.efa if facts else 0)
    assert sum(len(one["gpus"]) for one in nodes) == (facts.gpus if facts else 0)
    made = [words for words in root.asked("mdadm") if words.startswith("--create")]
    members = " ".join(f"/dev/nvme{number}n1" for number in range(1, disks + 1))
    level = f"--run --force --level=0 --name=hyperpd --homehost=any --raid-devices={disks}"
    assert made == ([f"--create /dev/md/hyperpd {level} {members}"] if disks > 1 else [])
    if disks:
        assert root.run("stat", "-c", "%a %u", "/opt/hyperpd/data/kv").output == "700 10001\n"
        assert root.run("findmnt", "-n", "-o", "FSTYPE", "/opt/dlami/nvme").output == "ext4\n"
    restarts = [words for words in root.asked("systemctl") if words.startswith("try-restart")]
    assert restarts == [f"try-restart --no-block {'slurmd' if cluster == 'Slurm' else 'containerd'}.service"]

    second = root.run()
    assert second.code == 0, second.output
    assert "nothing changed" in second.last
    assert " changed /" not in second.output
    after = root.files()
    assert after.pop(LOG)[4].startswith(before.pop(LOG)[4])
    assert after == before
    # The other hook finds the same, and the doctor beside the scripts agrees.
    assert "nothing changed" in root.run("/lcs/on_init_complete.sh").last
    doctor = root.run("python3", "-B", "/opt/hyperpd/lifecycle/check_fabric.py", "--json", "--hardware", "/hw")
    failed = {check["name"] for check in json.loads(doctor.output) if check["state"] == "failed"}
    assert failed <= {"locked memory"}, doctor.output  # this machine may not raise it


def test_a_reboot_with_an_empty_nvme(new_root: NewRoot) -> None:
    root = new_root(disks=2)
    assert root.run().code == 0
    before = root.files()
    root.run("touch", "/opt/hyperpd/data/models/weights")
    root.boot()
    root.empty_nvme()
    assert root.sysctl("net.ipv4.tcp_retries2") == "15"
    assert root.run("test", "-e", "/opt/hyperpd/data/models").code == 1
    (root.root / "opt/ml/config/resource_config.json").unlink()  # stale or gone: the node is what it was
    unit = root.read("etc/systemd/system/hyperpd-node.service")
    command = next(line for line in unit.splitlines() if line.startswith("ExecStart=")).removeprefix("ExecStart=")
    again = root.run(command)
    assert again.code == 0, again.output
    assert root.sysctl("net.ipv4.tcp_retries2") == "5"
    assert root.run("stat", "-c", "%u", "/opt/hyperpd/data/models").output == "10001\n"
    assert root.run("test", "-e", "/opt/hyperpd/data/models/weights").code == 1
    after = root.files()
    assert {name for name in after if after[name] != before.get(name)} == {LOG, "etc/hyperpd", "etc/hyperpd/node.json"}
    assert "taken from the last run's node.json" in root.node()["warnings"][0]
    assert root.node()["node"]["group"] == "workers"


def test_a_reboot_keeps_what_is_on_the_nvme(new_root: NewRoot) -> None:
    root = new_root("ml.g6e.8xlarge")
    assert root.run().code == 0
    root.run("touch", "/opt/hyperpd/data/models/weights")
    root.boot()
    assert root.run("/opt/hyperpd/lifecycle/boot.sh").code == 0
    assert root.run("test", "-e", "/opt/hyperpd/data/models/weights").code == 0


def test_a_reboot_keeps_an_array(new_root: NewRoot) -> None:
    """The kernel here has no MD: member signatures are written by hand, and md127 is what udev has made."""
    root = new_root("ml.g6e.48xlarge", disks=2)
    for number, disk in enumerate(root.disks):
        with open(disk, "r+b") as device:
            device.seek(4096)  # an MD superblock of version 1.2
            device.write(superblock(b"any:hyperpd", number))
    root.write("hw/sys/block/nvme1n1/holders/md127/x", "")
    spare = root.folder / "md127"
    spare.touch()
    os.truncate(spare, 64 << 20)
    loop = subprocess.run(["losetup", "--find", "--show", spare], check=True, capture_output=True, text=True)
    root.disks.append(loop.stdout.strip())
    root.boot()
    assert root.run("mv", "/dev/nvme3n1", "/dev/md127").code == 0
    assert root.run("mkfs.ext4", "-q", "-L", "hyperpd", "/dev/md127").code == 0
    run = root.run()
    assert run.code == 0, run.output
    assert not root.asked("mdadm")
    assert root.run("findmnt", "-n", "-o", "SOURCE", "/opt/dlami/nvme").output == "/dev/md127\n"


def superblock(name: bytes, number: int) -> bytes:
    """MD's on-disk format, as far as blkid looks at it."""
    block = bytearray(256 + 2 * 128)
    struct.pack_into("<III", block, 0, 0xA92B4EFC, 1, 0)
    block[16:32] = b"hyperpd-array-id"
    block[32 : 32 + len(name)] = name
    struct.pack_into("<Q", block, 144, 8)  # where the superblock lies, in sectors
    struct.pack_into("<I", block, 160, number)
    block[168:184] = b"hyperpd-member-%d" % number
    struct.pack_into("<I", block, 220, 128)
    return bytes(block)


def test_nothing_is_asked_of_the_caller(new_root: NewRoot) -> None:
    root = new_root("ml.m5.2xlarge")
    run = root.run(
        "env", "-i", "HYPERPD_HW_ROOT=/hw", "PATH=/bin", "bash", "-c", "cd /tmp && exec bash /lcs/on_create.sh"
    )
    assert run.code == 0, run.output


def test_what_the_platform_has_set_up_stays(new_root: NewRoot) -> None:
    root = new_root(disks=1)
    root.boot()
    root.write("hw/dlami", "active")
    root.run("sh", "-c", "mkdir -p /opt/dlami/nvme /var/lib/kubelet && mkfs.ext4 -q -L dlami /dev/nvme1n1")
    assert root.run("mount", "/dev/nvme1n1", "/opt/dlami/nvme").code == 0
    root.run("sh", "-c", "echo 20000 30000 >/proc/sys/net/core/somaxconn; echo 30000 >/proc/sys/net/core/somaxconn")
    root.run("sh", "-c", "echo 9200 >/proc/sys/net/ipv4/ip_local_reserved_ports")
    assert root.run().code == 0
    left = root.node()["left"]["10-storage"]
    assert left["mount"] == "/opt/dlami/nvme is mounted by the platform"
    assert left["/var/lib/kubelet"] == "on /var/lib/kubelet"
    assert root.node()["found"]["10-storage"]["dlami_nvme_service"] == "active, exit status 0"
    assert root.sysctl("net.core.somaxconn") == "30000"  # never lowered
    assert root.sysctl("net.ipv4.ip_local_reserved_ports") == "5557-5663,8080-8081,8100-8163,8300-8363,9200"


def test_few_huge_pages_are_a_warning(new_root: NewRoot) -> None:
    root = new_root(disks=1, pages=12)
    assert root.run().code == 0
    assert any("huge pages: 24 MiB, wanted 5120 MiB" in text for text in root.node()["warnings"])
    assert "FI_EFA_USE_HUGE_PAGE=0" in root.read("etc/hyperpd/fabric.env")


def test_gpus_that_the_driver_does_not_show_are_a_warning(new_root: NewRoot) -> None:
    root = new_root(disks=1)
    shutil.rmtree(root.root / "hw/proc/driver/nvidia/gpus/0000:07:00.0")
    assert root.run().code == 0
    assert any("60-numa: GPUs: 7, wanted 8" in text for text in root.node()["warnings"])


def test_the_machine_knows_its_type_better(new_root: NewRoot) -> None:
    root = new_root("ml.p5en.48xlarge", disks=1)
    root.config("ml.p5.48xlarge")
    assert root.run().code == 0
    assert root.node()["node"]["type"] == "ml.p5en.48xlarge"
    assert "identify: resource_config.json says ml.p5.48xlarge" in root.node()["warnings"][0]


def test_every_port_of_ours_is_reserved_and_outside_the_range() -> None:
    setting = next(
        line for line in (SCRIPTS / "lib.sh").read_text().splitlines() if line.startswith("HYPERPD_RESERVED")
    )
    reserved: set[int] = set()
    for words in setting.split(";")[1].split(","):
        first, last = words.split("-")
        reserved |= set(range(int(first), int(last) + 1))
    ports = Ports()
    for worker in range(16):
        wanted = {ports.worker_api, ports.worker_admin, ports.side_channel, ports.kv_events}
        assert {port + worker for port in wanted} <= reserved
    assert {ports.gateway_api, ports.gateway_admin} <= reserved
    assert max(reserved) < 32768


def test_the_instance_table_is_that_of_the_sdk() -> None:
    rows = [line.split("\t") for line in (SCRIPTS / "instances.tsv").read_text().splitlines() if line[0] != "#"]
    assert rows == [[one.name, str(one.gpus), str(one.efa), str(one.nvme_gb)] for one in INSTANCES]


def test_the_options_file_shows_every_default() -> None:
    table = (SCRIPTS / "lib.sh").read_text().split("SETTINGS='\n")[1].split("\n'\n")[0]
    rows = [line.split(";", 3) for line in table.splitlines()]
    shown = (SCRIPTS / "hyperpd.env").read_text()
    assert [line for line in shown.splitlines() if line.startswith("#HYPERPD_")] == [
        f"#{row[0]}={row[1]}" for row in rows
    ]
    assert all(f"# {row[3]}\n#{row[0]}=" in shown for row in rows)


def test_the_fabric_file_is_the_one_of_the_container_and_python_is_3_9() -> None:
    import ast

    import hyperpd.fabric

    assert (SCRIPTS / "fabric.py").resolve() == Path(hyperpd.fabric.__file__).resolve()
    for path in SCRIPTS.glob("*.py"):
        ast.parse(path.read_text(), feature_version=(3, 9))
