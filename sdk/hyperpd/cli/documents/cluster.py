"""Clusters: what a plan finds, what they are, and what became of them."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from hyperpd.cli.documents.account import Request
from hyperpd.cluster.state import GroupState


class Cluster(TypedDict):
    """A cluster. `ready`: in service with its nodes."""

    name: str
    arn: str
    status: str
    failure: str
    continuous: bool
    orchestrator: str
    groups: list[GroupState]
    ready: bool


class Node(TypedDict):
    """A node of a cluster. `id`: empty until there is a machine."""

    id: str
    logical_id: str
    group: str
    instance_type: str
    status: str
    message: str
    release: str
    healthy: NotRequired[bool]


class Finding(TypedDict):
    """What stands in the way, or may. `fix`: steps."""

    level: Literal["problem", "warning", "unknown"]
    check: str
    what: str
    where: str
    fix: list[str]


class Cost(TypedDict):
    """Of a group of a cluster."""

    group: str
    instance_type: str
    count: int
    usd_per_hour: float | None
    price: str
    price_date: str | None
    paid_up_front: bool


class Preflight(TypedDict):
    """`account` and `region`: null where AWS was not asked."""

    ok: bool
    account: str | None
    region: str | None
    findings: list[Finding]
    costs: list[Cost]
    usd_per_hour: float
    usd_per_month: float
    every_price_known: bool
    checked: list[str]


class Change(TypedDict):
    """Of a cluster: what it is, and what the file says."""

    path: str
    was: Any
    becomes: Any


class Makes(TypedDict):
    """What a create makes beside the cluster; null: it is given, or not needed."""

    role: str | None
    bucket: str | None


class ClusterPlan(TypedDict):
    """All but `preflight`: where AWS was asked, and nothing stands in the way. `status`, `changes`: null where there is
    no such cluster."""

    preflight: Preflight
    cluster: NotRequired[str]
    account: NotRequired[str]
    region: NotRequired[str]
    groups: NotRequired[dict[str, dict[str, Any]]]
    makes: NotRequired[Makes]
    status: NotRequired[Cluster | None]
    changes: NotRequired[list[Change] | None]
    impossible: NotRequired[list[str]]
    notes: NotRequired[list[str]]
    requests: NotRequired[list[Request]]


class DryRun(TypedDict):
    """With --dry-run."""

    sent: Literal[False]
    requests: list[Request]


class Named(TypedDict):
    """A cluster that was not waited for."""

    name: str


class Created(TypedDict):
    """`cluster`: as it is after the wait."""

    sent: bool
    cluster: Cluster | Named


class Updated(TypedDict):
    """`cluster`: null where nothing was sent, or it was not waited for."""

    sent: bool
    changes: list[Change]
    cluster: Cluster | None


class Scaled(TypedDict):
    """`counts`: nodes, by group."""

    sent: bool
    counts: dict[str, int]
    cluster: Cluster | None


class Repaired(TypedDict):
    """`requests`: with --dry-run."""

    action: Literal["reboot", "replace"]
    nodes: list[Node]
    requests: list[Request]


class Deleted(TypedDict):
    """What goes and what is kept. `files`: by bucket."""

    deleted: bool
    cluster: bool
    nodes: int
    role: str
    bucket: str
    files: dict[str, int]
    kept: list[str]


class Imported(TypedDict):
    """`spec`: the cluster file (hyperpd cluster schema); `unsaid`: what it cannot say."""

    file: str | None
    spec: dict[str, Any]
    unsaid: list[str]
