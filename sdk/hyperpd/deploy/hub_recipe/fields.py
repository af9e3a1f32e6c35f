"""What becomes of every field of a recipe: as for kubernetes, where hyp's way is not another."""

from __future__ import annotations

from hyperpd.deploy import kubernetes
from hyperpd.deploy.target import Field

_GROUPS = "Groups of a LeaderWorkerSet, a parameter of hyp configure; local: all in one pod"
FIELDS = {
    **kubernetes.FIELDS,
    "image": Field("expressed", "Every container's image, a parameter of hyp configure; option image wins"),
    "*.replicas": Field("expressed", _GROUPS),
    "*.instance_type": Field(
        "expressed", "nodeSelector, shares of the machine, and what hyp init takes as --instance-type"
    ),
    "*.parallel.nodes": Field("expressed", "Pods in a group of the LeaderWorkerSet; each takes a whole machine"),
    "gateway.replicas": Field("expressed", "As a role's replicas; refused with fabric: local, which has one gateway"),
    "start_timeout_s": Field("expressed", "Startup probe; a LeaderWorkerSet has no progress deadline"),
}
