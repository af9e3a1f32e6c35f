"""Why no node takes a pod: the scheduler's message taken apart, and held to what the nodes say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from hyperpd.deploy.kubernetes.machines import EFA, GPU
from hyperpd.deploy.stuck.cause import Cause, Object, Seen, Sign, Stage, condition, name, read, told

HEALTH = "sagemaker.amazonaws.com/node-health-status"
_TYPE = "node.kubernetes.io/instance-type"
_SUFFIXES = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_KUEUE_GATES = ("kueue.x-k8s.io/admission", "kueue.x-k8s.io/topology")
_ADD = "add nodes: hyperpd cluster scale CLUSTER GROUP=N, then hyperpd cluster watch CLUSTER"
# In the order in which the scheduler asks, so a node that gives a later reason passed the earlier ones and came nearer.
# Taints and selectors lie together: which of them matters, the nodes tell.
_SELECTOR = r"didn't match Pod's node affinity|didn't match node selector"
_RESOURCE = r"Insufficient (?P<resource>[^\s,]+)"
SIGNS = (
    Sign(
        r"were unschedulable|node\.kubernetes\.io/unschedulable",
        "cordoned",
        "kubectl uncordon NODE where nobody drains it any more",
    ),
    Sign(
        rf"taint[s]? \{{{re.escape(HEALTH)}: (?P<health>[^}}]*)\}}",
        "about to be rebooted or replaced by HyperPod ({health})",
        "wait for HyperPod, or: hyperpd cluster repair CLUSTER --unhealthy --replace",
    ),
    Sign(
        r"taint[s]? \{node\.kubernetes\.io/(?P<state>not-ready|unreachable|network-unavailable)[:}]",
        "not ready themselves ({state})",
        "kubectl describe node NODE; hyperpd cluster nodes CLUSTER; a sick one: hyperpd cluster repair CLUSTER"
        " --unhealthy --replace",
    ),
    Sign(
        r"taint[s]? \{node\.kubernetes\.io/(?P<state>disk|memory|pid)-pressure",
        "short of {state}",
        "free what fills them, or choose the option cache_folder on a larger volume",
    ),
    Sign(
        r"taint[s]? \{(?P<taint>[^}]*)\}",
        "kept for others by the taint {taint}",
        "take that taint off the instance group (cluster file, then hyperpd cluster update): pods of hyperpd bear those"
        f" of {GPU} and {EFA} alone",
    ),
    Sign(
        r"untolerated taint",
        "kept for others by a taint",
        "kubectl get nodes -o custom-columns=NAME:.metadata.name,TAINTS:.spec.taints; take it off the instance group"
        f" (cluster file, then hyperpd cluster update): pods of hyperpd bear those of {GPU} and {EFA} alone",
    ),
    Sign(_SELECTOR, "of another kind (instance type, labels)", "{selector}"),
    Sign(r"free ports", "taken on a port that it wants", "one such pod on each node: add nodes"),
    Sign(r"Too many pods", "full of pods", _ADD),
    Sign(_RESOURCE, "short of {resource}", "{resources}"),
    Sign(
        r"volume node affinity conflict|available volume zone|no available volume zone",
        "in another zone than its volume",
        "a volume lies in one zone: instance groups there (subnets of the group), or a file system mount for all zones"
        " (FSx over a network it reaches)",
    ),
    Sign(
        r"exceed max volume count",
        "full of volumes",
        "fewer pods with a volume on each node, or add nodes",
    ),
    Sign(
        r"topology spread constraints",
        "not where the spread allows it",
        "add nodes in the zones that have fewer",
    ),
    Sign(
        r"anti-affinity",
        "taken by the other role: prefill and decode do not share a machine on EFA",
        "add nodes: each role needs machines of its own: hyperpd cluster scale CLUSTER GROUP=N",
    ),
    Sign(
        r"pod affinity rules",
        "in another zone than the first worker (placement.same_zone)",
        "nodes of both roles in one zone (subnets of the groups), or placement.same_zone: false, at the price of slower"
        " KV transfers",
    ),
)
# Instead of a count of nodes.
WHOLE = (
    Sign(r"no nodes available to schedule pods", "the cluster has no node", "{add}"),
    Sign(
        r'persistentvolumeclaim "(?P<claim>[^"]+)" not found',
        "there is no PersistentVolumeClaim {claim} in its namespace",
        "make it there (model.claim of the recipe names it), or correct the recipe",
    ),
    Sign(
        r"unbound immediate PersistentVolumeClaims|bound to non-existent pv",
        "its PersistentVolumeClaim has no volume",
        "kubectl describe pvc -n {namespace}: a class or a volume of that name, its CSI driver as an EKS add-on",
    ),
)


def of_pod(pod: Object, seen: Seen) -> Iterator[Cause]:
    """At most one: a pod without a node has one last answer from the scheduler."""
    if pod.get("spec", {}).get("nodeName"):
        return
    gates = [str(one.get("name")) for one in pod.get("spec", {}).get("schedulingGates", ())]
    if gates:
        if not (set(gates) & set(_KUEUE_GATES) and _queued(pod, seen)):  # then the Workload says why
            yield _gated(pod, gates)
        return
    message = str(condition(pod, "PodScheduled").get("message", "")) or seen.said(pod, "FailedScheduling")
    if message:
        yield unplaced(pod, message, seen.nodes)


def unplaced(pod: Object, message: str, nodes: Sequence[Object]) -> Cause:
    """Of the scheduler's message."""
    namespace, who = str(pod["metadata"].get("namespace", "")), (name(pod, "Pod"),)
    counts = reasons(message)
    if not counts:
        whole = read([_filled(one, namespace=namespace, add=_ADD) for one in WHOLE], message)
        what, fix = (whole.what, whole.fix) if whole else ("no node takes it", _ADD)
        return Cause(Stage.UNPLACED, who, what, "" if whole else message, fix)
    kind = [node for node in nodes if selected(pod, node)]
    signs = [_filled(sign, selector=_selector(pod, nodes), resources=_ADD) for sign in SIGNS]
    understood = [(each, count, read(signs, each)) for each, count in counts.items()]
    told = ", ".join(
        f"{count} {'is' if count == 1 else 'are'} {sign.what}" if sign else f"{count}: {each}"
        for each, count, sign in _joined(understood)
    )
    order = {sign.words: number for number, sign in enumerate(SIGNS)}

    def near(sign: Sign | None) -> int:
        if sign and sign.words == _SELECTOR:  # nodes of another kind say nothing while there are some of the right one
            return -1 if kind else len(order) + 1
        return order[sign.words] if sign else len(order)

    nearest = max(understood, key=lambda one: near(one[2]))[2]
    lacking = [found["resource"] for each in counts if (found := re.search(_RESOURCE, each))]
    fixes = [nearest.fix if nearest else _ADD]
    if nearest and nearest.words == _RESOURCE:
        fixes = list(_resources(pod, lacking, kind))
    total = re.match(r"\d+/(\d+)", message)
    what = f"no node takes it: of {total[1] if total else sum(counts.values())} nodes {told}"
    return Cause(Stage.UNPLACED, who, what, "", "; ".join(fixes))


