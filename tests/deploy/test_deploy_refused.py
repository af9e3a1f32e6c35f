"""What webhooks refuse is explained: in the plan, and on a first deployment, of which the server can try nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from hyperpd.errors import CloudError
from tests.deploy.stage import NAME, Stage, deployed, stage
from tests.fakes.kubernetes import Refused
from tests.fakes.kubernetes.refusal import unanswered, unexplained

HOOK = "limits.example.com"
ANSWERS = [
    (lambda: "too many", "denied the request: too many"),
    (lambda: unanswered(HOOK), "InternalError: Internal error occurred: failed calling webhook"),
    (lambda: unexplained(HOOK), "HTTP400: admission webhook .* denied the request without explanation"),
]
Answer = Callable[[], str | Refused]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with stage() as found:
        yield found


def _refuse(here: Stage, answer: Answer) -> None:
    here.store.admission.webhooks[HOOK] = lambda verb, at, body: answer() if at.resource.kind == "Deployment" else None


@pytest.mark.parametrize(("answer", "said"), ANSWERS, ids=["denied", "not there", "unexplained"])
def test_in_a_plan(here: Stage, answer: Answer, said: str) -> None:
    deployed(here, wait=False)
    _refuse(here, answer)
    before = here.store.version
    with pytest.raises(CloudError, match=rf"(?s)would refuse 3 objects; nothing was changed.*{said}") as why:
        deployed(here, NAME, "privileged=true", wait=False)
    assert (str(why.value).count("\n  try: "), here.store.version) == (3, before)


@pytest.mark.parametrize(("answer", "said"), ANSWERS, ids=["denied", "not there", "unexplained"])
def test_on_a_first_deployment(here: Stage, answer: Answer, said: str) -> None:
    _refuse(here, answer)
    with pytest.raises(CloudError, match=rf"(?s){said}.*\n  try: .*this run had made is deleted again"):
        deployed(here, wait=False)
    assert here.names() == set()
