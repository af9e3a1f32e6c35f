"""What the recipe does not say: the cluster, as for kubernetes, and where a hub finds the files."""

from __future__ import annotations

from pydantic import Field

from hyperpd.deploy import kubernetes


class Options(kubernetes.Options):
    """Options of the target hub_recipe: those of kubernetes, and what hyp asks a hub."""

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
