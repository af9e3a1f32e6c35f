"""Fleets on this machine, what doctor finds there, and images."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict


class RunningWorker(TypedDict):
    """A worker of a fleet on this machine."""

    name: str
    role: str
    state: str
    pid: int | None
    url: str
    log: str
    elapsed_s: float


class Step(TypedDict):
    """A step of a fleet's start."""

    name: str
    state: str
    elapsed_s: float


class FleetState(TypedDict):
    """A fleet on this machine. `error` and `exit_code`: what ended it."""

    pid: int
    phase: Literal["starting", "warming", "ready", "stopping", "stopped", "failed", "dead"]
    recipe: str
    recipe_digest: str
    url: str
    admin_url: str
    model: str
    drain_s: float
    error: str | None
    exit_code: int | None
    workers: list[RunningWorker]
    steps: list[Step]


class Up(FleetState):
    """The fleet, once it is ready, or where it ended before: `phase` says which."""

    name: str


class Down(TypedDict):
    """Names of the fleets that were stopped."""

    stopped: list[str]


class Check(TypedDict):
    """Something that a worker needs of a machine. `fix`: what mends it."""

    name: str
    state: Literal["ok", "warning", "failed"]
    seen: str
    wanted: str
    fix: str


class Checks(TypedDict):
    """This machine."""

    checks: list[Check]


class Peer(TypedDict):
    """With --peer: how fast KV cache comes from another machine."""

    peer: str
    backend: str
    transport: str
    gb_s: float
    floor_gb_s: float
    line_gb_s: float | None
    ok: bool


class ImageBuilt(TypedDict):
    """`file` and `template`: of codebuild."""

    tool: str
    image: str
    commands: list[str]
    file: NotRequired[str]
    template: NotRequired[str]


class ImagePushed(TypedDict):
    """`image`: with its digest, where the registry told."""

    image: str
    commands: list[str]


class Mirrored(TypedDict):
    """`uploaded` and `skipped`: files of the model."""

    image: str
    model: str | None
    uploaded: int
    skipped: int
    uploaded_bytes: int
    recipe: str
    commands: list[str]
