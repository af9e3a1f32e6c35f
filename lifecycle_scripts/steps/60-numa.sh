#!/usr/bin/env bash
# Which GPUs, EFA devices and NVMe belong to which NUMA node: a report, nothing is set.
set -Eeuo pipefail
# shellcheck source-path=SCRIPTDIR source=../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
begin_step

report="$(node_py numa --hardware "$HW/")"
found nodes "$report"
# A recipe takes whole nodes or halves of one NUMA node, so both halves have to be alike.
odd="$("$HYPERPD_PYTHON" -c '
import json, sys
nodes = json.loads(sys.argv[1]).values()
gpus = sum(len(node["gpus"]) for node in nodes)
if gpus < int(sys.argv[2]):
    print(f"GPUs: {gpus}, wanted {sys.argv[2]}; check the NVIDIA driver: nvidia-smi")
for kind in ("gpus", "efa"):
    counts = [len(node[kind]) for node in nodes]
    if sum(counts) > 1 and len(set(counts)) > 1:
        print(f"{kind} are spread unevenly over the NUMA nodes: {counts}")
' "$report" "$HYPERPD_NODE_GPUS")"
[ -z "$odd" ] || while IFS= read -r line; do warn "$line"; done <<<"$odd"
