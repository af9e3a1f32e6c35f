"""Control: the stand-in as a server; each call is written down, judged, answered, and its answer judged too."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Self

import boto3

from tests.deploy import botocore_shapes
from tests.fakes import wire
from tests.fakes.gate import REGION, Call, Fault, Gate, Refused
from tests.fakes.hyperpod import (
    cluster_calls,
    event_calls,
    hosting_calls,
    hub_calls,
    needs,
    node_calls,
    plan_calls,
    tag_calls,
)
from tests.fakes.hyperpod.account import Account, Body
from tests.fakes.hyperpod.clock import Clock
from tests.fakes.hyperpod.clusters import Cluster
from tests.fakes.hyperpod.nodes import Node, Zones
from tests.fakes.hyperpod.scenario import Scenario
from tests.fakes.policy import Document

_OPERATIONS: dict[str, Callable[[Account, Body], Body]] = {
    **cluster_calls.OPERATIONS,
    **node_calls.OPERATIONS,
    **event_calls.OPERATIONS,
    **plan_calls.OPERATIONS,
    **tag_calls.OPERATIONS,
    **hosting_calls.OPERATIONS,
    **hub_calls.OPERATIONS,
}
# Virtual time that a call takes, seconds: one that looks waits until there is something to see.
STEP_S, CALL_S = 60.0, 1.0
_LOOKS = ("DescribeCluster", "DescribeEndpoint")


class Control:
    """The HyperPod control plane of one account and Region, while its context lasts.

    `faults`: on the way (tests/fakes/gate.py) and inside (scenario.py), in any order. `allow`: a policy document,
    several, or a list of actions; None allows everything. `quotas`: instances per type. `zones`: subnet → (zone, id).
    `step_s`: what a look takes; `now_s`: when it begins (the present). `gate`: one that is shared with other stand-ins,
    with its own faults and policy.
    """

    def __init__(
        self,
        *faults: Fault | Scenario,
        allow: Document | Sequence[Document | str] | None = None,
        quotas: Mapping[str, int] | None = None,
        zones: Mapping[str, tuple[str, str]] | Callable[[str], tuple[str, str]] | None = None,
        step_s: float = STEP_S,
        now_s: float | None = None,
        gate: Gate | None = None,
    ) -> None:
        on_the_way = [one for one in faults if isinstance(one, Fault)]
        self.gate = gate or Gate(*on_the_way, allow=allow)
        self.account = Account(
            clock=Clock(now_s),
            zones=zones if callable(zones) else Zones(dict(zones or {})),
            quotas=dict(quotas or {}),
            scenarios=[one for one in faults if isinstance(one, Scenario)],
        )
        self.step_s = step_s
        self.broken: list[str] = []  # answers of ours that the shapes do not allow: none, or the stand-in is wrong
        self.url = ""
        self._lock = threading.Lock()
        self._server: AbstractContextManager[str] | None = None

    def __enter__(self) -> Self:
        self._server = wire.serve(self.answer)
        self.url = self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server
        self._server.__exit__(None, None, None)
        assert not self.broken, "\n".join(self.broken)

    @property
    def calls(self) -> list[Call]:
        return self.gate.calls

    def client(self, **given: Any) -> Any:
        """A boto3 client; `given`: other arguments of boto3.client."""
        keys = {"aws_access_key_id": "AKIASTANDIN0000000000", "aws_secret_access_key": "stand-in"}
        return boto3.client("sagemaker", region_name=REGION, **({"endpoint_url": self.url} | keys | given))

    def advance(self, seconds: float) -> None:
        """Time passes, as it does by itself with each Describe."""
        with self._lock:
            self.account.clock.advance(seconds)

    def cluster(self, name: str) -> Cluster:
        """The state behind the API; raises Refused where there is none of that name."""
        return self.account.cluster(name)

    def nodes(self, cluster: str, group: str = "") -> list[Node]:
        return [node for node in self.cluster(cluster).nodes if not group or node.group == group]

    def sicken(self, node: Node, message: str = "Instance failed its health check: GPU XID 79.") -> None:
        """A running node fails."""
        with self._lock:
            node.status, node.message = "Failure", message

    def training_plan(self, name: str, instance_type: str, instances: int, zone: tuple[str, str], **given: Any) -> str:
        """There is a training plan; its ARN. `given`: see plan_calls.plan."""
        made = plan_calls.plan(self.account, name, instance_type, instances, zone, **given)
        self.account.plans.append(made)
        return str(made["TrainingPlanArn"])

    def answer(self, request: wire.Request) -> wire.Answer:
        """One call. Raises Disconnected where a fault says so."""
        operation = request.headers.get("x-amz-target", "").removeprefix("SageMaker.")
        try:
            asked = json.loads(request.body or b"{}")
            with self._lock:
                call = Call("sagemaker", operation, asked, needs.of(self.account, operation, asked), request.signed[0])
            self.gate.enter(call)
            try:
                answer = self._effect(operation, asked)
            finally:
                self.gate.leave(call)
        except Refused as refused:
            call.error = refused.code
            body: Body = {"__type": refused.code, "message": refused.message}
            return wire.Answer(refused.status, _headers(call.number), json.dumps(body).encode())
        return wire.Answer(200, _headers(call.number), json.dumps(answer).encode())

    def _effect(self, operation: str, asked: Body) -> Body:
        if operation not in _OPERATIONS:
            raise Refused("UnknownOperationException", f"the stand-in has no {operation}")
        if found := botocore_shapes.problems("sagemaker", operation, asked):
            raise Refused("ValidationException", f"{len(found)} validation error(s) detected: {'; '.join(found)}")
        with self._lock:
            self.account.clock.advance(self.step_s if operation in _LOOKS else CALL_S)
            answer: Body = json.loads(
                json.dumps(_OPERATIONS[operation](self.account, asked))
            )  # nobody holds what changes
        if wrong := botocore_shapes.answer_problems("sagemaker", operation, answer):
            self.broken += [f"{operation}: {one}" for one in wrong]
            raise Refused("InternalFailure", f"the stand-in's answer: {'; '.join(wrong)}", 500)
        return answer


def _headers(number: int) -> dict[str, str]:
    return {"Content-Type": "application/x-amz-json-1.1", "x-amzn-RequestId": f"stand-in-{number}"}
