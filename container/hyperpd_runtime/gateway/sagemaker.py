"""What SageMaker adds to HTTP: one path for all requests, and a header that says which API is meant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from hyperpd.errors import Rejected

_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
_ROUTES: Mapping[str, Literal["completions", "chat"]] = {
    "/v1/completions": "completions",
    "/v1/chat/completions": "chat",
}


def route(headers: Mapping[str, str]) -> Literal["completions", "chat", "any"]:
    """The API an invocation is meant for: `route=/v1/…` in CustomAttributes, else the body's shape decides.

    Raises Rejected for a route that is not served.
    """
    for attribute in headers.get(_ATTRIBUTES, "").split(","):
        key, _, value = attribute.strip().partition("=")
        if key == "route":
            if value not in _ROUTES:
                raise Rejected(f"CustomAttributes: route {value!r} is not served; try {' or '.join(_ROUTES)}")
            return _ROUTES[value]
    return "any"
