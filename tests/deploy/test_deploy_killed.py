"""Deployments that are cut off: killed at any request that changes something, answers lost, two at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperpd import recipe
from hyperpd.deploy import revision, rollout
from hyperpd.deploy.deployment import Deployment, deploy
from hyperpd.deploy.wanted import want
from hyperpd.errors import CloudError, RecipeError
from tests.deploy.stage import NAME, SETTINGS, Killed, Stage, altered, deployed, stage
from tests.fakes import kubernetes


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with stage() as found:
        yield found


def test_killed_at_any_change_the_next_run_finishes(tmp_path: Path) -> None:
    """A first deployment and an update, each killed before every request that changes something; then run again.
    Killed after one is killed before the next."""
    changed = altered(tmp_path)
    with stage() as clean:
        deployed(clean)
        first, changes = _but_revisions(clean), len(clean.gate.changes)
        deployed(clean, changed)
        second, more = _but_revisions(clean), len(clean.gate.changes)
    assert (changes > 20, more > 5) == (True, True)
    for at in range(1, changes + 1):
        with stage() as here:
            with pytest.raises(Killed):
                deploy(NAME, here.api(at), settings=SETTINGS)
            found = deployed(here)
            assert _but_revisions(here) == first, at
            assert (found.revision.state, found.status().ready) == ("ready", True), at
            if at > more:
                continue
            with pytest.raises(Killed):
                deploy(changed, here.api(at), settings=SETTINGS)
            if at % 2:  # go on, or back: what the one that was cut off made goes
                assert (deployed(here, changed).revision.state, _but_revisions(here)) == ("ready", second), at
            else:
                assert (deployed(here).revision.state, _but_revisions(here)) == ("ready", first), at


def test_a_scale_killed_at_any_change_goes_on(here: Stage) -> None:
    found = deployed(here)
    for at in range(1, 100):
        try:
            Deployment.find(here.api(at), NAME).scale({"prefill": 1 + at})
            break
        except Killed:
            found = Deployment.find(here.api(), NAME).scale({"prefill": 1 + at})
            assert (found.revision.state, found.revision.replicas, found.status().ready) == (
                *("ready", {"prefill": 1 + at}),
                True,
            ), at
    assert at > 4


def test_a_removal_killed_at_any_change_goes_on(here: Stage) -> None:
    for at in range(1, 100, 2):
        deployed(here)
        try:
            Deployment.find(here.api(at), NAME).delete()
            break
        except Killed:
            if revision.deployments(here.api()):  # else its namespace was going already, as the last thing
                Deployment.find(here.api(), NAME).delete()
            assert here.names() == set(), at
    assert at > 20


def test_where_an_answer_is_lost_its_object_is_taken_back_too(here: Stage) -> None:
    here.store.faults.add(kubernetes.Fault(kubernetes.Effect.CUT_AFTER, 15, requests="PATCH (?!.*dryRun)"))
    with pytest.raises(CloudError, match=r"(?s)RemoteProtocolError.*is deleted again: Namespace"):
        deployed(here)
    assert here.names() == set()


def _but_revisions(here: Stage) -> set[str]:
    return {name for name in here.names() if "hyperpd-revision-" not in name}


def test_one_that_was_cut_off_is_named(here: Stage) -> None:
    with pytest.raises(Killed):
        deploy(NAME, here.api(6), settings=SETTINGS)
    planned = rollout.plan(here.api(), want(recipe.load(NAME), "kubernetes", SETTINGS))
    assert [note for note in planned.notes if note.startswith("revision 1 was cut off")]
    found = Deployment.find(here.api(), NAME)
    here.play()
    assert (found.status().ready, "1 is being applied, or was cut off" in found.status().causes[0]) == (False, True)
    with pytest.raises(RecipeError, match=r"cut off, so it is there in part: deploy its recipe again \(with"):
        found.scaled({"prefill": 2})


def test_two_at_once(here: Stage) -> None:
    wanted = want(recipe.load(NAME), "kubernetes", SETTINGS)
    first, second = rollout.plan(here.api(), wanted), rollout.plan(here.api(), wanted)
    rollout.apply(here.api(), first)
    before = here.names()
    with pytest.raises(CloudError, match="somebody else wrote revision 1"):
        rollout.apply(here.api(), second)
    assert here.names() == before
