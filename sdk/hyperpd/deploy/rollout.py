"""From what runs to what is wanted: plan it, apply it, take a first one back that failed half-way.

A run that was cut off is simply run again: what is there is what the API server says.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hyperpd.deploy import revision as revisions
from hyperpd.deploy import stuck
from hyperpd.deploy.apply import MANAGER, NOT_SERVED, Api, Object
from hyperpd.deploy.difference import Change, Ref, fields, ref
from hyperpd.deploy.progress import Step, Tell, silent
from hyperpd.deploy.revision import Revision
from hyperpd.deploy.wanted import Wanted, counts
from hyperpd.errors import CloudError

_OPTIONAL = {"PodMonitor": "the cluster has no Prometheus Operator, so nothing scrapes metrics"}
# A pod of the older recipe that starts once more still mounts it: it goes when the newer one is ready.
_LATE = "ConfigMap"
# On what was there before hyperpd: it outlives the revisions, which say it too, and are gone after a removal.
_ADOPTED = "hyperpd.io/adopted"


@dataclass(frozen=True, slots=True)
class Plan:
    """What applying `revision` changes. objects: as they are sent; before: revisions, the oldest first."""

    revision: Revision
    before: tuple[Revision, ...]
    objects: tuple[Object, ...]
    changes: tuple[Change, ...]
    notes: tuple[str, ...]

    @property
    def again(self) -> bool:
        """Whether the last revision is this one, and nothing of it is missing or different."""
        last = self.before[-1] if self.before else None
        if last is None or not last.whole or _source(last) != _source(self.revision):
            return False
        return all(
            one.what in ("unchanged", "left out") or (one.what, one.ref.kind) == ("deleted", _LATE)
            for one in self.changes
        )

    @property
    def complete(self) -> Revision | None:
        """The last revision that was applied as a whole."""
        return next((one for one in reversed(self.before) if one.whole), None)

    def lines(self) -> list[str]:
        return [line for one in self.changes if one.what != "unchanged" for line in one.lines()]


def plan(api: Api, wanted: Wanted, *, force: bool = False) -> Plan:
    """What it takes; the server is asked to try each object, and keeps none.

    Raises CloudError with everything the server would refuse.
    """
    before = revisions.history(api, wanted.home)
    known = {ref(body) for one in before for body in one.objects}
    adopted = set(before[-1].adopted) if before else set()
    live: dict[Ref, Object] = {}
    changes, objects = [], []
    refused: list[tuple[str, CloudError]] = []
    spaces = {one["metadata"]["name"] for one in wanted.objects if one["kind"] == "Namespace"}
    fresh = set()  # namespaces that are not there yet
    for body in wanted.objects:
        at = ref(body)
        try:
            found = api.get(*at)
            if found and found["metadata"].get("deletionTimestamp"):
                error = CloudError(f"{at} is being deleted", operation=f"apply {at}")
                refused.append((f"{error}: wait until it is gone, then deploy", error))
                continue
            if found is None and at.kind == "Namespace":
                fresh.add(at.name)
            if found and at not in known and (_marked(found) or not _managed(found)):
                adopted.add(at)
            body = _as_scaled(body, found, wanted.objects)
            body = _mark(body) if at in adopted else body
            if at.namespace in fresh:
                changes.append(Change(at, "created"))
            else:
                (answer,) = api.apply([body], force=force, dry_run=True)
                differing = tuple(fields(found, answer)) if found else ()
                changes.append(
                    Change(at, "created" if not found else "changed" if differing else "unchanged", differing)
                )
            objects.append(body)
        except CloudError as error:
            if error.code == NOT_SERVED and at.kind in _OPTIONAL:
                changes.append(Change(at, "left out", why=_OPTIONAL[at.kind]))
            elif _refusal(error):
                refused.append((_explained(body, error), error))
            else:
                raise
        else:
            if found:
                live[at] = found
    if refused:
        raise _all(refused)
    sent = {ref(body) for body in wanted.objects}
    changes += [Change(at, "deleted") for at in _gone(api, before, sent, adopted)]
    number = before[-1].number + 1 if before else 1
    revision = revisions.new(wanted, number, api.caller(), tuple(sorted(adopted, key=str)))
    notes = tuple(_notes(wanted, before, sorted(fresh & spaces), sorted(adopted, key=str)))
    return Plan(revision, tuple(before), tuple(objects), tuple(changes), notes)


def apply(api: Api, plan: Plan, tell: Tell = silent, *, force: bool = False) -> Revision:
    """Make it so, and keep the revision. A first deployment that is refused half-way is taken back.

    Raises CloudError, which says what was taken back, or how to go back.
    """
    if plan.again:
        return plan.before[-1]
    revision, what = plan.revision, {one.ref: one.what for one in plan.changes}
    made: list[Ref] = []
    written = False

    def send(body: Object) -> None:
        at = ref(body)
        if what[at] == "created":
            made.append(at)  # also where the answer is lost: it may be there
        if what[at] in ("created", "changed"):
            try:
                api.apply([body], force=force)
            except CloudError as error:  # of a namespace that was not there yet the server has tried nothing before
                if not _refusal(error):
                    raise
                raise CloudError(_explained(body, error), operation=error.operation, code=error.code) from None
            tell(Step(f"{what[at]}: {at}"))

    # The revision needs its namespace; what was there before it is touched after it.
    first = [body for body in plan.objects if body["kind"] == "Namespace" and what[ref(body)] == "created"]
    try:
        for body in first:
            send(body)
        revisions.write(api, revision)
        written = True
        for body in plan.objects:
            if body not in first:
                send(body)
    except CloudError as error:
        if error.code == "AlreadyExists" and not written:
            raise  # two at once: what is there is the other's, too
        if plan.complete is None:
            raise _taken_back(api, revision, made, error, tell, written=written) from None
        raise _half(api, revision, plan.complete, error, written=written) from None
    _delete(api, [one.ref for one in plan.changes if one.what == "deleted" and one.ref.kind != _LATE], tell)
    revision = revisions.mark(api, revision, "applied")
    _prune(api, revision, tell)
    return revision


def finish(api: Api, plan: Plan, revision: Revision, tell: Tell = silent) -> Revision:
    """It is ready: what only older pods used goes."""
    _delete(api, [one.ref for one in plan.changes if one.what == "deleted" and one.ref.kind == _LATE], tell)
    return revision if revision.state == "ready" else revisions.mark(api, revision, "ready")


def _as_scaled(body: Object, found: Object | None, objects: Sequence[Object]) -> Object:
    """Where an autoscaler decides on replicas, its number stays: another one would take it from KEDA for a while."""
    targets = [one["spec"]["scaleTargetRef"] for one in objects if one["kind"] == "ScaledObject"]
    if found is None or (body["kind"], body["metadata"]["name"]) not in [(one["kind"], one["name"]) for one in targets]:
        return body
    return body | {"spec": body["spec"] | {"replicas": found["spec"].get("replicas", body["spec"]["replicas"])}}


def _gone(api: Api, before: Sequence[Revision], sent: set[Ref], adopted: set[Ref]) -> Iterator[Ref]:
    """What earlier revisions made and this one does not have, the last first. Namespaces stay: they may hold more."""
    known = dict.fromkeys(ref(body) for one in before for body in one.objects)
    for at in reversed(known):
        if at in sent or at in adopted or at.kind == "Namespace":
            continue
        if _found(api, at):
            yield at


def _found(api: Api, at: Ref) -> Object | None:
    try:
        return api.get(*at)
    except CloudError as error:
        if error.code == NOT_SERVED:  # any more: its objects went with its definition
            return None
        raise


def _notes(wanted: Wanted, before: Sequence[Revision], fresh: Sequence[str], adopted: Sequence[Ref]) -> Iterator[str]:
    last = before[-1] if before else None
    yield from (f"not expressed by {wanted.target}: {lost}" for lost in wanted.not_expressed)
    if last and last.state == "applying":
        yield f"revision {last.number} was cut off ({last.line()}): this finishes it, or puts its own in its place"
    if last and last.name != wanted.name:
        yield f"{wanted.home} runs {last.name}: this puts {wanted.name} in its place"
    own = counts(wanted.parsed)
    for role, count in (last.replicas if last else {}).items():
        if role not in wanted.replicas and own.get(role) != count:
            said = f"{role} goes from {count}, which hyperpd scale set, to the recipe's {own.get(role, 0)}"
            yield f"{said}: to keep {count}, write {role}.replicas: {count}"
    if fresh:
        yield f"the server has not tried what goes into {' and '.join(fresh)}: there is no such namespace yet"
    for at in adopted:
        yield f"{at} was there before hyperpd: it is changed, and never deleted"


def _mark(body: Object) -> Object:
    meta = body["metadata"]
    return body | {"metadata": meta | {"annotations": (meta.get("annotations") or {}) | {_ADOPTED: "true"}}}


def _marked(body: Object) -> bool:
    return (body["metadata"].get("annotations") or {}).get(_ADOPTED) == "true"


def _managed(body: Object) -> bool:
    owners = body["metadata"].get("managedFields") or ()
    return any((one.get("manager"), one.get("operation")) == (MANAGER, "Apply") for one in owners)


def _source(revision: Revision) -> object:
    return revision.digest, revision.target, revision.settings, dict(revision.replicas), revision.objects


def _refusal(error: CloudError) -> bool:
    """Whether the server says no to the object itself. A webhook may do so with an HTTP status alone, and one that is
    not there is an InternalError."""
    codes = ("NotFound", "Conflict", "Invalid", "BadRequest", "Forbidden", NOT_SERVED)
    return error.code in codes or error.code.startswith("HTTP4") or "webhook" in str(error)


def _explained(body: Object, error: CloudError) -> str:
    return f"{error}\n  try: {stuck.refused(body, error).fix}"


def _all(refused: Sequence[tuple[str, CloudError]]) -> CloudError:
    lines, errors = [line for line, _ in refused], [error for _, error in refused]
    if any(one.code == "Conflict" and "conflict with" in str(one) for one in errors):
        lines.append("Somebody else set these fields: --force takes them over")
    said = f"the cluster would refuse {len(refused)} object{'s' * (len(refused) > 1)}; nothing was changed:"
    return CloudError("\n".join([said, *lines]), operation=errors[0].operation, code=errors[0].code)


def _taken_back(
    api: Api, revision: Revision, made: Sequence[Ref], error: CloudError, tell: Tell, *, written: bool
) -> CloudError:
    """Undo what this run made, and nothing else."""
    undone = list(reversed(made))
    if written and Ref("Namespace", None, revision.home) not in made:
        undone.append(revisions.ref(revision))
    left = []
    for at in undone:
        try:
            if api.delete(*at):
                tell(Step(f"deleted again: {at}"))
        except CloudError:
            left.append(at)
    said = f"what this run had made is deleted again: {', '.join(map(str, made)) or 'nothing'}"
    if left:
        said = f"not all that this run had made could be deleted again; left: {', '.join(map(str, left))}"
        said += f"\ntry, with the same --cluster or --context: hyperpd undeploy {revision.name}"
    return CloudError(f"{error}\n{said}", operation=error.operation, code=error.code)


def _half(api: Api, revision: Revision, good: Revision, error: CloudError, *, written: bool) -> CloudError:
    if not written:
        return error
    with contextlib.suppress(CloudError):  # it stays `applying` then, which the next run names
        revisions.mark(api, revision, "failed")
    said = (
        f"revision {revision.number} is applied in part, and left so. Go on with the same command, or back, with"
        f" the same --cluster or --context: hyperpd deploy {revision.name} --revision {good.number}"
    )
    return CloudError(f"{error}\n{said}", operation=error.operation, code=error.code)


def _prune(api: Api, revision: Revision, tell: Tell) -> None:
    """Keep the last revisions only; what none of them knows goes with the others."""
    history = revisions.history(api, revision.home)
    old, kept = history[: -revisions.KEPT], history[-revisions.KEPT :]
    known = {ref(body) for one in kept for body in one.objects} | set(revision.adopted)
    for one in old:
        _delete(api, [at for at in map(ref, one.objects) if at.kind == _LATE and at not in known], tell)
        api.delete(*revisions.ref(one))


def _delete(api: Api, refs: Sequence[Ref], tell: Tell) -> None:
    for at in refs:
        if api.delete(*at):
            tell(Step(f"deleted: {at}"))
