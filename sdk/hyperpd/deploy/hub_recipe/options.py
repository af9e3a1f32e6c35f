"""What the recipe does not say: whose objects, the cluster as for these, and where a hub finds the files."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from hyperpd.deploy import inference_operator, kubernetes
from hyperpd.deploy.inference_operator.options import ENDPOINT_SUFFIX
from hyperpd.deploy.kubernetes.options import ENGINES_SUFFIX, Label
from hyperpd.recipe import Block

_TARGETS: dict[str, type[Block]] = {
    "kubernetes": kubernetes.Options,
    "inference_operator": inference_operator.Options,
}


class Options(kubernetes.Options, inference_operator.Options):
    """Options of the target hub_recipe: those of the target whose objects hyp posts, and what hyp asks a hub."""

    objects: Literal["kubernetes", "inference_operator"] = Field(
        "kubernetes",
        description="Target whose objects hyp posts: kubernetes or inference_operator (pdSpec and all). Options of the"
        " other are refused",
    )
    namespace: Label = Field(
        "hyperpd",
        max_length=63 - len(ENGINES_SUFFIX),
        description=f"Namespace of the gateway; the engines' is <namespace>{ENGINES_SUFFIX}, that of an"
        f" InferenceEndpointConfig <namespace>{ENDPOINT_SUFFIX}",
    )
    prometheus: str | None = Field(
        None,
        pattern=r"^https?://\S+$",
        description="URL of the Prometheus that is asked for autoscaling; of inference_operator an AMP"
        " workspace's, as in https://aps-workspaces.REGION.amazonaws.com/workspaces/ws-…",
    )
    bucket: str | None = Field(
        None,
        pattern=r"^s3://[a-z0-9][-a-z0-9.]{1,61}[a-z0-9](/[\w.-]+)*$",
        description="S3 prefix of the template and its parameters, as in s3://BUCKET/PREFIX; hyp init reads them there",
    )
    technique: str = Field(
        "hyperpd",
        pattern=r"^[A-Za-z][A-Za-z0-9]{0,62}$",
        description="What hyp init is given as --technique; a hub that takes no new ones may want SFT",
    )
    instance_type: str | None = Field(
        None,
        pattern=r"^ml\.\S+$",
        description="What hyp init is given as --instance-type, where the recipe names no machines",
    )

    def needless(self) -> list[str]:
        """Options that were given and do not go with these objects."""
        chosen = _TARGETS[self.objects].model_fields
        others = {name: key for key, kind in _TARGETS.items() for name in kind.model_fields if name not in chosen}
        return [
            f"{name}: goes with objects={key}; remove it"
            for name, key in others.items()
            if name in self.model_fields_set
        ]

    @model_validator(mode="after")
    def _as_that_target_takes_them(self) -> Options:
        """Both targets have options of one name, which one takes and the other may not."""
        chosen = _TARGETS[self.objects]
        chosen.model_validate({k: getattr(self, k) for k in chosen.model_fields if k in self.model_fields_set})
        return self
