"""hyperpd undeploy: what others keep in a namespace is seen, and what does not end is named."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from hyperpd.deploy import removal
from hyperpd.errors import NotReady
from tests.deploy.stage import HOME, Stage, deployed, stage


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with stage() as found:
        yield found


def test_removal_keeps_a_namespace_with_somebody_elses_data(here: Stage) -> None:
    found = deployed(here)
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "weights", "namespace": HOME},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    here.store.put(claim)
    gone = found.delete()
    assert [one for one in gone.stays if "PersistentVolumeClaim weights" in one]
    assert here.names() == {f"Namespace /{HOME}", f"PersistentVolumeClaim {HOME}/weights"}
    all_of_it = deployed(here)
    assert (
        f"PersistentVolumeClaim weights in {HOME}, which hyperpd did not make"
        in all_of_it.removal(everything=True).lines()
    )
    all_of_it.delete(everything=True)
    assert here.names() == set()


SERVED = [
    ("v1", "Pod", {"containers": [{"name": "a", "image": "a"}]}),
    ("v1", "ServiceAccount", None),
    ("apps/v1", "DaemonSet", {"selector": {}}),
    ("batch/v1", "CronJob", {"schedule": "@daily"}),
    ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", {"replicas": 1}),
    ("inference.sagemaker.aws.amazon.com/v1", "InferenceEndpointConfig", {"modelName": "a"}),
    ("keda.sh/v1alpha1", "ScaledObject", {"scaleTargetRef": {"name": "a"}}),
]


@pytest.mark.parametrize(("version", "kind", "spec"), SERVED, ids=[kind for _, kind, _ in SERVED])
def test_removal_keeps_a_namespace_in_which_others_serve(here: Stage, version: str, kind: str, spec: Any) -> None:
    found = deployed(here, wait=False)
    meta = {"name": "theirs", "namespace": HOME}
    here.store.put({"apiVersion": version, "kind": kind, "metadata": meta} | ({"spec": spec} if spec else {}))
    (stays,) = found.removal().stays
    assert stays == f"Namespace {HOME}, since others keep there: {kind} theirs"


def test_what_others_own_goes_with_its_owner_and_what_nobody_names_is_named(here: Stage) -> None:
    found = deployed(here, wait=False)
    for kind, name in (("Deployment", "decode"), ("ReplicaSet", "decode-abc"), ("Notebook", "theirs")):
        owner = {"apiVersion": "example.com/v1", "kind": kind, "name": name, "uid": f"uid-{name}"}
        meta = {"name": f"of-{name}", "namespace": HOME, "ownerReferences": [owner]}
        here.store.put({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": []}})
    here.store.put({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": HOME}})
    here.store.absent |= {"LeaderWorkerSet", "ScaledObject"}  # not every cluster has them
    assert found.removal().stays == (f"Namespace {HOME}, since others keep there: Pod of-theirs",)


def test_removal_keeps_a_namespace_of_which_not_all_may_be_seen(here: Stage) -> None:
    found = deployed(here, wait=False)
    here.store.access.denied |= {("list", "secrets"), ("list", "cronjobs.batch")}
    gone = found.delete()
    why = "you may not see whether others keep there a Secret or CronJob"
    assert gone.stays == (f"Namespace hyperpd, since {why}", f"Namespace {HOME}, since {why}")
    assert here.names() == {"Namespace /hyperpd", f"Namespace /{HOME}"}


def test_a_removal_that_does_not_end_names_what_stays(here: Stage) -> None:
    found = deployed(here)
    pod = {"name": "decode-0", "namespace": HOME, "labels": {"app.kubernetes.io/name": "hyperpd"}}
    here.store.put({"apiVersion": "v1", "kind": "Pod", "metadata": pod, "spec": {"containers": []}})
    with pytest.raises(NotReady, match="not gone within 0 s: Pod decode-0 in hyperpd-engines"):
        removal.remove(found.api, found.removal(), timeout_s=0)
