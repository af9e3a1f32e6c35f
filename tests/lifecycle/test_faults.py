"""What keeps a node out of service: exit code 1, the reason as the last line, node.json; then mended and run again."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from hyperpd.instances import find
from tests.lifecycle.root import Root

NewRoot = Callable[..., Root]
LOG = "var/log/provision/provisioning.log"


def refused(root: Root, step: str, *words: str) -> None:
    """Runs on_create.sh, which ends with the step's reason on both logs and in node.json."""
    run = root.run()
    assert run.code == 1, run.output
    last = run.output.rstrip("\n").split("\n")[-1]
    assert f"hyperpd {step}: " in last
    assert all(word in last for word in words), last
    assert root.read(LOG).rstrip("\n").split("\n")[-1] == last
    node = root.node()
    assert (node["status"], node["step"]) == ("fault", step)
    assert node["reason"] == run.last
    assert not list(root.root.glob("etc/**/*.hyperpd-new"))


def mended(root: Root) -> None:
    run = root.run()
    assert run.code == 0, run.output
    assert (root.node()["status"], root.node()["reason"]) == ("warnings", "")
    assert "nothing changed" in root.run().last


def test_no_resource_config(new_root: NewRoot) -> None:
    root = new_root(disks=1)
    (root.root / "opt/ml/config/resource_config.json").unlink()
    refused(root, "identify", "no resource_config.json at /opt/ml/config/resource_config.json")
    root.config("ml.p5.48xlarge")
    elsewhere = root.run(SAGEMAKER_RESOURCE_CONFIG_PATH="/somewhere.json")
    assert (elsewhere.code, "at /somewhere.json" in elsewhere.last) == (1, True)  # its variable before its place
    mended(root)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"ClusterType": "Slurm", ', "resource_config.json is not JSON"),
        ("[]", "has no InstanceGroups"),
        ('{"InstanceGroups": []}', "has no InstanceGroups"),
        ('{"InstanceGroups": [{"Name": "a", "Instances": null}]}', "in no instance group of resource_config.json: a"),
    ],
)
def test_a_wrong_resource_config(new_root: NewRoot, text: str, reason: str) -> None:
    root = new_root(disks=1)
    root.write("opt/ml/config/resource_config.json", text)
    refused(root, "identify", reason)


def test_an_unknown_group(new_root: NewRoot) -> None:
    root = new_root(disks=1)
    root.write("hw/sys/devices/virtual/dmi/id/board_asset_tag", "i-0ffffffffffffffff\n")
    other = {"Name": "other", "InstanceType": "ml.m5.xlarge", "Instances": [{"CustomerIpAddress": "10.77.0.9"}]}
    root.config("ml.p5.48xlarge", InstanceGroups=[other])
    refused(root, "identify", "i-0ffffffffffffffff, 10.77.0.1", "in no instance group", ": other")
    root.config("ml.p5.48xlarge")  # found by its address
    mended(root)


def test_an_unknown_orchestrator(new_root: NewRoot) -> None:
    root = new_root(disks=1)
    root.config("ml.p5.48xlarge", ClusterType="Nomad")
    refused(root, "identify", "ClusterType 'Nomad'", "HYPERPD_ORCHESTRATOR")
    root.options("HYPERPD_ORCHESTRATOR=eks")
    mended(root)


@pytest.mark.parametrize("count", [0, 31])
def test_too_few_efa_devices(new_root: NewRoot, count: int) -> None:
    root = new_root(efa=count, disks=1)
    refused(root, "30-efa", f"EFA devices: {count}, wanted 32")
    assert root.node()["node"]["type"] == "ml.p5.48xlarge"
    root.options("HYPERPD_EFA=warn")
    assert root.run().code == 0
    assert any(f"EFA devices: {count}, wanted 32" in text for text in root.node()["warnings"])
    assert "HYPERPD_NODE_FABRIC=tcp" in root.read("etc/hyperpd/fabric.env")  # said, not silent
    root.options()
    root.hardware("ml.p5.48xlarge", disks=0)
    mended(root)


def test_efa_that_libfabric_does_not_see(new_root: NewRoot) -> None:
    root = new_root(disks=1)
    root.write("opt/amazon/efa/bin/fi_info", "#!/bin/sh\n[ $1 = --version ]\n", 0o755)
    refused(root, "30-efa", "fi_info -p efa -t FI_EP_RDM finds nothing")


def test_efa_that_cannot_read_gpu_memory(new_root: NewRoot) -> None:
    root = new_root("ml.g6e.8xlarge")
    root.write("hw/sys/class/infiniband/rdmap00s0/device/p2p", "none\n")
    refused(root, "30-efa", "GPUDirect: 0 of 1 devices")
    assert root.asked("modprobe")[-2:] == ["efa_nv_peermem", "nvidia-peermem"]


