"""patch(…): UpdateClusterSoftware, one group after the other, with its workers drained, and checked afterwards.

AWS takes an update back without a word where nodes do not come up with it (a lifecycle script that does not fit the new
image, most often): the image's release, before and after, is what tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

from hyperpd.cluster import reader
from hyperpd.cluster.aws import Aws
from hyperpd.cluster.groups import ROLE_LABEL
from hyperpd.cluster.names import Names
from hyperpd.cluster.nodes import last_of_a_role, taken_at_once
from hyperpd.cluster.progress import Step, Tell
from hyperpd.cluster.state import GroupState, Node, Status
from hyperpd.cluster.watch import POLL_S, TIMEOUT_S, Wait
from hyperpd.errors import CloudError, NotReady, RecipeError

# Takes a role's nodes out of traffic while its context lasts. Which endpoint runs on them, `hyperpd.deploy` knows.
Drain = Callable[[Sequence[Node], Tell], AbstractContextManager[None]]
_FIRST = ("prefill", "decode", "aggregated", "node")  # workers, in this order; a pair is never patched at once
_SERVE = (*_FIRST, "gateway")
_HEADS = ("controller", "login")  # of Slurm: no job runs there


@dataclass(frozen=True, slots=True)
class Patched:
    """A group, and its image's release before and after."""

    group: str
    before: str
    after: str


@contextmanager
def no_endpoint(nodes: Sequence[Node], tell: Tell) -> Iterator[None]:
    """The drain where hyperpd knows of no endpoint on these nodes."""
    tell(
        Step(
            f"drain: no endpoint deployed by hyperpd is known on {len(nodes)} nodes, so none is taken out of traffic;"
            " workers finish their requests as SIGTERM reaches them, within the recipe's drain_s"
        )
    )
    yield


def patch(
    aws: Aws,
    names: Names,
    groups: Sequence[str],
    tell: Tell,
    *,
    drain: Drain = no_endpoint,
    release: str | None = None,
    batch: int = 1,
    force: bool = False,
    timeout_s: float = TIMEOUT_S,
    poll_s: float = POLL_S,
) -> list[Patched]:
    """Patch `groups`, or all that have an update; what became of each.

    release: of the image, as in 1.2.3; default: the newest. batch: nodes of a group at once. drain: around each group,
    whatever its role, but Slurm's controller and login nodes. A role never loses its last healthy node, nor does a
    group of EKS whose role is not known, unless by `force`. Raises RecipeError for that and for groups that are not
    there, NotReady where a group was rolled back, CloudError.
    """
    cluster = _status(aws, names)
    if unknown := [name for name in groups if cluster.group(name) is None]:
        known = ", ".join(group.name for group in cluster.groups)
        raise RecipeError("groups", [f"{name}: no such group; there are {known}" for name in unknown])
    if cluster.status != "InService":
        raise CloudError(f"{names.cluster} is {cluster.status}: it is patched in service alone; watch it first")
    chosen = [group for group in cluster.groups if group.name in groups or (not groups and _behind(group, release))]
    if not chosen:
        tell(Step("every group is up to date"))
    chosen.sort(key=lambda group: _FIRST.index(group.role) if group.role in _FIRST else len(_FIRST))
    if not force and (problems := list(_ends_a_role(cluster, reader.nodes(aws, cluster), chosen, batch))):
        raise RecipeError("patch", problems)
    found: list[Patched] = []
    for group in chosen:
        everyone = reader.nodes(aws, cluster)
        # Again, since the groups before took hours, and nodes may have failed.
        if found and not force and (problems := list(_ends_a_role(cluster, everyone, [group], batch))):
            raise RecipeError(f"patch, after {', '.join(one.group for one in found)}", problems)
        nodes = [node for node in everyone if node.group == group.name]
        headed = cluster.orchestrator == "slurm" and group.role in _HEADS
        with nullcontext() if headed else drain(nodes, tell):
            found.append(_patch(aws, names, group, release, batch, tell, timeout_s, poll_s))
    return found


def _ends_a_role(cluster: Status, nodes: Sequence[Node], chosen: Sequence[GroupState], batch: int) -> Iterator[str]:
    """Roles that would have no healthy node meanwhile.

    On EKS a group of another name, without a label, counts as a role of its own: workers go where their recipe's
    selectors let them. On Slurm it does not: the controller is one node by its nature, and may have any name.
    """
    for group in chosen:
        known = group.role in _SERVE
        if known or cluster.orchestrator == "eks":
            fix = "scale the group up first, give a smaller --batch, or --force and lose its requests"
            unsaid = "" if known else f" (whose workers it has, no label {ROLE_LABEL} says)"
            for one in last_of_a_role(cluster, nodes, taken_at_once(nodes, group.name, batch)):
                yield f"{one}; {fix}{unsaid}"


def _patch(
    aws: Aws,
    names: Names,
    group: GroupState,
    release: str | None,
    batch: int,
    tell: Tell,
    timeout_s: float,
    poll_s: float,
) -> Patched:
    wanted = {"InstanceGroupName": group.name} | ({"ImageReleaseVersion": release} if release else {})
    size = {"Type": "INSTANCE_COUNT", "Value": batch}
    tell(
        Step(f"{group.name}: patch sent, {batch} of {group.current} nodes at once; release now {group.release or '-'}")
    )
    aws.call(
        "sagemaker",
        "update_cluster_software",
        ClusterName=names.cluster,
        InstanceGroups=[wanted],
        DeploymentConfig={"RollingUpdatePolicy": {"MaximumBatchSize": size}},
    )
    wait = Wait(aws, names, tell, timeout_s, poll_s, doing="patch")
    wait.begun(group.name)
    wait.ready()
    after = _status(aws, names).group(group.name)
    if after is None:
        raise NotReady(f"{group.name} is gone")
    unchanged = after.release == group.release and _behind(group, release)
    if after.update in ("RollbackComplete", "Failed") or unchanged or (release and after.release != release):
        raise NotReady(
            f"{group.name} was rolled back: its image's release was {group.release} and is {after.release}"
            f" (software update: {after.update or 'AWS says nothing'}). Most often a lifecycle script does not fit the"
            f" new image: CloudWatch {names.logs}…, streams LifecycleConfig/{group.name}/…, has its last lines"
        )
    tell(Step(f"{group.name}: release {group.release} → {after.release}"))
    return Patched(group.name, group.release, after.release)


def _behind(group: GroupState, release: str | None) -> bool:
    return group.release != release if release else group.image_status not in ("", "UpToDate")


def _status(aws: Aws, names: Names) -> Status:
    found = reader.status(aws, names.cluster)
    if found is None:
        raise CloudError(f"there is no cluster {names.cluster} in {names.place.region}", code="ResourceNotFound")
    return found
