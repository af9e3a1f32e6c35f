"""kill -9 at any call, before and after its effect, then the same command again: nothing doubled, nothing lost."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hyperpd.cluster.names import Names, Place
from tests.cluster.files import written
from tests.cluster.warm import Warm
from tests.fakes.gate import ACCOUNT, REGION
from tests.fakes.hyperpod import Cut

KILLS = 50  # at least; every call of a create has two
SEED = int(os.environ.get("HYPERPD_SEED", "20261125"))


@pytest.fixture
def here(account: Any) -> Any:
    return account()


@pytest.fixture
def warm(here: Any, tmp_path: Path) -> Iterator[Warm]:
    found = Warm(here.aws.environment, tmp_path / "out")
    yield found
    found.close()


def state(here: Any, name: str) -> dict[str, Any]:
    """All that is there of a cluster, its name left out."""
    names = Names(name, Place(ACCOUNT, REGION))
    s3, iam = here.aws.stage.client("s3"), here.aws.stage.client("iam")
    made = here.made()
    found: dict[str, Any] = {
        "clusters": made["clusters"].count(name),
        "roles": [one for one in made["roles"] if one == names.role],
        "buckets": [one for one in made["buckets"] if one == names.bucket],
    }
    if found["roles"]:
        policies = iam.list_role_policies(RoleName=names.role)["PolicyNames"]
        documents = [iam.get_role_policy(RoleName=names.role, PolicyName=one)["PolicyDocument"] for one in policies]
        found |= {"role tags": iam.get_role(RoleName=names.role)["Role"]["Tags"], "policies": documents}
    if found["buckets"]:
        objects = s3.list_objects_v2(Bucket=names.bucket).get("Contents", [])
        found |= {
            "keys": sorted((one["Key"], one["Size"]) for one in objects),
            "bucket tags": s3.get_bucket_tagging(Bucket=names.bucket)["TagSet"],
            "public": s3.get_public_access_block(Bucket=names.bucket)["PublicAccessBlockConfiguration"],
            "bucket policy": s3.get_bucket_policy(Bucket=names.bucket)["Policy"],
        }
    if found["clusters"]:
        found["cluster"] = here.control.cluster(name).spec
    return _anonymous(found, {names.bucket: "BUCKET", name: "NAME"})


def _anonymous(value: Any, words: dict[str, str]) -> Any:
    text = repr(value)
    for word, instead in words.items():
        text = text.replace(word, instead)
    return text


@pytest.mark.parametrize(
    ("orchestrator", "given"),
    [
        pytest.param("eks", ("--no-preflight",), id="alone"),
        # An EKS cluster takes one HyperPod cluster, says preflight; and here are many.
        pytest.param("slurm", (), id="after a preflight", marks=pytest.mark.nightly),
    ],
)
def test_create_killed_at_any_call_goes_on(here, warm, tmp_path, capsys, orchestrator, given):
    def create(name: str) -> int:
        file = written(tmp_path, getattr(here, orchestrator)(name=name))
        return warm.run("cluster", "create", str(file), "--no-wait", *given)

    begin = len(here.gate.calls)
    assert create("clean-000") == 0, warm.out.read_text()
    calls = len(here.gate.calls) - begin
    wanted = state(here, "clean-000")
    kills = [(at, after) for at in range(1, calls + 1) for after in (False, True)]
    random.Random(SEED).shuffle(kills)  # no order in which one could depend on the one before
    assert len(kills) >= KILLS
    with capsys.disabled():
        print(f"\n{len(kills)} kills within {calls} calls, HYPERPD_SEED={SEED}")
    for number, (at, after) in enumerate(kills):
        name = f"kill-{number:04}"
        where = f"{name}: call {at}, {'after' if after else 'before'} its effect"
        here.gate.faults[:] = [Cut(at, after_effect=after, do=warm.kill)]
        assert create(name) == -9, f"{where}: {warm.out.read_text()}"
        here.gate.faults[:] = []
        assert create(name) == 0, f"{where}: {warm.out.read_text()}"
        assert state(here, name) == wanted, where
        ever = [one.name for one in here.control.account.clusters]  # those that are gone, too
        assert ever.count(name) == 1, where
        here.control.account.clusters.clear()  # a preflight looks at each


def test_delete_killed_at_any_call_goes_on(here, warm, tmp_path):
    def delete(name: str) -> int:
        # It does not wait for the nodes to go: the next run finds them gone.
        return warm.run("cluster", "delete", name, "--yes", "--timeout-min", "0")

    chance, most = random.Random(SEED + 1), 14
    for number in range(12):
        name, at, after = f"kill-{number:04}", chance.randint(1, most), chance.random() < 0.5
        assert (
            warm.run("cluster", "create", str(written(tmp_path, here.eks(name=name))), "--no-wait", "--no-preflight")
            == 0
        )
        here.gate.faults[:] = [Cut(at, after_effect=after, do=warm.kill)]
        first = delete(name)
        here.gate.faults[:] = []
        here.control.advance(600)
        assert first in (-9, 0, 4), warm.out.read_text()
        second = delete(name)
        here.control.advance(600)
        assert (second, delete(name)) in ((0, 0), (4, 0)), warm.out.read_text()
        assert state(here, name) == repr({"clusters": 0, "roles": [], "buckets": []}), f"{name}: call {at}, {after}"


@pytest.mark.parametrize(("operation", "after"), [("DeleteCluster", True), ("DeleteObjects", False)])
def test_delete_killed_leaves_no_files_in_a_bucket_that_the_file_names(here, warm, tmp_path, operation, after):
    """By then the cluster is gone, and only the file tells of the bucket."""
    s3 = here.aws.stage.client("s3")
    s3.create_bucket(Bucket="sagemaker-ours", CreateBucketConfiguration={"LocationConstraint": REGION})
    path = str(written(tmp_path, here.eks(bucket="sagemaker-ours")))
    assert warm.run("cluster", "create", path, "--no-wait", "--no-preflight") == 0
    here.gate.faults[:] = [Cut(1, operation, after_effect=after, do=warm.kill)]
    assert warm.run("cluster", "delete", path, "--yes") == -9, warm.out.read_text()
    here.gate.faults[:] = []
    here.control.advance(7200)
    assert here.made()["clusters"] == []
    assert here.made()["keys"] != []
    assert warm.run("cluster", "delete", path, "--yes") == 0, warm.out.read_text()
    assert here.made() == {"clusters": [], "roles": [], "buckets": ["sagemaker-ours"], "keys": []}


def test_a_process_started_anew(here, tmp_path):
    """As the others, and not forked: python -c, as the command is."""
    path = written(tmp_path, here.eks())
    command = [
        sys.executable,
        "-c",
        "from hyperpd.cli.main import main; main()",
        "cluster",
        "create",
        str(path),
        "--no-wait",
        "--no-preflight",
    ]
    running: list[subprocess.Popen[bytes]] = []
    here.gate.faults[:] = [Cut(9, do=lambda: running[0].kill())]
    running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    assert running[0].wait(120) == -9
    here.gate.faults[:] = []
    again = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0, again.stderr
    assert "cluster pd: creation sent" in again.stdout
    assert here.made()["clusters"] == ["pd"]
