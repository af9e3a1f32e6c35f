"""A disposable root: an overlay over Debian 12, in which the lifecycle scripts run as on a node.

Own mount, pid, uts and network namespaces. Only what hardware or systemd would answer is a stand-in:
a folder with /sys, /proc/driver and /dev/infiniband, loop devices named as NVMe, and stubs in
/usr/local/sbin. The overlay's upper folder is the list of what was changed.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import stat
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hyperpd.instances import INSTANCES

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = REPOSITORY / "lifecycle_scripts"
ADDRESS, ID = "10.77.0.1", "i-0123456789abcdef0"
MODEL = "Amazon EC2 NVMe Instance Storage"
_PACKAGES = "python3,iproute2,kmod,procps,util-linux,e2fsprogs,slurm-wlm,munge"
# What is mounted over the root, or made by the harness, and so is no change of the scripts.
_OURS = ("hw/", "run/", "proc/", "sys/", "dev/", "tmp/", "usr/local/sbin/", "lcs/", "opt/ml/", "opt/amazon/")

# systemctl: keeps what is enabled as systemd does, and says what was asked of it.
_SYSTEMCTL = """#!/bin/bash
echo "$*" >>/run/systemctl.log
case "$*" in
*LoadState*dlami*) [ -e /hw/dlami ] && echo loaded || echo not-found ;;
*ActiveState*dlami*) cat /hw/dlami ;;
*ExecMainStatus*dlami*) [ "$(cat /hw/dlami)" = active ] && echo 0 || echo 1 ;;
*LoadState*containerd*) [ -e /hw/containerd ] && echo loaded || echo not-found ;;
*is-enabled*) [ -L /etc/systemd/system/multi-user.target.wants/hyperpd-node.service ] || exit 1 ;;
enable*)
  mkdir -p /etc/systemd/system/multi-user.target.wants
  ln -s /etc/systemd/system/hyperpd-node.service /etc/systemd/system/multi-user.target.wants/ ;;
daemon-reload | try-restart*) ;;
*) echo "systemctl stub: $*" >&2; exit 64 ;;
esac
"""
# mdadm: this kernel has no MD. The array it makes is the first device under the array's name.
_MDADM = """#!/bin/bash
echo "$*" >>/run/mdadm.log
mkdir -p /dev/md
for word; do [[ "$word" != /dev/nvme* ]] || { ln -sfn "$word" /dev/md/hyperpd; exit 0; }; done
"""
_MODPROBE = """#!/bin/bash
echo "$*" >>/run/modprobe.log
[ ! -e "/hw/modules/$1" ] || { mkdir -p "/hw/sys/module/$1"; exit 0; }
exit 1
"""
_FI_INFO = """#!/bin/bash
[ "$1" != --version ] || { echo "/opt/amazon/efa/bin/fi_info: 2.7.0amzn2.0"; echo "libfabric: 2.7.0amzn2.0"; exit 0; }
[ "$*" = "-p efa -t FI_EP_RDM" ] && ls /hw/sys/class/infiniband/ | grep . || exit 61
"""


def missing() -> str:
    """Why nothing can run here, or ""."""
    if os.geteuid() != 0:
        return "root is needed"
    tools = [name for name in ("debootstrap", "unshare", "losetup", "ip") if not shutil.which(name)]
    return f"{', '.join(tools)} missing" if tools else ""


@functools.cache
def debian() -> Path:
    """The lower folder of every overlay, made once a machine."""
    packages = _PACKAGES.replace(",", "-")
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "/var/tmp", "hyperpd-lifecycle", f"bookworm-{packages}")
    if not folder.exists():
        new = folder.with_name(f"new-{os.getpid()}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        command = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(new), *_mirror()]
        subprocess.run(command, check=True, capture_output=True)
        new.rename(folder)
    return folder


def _mirror() -> tuple[str, ...]:
    """Where this machine gets Debian 12 from, if it is one; elsewhere debootstrap's own default."""
    listed = ("apt-get", "indextargets", "--format", "$(CREATED_BY) $(CODENAME) $(REPO_URI)")
    lines = subprocess.run(listed, capture_output=True, text=True).stdout.split("\n")
    return tuple([line.split()[2] for line in lines if line.startswith("Packages bookworm ")][:1])


@dataclass(frozen=True)
class Run:
    """What a hook left: exit code and output."""

    code: int
    output: str

    @property
    def last(self) -> str:
        """The last line, without time and step."""
        return self.output.rstrip("\n").split("\n")[-1].split(": ", 1)[-1]