def test_nvme_never_appears(new_root: NewRoot) -> None:
    root = new_root(disks=0)
    root.options("HYPERPD_NVME_WAIT_S=1")
    refused(root, "10-storage", "no NVMe after 1 s; ml.p5.48xlarge has 30400 GB")
    root.shut_down()
    root.add_nvme(1)
    mended(root)


def test_nvme_that_holds_something_else(new_root: NewRoot) -> None:
    root = new_root(disks=1)
    root.run("mkfs.ext4", "-q", "-L", "precious", "/dev/nvme1n1")
    refused(root, "10-storage", "/dev/nvme1n1 holds precious ext4", "not formatted")
    assert "precious" in root.run("blkid", "/dev/nvme1n1").output


def test_a_platform_service_that_failed_is_a_warning(new_root: NewRoot) -> None:
    root = new_root(disks=1)
    root.write("hw/dlami", "failed")
    assert root.run().code == 0
    assert "10-storage: dlami-nvme.service is failed with exit status 1" in root.node()["warnings"]


def test_files_with_carriage_returns(new_root: NewRoot) -> None:
    root = new_root(disks=1)
    root.options("HYPERPD_SOMAXCONN=20000", "# a comment", "")
    plain = {}
    for path in [*root.root.joinpath("lcs").rglob("*"), root.root / "opt/ml/config/resource_config.json"]:
        if path.is_file():
            plain[path] = path.read_bytes()
            path.write_bytes(plain[path].replace(b"\n", b"\r\n"))
    for hook in ("/lcs/on_create.sh", "/lcs/on_init_complete.sh"):
        run = root.run(hook)
        assert run.code == 0, run.output
    assert "nothing changed" in run.last
    assert root.sysctl("net.core.somaxconn") == "20000"
    for path, content in plain.items():
        if path.is_relative_to(root.root / "lcs"):
            installed = root.root / "opt/hyperpd/lifecycle" / path.relative_to(root.root / "lcs")
            assert installed.read_bytes() == content
    assert not [
        name for name, about in root.files().items() if name.startswith("etc/") and b"\r" in str(about).encode()
    ]


def test_every_wrong_option_at_once(new_root: NewRoot) -> None:
    root = new_root(disks=1)
    root.options("HYPERPD_EFA=maybe", "HYPERPD_COLOUR=red", "rm -rf /")
    run = root.run()
    assert run.code == 1
    assert (
        "HYPERPD_EFA=maybe is not one of require|warn; HYPERPD_COLOUR is no option; rm -rf / is no option" in run.last
    )


@pytest.mark.parametrize("full", ["opt/hyperpd", "etc/hyperpd"])
def test_a_full_disk(new_root: NewRoot, full: str) -> None:
    root = new_root(disks=1)
    root.boot()
    root.run("mkdir", "-p", f"/{full}")
    root.run("mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", f"/{full}")
    root.run("sh", "-c", f"head -c 1M /dev/zero >/{full}/filler")
    run = root.run()
    assert run.code == 1
    assert run.last.startswith(f"cannot write /{full}/")
    assert run.last.endswith("No space left on device")
    # /run has what /etc cannot take, where there was room for the scripts.
    if full.startswith("etc"):
        assert '"status": "fault"' in root.run("cat", "/run/hyperpd/node.json").output
    else:
        assert not (root.root / "etc/hyperpd/node.json").exists()
    assert root.run("umount", f"/{full}").code == 0
    mended(root)


@pytest.mark.parametrize(
    ("step", "before"),
    [("10-storage", "mount -o noatime"), ("20-limits", "systemctl daemon-reload"), ("50-network", "put /etc/sysctl.d")],
)
def test_a_step_killed_midway(new_root: NewRoot, step: str, before: str) -> None:
    """SIGKILL right before `before`; the next run finds half the work and completes it."""
    root = new_root("ml.g6e.8xlarge")
    script = root.root / f"lcs/steps/{step}.sh"
    text = script.read_text()
    assert before in text
    script.write_text(text.replace(before, f"kill -KILL $$; {before}", 1))
    refused(root, step, f"ended with {128 + signal.SIGKILL}")
    script.write_text(text)
    mended(root)
    if step == "20-limits":  # the drop-in was written, and systemd not told
        assert "try-restart --no-block containerd.service" in root.asked("systemctl")


def test_the_whole_run_killed_midway(new_root: NewRoot) -> None:
    root = new_root("ml.g6e.8xlarge")
    script = root.root / "lcs/steps/40-fabric.sh"
    text = script.read_text()
    # The step's parents: timeout, the hook.
    script.write_text(
        text.replace("begin_step\n", "begin_step\nkill -KILL $(cut -d' ' -f4 /proc/$PPID/stat) $PPID $$\n")
    )
    killed = root.run()
    assert killed.code in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert not (root.root / "etc/hyperpd/node.json").exists()
    script.write_text(text)
    mended(root)


