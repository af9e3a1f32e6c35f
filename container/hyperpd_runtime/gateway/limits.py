"""The door: a request's key, how many requests run at once, and how long a body may be."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from fastapi import Request
from starlette.datastructures import Headers

from hyperpd.errors import Overloaded, Rejected
from hyperpd.recipe import Limits
from hyperpd_runtime.gateway.bodies import Bodies
from hyperpd_runtime.gateway.keys import Key, Keys
from hyperpd_runtime.gateway.pool import Pool
from hyperpd_runtime.gateway.telemetry import IN_FLIGHT, Record

_RETRY_AFTER_S = 1
_MIB = 1 << 20
# What says nothing of the body passes: nothing at all, and what boto3 sends where its caller names no type. What a web
# page can send to any address unasked (forms, plain text) does not, nor does what would be read as another format.
_TYPES = ("", "application/json", "application/octet-stream")
_CHARSET = re.compile(r"""charset\s*=\s*["']?([^"'\s;]*)""")
_UTF8 = ("utf-8", "utf8", "us-ascii")


class Door:
    """Every request passes it before its body is read, and takes its place once that is there.

    Limits count in this gateway, not over all replicas.
    """

    def __init__(self, limits: Limits, pool: Pool, keys: Keys | None) -> None:
        self._most = limits.concurrent_requests
        self._bodies = Bodies(int(limits.body_mib * _MIB), limits.body_s)
        self._pool = pool
        self._keys = keys
        self._running: Counter[str] = Counter()  # by key

    def check(self, headers: Headers) -> None:
        """Raises Rejected (401) where a key is needed and not given."""
        if self._keys:
            self._keys.find(headers)

    def look(self, headers: Headers, record: Record) -> Key | None:
        """The key of a request that would find a place now. Raises Rejected (401) or Overloaded (429)."""
        key = self._keys.find(headers) if self._keys else None
        record.key = key.name if key else "-"
        self._check_place(key)
        return key

    def enter(self, key: Key | None, record: Record) -> None:
        """Count a request that was looked at, until its record ends. Raises Overloaded (429)."""
        self._check_place(key)
        self._pool.in_flight += 1
        IN_FLIGHT.inc()
        self._running[record.key] += 1

        def leave() -> None:
            self._pool.in_flight -= 1
            IN_FLIGHT.dec()
            self._running[record.key] -= 1

        record.on_end.append(leave)

    def _check_place(self, key: Key | None) -> None:
        if self._most and self._pool.in_flight >= self._most:
            raise Overloaded(
                f"{self._most} requests run here, as many as the recipe allows"
                " (gateway.limits.concurrent_requests); try again in a moment",
                retry_after_s=_RETRY_AFTER_S,
            )
        if key and key.concurrent_requests and self._running[key.name] >= key.concurrent_requests:
            raise Overloaded(
                f"key {key.name}: {key.concurrent_requests} of its requests run here, as many as it may;"
                " wait for one to end",
                code="key_overloaded",
                retry_after_s=_RETRY_AFTER_S,
            )

    async def body(self, request: Request) -> bytes:
        """A request's body. Raises Rejected (415, 413, 408) or Overloaded (429)."""
        _check_form(request.headers)
        return await self._bodies.read(request)


def _check_form(headers: Mapping[str, str]) -> None:
    """Raises Rejected (415) where a body is said to be something else than JSON in UTF-8, as it is."""
    kind, _, parameters = headers.get("content-type", "").lower().partition(";")
    media, charset = kind.strip(), _CHARSET.search(parameters)
    encoding = headers.get("content-encoding", "").strip().lower()
    said = ""
    if not media and "origin" in headers:  # what a page's script can send unasked, with a body of any kind
        said = "Content-Type: missing; send Content-Type: application/json"
    elif encoding not in ("", "identity"):
        said = "Content-Encoding: compressed bodies are not taken; send it as it is"
    elif media not in _TYPES and not media.endswith("+json"):
        said = "Content-Type: only JSON is taken; send Content-Type: application/json"
    elif charset and charset[1] not in _UTF8:
        said = "Content-Type: only UTF-8 is taken; send it without a charset"
    if said:
        raise Rejected(said, status=415, code="unsupported_media_type")
