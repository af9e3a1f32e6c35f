"""Server-side apply on the stand-in: who owns which field, and what that means for the next write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fakes import kubernetes
from tests.fakes.kubernetes_bodies import APPLY, CONFIGMAPS, DEPLOYMENTS, MERGE, config_map, deployment, meta

PATH = f"{DEPLOYMENTS}/a"


@pytest.fixture
def api() -> Iterator[httpx.Client]:
    with kubernetes.serve(kubernetes.Store()) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def apply(
    api: httpx.Client, body: dict[str, Any], manager: str = "one", path: str = PATH, **query: str
) -> httpx.Response:
    return api.patch(path, json=body, headers=APPLY, params={"fieldManager": manager, **query})


def container(answer: httpx.Response) -> dict[str, Any]:
    return answer.json()["spec"]["template"]["spec"]["containers"][0]


def test_it_makes_and_then_lays_over(api: httpx.Client) -> None:
    made, again = apply(api, deployment()), apply(api, deployment())
    assert (made.status_code, again.status_code) == (201, 200)
    assert made.json() == again.json()  # nothing changed: no new version
    changed = apply(api, deployment(replicas=3)).json()["metadata"]
    before = made.json()["metadata"]
    assert (changed["generation"], changed["uid"]) == (before["generation"] + 1, before["uid"])
    assert int(changed["resourceVersion"]) > int(before["resourceVersion"])


def test_fields_are_owned_in_their_form(api: httpx.Client) -> None:
    body = deployment(ports=[{"containerPort": 80}], args=["--a"])
    (entry,) = apply(api, body).json()["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"], entry["apiVersion"]) == ("one", "Apply", "apps/v1")
    owned = entry["fieldsV1"]["f:spec"]["f:template"]["f:spec"]["f:containers"]['k:{"name":"c"}']
    assert owned == {
        ".": {},
        "f:name": {},
        "f:image": {},
        "f:args": {},
        "f:ports": {'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}},
    }
    assert entry["fieldsV1"]["f:spec"]["f:selector"] == {}  # atomic


def test_what_a_manager_drops_is_gone_where_nobody_else_owns_it(api: httpx.Client) -> None:
    variables = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    apply(api, deployment(env=variables, workingDir="/w"))
    apply(api, deployment(replicas=None, env=variables[:1]), "two")
    left = container(apply(api, deployment()))
    assert left["env"] == variables[:1]  # two's; B was one's alone
    assert "workingDir" not in left
    assert apply(api, deployment(replicas=None)).json()["spec"]["replicas"] == 1  # the server's default again


def test_entries_of_lists_are_merged_by_their_keys_and_other_lists_whole(api: httpx.Client) -> None:
    apply(api, deployment(env=[{"name": "A", "value": "1"}], args=["a"]))
    merged = container(apply(api, deployment(env=[{"name": "B", "value": "2"}]), "two"))
    assert [each["name"] for each in merged["env"]] == ["A", "B"]
    refused = apply(api, deployment(args=["b"]), "two")
    assert (refused.status_code, refused.json()["details"]["causes"][0]["field"]) == (
        409,
        '.spec.template.spec.containers[name="c"].args',
    )
    keyless = deployment(env=[{"value": "1"}])
    assert "omits key field" in apply(api, keyless).json()["message"]


def test_conflicts_name_the_manager_and_the_field(api: httpx.Client) -> None:
    apply(api, deployment())
    refused = apply(api, deployment(replicas=5), "two").json()
    assert (refused["code"], refused["reason"]) == (409, "Conflict")
    assert refused["message"] == 'Apply failed with 1 conflict: conflict with "one": .spec.replicas'
    assert refused["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".spec.replicas"}
    ]
    body = {**deployment(replicas=5), "spec": {**deployment(replicas=5)["spec"]}}
    body["spec"]["template"] = deployment(image="other")["spec"]["template"]
    assert apply(api, body, "two").json()["message"] == (
        'Apply failed with 2 conflicts: conflicts with "one":\n'
        '- .spec.replicas\n- .spec.template.spec.containers[name="c"].image'
    )
    forced = apply(api, deployment(replicas=5), "two", force="true")
    assert forced.json()["spec"]["replicas"] == 5
    owners = {each["manager"]: each["fieldsV1"]["f:spec"] for each in forced.json()["metadata"]["managedFields"]}
    assert ("f:replicas" in owners["one"], "f:replicas" in owners["two"]) == (False, True)
    assert "conflict with" in apply(api, deployment(), "one").json()["message"]  # two's now


def test_other_writes_own_what_they_change(api: httpx.Client) -> None:
    apply(api, deployment())
    patched = api.patch(PATH, json={"spec": {"replicas": 7}}, headers=MERGE, params={"fieldManager": "hand"}).json()
    entries = {each["manager"]: each for each in patched["metadata"]["managedFields"]}
    assert entries["hand"]["operation"] == "Update"
    assert entries["hand"]["fieldsV1"] == {"f:spec": {"f:replicas": {}}}
    assert "f:replicas" not in entries["one"]["fieldsV1"]["f:spec"]
    said = apply(api, deployment()).json()["message"]
    assert 'conflict with "hand" using apps/v1 at 20' in said
    apply(api, deployment(replicas=None))  # no longer asked for: hand's value stays
    assert api.get(PATH).json()["spec"]["replicas"] == 7


def test_a_dry_run_answers_and_keeps_nothing(api: httpx.Client) -> None:
    assert apply(api, deployment(), dryRun="All").json()["spec"]["replicas"] == 2
    assert api.get(PATH).status_code == 404
    made = apply(api, deployment()).json()
    assert apply(api, deployment(replicas=9), dryRun="All").json()["spec"]["replicas"] == 9
    assert apply(api, deployment(replicas=9), "two", dryRun="All").status_code == 409
    assert api.get(PATH).json() == made
    assert apply(api, deployment(), dryRun="Some").status_code == 422


@pytest.mark.parametrize(
    ("query", "body", "headers", "status", "said"),
    [
        ({}, deployment(), APPLY, 422, "fieldManager"),
        ({"fieldManager": "one"}, deployment(name="b"), APPLY, 400, "name"),
        ({"fieldManager": "one"}, config_map(), APPLY, 400, "Deployment"),
        ({"fieldManager": "one"}, {"spec": {}}, {"Content-Type": "application/json"}, 415, "unknown format"),
        ({"fieldManager": "one"}, {**deployment(), "metadata": meta("a", managedFields=[{}])}, APPLY, 400, "nil"),
        ({"fieldManager": "one"}, {**deployment(), "metadata": meta("a", namespace="b")}, APPLY, 400, "namespace"),
        ({"fieldManager": "one"}, {**deployment(), "metadata": meta("a", resourceVersion="1")}, APPLY, 409, "modified"),
        ({"fieldManager": "one"}, {**deployment(), "metadata": meta("a", uid="1")}, APPLY, 409, "uid mismatch"),
    ],
)
def test_refusals(query: Any, body: Any, headers: Any, status: int, said: str, api: httpx.Client) -> None:
    kept = apply(api, deployment()).json()
    answer = api.patch(PATH, json=body, headers=headers, params=query)
    assert (answer.status_code, said in answer.json()["message"]) == (status, True), answer.json()
    assert api.get(PATH).json() == kept


def test_a_stale_version_conflicts_and_a_fresh_one_replaces(api: httpx.Client) -> None:
    made = api.post(CONFIGMAPS, json=config_map(x="1")).json()
    changed = api.put(f"{CONFIGMAPS}/a", json={**made, "data": {"x": "2"}})
    assert (changed.status_code, changed.json()["data"]) == (200, {"x": "2"})
    stale = api.put(f"{CONFIGMAPS}/a", json={**made, "data": {"x": "3"}})
    assert (stale.status_code, stale.json()["reason"]) == (409, "Conflict")
    patch = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "data": {"x": "3"}}
    assert api.patch(f"{CONFIGMAPS}/a", json=patch, headers=MERGE).status_code == 409
    gone = api.patch(f"{CONFIGMAPS}/a", json={"data": {"x": None, "y": "1"}}, headers=MERGE)
    assert gone.json()["data"] == {"y": "1"}
    assert api.put(f"{CONFIGMAPS}/b", json=config_map("b")).status_code == 404


def test_status_is_written_at_its_own_path(api: httpx.Client) -> None:
    made = apply(api, {**deployment(), "status": {"replicas": 9}}).json()
    assert "status" not in made
    posted = api.post(DEPLOYMENTS, json={**deployment("b"), "status": {"replicas": 9}}).json()
    assert "status" not in posted
    answer = api.patch(f"{PATH}/status", json={"spec": {"replicas": 8}, "status": {"replicas": 2}}, headers=MERGE)
    assert (answer.json()["spec"]["replicas"], answer.json()["status"]) == (2, {"replicas": 2})
    assert answer.json()["metadata"]["generation"] == 1
    entries = answer.json()["metadata"]["managedFields"]
    assert [each.get("subresource") for each in entries] == [None, "status"]
    assert apply(api, deployment(replicas=3)).json()["status"] == {"replicas": 2}
