"""hyperpd deploy by target: the operator's own prefill/decode from nothing and back, and what is said of those that it
does not apply."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import boto3
import pytest

from hyperpd.deploy import TARGETS, connect
from hyperpd.deploy.wanted import APPLIED
from tests.deploy.stage import ANSWER, Stage, stage
from tests.fakes import wire
from tests.fakes.kubernetes.controllers import Controllers
from tests.fakes.runtime import Runtime

NAME = "qwen3-32b-p5-4p2d"
SAID = json.dumps(ANSWER).encode()
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """Objects are held to the operator's schema, and the operator is at work while something is waited for."""
    with stage(schemas=True) as found:
        found.controllers = Controllers(found.store)
        monkeypatch.setattr(connect, "kubeconfig", lambda context, path: found.api())
        monkeypatch.setattr(time, "sleep", lambda seconds: found.controllers and found.controllers.step())
        yield found


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """Its container is whatever the operator's router is."""
    with (
        wire.serve(lambda request: wire.Answer(200, {"Content-Type": "application/json"}, SAID)) as url,
        Runtime({NAME: url}) as runtime,
    ):
        for name, value in runtime.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # another test's, with its credentials
        yield runtime


def replicas(here: Stage) -> dict[str, int]:
    """By role, as pdSpec has them."""
    (endpoint,) = here.all("InferenceEndpointConfig")
    pair = endpoint["spec"]["pdSpec"]
    return {role: pair[role]["replicas"] for role in ("prefillSpec", "decodingSpec")}


def test_pd_spec_from_nothing_to_an_answer_and_back(here: Stage, runtime: Runtime, hyperpd: Run) -> None:
    given = ("--target", "inference_operator", "--yes")
    code, out, said = hyperpd("deploy", NAME, *given)
    assert code == 0, said
    assert f"endpoint {NAME} has answered a request" in out
    assert [(call.operation, call.endpoint) for call in runtime.calls] == [("InvokeEndpoint", NAME)]
    assert json.loads(runtime.calls[0].body)["model"] == "Qwen/Qwen3-32B"
    assert (replicas(here), len(here.all("Pod"))) == ({"prefillSpec": 4, "decodingSpec": 2}, 6)
    assert "nothing differs from revision 1" in hyperpd("deploy", NAME, *given)[1]

    code, _, said = hyperpd("scale", NAME, "prefill=5", "decode=3")
    assert code == 0, said
    assert (replicas(here), len(here.all("Pod"))) == ({"prefillSpec": 5, "decodingSpec": 3}, 8)
    assert len(runtime.calls) == 3  # what runs is asked after each

    code, _, said = hyperpd("undeploy", NAME, "--yes")
    assert here.controllers
    here.controllers.settle()  # pods end by themselves
    assert (code, here.names()) == (0, set()), said


@pytest.mark.parametrize("target", [one for one in TARGETS if one not in APPLIED])
def test_a_target_that_is_not_applied_says_what_does(target: str, here: Stage, hyperpd: Run) -> None:
    code, out, said = hyperpd("deploy", NAME, "--target", target)
    assert (code, out) == (2, "")
    ways = {"hub_recipe": f"hyperpd hub publish {NAME}"}
    way = ways.get(target, f"hyperpd render {NAME} --target {target} -o FOLDER, then ")
    assert f"hyperpd deploy does not apply it; try: {way}" in said
    assert here.store.requests == []
