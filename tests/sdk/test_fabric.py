"""The fabric decision over fake /sys trees of documented machines, and its refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hyperpd import fabric
from hyperpd.fabric import Present, Unusable, decide, look
from hyperpd.instances import find


def machine(root: Path, efa: int = 0, gpus: int = 0, mellanox: int = 0, pages: int = 5128, p2p: str = "NVIDIA") -> Path:
    """A tree as the kernel shows it."""
    for number in range(efa + mellanox):
        device = root / f"sys/class/infiniband/{'efa' if number < efa else 'mlx5'}_{number}/device"
        device.mkdir(parents=True)
        (device / "vendor").write_text("0x1d0f\n" if number < efa else "0x15b3\n")
        if number < efa:
            (device / "p2p").write_text(p2p + "\n")
        (root / "dev/infiniband").mkdir(parents=True, exist_ok=True)
        (root / f"dev/infiniband/uverbs{number}").touch()
    for number in range(gpus):
        (root / f"proc/driver/nvidia/gpus/0000:{number:02x}:00.0").mkdir(parents=True)
    (root / "sys/class/net/lo").mkdir(parents=True)
    pool = root / "sys/kernel/mm/hugepages/hugepages-2048kB"
    pool.mkdir(parents=True)
    (pool / "nr_hugepages").write_text(f"{pages}\n")
    return root


@pytest.mark.parametrize(
    "name", ["ml.p4d.24xlarge", "ml.p5.48xlarge", "ml.p5en.48xlarge", "ml.p6-b200.48xlarge", "ml.g6.48xlarge"]
)
def test_efa_machines(tmp_path: Path, name: str) -> None:
    facts = find(name)
    present = replace(look(machine(tmp_path, efa=facts.efa, gpus=facts.gpus)), memlock_unlimited=True)
    assert (len(present.efa), present.gpus) == (facts.efa, facts.gpus)
    decision = decide("efa", "gpu", present, efa_expected=facts.efa)
    assert (decision.backend, decision.connector) == ("LIBFABRIC", "NixlConnector")
    assert decision.environment == {
        "FI_PROVIDER": "efa",
        "FI_EFA_USE_DEVICE_RDMA": "1",
        "FI_EFA_USE_HUGE_PAGE": "1",
    }
    assert {check.state for check in decision.checks} == {"ok"}
    assert "backend LIBFABRIC" in decision.block()


EFA = Present(
    efa=["efa_0"], uverbs=1, gpudirect=["efa_0"], gpus=8, network=["lo"], hugepages_mib=10256, memlock_unlimited=True
)


@pytest.mark.parametrize(
    ("change", "expected", "says"),
    [
        ({"efa": [], "uverbs": 0, "gpudirect": []}, None, "EFA devices: 0, wanted at least 1"),
        ({}, 32, "EFA devices: 1, wanted 32"),
        ({"uverbs": 0}, None, "EFA device files: 0, wanted 1"),
        ({"memlock_unlimited": False}, None, "locked memory: limited, wanted unlimited"),
        ({"gpudirect": []}, None, "GPUDirect: 0 of 1 devices"),
    ],
)
def test_efa_that_cannot_be_used_is_refused(change: dict[str, object], expected: int | None, says: str) -> None:
    present = replace(EFA, **change)  # type: ignore[arg-type]
    with pytest.raises(Unusable) as caught:
        decide("efa", "gpu", present, efa_expected=expected)
    assert says in str(caught.value)
    allowed = decide("efa", "gpu", present, efa_expected=expected, allow_tcp=True)
    assert (allowed.wanted, allowed.fabric, allowed.backend) == ("efa", "tcp", "UCX")
    assert allowed.environment["UCX_TCP_USER_TIMEOUT"] == "5s"
    assert "wanted efa" in allowed.block()


def test_few_huge_pages_are_a_warning_and_not_used() -> None:
    decision = decide("efa", "gpu", replace(EFA, hugepages_mib=0))
    assert decision.environment["FI_EFA_USE_HUGE_PAGE"] == "0"
    assert [check.name for check in decision.checks if check.state == "warning"] == ["huge pages"]


def test_the_other_fabrics(tmp_path: Path) -> None:
    present = look(machine(tmp_path, mellanox=2, gpus=2))
    assert decide("infiniband", "gpu", present).environment["UCX_TLS"].startswith("rc")
    local = decide("local", "gpu", present)
    assert (local.connector, "cuda_ipc" in local.environment["UCX_TLS"]) == ("NixlPushConnector", True)
    with pytest.raises(Unusable, match="GPUs: 1, wanted at least 2"):
        decide("local", "gpu", replace(present, gpus=1))
    with pytest.raises(Unusable, match="InfiniBand devices: none"):
        decide("infiniband", "gpu", replace(present, infiniband=[]))
    with pytest.raises(ValueError, match="try efa, local, infiniband, tcp"):
        decide("ethernet", "gpu", present)


def test_tcp_takes_the_device_of_the_address() -> None:
    present = look()
    decision = decide("tcp", "cpu", present, address="127.0.0.1")
    assert decision.environment == {"UCX_TLS": "tcp", "UCX_TCP_USER_TIMEOUT": "5s", "UCX_NET_DEVICES": "lo"}
    with pytest.raises(Unusable, match=r"network devices: eth77, wanted of: .*lo"):
        decide("tcp", "cpu", present, net_devices="eth77")
    with pytest.raises(Unusable, match=r"network device of 192\.0\.2\.1: none"):
        decide("tcp", "cpu", present, address="192.0.2.1")


def test_it_runs_alone_on_a_bare_node(tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", fabric.__file__, "--root", str(machine(tmp_path, gpus=1))]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 1
    assert json.loads(refused.stdout)["unusable"]["checks"][0]["name"] == "EFA devices"
    usable = subprocess.run([*command, "--wanted", "tcp"], capture_output=True, text=True)
    assert (usable.returncode, json.loads(usable.stdout)["decision"]["backend"]) == (0, "UCX")


def test_the_file_is_python_3_9() -> None:
    import ast

    ast.parse(Path(fabric.__file__).read_text(), feature_version=(3, 9))


def test_a_container_sees_all_devices_and_opens_its_own(tmp_path: Path) -> None:
    root = machine(tmp_path, efa=16, gpus=8)
    for number in range(2, 16):
        (root / f"dev/infiniband/uverbs{number}").unlink()
    present = replace(look(root), memlock_unlimited=True)
    assert decide("efa", "gpu", present, efa_expected=16, efa_given=2).fabric == "efa"
    with pytest.raises(Unusable, match="EFA device files: 2, wanted 16"):
        decide("efa", "gpu", present, efa_expected=16)
    with pytest.raises(Unusable, match="EFA device files: 2, wanted 4"):
        decide("efa", "gpu", present, efa_expected=16, efa_given=4)


def test_huge_pages_are_those_of_the_container(tmp_path: Path) -> None:
    root = machine(tmp_path, efa=1, gpus=1)
    limit = root / "sys/fs/cgroup/hugetlb.2MB.max"
    limit.parent.mkdir(parents=True)
    for says, mib in (("max", 10256), (str(5120 << 20), 5120), ("0", 0)):
        limit.write_text(says + "\n")
        assert look(root).hugepages_mib == mib
    decision = decide("efa", "gpu", replace(look(root), memlock_unlimited=True))
    assert decision.environment["FI_EFA_USE_HUGE_PAGE"] == "0"
