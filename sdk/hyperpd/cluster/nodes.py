"""Nodes by role, and the batch calls that answer 200 whatever failed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hyperpd.cluster.aws import Aws, Object
from hyperpd.cluster.state import Node, Status
from hyperpd.errors import CloudError, RecipeError

BATCH_MAX = 25  # nodes of one BatchRebootClusterNodes or BatchReplaceClusterNodes


def role(cluster: Status, node: Node) -> str:
    """Whose workers a node has: by its group's label, else the group's name."""
    group = cluster.group(node.group)
    return group.role if group else node.group


def choose(nodes: Sequence[Node], named: Sequence[str]) -> list[Node]:
    """The nodes of these ids or logical ids. Raises RecipeError naming those that are not there."""
    by_id = {one: node for node in nodes for one in (node.id, node.logical_id) if one}
    if missing := [name for name in dict.fromkeys(named) if name not in by_id]:
        known = ", ".join(node.id or node.logical_id for node in nodes) or "none"
        raise RecipeError("nodes", [f"{name}: no such node; there are {known}" for name in missing])
    return list({id(by_id[name]): by_id[name] for name in named}.values())


def last_of_a_role(cluster: Status, nodes: Sequence[Node], taken: Sequence[Node]) -> Iterator[str]:
    """Roles that would have no healthy node while `taken` are away."""
    for name in dict.fromkeys(role(cluster, node) for node in taken):
        healthy = [node for node in nodes if role(cluster, node) == name and node.healthy]
        if healthy and all(node in taken for node in healthy):
            yield f"{name}: {', '.join(node.id for node in healthy)} is all that is healthy of it"


def taken_at_once(nodes: Sequence[Node], group: str, size: int) -> list[Node]:
    """A group's nodes, where `size` of them at once may be all that are healthy; else none."""
    own = [node for node in nodes if node.group == group]
    return own if sum(node.healthy for node in own) <= size else []


def batch(aws: Aws, operation: str, cluster: str, nodes: Sequence[Node]) -> None:
    """`operation` (batch_reboot_cluster_nodes) for all nodes. Raises CloudError with every node that failed, after
    all were tried: the answer's status says nothing of them."""
    failed: list[str] = []
    done = 0
    for start in range(0, len(nodes), BATCH_MAX):
        part = nodes[start : start + BATCH_MAX]
        named = [node.id for node in part if node.id]
        logical = [node.logical_id for node in part if not node.id]
        given: Object = {"NodeIds": named} if named else {}
        given |= {"NodeLogicalIds": logical} if logical else {}
        answer = aws.call("sagemaker", operation, ClusterName=cluster, **given)
        done += len(answer.get("Successful", ())) + len(answer.get("SuccessfulNodeLogicalIds", ()))
        for one in (*answer.get("Failed", ()), *answer.get("FailedNodeLogicalIds", ())):
            name = one.get("NodeId", one.get("NodeLogicalId"))
            failed.append(f"{name}: {one.get('ErrorCode', one.get('Code'))}: {one.get('Message')}")
    if failed:
        told = "\n".join(f"  {one}" for one in failed)
        raise CloudError(
            f"{operation}: {len(failed)} of {len(nodes)} nodes failed, {done} were taken:\n{told}",
            operation=operation,
            code="PartialFailure",
        )
