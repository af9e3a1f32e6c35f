"""The stand-in for a Kubernetes API server refuses what a server refuses."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.fakes import kubernetes

SERVICE = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "default"}}
GROUP = {"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet", "metadata": {"name": "a"}}


@pytest.fixture
def store() -> kubernetes.Store:
    return kubernetes.Store()


@pytest.fixture
def api(store: kubernetes.Store) -> Iterator[httpx.Client]:
    with kubernetes.serve(store) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def test_objects_are_kept_as_they_came(api: httpx.Client, store: kubernetes.Store) -> None:
    assert api.post("/api/v1/namespaces/default/services", json=SERVICE).status_code == 201
    path = "/apis/leaderworkerset.x-k8s.io/v1/namespaces/default/leaderworkersets"
    assert api.post(path, json=GROUP).status_code == 201
    assert store.posted == [SERVICE, GROUP]
    kept = api.get(f"{path}/a").json()
    assert (kept["metadata"]["namespace"], kept["metadata"]["resourceVersion"]) == ("default", "3")
    listed = api.get("/api/v1/services").json()
    assert ([item["metadata"]["name"] for item in listed["items"]], listed["kind"]) == (["a"], "ServiceList")
    assert "kind" not in listed["items"][0]  # the list has said it


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/apis//apps%2Fv1/namespaces/default/deployments", SERVICE, 404),  # what hyp 3.12.0 makes of apps/v1
        ("/apis//v1/namespaces/default/services", SERVICE, 404),
        ("/apis/apps/v1/namespaces/default/services", SERVICE, 404),
        ("/api/v1/namespaces/default/servces", SERVICE, 404),
        ("/api/v1/namespaces/default/namespaces", SERVICE, 404),
        ("/api/v1/namespaces/other/services", {**SERVICE, "metadata": {"name": "a"}}, 404),
        ("/api/v1/services", SERVICE, 405),
        ("/api/v1/namespaces/default/configmaps", SERVICE, 400),
        ("/api/v1/namespaces/default/services", {**SERVICE, "metadata": {}}, 400),
        ("/api/v1/namespaces/default/services", {**SERVICE, "metadata": {"name": "a", "namespace": "b"}}, 400),
    ],
)
def test_refusals(path: str, body: object, status: int, api: httpx.Client, store: kubernetes.Store) -> None:
    answer = api.post(path, json=body)
    assert (answer.status_code, answer.json()["kind"], answer.json()["code"]) == (status, "Status", status)
    assert (store.posted, len(store.refused)) == ([], 1)


def test_one_object_of_a_name(api: httpx.Client) -> None:
    answers = [api.post("/api/v1/namespaces/default/services", json=SERVICE) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 409]
    assert api.get("/api/v1/namespaces/default/services/b").status_code == 404
