"""TLS: a server's certificate, followed as its files change, and which authority workers are verified against."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import math
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hyperpd.errors import RecipeError

log = logging.getLogger("hyperpd.gateway")
_LOOK_EVERY_S = 2.0
_DAY_S = 86400
_SOON_S = 14 * _DAY_S  # before a certificate ends, this is said once a day
_VERSION, _UTC_TIME = 0xA0, 0x17  # tags of a certificate's DER, RFC 5280
_NO_PASSWORD = ""  # else OpenSSL would ask the terminal for that of an encrypted key


class Certificate:
    """What a port shows. Files that cannot be used leave the certificate as it was."""

    def __init__(self, cert: str, key: str, now_s: Callable[[], float] = time.time) -> None:
        """cert: PEM file, the certificate first, then its chain. Raises RecipeError where the two cannot be used."""
        self._files = Path(cert), Path(key)
        self._now_s = now_s
        self._said_s = -math.inf  # when it was last said that it ends
        self.problem = ""  # why the files, as they are now, are not used
        try:
            self._seen = self._read()
            self.context = _context(self._seen)
            self._ends_s = _ends_s(self._seen[0])
        except (OSError, ValueError) as error:
            raise RecipeError("settings", [f"tls-cert-file, tls-key-file: {_why(error)}"]) from None

    def _read(self) -> list[bytes]:
        return [file.read_bytes() for file in self._files]

    async def watch(self) -> None:
        """Look at the files again and again, for ever."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Take what the files hold, if it changed and can be used; connections that are open stay as they are.

        Read in a thread, and taken in the loop: a handshake that begins meanwhile would see half of a pair.
        """
        before = self.problem
        self._say_when_it_ends()
        try:
            found = await asyncio.to_thread(self._read)
            if found == self._seen and not self.problem:
                return
            _context(found)  # a pair that does not fit would leave half of it in the context that serves
            ends_s = _ends_s(found[0])
            _load(self.context, found)
        except (OSError, ValueError) as error:
            self.problem = _why(error)
            if self.problem != before:
                log.error("event=certificate_kept file=%s why=%r", self._files[0], self.problem)
        else:
            self._seen, self.problem, self._ends_s, self._said_s = found, "", ends_s, -math.inf
            log.info("event=certificate file=%s", self._files[0])

    @property
    def left_s(self) -> float:
        """Until the one that is shown expires; negative after that."""
        return self._ends_s - self._now_s()

    def _say_when_it_ends(self) -> None:
        now_s = self._now_s()
        if self.left_s < _SOON_S and now_s - self._said_s >= _DAY_S:
            self._said_s = now_s
            log.warning("event=certificate_expires file=%s days=%.1f", self._files[0], self.left_s / _DAY_S)

    def status(self) -> dict[str, Any]:
        """What is wrong with the files, as JSON."""
        return {"problem": self.problem or None}


def _context(pair: Sequence[bytes]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load(context, pair)
    return context


def _load(context: ssl.SSLContext, pair: Sequence[bytes]) -> None:
    """Exactly these bytes, whatever the files hold by now; OpenSSL takes no others than a file's."""
    with tempfile.TemporaryDirectory() as private:  # nobody else may enter
        cert, key = Path(private) / "cert", Path(private) / "key"
        for file, content in zip((cert, key), pair, strict=True):
            file.write_bytes(content)
        context.load_cert_chain(cert, key, password=_NO_PASSWORD)


def trusting(authority: str) -> ssl.SSLContext:
    """For clients of workers: only what `authority`, a PEM file, has signed. Raises RecipeError where it has none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificate and name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(authority)
    except (OSError, ssl.SSLError) as error:
        raise RecipeError("settings", [f"workers-ca-file: {authority}: {_why(error)}"]) from None
    return context


class Itself:
    """For who asks a server of its own: exactly the certificate of `cert`, under whatever address."""

    def __init__(self, cert: str) -> None:
        self._cert = cert
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        self._believe()

    def trusted(self) -> ssl.SSLContext:
        """What the file holds now, and held before: a server takes a replaced one when it comes to it."""
        with contextlib.suppress(OSError, ssl.SSLError):  # Certificate says what is wrong with the file
            self._believe()
        return self._context

    def _believe(self) -> None:
        """The first of the file alone: those that signed it sign others, too."""
        self._context.load_verify_locations(cadata=_first(Path(self._cert).read_bytes()))


def _first(pem: bytes) -> str:
    """The first certificate of several."""
    text = pem.decode("ascii", "ignore")  # comments may stand before it
    first, end, _ = text[max(0, text.find("-----BEGIN CERTIFICATE")) :].partition("-----END CERTIFICATE-----")
    return f"{first}{end}\n"


def _ends_s(pem: bytes) -> float:
    """When the first certificate expires, in seconds since 1970; Python's ssl does not say it of one's own."""
    (certificate,) = _values(ssl.PEM_cert_to_DER_cert(_first(pem)))
    signed = next(_values(certificate[1]))
    fields = [content for tag, content in _values(signed[1]) if tag != _VERSION]  # serial, algorithm, issuer, validity
    _, (tag, until) = _values(fields[3])
    form = "%y%m%d%H%M%SZ" if tag == _UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.datetime.strptime(until.decode(), form).replace(tzinfo=datetime.UTC).timestamp()


def _values(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Tags and contents of DER values, one after the other."""
    while der:
        tag, size, at = der[0], der[1], 2
        if size > 0x7F:  # of the size itself, then
            at += size & 0x7F
            size = int.from_bytes(der[2:at])
        yield tag, der[at : at + size]
        der = der[at + size :]


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"no PEM certificate and unencrypted key that belong together ({error.reason})"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)
