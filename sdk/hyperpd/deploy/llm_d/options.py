"""What the recipe does not say: the cluster, as for kubernetes, and how requests reach llm-d."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from hyperpd.deploy import kubernetes

_NAME = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"


class Options(kubernetes.Options):
    """Options of the target llm_d: those of kubernetes, and its own."""

    llm_d: ClassVar[Literal[True]] = True  # type: ignore[misc]  # no choice here, so no option
    route: Literal["istio", "nginx"] = Field(
        "istio",
        description="Whose Gateway it is: Istio's asks the endpoint picker; NGINX's passes on to an Envoy that does",
    )
    gateway: str | None = Field(
        None,
        pattern=rf"^{_NAME}/{_NAME}$",
        description="NAMESPACE/NAME of the Gateway that the route joins, made by you (examples/llm-d)",
    )
    hostname: str | None = Field(
        None,
        pattern=r"^(\*\.)?[a-z0-9][-a-z0-9.]{0,251}$",
        description="Host that the route is for; default: every one",
    )
    front: Literal["llm_d", "both", "canary"] = Field(
        "llm_d",
        description="Who serves. both: hyperpd's gateway stays, beside; canary: it serves, and llm-d only requests with"
        " the header x-hyperpd-front: llm-d",
    )
    stream_timeout_s: int = Field(
        3600,
        ge=1,
        le=9999,
        description="Istio: longest request, stream and all; NGINX: longest pause between two tokens",
    )
    priorities: str | None = Field(
        None,
        pattern=rf"^{_NAME}=-?[0-9]{{1,6}}(,{_NAME}=-?[0-9]{{1,6}})*$",
        description="InferenceObjectives, as in interactive=10,batch=-10; clients name one in the header"
        " x-llm-d-inference-objective. They turn on flow control: requests wait in the endpoint picker",
    )
    prefill_tokens_s: int | None = Field(
        None,
        ge=1,
        description="Prompt tokens a prefill worker computes in a second; default: the endpoint picker's own, of"
        " another model (Qwen 32B on two H100)",
    )
    envoy_image: str | None = Field(
        None, min_length=1, description="NGINX: image of llm-d's Envoy, where machines do not reach the chart's own"
    )
    epp_cpus: int = Field(8, ge=1, description="CPUs of the endpoint picker, with 1 GiB each; the chart's default")

    @model_validator(mode="before")
    @classmethod
    def _with_it_always(cls, given: Any) -> Any:
        if isinstance(given, dict) and "llm_d" in given:
            raise ValueError("llm_d: an option of the target kubernetes, always so here; remove it")
        return given
