"""serve(store) → the URL of an API server: HTTP in, the store's answers out."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml

from tests.fakes.kubernetes import subresources
from tests.fakes.kubernetes.access import verb_of
from tests.fakes.kubernetes.faults import Effect, Fault
from tests.fakes.kubernetes.proxy import forward
from tests.fakes.kubernetes.refusal import Object, Refused, bad, invalid, missing, not_allowed
from tests.fakes.kubernetes.resources import Place, place
from tests.fakes.kubernetes.store import Store
from tests.fakes.kubernetes.watch import watch

_APPLY = ("application/apply-patch+yaml", "application/apply-patch+json")
_MERGE = "application/merge-patch+json"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes: the second would wait for an acknowledgement
    store: Store
    closing: threading.Event

    def do_GET(self) -> None:
        if self.path.partition("?")[0] == "/version":
            self._answer(HTTPStatus.OK, {"major": "1", "minor": "34", "gitVersion": "v1.34.0"})
            return
        self._respond(self._read)

    def do_POST(self) -> None:
        self._respond(self._create, HTTPStatus.CREATED)

    def do_PUT(self) -> None:
        self._respond(self._replace)

    def do_PATCH(self) -> None:
        self._respond(self._patch)

    def do_DELETE(self) -> None:
        self._respond(self._delete)

    def _read(self, at: Place) -> Object | None:
        if self.query.get("watch") in ("1", "true"):
            at, query = (at, self.query) if not at.name else _by_name(at, self.query)
            self._stream(
                (json.dumps(one) + "\n" for one in watch(self.store, at, query, self.closing.is_set)),
                "application/json",
            )
            return None
        if not at.name:
            listed = self.store.list(at, self.query)
            if "." not in at.resource.group:  # of Kubernetes' own kinds, a list's items do not say what they are
                listed["items"] = [_bare(each) for each in listed["items"]]
            return listed
        if at.subresource == "scale":
            return subresources.scale(self.store, at)
        if at.subresource == "log":
            lines = subresources.log(self.store, at, self.query, self.closing.is_set)
            self._stream((f"{line}\n" for line in lines), "text/plain")
            return None
        if at.subresource == "eviction":
            raise not_allowed("the server does not allow this method on the requested resource")
        return self.store.get(at)

    def _create(self, at: Place) -> Object:
        if at.subresource == "eviction":
            return subresources.evict(self.store, at, self._body(), self._dry_run())
        if at.name or bool(at.namespace) != at.resource.namespaced:
            raise not_allowed("objects are not made at this path")
        body = self._body()
        made = self.store.create(at, body, self._manager(), self._dry_run())
        if not self._dry_run():
            self.store.posted.append(body)
        return made

    def _replace(self, at: Place) -> Object:
        if at.subresource == "scale":
            return subresources.rescale(self.store, at, self._body(), self._manager(), self._dry_run())
        return self.store.replace(_one(at), self._body(), self._manager(), self._dry_run())

    def _patch(self, at: Place) -> Object:
        kind = self.headers.get_content_type()
        if kind == _MERGE:
            if at.subresource == "scale":
                return subresources.rescale(self.store, at, self._body(), self._manager(), self._dry_run())
            return self.store.merge(_one(at), self._body(), self._manager(), self._dry_run())
        if kind not in _APPLY or at.subresource == "scale":
            accepted = ", ".join((_MERGE, *_APPLY))
            message = f"the body of the request was in an unknown format - accepted media types include: {accepted}"
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
        if not self.query.get("fieldManager"):
            raise invalid("PatchOptions", ["fieldManager: Required value: is required for apply patch"])
        with self.store.changed:
            if not self.store.has(_one(at)):
                self.store.access.check(self.user, "create", at)
                self.made = True
            force = self.query.get("force") == "true"
            return self.store.apply(at, self._body(), self.query["fieldManager"], force, self._dry_run())

    def _delete(self, at: Place) -> Object:
        options = self._body() if self.content else {}
        if "propagationPolicy" in self.query:
            options["propagationPolicy"] = self.query["propagationPolicy"]
        if "gracePeriodSeconds" in self.query:
            options["gracePeriodSeconds"] = int(self.query["gracePeriodSeconds"])
        return self.store.delete(_one(at), options, self._dry_run())

    def _respond(self, act: Callable[[Place], Object | None], status: int = HTTPStatus.OK) -> None:
        self.query = dict(parse_qsl(urlsplit(self.path).query))
        self.content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.made = False
        request = f"{self.command} {self.path}"
        self.store.requests.append(request)
        fault = self.store.faults.next(request)
        if fault and fault.effect is Effect.CUT_BEFORE:
            self._cut()
            return
        if fault and fault.effect is Effect.HOLD:
            fault.held.set()
            fault.released.wait()
        try:
            if fault and fault.effect in (Effect.ERROR, Effect.THROTTLE):
                raise _refusal(fault)
            answer = self._act(act)
        except Refused as refused:
            self.store.refused.append(f"{request}: {refused}")
            self._answer(refused.status, refused.body(), refused.headers())
            return
        if fault and fault.effect is Effect.CUT_AFTER:
            self._cut()
        elif answer is not None:
            self._answer(HTTPStatus.CREATED if self.made else status, answer)

    def _act(self, act: Callable[[Place], Object | None]) -> Object | None:
        access, path = self.store.access, urlsplit(self.path).path
        self.user = access.user(self.headers.get("Authorization"))
        if self.command == "POST" and (review := access.review(path, self.user, self._body)):
            return review
        at = place(self.path)
        if at.namespace and not at.resource.namespaced:
            raise missing()
        if at.resource.kind in self.store.absent:
            self._send(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"404 page not found\n")
            self.store.refused.append(f"{self.command} {self.path}: {at.resource.kind} is not installed")
            return None
        access.check(self.user, verb_of(self.command, at, self.query), at)
        if at.subresource == "proxy":
            query = urlsplit(self.path).query
            status, kind, content = forward(self.store, at, self.command, query, self.headers, self.content)
            self._send(status, kind, content)
            return None
        return act(at)

    def _body(self) -> Object:
        try:
            yaml_ = "yaml" in self.headers.get("Content-Type", "")
            body = yaml.safe_load(self.content) if yaml_ else json.loads(self.content)
        except (ValueError, yaml.YAMLError) as error:
            raise bad(f"the body cannot be read: {error}") from error
        if not isinstance(body, dict):
            raise bad("the body is not an object")
        return body

    def _manager(self) -> str:
        return self.query.get("fieldManager") or (self.headers.get("User-Agent") or "unknown").partition("/")[0]

    def _dry_run(self) -> bool:
        given = self.query.get("dryRun")
        if given not in (None, "All"):
            raise invalid("Options", [f'dryRun: Unsupported value: "{given}": supported values: "All"'])
        return given == "All"

    def _answer(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        self._send(status, "application/json", json.dumps(body).encode(), headers)

    def _send(self, status: int, kind: str, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, parts: Iterator[str], kind: str) -> None:
        """Parts as they come, the head at once."""
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for part in parts:
                content = part.encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
            self.wfile.write(b"0\r\n\r\n")
        except ConnectionError:  # who watched has left
            self.close_connection = True

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: tests read the store."""


