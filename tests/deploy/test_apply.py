"""Api against the stand-in of an API server, over HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperpd.deploy import connect
from hyperpd.deploy.apply import NOT_SERVED, Api
from hyperpd.errors import CloudError, RecipeError
from tests.fakes import kubernetes

SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "a", "namespace": "default"},
    "spec": {"ports": [{"port": 80}]},
}


@pytest.fixture
def store() -> kubernetes.Store:
    return kubernetes.Store(schemas=False)


@pytest.fixture
def api(store: kubernetes.Store, tmp_path: Path) -> Iterator[Api]:
    path = tmp_path / "config"
    with (
        kubernetes.serve(store) as url,
        connect.kubeconfig(path=kubernetes.kubeconfig(path, url)) as api,
    ):
        yield api


def test_what_is_there_and_what_is_not(api: Api) -> None:
    api.create(SERVICE)
    found = api.get("Service", "default", "a")
    assert found
    assert found["spec"]["ports"][0]["port"] == 80
    assert api.get("Service", "default", "b") is None
    assert [(one["kind"], one["metadata"]["name"]) for one in api.list("Service")] == [("Service", "a")]


def test_a_refusal_says_operation_code_and_cause(api: Api) -> None:
    api.create(SERVICE)
    with pytest.raises(CloudError, match='create Service a in default: AlreadyExists: services "a" already') as refused:
        api.create(SERVICE)
    assert (refused.value.operation, refused.value.code) == ("create Service a in default", "AlreadyExists")


def test_a_kind_that_the_cluster_does_not_serve_is_no_missing_object(api: Api, store: kubernetes.Store) -> None:
    store.absent.add("LeaderWorkerSet")
    with pytest.raises(CloudError, match="is not installed") as refused:
        api.get("LeaderWorkerSet", "default", "a")
    assert refused.value.code == NOT_SERVED


def test_no_server(tmp_path: Path) -> None:
    path = kubernetes.kubeconfig(tmp_path / "config", "http://127.0.0.1:1")
    with connect.kubeconfig(path=path) as api, pytest.raises(CloudError, match="does not answer: is its endpoint"):
        api.get("Pod", "default", "a")


@pytest.mark.parametrize(("context", "said"), [("other", "Context 'other' not found"), (None, "not found: give")])
def test_no_such_context(context: str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "config"
    if context:
        kubernetes.kubeconfig(path, "http://127.0.0.1:1")
    with pytest.raises(RecipeError, match=said):
        connect.kubeconfig(context, path)


def test_what_the_server_throttles_is_sent_again_after_what_it_says(
    api: Api, store: kubernetes.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    store.faults.add(kubernetes.Fault(kubernetes.Effect.THROTTLE, times=2, retry_after_s=7))
    api.create(SERVICE)
    assert waited == [7.0, 7.0]
    store.faults.add(kubernetes.Fault(kubernetes.Effect.THROTTLE, times=9))
    with pytest.raises(CloudError, match="delete Service a in default: TooManyRequests"):
        api.delete("Service", "default", "a")


def test_watch_goes_on_from_what_was_listed(api: Api) -> None:
    _, version = api.listed("Service", "default")
    api.create(SERVICE)
    api.delete("Service", "default", "a")
    seen = [(what, body["metadata"]["name"]) for what, body in api.watch("Service", "default", version, timeout_s=1)]
    assert seen == [("ADDED", "a"), ("DELETED", "a")]


def test_scale_and_merge(api: Api, store: kubernetes.Store) -> None:
    meta = {"name": "decode", "namespace": "default"}
    store.put({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {"replicas": 1}})
    api.patch_scale("Deployment", "default", "decode", 3)
    api.patch("Deployment", "default", "decode", {"metadata": {"labels": {"a": "b"}}})
    found = api.get("Deployment", "default", "decode")
    assert found
    assert (found["spec"]["replicas"], found["metadata"]["labels"]) == (3, {"a": "b"})


def test_a_missing_right_and_a_policy_are_told_apart(api: Api, store: kubernetes.Store) -> None:
    store.admission.webhooks["limits.example.com"] = lambda verb, at, body: "no"
    with pytest.raises(CloudError, match=r"denied the request: no$"):
        api.create(SERVICE)
    store.access.denied.add(("create", "services"))
    with pytest.raises(CloudError, match=r"(?s)cannot create resource.*Your user lacks this right"):
        api.create(SERVICE)
