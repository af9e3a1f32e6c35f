"""`hyperpd doctor`: everything a worker needs of this machine, each with the value seen and the value wanted."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from hyperpd import fabric, instances, versions
from hyperpd.environment import model_path
from hyperpd.errors import FabricError, HyperpdError
from hyperpd.fabric import Check, Decision
from hyperpd.placement import Ports
from hyperpd.recipe import Recipe, load
from hyperpd_runtime import preflight, probe
from hyperpd_runtime.transport import plugin

_SHM_GIB = 1
_STA_UNSYNC = 0x40
_SYSCTLS: dict[str, tuple[str, Callable[[int], bool]]] = {  # name: what is wanted, and whether a value is that
    "net.ipv4.tcp_retries2": ("at most 8: a cut link is noticed in seconds", lambda value: value <= 8),
    "net.core.somaxconn": ("at least 1024", lambda value: value >= 1024),
}
_TCP_FLOOR_GB_S = 0.05
_NODE_SUMMARY = Path("/etc/hyperpd/node.json")  # written by lifecycle_scripts/node.py


def examine(recipe: Recipe, address: str, instance_type: str, ports: Ports, net_devices: str) -> list[Check]:
    """All checks for a worker of `recipe` on this machine. Raises RecipeError for an unknown instance type."""
    facts = instances.find(instance_type) if instance_type else None
    present = fabric.look()
    checks = [_engine(), _nixl()]
    checks.append(_gpus(present.gpus, facts.gpus if facts else None, recipe.accelerator))
    if recipe.fabric == "efa":
        checks += [*fabric.efa_checks(present, facts.efa if facts else None), _libfabric()]
    decision = _decision(recipe, present, address, facts.efa if facts else None, net_devices)
    if isinstance(decision, Check):
        checks.append(decision)
    else:
        known = {check.name for check in checks}
        checks += [check for check in decision.checks if check.name not in known]
        checks.append(plugin(decision.backend))
    checks += [_shm(), *map(_sysctl, _SYSCTLS), _clock(), _memlock(recipe), *_nvme(facts.nvme_gb if facts else 0)]
    checks += [_ports(address, ports), _model(recipe), *lifecycle()]
    return checks


def _decision(
    recipe: Recipe, present: fabric.Present, address: str, efa: int | None, net_devices: str
) -> Decision | Check:
    try:
        return fabric.decide(
            recipe.fabric,
            recipe.accelerator,
            present,
            address=address,
            allow_tcp=recipe.kv_transfer.allow_tcp,
            efa_expected=efa,
            net_devices=net_devices,
        )
    except fabric.Unusable as error:
        why = "; ".join(f"{check.name}: {check.seen}" for check in error.checks)
        fix = error.checks[0].fix
        return Check(f"fabric {recipe.fabric}", "failed", why, "usable", fix)


def _engine() -> Check:
    found = versions.installed()
    have = "vLLM " + ", ".join(engine.vllm for engine in versions.ENGINES)
    state = "failed" if not found else "ok" if versions.known(found) else "warning"
    return Check("engine", state, found or "none", have, "make up, or an image that has the engine")


def _nixl() -> Check:
    engine = versions.known(versions.installed())
    wanted = engine.nixl if engine else versions.ENGINES[0].nixl
    try:
        found = metadata.version("nixl")
    except metadata.PackageNotFoundError:
        return Check("NIXL", "failed", "none", wanted, f"pip install nixl=={wanted}")
    return Check("NIXL", "ok" if found == wanted else "warning", found, wanted, f"pip install nixl=={wanted}")


def _gpus(found: int, expected: int | None, accelerator: str) -> Check:
    version = Path("/proc/driver/nvidia/version")
    driver = version.read_text().splitlines()[0].split("Module")[-1].split()[0] if version.is_file() else ""
    seen = f"{found}, driver {driver}" if driver else str(found)
    if accelerator == "cpu":
        return Check("GPUs", "ok", seen, "none needed", "")
    wanted = str(expected) if expected else "at least 1"
    good = found == expected if expected else found > 0
    return Check("GPUs", "ok" if good else "failed", seen, wanted, "nvidia-smi; replace the node if one is lost")


def _libfabric() -> Check:
    name, wanted = "libfabric", "provider efa"
    command = "fi_info -p efa -t FI_EP_RDM"
    if not shutil.which("fi_info"):
        return Check(name, "failed", "no fi_info", wanted, "install EFA's userspace; PATH has /opt/amazon/efa/bin")
    ran = subprocess.run(command.split(), capture_output=True, text=True)
    good = ran.returncode == 0 and "provider: efa" in ran.stdout
    seen = "provider efa" if good else (ran.stderr.strip().splitlines() or ["no provider"])[0]
    return Check(name, "ok" if good else "failed", seen, wanted, command)


def _shm() -> Check:
    state = os.statvfs("/dev/shm")
    gib = state.f_frsize * state.f_blocks / 2**30
    fix = "pods: an emptyDir of medium Memory at /dev/shm; docker: --shm-size"
    return Check("/dev/shm", "ok" if gib >= _SHM_GIB else "failed", f"{gib:.1f} GiB", f"at least {_SHM_GIB} GiB", fix)


def _sysctl(name: str) -> Check:
    wanted, good = _SYSCTLS[name]
    try:
        value = int(Path("/proc/sys", name.replace(".", "/")).read_text())
    except OSError:
        return Check(name, "warning", "unreadable", wanted, "")
    number = wanted.split(":")[0].split()[-1]
    return Check(name, "ok" if good(value) else "warning", str(value), wanted, f"sysctl -w {name}={number}")


def _clock() -> Check:
    words = (ctypes.c_long * 64)()  # struct timex begins: modes, offset, freq, maxerror, esterror, status
    ctypes.CDLL(None).adjtimex(ctypes.byref(words))
    good = not words[5] & _STA_UNSYNC
    fix = "chronyd or systemd-timesyncd"
    return Check("clock", "ok" if good else "warning", "in step" if good else "not in step", "in step with NTP", fix)


def _memlock(recipe: Recipe) -> Check:
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    seen = "unlimited" if limit == resource.RLIM_INFINITY else f"{limit >> 20} MiB"
    needed = recipe.fabric in ("efa", "infiniband")
    good = not needed or seen == "unlimited"
    wanted = "unlimited" if needed else "any, over TCP"
    return Check("memlock", "ok" if good else "failed", seen, wanted, "ulimit -l unlimited; pods: IPC_LOCK")


def _nvme(expected_gb: int) -> list[Check]:
    if not expected_gb:
        return []
    mount = Path("/opt/dlami/nvme")
    seen = f"{shutil.disk_usage(mount).total / 1e9:.0f} GB at {mount}" if mount.is_mount() else f"none at {mount}"
    fix = "the lifecycle scripts mount it"
    return [Check("NVMe", "ok" if mount.is_mount() else "warning", seen, f"about {expected_gb} GB", fix)]


def lifecycle(summary: Path = _NODE_SUMMARY) -> list[Check]:
    """What the lifecycle scripts said of this node; nothing where they never ran."""
    try:
        told = json.loads(summary.read_text())
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        return [Check("lifecycle scripts", "warning", f"{summary}: {error}", "readable", "run them again")]
    name, wanted = "lifecycle scripts", "status ok"
    if told.get("status") not in ("ok", "warnings"):
        why = f"{told.get('step')}: {told.get('reason')}"
        return [Check(name, "failed", why, wanted, "/var/log/provision/provisioning.log; run on_create.sh again")]
    warnings = [Check(name, "warning", str(text), "no warning", str(summary)) for text in told.get("warnings", [])]
    return warnings or [Check(name, "ok", "ran without a warning", wanted, "")]


def _ports(address: str, ports: Ports) -> Check:
    wanted = {"API": ports.gateway_api, "admin": ports.gateway_admin, "worker": ports.worker_api}
    wanted["side channel"] = ports.side_channel
    try:
        preflight.check({name: (address, port) for name, port in wanted.items()}, None)
    except FabricError as error:
        taken = "; ".join(line.strip(" -") for line in str(error).splitlines()[1:])
        return Check("ports", "warning", taken, "free", "hyperpd status; --port-offset")
    return Check("ports", "ok", "free", "free", "")


def _model(recipe: Recipe) -> Check:
    path = Path(model_path(recipe))
    if recipe.model.huggingface:
        return Check("model", "ok", f"{recipe.model.huggingface}, from the hub at the start", "a folder or an id", "")
    if recipe.model.generated and not path.is_dir():
        return Check("model", "ok", "generated at the start", "a folder or an id", "")
    if not (path / "config.json").is_file():
        return Check("model", "failed", f"no config.json in {path}", "a Hugging Face model", "mount or download it")
    size = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    state = "ok" if size < memory else "warning"
    seen = f"{size / 2**30:.2f} GiB of weights, {memory / 2**30:.0f} GiB of RAM"
    return Check("model", state, seen, "weights that fit", "an instance with more memory")


def peer(recipe: Recipe, where: str, instance_type: str, floor_gb_s: float | None) -> dict[str, Any]:
    """Measure a transfer from a listener at `where` (HOST:PORT)."""
    host, _, port = where.rpartition(":")
    backend = fabric.plan(recipe.fabric, recipe.accelerator).backend
    line_gb_s = instances.find(instance_type).network_gbit_s / 8 if instance_type else None
    floor = floor_gb_s or (line_gb_s / 2 if line_gb_s else _TCP_FLOOR_GB_S)
    result = probe.measure(host, int(port), backend)
    provider = os.environ.get("FI_PROVIDER") or os.environ.get("UCX_TLS", "")
    return {
        "peer": where,
        "backend": backend,
        "transport": f"{provider} {os.environ.get('UCX_NET_DEVICES', '')}".strip(),
        "gb_s": round(result["gb_s"], 3),
        "floor_gb_s": floor,
        "line_gb_s": line_gb_s,
        "ok": result["gb_s"] >= floor,
    }


def main() -> int:
    """One JSON document on standard output; exit code 4 when something failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--recipe", default="tiny-cpu-1p1d")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--instance-type", default="")
    parser.add_argument("--net-devices", default="")
    parser.add_argument("--port-offset", type=int, default=0)
    parser.add_argument("--listen", type=int)
    parser.add_argument("--peer", default="")
    parser.add_argument("--floor-gb-s", type=float)
    given = parser.parse_args()
    try:
        recipe = load(given.recipe).recipe
        if given.listen is None and not given.peer:
            ports = Ports().shifted(given.port_offset)
            checks = examine(recipe, given.address, given.instance_type, ports, given.net_devices)
            print(json.dumps({"checks": [asdict(check) for check in checks]}, indent=2))
            return 4 if any(check.state == "failed" for check in checks) else 0
        decision = _decision(recipe, fabric.look(), given.address, None, given.net_devices)
        if isinstance(decision, Check):
            raise FabricError(f"{decision.name}: {decision.seen}; {decision.fix}")
        # Before the first use of NIXL, which logs to standard output.
        os.environ.update(decision.environment | {"NIXL_LOG_LEVEL": "ERROR"})
        if given.listen is not None:
            probe.listen(given.address, given.listen, decision.backend)
        result = peer(recipe, given.peer, given.instance_type, given.floor_gb_s)
    except HyperpdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(result, indent=2))
    return 0 if result["ok"] else 4


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a NIXL agent of UCX crashes at an orderly exit on a host without GPU
