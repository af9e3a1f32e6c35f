"""A HyperPod cluster's API server: found by AWS' stand-ins, logged in to as EKS wants it, by no binary."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from hyperpd.cluster import Cluster
from hyperpd.deploy import connect
from hyperpd.errors import CloudError, NotReady
from tests.cluster.conftest import Account
from tests.cluster.files import written
from tests.fakes import kubernetes
from tests.fakes.aws import Aws


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
    """What EKS' authenticator takes: it sends the request that the token is, with the cluster's name."""

    seen: list[str]

    def __init__(self, cluster: str) -> None:
        self.cluster, self.seen = cluster, []

    def __contains__(self, token: object) -> bool:
        head, _, text = str(token).partition("k8s-aws-v1.")
        url = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
        asked = parse_qs(urlsplit(url).query)
        signed = asked["X-Amz-SignedHeaders"][0].split(";")
        if head or "x-k8s-aws-id" not in signed or int(asked["X-Amz-Expires"][0]) > 900:
            return False
        self.seen.append(str(token))
        answer = httpx.get(url, headers={"x-k8s-aws-id": self.cluster})
        return answer.status_code == 200 and "GetCallerIdentityResult" in answer.text

    def __getitem__(self, token: str) -> str:
        return "arn:aws:iam::111122223333:user/ana"


@pytest.fixture
def server(account: Account) -> Iterator[tuple[str, Tokens]]:
    store = kubernetes.Store(schemas=False)
    store.access.tokens = tokens = Tokens("prod")
    with kubernetes.serve(store) as url:
        account.aws.eks.clusters["prod"] |= {"endpoint": url, "status": "ACTIVE"}
        yield url, tokens


def test_a_cluster_by_its_name(server: tuple[str, Tokens]) -> None:
    with connect.hyperpod("pd") as api:
        assert api.server == server[0]
        assert [one["metadata"]["name"] for one in api.list("Namespace")] == ["default"]
        assert api.caller() == "arn:aws:iam::111122223333:user/ana"
    assert len(set(server[1].seen)) == 1  # one login serves many requests


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
