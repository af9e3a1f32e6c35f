"""How deployments, plans and progress look."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hyperpd.cli import output

if TYPE_CHECKING:
    from hyperpd.cli.place import Where
    from hyperpd.deploy.deployment import Deployment, Status
    from hyperpd.deploy.difference import Change
    from hyperpd.deploy.progress import Progress, Tell
    from hyperpd.deploy.revision import Revision
    from hyperpd.deploy.rollout import Plan


def progress(as_json: bool) -> Tell:
    """Prints what happens; to standard error where standard output is one document."""
    from hyperpd.cluster.watch import duration
    from hyperpd.deploy.progress import Seen

    say = output.note if as_json else output.line

    def tell(one: Progress) -> None:
        say(f"{duration(one.elapsed_s):>12}  {one.line()}" if isinstance(one, Seen) else one.text)

    return tell


def noted(one: Progress) -> None:
    """Prints what happens beside what was asked for, to standard error."""
    progress(as_json=True)(one)


def plan(found: Plan) -> None:
    """What changes, and what to know of it."""
    for note in found.notes:
        output.line(f"note: {note}")
    for line in found.lines():
        output.line(line)
    same = sum(1 for one in found.changes if one.what == "unchanged")
    if same:
        output.line(f"unchanged: {same} object{'s' * (same > 1)}")


def plan_document(found: Plan) -> dict[str, Any]:
    return {
        "name": found.revision.name,
        "target": found.revision.target,
        "namespace": found.revision.home,
        "recipe_digest": found.revision.digest,
        "revision": found.before[-1].number if found.again else found.revision.number,
        "changes": [change_document(one) for one in found.changes],
        "notes": list(found.notes),
    }


def change_document(one: Change) -> dict[str, Any]:
    return {**one.ref._asdict(), "what": one.what, "fields": [asdict(field) for field in one.fields], "why": one.why}


def status(found: Status, where: Where) -> None:
    """A deployment, its parts, and what holds it up."""
    from hyperpd.deploy import ready

    output.line(f"{found.revision.name} in {found.revision.home}: {'ready' if found.ready else 'not ready'}")
    output.line(f"  {found.revision.line()}")
    for one in found.parts:
        output.line(f"  {one}")
    if found.url:
        forwarded = ready.way(found.revision).forwarded(kubectl=where.place.kubectl)
        output.line(f"  gateway (inside the cluster): {found.url}")
        output.line(f"  from here: {forwarded}")
    if found.endpoint:
        output.line(f"  SageMaker endpoint: {found.endpoint}")
    for line in found.causes:
        output.line(f"  {line}")


def status_document(found: Status) -> dict[str, Any]:
    return {
        **revision_document(found.revision),
        "ready": found.ready,
        "parts": [asdict(one) | {"ref": one.ref._asdict(), "good": one.good} for one in found.parts],
        "url": found.url,
        "endpoint": found.endpoint,
        "causes": list(found.causes),
    }


def revision_document(one: Revision) -> dict[str, Any]:
    return {
        "name": one.name,
        "namespace": one.home,
        "target": one.target,
        "settings": list(one.settings),
        "replicas": dict(one.replicas),
        "revision": one.number,
        "state": one.state,
        "recipe_digest": one.digest,
        "created": one.created,
        "by": one.by,
        "hyperpd": one.version,
    }


def ways(found: Deployment, where: Where) -> None:
    """How it is asked."""
    if found.url:
        output.line(f"gateway (inside the cluster): {found.url}")
    if found.endpoint:
        output.line(f"SageMaker endpoint: {found.endpoint}")
    if invoke := found.invoke(where.place):
        output.line(f"try: {invoke}")
