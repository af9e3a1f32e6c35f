"""hyperpd iam: the commands of a deployment, and invoke, run with what is printed for them, and use all of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from hyperpd.cluster import Cluster
from hyperpd.cluster.actions import COMMANDS, Grant
from hyperpd.cluster.permissions import Scope, permissions
from hyperpd.deploy.deployment import deploy as deploy_
from tests.cluster.trial import PLACE, Trial, in_kubernetes, of
from tests.deploy.stage import ANSWER, NAME, SETTINGS, deployed, stage
from tests.fakes import wire
from tests.fakes.gate import ACCOUNT, REGION
from tests.fakes.runtime import Runtime

AT_SAGEMAKER = "gpt-oss-120b-p5en-4xtp4"  # a recipe, and the endpoint that the inference operator makes of it
TO = ("--cluster", "pd")


class Deploying(Trial):
    """With a cluster, its API server (here) and an endpoint. scope: that of the cluster's file."""

    def __init__(self, command: str, stack: ExitStack, *given: Any) -> None:
        super().__init__(command, *given)
        account = self.account()
        path = self.file(account.eks())
        Cluster.create(path)
        self.aws, self.scope = account.aws, of(path)
        self.here = stack.enter_context(stage())
        self.patched.setattr(time, "sleep", lambda seconds: self.here.play())
        in_kubernetes(self.aws, self.here.url)
        container = stack.enter_context(wire.serve(_answer))
        self.endpoint = stack.enter_context(Runtime({AT_SAGEMAKER: container}))
        self.aws.runtime_url = self.endpoint.url

    def act(self, *argv: object, scope: Scope | None = None, code: int = 0) -> None:
        self.run(self.aws, scope or self.scope, *argv, code=code)


def _answer(request: wire.Request) -> wire.Answer:
    """A container's."""
    if json.loads(request.body).get("stream"):
        events = f"data: {json.dumps({'choices': [{'text': 'Hi'}]})}\n\ndata: [DONE]\n\n"
        return wire.Answer(200, {"Content-Type": "text/event-stream"}, events.encode())
    return wire.Answer(200, {"Content-Type": "application/json"}, json.dumps(ANSWER).encode())


def deploy(trial: Deploying) -> None:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    trial.act(NAME, *settings, *TO, "--yes")
    assert trial.here.asked  # the gateway has answered
    trial.act(AT_SAGEMAKER, "--target", "inference_operator", *TO, "--yes")
    assert [call.endpoint for call in trial.endpoint.calls] == [AT_SAGEMAKER]


def scale(trial: Deploying) -> None:
    deployed(trial.here)
    trial.act(NAME, "decode=2", *TO)
    deploy_(AT_SAGEMAKER, trial.here.api(), target="inference_operator", wait=False)
    trial.act(AT_SAGEMAKER, "aggregated=2", *TO)


def status(trial: Deploying) -> None:
    deployed(trial.here)
    trial.act(NAME, *TO)
    trial.act(*TO)


def logs(trial: Deploying) -> None:
    deployed(trial.here)
    trial.act(NAME, *TO, code=2)  # it has no pod: said by the cluster


def undeploy(trial: Deploying) -> None:
    deployed(trial.here)
    trial.act(NAME, *TO, "--yes")
    assert trial.here.names() == set()


def invoke(trial: Deploying) -> None:
    alone = Scope(PLACE, endpoint=AT_SAGEMAKER)
    trial.act("Hello", "--endpoint", AT_SAGEMAKER, "--chat", scope=alone)
    trial.act("Hello", "--endpoint", AT_SAGEMAKER, "--stream", scope=alone)


RUNS: dict[str, Callable[[Deploying], None]] = {
    one.__name__: one for one in (deploy, status, logs, scale, undeploy, invoke)
}


@pytest.fixture
def trial(
    account: Any, hyperpd: Any, hurried: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Deploying]]:
    with ExitStack() as stack:
        yield lambda command: Deploying(command, stack, hyperpd, account, tmp_path, monkeypatch)


@pytest.mark.parametrize("command", RUNS)
def test_a_command_runs_with_its_policy_and_uses_all_of_it(command: str, trial: Callable[[str], Deploying]) -> None:
    tried = trial(command)
    RUNS[command](tried)
    assert tried.unused() == []


@pytest.mark.parametrize(
    ("command", "grant"), [(name, grant) for name in ("deploy", "invoke") for grant in COMMANDS[name]]
)
def test_a_missing_action_fails(
    command: str, grant: Grant, trial: Callable[[str], Deploying], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = trial(command)
    monkeypatch.setitem(COMMANDS, command, tuple(one for one in COMMANDS[command] if one != grant))
    with pytest.raises(AssertionError, match=f"{grant.action}'"):
        RUNS[command](tried)


def test_resources_are_those_of_the_cluster_and_the_endpoint(trial: Callable[[str], Deploying]) -> None:
    found = {one.action: one.resources for one in permissions(["deploy"], trial("deploy").scope)}
    assert found["eks:DescribeCluster"] == (f"arn:aws:eks:{REGION}:{ACCOUNT}:cluster/prod",)
    (one,) = permissions(["scale"], Scope(PLACE, endpoint="Ours"))[-1].resources
    assert one == f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/ours"


def test_it_says_what_is_needed_beside_it(hyperpd: Any) -> None:
    given = ("--account", ACCOUNT, "--region", REGION)
    needs = "whoever gets this policy needs an EKS access entry, too, with a policy as"
    assert f"deploy: {needs} AmazonEKSClusterAdminPolicy" in hyperpd("iam", "deploy", *given)[2]
    assert f"logs: {needs} AmazonEKSAdminViewPolicy" in hyperpd("iam", "logs", *given)[2]
    code, out, err = hyperpd("iam", "invoke", "--endpoint", "ours", *given)
    assert (code, "access entry" in err) == (0, False)
    (only,) = json.loads(out)["Statement"]
    assert only["Resource"] == [f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/ours"]
