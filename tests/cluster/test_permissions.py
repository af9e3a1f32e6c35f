"""hyperpd iam: every command runs with the policy that is printed for it, and uses every action of it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from hyperpd.cli.cluster import cluster
from hyperpd.cluster import Cluster, load, preflight
from hyperpd.cluster.actions import COMMANDS, Grant
from hyperpd.cluster.file import parse
from hyperpd.cluster.permissions import Scope, permissions, policy
from tests.cluster.files import SLURM, merged, written
from tests.cluster.preflight.account import BUCKET, GPU, ZONE, accounted, healthy
from tests.cluster.preflight.account import Account as Whole
from tests.cluster.preflight.broken import READS
from tests.cluster.test_deploy_permissions import RUNS as OF_DEPLOYMENTS
from tests.cluster.trial import PLACE, Trial, in_kubernetes, of, worn
from tests.fakes import kubernetes
from tests.fakes.aws.identity import Identity
from tests.fakes.gate import ACCOUNT, REGION, Cut, Fail, Gate
from tests.fakes.hyperpod import LifecycleFailure, NoCapacity

NAMED = Scope(PLACE, "pd")
# Asked for by AWS alone: no stand-in can show it.
UNSEEN = {("image mirror", "s3:ListBucket")}


def running(here: Any, **change: Any) -> Cluster:
    cluster = Cluster.create(parse(here.eks(continuous=True, **change), "c"))
    cluster.wait(poll_s=0, new=True)
    return cluster


def stacked(here: Any) -> None:
    """As if CloudFormation had made it."""
    arn = Cluster("pd").status().arn
    here.control.account.tags[arn]["aws:cloudformation:stack-name"] = "made"


def failing(trial: Trial) -> Any:
    """A cluster, made by a stack, whose next node never comes up; all that explains it has to be read."""
    here = trial.account(LifecycleFailure("decode", nodes=(1,)))
    running(here)
    stacked(here)
    return here


def plan(trial: Trial) -> None:
    with Whole() as aws:
        for name, value in aws.environment.items():
            trial.patched.setenv(name, value)
        # What may be read is the gate's to say; what may be made, IAM says: everything.
        aws._beside["iam"]["SimulatePrincipalPolicy"] = Identity(Gate()).simulate
        document = healthy(aws)
        aws.eks.clusters["prod"] = {
            "version": "1.33",
            "endpoint": aws.kubernetes,
            "accessConfig": {"authenticationMode": "API"},
        }
        aws.eks.addon("prod", "vpc-cni", "v1.1.0-eksbuild.1", enableNetworkPolicy="true")
        arn = aws.control.training_plan("may", GPU, 2, ("us-east-2a", ZONE))
        aws.stage.client("s3").put_object(Bucket=BUCKET, Key="own/on_create.sh", Body=b"#!/bin/sh\n")
        own = {"source": f"s3://{BUCKET}/own/", "on_create": "on_create.sh"}
        path = trial.file(
            document, groups={"prefill": {"training_plan": arn, "count": 1}, "gateway": {"lifecycle": own}}
        )
        trial.run(aws, of(path), path, code=4)  # an add-on that is too old
        path = trial.file(document, orchestrator={"eks": "prd"})
        trial.run(aws, of(path), path, code=2)  # no such EKS cluster: which there are
        aws.eks.addon("prod", "vpc-cni", "v1.20.4-eksbuild.2", enableNetworkPolicy="true")
        path = trial.file(accounted(aws, document))
        trial.run(aws, of(path), path)
        path = trial.file(document, role=None, bucket=None)
        made = Cluster.create(load(path))
        trial.run(aws, of(path), path)  # it is there
        made.aws.call("sagemaker", "delete_cluster", ClusterName="pd")
        aws.control.advance(7200)
        trial.run(aws, of(path), path)  # role and bucket are there


def create(trial: Trial) -> None:
    here = trial.account(Fail("InternalFailure", times=9, operation="CreateCluster"))
    path = trial.file(here.eks(continuous=True))
    trial.run(here.aws, of(path), path, code=4)
    trial.run(here.aws, of(path), path)  # role, bucket and files are there
    trial.run(here.aws, of(path), path)  # all is there
    here = trial.account(LifecycleFailure("decode"))
    here.aws.stage.client("iam").create_role(RoleName="scaler", AssumeRolePolicyDocument="{}")
    scaling = {"role": f"arn:aws:iam::{ACCOUNT}:role/scaler"}
    path = trial.file(here.eks(continuous=True, autoscaling=scaling))
    trial.run(here.aws, of(path), path, "--no-preflight", code=4)
    here = trial.account()
    here.aws.stage.client("iam").create_role(RoleName="ours", AssumeRolePolicyDocument="{}")
    lent = {"role": f"arn:aws:iam::{ACCOUNT}:role/ours", "lifecycle": {"source": "none"}}
    path = trial.file(here.eks(**lent))
    calls = trial.run(here.aws, of(path), path, "--no-preflight")
    assert {call.service for call in calls} == {"sts", "sagemaker"}
    assert {one.action.partition(":")[0] for one in permissions(["cluster create"], of(path))} == {
        *("sagemaker", "eks", "iam", "logs"),
        *("ec2", "pricing", "servicequotas"),  # what it looks at first
    }


def status(trial: Trial) -> None:
    here = trial.account()
    running(here)
    trial.run(here.aws, NAMED, "pd")
    trial.run(here.aws, Scope(PLACE, "gone"), "gone", code=4)


def watch(trial: Trial) -> None:
    here = trial.account(LifecycleFailure("decode"))
    Cluster.create(parse(here.eks(continuous=True), "c"))
    stacked(here)
    trial.run(here.aws, NAMED, "pd", code=4)


def update(trial: Trial) -> None:
    here = failing(trial)
    path = trial.file(here.eks(continuous=True, tags={"team": "a"}, groups={"decode": {"count": 2}}))
    trial.run(here.aws, of(path), path, "--yes", code=4)
    # A bucket and a role are made where the file names none any more.
    here = trial.account()
    for name in ("ours", "scaler"):
        here.aws.stage.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument="{}")
    lent = {"role": f"arn:aws:iam::{ACCOUNT}:role/ours", "lifecycle": {"source": "none"}}
    lent = {"groups": {"prefill": lent, "decode": lent}}
    running(here, **lent)
    here.gate.faults.append(Fail("InternalFailure", times=9, operation="UpdateCluster"))
    more = {
        "autoscaling": {"role": f"arn:aws:iam::{ACCOUNT}:role/scaler"},
        "groups": {"more": {"instance_type": "ml.c5.2xlarge", "count": 1}},
    }
    path = trial.file(here.eks(continuous=True, **merged(lent, more)))
    trial.run(here.aws, of(path), path, "--yes", code=4)
    here.gate.faults.clear()
    trial.run(here.aws, of(path), path, "--yes")  # role and bucket are there


def scale(trial: Trial) -> None:
    here = failing(trial)
    trial.run(here.aws, NAMED, "pd", "decode=2", code=4)
    trial.run(here.aws, Scope(PLACE, "gone"), "gone", "decode=2", code=4)


def events(trial: Trial) -> None:
    here = trial.account()
    running(here)
    trial.run(here.aws, NAMED, "pd")
    trial.run(here.aws, Scope(PLACE, "gone"), "gone", code=4)


nodes = events


def repair(trial: Trial) -> None:
    here = trial.account()
    running(here)
    for how in ("--reboot", "--replace"):
        trial.run(here.aws, NAMED, "pd", here.control.nodes("pd", "prefill")[0].instance_id, how)


def patch(trial: Trial) -> None:
    with kubernetes.serve(kubernetes.Store()) as url:
        here = trial.account(LifecycleFailure("decode", nodes=(1,)))
        in_kubernetes(here.aws, url)
        running(here)
        here.control.account.latest = "1.5.0"
        trial.run(here.aws, NAMED, "pd", "--yes", "--force")
        here = failing(trial)
        in_kubernetes(here.aws, url)
        Cluster("pd").wait(poll_s=0)
        Cluster("pd").scale({"decode": 2})
        here.control.account.latest = "1.5.0"
        trial.run(here.aws, NAMED, "pd", "--yes", "--force", code=4)


def delete(trial: Trial) -> None:
    here = trial.account()
    running(here)
    trial.run(here.aws, NAMED, "pd", "--yes")
    here = trial.account()
    here.aws.stage.client("s3").create_bucket(
        Bucket="sagemaker-ours", CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    path = trial.file(here.eks(continuous=True, bucket="sagemaker-ours"))
    Cluster.create(load(path)).wait(poll_s=0, new=True)
    trial.run(here.aws, of(path), path, "--yes")
    here = trial.account(NoCapacity("decode"), LifecycleFailure("prefill"))
    Cluster.create(parse(here.eks(continuous=True), "c"))
    here.control.advance(600)
    stacked(here)
    trial.run(here.aws, NAMED, "pd", "--yes", "--timeout-min", "0", code=4)  # its causes are read


def import_(trial: Trial) -> None:
    here = trial.account()
    running(here)
    trial.run(here.aws, NAMED, "pd")
    trial.run(here.aws, Scope(PLACE, "gone"), "gone", code=4)


def publish(trial: Trial) -> None:
    here = trial.account()
    here.aws.stage.client("s3").create_bucket(
        Bucket="recipes", CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    argv = (
        "tiny-cpu-1p1d",
        "--bucket",
        "s3://recipes/ours",
        "--hub",
        "private",
        "--set",
        "image=a.example/b:1",
        "--set",
        "instance_type=ml.c5.2xlarge",
    )
    trial.run(here.aws, Scope(PLACE, s3="s3://recipes/ours", hub="private"), *argv)


def mirror(trial: Trial) -> None:
    """The upload: the image goes by other tools, to a registry that knows no IAM."""
    from hyperpd.errors import CloudError
    from hyperpd.image import mirror as mirror_

    here = trial.account()
    here.aws.stage.client("s3").create_bucket(
        Bucket="weights", CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    (trial.folder / "config.json").write_text("{}")
    (trial.folder / "model.safetensors").write_bytes(bytes(9 * 2**20))  # in parts

    def run(*_: object) -> tuple[int, str, str]:
        try:
            mirror_.upload(trial.folder, "s3://weights/p", lambda _: None)
        except CloudError as error:
            return 4, "", str(error)
        return 0, "", ""

    trial._run = run
    scope = Scope(PLACE, s3="s3://weights/p")
    here.gate.faults.append(Cut(2, "s3:PutObject", times=99))
    trial.run(here.aws, scope, code=4)
    here.gate.faults.clear()
    trial.run(here.aws, scope)
    trial.run(here.aws, scope)


RUNS: dict[str, Callable[[Trial], None]] = {
    **{f"cluster {one.__name__}": one for one in (plan, create, status, watch, update, scale, repair, patch, delete)},
    "cluster events": events,
    "cluster nodes": nodes,
    "cluster import": import_,
    "hub publish": publish,
    "image mirror": mirror,
}


@pytest.fixture
def trial(
    account: Any, hyperpd: Any, hurried: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Trial]:
    return lambda command: Trial(command, hyperpd, account, tmp_path, monkeypatch)


def test_each_command_that_calls_aws_is_run() -> None:
    assert {*RUNS, *OF_DEPLOYMENTS} == set(COMMANDS)
    offline = {"schema"}
    assert {one.removeprefix("cluster ") for one in COMMANDS if one.startswith("cluster ")} == {
        name for name in cluster.list_commands(click.Context(cluster)) if name not in offline
    }


@pytest.mark.parametrize("command", RUNS)
def test_a_command_runs_with_its_policy_and_uses_all_of_it(command: str, trial: Callable[[str], Trial]) -> None:
    tried = trial(command)
    RUNS[command](tried)
    looked_at = COMMANDS["cluster plan"] if command == "cluster create" else ()  # the run of plan uses all of it
    unused = [one for one in tried.unused() if one not in looked_at and (command, one.action) not in UNSEEN]
    assert not unused, "\n".join(f"{one.action} on {one.on}" for one in unused)


def test_a_missing_action_fails(trial: Callable[[str], Trial], monkeypatch: pytest.MonkeyPatch) -> None:
    less = tuple(one for one in COMMANDS["cluster nodes"] if one.action != "sagemaker:ListClusterNodes")
    monkeypatch.setitem(COMMANDS, "cluster nodes", less)
    with pytest.raises(AssertionError, match="sagemaker:ListClusterNodes"):
        nodes(trial("cluster nodes"))


def test_an_action_too_many_fails(trial: Callable[[str], Trial], monkeypatch: pytest.MonkeyPatch) -> None:
    more = (Grant("sagemaker:DeleteCluster", "cluster", "no"), Grant("sagemaker:ListClusterNodes", "hub", "no"))
    monkeypatch.setitem(COMMANDS, "cluster nodes", (*COMMANDS["cluster nodes"], *more))
    tried = trial("cluster nodes")
    nodes(tried)
    assert tried.unused() == list(more)


def test_resources_are_as_narrow_as_may_be() -> None:
    known = Scope(PLACE, "pd", cluster_id="abcdefghijkl")
    needed = permissions(COMMANDS, known)
    for one in needed:
        assert "*" not in one.action
        assert all(one.why)
        assert (one.action == "iam:PassRole") == bool(one.condition)
    # AWS takes no resource for these.
    everything = {one.action for one in needed if "*" in one.resources}
    assert {one for one in everything if not one.startswith("ec2:Describe")} == {
        *("eks:DescribeAddonVersions", "eks:ListClusters", "pricing:GetProducts", "sagemaker:ListClusters"),
        *("servicequotas:ListAWSDefaultServiceQuotas", "servicequotas:ListServiceQuotas"),
    }
    assert all(one.startswith(("Describe", "List", "Get")) for one in (each.split(":")[1] for each in everything))
    made = policy(["cluster update"], known)["Statement"]
    (cluster,) = [one for one in made if "sagemaker:UpdateCluster" in one["Action"]]
    assert cluster["Resource"] == [f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:cluster/abcdefghijkl"]


def test_what_plan_prints_as_a_fix_lets_create_run(trial: Callable[[str], Trial], tmp_path: Path) -> None:
    """Role and bucket are made, too; and nothing else is allowed than what the fix says."""
    tried = trial("cluster create")
    here = tried.account(allow=READS)
    spec = load(tried.file(here.eks(continuous=True)))
    (one,) = preflight.run(spec, Cluster("pd").aws).of("problem")
    assert (one.check, "iam:CreateRole" in one.what) == ("permissions", True)
    here.gate.allow = worn(json.loads(shlex.split(one.fix)[-1]))
    found = preflight.run(spec, Cluster("pd").aws).findings
    assert not [each for each in found if each.check in ("permission", "permissions")]
    Cluster.create(spec)
    Cluster.create(spec)  # what is there is found


def test_as_it_is_typed(hyperpd: Any, tmp_path: Path) -> None:
    given = ("--account", ACCOUNT, "--region", REGION)
    assert hyperpd("iam")[1].split("\n")[:-1] == list(COMMANDS)
    assert json.loads(hyperpd("iam", "--json")[1]) == list(COMMANDS)
    code, out, err = hyperpd("iam", "cluster", "status", "--cluster", "pd", *given)
    assert (code, json.loads(out)) == (0, policy(["cluster status"], NAMED))
    assert "sagemaker:DescribeCluster: the cluster's status, groups and settings\n" in err
    code, out, err = hyperpd("iam", "--all", *given)
    assert (code, json.loads(out)) == (0, policy(COMMANDS, Scope(PLACE)))
    assert "arn:aws:s3:::*" not in out
    assert "left out: S3 of hub publish and image mirror; give --bucket" in err
    to = "s3://recipes/ours"
    document = json.loads(hyperpd("iam", "--all", "--json", "--bucket", to, *given)[1])
    assert document["policy"] == policy(COMMANDS, Scope(PLACE, s3=to))
    assert {one["action"] for one in document["why"]} == {one.action for each in COMMANDS.values() for one in each}
    assert len(json.dumps(document["policy"], separators=(",", ":"))) < 6144  # of a managed policy, says IAM
    code, _, err = hyperpd("iam", "cluster", "craete", *given)
    assert (code, "did you mean cluster create?" in err) == (2, True)
    assert hyperpd("iam", "up", *given)[0] == 2
    assert hyperpd("iam", "cluster", "plan", "--all")[0] == 2
    assert hyperpd("iam", "cluster", "plan", "--account", "12", "--region", REGION)[0] == 2
    assert hyperpd("iam", "hub", "publish", "--bucket", "recipes", *given)[0] == 2
    for wide in (("hub", "publish"), ("image", "mirror")):
        code, out, err = hyperpd("iam", *wide, *given)
        assert (code, out, "give it with --bucket" in err) == (2, "", True)
    left = "left out: roles and buckets that a cluster file names"
    assert left in hyperpd("iam", "cluster", "create", "--cluster", "pd", *given)[2]
    assert left not in hyperpd("iam", "cluster", "status", "--cluster", "pd", *given)[2]
    slurm = written(tmp_path, SLURM)
    assert left not in hyperpd("iam", "cluster", "create", "--cluster", slurm, *given)[2]
    out = hyperpd("iam", "cluster", "create", "--cluster", slurm, *given)[1]
    assert "eks:" not in out
    assert "/hyperpd/pd/lifecycle/*" in out
    iam = f"arn:aws:iam::{ACCOUNT}:"
    made = f"{iam}role/hyperpd-pd-{REGION}"
    (looks,) = [one for one in json.loads(out)["Statement"] if "iam:SimulatePrincipalPolicy" in one["Action"]]
    assert looks["Resource"] == [made, f"{iam}user/${{aws:username}}", f"{iam}user/*/${{aws:username}}"]
    out = hyperpd("iam", "cluster", "create", "--cluster", slurm, "--role", "ops", *given)[1]
    (looks,) = [one for one in json.loads(out)["Statement"] if "iam:SimulatePrincipalPolicy" in one["Action"]]
    assert looks["Resource"] == [made, f"{iam}role/ops", f"{iam}role/*/ops"]


def test_account_and_region_are_those_of_your_configuration(account: Any, hyperpd: Any) -> None:
    account()
    assert json.loads(hyperpd("iam", "cluster", "status")[1]) == policy(["cluster status"], Scope(PLACE))
