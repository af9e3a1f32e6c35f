"""The requests, as SageMaker's API names their members."""

from __future__ import annotations

from hyperpd.deploy.sagemaker_endpoint import refusals
from hyperpd.deploy.sagemaker_endpoint.endpoint import Endpoint, Object

_AMI = "al2023-ami-sagemaker-inference-gpu-4-1"  # driver 580: runs images of CUDA 12 and 13
_SHORTEST_S = 60  # of SageMaker's timeouts


def model(endpoint: Endpoint) -> Object:
    """CreateModel."""
    container: Object = {"Image": endpoint.image}
    if place := endpoint.bucket_and_prefix:
        source = {"S3Uri": f"s3://{'/'.join(place)}", "S3DataType": "S3Prefix", "CompressionType": "None"}
        container["ModelDataSource"] = {"S3DataSource": source}
    container["Environment"] = endpoint.environment()
    options = endpoint.options
    request: Object = {
        "PrimaryContainer": container,
        "ExecutionRoleArn": options.role_arn,
        "EnableNetworkIsolation": endpoint.isolated,
    }
    if options.subnets:
        request["VpcConfig"] = {"SecurityGroupIds": [*options.security_groups], "Subnets": [*options.subnets]}
    return {"ModelName": endpoint.named(request), **request, "Tags": tags(endpoint)}


def config(endpoint: Endpoint) -> Object:
    """CreateEndpointConfig."""
    recipe, options = endpoint.recipe, endpoint.options
    variant: Object = {
        "VariantName": "all",
        "ModelName": model(endpoint)["ModelName"],
        "InstanceType": endpoint.instance_type,
        "InitialInstanceCount": 1,
        "ContainerStartupHealthCheckTimeoutInSeconds": max(refusals.start_s(recipe), _SHORTEST_S),
    }
    if endpoint.bucket_and_prefix:
        variant["ModelDataDownloadTimeoutInSeconds"] = max(recipe.start_timeout_s, _SHORTEST_S)
    if recipe.accelerator == "gpu":
        variant["InferenceAmiVersion"] = options.inference_ami or _AMI
    if options.volume_gb:
        variant["VolumeSizeInGB"] = options.volume_gb
    request = {"ProductionVariants": [variant]}
    return {"EndpointConfigName": endpoint.named(request), **request, "Tags": tags(endpoint)}


def endpoint(endpoint: Endpoint) -> Object:
    """CreateEndpoint."""
    names = {"EndpointName": endpoint.name, "EndpointConfigName": config(endpoint)["EndpointConfigName"]}
    return {**names, "Tags": tags(endpoint)}


def tags(endpoint: Endpoint) -> list[Object]:
    ours = {"hyperpd:recipe": endpoint.recipe.name, "hyperpd:recipe-digest": endpoint.file.digest}
    given = dict(tag.split("=", 1) for tag in endpoint.options.tags)  # none is ours, and none is there twice
    return [{"Key": key, "Value": value} for key, value in (ours | given).items()]
