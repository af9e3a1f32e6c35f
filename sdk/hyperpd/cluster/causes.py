"""Why a cluster failed: its message, the events that caused it, failed nodes, and the lifecycle log's last lines."""

from __future__ import annotations

import re

from hyperpd.cluster import reader, stacks
from hyperpd.cluster.aws import Aws, Object
from hyperpd.cluster.command import command
from hyperpd.cluster.names import Names
from hyperpd.cluster.state import Event, Status
from hyperpd.errors import CloudError

_LOG_LINES, _EVENTS = 12, 6
# What a message has → what to look at. Sources: AWS' troubleshooting pages, field reports (hyperpod.md, section 3).
_REASONS = {
    r"EFA health check": "the security group has to be open to itself, all traffic, in and out",
    r"sufficient capacity|InsufficientCapacity": "no capacity in that zone now: another subnet's zone, a training plan,"
    " or instance_types with more than one",
    r"[Ll]ifecycle": "the lifecycle log says which step; a cause without a log is no way to S3 or a role that may not"
    " read the bucket",
    r"service limit|ResourceLimit": 'raise the quota "… for cluster usage" of that type in Service Quotas',
    r"IP address|free addresses": "the subnet has too few free addresses: a p5 takes about 32 with Slurm, 81 with EKS",
}


def explain(aws: Aws, names: Names, cluster: Status) -> list[str]:
    """Lines for a person; what cannot be read is said, and hides nothing else."""
    found = [f"FailureMessage: {cluster.failure}"] if cluster.failure else []
    events: list[Event] = []
    try:
        events = [event for event in reader.events(aws, cluster) if event.level in ("Error", "Warn")]
        found += [_line(aws, cluster, event) for event in events[-_EVENTS:]]
    except CloudError as error:
        found.append(f"events cannot be read: {error}")
    if len(events) > _EVENTS:
        again = command("events", names.cluster, names.place.region, "--level", "Error")
        found.append(f"… and {len(events) - _EVENTS} before: {again}")
    try:
        sick = [node for node in reader.nodes(aws, cluster) if node.status == "Failure"]
        found += [f"node {node.group}/{node.id or node.logical_id}: {node.status}: {node.message}" for node in sick]
    except CloudError as error:
        found.append(f"nodes cannot be read: {error}")
    try:
        if stack := stacks.of_cluster("", reader.tags(aws, cluster.arn)):
            found += stacks.causes(aws, stack)
    except CloudError as error:
        found.append(f"tags, which name a stack, cannot be read: {error}")
    text = "\n".join(found)
    found += [f"often: {why}" for pattern, why in _REASONS.items() if re.search(pattern, text)]
    if re.search(r"[Ll]ifecycle|Lcs", text) or not found:
        found += log_tail(aws, names, cluster, [event for event in events if event.node])
    return found


def _line(aws: Aws, cluster: Status, event: Event) -> str:
    """An event with what it says beyond its text."""
    said = reader.details(aws, cluster, event)
    message, lcs = str(said.get("FailureMessage", "")), said.get("LcsExecutionState")
    more = f" ({message})" if message and message not in event.text else ""
    return f"event: {event.line()}{more}" + (f" [lifecycle: {lcs}]" if lcs else "")


def log_tail(aws: Aws, names: Names, cluster: Status, events: list[Event]) -> list[str]:
    """The last lines of the lifecycle log of the node that failed last; where none is named, of the log written last,
    in the group that the cluster's message names."""
    group = f"{names.logs}{cluster.id}"
    blamed = [
        f"{one.name}/" for one in cluster.groups if re.search(rf"['\" ]{re.escape(one.name)}['\" ]", cluster.failure)
    ]
    prefix = "LifecycleConfig/" + (f"{events[-1].group}/{events[-1].node}" if events else "".join(blamed[:1]))
    try:
        streams = _pages(aws, "describe_log_streams", "logStreams", logGroupName=group, logStreamNamePrefix=prefix)
        if not streams:
            return [f"lifecycle log: no stream {prefix}… in {group}: the script never ran, or could not write"]
        last = max(streams, key=lambda one: one.get("lastEventTimestamp", 0))["logStreamName"]
        answer = aws.call("logs", "get_log_events", logGroupName=group, logStreamName=last, limit=_LOG_LINES)
    except CloudError as error:
        return [f"lifecycle log: cannot be read in {group}: {error}"]
    lines = [str(one["message"]).rstrip() for one in answer.get("events", ())]
    return [f"lifecycle log {group} {last}, last lines:", *(f"  {line}" for line in lines[-_LOG_LINES:])]


def _pages(aws: Aws, operation: str, key: str, **parameters: object) -> list[Object]:
    """As Aws.pages; this service writes nextToken small."""
    found: list[Object] = []
    more: Object = {}
    while True:
        answer = aws.call("logs", operation, **parameters, **more)
        found += answer.get(key, ())
        if not answer.get("nextToken"):
            return found
        more = {"nextToken": answer["nextToken"]}
