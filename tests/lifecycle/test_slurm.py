"""A real Slurm after the scripts have run: a job of two roles sees the fabric and the limits of its nodes."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lifecycle.root import Root, missing
from tests.netns import ADDRESSES, needs_two_hosts, two_hosts

CONTROLLER = "10.77.0.3"
SLURM_CONF = f"""\
ClusterName=hyperpd
SlurmctldHost=controller({CONTROLLER})
SlurmUser=root
AuthType=auth/munge
SlurmctldParameters=enable_configless
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
StateSaveLocation=/var/lib/slurm/slurmctld
SlurmdSpoolDir=/var/lib/slurm/slurmd
ReturnToService=2
SchedulerParameters=bf_interval=1
NodeName=node-1 NodeAddr={ADDRESSES[0]} CPUs=1 RealMemory=100
NodeName=node-2 NodeAddr={ADDRESSES[1]} CPUs=1 RealMemory=100
PartitionName=prefill Nodes=node-1 Default=YES
PartitionName=decode Nodes=node-2"""  # without a line end, as an editor may leave it
# What a role says of its task.
TASK = """echo "$0 $(hostname) FI_PROVIDER=$FI_PROVIDER HUGE=$FI_EFA_USE_HUGE_PAGE" \\
  "memlock=$(ulimit -S -l) nofile=$(ulimit -S -n)" """


class Nodes:
    """A controller and two computes, of two network namespaces."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        where = [f"/run/netns/{name}" for name in names]
        self.controller = Root(folder / "c", CONTROLLER, "i-0c", "controller", where[0])
        self.computes = [
            Root(folder / f"{number}", ADDRESSES[number - 1], f"i-0{number}", f"node-{number}", where[number - 1])
            for number in (1, 2)
        ]
        self._daemons: list[threading.Thread] = []
        self.all = [self.controller, *self.computes]
        slurm: dict[str, Any] = {"SlurmConfig": {"PrimaryControllerIp": CONTROLLER, "SecondaryControllerIps": []}}
        for root in self.all:
            name = "ml.m5.xlarge" if root is self.controller else "ml.p5.48xlarge"
            root.hardware(name, disks=1)
            root.config(name, "Slurm", **slurm)
            root.boot()
            root.write("etc/munge/munge.key", "0123456789abcdef" * 8, 0o400)
            root.run("sh", "-c", "chown munge: /etc/munge/munge.key && install -d -o munge /run/munge")
            said = root.run("runuser", "-u", "munge", "--", "munged", "--force")
            assert said.code == 0, said.output
            root.run("mkdir", "-p", "/var/lib/slurm/slurmctld", "/var/lib/slurm/slurmd")
        self.controller.write("etc/slurm/slurm.conf", SLURM_CONF)

    def serve(self, root: Root, line: str, *argv: str) -> None:
        """Starts a daemon and waits until it has said `line`."""
        process = root.start(*argv)
        assert process.stdout is not None
        said = []
        for text in process.stdout:
            said.append(text)
            if re.search(line, text):
                self._daemons.append(threading.Thread(target=process.communicate))
                self._daemons[-1].start()
                return
        raise AssertionError("".join(said))

    def close(self) -> None:
        for root in self.all:
            root.close()
        for daemon in self._daemons:
            daemon.join()

    def slurmd(self, root: Root) -> None:
        """As systemd starts it: with the limits of the drop-in, up to what this machine may give."""
        drop_in = root.read("etc/systemd/system/slurmd.service.d/50-hyperpd.conf")
        assert "LimitMEMLOCK=infinity\n" in drop_in
        files = re.findall(r"^LimitNOFILE=(\d+)$", drop_in, re.M)[0]
        limits = f"ulimit -l unlimited || ulimit -l $(ulimit -H -l); ulimit -n {files} || ulimit -n $(ulimit -H -n)"
        start = f'{{ {limits}; }} 2>/dev/null; exec "$@"'
        command = ("slurmd", "-D", "--conf-server", CONTROLLER, "-N", root.host)
        self.serve(root, "slurmd started", "bash", "-c", start, "bash", *command)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    if why := missing():
        pytest.skip(why)
    with two_hosts() as hosts:
        names = [words[-1] for words in hosts]
        # The controller's own device beside node-1's; the other host reaches it through eth0.
        for words in (
            "link add eth1 type veth peer name eth2",
            f"addr add {CONTROLLER}/32 dev eth1",
            "link set eth1 up",
            "link set eth2 up",
        ):
            subprocess.run([*hosts[0], "ip", *words.split()], check=True)
        made = Nodes(tmp_path, names)
        yield made
        made.close()


