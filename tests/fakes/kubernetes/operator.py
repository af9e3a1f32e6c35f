"""Operator: what HyperPod's inference operator does with an InferenceEndpointConfig, as far as it is told.

Its states, the fields of its status and its containers' names are AWS's (facts: the definition, hyp's model of the
status, the documentation of pdSpec); that each role is a Deployment of the name of its container is our guess, and the
router in front of pdSpec is not played.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.fakes.kubernetes.refusal import Object, Refused
from tests.fakes.kubernetes.resources import Place, resource_of
from tests.fakes.kubernetes.state import now

if TYPE_CHECKING:
    from tests.fakes.kubernetes.controllers import Controllers

_GROUP = "inference.sagemaker.aws.amazon.com/v1"
_ARN = "arn:aws:sagemaker:us-east-2:111122223333"


class Operator:
    """failing: names of endpoints → why their deployment fails, in the operator's words."""

    def __init__(self) -> None:
        self.failing: dict[str, str] = {}

    def step(self, cluster: Controllers) -> None:
        """One round."""
        for body in cluster.all(_GROUP, "InferenceEndpointConfig"):
            if not body["metadata"].get("deletionTimestamp"):
                self._reconcile(cluster, body)

    def _reconcile(self, cluster: Controllers, body: Object) -> None:
        meta = body["metadata"]
        if why := self.failing.get(meta["name"]):
            cluster.write_status(body, _status(body, "DeploymentFailed", [], why))
            return
        if "status" not in body:
            cluster.write_status(body, _status(body, "DeploymentPending", [], ""))
            return
        made = [self._keep(cluster, body, each) for each in _deployments(body)]
        wanted = sum(each["spec"]["replicas"] for each in made)
        up = sum(each.get("status", {}).get("availableReplicas", 0) for each in made)
        current = all(each.get("status", {}).get("updatedReplicas", 0) == each["spec"]["replicas"] for each in made)
        state = "DeploymentComplete" if up >= wanted and current else "DeploymentInProgress"
        cluster.write_status(body, _status(body, state, made, ""))

    def _keep(self, cluster: Controllers, body: Object, wanted: Object) -> Object:
        """The Deployment of a role, made or changed to what the endpoint wants."""
        at = Place(resource_of("apps/v1", "Deployment"), body["metadata"]["namespace"], wanted["metadata"]["name"])
        try:
            live = cluster.store.get(at)
        except Refused:
            if why := cluster.make(body, wanted):
                cluster.tell(body, "Warning", "ReconcileError", why, "hyperpod-inference-operator")
                return wanted
            return cluster.store.get(at)
        template = {"replicas": wanted["spec"]["replicas"], "template": wanted["spec"]["template"]}
        cluster.store.merge(at, {"spec": template}, "hyperpod-inference-operator")
        return {**cluster.store.get(at), "status": live.get("status", {})}


def _deployments(body: Object) -> list[Object]:
    spec, name = body["spec"], body["metadata"]["name"]
    roles: list[tuple[str, Object]] = [(name, {"replicas": spec.get("replicas", 1)})]
    if pair := spec.get("pdSpec"):
        roles = [(f"prefill-{name}", pair["prefillSpec"]), (f"decode-{name}", pair["decodingSpec"])]
    return [_deployment(spec["worker"], called, role, name) for called, role in roles]


def _deployment(worker: Object, called: str, role: Object, endpoint: str) -> Object:
    container: Object = {
        "name": called,
        "image": worker["image"],
        "args": [*worker.get("args", ()), *role.get("args", ())],
    }
    container["resources"] = role.get("resources", worker.get("resources", {}))
    labels = {"app": endpoint, "deploying-service": "hyperpod-inference", "component": called}
    spec: Object = {"containers": [container]}
    if selector := role.get("nodeSelector"):
        spec["nodeSelector"] = selector
    template = {"metadata": {"labels": labels}, "spec": spec}
    wanted = {"replicas": role.get("replicas", 1), "selector": {"matchLabels": labels}, "template": template}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": called, "labels": labels},
        "spec": wanted,
    }


def _status(body: Object, state: str, made: list[Object], why: str) -> Object:
    name = body["spec"].get("endpointName") or ""
    ready = state == "DeploymentComplete"
    condition = {
        "type": state,
        "status": "True",
        "reason": "ReconcileFailed" if why else state,
        "message": why or state,
    }
    status: Object = {"state": state, "conditions": [condition], "observedGeneration": body["metadata"]["generation"]}
    if made:
        counts = made[0].get("status", {})
        status["deploymentStatus"] = {"name": made[0]["metadata"]["name"], "lastUpdated": now(), "status": counts}
        status["replicas"] = sum(each.get("status", {}).get("replicas", 0) for each in made)
    if name:
        endpoint: Object = {"state": "CreationCompleted" if ready else "CreationInProgress"}
        endpoint |= {"endpointArn": f"{_ARN}:endpoint/{name}"} if ready else {}
        status["endpoints"] = {"sagemaker": endpoint}
    return status
