"""What becomes of every field of a recipe: little of it can be said in hyp's 70 flat fields."""

from __future__ import annotations

from hyperpd.deploy.target import Field


def _is(how: str) -> Field:
    return Field("expressed", how)


def _not(why: str) -> Field:
    return Field("not expressed", why)


def _refused(why: str) -> Field:
    return Field("refused", why)


_READ = "Read by the container from the recipe, which travels whole, in a ConfigMap that kubectl applies"
_ONE = "one volume is mounted, and it is the recipe's; give model.huggingface"
SHARED_MEMORY = "more than one needs room in /dev/shm, which hyp's template has no word for"
_HUB = "use hub_recipe with objects=inference_operator"
FIELDS = {
    "version": _is(_READ),
    "name": _is("endpoint_name, metadata_name, model_name"),
    "description": _is(_READ),
    "accelerator": _is("resources_requests and resources_limits: a modest share, with one GPU or none"),
    "image": _is("image_uri, where the option image is not given"),
    "model": _is(_READ),
    "model.generated": _is("Made by the worker as it starts"),
    "model.path": _refused(_ONE),
    "model.claim": _refused(_ONE),
    "model.huggingface": _is("Loaded by the worker, not by the operator, without a token: a gated model is refused"),
    "model.s3": _is("Streamed by the engine, with the rights of the pod's ServiceAccount (unverified)"),
    "model.adapters": _is("Those of Hugging Face are loaded by the worker; a path is refused"),
    "model.adapters.path": _refused("one volume is mounted, and it is the recipe's; give huggingface"),
    "*.replicas": _is("replicas, and both bounds of auto_scaling_spec: hyp posts 1 to 5 where nothing is said"),
    "*.autoscaling": _refused(f"it needs a metric, and what runs here shows its own within the pod alone; {_HUB}"),
    "*.instance_type": _is("instance_type"),
    "*.parallel": _is(f"One GPU, or none; more is refused: {SHARED_MEMORY}"),
    "*.kv_tiers": _refused("it goes with prefill, which cannot be said here; use hub_recipe"),
    "*.engine": _is(f"{_READ}: hyp splits worker_args at commas and breaks JSON in env, so nothing of it goes there"),
    "kv_transfer": _not("An aggregated worker moves no KV cache"),
    "gateway.policy": _is("One worker behind the front in its own pod; the load balancer chooses among pods"),
    "gateway.replicas": _not("Every pod has a front of its own"),
    "gateway.decider": _not("An aggregated worker has no prefill to send prompts to"),
    "gateway.prefix_view": _not("There is one worker behind the front of a pod"),
    "gateway.calibration": _is(_READ),
    "gateway.threshold_tokens": _not("An aggregated worker has no prefill to send prompts to"),
    "gateway.auth": _refused(
        "the one volume is the recipe's, so the key file cannot be there; SageMaker signs requests"
    ),
    "gateway.steering": _is(_READ),
    "gateway.isolate_prefix_cache": _is("Only false: it goes with gateway.auth: keys"),
    "gateway.limits": _is(_READ),
    "slo": _not("Nothing scales by it"),
    "placement.same_zone": _not("The template has no affinity to other pods"),
    "start_timeout_s": _is("max_deploy_time_in_seconds, with an hour at least for image and machine"),
    "drain_s": _not("The container drains so long; how long the pod may take is the operator's to say"),
}
