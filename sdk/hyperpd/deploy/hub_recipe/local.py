"""A hub on this machine: DescribeHubContent and the files it names, so that hyp init works without an account.

A stand-in: one document for every hub and name, no signature is looked at, and it listens on 127.0.0.1 alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from hyperpd.deploy.hub_recipe.publish import Content

ACCOUNT, REGION = "000000000000", "us-east-2"
_DESCRIBE = "SageMaker.DescribeHubContent"


def server(document: str, objects: Mapping[str, str], content: Content, port: int = 0) -> ThreadingHTTPServer:
    """A server that has begun to listen; port 0 takes a free one.

    objects: what lies in S3, "BUCKET/KEY" → text.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
            target = self.headers.get("X-Amz-Target", "")
            if target != _DESCRIBE:
                said = f"this stand-in answers {_DESCRIBE} alone, not {target or 'this'}"
                self._json(HTTPStatus.BAD_REQUEST, {"__type": "UnknownOperationException", "message": said})
            elif found := self._mismatch(asked):
                self._json(HTTPStatus.BAD_REQUEST, {"__type": "ResourceNotFound", "Message": found})
            else:
                self._json(HTTPStatus.OK, _described(document, content))

        def do_GET(self) -> None:
            """An object of S3, with the bucket in the path."""
            key = unquote(urlsplit(self.path).path).removeprefix("/")
            if key in objects:
                self._answer(HTTPStatus.OK, "binary/octet-stream", objects[key].encode())
            else:
                error = f"<Error><Code>NoSuchKey</Code><Message>no {key} here</Message></Error>"
                self._answer(HTTPStatus.NOT_FOUND, "application/xml", error.encode())

        def _mismatch(self, asked: Mapping[str, Any]) -> str:
            wanted = {"HubName": content.hub, "HubContentType": content.kind, "HubContentName": content.name}
            wanted["HubContentVersion"] = content.version
            wrong = [f"{key} {value}" for key, value in asked.items() if wanted.get(key, value) != value]
            return f"no such content here: {', '.join(wrong)}; there is {_arn(content)}" if wrong else ""

        def _json(self, status: HTTPStatus, body: Mapping[str, Any]) -> None:
            self._answer(status, "application/x-amz-json-1.1", json.dumps(body).encode())

        def _answer(self, status: HTTPStatus, kind: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the command says what is served."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def _arn(content: Content) -> str:
    return content.arn(REGION, ACCOUNT)


def environment(url: str) -> dict[str, str]:
    """What leads hyp (and every other user of boto3) to the stand-in. The keys only have to be there."""
    return {
        "AWS_ENDPOINT_URL_SAGEMAKER": url,
        "AWS_ENDPOINT_URL_S3": url,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": REGION,
    }


def _described(document: str, content: Content) -> dict[str, Any]:
    arn = _arn(content)
    return {
        "HubContentName": content.name,
        "HubContentArn": arn,
        "HubContentVersion": content.version,
        "HubContentType": content.kind,
        "DocumentSchemaVersion": content.schema,
        "HubName": content.hub,
        "HubArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:hub/{content.hub}",
        "HubContentDocument": document,
        "HubContentStatus": "Available",
        "CreationTime": time.time(),
    }
