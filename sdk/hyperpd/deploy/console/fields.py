"""What becomes of every field of a recipe."""

from __future__ import annotations

from hyperpd.deploy.target import Field


def _is(how: str) -> Field:
    return Field("expressed", how)


_READ = "The container reads the recipe: in a ConfigMap; for an endpoint from a bucket, or a shipped one by its name"
FIELDS = {
    "version": _is(_READ),
    "name": _is("Tag hyperpd:recipe"),
    "description": _is(_READ),
    "accelerator": _is(
        "gpu: nodes with GPUs; cpu is refused: a recipe for CPUs names no instance type to make groups of"
    ),
    "image": _is("Container image, where the option image is not given"),
    "model": _is(_READ),
    "model.s3": _is(
        "Read by a right to that prefix alone, in a bucket of the account: the endpoint's role, or the pods' identity"
    ),
    "*.replicas": _is("Nodes of the role's instance group (capacity.check), and what is served on them"),
    "*.autoscaling": Field("not expressed", "nothing here follows load: replicas stand, and so do the nodes"),
    "*.instance_type": _is("Type of the role's instance group; option instance_type where the recipe names none"),
    "*.parallel": _is("Nodes of the role's instance group; the container passes degrees on to the engine"),
    "*.kv_tiers": _is(_READ),
    "*.kv_tiers.managed": _is("TieredStorageConfig of the cluster; refused with slurm"),
    "*.engine": _is(_READ),
    "kv_transfer": _is(_READ),
    "kv_transfer.fabric": _is("efa: one zone, and a security group that is open to itself both ways; local: one node"),
    "gateway.policy": _is(_READ),
    "gateway.replicas": _is("Nodes of the instance group gateway, at most two; local: none of its own"),
    **dict.fromkeys(
        (f"gateway.{name}" for name in ("decider", "threshold_tokens", "prefix_view", "calibration")), _is(_READ)
    ),
    "gateway.auth": _is("none; keys is refused: the console's test pages send no key, IAM is what guards them"),
    "gateway.steering": _is(_READ),
    "gateway.isolate_prefix_cache": _is("Only false: it goes with gateway.auth: keys"),
    "gateway.limits": _is(_READ),
    "slo": Field("not expressed", "nothing here scales or alarms by it"),
    "placement.same_zone": _is("Always: all nodes are in one subnet"),
    "start_timeout_s": _is(
        "Endpoint: start-up health check, at most 3,600 s (above: no endpoint); Kubernetes: startup probe"
    ),
    "drain_s": _is(_READ),
}
