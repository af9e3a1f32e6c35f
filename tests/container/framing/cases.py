"""What a client may send as bytes, and what the gateway makes of it.

Each line: name, the bytes, the statuses of all answers, the code of the last one where it is an error, and why.
A connection that stays open is asked once more, so one that was left in the middle of something shows.
"""

from __future__ import annotations

from dataclasses import dataclass

BODY = b'{"prompt": "hello", "max_tokens": 4}'
SIZE = b"Content-Length: %d\r\n" % len(BODY)
LINE = b"POST /v1/completions HTTP/1.1\r\n"
HEAD = LINE + b"Host: gateway\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
GOOD = HEAD + SIZE + b"\r\n" + BODY
PING = b"GET /ping HTTP/1.1\r\nHost: gateway\r\n\r\n"
CHUNK = b"%x\r\n%s\r\n" % (len(BODY), BODY)
END = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    sent: bytes
    statuses: tuple[int, ...]
    code: str = ""
    stays: bool = False  # the connection, for a next request
    reaches: bool = False  # the engines
    halves: bool = False  # the client closes its half after this


def _wrong(name: str, sent: bytes, code: str = "bad_http", status: int = 400) -> Case:
    return Case(name, sent, (status,), code)


def _with(header: bytes, body: bytes = b"") -> bytes:
    return HEAD + header + b"\r\n\r\n" + body


def _right(name: str, sent: bytes, *, stays: bool = True) -> Case:
    return Case(name, sent, (200,), stays=stays, reaches=True)


