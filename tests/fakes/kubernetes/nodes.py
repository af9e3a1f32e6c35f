"""bind(pod, …) → the node that takes a pod, or the scheduler's message why none does.

The rules are those of tests/deploy/simulator.py; a cluster without Node objects takes everything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

from tests.deploy import objects, simulator
from tests.fakes.kubernetes.refusal import Object

_MESSAGES = {
    "nodeSelector": "node(s) didn't match Pod's node affinity/selector",
    "node affinity": "node(s) didn't match Pod's node affinity/selector",
    "affinity by": "node(s) didn't match pod affinity rules",
    "anti-affinity by": "node(s) didn't match pod anti-affinity rules",
    "topology spread by": "node(s) didn't match pod topology spread constraints",
    "the node has no": "node(s) didn't match pod topology spread constraints (missing required label)",
    "port": "node(s) didn't have free ports for the requested pod ports",
}


def of(machines: Iterable[simulator.Node], node_ids: Sequence[str] = ()) -> list[Object]:
    """Machines of the simulator as Node objects, ready; providerID ends with the node's id where ids are given."""
    made = []
    for index, machine in enumerate(machines):
        amounts = {name: str(int(amount)) for name, amount in machine.allocatable.items()}
        spec: Object = {"taints": machine.taints} if machine.taints else {}
        if node_ids:
            spec["providerID"] = f"aws:///use2-az1/sagemaker/cluster/{node_ids[index]}"
        status = {"allocatable": amounts, "capacity": amounts, "conditions": [{"type": "Ready", "status": "True"}]}
        meta = {"name": machine.name, "labels": dict(machine.labels)}
        made.append({"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": spec, "status": status})
    return made


def bind(pod: Object, nodes: Sequence[Object], pods: Sequence[Object]) -> tuple[str, str]:
    """(node, "") or ("", why). pods: all there are, of which those on a node count."""
    if not nodes:
        return "node-0", ""
    machines = {each["metadata"]["name"]: _machine(each, pods) for each in nodes}
    wanted, reasons, fitting = _pod(pod), Counter[str](), []
    for each in nodes:
        name = each["metadata"]["name"]
        why = next(simulator.refusals(wanted, machines[name], list(machines.values())), "")
        if each["spec"].get("unschedulable"):
            why = "node(s) were unschedulable"
        if why:
            reasons[_spell(why)] += 1
        else:
            fitting.append(name)
    if fitting:
        return min(fitting, key=lambda name: (len(machines[name].pods), name)), ""
    told = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    preemption = f"0/{len(nodes)} nodes are available: {len(nodes)} Preemption is not helpful for scheduling"
    return "", f"0/{len(nodes)} nodes are available: {told}. preemption: {preemption}."


def _machine(node: Object, pods: Sequence[Object]) -> simulator.Node:
    name = node["metadata"]["name"]
    amounts: dict[str, Any] = node.get("status", {}).get("allocatable", {})
    labels = {simulator.HOSTNAME: name, **node["metadata"].get("labels", {})}
    held = [_pod(each) for each in pods if each["spec"].get("nodeName") == name and _holds(each)]
    taints = [each for each in node["spec"].get("taints", ()) if each["effect"] != "PreferNoSchedule"]
    allocatable = {key: objects.quantity(amount) for key, amount in amounts.items()}
    return simulator.Node(labels, taints, allocatable or _Endless(), held)


class _Endless(dict[str, Fraction]):
    """What a node has that says nothing of it."""

    def get(self, key: str, default: Any = None) -> Any:
        return Fraction(10**15)


def _holds(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")


def _pod(body: Object) -> objects.Pod:
    meta = body["metadata"]
    return objects.Pod(meta["name"], meta["namespace"], meta.get("labels", {}), body["spec"], "")


def _spell(why: str) -> str:
    if why.startswith("taint "):
        return f"node(s) had untolerated taint {{{why.removeprefix('taint ')}: }}"
    if why.startswith("insufficient "):
        return f"Insufficient {why.removeprefix('insufficient ')}"
    return next((said for start, said in _MESSAGES.items() if why.startswith(start)), why)
