"""What runs on the EKS cluster: VPC CNI and its network policies, device plugins, the inference operator.

EKS lists the add-ons it installed itself. HyperPod's own Helm chart brings the device plugins, which the Kubernetes
API alone shows.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from hyperpd.cluster.preflight import daemonsets
from hyperpd.cluster.preflight.daemonsets import DaemonSets
from hyperpd.cluster.preflight.finding import Finding, refused, unknown, warning
from hyperpd.cluster.preflight.nodes import Nodes
from hyperpd.cluster.preflight.reading import Object, Reading

CNI, CNI_OLDEST = "vpc-cni", (1, 18, 3)
# pdSpec came with operator 3.2, chart 2.2.1; that add-ons are numbered as the chart is: unverified.
OPERATOR, OPERATOR_PD = "amazon-sagemaker-hyperpod-inference", (2, 2, 1)
_OLDEST = {CNI: CNI_OLDEST, OPERATOR: OPERATOR_PD}
_BAD = ("CREATE_FAILED", "DEGRADED", "UPDATE_FAILED", "DELETE_FAILED")
# What provides devices, by a word in the names of add-ons and of DaemonSets.
_PLUGINS = {"EFA": "efa", "NVIDIA": "nvidia"}
_CHART = "sagemaker-hyperpod-cli/helm_chart/HyperPodHelmChart"


@dataclass(frozen=True, slots=True)
class Installed:
    """addons: name → DescribeAddon's answer, {} where it needs no look or could not be read. newest: versions that
    EKS would install, of add-ons that are too old."""

    addons: dict[str, Object]
    newest: dict[str, str]
    daemonsets: DaemonSets


def read(reading: Reading, cluster: Object) -> Installed | None:
    """cluster: EKS's DescribeCluster. None where add-ons could not be listed."""
    name, region = str(cluster["name"]), reading.caller.where.region
    listed = reading.pages("add-ons", "eks", "list_addons", "addons", clusterName=name)
    if listed is None:
        return None
    found: dict[str, Object] = {one: {} for one in listed}
    newest = {}
    for one in _OLDEST.keys() & found.keys():
        answer = reading.ask(f"add-on {one}", "eks", "describe_addon", clusterName=name, addonName=one)
        found[one] = (answer or {}).get("addon", {})
        if found[one] and _version(found[one]) < _OLDEST[one]:
            newest[one] = _newest(reading, one, str(cluster.get("version")))
    return Installed(found, newest, daemonsets.read(cluster, region))


def _newest(reading: Reading, addon: str, kubernetes: str) -> str:
    """The default of this Kubernetes version; empty where it could not be read."""
    found = reading.pages(
        f"versions of add-on {addon}",
        "eks",
        "describe_addon_versions",
        "addons",
        addonName=addon,
        kubernetesVersion=kubernetes,
    )
    versions = [version for one in found or () for version in one.get("addonVersions", ())]
    default = [one for one in versions if any(each.get("defaultVersion") for each in one.get("compatibilities", ()))]
    return str([*default, *versions, {"addonVersion": ""}][0]["addonVersion"])


def check(cluster: str, region: str, nodes: list[Nodes], there: Installed) -> Iterator[Finding]:
    """cluster: name of the EKS cluster."""
    place = f"EKS console, Clusters, {cluster}, Add-ons"
    where = f"--cluster-name {cluster} --region {region}"
    for name, one in there.addons.items():
        if one.get("status") in _BAD:
            issues = "; ".join(str(issue.get("message")) for issue in one.get("health", {}).get("issues", ()))
            what = f"add-on {name} is {one['status']}" + (f": {issues}" if issues else "")
            version = f" --addon-version {one['addonVersion']}"
            fix = f"aws eks update-addon {where} --addon-name {name}{version} --resolve-conflicts OVERWRITE"
            yield refused("add-on", what, place, fix)
    yield from _cni(where, place, there)
    yield from _plugins(cluster, region, nodes, there)
    yield from _operator(where, place, there)