def reasons(message: str) -> dict[str, int]:
    """The scheduler's words → of how many nodes; what it says of preemption left out. Empty where it counts none."""
    found = re.match(r"\d+/\d+ nodes are available: (.*?)\.?(\s+preemption: .*)?$", " ".join(message.split()))
    if not found:
        return {}
    counts: dict[str, int] = {}
    for part in re.split(r", (?=\d+ )", found[1]):
        counted = re.match(r"(\d+) (.+)", part)
        if counted:
            counts[counted[2].rstrip(".")] = counts.get(counted[2].rstrip("."), 0) + int(counted[1])
    return counts


def _joined(understood: Sequence[tuple[str, int, Sign | None]]) -> list[tuple[str, int, Sign | None]]:
    """Reasons of one meaning as one."""
    found: dict[str, tuple[str, int, Sign | None]] = {}
    for each, count, sign in understood:
        key = sign.what if sign else each
        before = found[key][1] if key in found else 0
        found[key] = (each, before + count, sign)
    return list(found.values())


def _resources(pod: Object, lacking: Sequence[str], kind: Sequence[Object]) -> Iterator[str]:
    """What to try where nodes are short of resources. kind: the nodes that the pod may go to; empty: not known."""
    taken = []
    for resource in lacking:
        asked = sum(_asked(container, resource) for container in pod["spec"].get("containers", ()))
        offers = [_quantity(node.get("status", {}).get("allocatable", {}).get(resource, "0")) for node in kind]
        if kind and not any(offers):
            yield f"none of them offers {resource}{_provider(resource)}"
        elif kind and asked > max(offers):
            yield (
                f"no node has more than {_shown(max(offers), resource)} of {resource}, and a worker asks for"
                f" {_shown(asked, resource)}: a larger instance type, or less for each worker (parallel, instance_type)"
            )
        else:
            taken.append(resource)
    if taken:
        yield f"{' and '.join(taken)}: all taken; {_ADD}; what holds it: kubectl get pods -A -o wide"


