"""The rendered settings made wrong in one place each: dropped or misspelt, a job no longer does the same.

Run on the stand-ins of slurm_stand_in.py; directives are tried on a real sbatch by tests/slurm.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

from tests.deploy import slurm_stand_in
from tests.deploy.test_slurm import FULL, run, script

_SETTING = re.compile(r"^(?:declare -A )?([a-z_]+)=")
# A setting whose absence means the same here: nothing in it. Others of these tests have something there.
_EMPTY = re.compile(r"=\(\)$")
RECIPE = (
    FULL.replace("fsx/adapters", "a")
    .replace("replicas: 5", "replicas: 2")
    .replace("{replicas: 2, instance_type: ml.p5en", "{instance_type: ml.p5en")
)


def settings(text: str) -> list[int]:
    """Numbers of the lines between the directives and the recipe that set something, and of the container's."""
    lines = text.splitlines()
    end = next(n for n, line in enumerate(lines) if line.startswith("recipe() {"))
    inside = [n for n, line in enumerate(lines[:end]) if line.startswith("  --")]
    return [n for n, line in enumerate(lines[:end]) if _SETTING.match(line) and not _EMPTY.search(line)] + inside


def outcome(text, folder, groups, job) -> tuple[int, str, bool]:
    """What came of a script, the job's id left out."""
    ran = slurm_stand_in.run(text, folder, groups, job)
    return ran.code, repr(ran.tasks).replace(f"-{job}/", "-JOB/"), "ending" in ran.log


def test_every_setting_is_noticed_when_it_is_wrong(tmp_path, load):
    """A container, keys, a token, several workers on a node, a worker of several nodes."""
    file = load(RECIPE)
    for name in ("keys.json", "token"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o600)
    (tmp_path / "shared").mkdir(mode=0o700)
    given = [f"folder={tmp_path}/shared", f"cache_folder={tmp_path}/c", f"keys_file={tmp_path}/keys.json"]
    text = script(file, [*given, f"hf_token_file={tmp_path}/token", "restarts=0"])
    groups = [1, 2]
    right = outcome(text, tmp_path, groups, 100)
    assert right[0] == 0
    lines = text.splitlines(keepends=True)
    wrong: dict[str, str] = {}
    for number in settings(text):
        line, name = lines[number], _SETTING.match(lines[number])
        misspelt = line.replace("=", "x=", 1) if "=" in line else line.replace("--", "--x", 1)
        for what, changed in {"drop": "", "misspell": misspelt}.items():
            called = name.group(1) if name else line.strip()
            wrong[f"{what} {called}"] = "".join([*lines[:number], changed, *lines[number + 1 :]])
    with ThreadPoolExecutor(4) as pool:
        came = pool.map(outcome, wrong.values(), repeat(tmp_path), repeat(groups), range(101, 101 + len(wrong)))
    unnoticed = [name for name, outcome_ in zip(wrong, came, strict=True) if outcome_ == right]
    print(f"\n{len(wrong)} wrong scripts")
    # The first shows with a gateway beside its engines alone: test_slurm_ends; the others only where a file is open
    # to others: test_what_others_may_write_or_read_is_refused.
    assert unnoticed == ["drop admin_port", "misspell admin_port", "drop secrets", "misspell secrets"]


def test_a_failure_is_tried_again_as_often_as_is_said(tmp_path, load):
    ran, _ = run(load("tiny-cpu-aggregated"), tmp_path, "restarts=1", code=4)
    failed = [ran.log.count(f"{name} failed with exit code 4") for name in ("aggregated-0", "gateway", "endpoints")]
    assert max(failed) == 2
    assert ran.code == 4


def _bare(folder):
    return [f"folder={folder}/shared", "mode=bare", f"python={folder}/bin/python3", "restarts=1"]


def test_a_changed_recipe_is_noticed(tmp_path, load):
    file = load("tiny-cpu-aggregated")
    (tmp_path / "shared").mkdir(mode=0o700)
    text = script(file, _bare(tmp_path))
    ran = slurm_stand_in.run(text.replace("max-num-seqs: 32", "max-num-seqs: 33"), tmp_path, [1])
    assert (ran.code, ran.tasks) == (1, ())
    assert "the recipe in this script is not what was rendered; render it again" in ran.log
