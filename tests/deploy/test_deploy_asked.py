"""The one real request of a deployment: who answers, who may not be asked, and what is said then."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from hyperpd.cluster.aws import Aws
from hyperpd.deploy import ready
from hyperpd.deploy.deployment import deploy
from hyperpd.errors import CloudError, NotReady
from tests.deploy.stage import NAME, Stage, deployed, stage

ENDPOINT = "gpt-oss-120b-p5en-4xtp4"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with stage() as found:
        yield found


def test_a_gateway_that_is_not_there_yet_is_asked_again(here: Stage) -> None:
    here.answers = [(503, {"message": "no endpoints available"}), (200, {"choices": [{"text": "Hi"}]})]
    deployed(here)
    assert len(here.asked) == 2
    here.answers = [(400, {"error": {"message": "no chat template"}})]
    with pytest.raises(NotReady, match=r"answers a request with 400: .*no chat template"):
        deployed(here)


def test_a_gateway_that_the_control_plane_does_not_reach(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "_ASK_S", 0.0)
    here.store.backends["hyperpd", "gateway"] = "http://127.0.0.1:1"
    with pytest.raises(NotReady, match=r"(?s)all is ready, but.*let the control plane in at port 8080"):
        deployed(here)


def test_an_api_server_that_lets_nobody_through_to_the_gateway(here: Stage) -> None:
    here.store.access.denied.add(("create", "services/proxy"))
    told: list[Any] = []
    found = deployed(here, progress=told.append)
    assert (here.asked, found.revision.state) == ([], "ready")
    assert told[-1].text == (
        "no request was made: the API server does not let you through to the gateway: services"
        ' "http:gateway:8080" is forbidden: User "stand-in" cannot create resource "services/proxy" in API group ""'
        ' in the namespace "hyperpd"\nask it by a way of your own, with the same --context: kubectl --namespace hyperpd'
        " port-forward service/gateway 8080 & hyperpd invoke --url http://127.0.0.1:8080 --chat Hello"
    )
    here.store.access.denied.clear()
    here.answers = [(403, {"error": {"message": "not for you"}})]
    with pytest.raises(NotReady, match=r"answers a request with 403: .*not for you"):
        deployed(here)


def test_an_endpoint_that_iam_lets_nobody_ask(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = ["AccessDeniedException", "ValidationError"]

    def invoke(aws: Aws, service: str, operation: str, **sent: Any) -> dict[str, Any]:
        raise CloudError(f"{service} InvokeEndpoint: {codes[0]}: no", operation="InvokeEndpoint", code=codes.pop(0))

    monkeypatch.setattr(Aws, "call", invoke)
    told: list[Any] = []
    found = deploy(ENDPOINT, here.api(), target="inference_operator", progress=told.append)
    said = f"AWS does not let you ask it: .*AccessDenied.*: hyperpd iam invoke --endpoint {found.endpoint}$"
    assert (found.revision.state, bool(re.search(said, told[-1].text))) == ("ready", True)
    with pytest.raises(CloudError, match="ValidationError"):
        deploy(ENDPOINT, here.api(), target="inference_operator")


def test_a_gateway_for_one_namespace_is_not_asked_and_that_is_said(here: Stage) -> None:
    told: list[Any] = []
    deployed(here, NAME, "clients-namespace=apps", progress=told.append)
    assert [one for one in told if "only pods of apps may call" in getattr(one, "text", "")]
    assert here.asked == []
