"""What becomes of every field of a recipe."""

from __future__ import annotations

from hyperpd.deploy.target import Field


def _is(how: str) -> Field:
    return Field("expressed", how)


def _lost(why: str) -> Field:
    return Field("not expressed", why)


_READ = "The recipe travels whole, in the script; every step reads it from the run's folder"
FIELDS = {
    "version": _is(_READ),
    "name": _is("--job-name, and part of the folder of a run"),
    "description": _is(_READ),
    "accelerator": _is("gpu: whole nodes (--exclusive), without a share for others; cpu: CPUs and memory of a node"),
    "image": _is("--container-image of every step, where the option image is not given; mode bare: not used"),
    "model": _is(_READ),
    "model.generated": _is("Made by each worker as it starts, from the same seed; mode container: in cache_folder"),
    "model.path": _is("A folder of the nodes; mode container: mounted read-only"),
    "model.claim": Field("refused", "Slurm has no volumes; remove it, and give path as the nodes see it"),
    "model.huggingface": _is("Loaded by each worker. Options hf_token_file, cache_folder"),
    "model.s3": _is("Streamed by the engine, with the nodes' own role"),
    "model.adapters": _is("As the model: folders of the nodes, names of the hub loaded"),
    "*.replicas": _is("Steps, and with them the nodes of the role's component"),
    "*.autoscaling": _lost("A job keeps the nodes it began with"),
    "*.instance_type": _is("GPUs of a node, so how many nodes; which machines: the options partition, …_partition"),
    "*.parallel": _is("Workers of a node; degrees are passed on to the engine"),
    "*.parallel.nodes": _is("Nodes of a worker's step, one task on each; the first has the API"),
    "*.kv_tiers.memory_gib": _is("The node's own memory: --mem=0"),
    "*.kv_tiers.disk": _is("A folder of the nodes; mode container: mounted, so it has to be there"),
    "*.kv_tiers.managed": Field("refused", "HyperPod's tiered storage is a daemon of EKS clusters; try memory_gib"),
    "*.engine": _is(_READ),
    "kv_transfer": _is(_READ),
    "kv_transfer.fabric": _is("local: one node, with one step for all; else a component for each role"),
    "kv_transfer.lease_s": _is("Part of --signal"),
    "gateway": _is(_READ),
    "gateway.replicas": _lost("A job has one gateway, on its first node"),
    "gateway.auth": _is(
        "keys: the file of the option keys_file; asked by the gateway alone, workers have no network policy"
    ),
    "slo": _lost("Nothing follows it: a job is not scaled"),
    "placement.same_zone": _lost("Slurm knows no zones; give partitions whose nodes are in one"),
    "start_timeout_s": _is(_READ),
    "drain_s": _is("Part of --signal: how long before the time limit the job begins to end"),
}
