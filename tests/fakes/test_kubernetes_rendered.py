"""What hyperpd renders, applied by a stock client to the stand-in: twice is once, and its pods become ready."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightkube
import pytest
from lightkube.codecs import from_dict
from lightkube.generic_resource import create_namespaced_resource
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Pod

from tests.deploy import objects, objects_rendered, schema, simulator
from tests.fakes import kubernetes
from tests.fakes.kubernetes import nodes
from tests.fakes.kubernetes.controllers import Controllers
from tests.fakes.kubernetes.resources import resource_of


@pytest.fixture
def store() -> kubernetes.Store:
    return kubernetes.Store()


@pytest.fixture
def client(store: kubernetes.Store, tmp_path: Path) -> Iterator[lightkube.Client]:
    with kubernetes.serve(store) as url:
        config = lightkube.KubeConfig.from_file(kubernetes.kubeconfig(tmp_path / "kubeconfig", url)).get()
        with lightkube.Client(config=config, field_manager="hyperpd") as client:
            yield client


@pytest.mark.parametrize("name", ["efa-full-nodes", "efa-aggregated-two-nodes", "tcp-1p1d"])
def test_a_rendering_is_applied_and_comes_up(name: str, client: lightkube.Client, store: kubernetes.Store) -> None:
    rendered = objects_rendered.rendered(name, "hyperpod")
    for body in rendered:
        assert client.apply(_resource(body)).metadata.name == body["metadata"]["name"]
    version = store.version
    for body in rendered:
        client.apply(_resource(body))
    assert store.version == version
    cluster = Controllers(store)
    wanted = {pod.spec.get("nodeSelector", {}).get(simulator.INSTANCE_TYPE) for pod in objects.pods(rendered)}
    machines = [each for kind in sorted(wanted - {None}) for each in simulator.nodes(kind, 4)]
    for each in nodes.of([*machines, *simulator.cpu_nodes(3)]):
        store.put(each)
    cluster.settle()
    pods = cluster.all("v1", "Pod")
    assert {pod["spec"].get("nodeName") is not None for pod in pods} == {True}
    assert len(pods) == len(objects.pods(rendered))
    for body in cluster.all("apps/v1", "Deployment"):
        assert body["status"]["availableReplicas"] == body["spec"]["replicas"]
    for body in cluster.all("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet"):
        assert body["status"]["readyReplicas"] == body["spec"]["replicas"]
    for body in cluster.all("policy/v1", "PodDisruptionBudget"):
        assert body["status"]["expectedPods"] > 0
    assert [pod.metadata.name for pod in client.list(Pod, namespace="*")] == [pod["metadata"]["name"] for pod in pods]
    for kind, body in client.watch(Deployment, namespace="*", server_timeout=0):
        assert (kind, body.status.conditions[0].type) == ("ADDED", "Available")
        break


def test_a_refusal_reads_as_one(client: lightkube.Client) -> None:
    with pytest.raises(lightkube.ApiError) as caught:
        client.get(Deployment, "none")
    assert (caught.value.status.code, caught.value.status.reason) == (404, "NotFound")
    assert caught.value.status.message == 'deployments.apps "none" not found'


def _resource(body: objects.Object) -> Any:
    """As lightkube wants it: custom kinds have a class made for them."""
    if not schema.is_core(body):
        found = resource_of(body["apiVersion"], body["kind"])
        create_namespaced_resource(found.group, found.api_version.rpartition("/")[2], found.kind, found.plural)
    return from_dict(body)
