"""Two Lambda functions, in a stack by their source: `changed` applies objects to an EKS cluster, `asked` sends the
gateway a request.

For who has no terminal. The source stands alone in the stack, so it imports nothing of hyperpd; OBJECTS follow below
it where it is `changed`, and boto3 is Lambda's. What each may do its role and access entry say, not this.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

# Kinds that only feed a Prometheus Operator: without one they are left out, and the answer says so.
OPTIONAL = ("monitoring.coreos.com",)
OWNER = "hyperpd.io/stack"  # annotation of what a stack made in no namespace: the ID of the stack
NOT_APPLIED = "not-applied"  # physical ID of what a failed create leaves: nothing
CLOUDFORMATION = (".amazonaws.com", ".amazonaws.com.cn")
ACCESS_TRIES, ACCESS_PAUSE_S = 24, 5  # of a connection in all: a new access entry takes a while to hold


class Refused(Exception):
    """The API server's answer, where it is not a good one."""


class Kubernetes:
    """An API server, and who we are to it."""

    def __init__(self, url: str, token: str, context: ssl.SSLContext | None, pause: Callable[[float], None]) -> None:
        self.url, self.token, self.context, self.pause = url, token, context, pause
        self.known: dict[str, dict[str, Any]] = {}
        self.tries = ACCESS_TRIES  # left, until an answer shows that our entry holds: a later 403 is the answer

    def call(
        self, method: str, path: str, body: Any = None, kind: str = "application/json", *, shows: bool = True
    ) -> tuple[int, Any]:
        """Status and answer. An entry that does not hold yet is waited for.

        shows: whether a good answer shows that it holds; not where the cluster answers everybody whom it knows.
        """
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": kind, "Accept": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        while True:
            request = urllib.request.Request(self.url + path, data, headers, method=method)
            try:
                with urllib.request.urlopen(request, timeout=60, context=self.context) as answer:
                    found = answer.status, _read(answer.read())
            except urllib.error.HTTPError as error:
                found = error.code, _read(error.read())
            if found[0] not in (401, 403):
                self.tries = 0 if shows else self.tries
                return found
            self.tries -= 1
            if self.tries <= 0:
                return found
            self.pause(ACCESS_PAUSE_S)

    def path(self, body: Mapping[str, Any]) -> tuple[str, bool] | None:
        """Where an object is, and whether it is in a namespace; None: the cluster does not know its kind."""
        version = body["apiVersion"]
        if version not in self.known:
            status, answer = self.call("GET", ("/apis/" if "/" in version else "/api/") + version, shows=False)
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


def apply(cluster: Kubernetes, objects: list[dict[str, Any]], stack: str, former: list[str], *, first: bool) -> str:
    """Server-side apply, in order. Before the first object goes, every kind has to be known, and every namespace has
    to be this stack's or not there. What the stack applied before (`former`, names) and no longer does goes last."""
    paths = [cluster.path(one) for one in objects]
    unknown = {f"{one['kind']} of {one['apiVersion']}" for one, path in zip(objects, paths, strict=True) if not path}
    needed = {one for one in unknown if not any(f"of {group}/" in one for group in OPTIONAL)}
    if needed:
        raise Refused(f"the cluster does not know {', '.join(sorted(needed))}: install its controller first")
    for room in sorted(_rooms(objects)):
        status, there = cluster.call("GET", f"/api/v1/namespaces/{room}")
        if status not in (200, 404):
            raise Refused(f"Namespace {room}: {status} {_message(there)}")
        if status == 200 and _owner(there) != stack:
            raise Refused(f"Namespace {room} is there, and not made by this stack: delete it or choose another")
    try:
        for one, path in zip(objects, paths, strict=True):
            if path:
                _send(cluster, one if path[1] else _owned(one, stack), path[0])
    except Exception as error:
        if not first:
            raise
        # CloudFormation does not come back for what a failed create made.
        try:
            print(delete(cluster, objects, stack))
        except Exception as kept:
            raise Refused(f"{error}; what was made is left: {kept}") from error
        raise
    said = f"applied {len([path for path in paths if path])} objects"
    said += f"; left out, nothing here knows them: {', '.join(sorted(unknown))}" if unknown else ""
    return said + prune(cluster, [one for one in former if one not in map(name, objects)], stack)


