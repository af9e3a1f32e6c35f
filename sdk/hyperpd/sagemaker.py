"""Clusters to and from the SageMaker SDK, real sagemaker.core.resources.Cluster objects, and clients of its Endpoints.

Needs the extra `sagemaker`, which is imported when the first cluster is handed over. Credentials go along: what was
made with a boto3 session of its own is asked with that session.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from hyperpd.client import Client, Endpoint
from hyperpd.cluster import Cluster, reader
from hyperpd.cluster.aws import Aws
from hyperpd.errors import NotReady, RecipeError


def resource(cluster: Cluster) -> Any:
    """`cluster` as a sagemaker.core.resources.Cluster, as AWS describes it now. The SDK's shapes are written out and
    drop what they do not know: a warning names it.

    Raises NotReady without the extra, CloudError where there is no such cluster.
    """
    try:
        from sagemaker.core.resources import Cluster as Resource
    except ImportError:
        raise NotReady("handing a cluster over needs the SageMaker SDK: pip install 'hyperpd[sagemaker]'") from None
    name = cluster.status().name  # where there is none, said as hyperpd says it
    found = Resource.get(name, session=cluster.aws.session, region=cluster.aws.place.region)
    answer = reader.described(cluster.aws, name) or {}
    answer = {key: value for key, value in answer.items() if key != "ResponseMetadata"}
    if lost := list(dropped(answer, found)):
        warnings.warn(
            f"this SageMaker SDK shows nothing of {', '.join(lost)}; pip install -U sagemaker-core", stacklevel=2
        )
    return found


def cluster(resource: Any) -> Cluster:
    """The cluster of a sagemaker.core.resources.Cluster, whoever created it; `spec` of it gives its file.

    Raises RecipeError where it is no such object, CloudError.
    """
    name = getattr(resource, "cluster_name", None)
    if not isinstance(name, str):
        what = type(resource).__name__
        raise RecipeError("sagemaker cluster", [f"{what} has no cluster_name; give a sagemaker.core.resources.Cluster"])
    arn = next((one for one in (name, getattr(resource, "cluster_arn", None)) if str(one).startswith("arn:")), None)
    session = getattr(resource, "_session", None)
    region = str(arn).split(":")[3] if arn else getattr(resource, "_region", None)
    aws = Aws(region, session=session)
    if name.startswith("arn:"):
        name = str(aws.call("sagemaker", "describe_cluster", ClusterName=name)["ClusterName"])
    return Cluster(name, aws)


def endpoint(resource: Any, **said: Any) -> Endpoint:
    """The way in of a sagemaker.core.resources.Endpoint, with its session and Region; `said`: the rest of what
    hyperpd.client.Endpoint takes (session_id, attributes, TargetVariant, …).

    Raises RecipeError where it is no such object.
    """
    name = getattr(resource, "endpoint_name", None)
    if not isinstance(name, str):
        what = type(resource).__name__
        problem = f"{what} has no endpoint_name; give a sagemaker.core.resources.Endpoint"
        raise RecipeError("sagemaker endpoint", [problem])
    arn = str(getattr(resource, "endpoint_arn", ""))
    region = arn.split(":")[3] if arn.startswith("arn:") else getattr(resource, "_region", None)
    return Endpoint(name, region=region, session=getattr(resource, "_session", None), **said)


def client(resource: Any, **said: Any) -> Client:
    """A client of it; more to say, or to await: Client(endpoint(resource), …), AsyncClient(endpoint(resource), …)."""
    return Client(endpoint(resource, **said))


def dropped(answer: Any, found: Any, path: str = "") -> Iterator[str]:
    """Paths of DescribeCluster's answer that the SDK's object has not."""
    if isinstance(answer, Mapping):
        have = found if isinstance(found, Mapping) else vars(found)
        names = {name.replace("_", "").lower(): name for name in have}
        for key, value in answer.items():
            name = names.get(key.lower())
            where = f"{path}.{key}" if path else key
            if name is None or type(have[name]).__name__ == "Unassigned":
                yield where
            else:
                yield from dropped(value, have[name], where)
    elif isinstance(answer, list):
        for number, (value, inner) in enumerate(zip(answer, found, strict=True)):
            yield from dropped(value, inner, f"{path}.{number}")
