"""The way to a cluster's API server: a HyperPod EKS cluster by its name, or a context of a kubeconfig."""

from __future__ import annotations

import base64
import contextlib
import ssl
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from hyperpd.cluster.aws import Aws
from hyperpd.cluster.reader import described
from hyperpd.deploy.apply import Api
from hyperpd.errors import CloudError, NotReady, RecipeError

_TOKEN_S = 14 * 60  # EKS takes a token for 15 minutes, whatever its URL says
_TIMEOUT_S = 30.0


def hyperpod(name: str, region: str | None = None, aws: Aws | None = None) -> Api:
    """The API server of a HyperPod cluster on EKS. aws, kubectl and a kubeconfig are not needed.

    Raises CloudError; NotReady where an extra is missing.
    """
    aws = aws or Aws(region)
    found = described(aws, name)
    if found is None:
        raise CloudError(f"there is no HyperPod cluster {name} in this account and Region; hyperpd cluster create")
    arn = ((found.get("Orchestrator") or {}).get("Eks") or {}).get("ClusterArn")
    if not arn:
        raise CloudError(
            f"{name} runs Slurm, which takes a job: hyperpd render RECIPE --target slurm -o FOLDER, then sbatch there"
        )
    return eks(aws, str(arn).rpartition("/")[2])


def eks(aws: Aws, name: str) -> Api:
    """The API server of an EKS cluster. Raises CloudError."""
    httpx2 = _httpx2()
    cluster = aws.call("eks", "describe_cluster", name=name)["cluster"]
    if cluster.get("status") not in ("ACTIVE", "UPDATING"):
        raise NotReady(f"EKS cluster {name} is {cluster.get('status')}: wait until it is ACTIVE")
    authority = base64.b64decode(cluster["certificateAuthority"]["data"]).decode("ascii")
    trust = ssl.create_default_context(cadata=authority)  # the cluster's own authority, and no other
    login = _login(httpx2.Auth, lambda: _token(aws, name))
    return Api(httpx2.Client(base_url=cluster["endpoint"], verify=trust, auth=login, timeout=_TIMEOUT_S))


def kubeconfig(context: str | None = None, path: Path | None = None) -> Api:
    """The API server of a kubeconfig's context; default: that of $KUBECONFIG, else ~/.kube/config, and its current
    context. Raises RecipeError where that cannot be read."""
    httpx2 = _httpx2()
    import yaml
    from lightkube.config.client_adapter import Client, ConnectionParams
    from lightkube.config.kubeconfig import KubeConfig
    from lightkube.core.exceptions import ConfigError

    try:
        config = (KubeConfig.from_file(path) if path else KubeConfig.from_env()).get(context)
        assert config  # get() raises where there is no context
        return Api(Client(config, ConnectionParams(timeout=httpx2.Timeout(_TIMEOUT_S))))
    # As lightkube has it: what is missing of a context's is an AssertionError, or a KeyError.
    except (
        ConfigError,
        AssertionError,
        AttributeError,
        KeyError,
        TypeError,
        OSError,
        ValueError,
        yaml.YAMLError,
    ) as error:
        said = str(error) if isinstance(error, ConfigError | OSError) else f"{type(error).__name__}: {error}"
        raise RecipeError(
            "kubeconfig", [f"{said}: give --kubeconfig and --context, or --cluster for HyperPod"]
        ) from None


def _token(aws: Aws, cluster: str) -> str:
    """What EKS takes for a login: a presigned URL of sts:GetCallerIdentity that names the cluster."""
    import boto3
    from botocore.signers import RequestSigner

    session = aws.session or boto3.Session()
    region = aws.place.region  # asks who calls: without credentials it says so
    client = session.client("sts", region_name=region)
    signer = RequestSigner(
        client.meta.service_model.service_id, region, "sts", "v4", session.get_credentials(), session.events
    )
    asked = {
        "method": "GET",
        "url": f"{client.meta.endpoint_url.rstrip('/')}/?Action=GetCallerIdentity&Version=2011-06-15",
        "body": {},
        "headers": {"x-k8s-aws-id": cluster},
        "context": {},
    }
    url = signer.generate_presigned_url(asked, region_name=region, expires_in=60, operation_name="")
    return "k8s-aws-v1." + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")


def _login(auth: type, token: Callable[[], str], clock: Callable[[], float] = time.monotonic) -> Any:
    """An Auth of the HTTP library that asks for another token before one ends, and once where one is refused."""

    class Login(auth):  # type: ignore[misc]
        def __init__(self) -> None:
            self._token, self._until_s = "", 0.0

        def auth_flow(self, request: Any) -> Generator[Any, Any, None]:
            answer = yield self._signed(request, new=clock() >= self._until_s)
            if answer.status_code == 401:
                yield self._signed(request, new=True)

        def _signed(self, request: Any, *, new: bool) -> Any:
            if new or not self._token:
                self._token, self._until_s = token(), clock() + _TOKEN_S
            request.headers["Authorization"] = f"Bearer {self._token}"
            return request

    return Login()


def _httpx2() -> Any:
    with contextlib.suppress(ImportError):
        import httpx2
        import lightkube  # noqa: F401

        return httpx2
    raise NotReady("deploying needs lightkube: pip install 'hyperpd[kubernetes]'")
