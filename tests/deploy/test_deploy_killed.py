"""Deployments that are cut off: killed at any request that changes something, answers lost, two at once; and with
kill -9, as processes."""

from __future__ import annotations

import subprocess
import sys
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
from tests.fakes.kubernetes.faults import Faults


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


class Played(Faults):
    """The controllers play before each request, whoever sends it."""

    def __init__(self, here: Stage) -> None:
        super().__init__()
        self.here = here

    def next(self, request: str) -> kubernetes.Fault | None:
        self.here.play()
        return super().next(request)


def _command(*words: str) -> subprocess.Popen[str]:
    program = "from hyperpd.cli.main import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", program, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _killed(here: Stage, nth: int, *words: str) -> None:
    """kill -9 while the server has its changing request number `nth`, which takes effect all the same."""
    changes = kubernetes.WRITES + r"(?!.*dryRun|.*/proxy/)"
    held = here.store.faults.add(kubernetes.Fault(kubernetes.Effect.HOLD, nth, requests=changes))
    with _command(*words) as running:
        assert held.held.wait(60)
        version = here.store.version
        running.kill()
        assert running.wait() == -9
    held.released.set()
    with here.store.changed:
        assert here.store.changed.wait_for(lambda: here.store.version != version, 60)
    here.store.faults.clear()


@pytest.mark.parametrize("nth", [2, 14])
def test_kill_9_of_a_deploy_and_of_its_undeploy(nth: int, tmp_path: Path) -> None:
    """Processes of their own, as a user's are."""
    with stage() as clean:
        deployed(clean)
        wanted = _but_revisions(clean)
    with stage() as here:
        here.store.faults = Played(here)
        place = ("--kubeconfig", str(kubernetes.kubeconfig(tmp_path / "kubeconfig", here.url)), "--yes")
        deploy_ = ("deploy", NAME, *(word for one in SETTINGS for word in ("--set", one)), *place)
        _killed(here, nth, *deploy_)
        assert _but_revisions(here) != wanted
        with _command(*deploy_) as again:
            said, _ = again.communicate(timeout=60)
        assert (again.returncode, "the gateway has answered a request" in said, _but_revisions(here)) == (
            *(0, True),
            wanted,
        ), said
        _killed(here, nth, "undeploy", NAME, *place)
        assert here.names() != set()
        with _command("undeploy", NAME, *place) as again:
            said, _ = again.communicate(timeout=60)
        assert (again.returncode, here.names()) == (0, set()), said


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
