"""What a node is, as far as bash is too weak for it: resource_config.json, fabric, NUMA, node.json.

Standard library and Python 3.9 only. fabric.py beside it is the file that the container imports, and
decides here too. instances.tsv holds the instance types, generated from hyperpd/instances.py.
"""

import argparse
import dataclasses
import ipaddress
import json
import os
import re
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Set

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import fabric  # noqa: E402

VERSION = 1  # of node.json
CONF = Path("/etc/hyperpd")
_ORCHESTRATORS = {"slurm": "slurm", "kubernetes": "eks", "eks": "eks"}


def table(name: str) -> Optional[Dict[str, int]]:
    """GPUs, EFA devices and NVMe in GB of an instance type, or None where nothing is known of it."""
    for line in (HERE / "instances.tsv").read_text().splitlines():
        words = line.split("\t")
        if words[0] == name:
            return {"gpus": int(words[1]), "efa": int(words[2]), "nvme_gb": int(words[3])}
    return None


# ---------------------------------------------------------------- identify


def identify(given: argparse.Namespace) -> int:
    """Print NAME=value lines about this node; the last line of standard error says why not."""
    hardware = Path(given.hardware)
    instance_id = _first(hardware / "sys/devices/virtual/dmi/id/board_asset_tag")
    product = _first(hardware / "sys/devices/virtual/dmi/id/product_name")
    saved = _saved(Path(given.saved)) if given.saved else {}
    warnings: List[str] = []
    try:
        node = _own(_config(Path(given.config)), given.orchestrator, instance_id, given.addresses)
    except ValueError as error:
        # After a reboot the file may be stale; the node is still what it was.
        if not saved:
            print(str(error), file=sys.stderr)
            return 1
        node = {key: str(saved[key]) for key in ("orchestrator", "group", "type", "address", "controller")}
        node["id"] = str(saved["instance_id"])
        warnings.append("{}; taken from the last run's node.json".format(error))
    # A group with InstanceRequirements mixes types: the machine itself knows better.
    if re.fullmatch(r"[a-z][a-z0-9-]*\.[a-z0-9-]+", product) and node["type"] != "ml." + product:
        warnings.append("resource_config.json says {}, the machine is a {}".format(node["type"], product))
        node["type"] = "ml." + product
    facts = table(node["type"])
    if facts is None and re.match(r"ml\.(p|g|gr|trn|inf)\d", node["type"]):
        warnings.append("nothing is known of {}: EFA and NVMe are not counted".format(node["type"]))
    for key, value in node.items():
        print("{}={}".format(key.upper(), value))
    for key, number in (facts or {"gpus": 0, "efa": 0, "nvme_gb": 0}).items():
        print("{}={}".format(key.upper(), number))
    print("KNOWN={}".format("yes" if facts else "no"))
    for warning in warnings:
        print("warning=" + warning)
    return 0


def _config(path: Path) -> Dict[str, Any]:
    try:
        config: Dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError:
        raise ValueError(
            "no resource_config.json at {} (SAGEMAKER_RESOURCE_CONFIG_PATH names another place)".format(path)
        ) from None
    except ValueError as error:
        raise ValueError("{} is not JSON: {}".format(path, error)) from None
    groups = config.get("InstanceGroups") if isinstance(config, dict) else None
    if not isinstance(groups, list) or not groups or not all(isinstance(group, dict) for group in groups):
        raise ValueError("{} has no InstanceGroups".format(path))
    return config


def _own(config: Dict[str, Any], orchestrator: str, instance_id: str, addresses: List[str]) -> Dict[str, str]:
    """Group, type, address of the node among all; by its id first, because addresses are used again."""
    nodes = [(group, node) for group in config["InstanceGroups"] for node in group.get("Instances") or []]
    own = [(group, node) for group, node in nodes if instance_id and node.get("InstanceId") == instance_id]
    own = own or [
        (group, node)
        for group, node in nodes
        if {node.get("CustomerIpAddress"), node.get("AgentIpAddress")} & set(addresses)
    ]
    if not own:
        raise ValueError(
            "this node ({}, {}) is in no instance group of resource_config.json: {}".format(
                instance_id or "no instance id",
                " ".join(addresses) or "no address",
                ", ".join(str(group.get("Name")) for group in config["InstanceGroups"]),
            )
        )
    group, node = own[0]
    address = str(node.get("CustomerIpAddress") or "")
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise ValueError("CustomerIpAddress {!r} of this node is no address".format(address)) from None
    if not re.fullmatch(r"ml\.[a-z0-9-]+\.[a-z0-9-]+", str(group.get("InstanceType"))):
        raise ValueError("InstanceType {!r} of group {} is none".format(group.get("InstanceType"), group.get("Name")))
    if not re.fullmatch(r"[A-Za-z0-9-]{1,63}", str(group.get("Name"))):
        raise ValueError("group name {!r} is none".format(group.get("Name")))
    slurm = _section(config, "SlurmConfig")
    controllers = [slurm.get("PrimaryControllerIp"), *(slurm.get("SecondaryControllerIps") or [])]
    return {
        "orchestrator": _orchestrator(config) if orchestrator == "auto" else orchestrator,
        "group": str(group["Name"]),
        "type": str(group["InstanceType"]),
        "id": instance_id or str(node.get("InstanceId") or ""),
        "address": address,
        "controller": "yes" if address in controllers else "no",
    }


