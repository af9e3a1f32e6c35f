"""What the recipe does not say: where in which cluster."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from hyperpd.recipe import Block

ENGINES_SUFFIX = "-engines"
Label = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]  # RFC 1123
Object = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
Folder = Annotated[str, StringConstraints(pattern=r"^/[^/\s]+(/[^/\s]+)*$")]


class Options(Block):
    """Options of the target kubernetes."""

    platform: Literal["hyperpod", "eks"] = Field("hyperpod", description="How machines are labelled: hyperpod or eks")
    namespace: Label = Field(
        "hyperpd",
        max_length=63 - len(ENGINES_SUFFIX),
        description=f"Namespace of the gateway; the engines' is <namespace>{ENGINES_SUFFIX}. One recipe in each",
    )
    image: str | None = Field(None, min_length=1, description="Container image, instead of the recipe's")
    queue: Object | None = Field(None, description="Kueue: a LocalQueue of the engines' namespace, made by you")
    priority_class: Object | None = Field(None, description="Kueue: a WorkloadPriorityClass; goes with queue")
    prometheus: str | None = Field(
        None, pattern=r"^https?://\S+$", description="URL of the Prometheus that KEDA asks; needed for autoscaling"
    )
    monitoring_namespace: Label = Field("monitoring", description="Namespace that may read metrics")
    clients_namespace: Label | None = Field(
        None, description="The only namespace whose pods may call the gateway; default: everybody may"
    )
    privileged: bool = Field(
        False, description="Run engines as root with every capability, where EFA cannot register memory otherwise"
    )
    hugepages_mib: int | None = Field(
        None,
        ge=2,
        multiple_of=2,
        description="Huge pages of a worker on EFA; default: its share of the machine's 10240, at most 5120",
    )
    keys_secret: Object | None = Field(
        None,
        description="Secret with the key file as keys.json, where gateway.auth is keys; in the gateway's"
        " namespace, and in the engines' too where the recipe is aggregated or local",
    )
    hf_token_secret: Object | None = Field(
        None, description="Secret of the engines' namespace with a Hugging Face token as token"
    )
    cache_folder: Folder | None = Field(
        None,
        description="Folder of the machines, of user 10001, that keeps downloads and compiled code when pods go;"
        " the lifecycle scripts make /opt/hyperpd/data/models. Default: the pod's own, on the root volume",
    )

    @model_validator(mode="after")
    def _queued(self) -> Options:
        if self.priority_class and not self.queue:
            raise ValueError("priority_class goes with queue")
        return self
