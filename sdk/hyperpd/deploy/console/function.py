"""A Lambda function, in a stack by its source: applies objects to an EKS cluster, and sends the gateway a request.

For who has no terminal. It stands alone in the stack, so it imports nothing of hyperpd; OBJECTS follow below it
there, and boto3 is Lambda's.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

# Kinds that only feed a Prometheus Operator: without one they are left out, and the answer says so.
OPTIONAL = ("monitoring.coreos.com",)
ACCESS_TRIES, ACCESS_PAUSE_S = 24, 5  # a new access entry takes a while to hold


class Refused(Exception):
    """The API server's answer, where it is not a good one."""


class Kubernetes:
    """An API server, and who we are to it."""

    def __init__(self, url: str, token: str, context: ssl.SSLContext | None, pause: Callable[[float], None]) -> None:
        self.url, self.token, self.context, self.pause = url, token, context, pause
        self.known: dict[str, dict[str, Any]] = {}

    def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> tuple[int, Any]:
        """Status and answer. An entry that does not hold yet is waited for."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": kind, "Accept": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        for left in reversed(range(ACCESS_TRIES)):
            request = urllib.request.Request(self.url + path, data, headers, method=method)
            try:
                with urllib.request.urlopen(request, timeout=60, context=self.context) as answer:
                    return answer.status, _read(answer.read())
            except urllib.error.HTTPError as error:
                if error.code not in (401, 403) or not left:
                    return error.code, _read(error.read())
            self.pause(ACCESS_PAUSE_S)
        raise AssertionError("the last try returns")

    def path(self, body: Mapping[str, Any]) -> tuple[str, bool] | None:
        """Where an object is, and whether it is in a namespace; None: the cluster does not know its kind."""
        version = body["apiVersion"]
        if version not in self.known:
            status, answer = self.call("GET", ("/apis/" if "/" in version else "/api/") + version)
            if status not in (200, 404):
                raise Refused(f"{version}: {status} {answer}")
            found = answer.get("resources", []) if status == 200 else []
            self.known[version] = {one["kind"]: one for one in found if "/" not in one["name"]}
        kind = self.known[version].get(body["kind"])
        if kind is None:
            return None
        room = f"/namespaces/{body['metadata']['namespace']}" if kind["namespaced"] else ""
        prefix = "/apis/" if "/" in version else "/api/"
        return f"{prefix}{version}{room}/{kind['name']}/{body['metadata']['name']}", kind["namespaced"]


def apply(cluster: Kubernetes, objects: list[dict[str, Any]]) -> str:
    """Server-side apply, in order. Every kind has to be known before the first object goes."""
    paths = [cluster.path(one) for one in objects]
    unknown = {f"{one['kind']} of {one['apiVersion']}" for one, path in zip(objects, paths, strict=True) if not path}
    needed = {one for one in unknown if not any(f"of {group}/" in one for group in OPTIONAL)}
    if needed:
        raise Refused(f"the cluster does not know {', '.join(sorted(needed))}: install its controller first")
    for one, path in zip(objects, paths, strict=True):
        if path:
            query = "?fieldManager=hyperpd&force=true"
            status, answer = cluster.call("PATCH", path[0] + query, one, "application/apply-patch+yaml")
            if status not in (200, 201):
                raise Refused(f"{one['kind']} {one['metadata']['name']}: {status} {_message(answer)}")
    left = f"; left out, nothing here knows them: {', '.join(sorted(unknown))}" if unknown else ""
    return f"applied {len([path for path in paths if path])} objects{left}"


def delete(cluster: Kubernetes, objects: list[dict[str, Any]]) -> str:
    """Deletes what is in no namespace, last first: a namespace takes what is in it along."""
    for one in reversed(objects):
        path = cluster.path(one)
        if path and not path[1]:
            status, answer = cluster.call("DELETE", path[0])
            if status not in (200, 202, 404):
                raise Refused(f"{one['kind']} {one['metadata']['name']}: {status} {_message(answer)}")
    return "deleted"


def ask(cluster: Kubernetes, namespace: str, body: Mapping[str, Any]) -> Any:
    """One request to the gateway, by way of the API server."""
    path = f"/api/v1/namespaces/{namespace}/services/http:gateway:8080/proxy/v1/chat/completions"
    status, answer = cluster.call("POST", path, body)
    return {"status": status, "answer": answer}


def connect() -> Kubernetes:
    """The cluster of the environment, with a token of this function's role."""
    import boto3
    from botocore.signers import RequestSigner

    name, region = os.environ["CLUSTER"], os.environ["AWS_REGION"]
    session = boto3.session.Session()
    found = session.client("eks").describe_cluster(name=name)["cluster"]
    sts = session.client("sts")
    signer = RequestSigner(
        sts.meta.service_model.service_id, region, "sts", "v4", session.get_credentials(), session.events
    )
    call = {
        "method": "GET",
        "url": f"{sts.meta.endpoint_url}/?Action=GetCallerIdentity&Version=2011-06-15",
        "body": {},
        "headers": {"x-k8s-aws-id": name},
        "context": {},
    }
    url = signer.generate_presigned_url(call, region_name=region, expires_in=60, operation_name="")
    token = "k8s-aws-v1." + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")
    authority = base64.b64decode(found["certificateAuthority"]["data"]).decode()
    return Kubernetes(found["endpoint"], token, ssl.create_default_context(cadata=authority), time.sleep)


def handler(event: dict[str, Any], context: Any) -> Any:
    """CloudFormation's events apply and delete; any other event is the body of a request."""
    if "RequestType" not in event:
        return ask(connect(), os.environ["NAMESPACE"], event)
    objects = globals().get("OBJECTS", [])
    try:
        reason, status = (delete if event["RequestType"] == "Delete" else apply)(connect(), objects), "SUCCESS"
    except Exception as error:
        reason, status = f"{type(error).__name__}: {error}"[:1000], "FAILED"  # the events of the stack show it
    print(status, reason)
    answer = {
        **{key: event[key] for key in ("StackId", "RequestId", "LogicalResourceId")},
        "PhysicalResourceId": event.get("PhysicalResourceId", "objects"),
        "Status": status,
        "Reason": reason,
        "Data": {"Said": reason},
    }
    data = json.dumps(answer).encode()
    request = urllib.request.Request(event["ResponseURL"], data, {"Content-Type": ""}, method="PUT")
    urllib.request.urlopen(request, timeout=60).close()
    return None


def _message(answer: Any) -> Any:
    return answer.get("message", answer) if isinstance(answer, dict) else answer


def _read(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode(errors="replace")
