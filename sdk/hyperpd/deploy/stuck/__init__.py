"""Why a deployment does not get on: causes(seen) → what holds it back, and what to try. Pure: who asks the cluster
gives what it said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from hyperpd.deploy.kubernetes.fleet import COMPONENT
from hyperpd.deploy.stuck import pods, workloads
from hyperpd.deploy.stuck.cause import Cause, LastLines, Object, Seen, Stage, ready
from hyperpd.deploy.stuck.refusals import refused
from hyperpd.deploy.stuck.scheduling import selected

__all__ = ["Cause", "LastLines", "Seen", "Stage", "causes", "ready", "refused", "selected"]


def causes(seen: Seen, last_lines: LastLines) -> list[Cause]:
    """Every cause once, with all that it holds back; first what stopped first, since what comes after it waits.

    last_lines may raise CloudError: then that is said in the place of a log.
    """
    found: list[Cause] = []
    explained = set()
    for pod in seen.pods:
        own = list(pods.of_pod(pod, seen, last_lines))
        found += own
        if own:
            meta = pod["metadata"]
            explained.add((str(meta.get("namespace", "")), str(meta.get("labels", {}).get(COMPONENT, ""))))
    for body in [*seen.objects, *_makers(seen)]:
        found += workloads.of(body, seen, explained)
    return _once(found)


def _makers(seen: Seen) -> list[Object]:
    """What is known only by its event: makers of pods, of kinds that are not among the objects (may not be read)."""
    given = {body.get("kind") for body in seen.objects}
    about = [event["involvedObject"] for event in seen.events if event.get("reason") == "FailedCreate"]
    unknown = {(one["kind"], one.get("namespace"), one["name"]): one for one in about if one["kind"] not in given}
    return [{"kind": one["kind"], "metadata": one, "spec": {}, "status": {}} for one in unknown.values()]


def _once(found: Iterable[Cause]) -> list[Cause]:
    """Causes of one meaning as one; of their logs the first. The most held back first, of those that stopped alike."""
    by_meaning: dict[Sequence[object], Cause] = {}
    for cause in found:
        meaning = (cause.stage, cause.what, cause.fix)
        before = by_meaning.get(meaning)
        objects = dict.fromkeys([*(before.objects if before else ()), *cause.objects])
        by_meaning[meaning] = replace(before or cause, objects=tuple(objects))
    return sorted(by_meaning.values(), key=lambda cause: (cause.stage, -len(cause.objects)))
