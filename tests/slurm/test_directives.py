"""What the real sbatch makes of the rendered directives: each means what it should, and is missed when it is wrong.

Jobs are held: none starts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperpd import deploy, recipe
from tests.slurm.cluster import Slurm

PAIR = (
    "tiny-cpu-1p1d",
    ["mode=bare", "python=/x/python", "prefill_partition=first", "decode_partition=second", "account=research"],
)
GPU = ("gpt-oss-20b-g6e-1p1d", ["image=r.example/h:1", "cache_folder=/fsx/cache"])
# What scontrol does not show: tests/slurm/test_serving.py sees a log that goes on, and a job that ends in time.
UNSEEN = {"first open-mode", "first signal"}
# What the second part takes from the first, as sbatch 22.05 does; the script says it in both.
TAKEN = {f"second {name}" for name in ("requeue", "time", "account", "mem")}


@pytest.fixture(params=[PAIR, GPU], ids=["cpu", "gpu"])
def script(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    name, settings = request.param
    file = recipe.load(name)
    given = [f"folder={tmp_path}", "time=1:00:00", *settings]
    return deploy.texts(deploy.render(file, "slurm", given), file, given)["job.sh"]


def submitted(cluster: Slurm, text: str, folder: Path) -> list[dict[str, str]]:
    """What Slurm has of each part of the job, but ids and times; nothing where sbatch refuses it."""
    path = folder / "job.sh"
    path.write_text(text)
    said = cluster.run("sbatch", "--parsable", "--hold", str(path), check=False).strip()
    if not said.isdigit():
        return []
    parts = [dict(cluster.show(said, part)) for part in range(cluster.parts(said))]
    cluster.run("scancel", said)
    shown = ("JobName", "Account", "Partition", "NumNodes", "NumTasks", "CPUs/Task", "NtasksPerN:B:S:C", "Requeue")
    shown += ("TimeLimit", "OverSubscribe", "MinMemoryNode", "StdOut", "TRES", "HetJobOffset")
    return [{key: re.sub(r"-\d+\.log$", "-ID.log", part.get(key, "")) for key in shown} for part in parts]


def wrong(text: str) -> Iterator[tuple[str, str]]:
    """Each directive dropped, and misspelt."""
    lines, part = text.splitlines(keepends=True), "first"
    for number, line in enumerate(lines):
        if line.startswith("#SBATCH"):
            name = line.split()[1].removeprefix("--").partition("=")[0]
            misspelt = line.replace(name, name + name[-1] * 2, 1)
            part = "second" if name == "hetjob" else part
            for what, changed in (("drop", ""), ("misspell", misspelt)):
                yield f"{what} {part} {name}", "".join([*lines[:number], changed, *lines[number + 1 :]])


def test_every_directive_is_missed_when_it_is_wrong(cluster: Slurm, script: str, tmp_path: Path) -> None:
    right = submitted(cluster, script, tmp_path)
    print("\n" + "\n".join(str(part) for part in right))
    assert len(right) == 2
    assert submitted(cluster, script, tmp_path) == right
    for part in right:
        assert (part["Requeue"], part["TimeLimit"], part["NumNodes"]) == ("1", "01:00:00", "1-1")
        assert part["OverSubscribe"] == ("NO" if "--exclusive" in script else "OK")
    made = list(wrong(script))
    unnoticed = {name for name, text in made if submitted(cluster, text, tmp_path) == right}
    assert {name for name in unnoticed if name.startswith("misspell")} == set()
    said = {name.partition(" ")[2] for name in unnoticed}
    print(f"{len(made)} wrong scripts; dropped unseen: {sorted(said)}")
    assert said <= UNSEEN | TAKEN
