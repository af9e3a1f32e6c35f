"""DaemonSets of the EKS cluster, asked of the Kubernetes API itself: what Helm installed, EKS does not list.

As kubectl does with `aws eks get-token`: the token is a signed call of STS that names the cluster. Unverified on a
live account.
"""

from __future__ import annotations

import base64
import ssl
from dataclasses import dataclass
from typing import Any

from hyperpd.cluster.preflight.reading import Object

_PATH = "/apis/apps/v1/daemonsets"
_TIMEOUT_S = 10.0  # a private endpoint does not answer from outside at all
_TOKEN_S = 60


@dataclass(frozen=True, slots=True)
class DaemonSets:
    """Their names; or, where the API could not be asked, why."""

    names: tuple[str, ...]
    unread: str = ""


def read(cluster: Object, region: str) -> DaemonSets:
    """cluster: EKS's DescribeCluster. Nothing is raised."""
    import httpx

    endpoint, name = str(cluster.get("endpoint", "")), str(cluster["name"])
    if not endpoint:
        return DaemonSets((), "EKS names no endpoint of it")
    headers = {"Authorization": f"Bearer {_token(name, region)}"}
    try:
        with httpx.Client(base_url=endpoint, headers=headers, verify=_trusted(cluster), timeout=_TIMEOUT_S) as client:
            names: list[str] = []
            more: dict[str, str] = {}
            while True:
                answer = client.get(_PATH, params={"limit": "500", **more})
                if answer.status_code in (401, 403):
                    return DaemonSets((), f"{answer.status_code}: you have no access entry that lets you list them")
                answer.raise_for_status()
                found = answer.json()
                names += [str(one["metadata"]["name"]) for one in found["items"]]
                token = found.get("metadata", {}).get("continue")
                if not token:
                    return DaemonSets(tuple(names))
                more = {"continue": token}
    except (httpx.HTTPError, ssl.SSLError, ValueError, KeyError) as error:
        return DaemonSets((), f"its API does not answer from here: {type(error).__name__}")


def _trusted(cluster: Object) -> ssl.SSLContext:
    """The cluster's own certificate authority, and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if data := cluster.get("certificateAuthority", {}).get("data"):
        text = base64.b64decode(data).decode(errors="replace")
        if "BEGIN CERTIFICATE" in text:
            context.load_verify_locations(cadata=text)
    return context


def _token(cluster: str, region: str) -> str:
    import boto3

    client = boto3.client("sts", region_name=region)

    def name(request: Any, **_: Any) -> None:
        request.headers["x-k8s-aws-id"] = cluster  # signed, so that no other cluster takes the token

    client.meta.events.register("before-sign.sts.GetCallerIdentity", name)
    url = client.generate_presigned_url("get_caller_identity", ExpiresIn=_TOKEN_S, HttpMethod="GET")
    return "k8s-aws-v1." + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")
