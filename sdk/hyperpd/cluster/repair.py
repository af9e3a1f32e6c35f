"""repair(…): reboot or replace nodes, named or unhealthy, and wait until their groups are whole again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from hyperpd.cluster import reader
from hyperpd.cluster.aws import Aws
from hyperpd.cluster.names import Names
from hyperpd.cluster.nodes import batch, choose, last_of_a_role
from hyperpd.cluster.progress import Step, Tell
from hyperpd.cluster.state import Node
from hyperpd.cluster.watch import POLL_S, TIMEOUT_S, Wait
from hyperpd.errors import CloudError, RecipeError

Action = Literal["reboot", "replace"]
_SICK = ("Failure", "NotFound")  # not Pending or DeepHealthCheckInProgress, which pass by themselves


def repair(
    aws: Aws,
    names: Names,
    named: Sequence[str],
    action: Action,
    tell: Tell,
    *,
    force: bool = False,
    wait: bool = True,
    timeout_s: float = TIMEOUT_S,
    poll_s: float = POLL_S,
) -> list[Node]:
    """Reboot or replace the nodes `named` (ids), or all unhealthy ones where none is named; those that were.

    A role never loses its last healthy node, unless by `force`. Raises RecipeError for nodes that are not there,
    CloudError with each node that AWS refused, NotReady where they do not come back.
    """
    cluster = reader.status(aws, names.cluster)
    if cluster is None:
        raise CloudError(f"there is no cluster {names.cluster} in {names.place.region}", code="ResourceNotFound")
    if cluster.status != "InService":
        # AWS answers 200, and repairs nothing.
        raise CloudError(f"{cluster.name} is {cluster.status}: nodes are repaired in service alone; watch it first")
    nodes = reader.nodes(aws, cluster)
    chosen = choose(nodes, named) if named else [node for node in nodes if node.status in _SICK]
    if not chosen:
        tell(Step("no node is unhealthy"))
        return []
    if not force and (roles := list(last_of_a_role(cluster, nodes, chosen))):
        told = [f"{one}; {action} another first, or give --force and lose its requests" for one in roles]
        raise RecipeError(f"{action}", told)
    tell(Step(f"{action}: {', '.join(node.id or node.logical_id for node in chosen)}"))
    batch(aws, f"batch_{action}_cluster_nodes", names.cluster, chosen)
    if wait:
        replaced = {node.id for node in chosen if node.id} if action == "replace" else set()
        Wait(aws, names, tell, timeout_s, poll_s, doing=action).whole({node.group for node in chosen}, replaced)
    return chosen
