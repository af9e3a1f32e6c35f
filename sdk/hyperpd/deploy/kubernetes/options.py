"""What the recipe does not say: where in which cluster."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from hyperpd.fabric import HUGEPAGES_MIB
from hyperpd.recipe import Block

ENGINES_SUFFIX = "-engines"
Label = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]  # RFC 1123
Object = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
Selector = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_./]{0,315}[A-Za-z0-9])?=[-A-Za-z0-9_.]{1,63}$")
]
Folder = Annotated[str, StringConstraints(pattern=r"^/[^/\s]+(/[^/\s]+)*$")]


class Options(Block):
    """Options of the target kubernetes."""

    platform: Literal["hyperpod", "eks"] = Field("hyperpod", description="How machines are labelled: hyperpod or eks")
    namespace: Label = Field(
        "hyperpd",
        max_length=63 - len(ENGINES_SUFFIX),
        description=f"Namespace of the gateway; the engines' is <namespace>{ENGINES_SUFFIX}. One recipe in each,"
        " and nothing else: what they do not need is closed",
    )
    image: str | None = Field(None, min_length=1, description="Container image, instead of the recipe's")
    queue: Object | None = Field(None, description="Kueue: a LocalQueue of the engines' namespace, made by you")
    priority_class: Object | None = Field(None, description="Kueue: a WorkloadPriorityClass; goes with queue")
    prometheus: str | None = Field(
        None, pattern=r"^https?://\S+$", description="URL of the Prometheus that KEDA asks; needed for autoscaling"
    )
    monitoring_namespace: Label = Field("monitoring", description="Namespace that may read metrics")
    monitoring_pods: Selector | None = Field(
        None,
        description="label=value of the pods there that may, as in app.kubernetes.io/name=prometheus; default: all",
    )
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
        description=f"Huge pages of a worker on EFA; default: {HUGEPAGES_MIB}, what EFA uses, where the worker's"
        " share of the machine's 10240 is as large, else none",
    )
    keys_secret: Object | None = Field(
        None,
        description="Secret with the key file as keys.json, where gateway.auth is keys, and an operator's key as"
        " metrics-key, which Prometheus sends; in the gateway's namespace, and in the engines' too where the recipe is"
        " aggregated or local",
    )
    tls_secret: Object | None = Field(
        None,
        description="Secret of type kubernetes.io/tls, with ca.crt, of the gateway's namespace (local: the engines'):"
        " gateways speak TLS. Its certificate is for gateway.<namespace>.svc.cluster.local, which Prometheus verifies,"
        " and all other names that clients use, localhost for a forwarded port",
    )
    workers_tls_secret: Object | None = Field(
        None,
        description="Secret of type kubernetes.io/tls of the engines' namespace: workers speak TLS; for"
        " prefill.<namespace>.svc.cluster.local, and the same with decode. With its authority as ca.crt, which a Secret"
        " of that name in the gateway's namespace has, too. What moves between workers stays as it is",
    )
    hf_token_secret: Object | None = Field(
        None, description="Secret of the engines' namespace with a Hugging Face token as token"
    )
    llm_d: bool = Field(
        False,
        description="Workers carry llm-d's labels and its routing sidecar from the start: llm-d may take over, and"
        " hand back, without a restart (target llm_d)",
    )
    llm_d_registry: str = Field("ghcr.io/llm-d", min_length=1, description="Where llm-d's images are pulled from")
    cache_folder: Folder | None = Field(
        None,
        description="Folder of the machines, of user 10001, that keeps downloads and compiled code when pods go;"
        " the lifecycle scripts make /opt/hyperpd/data/models. Default: the pod's own, on the root volume, which"
        " holds few models",
    )

    @field_validator("namespace")
    @classmethod
    def _of_ours_alone(cls, namespace: str) -> str:
        if namespace == "default" or namespace.startswith("kube-"):
            raise ValueError(f"{namespace} is not hyperpd's alone, and its policies would close what else is there")
        return namespace

    @model_validator(mode="after")
    def _together(self) -> Options:
        if self.priority_class and not self.queue:
            raise ValueError("priority_class goes with queue")
        if "llm_d_registry" in self.model_fields_set and not self.llm_d:
            raise ValueError("llm_d_registry goes with llm_d=true")
        return self
