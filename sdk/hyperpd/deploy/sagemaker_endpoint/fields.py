"""What becomes of every field of a recipe."""

from __future__ import annotations

from hyperpd.deploy.target import Field


def _is(how: str) -> Field:
    return Field("expressed", how)


def _lost(why: str) -> Field:
    return Field("not expressed", why)


def _refused(why: str) -> Field:
    return Field("refused", why)


_READ = "The container reads the recipe: a shipped one by name, another from beside the model's files"
FIELDS = {
    "version": _is(_READ),
    "name": _is("Names of the endpoint, its configuration and model; '.' becomes '-'"),
    "description": _is(_READ),
    "accelerator": _is("gpu: the option inference_ami; cpu: the image needs the CPU engine"),
    "image": _is("The container's image in Amazon ECR, where the option image is not given"),
    "model": _is(_READ),
    "model.generated": _is("Made by the container as it starts"),
    "model.path": _is("Its files come from the option model_data and lie in /opt/ml/model"),
    "model.claim": _refused("an endpoint has no Kubernetes volumes; remove it and give --set model_data=s3://…"),
    "model.huggingface": _is("From the option model_data; without it, loaded from the hub, with no token"),
    "model.s3": _is("Copied by SageMaker to /opt/ml/model before the container starts, not streamed"),
    "model.served_as": _is("Also in HYPERPD_SERVED_AS: the folder /opt/ml/model has no name to tell"),
    "model.adapters": _is("Folders below /opt/ml/model, or names of the hub where the container may go out"),
    "*.replicas": _is("All workers are in one container, and have to fit one instance"),
    "*.autoscaling": _lost("Application Auto Scaling adds whole instances, each with all roles, not workers of a role"),
    "*.instance_type": _is("The variant's InstanceType, the same for both roles"),
    "*.parallel": _is(_READ),
    "*.parallel.nodes": _refused("a worker here cannot span machines; try the target kubernetes"),
    "*.kv_tiers": _is(_READ),
    "*.kv_tiers.memory_gib": _is("At most half of the instance's memory, all workers together"),
    "*.kv_tiers.disk": _is("A folder below /tmp, the only one that the container's user may write to"),
    "*.kv_tiers.managed": _refused("HyperPod's daemon does not run on an endpoint's instance; try memory_gib"),
    "*.engine": _is(_READ),
    "kv_transfer": _is(_READ),
    "kv_transfer.fabric": _is("local (GPUs) or tcp, within one container; efa and infiniband are refused"),
    "gateway": _is(_READ),
    "gateway.replicas": _lost("One container has one gateway"),
    "gateway.auth": _refused(
        "keys come in the header Authorization, which SageMaker spends on its own signature and does not pass on;"
        " IAM decides who may call (sagemaker:InvokeEndpoint). Remove it"
    ),
    "gateway.limits.concurrent_requests": _is(
        "Above it 429, which a caller gets as ModelError with OriginalStatusCode"
    ),
    "slo": _lost("Nothing follows it: no role is scaled"),
    "placement": _is("One instance is in one zone"),
    "start_timeout_s": _is("ContainerStartupHealthCheckTimeoutInSeconds and ModelDataDownloadTimeoutInSeconds"),
    "drain_s": _is("SageMaker kills a container 30 s after SIGTERM, so no more than about 25 s of it count"),
}
