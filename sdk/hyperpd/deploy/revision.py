"""Revisions: what was deployed when, by which recipe and by whom; kept in the cluster, a ConfigMap for each.

A revision is written as `applying` before the first object is sent, so that one that was cut off is seen; then it is
`applied`, and `ready` when it has answered. It holds the recipe and the objects as they were, and no secret: a recipe
has none, and objects name Secrets only.
"""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from hyperpd import __version__
from hyperpd.deploy.apply import MANAGER, Api
from hyperpd.deploy.difference import Ref
from hyperpd.deploy.progress import Step, Tell, silent
from hyperpd.deploy.wanted import Wanted
from hyperpd.errors import CloudError, RecipeError
from hyperpd.recipe import RecipeFile, parse, read

Object = dict[str, Any]
State = Literal["applying", "applied", "ready", "failed"]

KEPT = 10
_NUMBER, _STATE = "hyperpd.io/revision", "hyperpd.io/revision-state"
_OWNED = {"app.kubernetes.io/managed-by": MANAGER}
_RECIPE, _FACTS, _OBJECTS = "recipe.yaml", "revision.json", "objects.json.gz"


@dataclass(frozen=True, slots=True)
class Revision:
    """One deployment of a recipe, in the namespace `home`.

    adopted: objects that were there before hyperpd came; they are never deleted.
    """

    home: str
    number: int
    state: State
    name: str  # of the recipe
    target: str
    settings: tuple[str, ...]
    replicas: Mapping[str, int]
    digest: str
    recipe: str
    created: str  # ISO 8601, UTC
    by: str
    version: str
    adopted: tuple[Ref, ...]
    objects: tuple[Object, ...]

    @property
    def whole(self) -> bool:
        """Whether all of it was applied."""
        return self.state in ("applied", "ready")

    def line(self) -> str:
        """When and what, on one line."""
        by = f" by {self.by}" if self.by else ""
        scaled = "".join(f" {role}={count}" for role, count in self.replicas.items())
        return (
            f"revision {self.number}: {self.state}  {self.name}, recipe digest {self.digest[:12]}{scaled}"
            f"  {self.created}{by}  hyperpd {self.version}"
        )

    def file(self, folder: Path) -> RecipeFile:
        """Its recipe, written to `folder` again. Raises RecipeError where this version of hyperpd cannot read it."""
        said = f"the recipe of revision {self.number}, deployed by hyperpd {self.version}"
        parsed = parse(read(self.recipe.encode(), said), said)
        path = folder / _RECIPE  # by no name of the revision's: whoever may write a ConfigMap would choose the path
        path.write_bytes(self.recipe.encode())
        return RecipeFile(parsed, path, self.digest)


def new(wanted: Wanted, number: int, by: str, adopted: tuple[Ref, ...]) -> Revision:
    """The revision of what is about to be applied."""
    return Revision(
        home=wanted.home,
        number=number,
        state="applying",
        name=wanted.name,
        target=wanted.target,
        settings=wanted.settings,
        replicas=wanted.replicas,
        digest=wanted.digest,
        recipe=wanted.recipe,
        created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        by=by,
        version=__version__,
        adopted=adopted,
        objects=wanted.objects,
    )


def history(api: Api, home: str) -> list[Revision]:
    """The revisions that a namespace keeps, the oldest first. Raises CloudError, also where one cannot be read."""
    return sorted(map(_revision, api.list("ConfigMap", home, _OWNED | {_NUMBER: ""})), key=lambda one: one.number)


def deployments(api: Api, tell: Tell = silent) -> dict[str, list[Revision]]:
    """Every deployment of the cluster: its home → its revisions. One of which a revision cannot be read is left out,
    and told: it is in nobody else's way. Raises CloudError."""
    bodies: dict[str, list[Object]] = {}
    for body in api.list("ConfigMap", None, _OWNED | {_NUMBER: ""}):
        bodies.setdefault(str(body["metadata"]["namespace"]), []).append(body)
    found: dict[str, list[Revision]] = {}
    for home in sorted(bodies):
        try:
            found[home] = sorted(map(_revision, bodies[home]), key=lambda one: one.number)
        except CloudError as error:
            tell(Step(f"{home} is left out: {error}"))
    return found


