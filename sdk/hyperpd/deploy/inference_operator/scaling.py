"""autoScalingSpec: KEDA within a role's bounds, asked of an AMP workspace."""

from __future__ import annotations

from hyperpd.deploy.inference_operator.endpoint import Endpoint
from hyperpd.deploy.kubernetes.fleet import Object
from hyperpd.recipe import Role

# Metric of vLLM → how much of it each pod should have; thresholds are starting points, as in the target kubernetes.
_SIGNALS: dict[Role, tuple[str, float]] = {
    "prefill": ("vllm:num_requests_running{{{0}}} + vllm:num_requests_waiting{{{0}}}", 2),
    "decode": ("vllm:kv_cache_usage_perc{{{0}}}", 0.8),
    "aggregated": ("vllm:num_requests_waiting{{{0}}}", 1),
}
NOTE = (
    "By metrics that the operator scrapes. Unverified: that pods are labelled so there, and the thresholds. Needs"
    " metrics in AMP and the operator's KEDA role."
)


def autoscaling(endpoint: Endpoint, role: Role) -> Object | None:
    """The block for `role`, or None where its number of workers is fixed."""
    if not (bounds := endpoint.recipe.role(role).autoscaling):
        return None
    pods = endpoint.name if role == "aggregated" else f"{role}-{endpoint.name}"  # as AWS's page on DPD shows them
    query, target = _SIGNALS[role]
    chosen = f'namespace="{endpoint.namespace}",pod=~"{pods}-.*"'
    return {
        "minReplicaCount": bounds.min,
        "maxReplicaCount": bounds.max,
        "pollingInterval": 30,
        "prometheusTrigger": {
            "serverAddress": endpoint.options.prometheus,
            "name": f"{role}-load",
            "query": f"sum({query.format(chosen)}) or vector(0)",
            "targetValue": target,
            "metricType": "Average",
        },
    }
