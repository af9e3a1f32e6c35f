"""What is sent to an AWS account, what it has to allow, and what a review asks."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from hyperpd.cluster.encryption import Claim
from hyperpd.cluster.permissions import Permission
from hyperpd.cluster.review import Endpoint, Flow


class Request(TypedDict):
    """A call of boto3. `parameters`: a file's bytes by size and SHA-256."""

    service: str
    operation: str
    parameters: dict[str, Any]


class Published(TypedDict):
    """`commands`: what to type next."""

    sent: bool
    requests: list[Request]
    arn: str
    commands: list[str]


class ServedHub(TypedDict):
    """A stand-in for a hub. `commands`: what to type in another terminal."""

    url: str
    arn: str
    commands: list[str]


class Why(TypedDict):
    """An action of the policy, and each use of it."""

    action: str
    resources: list[str]
    why: list[str]


class Policy(TypedDict):
    """An IAM policy, and why each action is in it."""

    commands: list[str]
    policy: dict[str, Any]
    why: list[Why]


Commands = Annotated[list[str], Field(description="Where no command is given: those that call AWS.")]


class Review(TypedDict):
    """What a network and compliance review asks. `callers`: by command; `nodes`: statements of the nodes' role."""

    cluster: str
    date: str
    account: str
    region: str
    orchestrator: str
    flows: list[Flow]
    transit: list[Claim]
    rest: list[Claim]
    endpoints: list[Endpoint]
    callers: dict[str, list[Permission]]
    nodes: list[dict[str, Any]]
    made_role: bool
    not_encrypted: list[str]
    unverified: list[str]
