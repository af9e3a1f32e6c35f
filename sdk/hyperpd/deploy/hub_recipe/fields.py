"""What becomes of every field of a recipe: as for kubernetes, where hyp's way is not another.

With objects=inference_operator it is what that target says: said here where it loses what kubernetes does not.
"""

from __future__ import annotations

from hyperpd.deploy import inference_operator, kubernetes
from hyperpd.deploy.target import Field, fate

_GROUPS = "Groups of a LeaderWorkerSet, a parameter of hyp configure; local: all in one pod"
_KUBERNETES = {
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
_LOST = {path: field.how for path, field in inference_operator.FIELDS.items() if field.fate == "not expressed"}
FIELDS = _KUBERNETES | {
    path: Field("expressed", f"{field.how}. objects=inference_operator: not expressed. {how}")
    for path, how in _LOST.items()
    if (field := fate(_KUBERNETES, path))
}
