"""Changing: the difference between file and cluster, updates, scaling, and clusters that were made elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from hyperpd.cluster import Cluster, dump, watch
from hyperpd.cluster.changes import diff
from hyperpd.cluster.file import parse
from hyperpd.cluster.requests import create
from hyperpd.errors import CloudError, NotReady, RecipeError
from tests.cluster.files import EKS, EKS_FULL, SLURM, SLURM_FULL, merged, plan
from tests.deploy import botocore_shapes
from tests.fakes.gate import ACCOUNT, REGION
from tests.fakes.hyperpod import NoCapacity

ALL = {"eks": EKS, "slurm": SLURM, "eks, every field": EKS_FULL, "slurm, every field": SLURM_FULL}


def lines(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    changes = diff(create(plan(after)), create(plan(before)))
    if changes.request:
        assert botocore_shapes.problems("sagemaker", "UpdateCluster", changes.request) == []
    return changes.lines()


@pytest.mark.parametrize("name", ALL)
def test_the_same_differs_in_nothing(name):
    assert lines(ALL[name], ALL[name]) == []


def test_every_field_that_differs_is_said_in_the_files_words():
    changes = {
        "count": (3, "2 → 3"),
        "min_count": (1, "none → 1"),
        "threads_per_core": (1, "none → 1"),
        "interface": ("efa", 'none → {"InterfaceType": "efa"}'),
        "image": ("ami-0123456789abcdef0", "none → ami-0123456789abcdef0"),
        "training_plan": (EKS_FULL["groups"]["prefill"]["training_plan"], "none → arn:aws"),
        "capacity": ("on_demand", 'none → {"OnDemand": {}}'),
        "role": (f"arn:aws:iam::{ACCOUNT}:role/other", "→ arn:aws:iam"),
        "instance_type": ("ml.p5en.48xlarge", "ml.p5.48xlarge → ml.p5en.48xlarge"),
        "health_checks": (["instance_stress"], 'none → ["InstanceStress"]'),
        "labels": ({"a": "b"}, 'none → {"Labels": {"a": "b"}}'),
        "volumes": ([{"size_gb": 7}], "none → [{"),
        "network": ({"subnets": ["subnet-0fedcba9876543210"]}, "none → {"),
        "lifecycle": ({"source": "none"}, "→ none"),
    }
    for field, (value, said) in changes.items():
        found = lines(EKS, merged(EKS, {"groups": {"prefill": {field: value}}}))
        expected = [
            one
            for one in found
            if f"groups.prefill.{field}" in one or (field in ("labels", "volumes") and field in one)
        ]
        if field == "capacity":
            assert found == ['groups.prefill.capacity: none → {"OnDemand": {}}']
            continue
        assert len(expected) == 1, (field, found)
        assert said in expected[0], (field, found)


def test_of_the_cluster_itself():
    full = {**EKS_FULL, "groups": EKS["groups"]}
    del full["autoscaling"]
    assert [
        one.split(":")[0] for one in lines(full, merged(full, {"node_recovery": None, "tiered_storage": None}))
    ] == [
        "node_recovery",
        "tiered_storage",
    ]
    assert lines(merged(full, {"tiered_storage": {"memory_percent": 30}}), merged(full, {"tiered_storage": {}})) != []
    assert lines(EKS, merged(EKS, {"continuous": True})) == ["continuous: none → Continuous"]
    off = diff(create(plan(merged(EKS_FULL, {"autoscaling": None}))), create(plan(EKS_FULL)))
    assert off.request == {"ClusterName": "pd", "AutoScaling": {"Mode": "Disable"}}


def test_what_cannot_be_changed_is_named_and_nothing_is_sent():
    after = merged(
        EKS_FULL,
        {
            "network": {"subnets": ["subnet-0fedcba9876543210"]},
            "orchestrator": {"eks": "other"},
            "autoscaling": {"role": f"arn:aws:iam::{ACCOUNT}:role/other"},
            "groups": {"prefill": {"image_release": "1.2.4"}},
        },
    )
    changes = diff(create(plan(after)), create(plan(EKS_FULL)))
    assert [one.split(":")[0] for one in changes.impossible] == [
        "network",
        "orchestrator",
        "autoscaling.role",
        "groups.prefill.image_release",
    ]
    assert changes.request is None
    assert "hyperpd cluster patch --release" in changes.impossible[-1]
    slower = merged(EKS, {"continuous": True})
    assert diff(create(plan(EKS)), create(plan(slower))).impossible[0].startswith("continuous: true to false")


def test_order_where_it_says_nothing_and_where_it_does():
    volumes = EKS_FULL["groups"]["prefill"]["volumes"]
    same = merged(EKS_FULL, {"groups": {"prefill": {"volumes": volumes[::-1]}}})
    assert lines(EKS_FULL, same) == []
    types = EKS_FULL["groups"]["prefill"]["instance_types"]
    other = merged(EKS_FULL, {"groups": {"prefill": {"instance_types": types[::-1]}}})
    assert [one.split(":")[0] for one in lines(EKS_FULL, other)] == ["groups.prefill.instance_types"]


def test_an_update_in_full(account):
    here = account()
    Cluster.create(parse(here.eks(groups={"decode": {"threads_per_core": 1}}), "c")).wait(poll_s=0, new=True)
    wanted = here.eks(
        node_recovery="none",
        groups={"prefill": {"count": 3}, "decode": None, "more": {"instance_type": "ml.c5.2xlarge", "count": 1}},
    )
    cluster, spec = Cluster("pd"), parse(wanted, "c")
    planned = Cluster.plan(spec)
    assert [one.split(":")[0] for one in planned.changes.lines()] == [
        "groups.prefill.count",
        "groups.more",
        "groups.decode",
        "node_recovery",
    ]
    changes = cluster.update(spec)
    assert here.gate.named("UpdateCluster")[0].request == planned.calls[-1].parameters == changes.request
    assert changes.request["InstanceGroupsToDelete"] == ["decode"]
    status = cluster.wait(poll_s=0, expect=changes.counts)
    assert {group.name: group.current for group in status.groups} == {"prefill": 3, "more": 1}
    assert not cluster.update(spec)
    assert len(here.gate.named("UpdateCluster")) == 1


def test_what_the_file_is_silent_on_stays(account):
    """Threads per core and a minimum set elsewhere; an update carries them, or they would be lost."""
    here = account()
    Cluster.create(parse(here.eks(groups={"prefill": {"threads_per_core": 1, "min_count": 1}}), "c")).wait(
        poll_s=0, new=True
    )
    changes = Cluster("pd").update(parse(here.eks(groups={"prefill": {"count": 3}}), "c"))
    assert [one.path for one in changes.changes] == ["groups.prefill.count"]
    sent = changes.request["InstanceGroups"][0]
    assert (sent["ThreadsPerCore"], sent["MinInstanceCount"]) == (1, 1)


def test_an_update_that_cannot_be_or_has_nothing_to_change(account):
    here = account()
    with pytest.raises(CloudError, match="hyperpd cluster create makes it"):
        Cluster("pd").update(parse(here.eks(), "c"))
    Cluster.create(parse(here.eks(), "c")).wait(poll_s=0, new=True)
    with pytest.raises(RecipeError, match=r"continuous|orchestrator"):
        Cluster("pd").update(parse(here.eks(orchestrator={"eks": "other"}, tags={"team": "a"}), "c"))
    assert here.gate.named("UpdateCluster") == here.gate.named("AddTags") == []


def test_tags_of_others_stay_and_ones_own_are_added(account):
    here = account()
    cluster = Cluster.create(parse(here.eks(tags={"team": "a", "kind": "x"}), "c"))
    arn = cluster.wait(poll_s=0, new=True).arn
    here.control.account.tags[arn]["cost-centre"] = "of somebody else"
    assert not Cluster.plan(parse(here.eks(tags={"team": "a"}), "c")).changes
    spec = parse(here.eks(tags={"team": "b", "new": "c"}), "c")
    planned = Cluster.plan(spec)
    assert planned.changes.lines() == ["tags.team: a → b", "tags.new: none → c"]
    assert [call.operation for call in planned.calls] == ["add_tags"]
    cluster.update(spec)
    owned = {"hyperpd:cluster": "pd", "cost-centre": "of somebody else"}
    assert here.control.account.tags[arn] == {**owned, "team": "b", "kind": "x", "new": "c"}
    assert here.gate.named("UpdateCluster") == []


def test_a_volume_keeps_its_key():
    def volumes(*given: dict[str, Any]) -> dict[str, Any]:
        return merged(EKS, {"continuous": True, "groups": {"prefill": {"volumes": list(given)}}})

    said = "volumes.kms_key of the {} volume: {} to {}; HyperPod keeps a volume's key: add a group with the other one"
    second, root = {"size_gb": 5, "kms_key": "a"}, {"root": True, "kms_key": "a"}
    for before, after, what in (
        (volumes(second), volumes({**second, "kms_key": "b"}), ("second", "a", "b")),
        (volumes(second), volumes({"size_gb": 5}), ("second", "a", "none")),
        (volumes(root), volumes(), ("root", "a", "none")),
    ):
        changes = diff(create(plan(after)), create(plan(before)))
        assert changes.request is None
        assert [said.format(*what) in one for one in changes.impossible] == [True]
    assert diff(create(plan(volumes())), create(plan(volumes(second)))).impossible == ()
    arn = "arn:aws:kms:us-east-1:123456789012:key/a"
    assert diff(create(plan(volumes(second))), create(plan(volumes({**second, "kms_key": arn})))).impossible == ()


def test_an_accounting_database_is_not_taken_out():
    before = create(plan(SLURM_FULL))
    after = create(plan(merged(SLURM_FULL, {"orchestrator": {"slurm": {"accounting": None}}})))
    assert [one.split(":")[0] for one in diff(after, before).impossible] == ["orchestrator.slurm.accounting"]
    assert diff(before, after).impossible == ()


def test_scaling_touches_one_group_and_nothing_else_of_it(account):
    here = account()
    cluster = Cluster.create(parse(here.eks(groups={"prefill": {"labels": {"a": "b"}}}), "c"))
    cluster.wait(poll_s=0, new=True)
    changes = cluster.scale({"prefill": 4})
    before = here.gate.named("CreateCluster")[0].request["InstanceGroups"][0]
    release = {"ImageReleaseVersion": here.control.account.latest}
    assert here.gate.named("UpdateCluster")[0].request["InstanceGroups"] == [{**before, "InstanceCount": 4} | release]
    assert cluster.wait(poll_s=0, expect=changes.counts).group("prefill").current == 4
    assert not cluster.scale({"prefill": 4})
    with pytest.raises(RecipeError, match=r"nothing: no such group; there are prefill, decode"):
        cluster.scale({"nothing": 1})


def test_an_update_that_rolls_back_is_no_success(account, hurried, monkeypatch):
    here = account()
    cluster = Cluster.create(parse(here.eks(), "c"))
    cluster.wait(poll_s=0, new=True)
    here.control.account.scenarios.append(NoCapacity("prefill", nodes=2))
    changes = cluster.scale({"prefill": 3})
    with pytest.raises(NotReady, match="RollingBack"):
        cluster.wait(poll_s=0, expect=changes.counts)
    here.control.advance(600)  # back where it was
    monkeypatch.setattr(watch, "UNSEEN_S", 0.0)
    with pytest.raises(NotReady, match="prefill was asked for 3 nodes, and wants 2"):
        cluster.wait(poll_s=0, expect=changes.counts)


def elsewhere(here: Any, full: dict[str, Any]) -> dict[str, Any]:
    """A document with every field, made to fit the account."""
    text = yaml.safe_dump(full).replace("us-east-1", REGION).replace("123456789012", ACCOUNT)
    text = text.replace("subnet-0123456789abcdef0", here.subnets[0]).replace(
        "subnet-0fedcba9876543210", here.subnets[1]
    )
    for group in ("sg-0123456789abcdef0", "sg-0fedcba9876543210"):
        text = text.replace(group, here.security_group)
    iam, s3 = here.aws.stage.client("iam"), here.aws.stage.client("s3")
    for name, path in (("nodes", "/"), ("scaler", "/"), ("prefill", "/path/")):
        iam.create_role(RoleName=name, Path=path, AssumeRolePolicyDocument="{}")
    s3.create_bucket(Bucket="sagemaker-our-files", CreateBucketConfiguration={"LocationConstraint": REGION})
    here.control.training_plan("p5-for-may", "ml.p5.48xlarge", 8, (f"{REGION}a", "use2-az1"))
    document: dict[str, Any] = yaml.safe_load(text)
    return document


@pytest.mark.parametrize("name", ALL)
def test_an_imported_cluster_is_planned_without_a_difference(account, name):
    here = account()
    document = elsewhere(here, ALL[name])
    if name == "eks, every field":
        document["groups"]["prefill"]["training_plan"] = here.control.account.plans[0]["TrainingPlanArn"]
        document["groups"]["prefill"].pop("instance_types")
        document["groups"]["prefill"]["instance_type"] = "ml.p5.48xlarge"
    request = create(Cluster.plan(parse(document, "c")).blueprint)
    for role in {group["ExecutionRole"].rpartition("/")[2] for group in request["InstanceGroups"]}:
        if role.startswith("hyperpd-"):
            here.aws.stage.client("iam").create_role(RoleName=role, AssumeRolePolicyDocument="{}")
    here.aws.client("sagemaker").create_cluster(**{**request, "Tags": [{"Key": "made-by", "Value": "hyp"}]})
    spec, unsaid = Cluster("pd").spec()
    assert unsaid == []
    again = parse(yaml.safe_load(dump(spec)), "c")
    planned = Cluster.plan(again)
    assert planned.changes is not None
    assert planned.changes.lines() == []
    assert planned.calls == ()
    assert spec.tags == {"made-by": "hyp"}


def test_what_no_file_can_say_is_named_and_kept(account):
    here = account()
    cluster = Cluster.create(parse(here.eks(), "c"))
    cluster.wait(poll_s=0, new=True)
    patching = {"PatchingStrategy": "WhenIdle"}
    here.control.cluster("pd").groups["prefill"].spec["AutoPatchConfig"] = patching
    spec, unsaid = cluster.spec()
    assert unsaid == ["prefill: AutoPatchConfig"]
    assert not Cluster.plan(spec).changes
    cluster.scale({"prefill": 3})
    assert here.gate.named("UpdateCluster")[0].request["InstanceGroups"][0]["AutoPatchConfig"] == patching
