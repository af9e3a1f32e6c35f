"""An authority and what it signs, as PEM files."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = datetime.timedelta(days=1)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


class Authority:
    """Signs certificates. `file` is its own, which others are verified against."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        folder.mkdir(exist_ok=True)
        self._folder, self._name = folder, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = folder / f"{name}.pem"
        signed = self._sign(_named(name), self._key.public_key(), [x509.BasicConstraints(ca=True, path_length=0)])
        self.file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, name: str, cert: Path | None = None, password: bytes | None = None, until: datetime.datetime | None = None
    ) -> tuple[str, str]:
        """Certificate and key for `name`, a DNS name or an address; where they are. until: when it expires."""
        cert = cert or self._folder / f"{name}.cert.pem"
        key_file = cert.with_suffix(".key")
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            said: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            said = x509.DNSName(name)
        names = x509.SubjectAlternativeName([said])
        signed = self._sign(_named("server"), key.public_key(), [names], until)
        cert.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        kept = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        pem = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, kept)
        key_file.write_bytes(key.private_bytes(*pem))
        return str(cert), str(key_file)

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        extensions: list[x509.ExtensionType],
        until: datetime.datetime | None = None,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(_named(self._name), subject, key, x509.random_serial_number())
        builder = builder.not_valid_before(now - _DAY).not_valid_after(until or now + _DAY)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(self._key, hashes.SHA256())
