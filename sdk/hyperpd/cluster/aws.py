"""Calls of AWS as the cluster's commands make them: refusals become CloudError, lists are read to their end.

Credentials, Region and endpoints come from boto3's own chain. boto3 is imported when the first call is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hyperpd.cluster.names import Place
from hyperpd.errors import CloudError, NotReady

Object = dict[str, Any]
EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired")
THROTTLED = ("ThrottlingException", "Throttling", "RequestLimitExceeded", "TooManyRequestsException", "SlowDown")
MISSING = ("ResourceNotFound", "ResourceNotFoundException", "NoSuchEntity", "NoSuchBucket", "NoSuchTagSet", "404")
_NO_LOGIN = ("InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch")
_READS = re.compile(r"(describe|get|head|list|simulate)_")
_TIMEOUTS_S = {"connect_timeout": 10, "read_timeout": 60}


@dataclass(frozen=True, slots=True)
class Call:
    """One call of boto3, as it is sent."""

    service: str
    operation: str  # as boto3 names it: create_cluster
    parameters: Object


class Aws:
    """One account and Region. `dry`: what would change something is kept in `withheld`, and not sent. `session`:
    boto3's, with credentials of its own; default: boto3's default one."""

    def __init__(self, region: str | None = None, *, dry: bool = False, session: Any = None) -> None:
        self._region, self.session = region, session
        self._clients: dict[str, Any] = {}
        self.dry = dry
        self.withheld: list[Call] = []

    @cached_property
    def place(self) -> Place:
        """Account and Region. Raises CloudError."""
        region = self._client("sts").meta.region_name
        identity = self.call("sts", "get_caller_identity")
        return Place(str(identity["Account"]), str(region))

    def call(self, service: str, operation: str, **parameters: Any) -> Object:
        """The answer; {} for what is withheld. Raises CloudError with operation and code."""
        if self.dry and not _READS.match(operation):
            self.withheld.append(Call(service, operation, parameters))
            return {}
        from botocore.exceptions import BotoCoreError, ClientError

        named = f"{service} {_camel(operation)}"
        try:
            answer: Object = getattr(self._client(service), operation)(**parameters)
        except ClientError as error:
            said = error.response.get("Error", {})
            code, message = str(said.get("Code", "")), str(said.get("Message", ""))
            raise CloudError(
                f"{named}: {code}: {message}{_hint(code)}", operation=_camel(operation), code=code
            ) from None
        except BotoCoreError as error:
            code = type(error).__name__
            raise CloudError(f"{named}: {error}{_hint(code)}", operation=_camel(operation), code=code) from None
        return answer

    def pages(self, service: str, operation: str, key: str, **parameters: Any) -> Iterator[Any]:
        """What `key` lists, page by page to the last."""
        token: Object = {}
        while True:
            answer = self.call(service, operation, **parameters, **token)
            yield from answer.get(key, ())
            if not answer.get("NextToken"):
                return
            token = {"NextToken": answer["NextToken"]}

    def shape(self, operation: str) -> Any:
        """botocore's input shape of an operation of SageMaker ("CreateCluster"); None where it knows none."""
        model = self._client("sagemaker").meta.service_model
        return model.operation_model(operation).input_shape if operation in model.operation_names else None

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            try:
                import boto3
            except ImportError:
                raise NotReady("clusters need boto3: pip install 'hyperpd[aws]'") from None
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError

            # Throttled calls are tried again with growing pauses; eight times cover a busy minute.
            config = Config(retries={"mode": "standard", "total_max_attempts": 8}, **_TIMEOUTS_S)
            try:
                client = (self.session or boto3).client
                self._clients[service] = client(service, region_name=self._region, config=config)
            except BotoCoreError as error:
                raise CloudError(f"{service}: {error}{_hint(type(error).__name__)}") from None
        return self._clients[service]


def _hint(code: str) -> str:
    if code in EXPIRED:
        return "\nYour credentials have expired: log in again (aws sso login, or how you got them)"
    if code in _NO_LOGIN or code in ("NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError"):
        return "\nNo usable credentials: run aws configure or aws sso login; aws sts get-caller-identity shows whose"
    if "AccessDenied" in code or code == "UnauthorizedOperation":
        return "\nYour policy lacks this action: hyperpd iam prints what a command needs"
    if code == "403":
        return "\nYour policy lacks this action, or the bucket is another account's"
    if code == "NoRegionError":
        return "\nWrite region: in the cluster file, give --region, or run aws configure"
    if code in THROTTLED:
        return "\nAWS throttles these calls: wait a minute and run it again; it continues where it was"
    return ""


def _camel(operation: str) -> str:
    return "".join(part.capitalize() for part in operation.split("_"))