def _section(config: Dict[str, Any], name: str) -> Dict[str, Any]:
    for place in (config, config.get("ClusterConfig")):
        if isinstance(place, dict) and isinstance(place.get(name), dict):
            return dict(place[name])
    return {}


def _orchestrator(config: Dict[str, Any]) -> str:
    cluster = config.get("ClusterConfig")
    said = config.get("ClusterType") or (cluster.get("ClusterType") if isinstance(cluster, dict) else None)
    if not said:
        said = "slurm" if _section(config, "SlurmConfig") else "eks" if _section(config, "KubernetesConfig") else ""
    if str(said).lower() not in _ORCHESTRATORS:
        raise ValueError(
            "ClusterType {!r} of resource_config.json is neither Slurm nor Kubernetes; set HYPERPD_ORCHESTRATOR".format(
                said
            )
        )
    return _ORCHESTRATORS[str(said).lower()]


def _saved(path: Path) -> Dict[str, Any]:
    try:
        node = json.loads(path.read_text()).get("node", {})
    except (OSError, ValueError):
        return {}
    wanted = {"orchestrator", "group", "type", "instance_id", "address", "controller"}
    return node if isinstance(node, dict) and wanted <= set(node) else {}


# ---------------------------------------------------------------- fabric


def present(root: str) -> fabric.Present:
    """What the machine has, for a service: its memlock comes from its unit, not from this process."""
    return dataclasses.replace(fabric.look(Path(root)), memlock_unlimited=True)


def efa(given: argparse.Namespace) -> int:
    """Print the checks of EFA: state, name, seen, wanted, fix."""
    for check in fabric.efa_checks(present(given.hardware), given.expected or None):
        print("\t".join((check.state, check.name, check.seen, check.wanted, check.fix)))
    return 0


def wanted(setting: str, efa_devices: int, gpus: int) -> "tuple[str, str]":
    """Fabric and accelerator of a node that has these."""
    if setting == "auto":
        setting = "efa" if efa_devices and gpus else "tcp"
    return setting, "gpu" if gpus else "cpu"


def environment(given: argparse.Namespace) -> int:
    """Print fabric.env; exit code 1 and the reason where the fabric cannot be used."""
    here = fabric.look(Path(given.hardware))
    name, accelerator = wanted(given.wanted, given.expected or len(here.efa), given.gpus or here.gpus)
    # Network devices are this namespace's own; the rest is what hardware answers.
    here = dataclasses.replace(present(given.hardware), network=fabric.look().network)
    try:
        decision = fabric.decide(
            name,
            accelerator,
            here,
            address=given.address,
            allow_tcp=given.allow_tcp,
            efa_expected=given.expected or None,
        )
    except fabric.Unusable as error:
        print(str(error).replace("\n", " "), file=sys.stderr)
        return 1
    print("# Written by hyperpd's lifecycle scripts; computed by fabric.py. A worker on this node uses these.")
    for key, value in sorted({**decision.environment, "HYPERPD_NODE_FABRIC": decision.fabric}.items()):
        print("{}={}".format(key, value))
    return 0


# ---------------------------------------------------------------- NUMA