def find(api: Api, name: str, tell: Tell = silent) -> list[Revision]:
    """The revisions of one deployment, by its recipe's name or its home. Raises RecipeError, CloudError."""
    found = deployments(api, tell)
    fits = [home for home, revisions in found.items() if name in (home, revisions[-1].name)]
    if not fits:
        here = ", ".join(f"{revisions[-1].name} (in {home})" for home, revisions in found.items())
        raise RecipeError(name, [f"no such deployment in this cluster; it has {here or 'none'}"])
    if len(fits) > 1:
        raise RecipeError(name, [f"{len(fits)} deployments have this name; give its namespace: {', '.join(fits)}"])
    return found[fits[0]]


def numbered(revisions: list[Revision], number: int) -> Revision:
    """One of them. Raises RecipeError."""
    if found := next((one for one in revisions if one.number == number), None):
        return found
    kept = ", ".join(str(one.number) for one in revisions)
    raise RecipeError(f"revision {number}", [f"it is not kept; the last {KEPT} are: {kept or 'none yet'}"])


def write(api: Api, revision: Revision) -> None:
    """Keep a new revision. Raises CloudError, also where somebody else deploys at this moment."""
    facts = asdict(revision)
    del facts["recipe"], facts["objects"], facts["state"], facts["home"], facts["number"]
    packed = gzip.compress(json.dumps(revision.objects).encode(), mtime=0)
    meta = {"name": _named(revision.number), "namespace": revision.home}
    labels = _OWNED | {_NUMBER: str(revision.number), _STATE: revision.state}
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta | {"labels": labels},
        "data": {_FACTS: json.dumps(facts, indent=1), _RECIPE: revision.recipe},
        "binaryData": {_OBJECTS: base64.b64encode(packed).decode()},
    }
    try:
        api.create(body)
    except CloudError as error:
        if error.code != "AlreadyExists":
            raise
        raise CloudError(
            f"somebody else wrote revision {revision.number} in {revision.home} at this moment: look at"
            f" hyperpd status {revision.name}, with the same --cluster or --context, then deploy again",
            operation=error.operation,
            code=error.code,
        ) from None


def mark(api: Api, revision: Revision, state: State) -> Revision:
    """Say how far it came."""
    change = {"metadata": {"labels": {_STATE: state}}}
    api.patch(*ref(revision), change)
    return replace(revision, state=state)


def ref(revision: Revision) -> Ref:
    """The object that it is."""
    return Ref("ConfigMap", revision.home, _named(revision.number))


def _named(number: int) -> str:
    return f"hyperpd-revision-{number}"


def _revision(body: Object) -> Revision:
    meta = body["metadata"]
    try:
        facts = json.loads(body["data"][_FACTS])
        state = meta["labels"][_STATE]
        if state not in get_args(State):
            raise ValueError(f"state {state}")
        facts |= {
            "home": meta["namespace"],
            "number": int(meta["labels"][_NUMBER]),
            "state": state,
            "recipe": body["data"][_RECIPE],
            "settings": tuple(facts["settings"]),
            "adopted": tuple(Ref(*one) for one in facts["adopted"]),
            "objects": tuple(json.loads(gzip.decompress(base64.b64decode(body["binaryData"][_OBJECTS])))),
        }
        return Revision(**facts)
    except (KeyError, TypeError, ValueError, OSError, EOFError, zlib.error) as error:
        raise CloudError(
            f"ConfigMap {meta['name']} in {meta['namespace']} is no revision that hyperpd {__version__} can read"
            f" ({type(error).__name__}: {error}): use the version that wrote it, or delete it"
        ) from None