@dataclass
class Root:
    """One node. `close` unmounts and forgets it."""

    folder: Path
    address: str = ADDRESS
    id: str = ID
    host: str = "node-1"
    network: str = ""  # a network namespace that has the address already; default: a new one
    disks: list[str] = field(default_factory=list)  # loop devices that stand in as NVMe
    _machine: subprocess.Popen[str] | None = None

    def __post_init__(self) -> None:
        for name in ("upper", "work", "root"):
            (self.folder / name).mkdir(parents=True)
        # The overlay's folders cannot lie on an overlay; pytest's folders are on a plain file system.
        options = f"lowerdir={debian()},upperdir={self.folder}/upper,workdir={self.folder}/work"
        subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", self.root], check=True)
        for name, text in (("systemctl", _SYSTEMCTL), ("mdadm", _MDADM), ("modprobe", _MODPROBE)):
            self.write(f"usr/local/sbin/{name}", text, 0o755)
        shutil.copytree(SCRIPTS, self.root / "lcs", ignore=shutil.ignore_patterns("__pycache__"))
        self.options()

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def read(self, path: str) -> str:
        return (self.root / path).read_text()

    def node(self) -> Any:
        return json.loads(self.read("etc/hyperpd/node.json"))

    def hardware(self, name: str, *, efa: int | None = None, disks: int = 1, pages: int = 5128) -> None:
        """Makes it a machine of this type: devices as the kernel shows them."""
        facts = next((one for one in INSTANCES if one.name == name), None)
        gpus, count = (facts.gpus, facts.efa) if facts else (0, 0)
        count = count if efa is None else efa
        self.write("hw/sys/devices/virtual/dmi/id/board_asset_tag", self.id + "\n")
        self.write("hw/sys/devices/virtual/dmi/id/product_name", name.removeprefix("ml.") + "\n")
        self.write("hw/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", f"{pages if count else 0}\n")
        for number in range(2):
            self.write(f"hw/sys/devices/system/node/node{number}/cpulist", f"{number * 96}-{number * 96 + 95}\n")
        for number in range(count):
            device = f"hw/sys/class/infiniband/rdmap{number:02}s0/device"
            self.write(f"{device}/vendor", "0x1d0f\n")
            self.write(f"{device}/p2p", "NVIDIA\n")
            self.write(f"{device}/numa_node", f"{number * 2 // max(2, count)}\n")
            self.write(f"hw/dev/infiniband/uverbs{number}", "")
        for number in range(gpus):
            pci = f"0000:{number:02x}:00.0"
            self.write(f"hw/proc/driver/nvidia/gpus/{pci}/information", "")
            self.write(f"hw/sys/bus/pci/devices/{pci}/numa_node", f"{number * 2 // max(2, gpus)}\n")
        if count:
            self.write("hw/sys/module/efa/version", "3.3.1\n")
            self.write("hw/modules/ib_uverbs", "")
            self.write("opt/amazon/efa/bin/fi_info", _FI_INFO, 0o755)
            self.write("opt/amazon/efa_installed_packages", "# EFA installer version: 1.51.0\n")
        # The root volume is an NVMe device as well.
        self.write("hw/sys/block/nvme0n1/device/model", "Amazon Elastic Block Store\n")
        if facts and facts.nvme_gb:
            self.add_nvme(disks)

    def add_nvme(self, count: int) -> None:
        for number in range(1, count + 1):
            image = self.folder / f"nvme{number}"
            image.touch()
            os.truncate(image, 64 << 20)
            loop = subprocess.run(["losetup", "--find", "--show", image], check=True, capture_output=True, text=True)
            self.disks.append(loop.stdout.strip())
            self.write(f"hw/sys/block/nvme{number}n1/device/model", f"{MODEL}\n")
            self.write(f"hw/sys/block/nvme{number}n1/device/device/numa_node", "0\n")

    def empty_nvme(self) -> None:
        for disk in self.disks:
            subprocess.run(["wipefs", "--all", "--force", disk], check=True, capture_output=True)

    def config(self, name: str, cluster: str = "Kubernetes", **change: Any) -> None:
        """resource_config.json with this node in group `workers` and another one."""
        kind = {"KubernetesConfig": {"EksClusterName": "e"}}
        if cluster == "Slurm":
            kind = {"SlurmConfig": {"PrimaryControllerIp": "10.77.0.9"}}
        own = {
            "InstanceName": "workers-1",
            "InstanceId": self.id,
            "CustomerIpAddress": self.address,
            "AgentIpAddress": "172.16.0.4",
        }
        other = {"InstanceName": "other-1", "InstanceId": "i-9", "CustomerIpAddress": "10.77.0.9"}
        groups = [
            {"Name": "other", "InstanceType": "ml.m5.xlarge", "Instances": [other]},
            {"Name": "workers", "InstanceType": name, "Instances": [own]},
        ]
        config = {"ClusterType": cluster, "InstanceGroups": groups, **kind, **change}
        self.write("opt/ml/config/resource_config.json", json.dumps(config))

    def boot(self) -> None:
        """Starts the machine: new namespaces, empty /run and /dev; what was mounted or set is gone."""
        self.shut_down()
        inside = f"""
            set -e
            hostname {self.host}
            ip link set lo up
            if [ -z "{self.network}" ]; then
              ip link add eth0 type veth peer name other
              ip addr add {self.address}/24 dev eth0
              ip link set eth0 up
            fi
            cd {self.root}
            mount -t proc proc proc
            mount -t sysfs sysfs sys
            mount --rbind /sys/fs/cgroup sys/fs/cgroup
            mount -t tmpfs tmpfs run
            mount -t tmpfs tmpfs dev
            for name in null zero full random urandom tty; do cp -a /dev/$name dev/; done
            ln -s /proc/self/fd dev/fd
            number=0
            for disk in {" ".join(self.disks)}; do
              number=$((number + 1))
              cp -a $disk dev/nvme${{number}}n1
            done
            echo up
            exec sleep infinity
        """
        network = ["nsenter", f"--net={self.network}", "unshare"] if self.network else ["unshare", "--net"]
        command = [*network, "--mount", "--pid", "--fork", "--kill-child", "--uts", "bash", "-c", inside]
        self._machine = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
        assert self._machine.stdout is not None
        assert self._machine.stdout.readline() == "up\n"
        children = Path(f"/proc/{self._machine.pid}/task/{self._machine.pid}/children").read_text()
        self._init = int(children.split()[0])

    def shut_down(self) -> None:
        if self._machine is not None:
            self._machine.kill()
            self._machine.communicate()
            self._machine = None

    def start(self, *argv: str, **environment: str) -> subprocess.Popen[str]:
        """A program on the running machine, output and error together."""
        if self._machine is None:
            self.boot()
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        command = [
            "nsenter",
            f"--target={self._init}",
            "--mount",
            "--pid",
            "--uts",
            "--net",
            "chroot",
            str(self.root),
            *argv,
        ]
        return subprocess.Popen(
            command,
            env={"PATH": path, "HYPERPD_HW_ROOT": "/hw", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *argv: str, **environment: str) -> Run:
        """`start`, and its end. Without arguments: on_create.sh."""
        process = self.start(*(argv or ("/lcs/on_create.sh",)), **environment)
        output, _ = process.communicate()
        return Run(process.returncode, output)

    def options(self, *lines: str) -> None:
        """hyperpd.env. The waits are for a platform; their defaults are asserted elsewhere."""
        self.write("lcs/hyperpd.env", "\n".join(["HYPERPD_FAIL_WAIT_S=0", "HYPERPD_NVME_WAIT_S=0", *lines, ""]))

    def asked(self, stub: str) -> list[str]:
        """What a stub was called with since the start of the machine."""
        return self.run("sh", "-c", f"cat /run/{stub}.log 2>/dev/null || true").output.splitlines()

    def sysctl(self, name: str) -> str:
        return " ".join(self.run("cat", f"/proc/sys/{name.replace('.', '/')}").output.split())

    def files(self) -> dict[str, tuple[Any, ...]]:
        """Every file that differs from Debian's: mode, owner, time, content; not the harness's own."""
        upper, found = self.folder / "upper", {}
        for path in sorted(upper.rglob("*")):
            name = str(path.relative_to(upper))
            folder = path.is_dir() and not path.is_symlink()
            if f"{name}/".startswith(_OURS) or (folder and (debian() / name).exists()):
                continue
            about = path.lstat()
            content = os.readlink(path) if path.is_symlink() else b"" if folder else path.read_bytes()
            found[name] = (stat.S_IMODE(about.st_mode), about.st_uid, about.st_gid, about.st_mtime_ns, content)
        return found

    def close(self) -> None:
        self.shut_down()
        subprocess.run(["umount", "--lazy", self.root], check=False)
        for disk in self.disks:
            subprocess.run(["losetup", "--detach", disk], check=False)
