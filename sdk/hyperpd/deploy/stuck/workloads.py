"""What controllers say of their objects: conditions, and pods that they may not make."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from hyperpd.deploy.kubernetes.fleet import COMPONENT
from hyperpd.deploy.stuck import refusals
from hyperpd.deploy.stuck.cause import Cause, Object, Seen, Stage, condition, name, ready, told

Explained = Collection[tuple[str, str]]  # (namespace, component) of pods that have a cause of their own


def of(body: Object, seen: Seen, explained: Explained) -> Iterator[Cause]:
    """Of one object. Where its pods say why, nothing is said of what only follows from it."""
    yield from _unmade(body, seen)
    look = _BY_KIND.get(str(body.get("kind")))
    if look:
        yield from look(body, seen, explained)


def _unmade(body: Object, seen: Seen) -> Iterator[Cause]:
    """Pods that the API does not take from its controller."""
    message = told({"message": condition(body, "ReplicaFailure").get("message", "")})
    if condition(body, "ReplicaFailure").get("status") != "True":
        last = [{}, *seen.of(body, "FailedCreate", "SuccessfulCreate")][-1]
        message = told({"message": last.get("message", "")}) if last.get("reason") == "FailedCreate" else ""
    if message:
        yield refusals.of_message(name(body), body["metadata"].get("namespace", ""), message, Stage.UNMADE)


def _ours(body: Object) -> tuple[str, str]:
    meta = body["metadata"]
    return str(meta.get("namespace", "")), str(meta.get("labels", {}).get(COMPONENT, ""))


def _follows(body: Object, what: str, why: str, fix: str) -> Cause:
    return Cause(Stage.FOLLOWS, (name(body),), what, why, fix)


def _unseen(body: Object, controller: str, fix: str) -> Iterator[Cause]:
    """Objects that their controller has not looked at, as they are now."""
    seen, made = body.get("status", {}).get("observedGeneration"), body["metadata"].get("generation")
    if not body.get("status") or (seen is not None and made is not None and seen < made):
        yield Cause(Stage.UNMADE, (name(body),), f"{controller} has not looked at it", "", fix)


def _deployment(body: Object, seen: Seen, explained: Explained) -> Iterator[Cause]:
    if body["spec"].get("paused"):
        fix = f"kubectl rollout resume deployment {body['metadata']['name']} -n {body['metadata'].get('namespace')}"
        yield Cause(Stage.UNMADE, (name(body),), "its rollout is paused", "", fix)
    progress = condition(body, "Progressing")
    if progress.get("status") == "False" and _ours(body) not in explained:
        name_, namespace = body["metadata"]["name"], body["metadata"].get("namespace")
        yield _follows(
            *(body, "its rollout does not get on", told(progress)),
            f"kubectl describe deployment {name_} -n {namespace}; kubectl get pods -n {namespace}",
        )


def _leader_worker_set(body: Object, seen: Seen, explained: Explained) -> Iterator[Cause]:
    unseen = list(
        _unseen(
            *(body, "LeaderWorkerSet's controller"), "kubectl get pods -n lws-system: it has to run (Deployment lws-…)"
        )
    )
    yield from unseen
    wanted, whole = int(body["spec"].get("replicas", 1)), int(body.get("status", {}).get("readyReplicas", 0))
    if unseen or whole >= wanted or _ours(body) in explained:
        return
    size = int(body["spec"].get("leaderWorkerTemplate", {}).get("size", 1))
    groups: dict[str, list[Object]] = {}
    for pod in seen.pods:
        labels = pod["metadata"].get("labels", {})
        if labels.get("leaderworkerset.sigs.k8s.io/name") == body["metadata"]["name"]:
            groups.setdefault(str(labels.get("leaderworkerset.sigs.k8s.io/group-index", "?")), []).append(pod)
    parts = [
        f"group {number}: {len(pods)} of {size} pods there, {sum(ready(pod) for pod in pods)} ready"
        for number, pods in sorted(groups.items())
    ]
    yield _follows(
        body,
        f"{whole} of {wanted} groups are ready" + (f" ({'; '.join(parts)})" if parts else ", and there is no pod"),
        told(condition(body, "Available")) or told(condition(body, "Progressing")),
        f"a group is ready when all {size} pods are; kubectl describe leaderworkerset {body['metadata']['name']} -n"
        f" {body['metadata'].get('namespace')}",
    )


def _endpoint(body: Object, seen: Seen, explained: Explained) -> Iterator[Cause]:
    """InferenceEndpointConfig: the operator's own words."""
    operator = "kubectl get pods -A | grep hyperpod-inference; kubectl logs of its controller"
    unseen = list(_unseen(body, "HyperPod's inference operator", operator))
    yield from unseen
    if unseen:
        return
    status = body["status"]
    stage = Stage.FOLLOWS if any(space == _ours(body)[0] for space, _ in explained) else Stage.UNMADE
    deployed = status.get("deploymentStatus", {})
    bad = [
        told({"reason": f"{one.get('type')} {one.get('reason', '')}".strip(), "message": one.get("message", "")})
        for one in status.get("conditions", ())
        if one.get("status") == "False" or "Fail" in f"{one.get('type')}{one.get('reason')}"
    ]
    if status.get("state") in ("DeploymentFailed", "DeletionFailed"):
        why = "; ".join(dict.fromkeys(filter(None, [*bad, told(deployed)])))
        yield Cause(stage, (name(body),), f"the inference operator says {status['state']}", why, operator)
    certificate = status.get("tlsCertificate", {}).get("certificateHealth")
    if certificate in ("Expiring", "Expired"):
        yield Cause(
            *(Stage.UNREADY, (name(body),), f"its TLS certificate is {certificate.lower()}", ""),
            "kubectl get certificates -A: cert-manager renews it; the operator's role may import it (acm)",
        )
    if status.get("dnsStatus", {}).get("dnsHealth") == "Error":
        why = str(status["dnsStatus"].get("message", ""))
        yield Cause(
            *(Stage.UNREADY, (name(body),), "its name in DNS is not made", why),
            "the operator's role needs route53 rights in the hosted zone of dnsConfig",
        )
    if (endpoint := status.get("endpoints", {}).get("sagemaker", {}).get("state")) and "Fail" in str(endpoint):
        arn = str(status["endpoints"]["sagemaker"].get("endpointArn", "")).rpartition("/")[2] or "NAME"
        yield Cause(
            *(Stage.UNREADY, (name(body),), f"its SageMaker endpoint is {endpoint}", "; ".join(bad)),
            f"aws sagemaker describe-endpoint --endpoint-name {arn}: FailureReason",
        )


