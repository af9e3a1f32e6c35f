"""What becomes of every field of a recipe."""

from __future__ import annotations

from hyperpd.deploy.target import Field


def _is(how: str) -> Field:
    return Field("expressed", how)


_READ = "The recipe travels whole, in a ConfigMap; the container reads it there"
FIELDS = {
    "version": _is(_READ),
    "name": _is("Label app.kubernetes.io/instance, and the name of Kueue's pod group"),
    "description": _is(_READ),
    "accelerator": _is(
        "gpu: GPUs, machines and their taints; cpu: modest requests, and any machine where none is named"
    ),
    "image": _is("Every container's image, where the option image is not given"),
    "model": _is(_READ),
    "model.generated": _is("Made by each worker as it starts, from the same seed"),
    "model.path": _is("A folder of the machine (hostPath), read-only; with claim, a folder of that"),
    "model.claim": _is("PersistentVolumeClaim, mounted read-only at the first folder of path"),
    "model.huggingface": _is(
        "Loaded by each pod; HTTPS to the internet is open. Options hf_token_secret, cache_folder"
    ),
    "model.s3": _is("Streamed by the engine; HTTPS is open. Needs a pod identity for the ServiceAccount engines"),
    "model.adapters": _is("As the model: folders mounted, names of the hub loaded"),
    "*.replicas": _is("Pods of a Deployment, or groups of a LeaderWorkerSet; local: all in one pod"),
    "*.autoscaling": _is("KEDA's ScaledObject; needs the option prometheus; refused with fabric: local"),
    "*.instance_type": _is("nodeSelector; with GPUs also the share of CPUs, memory, EFA devices and huge pages"),
    "*.parallel": _is("GPUs of a pod; the container passes degrees on to the engine"),
    "*.parallel.nodes": _is("Above 1 a LeaderWorkerSet with that many pods in a group; each takes a whole machine"),
    "*.kv_tiers.memory_gib": _is("Part of the pod's memory, and room in /dev/shm"),
    "*.kv_tiers.disk": _is("A folder of the machine (hostPath) of user 10001; below /tmp the pod's own"),
    "*.kv_tiers.managed": _is("The machine's address in HYPERPD_NODE_ADDRESS, and the daemon's port opened"),
    "*.engine": _is(_READ),
    "kv_transfer": _is(_READ),
    "kv_transfer.fabric": _is("efa: devices, huge pages, roles on different machines; local: one pod for all"),
    "kv_transfer.lease_s": _is("Part of terminationGracePeriodSeconds of prefill"),
    "gateway.policy": _is(_READ),
    "gateway.replicas": _is("Pods of the gateway's Deployment; refused with fabric: local, which has one"),
    **dict.fromkeys((f"gateway.{name}" for name in ("decider", "threshold_tokens", "calibration")), _is(_READ)),
    "gateway.prefix_view": _is("exact: the ports of workers' KV events are open to the gateway alone"),
    "gateway.auth": _is("keys: the Secret of the option keys_secret, mounted; PodMonitors send an operator's key"),
    "gateway.steering": _is(_READ),
    "gateway.isolate_prefix_cache": _is(_READ),
    "gateway.limits": _is(_READ),
    "slo": _is(
        "KEDA's triggers: ttft_ms of prefill, itl_ms of decode (or aggregated), where that role has autoscaling"
    ),
    "placement.same_zone": _is("With GPUs: required pod affinity by zone"),
    "start_timeout_s": _is("Startup probe and progressDeadlineSeconds, the gateway's too"),
    "drain_s": _is("terminationGracePeriodSeconds"),
}
