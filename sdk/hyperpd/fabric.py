"""What the KV path needs of a machine: what is present → backend, connector, settings, or a refusal.

Standard library and Python 3.9 only, no imports of ours: the container imports this file, and the
lifecycle scripts carry this very file to a bare node, where it runs as `python3 fabric.py`.

    fabric      between                    NIXL backend   connector            verified
    efa         nodes with EFA             LIBFABRIC      NixlConnector        not on hardware
    local       GPUs of one node           UCX            NixlPushConnector    not on hardware
    infiniband  nodes with InfiniBand      UCX            NixlConnector        not on hardware
    tcp         anything                   UCX            NixlConnector        on CPUs

EFA cannot reach its own node, which is why two workers of one node use CUDA IPC; there a pull fell
to TCP at 0.5 GB/s where a push had 49 GB/s (vllm#52607). UCX runs over EFA at TCP-like speed only.
"""

import argparse
import fcntl
import json
import os
import resource
import socket
import struct
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Dict, List, Optional

FABRICS = ("efa", "local", "infiniband", "tcp")
PULL, PUSH = "NixlConnector", "NixlPushConnector"

# A cut TCP link is noticed after this long instead of 240 s (measured with vLLM 0.32 and UCX over
# TCP). It has to be set on prefill and decode: on one side alone the other still waited 120 s.
UCX_TCP_USER_TIMEOUT = "5s"
# What the EFA driver allocates by itself: 5,128 pages of 2 MiB. Enough of them and libfabric may use
# them; too few and its allocation fails in a forked process.
HUGEPAGES_MIB = 5120
_AMAZON = "0x1d0f"  # PCI vendor of EFA devices
_SIOCGIFADDR = 0x8915


class Unusable(Exception):
    """The fabric that is wanted cannot be used here; `checks` say why."""

    def __init__(self, wanted: str, checks: List["Check"]) -> None:
        self.checks = [check for check in checks if check.state == "failed"]
        lines = ["fabric {} cannot be used here:".format(wanted)]
        lines += ["  - {}: {}, wanted {}; {}".format(c.name, c.seen, c.wanted, c.fix) for c in self.checks]
        super().__init__("\n".join(lines))


@dataclass(frozen=True)
class Check:
    """One thing looked at: the value seen, the value wanted, and what mends it."""

    name: str
    state: str  # ok, warning, failed
    seen: str
    wanted: str
    fix: str


@dataclass(frozen=True)
class Present:
    """What a machine has. Lists are sorted device names."""

    efa: List[str] = field(default_factory=list)
    infiniband: List[str] = field(default_factory=list)
    uverbs: int = 0  # device files a process may open
    gpudirect: List[str] = field(default_factory=list)  # EFA devices that read GPU memory by themselves
    gpus: int = 0
    network: List[str] = field(default_factory=list)
    hugepages_mib: int = 0
    memlock_unlimited: bool = False


@dataclass(frozen=True)
class Decision:
    """What a worker will use. `environment` is added to the engine's."""

    wanted: str
    fabric: str
    backend: str
    connector: str
    environment: Dict[str, str]
    checks: List[Check] = field(default_factory=list)

    def block(self) -> str:
        """The decision and why, for a log."""
        lines = ["fabric: {} (wanted {}), backend {}, {}".format(*self._what())]
        lines += ["  {}={}".format(key, value) for key, value in sorted(self.environment.items())]
        lines += ["  {} {}: {} (wanted {})".format(c.state, c.name, c.seen, c.wanted) for c in self.checks]
        return "\n".join(lines)

    def _what(self) -> List[str]:
        return [self.fabric, self.wanted, self.backend, self.connector]


def look(root: Path = Path("/")) -> Present:
    """What is on this machine. root: another place for /sys, /proc and /dev."""
    efa, infiniband, gpudirect = [], [], []
    for device in _names(root / "sys/class/infiniband"):
        folder = root / "sys/class/infiniband" / device / "device"
        if _read(folder / "vendor") == _AMAZON:
            efa.append(device)
            if _read(folder / "p2p") == "NVIDIA":
                gpudirect.append(device)
        else:
            infiniband.append(device)
    pages_mib = 2 * int(_read(root / "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages") or "0")
    limit = _read(root / "sys/fs/cgroup/hugetlb.2MB.max")  # a container sees the machine's pages, and may use these
    if limit.isdigit():
        pages_mib = min(pages_mib, int(limit) >> 20)
    return Present(
        efa=efa,
        infiniband=infiniband,
        uverbs=len([name for name in _names(root / "dev/infiniband") if name.startswith("uverbs")]),
        gpudirect=gpudirect,
        gpus=len(_names(root / "proc/driver/nvidia/gpus")),
        network=_names(root / "sys/class/net"),
        hugepages_mib=pages_mib,
        memlock_unlimited=resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY,
    )


