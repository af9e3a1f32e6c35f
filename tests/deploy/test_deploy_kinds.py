"""The kinds that hyperpd asks an API server for: what deploy applies is among them, as servers have them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hyperpd.deploy.kinds import KINDS
from hyperpd.deploy.removal import KEPT
from hyperpd.deploy.wanted import APPLIED
from tests.deploy import objects_rendered, operator_rendered
from tests.fakes import kubernetes


def rendered(target: str) -> Iterator[Any]:
    """Every object of every recipe, in each form."""
    if target == "kubernetes":
        for case in objects_rendered.cases():
            yield from objects_rendered.rendered(*case)
    else:
        for name, given in operator_rendered.cases():
            yield from operator_rendered.bodies(name, given)


@pytest.mark.parametrize("target", APPLIED)
def test_every_kind_that_is_applied_is_known_as_a_server_has_it(target: str) -> None:
    served = {(one.api_version, one.kind): (one.plural, one.namespaced) for one in kubernetes.SERVED}
    found = {(body["apiVersion"], body["kind"]) for body in rendered(target)}
    assert ("v1", "Namespace") in found
    for version, kind in found:
        known = KINDS[kind]
        assert (known.api_version, known.plural, known.namespaced) == (version, *served[version, kind])


def test_removal_looks_for_all_that_runs_or_keeps_something() -> None:
    """Also for kinds that no target renders. What only says how (a policy, a budget, a monitor) is nobody's loss."""
    settings = {"Namespace", "Node", "Event", "LimitRange", "ResourceQuota", "HorizontalPodAutoscaler"}
    settings |= {"NetworkPolicy", "PodDisruptionBudget", "PodMonitor"}
    assert set(KEPT) == set(KINDS) - settings
