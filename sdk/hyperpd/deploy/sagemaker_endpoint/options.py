"""What the recipe does not say: whose endpoint, from which bucket, in which network."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from hyperpd.recipe import S3_KEY, Block

Ami = Literal[
    "al2-ami-sagemaker-inference-gpu-2",
    "al2-ami-sagemaker-inference-gpu-2-1",
    "al2-ami-sagemaker-inference-gpu-3-1",
    "al2023-ami-sagemaker-inference-gpu-4-1",
]
# Patterns are those of botocore's model of SageMaker, or stricter; the tests hold every request against it.
_TAG = r"[A-Za-z0-9_ .:/+\-@]"


def _words(value: Any) -> Any:
    """ "a,b" → a and b."""
    return tuple(word.strip() for word in value.split(",")) if isinstance(value, str) else value


Subnets = Annotated[
    tuple[Annotated[str, StringConstraints(pattern=r"^subnet-[0-9a-z]{1,25}$")], ...], Field(max_length=16)
]
Groups = Annotated[tuple[Annotated[str, StringConstraints(pattern=r"^sg-[0-9a-z]{1,29}$")], ...], Field(max_length=5)]
Tag = Annotated[str, StringConstraints(pattern=rf"^{_TAG}{{1,128}}={_TAG}{{0,256}}$")]


class Options(Block):
    """Options of the target sagemaker_endpoint."""

    role_arn: str | None = Field(
        None,
        pattern=r"^arn:aws[a-z\-]*:iam::\d{12}:role/[a-zA-Z_0-9+=,.@\-_/]+$",
        description="Execution role, as in arn:aws:iam::123456789012:role/name; required."
        " 1-role-policy.json and 1-role-trust.json say what it needs",
    )
    image: str | None = Field(
        None, min_length=1, max_length=255, description="Image in Amazon ECR, instead of the recipe's"
    )
    endpoint_name: str | None = Field(
        None,
        pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$",
        description="Name of the endpoint, of letters, digits and '-'; default: the recipe's",
    )
    instance_type: str | None = Field(
        None,
        pattern=r"^ml\.\S+$",
        description="Instance, as in ml.g6e.12xlarge, where the recipe names none or another",
    )
    model_data: str | None = Field(
        None,
        max_length=900,
        pattern=rf"^s3://[a-z0-9][-a-z0-9.]{{1,61}}[a-z0-9]/{S3_KEY}*[-A-Za-z0-9!_.()]/?$",
        description="S3 prefix, as in s3://bucket/model, of letters, digits and !-_.()/, in a bucket of the role's"
        " account, with the model's uncompressed files, copied to /opt/ml/model; default: model.s3. A recipe that is"
        " not shipped travels in it",
    )
    inference_ami: Ami | None = Field(
        None, description="What the instance boots; default with GPUs: al2023-…-gpu-4-1 (driver 580), CPU: SageMaker's"
    )
    volume_gb: int | None = Field(
        None, ge=1, le=512, description="Storage, in GB; only for instances without NVMe disks of their own"
    )
    subnets: Subnets = Field(
        (), description="Subnets of the container, as in subnet-1,subnet-2; goes with security_groups"
    )
    security_groups: Groups = Field((), description="Security groups of it, as in sg-1,sg-2; goes with subnets")
    tags: Annotated[tuple[Tag, ...], Field(max_length=48)] = Field((), description="Tags, as in team=search,cost=42")

    @field_validator("subnets", "security_groups", "tags", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return _words(value)

    @field_validator("tags")
    @classmethod
    def _keys(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        keys = [tag.partition("=")[0] for tag in tags]
        for key in keys:
            if key.lower().startswith("aws:"):
                raise ValueError(f"{key}: AWS keeps aws: to itself")
            if key.startswith("hyperpd:"):
                raise ValueError(f"{key}: hyperpd: says what was rendered; give another key")
            if keys.count(key) > 1:
                raise ValueError(f"{key} is given twice, and SageMaker takes each key once")
        return tags

    @model_validator(mode="after")
    def _network(self) -> Options:
        if bool(self.subnets) != bool(self.security_groups):
            raise ValueError("subnets and security_groups go together")
        return self
