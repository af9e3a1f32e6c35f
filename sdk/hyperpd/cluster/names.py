"""Names that follow from cluster, account and Region alone, so that a run which was cut off finds what it made."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from hyperpd.cluster.spec import OWN_TAGS

OWNER_TAG = f"{OWN_TAGS}cluster"  # on all that hyperpd makes: the cluster it was made for
_ROLE_MAX = 64  # characters of a role's name


@dataclass(frozen=True, slots=True)
class Place:
    """An account and a Region."""

    account: str
    region: str

    @property
    def partition(self) -> str:
        """The first word of an ARN after `arn`."""
        for start, partition in (("cn-", "aws-cn"), ("us-gov-", "aws-us-gov")):
            if self.region.startswith(start):
                return partition
        return "aws"


@dataclass(frozen=True, slots=True)
class Names:
    """What belongs to one cluster."""

    cluster: str
    place: Place

    @property
    def role(self) -> str:
        """The role that is made where the file names none."""
        plain = f"hyperpd-{self.cluster}-{self.place.region}"
        return plain if len(plain) <= _ROLE_MAX else f"{plain[: _ROLE_MAX - 9]}-{self._digest}"

    @property
    def role_arn(self) -> str:
        return f"arn:{self.place.partition}:iam::{self.place.account}:role/{self.role}"

    @property
    def bucket(self) -> str:
        """The bucket that is made where the file names none: nobody else's, by account and digest."""
        return f"sagemaker-hyperpd-{self.place.account}-{self.place.region}-{self._digest}"

    @property
    def prefix(self) -> str:
        """Where in a bucket all lifecycle files of this cluster are, older ones too."""
        return f"hyperpd/{self.cluster}/lifecycle"

    @property
    def logs(self) -> str:
        """What the names of its log groups begin with."""
        return f"/aws/sagemaker/Clusters/{self.cluster}/"

    @property
    def _digest(self) -> str:
        return hashlib.sha256(f"{self.place.region}/{self.cluster}".encode()).hexdigest()[:8]
