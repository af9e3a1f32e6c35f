"""A stand-in for a Kubernetes API server, over HTTP: real paths only, objects kept as they came.

It answers as a server does where a client can tell: 404 for paths no server has (a malformed group, a kind under
the wrong version, a namespaced kind without its namespace) and for namespaces that are not there, 400 for a body
that is not what its path says, 409 for a second object of one name. It is not a server: it schedules nothing, checks
no schema and asks for no token.
"""

from __future__ import annotations

import copy
import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as a server serves it."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True


# Written out: plurals do not follow from kinds.
RESOURCES = (
    Resource("v1", "Namespace", "namespaces", namespaced=False),
    Resource("v1", "Node", "nodes", namespaced=False),
    Resource("v1", "ConfigMap", "configmaps"),
    Resource("v1", "Pod", "pods"),
    Resource("v1", "Secret", "secrets"),
    Resource("v1", "Service", "services"),
    Resource("v1", "ServiceAccount", "serviceaccounts"),
    Resource("apps/v1", "Deployment", "deployments"),
    Resource("batch/v1", "Job", "jobs"),
    Resource("inference.sagemaker.aws.amazon.com/v1", "InferenceEndpointConfig", "inferenceendpointconfigs"),
    Resource("keda.sh/v1alpha1", "ScaledObject", "scaledobjects"),
    Resource("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", "leaderworkersets"),
    Resource("monitoring.coreos.com/v1", "PodMonitor", "podmonitors"),
    Resource("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    Resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
)
_CORE = r"/api/(?P<core>v1)"
_GROUP = r"/apis/(?P<group>[a-z0-9-]+(?:\.[a-z0-9-]+)*/v[a-z0-9]+)"
_PATH = re.compile(
    rf"(?:{_CORE}|{_GROUP})(?:/namespaces/(?P<namespace>[a-z0-9-]+)(?=/))?/(?P<plural>[a-z]+)(?:/(?P<name>[a-z0-9.-]+))?"
)


class Refused(Exception):
    """What the server answers instead of an object."""

    def __init__(self, status: HTTPStatus, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason

    def body(self) -> Object:
        said = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
        return {**said, "message": str(self), "reason": self.reason, "code": int(self.status)}


@dataclass(frozen=True, slots=True)
class Place:
    """What a path names."""

    resource: Resource
    namespace: str
    name: str


class Store:
    """Objects by what names them; every change has a number."""

    def __init__(self, namespaces: Sequence[str] = ("default",)) -> None:
        self._lock = threading.Lock()
        self._objects: dict[Place, Object] = {}
        self._version = 0
        self.posted: list[Object] = []  # bodies as they came, in the order in which they were taken
        self.refused: list[str] = []  # "POST PATH: why"
        for name in namespaces:
            self.create(
                place("/api/v1/namespaces"), {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            )
        self.posted.clear()

    def create(self, at: Place, body: Object) -> Object:
        """Keep a new object. Raises Refused as a server would."""
        said, named = (body.get("apiVersion"), body.get("kind")), (at.resource.api_version, at.resource.kind)
        if said != named:
            raise _bad(f"the object is {said[1]} in {said[0]}, the path is of {named[1]} in {named[0]}")
        meta = body.get("metadata") or {}
        if not meta.get("name"):
            raise _bad("metadata.name: Required value")
        if meta.get("namespace", at.namespace) != at.namespace:
            raise _bad(f"the namespace of the object ({meta['namespace']}) is not the request's ({at.namespace})")
        with self._lock:
            if at.namespace and Place(_NAMESPACE, "", at.namespace) not in self._objects:
                raise _missing(f'namespaces "{at.namespace}" not found')
            key = Place(at.resource, at.namespace, meta["name"])
            if key in self._objects:
                message = f'{at.resource.plural} "{meta["name"]}" already exists'
                raise Refused(HTTPStatus.CONFLICT, "AlreadyExists", message)
            self.posted.append(copy.deepcopy(body))
            self._version += 1
            own = {"uid": f"00000000-0000-4000-8000-{self._version:012}", "resourceVersion": str(self._version)}
            if at.namespace:
                own["namespace"] = at.namespace
            self._objects[key] = {**body, "metadata": {**meta, **own}}
            return copy.deepcopy(self._objects[key])

    def get(self, at: Place) -> Object:
        with self._lock:
            if found := self._objects.get(at):
                return copy.deepcopy(found)
        raise _missing(f'{at.resource.plural} "{at.name}" not found')

    def list(self, at: Place) -> Object:
        """All of a kind; of one namespace where the path names one."""
        with self._lock:
            items = [
                copy.deepcopy(body)
                for key, body in self._objects.items()
                if key.resource == at.resource and at.namespace in ("", key.namespace)
            ]
            said = {"apiVersion": at.resource.api_version, "kind": f"{at.resource.kind}List"}
            return {**said, "metadata": {"resourceVersion": str(self._version)}, "items": items}


def place(path: str) -> Place:
    """What a path names. Raises Refused for one that no server has."""
    found = _PATH.fullmatch(urlsplit(path).path)
    if found:
        api_version = found["core"] or found["group"]
        for resource in RESOURCES:
            if (resource.api_version, resource.plural) == (api_version, found["plural"]):
                return Place(resource, found["namespace"] or "", found["name"] or "")
    raise _missing("the server could not find the requested resource")


_NAMESPACE = RESOURCES[0]


def _missing(message: str) -> Refused:
    return Refused(HTTPStatus.NOT_FOUND, "NotFound", message)


def _bad(message: str) -> Refused:
    return Refused(HTTPStatus.BAD_REQUEST, "BadRequest", message)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: Store

    def do_GET(self) -> None:
        if self.path.partition("?")[0] == "/version":
            self._answer(HTTPStatus.OK, {"major": "1", "minor": "34", "gitVersion": "v1.34.0"})
            return
        self._respond(HTTPStatus.OK, lambda at: self.store.get(at) if at.name else self.store.list(at))

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def create(at: Place) -> Object:
            if at.name or bool(at.namespace) != at.resource.namespaced:
                raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "MethodNotAllowed", "objects are not made at this path")
            return self.store.create(at, json.loads(content))

        self._respond(HTTPStatus.CREATED, create)

    def _respond(self, status: HTTPStatus, act: Any) -> None:
        try:
            at = place(self.path)
            if at.namespace and not at.resource.namespaced:
                raise _missing("the server could not find the requested resource")
            self._answer(status, act(at))
        except Refused as refused:
            self.store.refused.append(f"{self.command} {self.path}: {refused}")
            self._answer(refused.status, refused.body())

    def _answer(self, status: HTTPStatus, body: Mapping[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: tests read the store."""


@contextmanager
def serve(store: Store) -> Iterator[str]:
    """The URL of a server with this store, while the context lasts."""
    handler = type("Handler", (_Handler,), {"store": store})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def kubeconfig(path: Path, url: str, context: str = "stand-in") -> Path:
    """Write a kubeconfig that leads to `url`. The context's name has no account and no Region in it."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "clusters": [{"name": context, "cluster": {"server": url}}],
        "users": [{"name": context, "user": {"token": "none"}}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": context, "namespace": "default"}}],
    }
    path.write_text(yaml.safe_dump(document))
    return path
