"""What the stand-in's cluster does by itself: pods, rollouts, their statuses, events and logs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy import schema, simulator
from tests.fakes import kubernetes
from tests.fakes.kubernetes import nodes, pods
from tests.fakes.kubernetes.controllers import Controllers
from tests.fakes.kubernetes_bodies import DEPLOYMENTS, PODS, deployment, meta, pod_spec

POOL = {"app": "a"}


@pytest.fixture
def cluster() -> Controllers:
    return Controllers(kubernetes.Store())


def create(cluster: Controllers, body: dict[str, Any]) -> kubernetes.Place:
    at = kubernetes.place_of(body)
    cluster.store.create(at, body)
    return at


def there(cluster: Controllers) -> list[dict[str, Any]]:
    return cluster.all("v1", "Pod")


def events(cluster: Controllers, kind: str = "Warning") -> list[tuple[str, str]]:
    return [(each["reason"], each["message"]) for each in cluster.all("v1", "Event") if each["type"] == kind]


def group(replicas: int = 2, size: int = 2, image: str = "repo/image:1") -> dict[str, Any]:
    template = {"metadata": {"labels": POOL}, "spec": pod_spec(image=image)}
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": meta("g"),
        "spec": {"replicas": replicas, "leaderWorkerTemplate": {"size": size, "workerTemplate": template}},
    }


def test_a_deployment_becomes_ready_pods(cluster: Controllers) -> None:
    at = create(cluster, deployment())
    cluster.settle()
    body = cluster.store.get(at)
    status = body["status"]
    assert (status["observedGeneration"], status["availableReplicas"], status["updatedReplicas"]) == (1, 2, 2)
    assert {each["type"]: each["status"] for each in status["conditions"]} == {
        "Available": "True",
        "Progressing": "True",
    }
    assert [pod["metadata"]["ownerReferences"][0]["uid"] for pod in there(cluster)] == [body["metadata"]["uid"]] * 2
    assert all(pod["spec"]["nodeName"] and pods.ready(pod) for pod in there(cluster))
    for each in [body, *there(cluster), *cluster.all("v1", "Event")]:
        assert schema.problems(each) == []
    cluster.store.delete(at)
    assert len(there(cluster)) == 2  # their nodes have not ended them yet
    cluster.settle()
    assert there(cluster) == []


def test_a_rollout_keeps_what_its_strategy_promises(cluster: Controllers) -> None:
    at = create(cluster, deployment(replicas=4))
    cluster.settle()
    cluster.script(pods.Starting(), {"app": "a", "version": "2"})
    template = {"metadata": {"labels": {"version": "2"}}}
    cluster.store.merge(at, {"spec": {"template": template}})
    assert cluster.store.get(at)["status"]["observedGeneration"] == 1  # not seen yet
    cluster.settle()
    status = cluster.store.get(at)["status"]
    assert (status["observedGeneration"], status["updatedReplicas"], status["availableReplicas"]) == (2, 2, 3)
    cluster.overdue.add("a")
    cluster.settle()
    progress = cluster.store.get(at)["status"]["conditions"][1]
    assert (progress["status"], progress["reason"]) == ("False", "ProgressDeadlineExceeded")
    cluster.script(pods.Ready(), {"app": "a"})
    cluster.settle()
    status = cluster.store.get(at)["status"]
    assert (status["updatedReplicas"], status["availableReplicas"], status["replicas"]) == (4, 4, 4)
    assert "unavailableReplicas" not in status
    cluster.store.merge(at, {"spec": {"replicas": 1}})
    cluster.settle()
    assert len(there(cluster)) == 1


def test_recreate_ends_the_old_before_the_new(cluster: Controllers) -> None:
    body = deployment(replicas=2)
    body["spec"]["strategy"] = {"type": "Recreate"}
    at = create(cluster, body)
    cluster.settle()
    names = {pod["metadata"]["name"] for pod in there(cluster)}
    cluster.store.merge(at, {"spec": {"replicas": 3, "template": {"metadata": {"labels": {"version": "2"}}}}})
    cluster.step()
    assert {pod["metadata"]["name"] for pod in there(cluster)} == names
    cluster.settle()
    assert not names & {pod["metadata"]["name"] for pod in there(cluster)}
    assert cluster.store.get(at)["status"]["availableReplicas"] == 3


def test_groups_are_made_whole_and_rolled_one_by_one(cluster: Controllers) -> None:
    at = create(cluster, group())
    cluster.settle()
    assert sorted(pod["metadata"]["name"] for pod in there(cluster)) == ["g-0", "g-0-1", "g-1", "g-1-1"]
    labels = there(cluster)[1]["metadata"]["labels"]
    assert labels["leaderworkerset.sigs.k8s.io/worker-index"] == "1"
    status = cluster.store.get(at)["status"]
    assert (status["readyReplicas"], status["updatedReplicas"], status["observedGeneration"]) == (2, 2, 1)
    cluster.script(pods.Starting(), POOL)
    old = {pod["metadata"]["uid"] for pod in there(cluster)}
    cluster.script(pods.Ready(), {"leaderworkerset.sigs.k8s.io/group-index": "0"})
    cluster.store.replace(at, group(image="repo/image:2"))
    cluster.settle()
    kept = {pod["metadata"]["name"] for pod in there(cluster) if pod["metadata"]["uid"] in old}
    status = cluster.store.get(at)["status"]
    assert (kept, status["updatedReplicas"], status["readyReplicas"]) == ({"g-0", "g-0-1"}, 1, 1)
    cluster.script(pods.Ready(), POOL)
    cluster.settle()
    status = cluster.store.get(at)["status"]
    assert (status["updatedReplicas"], status["readyReplicas"]) == (2, 2)
    cluster.store.merge(at, {"spec": {"replicas": 1}})
    cluster.settle()
    assert sorted(pod["metadata"]["name"] for pod in there(cluster)) == ["g-0", "g-0-1"]


@pytest.mark.parametrize(("policy", "remade"), [(None, 2), ("None", 1)])
def test_a_group_that_has_lost_a_pod_is_made_anew(policy: str | None, remade: int, cluster: Controllers) -> None:
    body = group()
    body["spec"]["leaderWorkerTemplate"] |= {"restartPolicy": policy} if policy else {}
    create(cluster, body)
    cluster.settle()
    before = {pod["metadata"]["uid"] for pod in there(cluster)}
    cluster.store.delete(kubernetes.place(f"{PODS}/g-1-1"))
    cluster.settle()
    assert len({pod["metadata"]["uid"] for pod in there(cluster)} - before) == remade
    assert len(there(cluster)) == 4


@pytest.mark.parametrize(
    ("state", "phase", "event"),
    [
        (pods.image_pull_back_off("repo/image:1"), "Pending", "Failed"),
        (pods.Waiting("CreateContainerConfigError", 'secret "key" not found'), "Pending", "Failed"),
        (pods.Unschedulable("0/3 nodes are available: 3 Insufficient nvidia.com/gpu."), "Pending", "FailedScheduling"),
        (pods.CrashLooping(137, "OOMKilled", lines=["no memory"]), "Running", "BackOff"),
        (pods.Starting("HTTP probe failed with statuscode: 503", lines=["loading"]), "Running", "Unhealthy"),
        (pods.Evicted(), "Failed", "Evicted"),
    ],
)
def test_what_goes_wrong_with_a_pod_is_told(state: Any, phase: str, event: str, cluster: Controllers) -> None:
    at = create(cluster, deployment(replicas=1))
    cluster.script(state, POOL, pods=1)
    cluster.step()
    (pod,) = there(cluster)
    assert pod["status"]["phase"] == phase
    assert [reason for reason, _ in events(cluster)] == [event]
    assert not pods.ready(pod)
    assert schema.problems(pod) == []
    key = ("default", pod["metadata"]["name"], "c")
    assert cluster.store.logs.get(key, []) == list(state.lines)
    assert (key in cluster.store.previous_logs) == isinstance(state, pods.CrashLooping)
    cluster.script(pods.Ready(), POOL)
    cluster.settle()
    assert cluster.store.get(at)["status"]["availableReplicas"] == 1


def test_what_a_quota_or_a_webhook_refuses_is_told_on_the_workload(cluster: Controllers) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta("q"), "spec": {"hard": {"pods": "1"}}}
    create(cluster, quota)
    at = create(cluster, deployment())
    create(cluster, group(replicas=1))
    cluster.settle()
    assert len(there(cluster)) == 1
    failure = cluster.store.get(at)["status"]["conditions"][-1]
    assert (failure["type"], failure["reason"]) == ("ReplicaFailure", "FailedCreate")
    assert "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1" in failure["message"]
    told = [each for each in cluster.all("v1", "Event") if each["reason"] == "FailedCreate"]
    assert {each["involvedObject"]["kind"] for each in told} == {"ReplicaSet", "StatefulSet"}


def test_pods_go_where_a_node_takes_them(cluster: Controllers) -> None:
    machines = nodes.of(simulator.nodes("ml.p5.48xlarge", 1) + simulator.cpu_nodes(1), ["i-1", "i-2"])
    for each in machines:
        assert schema.problems(each) == []
        cluster.store.put(each)
    create(cluster, deployment("cpu", 1))
    create(cluster, deployment("gpu", 1, resources={"limits": {"nvidia.com/gpu": "8"}}))
    toleration = {"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]}
    patch = {"spec": {"template": {"spec": toleration}}}
    cluster.step()
    message = events(cluster)[0][1]
    assert message.startswith("0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) had untolerated taint")
    cluster.store.merge(kubernetes.place(f"{DEPLOYMENTS}/gpu"), patch)
    cluster.settle()
    where = {pod["metadata"]["labels"]["app"]: pod["spec"]["nodeName"] for pod in there(cluster)}
    assert {app: name.partition("-")[0] for app, name in where.items()} == {"cpu": "cpu", "gpu": "ml.p5.48xlarge"}
    cordon = kubernetes.place(f"/api/v1/nodes/{where['cpu']}")
    cluster.store.merge(cordon, {"spec": {"unschedulable": True}})
    cluster.store.delete(kubernetes.place_of(next(pod for pod in there(cluster) if "cpu" in pod["spec"]["nodeName"])))
    cluster.settle()
    assert any("1 node(s) were unschedulable" in message for _, message in events(cluster))


def test_a_pod_may_linger(cluster: Controllers) -> None:
    create(cluster, deployment(replicas=1))
    cluster.settle()
    (pod,) = there(cluster)
    cluster.linger(pod["metadata"]["name"])
    cluster.store.delete(kubernetes.place_of(pod))
    cluster.settle()
    assert len(there(cluster)) == 2
    cluster.linger()
    cluster.settle()
    assert [each["metadata"]["name"] == pod["metadata"]["name"] for each in there(cluster)] == [False]


def test_a_job_ends_with_its_pods(cluster: Controllers) -> None:
    template = {"metadata": {"labels": {"job": "j"}}, "spec": {**pod_spec(), "restartPolicy": "Never"}}
    body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta("j"), "spec": {"template": template}}
    body["spec"]["backoffLimit"] = 1
    at = create(cluster, body)
    cluster.script(pods.Ended(1), {"job": "j"}, pods=1)
    cluster.settle()
    status = cluster.store.get(at)["status"]
    assert (status["succeeded"], status["failed"], status["conditions"][0]["type"]) == (1, 1, "Complete")
    cluster.script(pods.Ended(1), {"job": "k"})
    template["metadata"]["labels"] = {"job": "k"}
    at = create(cluster, {**body, "metadata": meta("k")})
    cluster.settle()
    assert cluster.store.get(at)["status"]["conditions"][0]["reason"] == "BackoffLimitExceeded"


def endpoint() -> dict[str, Any]:
    resources = {"requests": {"nvidia.com/gpu": "1"}, "limits": {"nvidia.com/gpu": "1"}}
    worker = {"image": "repo/image:1", "modelInvocationPort": {"containerPort": 8080}, "resources": resources}
    worker["modelVolumeMount"] = {"name": "model", "mountPath": "/opt/ml/model"}
    roles = {"prefillSpec": {"replicas": 2, "resources": resources}, "decodingSpec": {"resources": resources}}
    source = {"modelSourceType": "huggingface", "huggingFaceModel": {"modelId": "org/model"}}
    spec = {"modelName": "m", "endpointName": "e", "instanceType": "ml.p5.48xlarge", "modelSourceConfig": source}
    kind = {"apiVersion": "inference.sagemaker.aws.amazon.com/v1", "kind": "InferenceEndpointConfig"}
    return {**kind, "metadata": meta("e"), "spec": {**spec, "worker": worker, "pdSpec": roles}}


def test_the_operator_runs_both_roles_and_reports(cluster: Controllers) -> None:
    at = create(cluster, endpoint())
    cluster.step()
    assert cluster.store.get(at)["status"]["state"] == "DeploymentPending"
    cluster.script(pods.Starting(), {"component": "prefill-e"})
    cluster.settle()
    status = cluster.store.get(at)["status"]
    assert (status["state"], status["endpoints"]["sagemaker"]["state"]) == (
        "DeploymentInProgress",
        "CreationInProgress",
    )
    cluster.script(pods.Ready(), {"component": "prefill-e"})
    cluster.settle()
    status = cluster.store.get(at)["status"]
    assert (status["state"], status["replicas"]) == ("DeploymentComplete", 3)
    assert status["endpoints"]["sagemaker"]["endpointArn"].endswith("endpoint/e")
    cluster.store.merge(at, {"spec": {"pdSpec": {"prefillSpec": {"replicas": 1}}}})
    cluster.settle()
    status = cluster.store.get(at)["status"]
    assert (status["replicas"], status["observedGeneration"]) == (2, 2)
    cluster.endpoints.failing["e"] = "no nodes of ml.p5.48xlarge"
    cluster.settle()
    status = cluster.store.get(at)["status"]
    assert (status["state"], status["conditions"][0]["message"]) == ("DeploymentFailed", "no nodes of ml.p5.48xlarge")


def test_a_thread_keeps_the_cluster_at_rest(cluster: Controllers) -> None:
    with cluster.running():
        at = create(cluster, deployment())
        with cluster.store.changed:
            done = cluster.store.changed.wait_for(
                lambda: cluster.store.get(at).get("status", {}).get("availableReplicas") == 2, timeout=60
            )
    assert done
