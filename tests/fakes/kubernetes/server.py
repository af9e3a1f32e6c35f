"""serve(store) → the URL of an API server: HTTP in, the store's answers out."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml

from tests.fakes.kubernetes.refusal import Object, Refused, bad, invalid, missing, not_allowed
from tests.fakes.kubernetes.resources import Place, place
from tests.fakes.kubernetes.store import Store

_APPLY = ("application/apply-patch+yaml", "application/apply-patch+json")
_MERGE = "application/merge-patch+json"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes: the second would wait for an acknowledgement
    store: Store

    def do_GET(self) -> None:
        if self.path.partition("?")[0] == "/version":
            self._answer(HTTPStatus.OK, {"major": "1", "minor": "34", "gitVersion": "v1.34.0"})
            return
        self._respond(lambda at: self.store.get(at) if at.name else self.store.list(at, self.query))

    def do_POST(self) -> None:
        def create(at: Place) -> Object:
            if at.name or bool(at.namespace) != at.resource.namespaced:
                raise not_allowed("objects are not made at this path")
            return self.store.create(at, self._body(), self._manager(), self._dry_run())

        self._respond(create, HTTPStatus.CREATED)

    def do_PUT(self) -> None:
        self._respond(lambda at: self.store.replace(_one(at), self._body(), self._manager(), self._dry_run()))

    def do_PATCH(self) -> None:
        def patch(at: Place) -> Object:
            kind = self.headers.get_content_type()
            if kind == _MERGE:
                return self.store.merge(_one(at), self._body(), self._manager(), self._dry_run())
            if kind not in _APPLY:
                accepted = ", ".join((_MERGE, *_APPLY))
                message = f"the body of the request was in an unknown format - accepted media types include: {accepted}"
                raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
            if not self.query.get("fieldManager"):
                raise invalid("PatchOptions", ["fieldManager: Required value: is required for apply patch"])
            force = self.query.get("force") == "true"
            return self.store.apply(_one(at), self._body(), self.query["fieldManager"], force, self._dry_run())

        self._respond(patch)

    def do_DELETE(self) -> None:
        def delete(at: Place) -> Object:
            options = self._body() if self.content else {}
            if "propagationPolicy" in self.query:
                options["propagationPolicy"] = self.query["propagationPolicy"]
            return self.store.delete(_one(at), options, self._dry_run())

        self._respond(delete)

    def _respond(self, act: Any, status: int = HTTPStatus.OK) -> None:
        self.query = dict(parse_qsl(urlsplit(self.path).query))
        self.content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.store.requests.append(f"{self.command} {self.path}")
        try:
            at = place(self.path)
            if at.namespace and not at.resource.namespaced:
                raise missing()
            self._answer(status, act(at))
        except Refused as refused:
            self.store.refused.append(f"{self.command} {self.path}: {refused}")
            self._answer(refused.status, refused.body(), refused.headers())

    def _body(self) -> Object:
        try:
            body = (
                yaml.safe_load(self.content)
                if "yaml" in self.headers.get("Content-Type", "")
                else json.loads(self.content)
            )
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
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: tests read the store."""


def _one(at: Place) -> Place:
    if not at.name or bool(at.namespace) != at.resource.namespaced:
        raise not_allowed("the path names no object")
    return at


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