def numa(given: argparse.Namespace) -> int:
    """Print JSON: for each NUMA node its CPUs, GPUs, EFA devices and NVMe."""
    root = Path(given.hardware)
    nodes: Dict[str, Dict[str, Any]] = {}
    for folder in sorted((root / "sys/devices/system/node").glob("node[0-9]*")):
        nodes[folder.name[4:]] = {"cpus": _first(folder / "cpulist"), "gpus": [], "efa": [], "nvme": []}

    def put(kind: str, name: str, where: Path) -> None:
        # -1 is what the kernel says of a machine without NUMA.
        node = str(max(0, int(_first(where) or "0")))
        nodes.setdefault(node, {"cpus": "", "gpus": [], "efa": [], "nvme": []})[kind].append(name)

    for gpu in _names(root / "proc/driver/nvidia/gpus"):
        put("gpus", gpu, root / "sys/bus/pci/devices" / gpu / "numa_node")
    for device in fabric.look(root).efa:
        put("efa", device, root / "sys/class/infiniband" / device / "device/numa_node")
    for disk in _names(root / "sys/block"):
        if _first(root / "sys/block" / disk / "device/model") == "Amazon EC2 NVMe Instance Storage":
            put("nvme", disk, root / "sys/block" / disk / "device/device/numa_node")
    print(json.dumps(nodes, sort_keys=True))
    return 0


# ---------------------------------------------------------------- ports


def ports(given: argparse.Namespace) -> int:
    """Print the union of lists of ports as the kernel writes it: sorted, adjoining ranges joined."""
    found: Set[int] = set()
    for word in re.split(r"[,\s]+", ",".join(given.lists)):
        if word:
            first, _, last = word.partition("-")
            if not 0 < int(first) <= int(last or first) < 65536:
                print("{} is no range of ports".format(word), file=sys.stderr)
                return 1
            found.update(range(int(first), int(last or first) + 1))
    ranges: List[List[int]] = []
    for port in sorted(found):
        if ranges and ranges[-1][1] == port - 1:
            ranges[-1][1] = port
        else:
            ranges.append([port, port])
    print(",".join(str(a) if a == b else "{}-{}".format(a, b) for a, b in ranges))
    return 0


# ---------------------------------------------------------------- node.json


def summary(given: argparse.Namespace) -> int:
    """Print node.json. It holds no time and no count of changes: an unchanged node has an unchanged file."""
    parts: Dict[str, Dict[str, Any]] = {"found": {}, "set": {}, "left": {}}
    warnings: List[str] = []
    for line in Path(given.records).read_text().splitlines():
        kind, step, key, value = line.split("\t", 3)
        if kind == "warning":
            warnings.append("{}: {}".format(step, key))
        elif kind in parts:
            parts[kind].setdefault(step, {})[key] = json.loads(value) if value[:1] in ("{", "[") else value
    env = {key[len("HYPERPD_NODE_") :].lower(): value for key, value in os.environ.items() if "HYPERPD_NODE_" in key}
    keys = ("orchestrator", "group", "type", "address", "controller")
    answer = {
        "version": VERSION,
        "status": "warnings" if given.status == "ok" and warnings else given.status,
        "step": given.step if given.reason else "",
        "reason": given.reason,
        "node": {**{key: env.get(key, "") for key in keys}, "instance_id": env.get("id", "")},
        "settings": {name: os.environ[name] for name in given.settings.split() if name in os.environ},
        **parts,
        "warnings": warnings,
    }
    print(json.dumps(answer, indent=2, sort_keys=True))
    return 0


def _first(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _names(folder: Path) -> List[str]:
    try:
        return sorted(os.listdir(str(folder)))
    except OSError:
        return []


def main() -> int:
    parser = argparse.ArgumentParser(description="Facts of a node for the lifecycle scripts.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, function in (("identify", identify), ("efa", efa), ("fabric", environment), ("numa", numa)):
        command = commands.add_parser(name)
        command.set_defaults(run=function)
        command.add_argument("--hardware", default="/")
        if name == "identify":
            command.add_argument("--config", required=True)
            command.add_argument("--saved", default="")
            command.add_argument("--orchestrator", default="auto")
            command.add_argument("addresses", nargs="*")
        if name in ("efa", "fabric"):
            command.add_argument("--expected", type=int, default=0)
        if name == "fabric":
            command.add_argument("--wanted", default="auto")
            command.add_argument("--gpus", type=int, default=0)
            command.add_argument("--address", default="")
            command.add_argument("--allow-tcp", action="store_true")
    command = commands.add_parser("ports")
    command.set_defaults(run=ports)
    command.add_argument("lists", nargs="+")
    command = commands.add_parser("summary")
    command.set_defaults(run=summary)
    for name in ("records", "status", "reason", "step", "settings"):
        command.add_argument("--" + name, default="")
    given = parser.parse_args()
    return int(given.run(given))


if __name__ == "__main__":
    sys.exit(main())