def test_sigterm_lets_the_step_end_and_says_so(new_root: NewRoot) -> None:
    root = new_root("ml.g6e.8xlarge")
    script = root.root / "lcs/steps/40-fabric.sh"
    text = script.read_text()
    script.write_text(text.replace("begin_step\n", "begin_step\nkill -TERM $(cut -d' ' -f4 /proc/$PPID/stat)\n"))
    refused(root, "40-fabric", "ended by SIGTERM")
    assert "FI_PROVIDER=efa" in root.read("etc/hyperpd/fabric.env")
    script.write_text(text)
    mended(root)


def test_a_step_without_end(new_root: NewRoot) -> None:
    root = new_root(disks=1)
    root.write("lcs/steps/15-endless.sh", "sleep infinity\n", 0o755)
    run = root.run(HYPERPD_STEP_LIMIT_S="5")
    assert (run.code, run.last) == (1, "not done after 5 s")


def test_the_log_has_time_to_be_shipped(new_root: NewRoot) -> None:
    root = new_root(disks=1)
    (root.root / "opt/ml/config/resource_config.json").unlink()
    root.write("lcs/hyperpd.env", "")
    root.write("usr/local/sbin/sleep", '#!/bin/sh\necho "slept $*" >/run/slept\n', 0o755)
    assert root.run().code == 1
    assert root.run("cat", "/run/slept").output == "slept 60\n"


def test_a_part_of_the_folder_is_missing(new_root: NewRoot) -> None:
    root = new_root(disks=1)
    (root.root / "lcs/fabric.py").unlink()
    run = root.run()
    assert (run.code, run.last) == (1, "fabric.py is missing in /lcs; upload the whole folder")
    (root.root / "lcs/lib.sh").unlink()
    run = root.run()
    assert (run.code, "lib.sh is missing" in run.output) == (1, True)


def test_the_doctor_of_a_bare_node(new_root: NewRoot, tmp_path: Path) -> None:
    root = new_root(disks=1)
    doctor = ("python3", "-B", "/lcs/check_fabric.py", "--hardware", "/hw")
    none = root.run(*doctor)
    assert (none.code, "failed  node.json: none" in none.output) == (1, True)
    assert root.run().code == 0
    root.write("etc/hyperpd/fabric.env", "FI_PROVIDER=tcp\n")
    (root.root / "hw/sys/class/infiniband/rdmap00s0/device/vendor").write_text("0x15b3\n")
    said = root.run(*doctor)
    assert said.code == 1
    assert f"failed  EFA devices: 31 (wanted {find('ml.p5.48xlarge').efa})" in said.output


def test_an_address_without_a_device_is_a_warning(new_root: NewRoot) -> None:
    root = new_root("ml.m5.2xlarge")
    root.address = "10.77.0.200"  # in the file; the machine has been given another
    root.boot()
    root.run("sh", "-c", "ip addr add 10.77.0.1/24 dev eth0 && ip addr del 10.77.0.200/24 dev eth0")
    root.config("ml.m5.2xlarge")
    assert root.run().code == 0
    assert any("network device of 10.77.0.200: none" in text for text in root.node()["warnings"])
    assert "UCX_NET_DEVICES" not in root.read("etc/hyperpd/fabric.env")


def test_two_hooks_at_once(new_root: NewRoot) -> None:
    root = new_root("ml.g6e.8xlarge")
    root.boot()
    hooks = [root.start(f"/lcs/{name}.sh") for name in ("on_create", "on_init_complete")]
    outputs = [hook.communicate()[0] for hook in hooks]
    assert [hook.returncode for hook in hooks] == [0, 0], outputs
    assert sum("nothing changed" in output for output in outputs) == 1


def test_options_that_let_a_node_serve_without(new_root: NewRoot) -> None:
    root = new_root(disks=0, efa=0)
    root.options("HYPERPD_NVME=warn", "HYPERPD_FABRIC=tcp", "HYPERPD_EFA=warn")
    assert root.run().code == 0
    warnings = "\n".join(root.node()["warnings"])
    assert "10-storage: no NVMe after 0 s" in warnings
    assert "30-efa: EFA devices: 0, wanted 32" in warnings
    assert root.node()["set"]["10-storage"] == {"data": "/var/lib/hyperpd"}
    assert "UCX_TLS=tcp,cuda_copy" in root.read("etc/hyperpd/fabric.env")
    said = root.run("python3", "-B", "/lcs/check_fabric.py", "--hardware", "/hw")
    assert (said.code, "as decided" in said.output) == (0, True), said.output
