"""What the recipe does not say: which form, where, and whose image."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from hyperpd.deploy.inference_operator.rules import AMP
from hyperpd.recipe import Block

ENDPOINT_SUFFIX = "-endpoint"
Label = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]  # RFC 1123
Object = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]


class Options(Block):
    """Options of the target inference_operator."""

    front: bool = Field(
        False,
        description="Only hyperpd's gateway, as a SageMaker endpoint before engines that --target kubernetes renders",
    )
    front_instance_type: str | None = Field(
        None,
        pattern=r"^ml\.\S+$",
        description="Machine of the front's gateways, as in ml.m5.2xlarge; needed with front, CPUs are enough",
    )
    namespace: Label = Field(
        "hyperpd",
        max_length=63 - len(ENDPOINT_SUFFIX),
        description=f"The object is in <namespace>{ENDPOINT_SUFFIX}; front: also the namespace given to kubernetes",
    )
    name: Label | None = Field(
        None, description="Name of the object, its model and its SageMaker endpoint; default: the recipe's, '.' as '-'"
    )
    sagemaker_endpoint: bool = Field(
        True, description="Register a SageMaker endpoint; false: only the operator's load balancer"
    )
    image: str | None = Field(
        None, min_length=1, description="Serving image instead of AWS's; front, own_image: hyperpd's, not the recipe's"
    )
    own_image: bool = Field(
        False,
        description="Engines in hyperpd's image instead of AWS's; unverified, and with prefill and decode it probably"
        " does not work: the operator wires LMCache, which that image has not",
    )
    region: str | None = Field(
        None, pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$", description="Region of the bucket, where the recipe says model.s3"
    )
    hf_token_secret: Object | None = Field(
        None, description="Secret of the object's namespace with a Hugging Face token as token"
    )
    prometheus: str | None = Field(
        None,
        pattern=rf"^{AMP.pattern}$",
        description="URL of the AMP workspace that is asked for autoscaling, as in"
        " https://aps-workspaces.REGION.amazonaws.com/workspaces/ws-…; the operator takes no other Prometheus",
    )
    pd_buffer_gib: int | None = Field(
        None, ge=1, le=256, description="GPU memory of each decode rank for KV in transfer (PD_BUFFER_SIZE); default: 8"
    )