def _cni(where: str, place: str, there: Installed) -> Iterator[Finding]:
    addon = there.addons.get(CNI)
    if addon is None:
        what = "the VPC CNI is no add-on of EKS here: its version and its network policies could not be checked"
        fix = f"aws eks create-addon {where} --addon-name {CNI} --configuration-values {_policies({})}"
        yield unknown("vpc-cni", what, place, f"{fix} --resolve-conflicts OVERWRITE")
        return
    if not addon:
        return
    values = _values(addon)
    if _version(addon) < CNI_OLDEST:
        wanted = ".".join(map(str, CNI_OLDEST))
        what = f"VPC CNI is {addon['addonVersion']}; HyperPod needs {wanted} or later"
        yield refused("vpc-cni", what, place, _update(where, CNI, there))
    if str(values.get("enableNetworkPolicy", "false")).lower() != "true":
        what = "the VPC CNI enforces no network policy: those that keep others from the engines' ports have no effect"
        fix = f"aws eks update-addon {where} --addon-name {CNI} --configuration-values {_policies(values)}"
        yield warning("network-policy", what, f"{place}, {CNI}", fix)


def _update(where: str, name: str, there: Installed) -> str:
    if not (version := there.newest.get(name)):
        return f"EKS console, Add-ons, {name}, Edit: take the newest version"
    return f"aws eks update-addon {where} --addon-name {name} --addon-version {version} --resolve-conflicts PRESERVE"


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


def _plugins(cluster: str, region: str, nodes: list[Nodes], there: Installed) -> Iterator[Finding]:
    needed = {
        "EFA": [one.name for one in nodes if one.efa and one.exchanges],
        "NVIDIA": [one.name for one in nodes if any(facts.gpus for facts in one.known)],
    }
    names = [*there.addons, *there.daemonsets.names]
    for kind, groups in needed.items():
        if not groups or any(_PLUGINS[kind] in name for name in names):
            continue
        lost = f"{', '.join(groups)} would have no {'EFA devices' if kind == 'EFA' else 'GPUs'} for pods"
        check, place = f"{kind.lower()}-plugin", f"DaemonSets of {cluster}"
        login = f"aws eks update-kubeconfig --name {cluster} --region {region}"
        if there.daemonsets.unread:
            what = f"whether the {kind} device plugin runs could not be checked ({there.daemonsets.unread})"
            look = f"{login}\nkubectl get daemonsets -A | grep {_PLUGINS[kind]}"
            yield unknown(check, f"{what}: without it {lost}", place, look)
        else:
            chart = (
                f"{login}\ngit clone https://github.com/aws/sagemaker-hyperpod-cli\nhelm dependency update {_CHART}\n"
                f"helm upgrade --install hyperpod-dependencies {_CHART} --namespace kube-system"
            )
            yield refused(check, f"no {kind} device plugin runs on {cluster}: {lost}", place, chart)


def _operator(where: str, place: str, there: Installed) -> Iterator[Finding]:
    """Needed for InferenceEndpointConfig alone, and installed when the HyperPod cluster is there: never a problem."""
    addon = there.addons.get(OPERATOR)
    if addon is None:
        what = f"the inference operator ({OPERATOR}) is no add-on here: InferenceEndpointConfig and its pdSpec need it"
        console = "once the cluster is there: SageMaker console, HyperPod clusters, Inference, Quick install"
        yield warning("inference-operator", what, place, console)
    elif addon and _version(addon) < OPERATOR_PD:
        wanted = ".".join(map(str, OPERATOR_PD))
        what = f"the inference operator is {addon['addonVersion']}: pdSpec came with {wanted}, and older ones drop it"
        yield warning("inference-operator", what, place, _update(where, OPERATOR, there))


def _version(addon: Object) -> tuple[int, ...]:
    """ "v1.18.3-eksbuild.2" → (1, 18, 3)."""
    return tuple(map(int, re.findall(r"\d+", str(addon.get("addonVersion", "")).partition("-")[0])[:3]))
