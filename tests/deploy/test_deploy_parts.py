"""How many of a workload are ready, by its status: those of the newest specification, and no older ones."""

from __future__ import annotations

from typing import Any

import pytest

from hyperpd.deploy.difference import Ref
from hyperpd.deploy.parts import part


def _body(kind: str, wanted: int, **counts: int) -> dict[str, Any]:
    meta = {"generation": 2, "labels": {"app.kubernetes.io/component": "gateway"}}
    return {"kind": kind, "metadata": meta, "spec": {"replicas": wanted}, "status": {"observedGeneration": 2, **counts}}


@pytest.mark.parametrize(
    ("kind", "wanted", "counts", "said"),
    [
        # One more may be started, and none may be missing: the older one serves, the newest does not start.
        ("Deployment", 1, (2, 1, 1), "gateway 0/1 ready (1 of an older revision)"),
        ("Deployment", 2, (3, 1, 2), "gateway 0/2 ready (2 of an older revision)"),
        ("Deployment", 2, (3, 2, 2), "gateway 1/2 ready (1 of an older revision)"),
        ("Deployment", 2, (2, 2, 2), "gateway 2/2 ready"),
        ("Deployment", 2, (2, 2, 1), "gateway 1/2 ready"),
        ("LeaderWorkerSet", 2, (2, 1, 2), "gateway 1/2 ready (1 of an older revision)"),
    ],
)
def test_older_pods_do_not_count(kind: str, wanted: int, counts: tuple[int, int, int], said: str) -> None:
    ready = "availableReplicas" if kind == "Deployment" else "readyReplicas"
    named = dict(zip(("replicas", "updatedReplicas", ready), counts, strict=True))
    found = part(Ref(kind, "hyperpd", "gateway"), _body(kind, wanted, **named))
    assert str(found) == said
    assert found.good == ("2/2" in said)
