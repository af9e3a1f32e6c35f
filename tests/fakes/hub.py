"""A stand-in for SageMaker's API: a private hub's ImportHubContent and DescribeHubContent, and DescribeEndpoint.

Requests are held to botocore's shapes, patterns and enums included; what AWS says to a document's content nobody knows
here.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import botocore.session

ACCOUNT, REGION = "111122223333", "us-east-2"
_OPERATIONS = ("ImportHubContent", "DescribeHubContent", "DescribeEndpoint")
_KEY = ("HubName", "HubContentType", "HubContentName")


class Hub:
    """Contents by name and version; imports holds every accepted request. endpoints: names of those in service."""

    def __init__(self) -> None:
        self.imports: list[dict[str, Any]] = []
        self.endpoints: list[str] = []

    def answer(self, operation: str, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if operation not in _OPERATIONS:
            return 400, {"__type": "UnknownOperationException", "message": operation}
        if found := shape_problems(operation, asked):
            return 400, {"__type": "ValidationException", "message": "; ".join(found)}
        if operation == "DescribeEndpoint":
            return self._endpoint(asked["EndpointName"])
        same = [one for one in self.imports if all(one[key] == asked[key] for key in _KEY)]
        if version := asked.get("HubContentVersion"):
            same = [one for one in same if one["HubContentVersion"] == version]
        if operation == "ImportHubContent":
            if same:
                return 400, {"__type": "ResourceInUse", "message": f"version {version} exists"}
            self.imports.append(asked)
            return 200, {"HubArn": self._arn("hub", asked["HubName"]), "HubContentArn": self._content(asked)}
        if not same:
            return 400, {"__type": "ResourceNotFound", "message": f"no {asked['HubContentName']}"}
        last = same[-1]
        own = {"HubContentArn": self._content(last), "HubArn": self._arn("hub", last["HubName"])}
        return 200, {**last, **own, "HubContentStatus": "Available", "CreationTime": time.time()}

    def _endpoint(self, name: str) -> tuple[int, dict[str, Any]]:
        if name not in self.endpoints:
            return 400, {"__type": "ValidationException", "message": f'Could not find endpoint "{name}".'}
        times = {"CreationTime": time.time(), "LastModifiedTime": time.time()}
        own = {"EndpointArn": self._arn("endpoint", name), "EndpointConfigName": name}
        return 200, {"EndpointName": name, **own, "EndpointStatus": "InService", **times}

    def _content(self, asked: dict[str, Any]) -> str:
        return self._arn("hub-content", *(asked[key] for key in (*_KEY, "HubContentVersion")))

    def _arn(self, *parts: str) -> str:
        return f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{'/'.join(parts)}"


def shape_problems(operation: str, asked: dict[str, Any]) -> list[str]:
    """What a request has that its shape does not allow: members, required ones, lengths, patterns, enums."""
    shape = _model().operation_model(operation).input_shape
    found = [f"{name}: unknown" for name in asked if name not in shape.members]
    found += [f"{name}: missing" for name in shape.required_members if name not in asked]
    for name, value in asked.items():
        if (member := shape.members.get(name)) is None or member.type_name != "string":
            continue
        rules = member.metadata
        if not rules.get("min", 0) <= len(value) <= rules.get("max", len(value)):
            found.append(f"{name}: {len(value)} characters")
        if "pattern" in rules and not re.fullmatch(rules["pattern"], value):
            found.append(f"{name}: not {rules['pattern']}")
        if member.enum and value not in member.enum:
            found.append(f"{name}: not one of {member.enum}")
    return found


@cache
def _model() -> Any:
    return botocore.session.get_session().get_service_model("sagemaker")


@contextmanager
def serve(hub: Hub) -> Iterator[str]:
    """The URL of a server with this hub, while the context lasts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, body = hub.answer(self.headers["X-Amz-Target"].removeprefix("SageMaker."), asked)
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: tests read the hub."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