def _send(cluster: Kubernetes, one: dict[str, Any], path: str) -> None:
    query = "?fieldManager=hyperpd&force=true"
    status, answer = cluster.call("PATCH", path + query, one, "application/apply-patch+yaml")
    if status not in (200, 201):
        raise Refused(f"{one['kind']} {one['metadata']['name']}: {status} {_message(answer)}")


def name(one: Mapping[str, Any]) -> str:
    """What an object is called, in one line; "-": in no namespace."""
    metadata = one["metadata"]
    return f"{one['apiVersion']} {one['kind']} {metadata.get('namespace', '-')} {metadata['name']}"


def prune(cluster: Kubernetes, gone: list[str], stack: str) -> str:
    """Deletes what is named, last first, where it or the namespace it is in is this stack's."""
    done: list[str] = []
    left: list[str] = []
    for one in reversed(gone):
        version, kind, room, called = one.split(" ")
        metadata = {"name": called} if room == "-" else {"name": called, "namespace": room}
        path = cluster.path({"apiVersion": version, "kind": kind, "metadata": metadata})
        owned_by = f"/api/v1/namespaces/{room}" if room != "-" else path and path[0]
        if path and owned_by:
            (done if _remove(cluster, path[0], owned_by, f"{kind} {called}", stack) else left).append(
                f"{kind} {called}"
            )
    said = f"; deleted, no longer part of it: {', '.join(done)}" if done else ""
    return said + (f"; left, this stack did not make: {', '.join(left)}" if left else "")


def delete(cluster: Kubernetes, objects: list[dict[str, Any]], stack: str) -> str:
    """Deletes what this stack made in no namespace, last first: a namespace takes what is in it along."""
    left = []
    for one in reversed(objects):
        path, named = cluster.path(one), f"{one['kind']} {one['metadata']['name']}"
        if path and not path[1] and not _remove(cluster, path[0], path[0], named, stack):
            left.append(named)
    return "deleted" + (f"; left, this stack did not make: {', '.join(left)}" if left else "")


def _remove(cluster: Kubernetes, path: str, owned_by: str, named: str, stack: str) -> bool:
    """Whether the object at `path` is gone: not where what says whose it is, the one at `owned_by`, is another's."""
    status, there = cluster.call("GET", owned_by)
    if status == 200 and _owner(there) != stack:
        return False
    if status == 200 and path != owned_by:
        status, there = cluster.call("GET", path)
    if status == 200:
        same = {"preconditions": {"uid": there["metadata"]["uid"]}}  # not one made in the meantime
        status, there = cluster.call("DELETE", path, same)
    if status not in (200, 202, 404):
        raise Refused(f"{named}: {status} {_message(there)}")
    return True


def ask(cluster: Kubernetes, namespace: str, body: Mapping[str, Any]) -> Any:
    """One request to the gateway, by way of the API server."""
    path = f"/api/v1/namespaces/{namespace}/services/http:gateway:8080/proxy/v1/chat/completions"
    status, answer = cluster.call("POST", path, body)
    return {"status": status, "answer": answer}


