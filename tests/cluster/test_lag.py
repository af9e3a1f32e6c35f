"""What was just sent may not be seen at once: no wait takes the state before for the one after."""

from __future__ import annotations

from typing import Any

import pytest

from hyperpd.cluster import causes, reader, state, watch
from hyperpd.cluster.aws import Aws
from hyperpd.cluster.names import Names, Place
from hyperpd.cluster.state import Node, Status
from hyperpd.cluster.watch import Wait
from hyperpd.errors import NotReady

NAMES = Names("pd", Place("111122223333", "us-east-2"))


def status(word: str, current: int = 1, target: int = 1) -> Status:
    group = {"InstanceGroupName": "decode", "Status": word, "CurrentCount": current, "TargetCount": target}
    arn = "arn:aws:sagemaker:us-east-2:111122223333:cluster/abcdefghijkl"
    return state.status({"ClusterName": "pd", "ClusterArn": arn, "ClusterStatus": word, "InstanceGroups": [group]})


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Any:
    """DescribeCluster's answers, one after the other; the last one stays."""

    def script(*answers: Status | None) -> list[Status | None]:
        left = list(answers)
        monkeypatch.setattr(reader, "status", lambda *_: left.pop(0) if len(left) > 1 else left[0])
        monkeypatch.setattr(watch, "explain", lambda *_: ["causes"])
        return left

    assert causes.explain is watch.explain
    return script


def wait(**given: Any) -> Wait:
    return Wait(Aws("us-east-2"), NAMES, lambda _: None, poll_s=0, timeout_s=60, **given)


def test_a_cluster_is_deleted_when_it_is_gone(says, monkeypatch):
    left = says(status("InService"), status("InService"), status("Deleting"), None)
    wait().gone()
    assert left == [None]
    says(status("InService"))
    monkeypatch.setattr(watch, "UNSEEN_S", 0.0)
    with pytest.raises(NotReady, match="pd was not deleted, and is InService"):
        wait().gone()


def test_a_software_update_begins_before_it_can_end(says, monkeypatch):
    left = says(status("InService"), status("SystemUpdating"), status("InService"))
    wait().begun("decode")
    assert [one.status for one in left if one] == ["InService"]
    says(status("InService"))
    monkeypatch.setattr(watch, "UNSEEN_S", 0.0)
    wait().begun("decode")  # AWS had its time; what became of it, the release tells


def test_an_update_not_seen_yet_is_no_rollback(says):
    says(status("InService"), status("InService", 1, 2), status("InService", 2, 2))
    assert wait().ready({"decode": 2}).group("decode").current == 2
    says(status("Updating", 1, 2), status("InService", 1, 1))
    with pytest.raises(NotReady, match="pd rolled back: decode was asked for 2 nodes, and wants 1"):
        wait().ready({"decode": 2})


def test_a_rebooted_node_is_back_after_it_was_away(says, monkeypatch):
    says(status("InService"))
    looks = iter(["Running", "Pending", "Pending", "Running"])

    def nodes(*_: Any) -> list[Node]:
        return [
            state.node({"InstanceGroupName": "decode", "InstanceId": "i-0", "InstanceStatus": {"Status": next(looks)}})
        ]

    monkeypatch.setattr(reader, "nodes", nodes)
    wait().whole({"decode"}, replaced=())
    assert list(looks) == []
