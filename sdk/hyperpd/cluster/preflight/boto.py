"""The installed boto3: does it know every field that is sent? Offline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hyperpd.cluster import requests
from hyperpd.cluster.blueprint import Blueprint
from hyperpd.cluster.preflight.finding import Finding, refused, unknown, warning

_INSTALL = "pip install -U boto3"


def shape() -> Any | None:
    """botocore's input shape of CreateCluster; None where boto3 is not installed."""
    try:
        from botocore.session import get_session
    except ImportError:
        return None
    return get_session().get_service_model("sagemaker").operation_model("CreateCluster").input_shape


def instance_types(known: Any | None) -> frozenset[str] | None:
    """The types that a shape of CreateCluster lists."""
    if known is None:
        return None
    return frozenset(known.members["InstanceGroups"].member.members["InstanceType"].metadata.get("enum", ()))


def check(plan: Blueprint, known: Any | None) -> Iterator[Finding]:
    """known: what `shape` gives."""
    if known is None:
        what = "boto3 is not installed: whether it knows every field could not be checked, and nothing can be created"
        yield unknown("boto3", what, "this machine", "pip install 'hyperpd[aws]'")
        return
    for found in requests.unknown(known, requests.create(plan)):
        path, _, said = found.partition(": ")
        if path.endswith(("InstanceType", "InstanceTypes.0")) or ".InstanceTypes." in path:
            continue  # machines.py says it, with the cluster file's path
        where = f"CreateCluster, {path}"
        if "≥" in said and "does not know it" in said:
            yield refused("boto3", f"needs boto3 ≥ {requests.BOTOCORE}: {path}: {said}", where, _INSTALL)
        else:  # a word, which boto3 sends all the same
            yield warning("boto3", f"{path}: {said}", where, _INSTALL)
