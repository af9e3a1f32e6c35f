"""Revisions that somebody else wrote, or that are damaged: they lead nowhere else, and are in nobody's way."""

from __future__ import annotations

import base64
import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperpd import recipe
from hyperpd.deploy import revision
from hyperpd.deploy.deployment import want_of
from hyperpd.deploy.progress import Step
from hyperpd.errors import CloudError, RecipeError
from tests.deploy.stage import HOME, NAME, Object, Stage, deployed, stage


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with stage() as found:
        yield found


def _elsewhere(here: Stage) -> Object:
    """A copy of the first revision in another namespace."""
    here.store.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}})
    found = here.api().get("ConfigMap", HOME, "hyperpd-revision-1")
    assert found
    meta = {"name": "hyperpd-revision-1", "namespace": "other", "labels": found["metadata"]["labels"]}
    return {**found, "metadata": meta}


@pytest.mark.parametrize("name", ["../outside", "{folder}/outside"])
def test_the_name_of_a_revision_is_no_path(here: Stage, tmp_path: Path, name: str) -> None:
    (folder := tmp_path / "in").mkdir()
    body = _elsewhere(here) if deployed(here, wait=False) else {}
    facts = json.loads(body["data"]["revision.json"])
    facts["name"] = name.format(folder=tmp_path)
    here.store.put({**body, "data": body["data"] | {"revision.json": json.dumps(facts)}})
    (found,) = revision.history(here.api(), "other")
    file = found.file(folder)
    assert (file.path.parent, list(tmp_path.iterdir())) == (folder, [folder])
    assert want_of(found).name == recipe.load(NAME).recipe.name


@pytest.mark.parametrize(
    "packed",
    [gzip.compress(b"[]" * 99)[:-9], gzip.compress(b"[]")[:10] + b"\xff" * 20, b"no gzip"],
    ids=["cut off", "damaged", "no gzip"],
)
def test_a_damaged_revision_is_in_nobodys_way(here: Stage, packed: bytes) -> None:
    deployed(here, wait=False)
    body = _elsewhere(here)
    here.store.put({**body, "binaryData": {"objects.json.gz": base64.b64encode(packed).decode()}})
    told: list[Step] = []
    found = revision.find(here.api(), NAME, told.append)  # type: ignore[arg-type]
    assert [one.home for one in found] == [HOME]
    (said,) = [one.text for one in told]
    assert said.startswith("other is left out: ConfigMap hyperpd-revision-1 in other is no revision")
    with pytest.raises(RecipeError, match="no such deployment"):
        revision.find(here.api(), "other")
    with pytest.raises(CloudError, match="or delete it"):  # what goes into its own namespace is not guessed
        revision.history(here.api(), "other")
