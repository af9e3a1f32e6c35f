"""Scale, logs, eviction, deletion with dependants, and the way to a Service on the stand-in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest

from tests.fakes import kubernetes
from tests.fakes.kubernetes import pods
from tests.fakes.kubernetes_bodies import DEPLOYMENTS, MERGE, PODS, config_map, deployment, meta, pod, pod_spec

SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": meta("gateway"),
    "spec": {"selector": {"app": "a"}, "ports": [{"name": "api", "port": 80, "targetPort": 8080}]},
}


@pytest.fixture
def store() -> kubernetes.Store:
    return kubernetes.Store()


@pytest.fixture
def api(store: kubernetes.Store) -> Iterator[httpx.Client]:
    with kubernetes.serve(store) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def running(store: kubernetes.Store, name: str = "a", **more: Any) -> None:
    """A pod that is ready."""
    body = pod(name)
    body["metadata"] |= more
    store.put({**body, "status": pods.Ready().status(body)})


def evict(api: httpx.Client, name: str = "a", **query: str) -> httpx.Response:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta(name)}
    return api.post(f"{PODS}/{name}/eviction", json=body, params=query)


def budget(store: kubernetes.Store, name: str = "b", **spec: Any) -> None:
    selector = {"matchLabels": {"app": "a"}}
    body = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": meta(name)}
    body["spec"] = {"selector": selector, **spec}
    store.create(kubernetes.place_of(body), body)


def test_scale_is_read_and_set(api: httpx.Client) -> None:
    api.post(DEPLOYMENTS, json=deployment())
    path = f"{DEPLOYMENTS}/a/scale"
    found = api.get(path).json()
    assert (found["kind"], found["spec"], found["status"]["selector"]) == ("Scale", {"replicas": 2}, "app=a")
    set_ = api.patch(path, json={"spec": {"replicas": 5}}, headers=MERGE, params={"fieldManager": "one"}).json()
    body = api.get(f"{DEPLOYMENTS}/a").json()
    assert (set_["spec"], body["spec"]["replicas"]) == ({"replicas": 5}, 5)
    (entry,) = [each for each in body["metadata"]["managedFields"] if each["manager"] == "one"]
    assert (entry["operation"], entry["fieldsV1"]) == ("Update", {"f:spec": {"f:replicas": {}}})
    assert entry["subresource"] == "scale"
    assert api.patch(path, json={"spec": {"replicas": -1}}, headers=MERGE).status_code == 422
    assert api.put(path, json=found).status_code == 409
    assert api.get("/api/v1/namespaces/default/services/a/scale").status_code == 404


def test_logs_are_text(api: httpx.Client, store: kubernetes.Store) -> None:
    running(store)
    at = kubernetes.place(f"{PODS}/a")
    store.write_log(at, "c", "one", "two", "three")
    answer = api.get(f"{PODS}/a/log")
    assert (answer.text, answer.headers["content-type"]) == ("one\ntwo\nthree\n", "text/plain")
    assert api.get(f"{PODS}/a/log", params={"tailLines": "2", "container": "c"}).text == "two\nthree\n"
    store.previous_logs["default", "a", "c"] = ["before"]
    assert api.get(f"{PODS}/a/log", params={"previous": "true"}).text == "before\n"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"container": "x"}, "container x is not valid for pod two"),
        ({}, "a container name must be specified for pod two, choose one of: [c d]"),
        ({"container": "c", "previous": "true"}, 'previous terminated container "c" in pod "two" not found'),
        ({"container": "c"}, 'container "c" in pod "two" is waiting to start: ImagePullBackOff'),
        ({"container": "c", "sinceTime": "now"}, "the stand-in knows no sinceTime of a log"),
    ],
)
def test_logs_that_there_are_not(query: Any, said: str, api: httpx.Client, store: kubernetes.Store) -> None:
    body = pod("two")
    body["spec"]["containers"].append({"name": "d", "image": "i"})
    store.put({**body, "status": pods.image_pull_back_off("i").status(body)})
    answer = api.get(f"{PODS}/two/log", params=query)
    assert (answer.status_code, answer.json()["message"]) == (400, said)
    assert api.get(f"{PODS}/none/log").status_code == 404


def test_a_log_is_followed_until_its_pod_is_gone(api: httpx.Client, store: kubernetes.Store) -> None:
    running(store)
    at = kubernetes.place(f"{PODS}/a")
    store.write_log(at, "c", "one")
    told: list[str] = []
    begun = threading.Event()

    def listen() -> None:
        with httpx.stream("GET", f"{api.base_url}{PODS}/a/log?follow=true", timeout=60) as answer:
            for line in answer.iter_lines():
                told.append(line)
                begun.set()

    thread = threading.Thread(target=listen)
    thread.start()
    assert begun.wait(60)
    store.write_log(at, "c", "two")
    store.delete(at)
    thread.join(60)
    assert told in (["one", "two"], ["one"])  # the end may come first
    assert not thread.is_alive()


def test_eviction_honours_the_budget(api: httpx.Client, store: kubernetes.Store) -> None:
    owner = api.post(DEPLOYMENTS, json=deployment()).json()
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "a", "controller": True}
    owners = [{**reference, "uid": owner["metadata"]["uid"]}]
    for name in "ab":
        running(store, name, ownerReferences=owners)
    budget(store, maxUnavailable=1)
    assert evict(api, dryRun="All").status_code == 201
    assert evict(api).status_code == 201
    assert api.get(f"{PODS}/a").status_code == 404
    refused = evict(api, "b")  # two are wanted, one is left
    assert (refused.status_code, refused.json()["reason"]) == (429, "TooManyRequests")
    assert refused.json()["message"] == "Cannot evict pod as it would violate the pod's disruption budget."
    (cause,) = refused.json()["details"]["causes"]
    assert cause["message"] == "The disruption budget b needs 1 healthy pods and has 1 currently"
    running(store, "c", ownerReferences=owners)
    assert evict(api, "b").status_code == 201
    assert evict(api, "none").status_code == 404


def test_eviction_of_pods_that_no_budget_holds(api: httpx.Client, store: kubernetes.Store) -> None:
    budget(store, minAvailable=1)
    waiting = pod("w")
    store.put({**waiting, "status": pods.Unschedulable("none").status(waiting)})
    assert evict(api, "w").status_code == 201
    unready = pod("u")
    store.put({**unready, "status": pods.Starting().status(unready)})
    assert evict(api, "u").status_code == 429
    running(store, "r")
    assert evict(api, "u", dryRun="All").status_code == 201  # as many are healthy as it needs, and this is none of them
    store.delete(kubernetes.place(f"{PODS}/r"))
    store.delete(kubernetes.place("/apis/policy/v1/namespaces/default/poddisruptionbudgets/b"))
    budget(store, minAvailable="100%", unhealthyPodEvictionPolicy="AlwaysAllow")
    assert evict(api, "u").status_code == 201
    running(store)
    budget(store, "second", minAvailable=1)
    assert evict(api).status_code == 500
    wrong = api.post(f"{PODS}/a/eviction", json={"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta("b")})
    assert wrong.status_code == 400


def owned(name: str, *owners: dict[str, Any]) -> dict[str, Any]:
    entries = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": each["metadata"]["name"], "uid": each["metadata"]["uid"]}
        for each in owners
    ]
    return {**config_map(name), "metadata": meta(name, ownerReferences=entries)}


@pytest.mark.parametrize(
    ("policy", "left"),
    [(None, {"b", "kept"}), ("Foreground", {"b", "kept"}), ("Orphan", {"b", "kept", "child", "grand"})],
)
def test_what_an_object_owns_goes_with_it(policy: str | None, left: set[str], api: httpx.Client) -> None:
    path = "/api/v1/namespaces/default/configmaps"
    one, two = (api.post(path, json=config_map(name)).json() for name in "ab")
    child = api.post(path, json=owned("child", one)).json()
    api.post(path, json=owned("grand", child))
    api.post(path, json=owned("kept", one, two))
    answer = api.request("DELETE", f"{path}/a", json={"propagationPolicy": policy} if policy else {})
    assert (answer.status_code, answer.json()["status"]) == (200, "Success")
    there = {each["metadata"]["name"]: each["metadata"] for each in api.get(path).json()["items"]}
    assert set(there) == left
    assert [each["name"] for each in there["kept"]["ownerReferences"]] == ["b"]


def test_deletion_of_the_right_one_and_with_finalizers(api: httpx.Client) -> None:
    path = "/api/v1/namespaces/default/configmaps"
    made = api.post(path, json={**config_map(), "metadata": meta("a", finalizers=["x/y"])}).json()
    wrong = api.request("DELETE", f"{path}/a", json={"preconditions": {"uid": "other"}})
    assert (wrong.status_code, wrong.json()["reason"]) == (409, "Conflict")
    assert api.request("DELETE", f"{path}/a", json={"propagationPolicy": "Sideways"}).status_code == 422
    assert api.delete(f"{path}/a", params={"dryRun": "All"}).status_code == 200
    assert "deletionTimestamp" not in api.get(f"{path}/a").json()["metadata"]
    right = api.request("DELETE", f"{path}/a", json={"preconditions": {"uid": made["metadata"]["uid"]}})
    assert right.status_code == 200
    assert "deletionTimestamp" in api.get(f"{path}/a").json()["metadata"]
    api.patch(f"{path}/a", json={"metadata": {"finalizers": None}}, headers=MERGE)
    assert api.get(f"{path}/a").status_code == 404


def test_a_namespace_takes_all_with_it(api: httpx.Client) -> None:
    api.post(DEPLOYMENTS, json=deployment())
    assert api.delete("/api/v1/namespaces/default").status_code == 200
    assert api.get(DEPLOYMENTS).json()["items"] == []
    assert api.post(DEPLOYMENTS, json=deployment()).status_code == 404


def test_a_jobs_pods_stay_unless_it_is_said(api: httpx.Client, store: kubernetes.Store) -> None:
    template = {"metadata": {}, "spec": {**pod_spec(), "restartPolicy": "Never"}}
    body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta("j"), "spec": {"template": template}}
    for query, left in (({}, 200), ({"propagationPolicy": "Background"}, 404)):
        made = api.post("/apis/batch/v1/namespaces/default/jobs", json=body).json()
        reference = {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": made["metadata"]["uid"]}
        running(store, ownerReferences=[reference])
        api.delete("/apis/batch/v1/namespaces/default/jobs/j", params=query)
        assert api.get(f"{PODS}/a").status_code == left


class _Backend(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        said = f"{self.path} {content.decode()} {self.headers.get('Authorization')} {self.headers.get('x-key')}"
        self.send_response(418)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        self.wfile.write(said.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def test_the_way_to_a_service_leads_to_its_backend(api: httpx.Client, store: kubernetes.Store) -> None:
    at = "/api/v1/namespaces/default/services/http:gateway:80/proxy/v1/models?x=1"
    assert api.post(at, content=b"{}").status_code == 404
    api.post("/api/v1/namespaces/default/services", json=SERVICE)
    none = api.post(at, content=b"{}")
    assert (none.status_code, "no endpoints available" in none.json()["message"]) == (503, True)
    with HTTPServer(("127.0.0.1", 0), _Backend) as backend:
        thread = threading.Thread(target=backend.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        store.backends["default", "gateway"] = f"http://127.0.0.1:{backend.server_port}"
        answer = api.post(at, content=b"{}", headers={"Authorization": "Bearer x", "x-key": "k"})
        assert api.post(at.replace("80", "81"), content=b"{}").status_code == 503
        backend.shutdown()
        thread.join()
    assert (answer.status_code, answer.text) == (418, "/v1/models?x=1 {} None k")
    assert api.post(at, content=b"{}").status_code == 503  # it has gone
