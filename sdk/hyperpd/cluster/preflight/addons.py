"""Add-ons of the EKS cluster: VPC CNI and its network policies, device plugins, the inference operator.

EKS lists add-ons it installed. What Helm installed, as HyperPod's own chart does with device plugins, is seen by the
Kubernetes API alone, which is not asked here: that is an unknown finding, with the command that looks.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator

from hyperpd.cluster.preflight.finding import Finding, refused, unknown, warning
from hyperpd.cluster.preflight.nodes import Nodes
from hyperpd.cluster.preflight.reading import Object, Reading

CNI, CNI_OLDEST = "vpc-cni", (1, 18, 3)
OPERATOR, OPERATOR_PD = "amazon-sagemaker-hyperpod-inference", (2, 2, 1)  # pdSpec: operator 3.2, chart 2.2.1
_BAD = ("CREATE_FAILED", "DEGRADED", "UPDATE_FAILED", "DELETE_FAILED")
# What provides devices, by words in the names of add-ons and of DaemonSets.
_PLUGINS = {"EFA": ("efa",), "NVIDIA": ("nvidia",)}
_HELM = "https://github.com/aws/sagemaker-hyperpod-cli, helm_chart/HyperPodHelmChart"


def read(reading: Reading, cluster: str) -> dict[str, Object] | None:
    """Name → DescribeAddon's answer ({} where it needs no look, or could not be read); None: could not be listed."""
    listed = reading.pages("add-ons", "eks", "list_addons", "addons", clusterName=cluster)
    if listed is None:
        return None
    found: dict[str, Object] = {}
    for one in listed:
        if one in (CNI, OPERATOR):
            answer = reading.ask(f"add-on {one}", "eks", "describe_addon", clusterName=cluster, addonName=one)
            found[one] = (answer or {}).get("addon", {})
        else:
            found[one] = {}
    return found


def check(cluster: str, region: str, nodes: list[Nodes], addons: dict[str, Object]) -> Iterator[Finding]:
    """cluster: name of the EKS cluster."""
    place = f"EKS console, Clusters, {cluster}, Add-ons"
    there = f"--cluster-name {cluster} --region {region}"
    for name, one in addons.items():
        if one.get("status") in _BAD:
            issues = "; ".join(str(issue.get("message")) for issue in one.get("health", {}).get("issues", ()))
            what = f"add-on {name} is {one['status']}" + (f": {issues}" if issues else "")
            version = f" --addon-version {one['addonVersion']}"
            fix = f"aws eks update-addon {there} --addon-name {name}{version} --resolve-conflicts OVERWRITE"
            yield refused("add-on", what, place, fix)
    yield from _cni(there, place, addons.get(CNI))
    yield from _plugins(cluster, region, nodes, addons)
    yield from _operator(there, place, addons.get(OPERATOR))


def _cni(there: str, place: str, addon: Object | None) -> Iterator[Finding]:
    if addon is None:
        what = "the VPC CNI is no add-on of EKS here: its version and its network policies could not be checked"
        fix = f"aws eks create-addon {there} --addon-name {CNI} --configuration-values {_policies({})}"
        yield unknown("vpc-cni", what, place, f"{fix} --resolve-conflicts OVERWRITE")
        return
    if not addon:
        return
    version, values = str(addon.get("addonVersion", "")), _values(addon)
    if _version(version) < CNI_OLDEST:
        wanted = ".".join(map(str, CNI_OLDEST))
        what = f"VPC CNI is {version}; HyperPod needs {wanted} or later"
        fix = f"aws eks update-addon {there} --addon-name {CNI} --addon-version v{wanted}-eksbuild.1"
        yield refused("vpc-cni", what, place, f"{fix} --resolve-conflicts PRESERVE")
    if str(values.get("enableNetworkPolicy", "false")).lower() != "true":
        what = "the VPC CNI enforces no network policy: those that keep others from the engines' ports have no effect"
        fix = f"aws eks update-addon {there} --addon-name {CNI} --configuration-values {_policies(values)}"
        yield warning("network-policy", what, f"{place}, {CNI}", fix)


def _policies(values: Object) -> str:
    return shlex.quote(json.dumps({**values, "enableNetworkPolicy": "true"}))


def _values(addon: Object) -> Object:
    """configurationValues, which are JSON or YAML in a text."""
    import yaml

    try:
        found = yaml.safe_load(addon.get("configurationValues") or "{}")
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def _plugins(cluster: str, region: str, nodes: list[Nodes], addons: dict[str, Object]) -> Iterator[Finding]:
    needed = {
        "EFA": [one.name for one in nodes if one.efa and one.exchanges],
        "NVIDIA": [one.name for one in nodes if any(facts.gpus for facts in one.known)],
    }
    for kind, groups in needed.items():
        if not groups or any(word in name for word in _PLUGINS[kind] for name in addons):
            continue
        what = f"the {kind} device plugin is no add-on of EKS; whether Helm installed it could not be checked"
        what += f": without it {', '.join(groups)} have no {'EFA devices' if kind == 'EFA' else 'GPUs'} for pods"
        look = (
            f"aws eks update-kubeconfig --name {cluster} --region {region}\n"
            f"kubectl get daemonsets -A | grep -i {_PLUGINS[kind][0]} (none: helm, {_HELM})"
        )
        yield unknown(f"{kind.lower()}-plugin", what, f"DaemonSets of {cluster}", look)


def _operator(there: str, place: str, addon: Object | None) -> Iterator[Finding]:
    """Needed for InferenceEndpointConfig alone, so never a problem here. Its add-on's versions: unverified."""
    if addon is None:
        what = f"the inference operator ({OPERATOR}) is no add-on here: InferenceEndpointConfig and its pdSpec need it"
        yield warning("inference-operator", what, place, f"aws eks create-addon {there} --addon-name {OPERATOR}")
    elif addon and _version(str(addon.get("addonVersion", ""))) < OPERATOR_PD:
        wanted = ".".join(map(str, OPERATOR_PD))
        what = (
            f"the inference operator is {addon.get('addonVersion')}: pdSpec came with {wanted}, and older ones drop it"
        )
        fix = f"aws eks update-addon {there} --addon-name {OPERATOR} --addon-version v{wanted}-eksbuild.1"
        yield warning("inference-operator", what, place, fix)


def _version(text: str) -> tuple[int, ...]:
    """ "v1.18.3-eksbuild.2" → (1, 18, 3)."""
    return tuple(map(int, re.findall(r"\d+", text.partition("-")[0])[:3]))
