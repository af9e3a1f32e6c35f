"""What the API stand-in refuses, through the client that applies, is told by its cause."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperpd.deploy import connect
from hyperpd.deploy.apply import Api
from hyperpd.deploy.stuck import Cause, Stage, refused
from hyperpd.errors import CloudError
from tests.deploy.stuck.parts import ENGINES, Object, applied
from tests.fakes.kubernetes import Store, kubeconfig, serve


@pytest.fixture
def store() -> Store:
    return Store((ENGINES,))


@pytest.fixture
def api(store: Store, tmp_path: Path) -> Iterator[Api]:
    with serve(store) as url, connect.kubeconfig(path=kubeconfig(tmp_path / "config", url)) as found:
        yield found


def _object(name: str = "prefill", **more: object) -> Object:
    body = applied("Deployment", name)
    del body["status"], body["metadata"]["uid"], body["metadata"]["generation"]
    return body | more


def _refused(api: Api, body: Object) -> Cause:
    with pytest.raises(CloudError) as caught:
        api.apply([body])
    return refused(body, caught.value)


def test_a_quota(api: Api, store: Store) -> None:
    meta = {"name": "few", "namespace": ENGINES}
    hard = {"hard": {"count/deployments.apps": "1"}}
    store.put({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": hard})
    api.apply([_object("decode")])
    found = _refused(api, _object())
    assert found.stage is Stage.REFUSED
    assert found.what == (
        "ResourceQuota few is used up: asks for count/deployments.apps=1; used count/deployments.apps=1 of"
        " count/deployments.apps=1"
    )


def test_a_webhook(api: Api, store: Store) -> None:
    store.admission.webhooks["images.example.com"] = lambda *_: "only our registry"
    assert _refused(api, _object()).what == "the admission webhook images.example.com refuses it: only our registry"


def test_a_right_that_lacks(api: Api, store: Store) -> None:
    store.access.denied.add(("patch", "deployments.apps"))
    found = _refused(api, _object())
    assert found.what.startswith('you have no right to it: User "stand-in" cannot patch resource "deployments"')
    assert "access entry" in found.fix


def test_a_namespace_that_is_not_there(api: Api) -> None:
    body = _object()
    body["metadata"]["namespace"] = "elsewhere"
    assert _refused(api, body).what == "there is no namespace elsewhere"


def test_a_kind_that_is_not_served(api: Api) -> None:
    meta = {"name": "prefill", "namespace": ENGINES}
    body = {"apiVersion": "leaderworkerset.x-k8s.io/v9", "kind": "LeaderWorkerSet", "metadata": meta}
    found = _refused(api, body)
    assert found.what.startswith("the cluster does not serve LeaderWorkerSet of leaderworkerset.x-k8s.io/v9")
    assert "helm install lws" in found.fix


def test_words_that_no_sign_knows_are_passed_on(api: Api) -> None:
    body = _object()
    body["spec"]["replicas"] = "many"
    found = _refused(api, body)
    assert found.what == "the API refuses it"
    assert "spec.replicas" in found.why
