"""A HyperPod cluster's API server: found by AWS' stand-ins, logged in to as EKS wants it, by no binary."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hyperpd.cluster import Cluster
from hyperpd.deploy import connect
from hyperpd.errors import CloudError, NotReady
from tests.cluster.conftest import Account
from tests.cluster.files import written
from tests.fakes import kubernetes
from tests.fakes.aws import Aws
from tests.fakes.aws.servers import SECRET_KEY


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    folder = tmp_path_factory.mktemp("clusters")
    with Aws() as aws, pytest.MonkeyPatch.context() as patched:
        for name, value in aws.environment.items():
            patched.setenv(name, value)
        found = Account(aws)
        Cluster.create(written(folder, found.eks()), check=False)
        Cluster.create(written(folder, found.slurm(name="slurm")), check=False)
        yield found


class Tokens(dict[str, str]):
    """What EKS' authenticator takes: a request of STS, signed with the cluster's name in a header."""

    seen: list[str]

    def __init__(self, cluster: str) -> None:
        self.cluster, self.seen = cluster, []

    def __contains__(self, token: object) -> bool:
        head, _, text = str(token).partition("k8s-aws-v1.")
        url = urlsplit(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode())
        asked = dict(parse_qsl(url.query))
        self.seen.append(str(token))
        return (
            (head, asked["Action"], asked["X-Amz-SignedHeaders"]) == ("", "GetCallerIdentity", "host;x-k8s-aws-id")
            and int(asked["X-Amz-Expires"]) <= 900
            and asked.pop("X-Amz-Signature") == self._signature(url.netloc, asked)
        )

    def _signature(self, host: str, asked: dict[str, str]) -> str:
        """Signature version 4, as AWS's guide writes it down."""
        scope = asked["X-Amz-Credential"].partition("/")[2]
        query = "&".join(f"{quote(key, '')}={quote(value, '')}" for key, value in sorted(asked.items()))
        headers = f"host:{host}\nx-k8s-aws-id:{self.cluster}\n"
        request = f"GET\n/\n{query}\n{headers}\nhost;x-k8s-aws-id\n{hashlib.sha256(b'').hexdigest()}"
        digest = hashlib.sha256(request.encode()).hexdigest()
        key = f"AWS4{SECRET_KEY}".encode()
        for part in (*scope.split("/"), f"AWS4-HMAC-SHA256\n{asked['X-Amz-Date']}\n{scope}\n{digest}"):
            key = hmac.digest(key, part.encode(), "sha256")
        return key.hex()

    def __getitem__(self, token: str) -> str:
        return "arn:aws:iam::111122223333:user/ana"


@pytest.fixture
def server(account: Account, tmp_path: Path) -> Iterator[tuple[kubernetes.Store, Tokens]]:
    """An API server as EKS has it: behind TLS, by an authority of its own."""
    store = kubernetes.Store(schemas=False)
    store.access.tokens = tokens = Tokens("prod")
    pem = tmp_path / "server.pem"
    authority = _authority(pem)
    with kubernetes.serve(store) as url, _behind_tls(url, pem) as endpoint:
        trusted = {"data": base64.b64encode(authority).decode()}
        account.aws.eks.clusters["prod"] |= {
            "endpoint": endpoint,
            "status": "ACTIVE",
            "certificateAuthority": trusted,
        }
        yield store, tokens


def test_a_cluster_by_its_name(server: tuple[kubernetes.Store, Tokens]) -> None:
    with connect.hyperpod("pd") as api:
        assert [one["metadata"]["name"] for one in api.list("Namespace")] == ["default"]
        assert api.caller() == "arn:aws:iam::111122223333:user/ana"
    assert len(set(server[1].seen)) == 1  # one login serves many requests


def test_another_authority_is_not_trusted(
    server: tuple[kubernetes.Store, Tokens], account: Account, tmp_path: Path
) -> None:
    other = base64.b64encode(_authority(tmp_path / "other.pem")).decode()
    account.aws.eks.clusters["prod"] |= {"certificateAuthority": {"data": other}}
    with connect.hyperpod("pd") as api, pytest.raises(CloudError, match="CERTIFICATE_VERIFY_FAILED"):
        api.list("Namespace")
    assert server[0].requests == []


def test_a_login_is_renewed_before_it_ends() -> None:
    now, made = [0.0], iter(["a", "b", "c"])
    login = connect._login(httpx.Auth, lambda: next(made), clock=lambda: now[0])

    def sent() -> str:
        flow = login.auth_flow(httpx.Request("GET", "http://cluster"))
        return str(next(flow).headers["Authorization"])

    first = [sent(), sent()]
    now[0] = 14 * 60
    assert [*first, sent()] == ["Bearer a", "Bearer a", "Bearer b"]
    flow = login.auth_flow(httpx.Request("GET", "http://cluster"))
    next(flow)
    assert flow.send(httpx.Response(401)).headers["Authorization"] == "Bearer c"


def test_clusters_that_have_no_api_server(account: Account) -> None:
    with pytest.raises(CloudError, match="there is no HyperPod cluster nobody"):
        connect.hyperpod("nobody")
    with pytest.raises(CloudError, match=r"slurm runs Slurm.*--target slurm"):
        connect.hyperpod("slurm")
    account.aws.eks.clusters["prod"] |= {"status": "CREATING"}
    with pytest.raises(NotReady, match="EKS cluster prod is CREATING"):
        connect.hyperpod("pd")


def _authority(path: Path) -> bytes:
    """A certificate for this machine that vouches for itself, with its key in `path`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubernetes")])
    now = datetime.now(UTC)
    here = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(here, critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(made + key.private_bytes(serialization.Encoding.PEM, *plain))
    return made


@contextmanager
def _behind_tls(url: str, pem: Path) -> Iterator[str]:
    """The same server behind TLS."""

    class Handler(BaseHTTPRequestHandler):
        def _pass(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = httpx.request(self.command, url + self.path, headers=dict(self.headers), content=content)
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers["Content-Type"])
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = _pass

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

        def handle(self) -> None:
            with contextlib.suppress(ssl.SSLError):  # a client that does not trust it hangs up
                self.request.do_handshake()
                super().handle()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
