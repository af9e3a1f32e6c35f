"""Recipes: what they say and take, where their workers run, what targets make of them."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from hyperpd.capacity import Capacity


class PlannedWorker(TypedDict):
    """Where a worker runs; with --launch what it execs, with the CPUs of its own."""

    name: str
    role: str
    ordinal: int
    node: int
    address: str
    gpu_ids: list[int]
    cpu_ids: list[int]
    api_port: int
    admin_port: int
    side_channel_port: int
    data_parallel_port: int
    kv_events_port: int
    kv_replay_port: int
    rank: int
    leader: str
    argv: NotRequired[list[str]]
    env: NotRequired[dict[str, str]]
    cpus: NotRequired[list[int]]


class Plan(TypedDict):
    """Every worker of a recipe."""

    recipe: str
    recipe_digest: str
    workers: list[PlannedWorker]


class Recipe(TypedDict):
    """A recipe and what it takes. `recipe`: what it says, defaults left out (hyperpd recipes schema)."""

    name: str
    description: str
    recipe_digest: str
    layout: str
    recipe: dict[str, Any]
    capacity: Capacity
    usd_per_hour: float | None


class Checked(TypedDict):
    """Whether a recipe loads and fits. `problem`: where it does not."""

    recipe: str
    ok: bool
    problem: NotRequired[str]
    unchecked: NotRequired[list[str]]
    notes: NotRequired[list[str]]


class Sides(TypedDict):
    """The two values of a field; null: not said."""

    left: Any
    right: Any


class Diff(TypedDict):
    """By path of the field. same_engine_digest: whether workers of the two could exchange KV."""

    changed: dict[str, Sides]
    same_engine_digest: bool


class Written(TypedDict):
    """A file of a rendering that goes to a folder."""

    path: str
    state: Literal["unchanged", "would write", "written"]


class Rendered(TypedDict):
    """An object, or the text of a file."""

    file: str
    body: Any


class Rendering(TypedDict):
    """A recipe for a target. `files` and `others` (left alone there): with a folder."""

    recipe: str
    recipe_digest: str
    target: str
    not_expressed: list[str]
    documents: list[Rendered]
    files: list[Written]
    others: list[str]


class TargetOption(TypedDict):
    """What --set takes."""

    default: Any
    meaning: str | None


class Fate(TypedDict):
    """What becomes of a field of a recipe."""

    fate: str
    how: str


class Target(TypedDict):
    """What a recipe can be rendered for. `fields`: by path in the recipe."""

    summary: str
    options: dict[str, TargetOption]
    fields: dict[str, Fate]
