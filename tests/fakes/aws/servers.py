"""Aws: the HyperPod stand-in, moto behind an authorising and recording proxy, and what moto lacks."""

from __future__ import annotations

import atexit
import copy
import http.client
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from typing import Any, Self
from unittest import mock
from urllib.parse import urlsplit

import boto3
from moto.core.config import default_user_config
from moto.iam.access_control import PermissionResult
from moto.s3.models import FakeBucket
from moto.server import ThreadedMotoServer

from tests.deploy import botocore_shapes
from tests.fakes import wire
from tests.fakes.aws import answers, needs, stage
from tests.fakes.aws.eks import Eks
from tests.fakes.aws.identity import Identity
from tests.fakes.aws.prices import Prices
from tests.fakes.aws.quotas import Quotas
from tests.fakes.aws.request import Identified, identify
from tests.fakes.aws.stacks import Stacks
from tests.fakes.gate import ACCOUNT, REGION, Call, Fault, Gate, Refused
from tests.fakes.hyperpod import Control, Scenario
from tests.fakes.policy import Document

Body = dict[str, Any]
ACCESS_KEY, SECRET_KEY = "AKIASTANDIN0000000000", "stand-in"
_HOP = ("connection", "transfer-encoding", "date", "server", "keep-alive", "content-encoding")


class Aws:
    """One account and Region, while its context lasts.

    Faults and policy stand before all services: `Cut(at=7)` is the seventh call to any of them. `stage` sets things up
    and looks at them behind the gate, unrecorded.
    """

    def __init__(
        self,
        *faults: Fault | Scenario,
        allow: Document | Sequence[Document | str] | None = None,
        quotas: Mapping[str, int] | None = None,
        step_s: float = 60.0,
    ) -> None:
        self.gate = Gate(*(one for one in faults if isinstance(one, Fault)), allow=allow)
        inside = [one for one in faults if isinstance(one, Scenario)]
        self.stage = stage.Stage()
        self.control = Control(*inside, self.stage, quotas=quotas, zones=self.stage.zone, step_s=step_s, gate=self.gate)
        self.quotas = Quotas(self.control.account.quotas)
        self.eks, self.prices, self.stacks = Eks(), Prices(), Stacks()
        identity = Identity(self.gate)
        # By service and operation; None: ask moto.
        self._beside: dict[str, dict[str, Callable[[Body], Body | None]]] = {
            "cloudformation": self.stacks.operations(),
            "servicequotas": self.quotas.operations(),
            "eks": self.eks.operations(),
            "pricing": self.prices.operations(),
            "iam": {"SimulatePrincipalPolicy": identity.simulate},
            "sts": {"GetCallerIdentity": identity.caller},
        }
        self.broken: list[str] = []
        self.url = self.moto_url = ""
        self.runtime_url = ""  # of tests/fakes/runtime, where an endpoint's answer matters; empty: moto answers
        self._lock = threading.Lock()
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self.moto_url = _moto()
        self._open.callback(self._reset)
        # moto reads a bucket's policy without its conditions; who may do what is the gate's to say.
        self._open.enter_context(mock.patch.object(FakeBucket, "get_permission", return_value=PermissionResult.NEUTRAL))
        self._open.enter_context(mock.patch.dict(default_user_config, iam={"load_aws_managed_policies": True}))
        self._reset()
        self.stage.url = self.url = self._open.enter_context(wire.serve(self.answer))
        self._open.enter_context(self.control)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        assert not self.broken, "\n".join(self.broken)

    @property
    def calls(self) -> list[Call]:
        return self.gate.calls

    @property
    def environment(self) -> dict[str, str]:
        """Where boto3, the AWS CLI, hyp and sagemaker find this, and nothing else."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ENDPOINT_URL_SAGEMAKER": self.control.url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "NO_PROXY": "127.0.0.1",
        }

    def client(self, service: str, **given: Any) -> Any:
        """A boto3 client as a user has it: through the gate."""
        if service == "sagemaker":
            return self.control.client(**given)
        keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}
        return boto3.client(service, endpoint_url=self.url, region_name=REGION, **(keys | given))

    def answer(self, request: wire.Request) -> wire.Answer:
        """One call, to any service."""
        if request.headers.get("x-amz-target", "").startswith("SageMaker."):
            return self.control.answer(request)
        found = identify(request)
        if found is None and request.signed[2]:
            self.broken.append(f"no operation of {request.signed[2]}: {request.method} {request.target}")
        if found is None:
            return self._forward(request)
        call = Call(found.service, found.operation, found.parameters, needs.of(found), request.signed[0])
        gate = Gate() if call.access_key == stage.KEY else self.gate
        try:
            gate.enter(call)
            try:
                answer = self._effect(found, request)
            finally:
                gate.leave(call)
        except Refused as refused:
            call.error = refused.code
            return answers.error(found, refused)
        return answer

    def _effect(self, found: Identified, request: wire.Request) -> wire.Answer:
        if found.service == "eks" and found.operation in ("CreateCluster", "DescribeCluster"):
            return self._amended(found, request)
        if found.model == "sagemaker-runtime" and self.runtime_url:
            return self._forward(request, self.runtime_url)
        beside = self._beside.get(found.service, {}).get(found.operation)
        if beside is None:
            return self._forward(request)
        if found.protocol in ("json", "rest-json"):
            wrong = botocore_shapes.problems(found.model, found.operation, _typed(found))
            if wrong:
                raise Refused("ValidationException", "; ".join(wrong))
        if found.service == "eks":
            self._known(found)
        with self._lock:
            said = copy.deepcopy(beside(found.parameters))
        if said is None:
            return self._forward(request)
        if wrong := botocore_shapes.answer_problems(found.model, found.operation, said):
            self.broken += [f"{found.operation}: {one}" for one in wrong]
        return answers.answer(found, said)

    def _amended(self, found: Identified, request: wire.Request) -> wire.Answer:
        """An EKS cluster as moto has it, with what moto does not keep."""
        got = self._forward(request)
        if got.status != 200:
            return got
        cluster = self.eks.amended(found.operation, found.parameters, json.loads(got.body)["cluster"])
        return answers.answer(found, {"cluster": cluster})

    def _known(self, found: Identified) -> None:
        name = found.parameters.get("clusterName", "")
        if name not in self.stage.client("eks").list_clusters()["clusters"]:
            raise Refused("ResourceNotFoundException", f"No cluster found for name: {name}.", 404)

    def _forward(self, request: wire.Request, url: str = "") -> wire.Answer:
        where = urlsplit(url or self.moto_url)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
        headers = {
            name: value for name, value in request.headers.items() if name not in ("transfer-encoding", "expect")
        }
        headers |= {"x-moto-account-id": ACCOUNT, "content-length": str(len(request.body)), "host": where.netloc}
        try:
            connection.request(request.method, request.target, request.body, headers)
            got = connection.getresponse()
            kept = {name: value for name, value in got.getheaders() if name.lower() not in _HOP}
            return wire.Answer(got.status, kept, got.read())
        finally:
            connection.close()

    def _reset(self) -> None:
        where = urlsplit(self.moto_url)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
        connection.request("POST", "/moto-api/reset")
        connection.getresponse().read()
        connection.close()


@cache
def _moto() -> str:
    """Its server's address. Started once: moto's state is the process's, and each start and end takes a second."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    atexit.register(server.stop)
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


def _typed(found: Identified) -> Body:
    """Numbers that came in a query string."""
    return {name: int(value) if name == "maxResults" else value for name, value in found.parameters.items()}