LENGTHS = (
    _wrong("two lengths that differ", _with(SIZE + b"Content-Length: 3", BODY)),
    _wrong("two lengths that agree", _with(SIZE + SIZE.strip(), BODY)),
    _wrong("a list of lengths", _with(b"Content-Length: 36, 36", BODY)),
    _wrong("length with a sign", _with(b"Content-Length: +36", BODY)),
    _wrong("negative length", _with(b"Content-Length: -36", BODY)),
    _wrong("hexadecimal length", _with(b"Content-Length: 0x24", BODY)),
    _wrong("length with an underscore", _with(b"Content-Length: 3_6", BODY)),
    _wrong("length of nothing", _with(b"Content-Length: ", BODY)),
    _wrong("length beyond 64 bits", _with(b"Content-Length: 99999999999999999999999", BODY)),
    _wrong("length in other digits", _with("Content-Length: ３６".encode(), BODY)),
    _wrong("length beyond the limit", _with(b"Content-Length: 9000000000", BODY), "body_too_large", 413),
    _wrong("body longer than its length", HEAD + b"Content-Length: 0\r\n\r\n" + BODY, "empty_body"),
)
BOTH = (
    _wrong("length, then chunks", _with(SIZE + b"Transfer-Encoding: chunked", CHUNK + END)),
    _wrong("chunks, then length", _with(b"Transfer-Encoding: chunked\r\n" + SIZE.strip(), CHUNK + END)),
    _wrong("chunks twice", _with(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", CHUNK + END)),
    _wrong("chunked, then identity", _with(b"Transfer-Encoding: chunked, identity", CHUNK + END)),
    _wrong("a coding like chunked", _with(b"Transfer-Encoding: xchunked", CHUNK + END), "unknown_coding", 501),
    _wrong("chunked in quotes", _with(b'Transfer-Encoding: "chunked"', CHUNK + END), "unknown_coding", 501),
    _wrong("vertical tab before chunked", _with(b"Transfer-Encoding: \x0bchunked", CHUNK + END)),
    _wrong("gzip, then chunked", _with(b"Transfer-Encoding: gzip, chunked", CHUNK + END), "unknown_coding", 501),
    _wrong("identity", _with(b"Transfer-Encoding: identity", BODY), "unknown_coding", 501),
    _wrong("empty coding", _with(b"Transfer-Encoding: ", CHUNK + END)),
    _wrong("space before the colon of a coding", _with(b"Transfer-Encoding : chunked", CHUNK + END)),
    _wrong("chunks in HTTP/1.0", CHUNKED.replace(b"1.1", b"1.0") + CHUNK + END),
    _right("chunked in capitals", _with(b"Transfer-Encoding: CHUNKED", CHUNK + END)),
)
CHUNKS = (
    _right("chunks", CHUNKED + CHUNK + END),
    _right("size with zeros before it", CHUNKED + b"0000" + CHUNK + END),
    _right("extension", CHUNKED + CHUNK.replace(b"\r", b';a=b;c="d"\r', 1) + END),
    _wrong("extension with a line in quotes", CHUNKED + CHUNK.replace(b"\r", b';a="\r\n"\r', 1) + END),
    _wrong("extension ended by a line feed", CHUNKED + CHUNK.replace(b"\r\n", b";a\n", 1) + END),
    _wrong("extension without end", CHUNKED + b"24;" + b"a" * 90_000, "bad_chunks"),
    _wrong("no size", CHUNKED + b"\r\n" + BODY + b"\r\n" + END),
    _wrong("negative size", CHUNKED + b"-" + CHUNK + END),
    _wrong("size with a prefix", CHUNKED + b"0x" + CHUNK + END),
    _wrong("size with a sign", CHUNKED + b"+" + CHUNK + END),
    _wrong("size with a space", CHUNKED + CHUNK.replace(b"\r", b" \r", 1) + END),
    _wrong("size with a tab", CHUNKED + CHUNK.replace(b"\r", b"\t\r", 1) + END),
    _wrong("size beyond 64 bits", CHUNKED + b"fffffffffffffffff\r\n" + BODY + b"\r\n" + END),
    _wrong("size ended by a line feed", CHUNKED + CHUNK.replace(b"\r\n", b"\n", 1) + END),
    _wrong("chunk ended by a line feed", CHUNKED + CHUNK[:-2] + b"\n" + END),
    _wrong("chunk longer than its size", CHUNKED + CHUNK[:-2] + b"x\r\n" + END),
    _wrong("chunk shorter than its size", CHUNKED + b"30\r\n" + BODY + b"\r\n" + END + b"xxxxxxxxx"),
    _wrong("last chunk ended by line feeds", CHUNKED + CHUNK + b"0\n\n"),
    _wrong("trailer", CHUNKED + CHUNK + b"0\r\nX-Key: a\r\n\r\n", "trailers"),
    _wrong("trailer that frames", CHUNKED + CHUNK + b"0\r\nContent-Length: 5\r\n\r\n"),
)
HEADERS = (
    _wrong("folded header", _with(b"X-A: a\r\n b\r\n" + SIZE.strip(), BODY)),
    _wrong("folded by a tab", _with(b"X-A: a\r\n\tb\r\n" + SIZE.strip(), BODY)),
    _wrong("folded coding", _with(b"Transfer-Encoding:\r\n chunked", CHUNK + END)),
    _wrong("folded first header", LINE + b" Host: gateway\r\n\r\n"),
    _wrong("space before the colon", _with(b"X-A : a")),
    _wrong("no colon", _with(b"X-A")),
    _wrong("no name", _with(b": a")),
    _wrong("space in a name", _with(b"X A: a")),
    _wrong("line feeds alone", PING.replace(b"\r", b"")),
    _wrong("line feed within", _with(b"X-A: a\nX-B: b")),
    _wrong("line feed at the end", HEAD + b"\n"),
    _wrong("carriage return alone", _with(b"X-A: a\rX-B: b")),
    _wrong("null in a value", _with(b"X-A: a\0b")),
    _wrong("null in a name", _with(b"X-\0: a")),
    _wrong("control character", _with(b"X-A: a\x01b")),
    _wrong("no host", b"GET /ping HTTP/1.1\r\n\r\n", "bad_host"),
    _wrong("two hosts", PING[:-2] + b"Host: another\r\n\r\n", "bad_host"),
    _wrong("host with a path", b"GET /ping HTTP/1.1\r\nHost: a/b\r\n\r\n", "bad_host"),
    _wrong("host with a user", b"GET /ping HTTP/1.1\r\nHost: a@b\r\n\r\n", "bad_host"),
    _wrong("101 headers", PING[:-2] + b"A: b\r\n" * 100 + b"\r\n", "headers_too_large", 431),
    _wrong("long header", PING[:-2] + b"A: " + b"b" * (33 << 10) + b"\r\n\r\n", "headers_too_large", 431),
    _wrong("header without end", PING[:-2] + b"A: " + b"b" * (300 << 10), "headers_too_large", 431),
    _wrong("name without end", PING[:-2] + b"b" * (300 << 10), "headers_too_large", 431),
    _wrong("line breaks without end", b"\r\n" * (30 << 10), "headers_too_large", 431),
    _wrong("unknown expectation", _with(b"Expect: 200-ok\r\n" + SIZE.strip(), BODY), "unknown_expectation", 417),
    Case("100 headers", PING[:-2] + b"A: b\r\n" * 99 + b"\r\n", (200,), stays=True),
    Case("other alphabets", PING[:-2] + "A: å\r\n\r\n".encode(), (200,), stays=True),
    Case("host of nothing", b"GET /ping HTTP/1.1\r\nHost:\r\n\r\n", (200,), stays=True),
)
LINES = (
    _wrong("long path", b"GET /" + b"a" * (9 << 10) + PING[9:], "uri_too_long", 414),
    _wrong("path without end", b"GET /" + b"a" * (300 << 10), "uri_too_long", 414),
    _wrong("HTTP/0.9", b"GET /ping\r\n", "unknown_version", 505),
    _wrong("HTTP/1.2", PING.replace(b"1.1", b"1.2"), "unknown_version", 505),
    _wrong("HTTP/2.0", PING.replace(b"1.1", b"2.0"), "unknown_version", 505),
    _wrong("HTTP/2, known beforehand", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "unknown_version", 505),
    _wrong("version of two digits", PING.replace(b"1.1", b"1.11")),
    _wrong("version in small letters", PING.replace(b"HTTP", b"http")),
    _wrong("RTSP", b"DESCRIBE / RTSP/1.0\r\n\r\n"),
    _wrong("ICE", b"SOURCE / ICE/1.0\r\n\r\n"),
    _wrong("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n"),
    _wrong("SSH", b"SSH-2.0-OpenSSH_9.6\r\n"),
    _wrong("two spaces", PING.replace(b" ", b"  ", 1)),
    _wrong("tabs", PING.replace(b" ", b"\t", 2)),
    _wrong("space in the path", PING.replace(b"/ping", b"/pi ng")),
    _wrong("space at the end", PING.replace(b"1.1", b"1.1 ")),
    _wrong("no path", PING.replace(b"/ping ", b"")),
    _wrong("path of other bytes", PING.replace(b"/ping", b"/\xff")),
    _wrong("null in the path", PING.replace(b"/ping", b"/pi\0ng")),
    _wrong("fragment", PING.replace(b"/ping", b"/ping#a"), "bad_target"),
    _wrong("absolute form", PING.replace(b"/ping", b"http://elsewhere/ping"), "bad_target"),
    _wrong("path without a slash", PING.replace(b"/ping", b"ping"), "bad_target"),
    _wrong("asterisk", PING.replace(b"GET /ping", b"OPTIONS *"), "bad_target"),
    _wrong("CONNECT", b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: gateway\r\n\r\n", "unknown_method", 405),
    _wrong("TRACE", PING.replace(b"GET", b"TRACE"), "unknown_method", 405),
    _wrong("unknown method", PING.replace(b"GET", b"PROPFIND"), "unknown_method", 405),
    _wrong("invented method", PING.replace(b"GET", b"STEER"), "unknown_method", 405),
    _wrong("method in small letters", PING.replace(b"GET", b"get"), "unknown_method", 405),
    Case("empty lines before", b"\r\n\r\n" + PING, (200,), stays=True),
    Case("HTTP/1.0", b"GET /ping HTTP/1.0\r\n\r\n", (200,)),
    Case("HTTP/1.0 that would stay", b"GET /ping HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", (200,)),
    _right("HTTP/1.0 with a body", GOOD.replace(b"1.1", b"1.0"), stays=False),
    _wrong("HTTP/1.0 that expects", _with(b"Expect: x\r\n" + SIZE.strip(), BODY), "unknown_expectation", 417),
)
_H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
_WS = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
_WS += b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
UPGRADES = (
    _wrong("WebSocket", PING[:-2] + _WS + b"\r\n", "no_websockets", 501),
    _wrong("WebSocket with a body", _with(_WS + SIZE.strip(), BODY), "no_websockets", 501),
    Case("h2c", PING[:-2] + _H2C + b"\r\n", (200,)),
    _right("h2c with a body", _with(_H2C + SIZE.strip(), BODY), stays=False),
    _right("h2c with chunks", _with(_H2C + b"Transfer-Encoding: chunked", CHUNK + END), stays=False),
    _wrong("h2c with bad chunks", _with(_H2C + b"Transfer-Encoding: chunked", b"-" + CHUNK + END)),
    _right("h2c, then its frames", _with(_H2C + SIZE.strip(), BODY + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), stays=False),
    _right("h2c, then another", _with(_H2C + SIZE.strip(), BODY + GOOD), stays=False),
    Case("upgrade to TLS", PING[:-2] + b"Connection: upgrade\r\nUpgrade: TLS/1.2\r\n\r\n", (200,)),
)
SEVERAL = (
    _right("two at once", GOOD + GOOD, stays=False),
    _right("two at once, the second wrong", GOOD + b"GET / HTTP/9\r\n\r\n", stays=False),
    _right("a second behind one that closes", GOOD.replace(b"Host", b"Connection: close\r\nHost") + GOOD, stays=False),
    _right("line breaks after the body", GOOD + b"\r\n\r\n"),
    Case("a hundred pings at once", PING * 100, (200,)),
    _wrong("a body where none is read, and another", b"GET" + GOOD[4:] + GOOD, "method_not_allowed", 405),
    _right("expects to be told", _with(b"Expect: 100-continue\r\n" + SIZE.strip(), BODY)),
    Case("an unknown path, before its body", HEAD.replace(b"/v1/c", b"/v1/x") + SIZE + b"\r\n", (404,), "not_found"),
)
CUT = (
    Case("cut in the line", b"GET /pi", (400,), "request_cut", halves=True),
    Case("cut in the headers", HEAD[:-4], (400,), "request_cut", halves=True),
    Case("cut in the body", GOOD[:-3], (400,), "request_cut", halves=True),
    Case("cut before the body", GOOD[: -len(BODY)], (400,), "request_cut", halves=True),
    Case("cut in a chunk", CHUNKED + CHUNK[:-9], (400,), "request_cut", halves=True),
    Case("cut before the last chunk", CHUNKED + CHUNK, (400,), "request_cut", halves=True),
    Case("cut before anything", b"", (), halves=True),
)
CASES = (*LENGTHS, *BOTH, *CHUNKS, *HEADERS, *LINES, *UPGRADES, *SEVERAL, *CUT)
