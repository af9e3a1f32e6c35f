"""Deployments whose gateway asks for an API key: the gateway's own check, behind the API server's stand-in."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hyperpd.deploy import revision
from hyperpd.deploy.progress import Seen
from hyperpd.errors import NotReady, RecipeError
from tests.deploy.stage import HOME, KEY, NAME, Stage, deployed, knows_key, stage, with_keys

SECRET = "keys_secret=keys"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Stage]:
    """With a gateway that knows KEY alone."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with stage() as found:
        found.keys = knows_key(tmp_path)
        yield found


@pytest.fixture
def keyed(tmp_path: Path) -> Path:
    return with_keys(tmp_path)


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def tell(told: list[str]) -> Callable[[Any], None]:
    return lambda one: told.append(one.line() if isinstance(one, Seen) else one.text)


def test_it_is_asked_with_the_key(here: Stage, keyed: Path, told: list[str], tell: Callable[[Any], None]) -> None:
    found = deployed(here, keyed, SECRET, progress=tell, key=KEY)
    assert (len(here.asked), told[-1]) == (1, "the gateway has answered a request")
    found.scale({"prefill": 2}, tell, key=KEY)
    assert (len(here.asked), told[-1]) == (2, "the gateway has answered a request")
    assert KEY not in "".join([*told, *map(str, here.store.requests), json.dumps(here.all("ConfigMap"))])


def test_without_a_key_its_refusal_is_the_proof_and_that_is_said(
    here: Stage, keyed: Path, told: list[str], tell: Callable[[Any], None]
) -> None:
    found = deployed(here, keyed, SECRET, progress=tell)
    said = "the gateway asks for an API key: no request was made; try again with --key-file FILE"
    assert (here.asked, told[-1], found.revision.state) == ([], said, "ready")
    found.scale({"prefill": 2}, tell)
    assert (here.asked, told[-1]) == ([], said)


def test_a_key_that_the_gateway_does_not_know(here: Stage, keyed: Path) -> None:
    with pytest.raises(NotReady, match=r"(?s)with 401: .*invalid_api_key.*the Secret of keys_secret") as why:
        deployed(here, keyed, SECRET, key="sk-other")
    assert "sk-other" not in str(why.value)
    assert [one.state for one in revision.history(here.api(), HOME)] == ["applied"]
    assert deployed(here, keyed, SECRET, key=KEY).revision.state == "ready"  # goes on


@pytest.mark.parametrize(
    ("settings", "key", "said"),
    [((), KEY, "nobody would ask for it: gateway.auth is none"), ((SECRET,), "sk-a\nsk-b", "not one API key")],
)
def test_a_key_that_is_of_no_use_is_refused_before_anything(
    here: Stage, keyed: Path, settings: tuple[str, ...], key: str, said: str
) -> None:
    with pytest.raises(RecipeError, match=said) as why:
        deployed(here, keyed if settings else NAME, *settings, key=key)
    assert key not in str(why.value)
    assert here.store.requests == []


def test_a_running_deployment_is_not_scaled_with_such_a_key(here: Stage) -> None:
    here.keys = None
    found = deployed(here)
    version = here.store.version
    with pytest.raises(RecipeError, match="nobody would ask for it"):
        found.scale({"prefill": 2}, key=KEY)
    assert here.store.version == version
