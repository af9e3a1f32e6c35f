"""Deployments: what a rollout changes, what runs, and what its pods say."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict


class Ref(TypedDict):
    """What names an object of Kubernetes."""

    kind: str
    namespace: str | None
    name: str


class Field(TypedDict):
    """A field of an object; null: it is not there."""

    path: str
    before: Any
    after: Any


class Change(Ref):
    """What becomes of an object."""

    what: Literal["created", "changed", "unchanged", "deleted"]
    fields: list[Field]
    why: str


class Planned(TypedDict):
    """What a rollout changes."""

    name: str
    target: str
    namespace: str
    recipe_digest: str
    revision: int
    changes: list[Change]
    notes: list[str]


class Tried(Planned):
    """With --dry-run or --diff: nothing is applied."""

    deployed: Literal[False]


class Deployed(Planned):
    """`url`: within the cluster. `endpoint`: SageMaker's. `invoke`: what to type."""

    deployed: Literal[True]
    state: str
    url: str | None
    endpoint: str | None
    invoke: str | None


class Revision(TypedDict):
    """What was deployed, when and by whom."""

    name: str
    namespace: str
    target: str
    settings: list[str]
    replicas: dict[str, int]
    revision: int
    state: str
    recipe_digest: str
    created: str
    by: str
    hyperpd: str


# With --diff REVISION. `from` is no name that a class may have.
Compared = TypedDict("Compared", {"deployed": Literal[False], "from": Revision, "changes": list[Change]})


class Part(TypedDict):
    """Workers of a role, or the gateway: how many there are."""

    ref: Ref
    role: str
    wanted: int
    ready: int
    current: int
    seen: bool
    state: str
    failed: bool
    good: bool


class Deployment(Revision):
    """A deployment as it is now. `causes`: what holds it up."""

    ready: bool
    parts: list[Part]
    url: str | None
    endpoint: str | None
    causes: list[str]


class ScalePlanned(Planned):
    """With --dry-run."""

    sent: Literal[False]
    counts: dict[str, int]


class Scaled(Deployment):
    """`counts`: workers, by role."""

    sent: bool
    counts: dict[str, int]


class Removed(TypedDict):
    """What goes and what stays."""

    removed: bool
    name: str
    goes: list[str]
    stays: list[str]


class Line(TypedDict):
    """Each line of a log is a document."""

    pod: str
    line: str