def plan(wanted: str, accelerator: str) -> Decision:
    """What a worker uses where everything that is wanted is present: what a plan shows.

    wanted: one of FABRICS. accelerator: "cpu" or "gpu". Raises ValueError for another word.
    """
    if wanted not in FABRICS:
        raise ValueError("fabric {!r} is not known; try {}".format(wanted, ", ".join(FABRICS)))
    if wanted == "efa":
        # With FI_PROVIDER set, a missing EFA fails; without it libfabric takes TCP and says nothing.
        settings = {"FI_PROVIDER": "efa", "FI_EFA_USE_DEVICE_RDMA": "1", "FI_EFA_USE_HUGE_PAGE": "1"}
        return Decision(wanted, "efa", "LIBFABRIC", PULL, settings)
    if wanted == "local":
        return Decision(wanted, "local", "UCX", PUSH, {"UCX_TLS": "cuda_ipc,cuda_copy,tcp"})
    if wanted == "infiniband":
        return Decision(wanted, "infiniband", "UCX", PULL, {"UCX_TLS": "rc,cuda_copy,cuda_ipc"})
    # Named, because UCX would quietly use shared memory between two workers of one machine, and what
    # was tried on a laptop would not be what runs between nodes.
    transports = "tcp" if accelerator == "cpu" else "tcp,cuda_copy"
    return Decision(wanted, "tcp", "UCX", PULL, {"UCX_TLS": transports, "UCX_TCP_USER_TIMEOUT": UCX_TCP_USER_TIMEOUT})


def decide(
    wanted: str,
    accelerator: str,
    present: Present,
    *,
    address: str = "",
    allow_tcp: bool = False,
    efa_expected: Optional[int] = None,
    efa_given: Optional[int] = None,
    net_devices: str = "",
) -> Decision:
    """What a worker uses on this machine.

    address: its IP address, which says which network device TCP takes; net_devices (comma-separated)
    names devices instead. efa_expected: EFA devices of the instance type, where it is known; efa_given:
    those of them that this container was given.
    Raises Unusable when what is wanted cannot be used; only with `allow_tcp` is TCP taken then, and
    the decision shows it. Raises ValueError for an unknown fabric.
    """
    planned = plan(wanted, accelerator)
    checks = _checks(planned.fabric, present, efa_expected, efa_given)
    environment = dict(planned.environment)
    if any(check.state == "failed" for check in checks):
        if not allow_tcp or planned.fabric == "tcp":
            raise Unusable(wanted, checks)
        planned = plan("tcp", accelerator)
        environment = dict(planned.environment)
        connector = plan(wanted, accelerator).connector  # its peers expect this one
        planned = Decision(wanted, "tcp", planned.backend, connector, environment)
    if planned.fabric == "efa" and present.hugepages_mib < HUGEPAGES_MIB:
        environment["FI_EFA_USE_HUGE_PAGE"] = "0"
    if planned.fabric == "tcp":
        devices, check = _tcp_devices(net_devices, address, present)
        checks.append(check)
        if check.state == "failed":
            raise Unusable(wanted, checks)
        if devices:
            environment["UCX_NET_DEVICES"] = devices
    return Decision(wanted, planned.fabric, planned.backend, planned.connector, environment, checks)


def _checks(fabric: str, present: Present, efa_expected: Optional[int], efa_given: Optional[int]) -> List[Check]:
    if fabric == "efa":
        return efa_checks(present, efa_expected, efa_given)
    if fabric == "infiniband":
        devices = present.infiniband
        fix = "use an instance with InfiniBand, or another kv_transfer.fabric"
        return [_check("InfiniBand devices", bool(devices), ", ".join(devices) or "none", "at least one", fix)]
    if fabric == "local":
        fix = "local is for GPUs of one node; use another kv_transfer.fabric"
        return [_check("GPUs", present.gpus > 1, str(present.gpus), "at least 2", fix)]
    return []


