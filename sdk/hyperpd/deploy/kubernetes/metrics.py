"""What Prometheus reads, and how KEDA scales by it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hyperpd.deploy.kubernetes import certificates, pods, storage
from hyperpd.deploy.kubernetes.fleet import COMPONENT, Component, Fleet, Object, selector
from hyperpd.deploy.target import Document
from hyperpd.recipe import Role

FILE = "6-monitoring.yaml"
SCALING_FILE = "7-scaling.yaml"
_LABEL = "__meta_kubernetes_pod_label_" + COMPONENT.translate(str.maketrans("./-", "___"))
_UP_EVERY_S, _DOWN_EVERY_S = 180, 300


def monitors(fleet: Fleet) -> Iterator[Document]:
    """A PodMonitor for each room."""
    taken = "Prometheus has to be told to take PodMonitors of this namespace (podMonitorSelector)."
    keyed = (
        f" The gateway wants an operator's key, {storage.METRICS_KEY} of the Secret, or this monitor is passed over."
    )
    of_gateway = taken + (keyed if fleet.recipe.gateway.auth == "keys" else "")
    if fleet.local:
        placed = fleet.on_one_machine().workers
        endpoints = [_gateway_endpoint(fleet, "node", pods.GATEWAY_ADMIN)]
        for worker in placed:
            said = [
                {"targetLabel": "role", "replacement": worker.role},
                {"targetLabel": "worker", "replacement": worker.name},
            ]
            ports = (f"{pods.API}-{worker.api_port}", f"{pods.ADMIN}-{worker.admin_port}")
            endpoints += [_endpoint(port) | {"relabelings": said} for port in ports]
        yield _monitor(
            fleet, "engines", selector("node"), endpoints, f"Gateway and workers of the one pod. {of_gateway}"
        )
        return
    role = [{"sourceLabels": [_LABEL], "targetLabel": "role"}]
    ports = (pods.API, pods.ADMIN)
    by = certificates.scraped(fleet, next(iter(fleet.recipe.roles())))  # one certificate for all roles
    endpoints = [_endpoint(port) | by | {"relabelings": role} for port in ports]
    comment = f"{pods.API}: the engine's metrics; {pods.ADMIN}: counters of its network devices. {taken}"
    yield _monitor(fleet, "engines", selector(), endpoints, comment)
    comment = f"The gateway's metrics. {of_gateway}"
    yield _monitor(fleet, "gateway", selector("gateway"), [_gateway_endpoint(fleet, "gateway", pods.ADMIN)], comment)


def _endpoint(port: str) -> Object:
    return {"port": port, "path": "/metrics", "interval": "15s"}


def _gateway_endpoint(fleet: Fleet, component: Component, port: str) -> Object:
    endpoint = _endpoint(port) | certificates.scraped(fleet, component)
    if fleet.recipe.gateway.auth != "keys":
        return endpoint
    secret = {"name": fleet.options.keys_secret, "key": storage.METRICS_KEY}
    return endpoint | {"authorization": {"type": "Bearer", "credentials": secret}}


def _monitor(fleet: Fleet, room: str, labels: dict[str, str], endpoints: list[Object], comment: str) -> Document:
    body = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": fleet.meta(room, "engines" if room == "engines" else "gateway"),
        "spec": {"selector": {"matchLabels": labels}, "podMetricsEndpoints": endpoints},
    }
    return Document(FILE, comment, body)


@dataclass(frozen=True, slots=True)
class _Signal:
    """A query and what it should be: for each worker, or (relative) as a ratio that 1 is right for."""

    name: str
    why: str
    query: str
    threshold: str
    relative: bool = False


def scalers(fleet: Fleet) -> Iterator[Document]:
    """A ScaledObject for each role with autoscaling."""
    for role, spec in fleet.recipe.roles().items():
        if not (bounds := spec.autoscaling):
            continue
        groups = spec.parallel.nodes > 1
        signals = list(_signals(fleet, role))
        body = {
            "apiVersion": "keda.sh/v1alpha1",
            "kind": "ScaledObject",
            "metadata": fleet.meta(role, "engines", role),
            "spec": {
                "scaleTargetRef": {
                    "apiVersion": "leaderworkerset.x-k8s.io/v1" if groups else "apps/v1",
                    "kind": "LeaderWorkerSet" if groups else "Deployment",
                    "name": fleet.workload(role),
                },
                "minReplicaCount": bounds.min,
                "maxReplicaCount": bounds.max,
                "pollingInterval": 30,
                "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior()}},
                "triggers": [_trigger(fleet, signal) for signal in signals],
            },
        }
        at = "spec.advanced.horizontalPodAutoscalerConfig.behavior"
        notes = {
            f"{at}.scaleUp": "One at a time: a worker that loads its model helps only minutes later.",
            f"{at}.scaleDown": "Slowly: each worker that goes takes its cache along.",
            **{f"spec.triggers.{index}": signal.why for index, signal in enumerate(signals)},
        }
        comment = (
            "The signal that asks for the most workers decides. Missing data is an error and never looks like no load"
            " (ignoreNullValues, no fallback): while a signal is missing no worker is taken away, and while all are the"
            " number stays as it is. Thresholds are starting points; unverified under load."
        )
        yield Document(SCALING_FILE, comment, body, notes)


def _behavior() -> Object:
    def step(seconds: int, window_s: int) -> Object:
        return {
            "stabilizationWindowSeconds": window_s,
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": seconds}],
        }

    return {"scaleUp": step(_UP_EVERY_S, 60), "scaleDown": step(_DOWN_EVERY_S, 300)}


def _trigger(fleet: Fleet, signal: _Signal) -> Object:
    return {
        "type": "prometheus",
        "name": signal.name,
        "metricType": "Value" if signal.relative else "AverageValue",
        "metadata": {
            "serverAddress": fleet.options.prometheus,
            "query": signal.query,
            "threshold": signal.threshold,
            "ignoreNullValues": "false",
        },
    }


def _signals(fleet: Fleet, role: Role) -> Iterator[_Signal]:
    here = f'{{namespace="{fleet.namespace("engines")}",role="{role}"}}'
    slo, ranks = fleet.recipe.slo, fleet.recipe.role(role).parallel.data
    each = "each worker" if ranks == 1 else f"each of a worker's {ranks} ranks, which have queues of their own"
    if role != "decode":
        over = " + ".join(
            f"sum(avg_over_time(vllm:num_requests_{state}{here}[1m]))" for state in ("waiting", "running")
        )
        if role == "prefill":
            why = f"Two prompts for {each}: one that it computes, and one that waits."
            yield _Signal("prompts", why, over, str(2 * ranks))
        else:
            why = f"One request that waits for {each}."
            yield _Signal("waiting", why, over.partition(" + ")[0], str(ranks))
        if slo.ttft_ms:
            why = (
                "slo.ttft_ms: its 95th percentile at the gateway, over it. Only streams count: other answers have no"
                " first token of their own. Buckets are coarse: it moves in steps."
            )
            at = f'{{namespace="{fleet.namespace("gateway")}"}}'
            yield _Signal("ttft", why, _over("hyperpd_first_event_seconds", at, slo.ttft_ms), "1", True)
    if role != "prefill":
        usage = f"sum(avg by (pod) (vllm:kv_cache_usage_perc{here}))"
        yield _Signal("kv-cache", "How full each worker's KV cache is; full, it preempts requests.", usage, "0.8")
        if slo.itl_ms:
            why = "slo.itl_ms: its 95th percentile over it."
            yield _Signal("itl", why, _over("vllm:inter_token_latency_seconds", here, slo.itl_ms), "1", True)


def _over(histogram: str, labels: str, slo_ms: float) -> str:
    """p95 of a histogram of seconds as a multiple of an SLO.

    Without requests there is no percentile: 0 then, from the histogram's own count, so that where the histogram is
    missing, nothing comes of it.
    """
    p95 = f"histogram_quantile(0.95, sum by (le) (rate({histogram}_bucket{labels}[5m])))"
    return f"({p95} / {slo_ms / 1000:g} > 0) or 0 * sum(rate({histogram}_count{labels}[5m]))"