def _refusal(fault: Fault) -> Refused:
    if fault.effect is Effect.ERROR:
        return Refused(
            HTTPStatus.INTERNAL_SERVER_ERROR, "InternalError", "Internal error occurred: etcdserver: timeout"
        )
    said = "The server has received too many requests and has asked us to try again later"
    return Refused(HTTPStatus.TOO_MANY_REQUESTS, "TooManyRequests", said, retry_after_s=fault.retry_after_s)


def _bare(body: Object) -> Object:
    return {key: value for key, value in body.items() if key not in ("apiVersion", "kind")}


def _by_name(at: Place, query: Mapping[str, str]) -> tuple[Place, Mapping[str, str]]:
    """A watch on one object as a watch on its kind."""
    fields = ",".join(filter(None, (query.get("fieldSelector"), f"metadata.name={at.name}")))
    return replace(at, name=""), {**query, "fieldSelector": fields}


def _one(at: Place) -> Place:
    if not at.name or bool(at.namespace) != at.resource.namespaced:
        raise not_allowed("the path names no object")
    return at


@contextmanager
def serve(store: Store) -> Iterator[str]:
    """The URL of a server with this store, while the context lasts."""
    closing = threading.Event()
    handler = type("Handler", (_Handler,), {"store": store, "closing": closing})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            closing.set()
            with store.changed:
                store.changed.notify_all()
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
