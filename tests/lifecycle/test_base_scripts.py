"""Beside the public base lifecycle scripts: a stand-in of their interface, in the order that is documented.

The base scripts of HyperPod's samples are an on_create.sh that logs, finds resource_config.json and runs
lifecycle_script.py (Slurm) or on_create_main.sh (EKS). Ours lie in the same S3 prefix as hyperpd/, called
as the last line: nothing of theirs is overwritten, and their files are not looked at.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable

import pytest

from tests.lifecycle.root import SCRIPTS, Root

# The interface of the samples: logger, variable before place, exit 0 without a file, steps, set -ex.
_SLURM = """#!/bin/bash
set -ex
LOG_FILE=/var/log/provision/provisioning.log
mkdir -p /var/log/provision
touch $LOG_FILE
logger() { echo "$@" | tee -a $LOG_FILE; }
PROVISIONING_PARAMETERS_PATH=provisioning_parameters.json
if [[ -z "$SAGEMAKER_RESOURCE_CONFIG_PATH" ]]; then
  SAGEMAKER_RESOURCE_CONFIG_PATH=/opt/ml/config/resource_config.json
  [[ -f $SAGEMAKER_RESOURCE_CONFIG_PATH ]] || exit 0
fi
cd "$(dirname "$0")"
python3 -u lifecycle_script.py -rc $SAGEMAKER_RESOURCE_CONFIG_PATH -pp $PROVISIONING_PARAMETERS_PATH \\
  > >(tee -a $LOG_FILE) 2>&1
exit_code=$?
bash hyperpd/on_create.sh
"""
_LIFECYCLE = """
import argparse, json, pathlib
p = argparse.ArgumentParser()
p.add_argument("-rc"), p.add_argument("-pp")
a = p.parse_args()
groups = [g["Name"] for g in json.load(open(a.rc))["InstanceGroups"]]
assert "workers" in groups
pathlib.Path("/opt/slurm/etc").mkdir(parents=True, exist_ok=True)
conf = pathlib.Path("/opt/slurm/etc/slurm.conf")
if not conf.exists():
    conf.write_text("ClusterName=%s\\n" % json.load(open(a.pp))["version"])
print("base scripts: Slurm is up")
"""
_EKS = """#!/bin/bash
set -ex
LOG_FILE=/var/log/provision/provisioning.log
mkdir -p /var/log/provision
cd "$(dirname "$0")"
bash on_create_main.sh >>$LOG_FILE 2>&1
bash hyperpd/on_create.sh
"""
# The sample moves containerd and kubelet to the NVMe, where it is mounted.
_EKS_MAIN = """set -ex
mkdir -p /opt/dlami/nvme
mountpoint -q /opt/dlami/nvme || { mkfs.ext4 -q -F -L dlami /dev/nvme1n1; mount /dev/nvme1n1 /opt/dlami/nvme; }
mkdir -p /opt/dlami/nvme/kubelet
ln -sfn /opt/dlami/nvme/kubelet /var/lib/kubelet
"""
THEIRS = {
    "Slurm": {
        "on_create.sh": _SLURM,
        "lifecycle_script.py": _LIFECYCLE,
        "config.py": "class Config:\n    enable_docker_enroot_pyxis = True\n",
        "utils/install_docker.sh": "exit 1\n",
        "provisioning_parameters.json": json.dumps({"version": "1.0.0", "worker_groups": []}),
    },
    "Kubernetes": {"on_create.sh": _EKS, "on_create_main.sh": _EKS_MAIN},
}


@pytest.mark.parametrize("cluster", ["Slurm", "Kubernetes"])
def test_as_the_last_line_of_the_base_scripts(new_root: Callable[..., Root], cluster: str) -> None:
    root = new_root("ml.p5.48xlarge", cluster, disks=1)
    if cluster == "Slurm":
        root.config("ml.p5.48xlarge", "Slurm", SlurmConfig={"PrimaryControllerIp": root.address})
        root.write("usr/local/sbin/scontrol", "#!/bin/sh\n", 0o755)
    prefix = "tmp/bucket/prefix"
    shutil.copytree(root.root / "lcs", root.root / prefix / "hyperpd")
    for name, text in THEIRS[cluster].items():
        root.write(f"{prefix}/{name}", text, 0o755)
    first = root.run("bash", f"/{prefix}/on_create.sh")
    assert first.code == 0, first.output
    if cluster == "Slurm":
        assert first.output.index("base scripts: Slurm is up") < first.output.index("hyperpd on_create: start")
        lines = root.read("opt/slurm/etc/slurm.conf").splitlines()
        assert lines[0] == "ClusterName=1.0.0"
        assert "PropagateResourceLimitsExcept=MEMLOCK,NOFILE" in lines
    else:
        left = root.node()["left"]["10-storage"]
        assert left["mount"] == "/opt/dlami/nvme is mounted by the platform"
        assert left["/var/lib/kubelet"] == "on /opt/dlami/nvme/kubelet"
        assert root.run("readlink", "/var/lib/kubelet").output == "/opt/dlami/nvme/kubelet\n"
    second = root.run("bash", f"/{prefix}/on_create.sh")
    assert (second.code, "nothing changed" in second.last) == (0, True), second.output
    # A fault of ours is a fault of theirs, with our reason last.
    root.write("hw/sys/class/infiniband/rdmap00s0/device/vendor", "0x15b3\n")
    broken = root.run("bash", f"/{prefix}/on_create.sh")
    assert (broken.code, broken.last.startswith("EFA devices: 31, wanted 32")) == (1, True)


def test_the_newer_hook_with_files_of_the_base_scripts_around(new_root: Callable[..., Root]) -> None:
    root = new_root("ml.p6-b200.48xlarge", "Slurm", disks=1)
    for name, text in THEIRS["Slurm"].items():
        if name != "on_create.sh":  # the one name that both have: hence the folder hyperpd/
            root.write(f"lcs/{name}", text)
    run = root.run("/lcs/on_init_complete.sh")
    assert run.code == 0, run.output
    ours = {str(path.relative_to(SCRIPTS)) for path in SCRIPTS.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    installed = {
        str(path.relative_to(root.root / "opt/hyperpd/lifecycle"))
        for path in (root.root / "opt/hyperpd/lifecycle").rglob("*")
        if path.is_file()
    }
    assert installed == ours