def _autoscaler(body: Object, seen: Seen, explained: Explained) -> Iterator[Cause]:
    """HorizontalPodAutoscaler. A limit that was reached is none."""
    for kind in ("AbleToScale", "ScalingActive"):
        if condition(body, kind).get("status") == "False" and condition(body, kind).get("reason") != "ScalingDisabled":
            yield _follows(
                *(body, "it cannot scale", told(condition(body, kind))),
                f"kubectl describe hpa {body['metadata']['name']} -n {body['metadata'].get('namespace')}; its metrics"
                " come from KEDA and Prometheus: the option prometheus names the right one?",
            )


def _scaled_object(body: Object, seen: Seen, explained: Explained) -> Iterator[Cause]:
    yield from _unseen(body, "KEDA", "kubectl get pods -n keda: keda-operator has to run")
    for kind, bad in (("Ready", "False"), ("Fallback", "True")):
        if condition(body, kind).get("status") == bad:
            yield _follows(
                *(body, "KEDA cannot scale by it", told(condition(body, kind))),
                "its triggers ask Prometheus (option prometheus): the URL as seen from KEDA's pods, and a network"
                " policy that lets them; kubectl logs -n keda deployment/keda-operator",
            )


def _workload(body: Object, seen: Seen, explained: Explained) -> Iterator[Cause]:
    """Kueue's. Reserved quota is not yet admission."""
    if condition(body, "Admitted").get("status") == "True" or condition(body, "Finished").get("status") == "True":
        return
    evicted, reserved = condition(body, "Evicted"), condition(body, "QuotaReserved")
    said = evicted if evicted.get("status") == "True" and reserved.get("status") != "True" else reserved
    namespace, queue = body["metadata"].get("namespace"), body["spec"].get("queueName", "")
    words = told(said)
    if "doesn't exist" in words:
        fix = f"make the LocalQueue {queue} in {namespace}, or name one that is there (kubectl get localqueues -A)"
    elif "inactive" in words or "stopped" in words:
        fix = "kubectl describe clusterqueue: it is stopped, or lacks a flavor or an admission check"
    else:
        fix = (
            f"its queue's quota is in use: kubectl get workloads -A; raise the ClusterQueue's nominalQuota, give a"
            f" priority_class that may preempt, or wait (kubectl describe localqueue {queue} -n {namespace})"
        )
    yield Cause(Stage.UNMADE, (name(body),), f"Kueue has not admitted it (queue {queue})", words, fix)


def _claim(body: Object, seen: Seen, explained: Explained) -> Iterator[Cause]:
    """PersistentVolumeClaim. One that waits for its first pod waits for nothing else."""
    if body.get("status", {}).get("phase") not in ("Pending", "Lost"):
        return
    why = seen.said(body, "ProvisioningFailed", "FailedBinding", "VolumeMismatch")
    if why or body["status"]["phase"] == "Lost":
        yield Cause(
            *(Stage.UNPLACED, (name(body),), f"it has no volume ({body['status']['phase']})", why),
            "kubectl get storageclass, pv; a static FSx volume's PersistentVolume names the claim in claimRef, and the"
            " same class, size and access mode",
        )


_BY_KIND: dict[str, Callable[[Object, Seen, Explained], Iterator[Cause]]] = {
    "Deployment": _deployment,
    "LeaderWorkerSet": _leader_worker_set,
    "InferenceEndpointConfig": _endpoint,
    "HorizontalPodAutoscaler": _autoscaler,
    "ScaledObject": _scaled_object,
    "Workload": _workload,
    "PersistentVolumeClaim": _claim,
}