@needs_two_hosts
def test_a_job_of_two_roles(nodes: Nodes) -> None:
    controller = nodes.controller
    nodes.serve(controller, "Running as primary controller", "slurmctld", "-D", "-v")
    ran = controller.run()
    assert ran.code == 0, ran.output
    conf = controller.read("etc/slurm/slurm.conf").splitlines()
    assert conf[: len(SLURM_CONF.splitlines())] == SLURM_CONF.splitlines()
    assert conf[-2:] == [
        "PropagateResourceLimitsExcept=MEMLOCK,NOFILE",
        "TaskProlog=/opt/hyperpd/lifecycle/task_prolog.sh",
    ]
    assert not [text for text in controller.node()["warnings"] if "scontrol" in text]
    assert controller.node()["node"]["controller"] == "yes"
    assert controller.node()["found"]["70-slurm"]["partitions"] == "prefill infinite 1;decode infinite 1"
    assert not [words for words in controller.asked("systemctl") if "restart" in words]
    for root in nodes.computes:
        ran = root.run("/lcs/on_init_complete.sh")
        assert ran.code == 0, ran.output
        assert root.node()["found"]["70-slurm"]["slurm.conf"] == "none on this node"
        nodes.slurmd(root)
    job = f"""
        ulimit -S -l 64
        ulimit -S -n 1024
        exec srun --export=ALL,FI_EFA_USE_HUGE_PAGE=0 \\
          -p prefill -N1 sh -c '{TASK}' prefill : -p decode -N1 sh -c '{TASK}' decode
    """
    said = controller.run("bash", "-c", job)
    assert said.code == 0, said.output
    full = controller.run("sh", "-c", "echo memlock=$(ulimit -H -l) nofile=$(ulimit -H -n)").output.strip()
    assert sorted(line for line in said.output.splitlines() if "srun: " not in line) == [
        f"decode node-2 FI_PROVIDER=efa HUGE=0 {full}",
        f"prefill node-1 FI_PROVIDER=efa HUGE=0 {full}",
    ]
    assert "nothing changed" in controller.run().last


@pytest.mark.parametrize("edit", ["yes", "no"])
def test_lines_of_others_stay(tmp_path: Path, new_root: Callable[..., Root], edit: str) -> None:
    root = new_root("ml.m5.xlarge", "Slurm")
    root.config("ml.m5.xlarge", "Slurm", SlurmConfig={"PrimaryControllerIp": root.address})
    root.options(f"HYPERPD_SLURM_EDIT={edit}")
    text = "# TaskProlog=/old\ntaskprolog = /theirs.sh # comment\n"
    root.write("opt/slurm/etc/slurm.conf", text)
    root.write("usr/local/sbin/enroot", "#!/bin/sh\necho 3.5.0\n", 0o755)
    root.write("usr/local/sbin/scontrol", "#!/bin/sh\n", 0o755)
    root.write("usr/local/lib/slurm/spank_pyxis.so", "")
    assert root.run().code == 0
    added = (
        "# hyperpd: limits and fabric of the node that a task runs on\nPropagateResourceLimitsExcept=MEMLOCK,NOFILE\n"
    )
    assert root.read("opt/slurm/etc/slurm.conf") == text + (added if edit == "yes" else "")
    warnings = root.node()["warnings"]
    assert (
        "70-slurm: slurm.conf has TaskProlog=/theirs.sh; hyperpd needs /opt/hyperpd/lifecycle/task_prolog.sh"
        in warnings
    )
    found = root.node()["found"]["70-slurm"]
    assert (found["enroot"], found["pyxis"]) == ("3.5.0", "/usr/local/lib/slurm/spank_pyxis.so")
    assert ("70-slurm: add PropagateResourceLimitsExcept=MEMLOCK,NOFILE to slurm.conf" in warnings) == (edit == "no")
    assert "nothing changed" in root.run().last
