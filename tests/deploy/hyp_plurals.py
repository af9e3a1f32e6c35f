"""What stock hyp 3.12.0 takes for the plural of a kind; tests/hyp holds it to hyp itself."""

from __future__ import annotations

_PLURALS = {
    "Ingress": "ingresses",
    "NetworkPolicy": "networkpolicies",
    "StorageClass": "storageclasses",
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
}


def plural(kind: str) -> str:
    """What hyp takes for the plural of a kind."""
    return _PLURALS.get(kind, f"{kind.lower()}s")
