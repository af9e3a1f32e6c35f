"""Repairing and patching: by role, with partial failures and silent rollbacks."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import pytest

from hyperpd.cluster import Cluster
from hyperpd.cluster.file import parse
from hyperpd.cluster.progress import Seen
from hyperpd.errors import CloudError, NotReady, RecipeError
from tests.fakes.hyperpod import BatchFailure, Expire, SilentRollback, Throttle

NEWER = "1.5.0"


def running(here: Any, **change: Any) -> Cluster:
    cluster = Cluster.create(parse(here.eks(**change), "c"))
    cluster.wait(poll_s=0, new=True)
    return cluster


@pytest.mark.parametrize("action", ["reboot", "replace"])
def test_a_node_comes_back(account, action):
    here = account()
    cluster = running(here)
    node = here.control.nodes("pd", "prefill")[0].instance_id
    told: list[Any] = []
    assert [one.id for one in cluster.repair([node], action, told.append, poll_s=0)] == [node]
    typical = {"reboot": (1, 3), "replace": (20, 30)}[action]
    assert {one.typical_min for one in told if isinstance(one, Seen)} == {typical}
    after = [one.id for one in cluster.nodes("prefill")]
    assert (node in after) == (action == "reboot")
    assert all(one.healthy for one in cluster.nodes())
    assert len(after) == 2


def test_unhealthy_nodes_are_found(account):
    here = account()
    cluster = running(here)
    assert cluster.repair([], "replace", poll_s=0) == []
    sick = here.control.nodes("pd", "decode")[0]
    here.control.sicken(sick)
    assert [one.status for one in cluster.nodes("decode")] == ["Failure"]
    # The only one of its role, but it serves nobody any more.
    assert [one.group for one in cluster.repair([], "replace", poll_s=0)] == ["decode"]
    assert cluster.status().ready


def test_never_the_last_worker_of_a_role(account):
    here = account()
    cluster = running(here)
    decode = here.control.nodes("pd", "decode")[0].instance_id
    prefill = [node.instance_id for node in here.control.nodes("pd", "prefill")]
    for chosen, role in (([decode], "decode"), (prefill, "prefill")):
        with pytest.raises(RecipeError, match=rf"{role}: .* is all that is healthy of it; reboot another first"):
            cluster.repair(chosen, "reboot", poll_s=0)
    assert here.gate.named("BatchRebootClusterNodes") == []
    here.control.sicken(here.control.nodes("pd", "prefill")[0])
    with pytest.raises(RecipeError, match="prefill"):
        cluster.repair(prefill[1:], "reboot", poll_s=0)
    assert len(cluster.repair([decode], "reboot", poll_s=0, force=True)) == 1


def test_a_role_is_its_label_before_its_groups_name(account):
    """Two groups of one role: a spot pool beside a reserved one."""
    here = account()
    labels = {"labels": {"hyperpd.io/role": "decode"}}
    spare = {"instance_type": "ml.p5.48xlarge", "count": 1, **labels}
    cluster = running(here, groups={"decode": labels, "spare": spare})
    assert [group.role for group in cluster.status().groups] == ["prefill", "decode", "decode"]
    assert len(cluster.repair([here.control.nodes("pd", "decode")[0].instance_id], "reboot", poll_s=0)) == 1


def test_a_200_that_hides_a_failure(account):
    here = account(BatchFailure("BatchReplaceClusterNodes", "i-*", "InternalServerError"))
    cluster = running(here)
    node = here.control.nodes("pd", "prefill")[0].instance_id
    with pytest.raises(CloudError) as error:
        cluster.repair([node], "replace", poll_s=0, timeout_s=60)
    assert error.value.code == "PartialFailure"
    assert f"{node}: InternalServerError: An internal error occurred." in str(error.value)
    with pytest.raises(RecipeError, match="i-0nothing: no such node; there are i-0"):
        cluster.repair(["i-0nothing"], "reboot", poll_s=0)


def test_many_nodes_go_in_batches_and_all_are_tried(account):
    here = account()
    cluster = running(here, groups={"prefill": {"count": 60}})
    nodes = [node.instance_id for node in here.control.nodes("pd", "prefill")]
    here.control.account.scenarios.append(BatchFailure("BatchRebootClusterNodes", nodes[1], "InternalServerError"))
    with pytest.raises(CloudError, match=r"1 of 59 nodes failed, 58 were taken"):
        cluster.repair(nodes[:59], "reboot", poll_s=0)
    sent = [len(call.request["NodeIds"]) for call in here.gate.named("BatchRebootClusterNodes")]
    assert sent == [25, 25, 9]


def test_a_repair_survives_throttling_and_says_how_to_go_on_after_expired_credentials(account, hurried):
    here = account()
    cluster = running(here)
    node = here.control.nodes("pd", "prefill")[0].instance_id
    here.gate.faults.append(Throttle(9, "ListClusterNodes", at=2))  # boto3 itself tries eight times
    assert len(cluster.repair([node], "reboot", poll_s=0)) == 1
    here.gate.faults[:] = [Expire(2, "ListClusterNodes")]
    with pytest.raises(CloudError, match="Then: hyperpd cluster watch pd --region us-east-2"):
        cluster.repair([node], "reboot", poll_s=0)


def test_nothing_is_repaired_where_aws_would_do_nothing(account):
    here = account()
    cluster = Cluster.create(parse(here.eks(), "c"))
    with pytest.raises(CloudError, match="pd is Creating: nodes are repaired in service alone"):
        cluster.repair([], "reboot", poll_s=0)


def test_patching_goes_role_by_role_around_a_drain(account):
    here = account()
    cluster = running(here, groups={"gateway": {"instance_type": "ml.c5.2xlarge", "count": 1}})
    before = here.control.account.latest
    here.control.account.latest = NEWER
    order: list[str] = []

    @contextmanager
    def drain(nodes, tell):
        order.append(f"drain {nodes[0].group} {len(nodes)}")
        yield
        order.append(f"back {nodes[0].group} {here.control.nodes('pd', nodes[0].group)[0].version}")

    with pytest.raises(RecipeError) as error:
        cluster.patch(drain=drain, poll_s=0)
    assert [one.partition(":")[0] for one in error.value.problems] == ["decode", "gateway"]
    assert here.gate.named("UpdateClusterSoftware") == []
    told: list[Any] = []
    done = cluster.patch((), told.append, drain=drain, force=True, poll_s=0)
    assert {one.typical_min for one in told if isinstance(one, Seen)} == {(30, 60)}
    assert order == [
        *("drain prefill 2", f"back prefill {NEWER}", "drain decode 1", f"back decode {NEWER}"),
        *("drain gateway 1", f"back gateway {NEWER}"),
    ]
    assert [(one.group, one.before, one.after) for one in done] == [
        (name, before, NEWER) for name in ("prefill", "decode", "gateway")
    ]
    sent = [call.request["InstanceGroups"][0]["InstanceGroupName"] for call in here.gate.named("UpdateClusterSoftware")]
    assert sent == ["prefill", "decode", "gateway"]
    told = []
    assert cluster.patch((), told.append, poll_s=0) == []
    assert [one.text for one in told] == ["every group is up to date"]


def test_patching_never_takes_a_whole_role_at_once(account):
    here = account()
    cluster = running(here)
    here.control.account.latest = NEWER
    with pytest.raises(RecipeError, match=r"prefill: i-\w+, i-\w+ is all that is healthy of it; scale the group up"):
        cluster.patch(["prefill"], batch=2, poll_s=0)
    here.control.sicken(here.control.nodes("pd", "prefill")[0])  # the batch of one may be the one that serves
    with pytest.raises(RecipeError, match="prefill"):
        cluster.patch(["prefill"], poll_s=0)
    assert here.gate.named("UpdateClusterSoftware") == []


def test_a_role_that_lost_nodes_meanwhile_is_not_patched(account):
    here = account()
    cluster = running(here, groups={"decode": {"count": 2}})
    here.control.account.latest = NEWER

    @contextmanager
    def drain(nodes, tell):
        yield
        here.control.sicken(here.control.nodes("pd", "decode")[0])

    with pytest.raises(RecipeError, match=r"patch, after prefill: [\s\S]*decode: i-\w+ is all that is healthy of it"):
        cluster.patch(drain=drain, poll_s=0)
    assert len(here.gate.named("UpdateClusterSoftware")) == 1


def test_a_group_without_a_role_is_drained_and_taken_for_a_role_of_its_own(account):
    """As the console names them."""
    here = account()
    spare = {"instance_type": "ml.p5.48xlarge", "count": 1}
    cluster = running(here, groups={"accelerated-worker-group-1": spare})
    here.control.account.latest = NEWER
    drained: list[str] = []

    @contextmanager
    def drain(nodes, tell):
        drained.append(nodes[0].group)
        yield

    name = "accelerated-worker-group-1"
    told = rf"{name}: i-\w+ is all that is healthy of it; .*whose workers it has, no label hyperpd.io/role says"
    with pytest.raises(RecipeError, match=told):
        cluster.patch([name], drain=drain, poll_s=0)
    assert drained == []
    assert here.gate.named("UpdateClusterSoftware") == []
    assert [one.group for one in cluster.patch([name], drain=drain, force=True, poll_s=0)] == [name]
    assert drained == [name]


def test_slurms_controller_and_login_nodes_are_patched_as_they_are(account):
    """One node by their nature, and no job runs there; of a partition of any name the drain is told."""
    here = account()
    groups = {
        "login": {"instance_type": "ml.c5.2xlarge", "count": 1, "slurm": {"node": "login"}},
        "research": {"instance_type": "ml.p5.48xlarge", "count": 2, "slurm": {"node": "compute"}},
    }
    cluster = Cluster.create(parse(here.slurm(groups=groups), "c"))
    cluster.wait(poll_s=0, new=True)
    here.control.account.latest = NEWER
    drained: list[str] = []

    @contextmanager
    def drain(nodes, tell):
        drained.append(nodes[0].group)
        yield

    done = cluster.patch(["controller", "login", "research"], drain=drain, poll_s=0)
    assert [one.group for one in done] == [group.name for group in cluster.status().groups if group.name != "prefill"]
    assert drained == ["research"]


def test_a_role_of_two_groups_goes_on_in_the_other(account):
    here = account()
    labels = {"labels": {"hyperpd.io/role": "decode"}}
    spare = {"instance_type": "ml.p5.48xlarge", "count": 1, **labels}
    cluster = running(here, groups={"decode": labels, "spare": spare})
    here.control.account.latest = NEWER
    assert [one.group for one in cluster.patch(["decode", "spare"], poll_s=0)] == ["decode", "spare"]


def test_without_an_endpoint_the_drain_says_so(account):
    here = account()
    cluster = running(here)
    here.control.account.latest = NEWER
    told: list[Any] = []
    cluster.patch(["prefill"], told.append, poll_s=0)
    assert "no endpoint deployed by hyperpd is known on 2 nodes" in told[0].text
    assert here.control.cluster("pd").groups["decode"].version != NEWER


def test_a_silent_rollback_is_noticed(account):
    here = account(SilentRollback("decode"))
    cluster = running(here)
    before, here.control.account.latest = here.control.account.latest, NEWER
    with pytest.raises(NotReady) as error:
        cluster.patch(force=True, poll_s=0)
    assert f"decode was rolled back: its image's release was {before} and is {before}" in str(error.value)
    assert cluster.status().status == "InService"
    assert [node.version for node in here.control.nodes("pd")] == [NEWER, NEWER, before]


def test_a_release_that_is_named(account):
    here = account()
    cluster = running(here)
    assert [one.after for one in cluster.patch(release="1.3.0", force=True, poll_s=0)] == ["1.3.0", "1.3.0"]
    with pytest.raises(RecipeError, match="nothing: no such group"):
        cluster.patch(["nothing"], poll_s=0)
