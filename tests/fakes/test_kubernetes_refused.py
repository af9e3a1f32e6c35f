"""What the stand-in's schemas, webhooks, quotas, tokens and rights refuse, and how its faults show."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fakes import kubernetes
from tests.fakes.kubernetes_bodies import APPLY, CONFIGMAPS, DEPLOYMENTS, MERGE, PODS, config_map, deployment, meta, pod

ME = {"fieldManager": "one"}


@pytest.fixture
def store() -> kubernetes.Store:
    return kubernetes.Store()


@pytest.fixture
def api(store: kubernetes.Store) -> Iterator[httpx.Client]:
    with kubernetes.serve(store) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def quota(store: kubernetes.Store, **hard: str) -> None:
    hard = {key.replace("__", "/").replace("_", "."): value for key, value in hard.items()}
    body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta("q"), "spec": {"hard": hard}}
    store.create(kubernetes.place_of(body), body)


def test_what_the_schema_refuses_is_invalid(api: httpx.Client) -> None:
    wrong = deployment(imagePullPolicies="Always")
    wrong["spec"]["replicas"] = "two"
    refused = api.post(DEPLOYMENTS, json=wrong).json()
    assert (refused["code"], refused["reason"]) == (422, "Invalid")
    assert refused["message"].startswith('Deployment.apps "a" is invalid: [')
    fields = {each["field"] for each in refused["details"]["causes"]}
    assert fields == {"spec.replicas", "spec.template.spec.containers.0"}
    assert api.patch(f"{DEPLOYMENTS}/a", json=wrong, headers=APPLY, params=ME).status_code == 422
    api.post(DEPLOYMENTS, json=deployment())
    assert api.patch(f"{DEPLOYMENTS}/a", json={"spec": {"replica": 1}}, headers=MERGE).status_code == 422
    assert kubernetes.Store(schemas=False).create(kubernetes.place(DEPLOYMENTS), deployment(unknown=1))


def test_custom_resources_are_held_to_their_definitions(api: httpx.Client, store: kubernetes.Store) -> None:
    path = "/apis/leaderworkerset.x-k8s.io/v1/namespaces/default/leaderworkersets"
    template = deployment()["spec"]["template"]
    spec = {"leaderWorkerTemplate": {"workerTemplate": template}}
    body = {"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet", "metadata": meta("g"), "spec": spec}
    made = api.post(path, json=body).json()
    assert made["spec"]["replicas"] == made["spec"]["leaderWorkerTemplate"]["size"] == 1  # its definition's defaults
    assert api.patch(f"{path}/g", json={"spec": {"sise": 2}}, headers=MERGE).status_code == 422
    store.absent.add("LeaderWorkerSet")
    for answer in (api.get(path), api.patch(f"{path}/g", json=body, headers=APPLY, params=ME)):
        assert answer.status_code == 404
        assert answer.text == "404 page not found\n"  # of a group that no definition brings, as a server says it


def test_some_fields_never_change(api: httpx.Client) -> None:
    api.post(DEPLOYMENTS, json=deployment())
    body = deployment()
    body["spec"]["selector"] = {"matchLabels": {"app": "b"}}
    body["spec"]["template"]["metadata"]["labels"] = {"app": "b"}
    refused = api.patch(f"{DEPLOYMENTS}/a", json=body, headers=APPLY, params={**ME, "force": "true"}).json()
    assert (refused["code"], "spec.selector: Invalid value: " in refused["message"]) == (422, True)
    assert "field is immutable" in refused["message"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (config_map("A_b"), 'metadata.name: Invalid value: "A_b": a lowercase RFC 1123 subdomain'),
        (config_map("a" * 254), "must be no more than 253 characters"),
        ({**config_map(), "metadata": meta("a", labels={"digest": "0" * 64})}, "must be no more than 63 characters"),
        ({**config_map(), "metadata": meta("a", labels={"what": "a b"})}, "a valid label must be an empty string or"),
        ({**config_map(), "metadata": meta("a", labels={"a b": ""})}, "name part must consist of"),
        ({**config_map(), "metadata": meta("a", annotations={"a": "0" * 2**18})}, "metadata.annotations: Too long"),
        (config_map(recipe="0" * (2**20 + 1)), "data: Too long: may not be more than 1048576 bytes"),
    ],
)
def test_what_no_schema_says(body: Any, said: str, api: httpx.Client) -> None:
    refused = api.post(CONFIGMAPS, json=body)
    assert (refused.status_code, said in refused.json()["message"]) == (422, True)


def test_a_selector_takes_its_own_pods(api: httpx.Client) -> None:
    body = deployment()
    body["spec"]["template"]["metadata"]["labels"] = {"app": "b"}
    assert "`selector` does not match template `labels`" in api.post(DEPLOYMENTS, json=body).json()["message"]
    body["spec"]["template"]["metadata"]["labels"] = {"app": "a", "x": "0" * 64}
    assert "spec.template.labels: Invalid value" in api.post(DEPLOYMENTS, json=body).json()["message"]


def test_an_immutable_config_map_stays(api: httpx.Client) -> None:
    api.post(CONFIGMAPS, json={**config_map(x="1"), "immutable": True})
    refused = api.patch(f"{CONFIGMAPS}/a", json={"data": {"x": "2"}}, headers=MERGE)
    assert (refused.status_code, "field is immutable when" in refused.json()["message"]) == (422, True)
    assert api.patch(f"{CONFIGMAPS}/a", json={"metadata": {"labels": {"x": "2"}}}, headers=MERGE).status_code == 200


def test_a_secrets_text_is_kept_encoded(api: httpx.Client) -> None:
    path = "/api/v1/namespaces/default/secrets"
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": meta("s"), "stringData": {"key": "word"}}
    made = api.post(path, json=body).json()
    assert (made["data"], made["type"], "stringData" in made) == ({"key": "d29yZA=="}, "Opaque", False)


def test_a_webhook_denies(api: httpx.Client, store: kubernetes.Store) -> None:
    def deny(verb: str, at: kubernetes.Place, body: Any) -> str | None:
        return f"{verb} of {at.name} on a Sunday" if body["kind"] == "Deployment" else None

    store.admission.webhooks["calendar.example.com"] = deny
    refused = api.post(DEPLOYMENTS, json=deployment(), params={"dryRun": "All"})
    said = 'admission webhook "calendar.example.com" denied the request: create of a on a Sunday'
    assert (refused.status_code, refused.json()["message"]) == (403, said)
    assert api.post(CONFIGMAPS, json=config_map()).status_code == 201


def test_a_quota_is_kept(api: httpx.Client, store: kubernetes.Store) -> None:
    quota(store, requests_nvidia_com__gpu="8", count__deployments_apps="1", pods="3", configmaps="0")
    gpus = {"resources": {"limits": {"nvidia.com/gpu": "8"}}}
    quota_hard = store.get(kubernetes.place("/api/v1/namespaces/default/resourcequotas/q"))["spec"]["hard"]
    assert quota_hard["requests.nvidia.com/gpu"] == "8"
    assert api.post(PODS, json=pod("a", **gpus)).status_code == 201
    refused = api.post(PODS, json=pod("b", **gpus))
    said = 'pods "b" is forbidden: exceeded quota: q, requested: requests.nvidia.com/gpu=8, used: requests.nvidia.com/gpu=8, limited: requests.nvidia.com/gpu=8'  # noqa: E501
    assert (refused.status_code, refused.json()["message"]) == (403, said)
    assert api.post(PODS, json=pod("b")).status_code == 201
    assert api.post(DEPLOYMENTS, json=deployment()).status_code == 201
    assert "count/deployments.apps=1" in api.post(DEPLOYMENTS, json=deployment("b")).json()["message"]
    assert api.patch(f"{CONFIGMAPS}/a", json=config_map(), headers=APPLY, params=ME).status_code == 403


def test_a_quota_wants_what_it_counts_to_be_said(api: httpx.Client, store: kubernetes.Store) -> None:
    quota(store, cpu="4")
    said = api.post(PODS, json=pod("a")).json()["message"]
    assert said == 'pods "a" is forbidden: failed quota: q: must specify cpu for: c'
    assert api.post(PODS, json=pod("a", resources={"requests": {"cpu": "3500m"}})).status_code == 201
    said = api.post(PODS, json=pod("b", resources={"requests": {"cpu": "1"}})).json()["message"]
    assert said.endswith("exceeded quota: q, requested: cpu=1, used: cpu=3500m, limited: cpu=4")


def test_without_the_token_nothing_is_said(api: httpx.Client, store: kubernetes.Store) -> None:
    store.access.tokens = {"secret": "alice"}
    for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": "Basic secret"}):
        refused = api.get(CONFIGMAPS, headers=headers)
        assert (refused.status_code, refused.json()["message"]) == (401, "Unauthorized")
    assert api.get(CONFIGMAPS, headers={"Authorization": "Bearer secret"}).status_code == 200


def test_rights_are_by_verb_and_resource(api: httpx.Client, store: kubernetes.Store) -> None:
    store.access.tokens = {"secret": "alice"}
    api.headers["Authorization"] = "Bearer secret"
    store.access.denied = {("create", "deployments.apps"), ("list", "*"), ("get", "pods/log"), ("delete", "namespaces")}
    path = f"{DEPLOYMENTS}/a"
    refused = api.patch(path, json=deployment(), headers=APPLY, params=ME)  # to make one by apply takes create, too
    said = 'deployments.apps "a" is forbidden: User "alice" cannot create resource "deployments" in API group "apps" in the namespace "default"'  # noqa: E501
    assert (refused.status_code, refused.json()["message"]) == (403, said)
    said = (
        'configmaps is forbidden: User "alice" cannot list resource "configmaps" in API group "" at the cluster scope'
    )
    assert api.get("/api/v1/configmaps").json()["message"] == said
    store.put(pod("p"))
    assert (api.get(f"{PODS}/p").status_code, api.get(f"{PODS}/p/log").status_code) == (200, 403)
    assert api.get(CONFIGMAPS, params={"watch": "1", "timeoutSeconds": "0"}).status_code == 200
    assert api.delete("/api/v1/namespaces/default").status_code == 403


def test_one_may_ask_who_one_is_and_what_one_may(api: httpx.Client, store: kubernetes.Store) -> None:
    store.access.denied = {("create", "deployments.apps"), ("get", "pods/log")}
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = api.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json=asked)
    assert (answer.status_code, answer.json()["status"]["userInfo"]["username"]) == (201, "stand-in")

    def may(**attributes: str) -> bool:
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = api.post(path, json={**body, "spec": {"resourceAttributes": attributes}})
        return bool(answer.json()["status"]["allowed"])

    assert not may(verb="create", resource="deployments", group="apps", namespace="default")
    assert may(verb="patch", resource="deployments", group="apps", namespace="default")
    assert not may(verb="get", resource="pods", subresource="log")
    assert may(verb="get", resource="pods")
    assert not may(verb="get", resource="unicorns")


@pytest.mark.parametrize(
    ("effect", "takes_effect"),
    [(kubernetes.Effect.ERROR, False), (kubernetes.Effect.CUT_BEFORE, False), (kubernetes.Effect.CUT_AFTER, True)],
)
def test_the_nth_write_fails(effect: Any, takes_effect: bool, api: httpx.Client, store: kubernetes.Store) -> None:
    store.faults.add(kubernetes.Fault(effect, nth=2))
    assert api.post(CONFIGMAPS, json=config_map("a")).status_code == 201
    api.get(CONFIGMAPS)  # reads are not counted
    if effect is kubernetes.Effect.ERROR:
        assert api.post(CONFIGMAPS, json=config_map("b")).status_code == 500
    else:
        with pytest.raises(httpx.RemoteProtocolError):
            api.post(CONFIGMAPS, json=config_map("b"))
    assert (api.get(f"{CONFIGMAPS}/b").status_code == 200) == takes_effect
    assert api.post(CONFIGMAPS, json=config_map("c")).status_code == 201


def test_throttled_requests_are_told_when_to_come_again(api: httpx.Client, store: kubernetes.Store) -> None:
    fault = kubernetes.Fault(kubernetes.Effect.THROTTLE, times=2, requests="GET .*configmaps", retry_after_s=7)
    store.faults.add(fault)
    answers = [api.get(CONFIGMAPS) for _ in range(3)]
    assert [each.status_code for each in answers] == [429, 429, 200]
    assert (answers[0].headers["retry-after"], answers[0].json()["details"]) == ("7", {"retryAfterSeconds": 7})


def test_a_held_request_is_answered_when_it_is_let_go(api: httpx.Client, store: kubernetes.Store) -> None:
    fault = store.faults.add(kubernetes.Fault(kubernetes.Effect.HOLD))
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(api.post(CONFIGMAPS, json=config_map()).status_code))
    thread.start()
    assert fault.held.wait(60)
    assert (answers, store.posted) == ([], [])
    fault.released.set()
    thread.join(60)
    assert answers == [201]
