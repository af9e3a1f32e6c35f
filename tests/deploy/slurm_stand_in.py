"""A rendered job run without Slurm: stand-ins for its commands and for Python note what each task is told.

srun here refuses options that 22.05's and Pyxis' documentation do not have, starts a task for each node, and ends
as they do; scontrol knows the nodes of an allocation. What Slurm itself makes of a script is tests/slurm's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# Options of srun the script may use: with a value, and alone.
_KNOWN = {
    *("job-name", "het-group", "nodelist", "nodes", "ntasks", "ntasks-per-node", "kill-on-bad-exit", "cpu-bind"),
    *("mpi", "input", "chdir", "output", "open-mode", "container-image", "container-mounts", "container-workdir"),
}
_FLAGS = {"overlap", "no-container-mount-home", "no-container-remap-root", "no-container-entrypoint"}
_SRUN = f"""#!{sys.executable} -SE
import os, pathlib, subprocess, sys
words, options = sys.argv[1:], {{}}
while words and words[0].startswith("--"):
    name, equals, value = words.pop(0)[2:].partition("=")
    if name not in ({_KNOWN!r} if equals else {_FLAGS!r}) or name in options:
        sys.exit(f"srun: unrecognized option '--{{name}}'")
    options[name] = value
hosts = options["nodelist"].split(",")
allocated = os.environ["STAND_IN_NODES"].split(",")
if not (len(hosts) == int(options["nodes"]) == int(options["ntasks"])) or set(hosts) - set(allocated):
    sys.exit(f"srun: Requested node configuration is not available: {{options}}")
group = options.get("het-group", "0")
if options.get("het-group") is None and "SLURM_HET_SIZE" in os.environ:
    sys.exit("srun: a component has to be named here")
if set(hosts) - set(os.environ[f"STAND_IN_GROUP_{{group}}"].split(",")):
    sys.exit(f"srun: {{hosts}} are not in component {{group}}")
codes = []
with open(options["output"], "a") as log:
    for rank, host in enumerate(hosts):
        env = {{**os.environ, "SLURM_PROCID": str(rank), "SLURM_STEP_ID": "0", "STAND_IN_HOST": host}}
        env["STAND_IN_SRUN"] = "\\t".join(f"{{k}}={{v}}" for k, v in options.items())
        codes.append(subprocess.run(words, env=env, stdout=log, stderr=log, cwd=options["chdir"]).returncode)
sys.exit(max(codes))
"""
_PYTHON = """#!/bin/bash
words=("$STAND_IN_HOST" "$STAND_IN_SRUN" "${HF_HOME:-}" "$@")
words=("${words[@]//$'\\n'/ }")
IFS=$'\\x01'
echo "${words[*]}" >>"$STAND_IN_TASKS"
exit "$STAND_IN_CODE"
"""
_SCONTROL = """#!/bin/bash
case "$*" in
"show hostnames "*) tr , '\\n' <<<"$3" ;;
"--oneliner show node node-"*) echo "NodeName=$4 Arch=x86_64 NodeAddr=10.0.0.${4#node-} NodeHostName=$4" ;;
*) echo "scontrol: $*" >&2; exit 1 ;;
esac
"""


@dataclass(frozen=True, slots=True)
class Task:
    """What one task was told."""

    host: str
    srun: dict[str, str]
    hf_home: str
    argv: tuple[str, ...]

    @property
    def settings(self) -> dict[str, str]:
        """--name value of a role, after -m hyperpd_runtime."""
        return dict(zip(self.argv[2::2], self.argv[3::2], strict=True))


@dataclass(frozen=True, slots=True)
class Ran:
    """How the script ended."""

    code: int
    log: str
    tasks: tuple[Task, ...]


def run(text: str, folder: Path, groups: list[int], job: int = 100, restart: int = 0, code: int = 0) -> Ran:
    """Run the script. groups: nodes of each component; folder has `shared` in it; code: what every task ends with."""
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    for name, body in {"srun": _SRUN, "scontrol": _SCONTROL, "python3": _PYTHON, "squeue": "#!/bin/bash\n"}.items():
        if not (tools / name).exists():
            (tools / name).write_text(body)
            (tools / name).chmod(0o755)
    names = iter(range(1, sum(groups) + 1))
    lists = [",".join(f"node-{next(names)}" for _ in range(count)) for count in groups]
    tasks = folder / f"tasks-{job}-{restart}"
    tasks.unlink(missing_ok=True)
    env = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "HOME": str(folder),
        "SLURM_JOB_ID": str(job),
        "SLURM_JOB_NODELIST": lists[0],
        "STAND_IN_NODES": ",".join(lists),
        "STAND_IN_TASKS": str(tasks),
        "STAND_IN_CODE": str(code),
        "HYPERPD_ROLE": "node",  # of who submits it: not the job's
    }
    env |= {f"STAND_IN_GROUP_{number}": nodes for number, nodes in enumerate(lists)}
    if len(groups) > 1:
        env |= {f"SLURM_JOB_NODELIST_HET_GROUP_{number}": nodes for number, nodes in enumerate(lists)}
        env |= {f"SLURM_JOB_ID_HET_GROUP_{number}": str(job + number) for number in range(len(groups))}
        env["SLURM_HET_SIZE"] = str(len(groups))
    if restart:
        env["SLURM_RESTART_COUNT"] = str(restart)
    script = folder / f"job-{job}.sh"
    script.write_text(text)
    ran = subprocess.run(["bash", str(script)], env=env, capture_output=True, text=True, timeout=120)
    lines = tasks.read_text().splitlines() if tasks.exists() else []
    return Ran(ran.returncode, ran.stdout + ran.stderr, tuple(sorted(map(_task, lines), key=lambda task: task.argv)))


def _task(line: str) -> Task:
    host, srun, hf_home, *argv = line.split("\x01")
    return Task(host, dict(word.split("=", 1) for word in srun.split("\t")), hf_home, tuple(argv))
