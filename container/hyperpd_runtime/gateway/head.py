"""What the head of a request may say, beyond what llhttp holds it to: its first line, and each of its headers. Pure."""

from __future__ import annotations

import re

from hyperpd.errors import Rejected

_LINE_BYTES = 8 << 10
_METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS")
_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/(\d)\.(\d)\r?")
_OLDEST_LINE = re.compile(rb"[A-Z]+ /[!-~]*\r?")  # HTTP/0.9
_HOST = re.compile(rb"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]*")


def first_line(begun: bytes) -> bytes | None:
    """The request line that `begun` begins with, without its line feed; None while it is not whole. Raises Rejected."""
    line, ended, _ = begun.partition(b"\n")
    if len(line) > _LINE_BYTES + 1:
        raise Rejected(
            f"the request line is longer than {_LINE_BYTES} bytes; send a shorter one", status=414, code="uri_too_long"
        )
    if not ended:
        return None
    _check_line(line)
    return line


def _check_line(line: bytes) -> None:
    """Raises Rejected where a request line, without its line feed, is not of HTTP/1.1 or 1.0, or not for us."""
    found = _LINE.fullmatch(line)
    if not found:
        if _OLDEST_LINE.fullmatch(line):
            raise _unspoken()
        raise Rejected("not a request line of HTTP/1.1", code="bad_http")
    method, target, major, minor = found.groups()
    if (major, minor) not in ((b"1", b"1"), (b"1", b"0")):
        raise _unspoken()
    if method not in _METHODS:
        raise Rejected(
            f"there is no method {method[:20].decode()} here; send GET or POST", status=405, code="unknown_method"
        )
    if not target.startswith(b"/") or b"#" in target:
        raise Rejected("this is no proxy: send a path that begins with /", code="bad_target")


def check_header(name: bytes, value: bytes) -> None:
    """Raises Rejected where a header asks for what is not done here. name: in small letters."""
    match name:
        case b"host" if not _HOST.fullmatch(value):
            raise Rejected("host: not a name; send the gateway's, with its port", code="bad_host")
        case b"transfer-encoding" if value.lower() != b"chunked":
            what = "transfer-encoding: only chunked is known; send Content-Length"
            raise Rejected(what, status=501, code="unknown_coding")
        case b"expect" if value.lower() != b"100-continue":
            what = "expect: only 100-continue is known; leave it out"
            raise Rejected(what, status=417, code="unknown_expectation")
        case b"upgrade" if b"websocket" in value.lower():
            raise Rejected("no WebSockets here; use stream: true", status=501, code="no_websockets")


def check_together(version: str, hosts: int, *, coded: bool) -> None:
    """Raises Rejected where headers do not go together. coded: whether one of them is a transfer-encoding."""
    oldish = version == "1.0"
    if hosts > 1 or (hosts == 0 and not oldish):
        raise Rejected(f"host: exactly one is needed, found {hosts}", code="bad_host")
    if oldish and coded:
        raise Rejected("transfer-encoding: unknown to HTTP/1.0; send HTTP/1.1", code="bad_http")


def _unspoken() -> Rejected:
    return Rejected("only HTTP/1.1 and 1.0 are spoken here; send HTTP/1.1", status=505, code="unknown_version")
