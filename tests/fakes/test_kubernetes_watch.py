"""Lists in pages and watches on the stand-in."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fakes import kubernetes
from tests.fakes.kubernetes_bodies import CONFIGMAPS, MERGE, config_map, meta


@pytest.fixture
def store() -> kubernetes.Store:
    return kubernetes.Store(("default", "other"))


@pytest.fixture
def api(store: kubernetes.Store) -> Iterator[httpx.Client]:
    with kubernetes.serve(store) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def seen(api: httpx.Client, path: str = CONFIGMAPS, **query: str) -> list[tuple[str, str]]:
    """What a watch tells until the server ends it."""
    answer = api.get(path, params={"watch": "1", "timeoutSeconds": "0", **query})
    assert answer.headers["content-type"] == "application/json"
    told = [json.loads(line) for line in answer.text.splitlines()]
    return [(each["type"], each["object"].get("metadata", {}).get("name", "")) for each in told]


def test_a_watch_tells_what_happened_after_a_version(api: httpx.Client) -> None:
    made = api.post(CONFIGMAPS, json=config_map("a")).json()
    since = made["metadata"]["resourceVersion"]
    api.patch(f"{CONFIGMAPS}/a", json={"data": {"x": "1"}}, headers=MERGE)
    api.post(CONFIGMAPS, json=config_map("b"))
    api.delete(f"{CONFIGMAPS}/a")
    happened = [("MODIFIED", "a"), ("ADDED", "b"), ("DELETED", "a")]
    assert seen(api, resourceVersion=since) == happened
    assert seen(api) == [("ADDED", "b")]  # from now on: what is there
    assert seen(api, f"{CONFIGMAPS}/b", resourceVersion=since) == [("ADDED", "b")]
    assert seen(api, "/api/v1/configmaps", resourceVersion=since) == happened
    assert seen(api, "/api/v1/namespaces/other/configmaps", resourceVersion=since) == []
    assert seen(api, "/api/v1/services", resourceVersion=since) == []


def test_a_watch_with_a_selector_tells_what_comes_and_goes(api: httpx.Client) -> None:
    made = api.post(CONFIGMAPS, json=config_map("a")).json()
    since = made["metadata"]["resourceVersion"]
    for value in ("1", "2", "1"):
        api.patch(f"{CONFIGMAPS}/a", json={"metadata": {"labels": {"x": value}}}, headers=MERGE)
    api.delete(f"{CONFIGMAPS}/a")
    told = [("ADDED", "a"), ("DELETED", "a"), ("ADDED", "a"), ("DELETED", "a")]
    assert seen(api, resourceVersion=since, labelSelector="x=1") == told
    assert seen(api, resourceVersion=since, fieldSelector="metadata.name=b") == []


def test_a_watch_waits_for_what_happens_next(api: httpx.Client, store: kubernetes.Store) -> None:
    version = api.get(CONFIGMAPS).json()["metadata"]["resourceVersion"]
    began, told = threading.Event(), []

    def listen() -> None:
        query = {"watch": "true", "resourceVersion": version}
        with httpx.stream("GET", str(api.base_url) + CONFIGMAPS, params=query, timeout=60) as answer:
            began.set()
            for line in answer.iter_lines():
                told.append(json.loads(line)["object"]["metadata"]["name"])
                if len(told) == 2:
                    return

    thread = threading.Thread(target=listen)
    thread.start()
    assert began.wait(60)  # the head has come before anything has happened
    api.post(CONFIGMAPS, json=config_map("a"))
    api.post(CONFIGMAPS, json=config_map("b"))
    thread.join(60)
    assert told == ["a", "b"]


def test_a_version_that_is_too_old_is_gone(api: httpx.Client, store: kubernetes.Store) -> None:
    api.post(CONFIGMAPS, json=config_map("a"))
    api.post(CONFIGMAPS, json=config_map("b"))
    page = api.get(CONFIGMAPS, params={"limit": "1"}).json()["metadata"]
    store.compact()
    assert seen(api, resourceVersion=page["resourceVersion"]) == []
    api.post(CONFIGMAPS, json=config_map("c"))
    store.compact()
    answer = api.get(CONFIGMAPS, params={"watch": "1", "resourceVersion": page["resourceVersion"]})
    event = json.loads(answer.text)
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
    answer = api.get(CONFIGMAPS, params={"continue": page["continue"]})
    assert (answer.status_code, answer.json()["reason"]) == (410, "Expired")


def test_lists_come_in_pages(api: httpx.Client) -> None:
    for name in "cab":
        api.post(CONFIGMAPS, json=config_map(name))
    first = api.get(CONFIGMAPS, params={"limit": "2"}).json()
    assert [each["metadata"]["name"] for each in first["items"]] == ["a", "b"]
    rest = api.get(CONFIGMAPS, params={"limit": "2", "continue": first["metadata"]["continue"]}).json()
    assert ([each["metadata"]["name"] for each in rest["items"]], "continue" in rest["metadata"]) == (["c"], False)
    assert api.get(CONFIGMAPS, params={"continue": "x"}).status_code == 400


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ({"labelSelector": "x=1"}, "a"),
        ({"labelSelector": "x==1,y"}, ""),
        ({"labelSelector": "x!=1"}, "bc"),
        ({"labelSelector": "x"}, "ab"),
        ({"labelSelector": "!x"}, "c"),
        ({"labelSelector": "x in (1, 2)"}, "ab"),
        ({"labelSelector": "x notin (1,3),y"}, "b"),
        ({"fieldSelector": "metadata.name=a"}, "a"),
        ({"fieldSelector": "metadata.name!=a,metadata.namespace=default"}, "bc"),
    ],
)
def test_selectors(selector: dict[str, str], names: str, api: httpx.Client) -> None:
    for name, labels in (("a", {"x": "1"}), ("b", {"x": "2", "y": ""}), ("c", {})):
        api.post(CONFIGMAPS, json={**config_map(), "metadata": meta(name, labels=labels)})
    listed: list[Any] = api.get(CONFIGMAPS, params=selector).json()["items"]
    assert "".join(each["metadata"]["name"] for each in listed) == names


@pytest.mark.parametrize("query", [{"labelSelector": "x in 1"}, {"fieldSelector": "data.x=1"}, {"fieldSelector": "x"}])
def test_selectors_that_no_server_reads(query: dict[str, str], api: httpx.Client) -> None:
    assert api.get(CONFIGMAPS, params=query).status_code == 400
    assert api.get(CONFIGMAPS, params={**query, "watch": "1"}).status_code == 400
