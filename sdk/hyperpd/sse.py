"""Bytes → server-sent events, and back. Shared by the client and the gateway."""

from __future__ import annotations


class Decoder:
    """Incremental: feed it bytes cut anywhere, get the data of every event that is complete."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """Data payloads of the events that ended within `data`. What is no UTF-8, as where a stream was cut inside a
        character, becomes U+FFFD: the event is broken, not the reading of those after it."""
        text = self._rest + data
        # A trailing CR may be half of CRLF: keep it for the next bytes.
        held = text[-1:] if text.endswith(b"\r") else b""
        text = text[: len(text) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *events, rest = text.split(b"\n\n")
        self._rest = rest + held
        payloads = []
        for event in events:
            lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
            if lines:
                payloads.append(b"\n".join(lines).decode(errors="replace"))
        return payloads


def encode(data: str) -> bytes:
    """One event."""
    return b"".join(b"data: " + line.encode() + b"\n" for line in data.split("\n")) + b"\n"