def efa_checks(present: Present, expected: Optional[int] = None, given: Optional[int] = None) -> List[Check]:
    """Everything EFA needs of a machine, whether or not it is there.

    expected: devices of the instance type; given: device files of a container, which sees all devices of the
    machine and may open its own.
    """
    count, least = len(present.efa), expected or 1
    files = given or max(count, least)
    checks = [
        _check(
            "EFA devices",
            count >= least,
            str(count),
            "{}{}".format("" if expected else "at least ", least),
            "attach EFA interfaces (pods: request vpc.amazonaws.com/efa), check the driver: modinfo efa",
        ),
        _check(
            "EFA device files",
            present.uverbs >= files and count > 0,
            str(present.uverbs),
            str(files),
            "mount /dev/infiniband (pods: request vpc.amazonaws.com/efa); modprobe ib_uverbs",
        ),
        _check(
            "locked memory",
            present.memlock_unlimited,
            "unlimited" if present.memlock_unlimited else "limited",
            "unlimited",
            "ulimit -l unlimited (pods: capability IPC_LOCK)",
        ),
    ]
    if present.gpus:
        checks.append(
            _check(
                "GPUDirect",
                count > 0 and len(present.gpudirect) == count,
                "{} of {} devices".format(len(present.gpudirect), count),
                "all devices",
                "kernel 5.12 or newer with dmabuf, or: modprobe efa_nv_peermem",
            )
        )
    enough = present.hugepages_mib >= HUGEPAGES_MIB
    checks.append(
        Check(
            "huge pages",
            "ok" if enough else "warning",
            "{} MiB".format(present.hugepages_mib),
            "{} MiB".format(HUGEPAGES_MIB),
            "pods: limits hugepages-2Mi: 5120Mi; without them EFA works with FI_EFA_USE_HUGE_PAGE=0",
        )
    )
    return checks


def _check(name: str, ok: bool, seen: str, wanted: str, fix: str) -> Check:
    return Check(name, "ok" if ok else "failed", seen, wanted, fix)


def _tcp_devices(net_devices: str, address: str, present: Present) -> "tuple[str, Check]":
    known = ", ".join(present.network)
    if net_devices:
        unknown = [name for name in net_devices.split(",") if name not in present.network]
        return net_devices, _check(
            "network devices", not unknown, net_devices, "of: " + known, "name existing devices, or none"
        )
    if not address:
        return "", Check("network device", "warning", "not named", "of: " + known, "give the worker's address")
    # Unnamed, UCX stripes over all devices, the loopback one among them.
    device = next((name for name in present.network if _address(name) == address), "")
    fix = "give an address of this machine (HYPERPD_ADDRESS)"
    return device, _check("network device of " + address, bool(device), device or "none", "of: " + known, fix)


def _address(device: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", device.encode()[:15]))
        except OSError:
            return ""
    return socket.inet_ntoa(answer[20:24])


def _names(folder: Path) -> List[str]:
    try:
        return sorted(os.listdir(str(folder)))
    except OSError:
        return []


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def main() -> int:
    """Print what is present and what would be used, as JSON; exit code 1 when it cannot be used."""
    parser = argparse.ArgumentParser(description="What the KV path of a worker would use on this machine.")
    parser.add_argument("--wanted", default="efa", choices=FABRICS)
    parser.add_argument("--accelerator", default="gpu", choices=("cpu", "gpu"))
    parser.add_argument("--address", default="", help="IP address of this machine that peers connect to")
    parser.add_argument("--efa-expected", type=int, help="EFA devices of this instance type")
    parser.add_argument("--root", type=Path, default=Path("/"), help="another place for /sys, /proc and /dev")
    given = parser.parse_args()
    present = look(given.root)
    answer = {"present": asdict(present)}
    try:
        decision = decide(
            given.wanted, given.accelerator, present, address=given.address, efa_expected=given.efa_expected
        )
        answer["decision"] = asdict(decision)
    except Unusable as error:
        answer["unusable"] = {"wanted": given.wanted, "checks": [asdict(check) for check in error.checks]}
    print(json.dumps(answer, indent=2))
    return 0 if "decision" in answer else 1


if __name__ == "__main__":
    sys.exit(main())
