"""Stuck states are told by their causes: the table, every row of the signs needed, and what is no cause."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from types import ModuleType

import pytest

from hyperpd.deploy.stuck import (
    Cause,
    Seen,
    Stage,
    causes,
    containers,
    images,
    pods,
    refusals,
    refused,
    scheduling,
    volumes,
)
from hyperpd.errors import CloudError
from tests.deploy.stuck import CASES, Case
from tests.deploy.stuck.controllers import CLAIM, HPA, KEDA, KUEUE
from tests.deploy.stuck.parts import (
    ENGINES,
    NODE,
    applied,
    condition,
    container,
    crashed,
    endpoint,
    event,
    node,
    pod,
    running,
    starting,
    unplaced,
    waiting,
)
from tests.deploy.stuck.places import PLACES
from tests.deploy.stuck.refusals import REFUSALS

TABLES = (
    (containers, "SIGNS"),
    (containers, "CONFIG"),
    (images, "SIGNS"),
    (pods, "SIGNS"),
    (refusals, "SIGNS"),
    (scheduling, "SIGNS"),
    (scheduling, "WHOLE"),
    (volumes, "SIGNS"),
)


def _lines(case: Case) -> list[Cause]:
    return causes(case.seen, lambda *_: case.log)


def _refusal(kind: str, code: str, message: str) -> Cause:
    versions = {"LeaderWorkerSet": "leaderworkerset.x-k8s.io/v1", "Deployment": "apps/v1"}
    body = {
        "apiVersion": versions.get(kind, "inference.sagemaker.aws.amazon.com/v1"),
        "kind": kind,
        "metadata": {"name": "prefill", "namespace": ENGINES},
    }
    return refused(body, CloudError(f"apply {kind} prefill in {ENGINES}: {code}: {message}\nA hint", code=code))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_cause_comes_first_and_once(case: Case) -> None:
    found = _lines(case)
    assert found, "no cause"
    first = found[0]
    assert (first.stage, len(found)) == (case.stage, case.causes), [one.lines() for one in found]
    assert (case.what in first.what, case.fix in first.fix, case.why in first.why) == (True,) * 3, first.lines()
    assert not re.search(r"\{\w*\}", "\n".join(first.lines())), first.lines()
    if case.log:
        assert list(first.log) == list(case.log)


@pytest.mark.parametrize(
    ("kind", "code", "message", "what", "fix"), [one[1:] for one in REFUSALS], ids=[one[0] for one in REFUSALS]
)
def test_a_refused_object_says_why(kind: str, code: str, message: str, what: str, fix: str) -> None:
    found = _refusal(kind, code, message)
    assert found.stage is Stage.REFUSED
    assert (what in found.what, fix in found.fix, "hint" in found.what) == (True, True, False), found.lines()


@pytest.mark.parametrize(("room", "table"), TABLES, ids=lambda one: one if isinstance(one, str) else one.__name__)
def test_every_sign_is_needed(room: ModuleType, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def all_said() -> list[object]:
        return [*map(_lines, CASES), *(_refusal(*one[1:4]) for one in REFUSALS)]

    whole, rows = all_said(), getattr(room, table)
    for row in rows:
        monkeypatch.setattr(room, table, tuple(one for one in rows if one is not row))
        assert all_said() != whole, f"nothing is lost without {row.words}"


def test_the_table_is_as_large_as_it_should_be() -> None:
    assert len({case.name for case in CASES}) >= 25


def test_workers_that_wait_for_the_same_are_one_cause() -> None:
    message = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
    found = causes(Seen(pods=[unplaced(message, number) for number in range(5)]), lambda *_: ())
    assert len(found) == 1
    assert found[0].objects[0] == f"Pod {ENGINES}/prefill-6f7c9d8b5-x0000"
    assert found[0].lines()[0].startswith(", ".join(found[0].objects[:3]) + " and 2 more: ")


def test_what_stopped_first_is_told_first() -> None:
    gateway, decode = running("gateway", started=True), starting(crashed(2), role="decode")
    seen = Seen(
        [
            applied(
                *("Deployment", "decode"),
                conditions=[condition("Progressing", "False", "ProgressDeadlineExceeded", "timed out")],
            )
        ],
        [gateway, decode, unplaced("0/2 nodes are available: 2 Insufficient nvidia.com/gpu.")],
    )
    told = [one.objects[0] for one in causes(seen, lambda *_: ())]
    # The Deployment's own word follows from its pods, and is left out.
    assert [one.partition("/")[2].partition("-")[0] for one in told] == ["prefill", "decode", "gateway"]


def test_what_is_over_is_no_cause() -> None:
    ready = [condition("Ready", "True", "", ""), condition("PodScheduled", "True", "", "")]
    well = running(started=True)
    well["status"] |= {"conditions": ready}
    well["status"]["containerStatuses"][0] |= {"ready": True, "lastState": {"terminated": {"exitCode": 137}}}
    ends = running(started=True)
    ends["metadata"] |= {"deletionTimestamp": "2026-11-29T10:00:00Z", "name": "ends"}
    mounted = starting(
        container({"waiting": {"reason": "PodInitializing"}}),
        number=7,
        initContainerStatuses=[container({"running": {}}, "routing-proxy")],
    )
    done = pod(phase="Succeeded", number=9)
    made = applied("Deployment", "prefill", conditions=[condition("Progressing", "True", "NewReplicaSetAvailable", "")])
    claim = {
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "c", "namespace": ENGINES},
        "status": {"phase": "Pending"},
    }
    seen = Seen(
        [made, endpoint(state="DeploymentComplete"), claim],
        [well, ends, done, mounted],
        [
            event(well, "FailedMount", 'secret "keys" not found', 1),
            event(well, "FailedScheduling", "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.", 2),
            event(made, "FailedCreate", "Error creating: exceeded quota: a, requested: b, used: c, limited: d", 3),
            event(made, "SuccessfulCreate", "Created pod", 4),
            event(mounted, "FailedMount", 'secret "keys" not found', 1),
            event({**well, "metadata": {**well["metadata"], "uid": "another"}}, "Failed", "other", 5),
        ],
        [node()],
    )
    assert causes(seen, lambda *_: ()) == []


def test_a_crash_shows_the_log_of_the_container_that_ended() -> None:
    asked: list[tuple[object, ...]] = []

    def last_lines(*which: object) -> Sequence[str]:
        asked.append(which)
        return [f"line {number}" for number in range(40)]

    again = starting(crashed(1))
    over = starting(container({"terminated": {"exitCode": 1, "reason": "Error"}}), number=2)
    found = causes(Seen(pods=[again, over]), last_lines)
    assert asked == [
        (ENGINES, "prefill-6f7c9d8b5-x0001", "prefill", True),
        (ENGINES, "prefill-6f7c9d8b5-x0002", "prefill", False),
    ]
    assert found[0].log == tuple(f"line {number}" for number in range(28, 40))


def test_a_log_that_cannot_be_read_hides_nothing() -> None:
    def last_lines(*_: object) -> Sequence[str]:
        raise CloudError("read the log of Pod x: Forbidden: no")

    found = causes(Seen(pods=[starting(crashed(137, "OOMKilled"))]), last_lines)
    assert "more memory" in found[0].what
    assert found[0].log == ("its log cannot be read: read the log of Pod x: Forbidden: no",)


def test_events_of_kueue_stand_for_the_gates_they_explain() -> None:
    gated = pod() | {"spec": {"schedulingGates": [{"name": "kueue.x-k8s.io/admission"}]}}
    workload = {
        "kind": "Workload",
        "metadata": {"name": "group", "namespace": ENGINES},
        "spec": {"queueName": "team"},
        "status": {"conditions": [condition("QuotaReserved", "False", "Pending", "insufficient unused quota")]},
    }
    assert [one.objects[0] for one in causes(Seen([workload], [gated]), lambda *_: ())] == [f"Workload {ENGINES}/group"]


def test_nodes_of_another_kind_hide_no_cordoned_ones() -> None:
    """Of nodes that may take it none is free: those that never could are no reason."""
    message = (
        "0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) didn't match Pod's node affinity/selector."
    )
    nodes = [node(NODE), node("cpu", "ml.m5.large")]
    assert "uncordon" in causes(Seen(pods=[unplaced(message)], nodes=nodes), lambda *_: ())[0].fix


def test_a_container_that_waits_for_its_image_alone_is_told() -> None:
    both = starting(
        waiting("ImagePullBackOff", "Back-off"), container({"waiting": {"reason": "ContainerCreating"}}, "side")
    )
    assert len(causes(Seen(pods=[both]), lambda *_: ())) == 1


def test_a_rollout_that_stands_is_told_while_other_pods_are_well() -> None:
    well = running(started=True)
    well["status"]["conditions"] = [condition("Ready", "True", "", "")]
    stands = condition("Progressing", "False", "ProgressDeadlineExceeded", "timed out")
    found = causes(Seen([applied("Deployment", "prefill", conditions=[stands])], [well]), lambda *_: ())
    assert [one.stage for one in found] == [Stage.FOLLOWS]


def test_events_of_other_objects_are_no_reason() -> None:
    one, other = starting(waiting("ContainerCreating")), starting(waiting("ContainerCreating"), number=2)
    for body in (one, other):
        del body["metadata"]["uid"]
    about = event({**other, "metadata": {**other["metadata"], "uid": None}}, "FailedMount", 'secret "keys" not found')
    assert causes(Seen(pods=[one], events=[about]), lambda *_: ()) == []
    assert len(causes(Seen(pods=[one, other], events=[about]), lambda *_: ())) == 1


def test_exit_codes_of_others_are_not_hyperpds() -> None:
    other = starting(crashed(2))
    other["metadata"]["labels"] = {"app": "vllm"}
    assert causes(Seen(pods=[other]), lambda *_: ())[0].what.endswith("it gave up")


def test_a_cause_reads_in_lines() -> None:
    short = Cause(Stage.ENDED, ("Pod a/b",), "it ended", "", "look")
    assert short.lines() == ["Pod a/b: it ended", "    try: look"]
    long = Cause(Stage.ENDED, ("Node n",), "it ended", "said", "look", ("one", "two"))
    tail = ["    last lines of its log:", "      one", "      two"]
    assert long.lines() == ["Node n: it ended", "    why: said", "    try: look", *tail]


def test_words_that_say_what_the_code_says_are_left_out() -> None:
    found = causes(Seen(pods=[starting(crashed(137, "OOMKilled", restarts=1))]), lambda *_: ())
    assert found[0].why == ""
    assert "exit code 137: it took" in found[0].what  # the first time is not counted


def test_a_maker_of_pods_that_may_not_be_read_is_known_by_its_event() -> None:
    """And one whose kind was read, but which is gone, is no cause any more."""
    old = {"kind": "ReplicaSet", "metadata": {"name": "prefill-old", "namespace": ENGINES, "uid": "uid-old"}}
    said = event(
        old,
        "FailedCreate",
        'Error creating: pods "x" is forbidden: exceeded quota: a, requested: b, used: c, limited: d',
    )
    found = causes(Seen([applied("Deployment", "prefill")], events=[said]), lambda *_: ())
    assert [one.objects for one in found] == [(f"ReplicaSet {ENGINES}/prefill-old",)]
    new = {"kind": "ReplicaSet", "metadata": {"name": "prefill-new", "namespace": ENGINES, "uid": "uid-new"}}
    assert causes(Seen([new], events=[said]), lambda *_: ()) == []
    made = event(old, "SuccessfulCreate", "Created pod: prefill-old-1", 9)
    assert causes(Seen(events=[said, made]), lambda *_: ()) == []


@pytest.mark.parametrize("case", [one for one in PLACES if one.seen.nodes], ids=lambda case: case.name)
def test_the_order_of_the_schedulers_reasons_says_nothing(case: Case) -> None:
    """It counts them in the order of their texts."""
    pod_ = copy.deepcopy(case.seen.pods[0])
    said = pod_["status"]["conditions"][0]
    head, _, rest = said["message"].partition(": ")
    reasons, stop, tail = rest.partition(". preemption")
    parts = re.split(r", (?=\d )", reasons)
    said["message"] = f"{head}: {', '.join(reversed(parts))}{stop}{tail}"
    turned = causes(Seen(pods=[pod_], nodes=case.seen.nodes), lambda *_: ())
    words = [{word.strip(":;") for word in found[0].fix.split()} for found in (turned, _lines(case))]
    assert words[0] == words[1]


def test_only_what_fits_is_proposed() -> None:
    by_name = {case.name: _lines(case)[0].fix for case in PLACES}
    assert "platform" not in by_name["instance type"]
    assert by_name["a resource of others"] == "none of them offers example.com/licence"


def test_controllers_that_are_well_or_explained_are_no_cause() -> None:
    off = condition("ScalingActive", "False", "ScalingDisabled", "scaling is disabled since the replica count is zero")
    asleep = {**HPA, "status": {"conditions": [off]}}
    done = {**KUEUE, "status": {"conditions": [condition("Finished", "True", "Succeeded", "")]}}
    assert causes(Seen([asleep, done]), lambda *_: ()) == []
    group = applied("LeaderWorkerSet", "prefill-groups", "deepseek-r1-p5en-1p1d", readyReplicas=0)
    found = causes(Seen([group], [starting(crashed(2))]), lambda *_: ())
    assert [one.stage for one in found] == [Stage.ENDED]  # the pods say why


def test_what_controllers_fall_back_to_is_told() -> None:
    fallen = {**KEDA, "status": {"conditions": [condition("Fallback", "True", "FallbackExists", "1 scaler failed")]}}
    put_out = {**KUEUE, "status": {"conditions": [condition("Evicted", "True", "PodsReadyTimeout", "not ready in 5m")]}}
    lost = {**CLAIM, "status": {"phase": "Lost"}}
    found = causes(Seen([fallen, put_out, lost]), lambda *_: ())
    assert {one.what: one.why for one in found} == {
        "KEDA cannot scale by it": "FallbackExists: 1 scaler failed",
        "Kueue has not admitted it (queue team)": "PodsReadyTimeout: not ready in 5m",
        "it has no volume (Lost)": "",
    }


def test_of_a_volumes_troubles_the_last_counts() -> None:
    one = starting(waiting("ContainerCreating"))
    first = event(one, "FailedMount", 'MountVolume.SetUp failed for volume "keys" : secret "keys" not found', 1)
    then = event(one, "FailedMount", 'Multi-Attach error for volume "pvc-1"', 2)
    assert "attached to another node" in causes(Seen(pods=[one], events=[then, first]), lambda *_: ())[0].what


def test_where_no_node_is_of_the_kind_that_is_the_reason() -> None:
    message = "0/2 nodes are available: 1 Too many pods, 1 node(s) didn't match Pod's node affinity/selector."
    nodes = [node("a", "ml.m5.large"), node("b", "ml.m5.large")]
    fix = causes(Seen(pods=[unplaced(message)], nodes=nodes), lambda *_: ())[0].fix
    assert fix.startswith("no node has node.kubernetes.io/instance-type=ml.p5en.48xlarge")
