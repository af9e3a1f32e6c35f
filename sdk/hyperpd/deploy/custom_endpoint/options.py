"""What the recipe does not say: where in which cluster, and how the endpoint is called."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from hyperpd.deploy.kubernetes.options import Label
from hyperpd.recipe import Block

_Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](-*[a-z0-9]){0,62}$")]


class Options(Block):
    """Options of the target custom_endpoint."""

    namespace: Label = Field("default", description="Namespace of the endpoint; it has to be there")
    image: str | None = Field(None, pattern=r"^[a-z0-9][^\s\"\\]*$", description="Image, instead of the recipe's")
    endpoint_name: _Name | None = Field(
        None, description="SageMaker endpoint to register; default: the recipe's name, without dots"
    )
    certificates: str | None = Field(
        None,
        pattern=r"^s3://[^\s\"\\/]+(/[^\s\"\\]*)?$",
        description="S3 prefix for the load balancer's certificate (tls_certificate_output_s3_uri)",
    )
    instance_type: str | None = Field(
        None, pattern=r"^ml\.\S+$", description="Machine, where the recipe names none: hyp asks for one"
    )