def connect() -> Kubernetes:
    """The cluster of the environment, with a token of this function's role."""
    import boto3
    from botocore.signers import RequestSigner

    cluster, region = os.environ["CLUSTER"], os.environ["AWS_REGION"]
    session = boto3.session.Session()
    found = session.client("eks").describe_cluster(name=cluster)["cluster"]
    sts = session.client("sts")
    signer = RequestSigner(
        sts.meta.service_model.service_id, region, "sts", "v4", session.get_credentials(), session.events
    )
    call = {
        "method": "GET",
        "url": f"{sts.meta.endpoint_url}/?Action=GetCallerIdentity&Version=2011-06-15",
        "body": {},
        "headers": {"x-k8s-aws-id": cluster},
        "context": {},
    }
    url = signer.generate_presigned_url(call, region_name=region, expires_in=60, operation_name="")
    token = "k8s-aws-v1." + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")
    authority = base64.b64decode(found["certificateAuthority"]["data"]).decode()
    return Kubernetes(found["endpoint"], token, ssl.create_default_context(cadata=authority), time.sleep)


def asked(event: dict[str, Any], context: Any) -> Any:
    """Any event is the body of a request to the gateway."""
    return ask(connect(), os.environ["NAMESPACE"], event)


def changed(event: dict[str, Any], context: Any) -> None:
    """Events of CloudFormation for this stack apply and delete; others are refused."""
    if why := distrusted(event, os.environ.get("STACK")):
        raise Refused(why)
    kind, identity = event["RequestType"], event.get("PhysicalResourceId", "objects")
    try:
        reason, status = _changed(event, identity), "SUCCESS"
    except Exception as error:
        reason, status = f"{type(error).__name__}: {error}", "FAILED"  # the events of the stack show it
        identity = NOT_APPLIED if kind == "Create" else identity
    reason = reason[:1000]  # CloudFormation takes 4,096 bytes in all
    print(status, reason)
    answer = {
        **{key: event[key] for key in ("StackId", "RequestId", "LogicalResourceId")},
        "PhysicalResourceId": identity,
        "Status": status,
        "Reason": reason,
        "Data": {"Said": reason},
    }
    tell(event["ResponseURL"], answer)


def distrusted(event: Mapping[str, Any], stack: str | None) -> str:
    """Why an event is not CloudFormation's for this stack; empty: it is."""
    if not stack or event.get("StackId") != stack:
        return f"an event of another stack: {event.get('StackId')}"
    url = urllib.parse.urlsplit(str(event.get("ResponseURL")))
    if url.scheme != "https" or not (url.hostname or "").endswith(CLOUDFORMATION):
        return f"an answer would go to {url.scheme}://{url.hostname}, which is not CloudFormation's"
    return ""


def tell(url: str, answer: Mapping[str, Any]) -> None:
    """The answer goes where CloudFormation waits for it."""
    request = urllib.request.Request(url, json.dumps(answer).encode(), {"Content-Type": ""}, method="PUT")
    urllib.request.urlopen(request, timeout=60).close()


def _changed(event: Mapping[str, Any], identity: str) -> str:
    objects, stack = globals()["OBJECTS"], event["StackId"]
    if event["RequestType"] == "Delete":
        return "nothing was applied" if identity == NOT_APPLIED else delete(connect(), objects, stack)
    former = event.get("OldResourceProperties", {}).get("Objects", [])
    return apply(connect(), objects, stack, former, first=event["RequestType"] == "Create")


def _rooms(objects: list[dict[str, Any]]) -> set[str]:
    """Namespaces that objects are or are in."""
    rooms = {one["metadata"].get("namespace") for one in objects}
    rooms |= {one["metadata"]["name"] for one in objects if one["kind"] == "Namespace"}
    return {room for room in rooms if room}


def _owned(one: dict[str, Any], stack: str) -> dict[str, Any]:
    metadata = one["metadata"]
    return {**one, "metadata": {**metadata, "annotations": {**metadata.get("annotations", {}), OWNER: stack}}}


def _owner(one: Mapping[str, Any]) -> Any:
    return one["metadata"].get("annotations", {}).get(OWNER)


def _message(answer: Any) -> Any:
    return answer.get("message", answer) if isinstance(answer, dict) else answer


def _read(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode(errors="replace")
