"""Nodes: a group with what its checks need, defaults of the cluster filled in. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hyperpd import instances
from hyperpd.cluster.blueprint import Blueprint
from hyperpd.cluster.groups import ROLE_LABEL
from hyperpd.cluster.spec import InstanceGroup
from hyperpd.errors import RecipeError
from hyperpd.instances import InstanceType

_PD = ("prefill", "decode")


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes of one instance group."""

    name: str
    group: InstanceGroup
    count: int
    types: tuple[str, ...]  # one, or any of several
    subnets: tuple[str, ...]
    security_groups: tuple[str, ...]
    role: str  # ARN
    network: str  # path of its subnets in the cluster file
    eks: bool

    @property
    def path(self) -> str:
        """In the cluster file."""
        return f"groups.{self.name}"

    @property
    def known(self) -> list[InstanceType]:
        """Facts of its types, as far as there are any."""
        return [facts for name in self.types if (facts := instance(name))]

    @property
    def efa(self) -> bool:
        """Whether a type of it has EFA."""
        return any(facts.efa for facts in self.known)

    @property
    def serves(self) -> str:
        """The role whose workers it is for: its label's, else its name."""
        return self.group.labels.get(ROLE_LABEL, self.name)

    @property
    def exchanges(self) -> str:
        """The role of P/D it is for; empty where it exchanges no KV cache."""
        return self.serves if self.serves in _PD else ""


def of(plan: Blueprint) -> Iterator[Nodes]:
    """The groups of `plan`."""
    shared = plan.spec.network
    for name, group in plan.groups.items():
        own = group.network
        yield Nodes(
            name,
            group,
            group.count or 0,
            (group.instance_type,) if group.instance_type else group.instance_types,
            own.subnets if own else shared.subnets,
            (own.security_groups if own else ()) or shared.security_groups,
            plan.role_arn(group),
            f"groups.{name}.network.subnets" if own else "network.subnets",
            bool(plan.spec.orchestrator.eks),
        )


def instance(name: str) -> InstanceType | None:
    """Facts of a type, or None where nothing is known."""
    try:
        return instances.find(name)
    except RecipeError:
        return None


def ec2(name: str) -> str:
    """EC2's name of a type: ml.p5.48xlarge is p5.48xlarge there."""
    return name.removeprefix("ml.")
