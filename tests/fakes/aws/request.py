"""Which operation of which service a request is, by the models that botocore sends with."""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import botocore.session

from tests.fakes.wire import Request

# Signed name → botocore's name, where they differ, of what the project's code and its neighbours call.
_MODELS = {
    "servicequotas": "service-quotas",
    "monitoring": "cloudwatch",
    "tagging": "resourcegroupstaggingapi",
    "elasticloadbalancing": "elbv2",
    "sagemaker": "sagemaker-runtime",  # the control plane is another server
}
_PREFIXES = {"monitoring": "cloudwatch", "tagging": "tag"}  # signed name → what IAM calls the service


@dataclass(frozen=True, slots=True)
class Identified:
    service: str  # as IAM names it
    model: str  # as botocore names it
    operation: str
    parameters: dict[str, Any]
    protocol: str  # json, rest-json, rest-xml, query, ec2


def identify(request: Request) -> Identified | None:
    """None for what is not signed, or for no operation of the service it was signed for."""
    signed = request.signed[2]
    if not signed:
        return None
    name = _MODELS.get(signed, signed)
    service = _PREFIXES.get(signed, signed)
    if target := request.headers.get("x-amz-target"):
        return Identified(service, name, target.rpartition(".")[2], json.loads(request.body or b"{}"), "json")
    model = _model(name)
    if model.protocol in ("query", "ec2"):
        form = dict(parse_qsl(request.body.decode(), keep_blank_values=True)) | request.query
        return Identified(service, name, form.pop("Action", ""), form, model.protocol)
    return _by_path(request, service, name)


def _by_path(request: Request, service: str, name: str) -> Identified | None:
    best: tuple[int, _Route, re.Match[str]] | None = None
    for route in _routes(name):
        found = route.path.fullmatch(urlsplit(request.target).path)
        if route.method != request.method or not found or not route.asks(request):
            continue
        weight = 2 * len(route.query) + len(found.groupdict()) + 10 * route.copies
        if best is None or weight > best[0]:
            best = (weight, route, found)
    if best is None:
        return None
    _, route, found = best
    parameters: dict[str, Any] = {route.members[key]: unquote(value) for key, value in found.groupdict().items()}
    if route.operation == "DeleteObjects":
        keys = re.findall(r"<Key>([^<]*)</Key>", request.body.decode())
        parameters["Delete"] = {"Objects": [{"Key": html.unescape(key)} for key in keys]}
    if _model(name).protocol == "rest-json" and request.body:
        parameters |= json.loads(request.body)
    query = request.query
    parameters |= {member: query[sent] for sent, member in route.members.items() if sent in query}
    return Identified(service, name, route.operation, parameters, _model(name).protocol)


@dataclass(frozen=True, slots=True)
class _Route:
    operation: str
    method: str
    path: re.Pattern[str]
    query: dict[str, str]  # what has to be there
    members: dict[str, str]  # name in path or query → member
    copies: bool  # from another object

    def asks(self, request: Request) -> bool:
        given = request.query
        if self.copies and "x-amz-copy-source" not in request.headers:
            return False
        if self.operation in ("UploadPart", "UploadPartCopy", "CompleteMultipartUpload") and "uploadId" not in given:
            return False
        return all(name in given and value in ("", given[name]) for name, value in self.query.items())


@cache
def _routes(name: str) -> list[_Route]:
    model = _model(name)
    found = []
    for operation in model.operation_names:
        described = model.operation_model(operation)
        path, _, query = described.http["requestUri"].partition("?")
        shape = described.input_shape
        members = shape.members.items() if shape else ()
        located = {
            member.serialization.get("name", key): key
            for key, member in members
            if member.serialization.get("location") in ("uri", "querystring")
        }
        # S3: a bucket, with or without the slash behind it.
        pattern = re.sub(r"\{(\w+)(\+?)\}", lambda one: f"(?P<{one[1]}>{'.+' if one[2] else '[^/]+'})", path)
        wanted = dict(parse_qsl(query, keep_blank_values=True))
        compiled = re.compile(f"{pattern}/?" if name == "s3" and "+" not in path else pattern)
        found.append(_Route(operation, described.http["method"], compiled, wanted, located, operation in _COPIES))
    return found


_COPIES = ("CopyObject", "UploadPartCopy")


@cache
def _model(name: str) -> Any:
    return botocore.session.get_session().get_service_model(name)
