"""The doctor of a node without hyperpd installed: python3 check_fabric.py [--json].

Looks again at what the lifecycle scripts have left in node.json and fabric.env, and at the fabric
itself. Exit code 0: usable. 1: something failed. Standard library and Python 3.9 only.
"""

import argparse
import json
import resource
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import List

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

import node  # noqa: E402
from fabric import Check, Unusable, decide, look  # noqa: E402

_RERUN = "see /var/log/provision/provisioning.log; run /opt/hyperpd/lifecycle/boot.sh again"


def checks(root: str, conf: Path) -> List[Check]:
    """Everything that can be looked at without a peer."""
    try:
        last = json.loads((conf / "node.json").read_text())
        own, status = last["node"], last["status"]
    except (OSError, ValueError, KeyError):
        return [Check("node.json", "failed", "none", str(conf / "node.json"), _RERUN)]
    state = {"ok": "ok", "warnings": "warning"}.get(status, "failed")
    result = [Check("lifecycle scripts", state, last["reason"] or status, "ok", _RERUN)]
    result += [Check("lifecycle scripts", "warning", text, "no warning", _RERUN) for text in last["warnings"]]
    facts = node.table(own["type"]) or {"gpus": 0, "efa": 0, "nvme_gb": 0}
    # Network devices are this namespace's own; the rest is what hardware answers.
    here = replace(look(Path(root)), network=look().network)
    setting = last["settings"]
    name, accelerator = node.wanted(
        setting["HYPERPD_FABRIC"], facts["efa"] or len(here.efa), facts["gpus"] or here.gpus
    )
    try:
        decision = decide(
            name,
            accelerator,
            here,
            address=own["address"],
            allow_tcp=setting["HYPERPD_EFA"] == "warn",
            efa_expected=facts["efa"] or None,
        )
        result += decision.checks
        result.append(_environment(conf / "fabric.env", decision.environment))
    except Unusable as error:
        result += error.checks
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    result.append(Check("open files", "ok" if soft >= 65536 else "warning", str(soft), "65536", "log in again"))
    data = last["set"].get("10-storage", {}).get("data", "")
    if data:
        there = Path(data, "models").is_dir() and Path(data, "kv").is_dir()
        result.append(Check("data folders", "ok" if there else "failed", data, "models and kv in it", _RERUN))
    return result


def _environment(path: Path, wanted: "dict[str, str]") -> Check:
    try:
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    except OSError:
        lines = []
    seen = dict(line.split("=", 1) for line in lines if "=" in line)
    different = sorted(key for key in wanted if seen.get(key) != wanted[key])
    return Check(
        str(path),
        "failed" if different else "ok",
        "differs: " + ", ".join(different) if different else "as decided",
        "as decided",
        _RERUN,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Whether this node's KV path can be used.")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--hardware", default="/", help="another place for /sys, /proc and /dev")
    parser.add_argument("--conf", type=Path, default=node.CONF)
    given = parser.parse_args()
    found = checks(given.hardware, given.conf)
    if given.json:
        print(json.dumps([asdict(check) for check in found], indent=2))
    else:
        for check in found:
            print("{:7} {}: {} (wanted {})".format(check.state, check.name, check.seen, check.wanted))
            if check.state != "ok":
                print("        " + check.fix)
    return 1 if any(check.state == "failed" for check in found) else 0


if __name__ == "__main__":
    sys.exit(main())
