"""A real Slurm on one machine: a controller, and slurmd on hosts of their own (tests/netns.py), as root."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.netns import hosts
from tests.real.fleet import until

CONTROLLER = "10.77.0.254"  # this process's own leg of the switch
NODES = ("node-1", "node-2")
KILL_WAIT_S = 20
# Nodes say to have more CPUs than there are, so that two jobs fit on each. linuxproc: no cgroups of our own here.
CONF = """\
ClusterName=hyperpd
SlurmctldHost={host}({controller})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerNode=1000
JobRequeue=0
SlurmdParameters=config_overrides
SchedulerParameters=bf_interval=1,sched_interval=1
KillWait={kill_wait_s}
ReturnToService=2
MailProg=/bin/true
StateSaveLocation={folder}/ctld
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
{nodes}
PartitionName=all Nodes=node-1,node-2 Default=YES
PartitionName=first Nodes=node-1
PartitionName=second Nodes=node-2
"""


def missing() -> str:
    """Why nothing can run here, or ""."""
    if os.geteuid() != 0:
        return "root is needed"
    tools = [name for name in ("slurmctld", "slurmd", "sbatch", "munged", "ip", "nsenter") if not shutil.which(name)]
    return f"{', '.join(tools)} missing" if tools else ""


@dataclass
class Slurm:
    """The running cluster. `run` is a command of its user on the login node, which is this machine."""

    folder: Path
    namespaces: tuple[str, ...]

    def run(self, *argv: str, check: bool = True, **environment: str) -> str:
        env = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"), **environment}
        ran = subprocess.run(argv, env=env, capture_output=True, text=True)
        assert not check or ran.returncode == 0, f"{' '.join(argv)}: {ran.stdout}{ran.stderr}"
        return ran.stdout + ran.stderr

    def submit(self, script: Path, *options: str, **environment: str) -> str:
        """A job's id."""
        return self.run("sbatch", "--parsable", *options, str(script), **environment).strip()

    def state(self, job: str) -> str:
        """What slurmctld says of a job's first part, as in RUNNING."""
        return self.show(job)["JobState"]

    def show(self, job: str, part: int = 0) -> Mapping[str, str]:
        """A part of a job as scontrol shows it."""
        blocks = self.run("scontrol", "show", "job", job).strip().split("\n\n")
        return dict(word.partition("=")[::2] for word in blocks[part].split() if "=" in word)

    def run_time_s(self, job: str) -> int:
        """How long a job has run, of less than a day."""
        hours, minutes, seconds = map(int, self.show(job)["RunTime"].split(":"))
        return (hours * 60 + minutes) * 60 + seconds

    def parts(self, job: str) -> int:
        """How many components a job has."""
        return len(self.run("scontrol", "show", "job", job).strip().split("\n\n"))

    def ended(self, job: str, timeout_s: float = 90) -> str:
        """Wait for a job's end; its last state."""
        until(lambda: self.state(job) not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING"), timeout_s)
        until(lambda: not self.run("squeue", "--noheader", "--states=all", "--format=%t").count("CG"), timeout_s)
        return self.state(job)

    def processes(self) -> list[str]:
        """The command of every process of the hosts, but slurmd's own."""
        found = []
        for name in self.namespaces:
            for pid in subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split():
                with contextlib.suppress(OSError):
                    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
                    if words[0] and not words[0].endswith("slurmd"):
                        found.append(f"{name} {pid} {' '.join(words)}")
        return found

    @staticmethod
    def job_of(process: str) -> str:
        """The job that a line of `processes` belongs to, or ""."""
        with contextlib.suppress(OSError):
            for word in Path(f"/proc/{process.split()[1]}/environ").read_bytes().decode().split("\0"):
                if word.startswith("SLURM_JOB_ID="):
                    return word.partition("=")[2]
        return ""

    def ports(self) -> list[str]:
        """Every listening port of the hosts, but slurmd's own."""
        found = []
        for name in self.namespaces:
            command = ["nsenter", f"--net=/run/netns/{name}", "ss", "-Hltn"]
            lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
            found += [f"{name} {line.split()[3]}" for line in lines if not line.split()[3].endswith(":6818")]
        return found

    def bytes_out(self, node: int) -> int:
        """Bytes that a host has sent over its veth."""
        command = ["nsenter", f"--net=/run/netns/{self.namespaces[node]}", "cat", "/proc/net/dev"]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        (line,) = (line for line in lines if line.strip().startswith("eth0:"))
        return int(line.split(":")[1].split()[8])


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """A cluster of two idle nodes."""
    host = socket.gethostname().split(".")[0]
    nodes = "\n".join(
        f"NodeName={name} NodeAddr=10.77.0.{n} CPUs=16 RealMemory=64000" for n, name in enumerate(NODES, 1)
    )
    for name in ("munge", "ctld", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir()
    (folder / "munge").chmod(0o755)
    (folder / "munge" / "key").write_bytes(os.urandom(128))
    (folder / "munge" / "key").chmod(0o400)
    text = CONF.format(host=host, controller=CONTROLLER, folder=folder, nodes=nodes, kill_wait_s=KILL_WAIT_S)
    (folder / "slurm.conf").write_text(text)
    started: list[subprocess.Popen[bytes]] = []
    env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def start(name: str, *argv: str) -> None:
        with (folder / f"{name}.log").open("wb") as log:
            started.append(subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    with hosts(len(NODES)) as machines:
        names = tuple(words[-1] for words in machines)
        made = Slurm(folder, names)
        try:
            keys = ("--key-file", f"{folder}/munge/key", "--socket", f"{folder}/munge/socket")
            files = ("--pid-file", f"{folder}/munge/pid", "--seed-file", f"{folder}/munge/seed")
            logs = ("--log-file", f"{folder}/munge/log")
            start("munged", "munged", "--force", "--foreground", *keys, *files, *logs)
            until((folder / "munge" / "socket").exists, 20)
            start("slurmctld", "slurmctld", "-D", "-v")
            for name, node in zip(names, NODES, strict=True):
                inside = f"hostname {node}; exec slurmd -D -N {node}"
                start(node, "nsenter", f"--net=/run/netns/{name}", "unshare", "--uts", "sh", "-c", inside)
            until(lambda: made.run("sinfo", "-h", "-o", "%t %D", "-p", "all", check=False).split() == ["idle", "2"], 30)
            yield made
        finally:
            for process in reversed(started):
                process.terminate()
            for process in started:
                process.wait()
