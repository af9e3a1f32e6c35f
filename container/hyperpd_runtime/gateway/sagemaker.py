"""What SageMaker adds to HTTP: one path for all requests, and headers that say which API and adapter are meant."""

from __future__ import annotations

from collections.abc import Mapping

from hyperpd.errors import Rejected
from hyperpd_runtime.gateway import guard
from hyperpd_runtime.gateway.apis import BY_PATH, Api

PATH = "/invocations"
_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
_ADAPTER = "x-amzn-sagemaker-adapter-identifier"
_SESSION = "x-amzn-sagemaker-session-id"


def route(headers: Mapping[str, str]) -> Api | None:
    """The API an invocation is meant for: `route=/v1/…` in CustomAttributes. None: the body's shape decides.

    Raises Rejected for a route that is not served.
    """
    for attribute in headers.get(_ATTRIBUTES, "").split(","):
        key, _, value = attribute.strip().partition("=")
        if key == "route":
            if value not in BY_PATH:
                raise Rejected(
                    f"CustomAttributes: route {guard.short(value)!r} is not served; try {' or '.join(BY_PATH)}"
                )
            return BY_PATH[value]
    return None


def adapter(headers: Mapping[str, str]) -> str:
    """The adapter an inference component stands for; it overrules the body's model."""
    return headers.get(_ADAPTER, "")


def check(headers: Mapping[str, str]) -> None:
    """Raises Rejected for a session."""
    if headers.get(_SESSION):
        raise Rejected(f"{_SESSION}: sessions are not kept; send every request whole", code="no_sessions")