def _provider(resource: str) -> str:
    """Who makes nodes offer a resource."""
    if resource in (GPU, EFA):
        word = "nvidia" if resource == GPU else "efa"
        return (
            f": its device plugin does not run there (HyperPod's Helm chart brings it: kubectl get daemonsets -A | grep"
            f" {word}), or knows no such instance type"
        )
    if resource.startswith("hugepages"):
        return (
            ": EFA's driver sets them aside at boot (lifecycle_scripts/steps/30-efa.sh); on a node: grep Huge"
            " /proc/meminfo"
        )
    return ""


def _asked(container: Object, resource: str) -> float:
    given = container.get("resources", {})
    amounts = {**given.get("limits", {}), **given.get("requests", {})}
    return _quantity(amounts.get(resource, "0"))


def _quantity(amount: object) -> float:
    found = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", str(amount))
    return float(found[1]) * _SUFFIXES.get(found[2], 1) if found else 0.0


def _shown(amount: float, resource: str) -> str:
    sized = resource in ("memory", "ephemeral-storage") or resource.startswith("hugepages")
    return f"{amount / 2**30:.0f} GiB" if sized else f"{amount:g}"


def _wanted(pod: Object) -> Mapping[str, str]:
    wanted: Mapping[str, str] = pod.get("spec", {}).get("nodeSelector") or {}
    return wanted


def selected(pod: Object, node: Object) -> bool:
    """Whether a node is of the kind that a pod wants. Its health passes, and is no kind."""
    labels = node["metadata"].get("labels", {})
    return all(labels.get(key) == value for key, value in _wanted(pod).items() if key != HEALTH)


def _selector(pod: Object, nodes: Sequence[Object]) -> str:
    """What to try where no node has the labels that a pod wants."""
    wanted, found = _wanted(pod), []
    for key, value in wanted.items():
        there = sorted({str(node["metadata"].get("labels", {}).get(key, "none")) for node in nodes})
        if nodes and value not in there:
            found.append(f"no node has {key}={value}; there are {', '.join(there)}")
    if (kind := wanted.get(_TYPE)) and found:
        names = {str(node["metadata"].get("labels", {}).get(_TYPE)) for node in nodes}
        if f"ml.{kind}" in names or kind.removeprefix("ml.") in names:
            found.append(f"--set platform={'hyperpod' if f'ml.{kind}' in names else 'eks'} writes the type as there")
    if found:
        return f"{'; '.join(found)}; an instance group of that kind, or another instance_type in the recipe"
    text = ", ".join(f"{key}={value}" for key, value in wanted.items()) or "its node affinity"
    return f"no node meets {text} together: kubectl get nodes --show-labels; {_ADD}"


def _filled(sign: Sign, **values: str) -> Sign:
    """Placeholders that no group of the words fills."""
    fix = sign.fix
    for key, value in values.items():
        fix = fix.replace("{" + key + "}", value.replace("{", "{{").replace("}", "}}"))
    return Sign(sign.words, sign.what, fix)


def _queued(pod: Object, seen: Seen) -> bool:
    """Whether a Workload of Kueue's in the pod's namespace waits."""
    return any(
        body.get("kind") == "Workload"
        and body["metadata"].get("namespace") == pod["metadata"].get("namespace")
        and condition(body, "Admitted").get("status") != "True"
        for body in seen.objects
    )


def _gated(pod: Object, gates: Sequence[str]) -> Cause:
    if any(gate in _KUEUE_GATES for gate in gates):
        queue = pod["metadata"].get("labels", {}).get("kueue.x-k8s.io/queue-name", "")
        namespace = pod["metadata"].get("namespace", "")
        return Cause(
            Stage.UNPLACED,
            (name(pod, "Pod"),),
            f"Kueue has not admitted it{f' (queue {queue})' if queue else ''}",
            told(condition(pod, "PodScheduled")),
            f"kubectl get workloads -n {namespace} says what its queue waits for"
            + (f"; kubectl describe localqueue {queue} -n {namespace}" if queue else ""),
        )
    return Cause(
        Stage.UNPLACED,
        (name(pod, "Pod"),),
        f"held back by scheduling gates: {', '.join(gates)}",
        told(condition(pod, "PodScheduled")),
        "whoever set the gate takes it away: look at the controller of that name",
    )
