#!/usr/bin/env bash
# EFA: driver, devices against the instance table, libfabric, GPUDirect, huge pages. fabric.py judges.
set -Eeuo pipefail
# shellcheck source-path=SCRIPTDIR source=../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
begin_step

# load MODULE: loads it where the kernel shows it neither as a module nor built in; a failure is judged later.
load() {
  [ ! -d "$HW/sys/module/$1" ] || return 0
  if modprobe "$1"; then changed "module $1"; else warn "modprobe $1 failed"; fi
}

efa_bin=/opt/amazon/efa/bin/fi_info
found kernel "$(uname -r)"
found installer "$(grep -m 1 -iE '^#? *efa installer version' /opt/amazon/efa_installed_packages 2>/dev/null | sed 's/.*: *//' || true)"
[ ! -x "$efa_bin" ] || found libfabric "$("$efa_bin" --version | sed -n 's/^libfabric: *//p')"
if [ "$HYPERPD_NODE_EFA" = 0 ] && [ -z "$(ls "$HW/sys/class/infiniband" 2>/dev/null || true)" ]; then
  left_alone efa "$HYPERPD_NODE_TYPE has none that is known"
  exit 0
fi
load efa
load ib_uverbs
found driver "$(first_line "$HW/sys/module/efa/version")"
while IFS=$'\t' read -r state name seen wanted fix; do
  [ "$name" != "locked memory" ] || continue # 20-limits sets it; this process has the caller's
  if [ "$name" = GPUDirect ] && [ "$state" = failed ]; then
    # Kernels before 5.12 have no dmabuf and need a peer-memory module.
    modprobe efa_nv_peermem || modprobe nvidia-peermem || true
    IFS=$'\t' read -r state name seen wanted fix < <(node_py efa --hardware "$HW/" --expected "$HYPERPD_NODE_EFA" | grep -P '\tGPUDirect\t')
  fi
  found "$name" "$seen"
  case "$state" in
  failed) fault_or_warn "$HYPERPD_EFA" "$name: $seen, wanted $wanted; $fix (HYPERPD_EFA=warn goes on without)" ;;
  warning) warn "$name: $seen, wanted $wanted; $fix" ;;
  esac
done < <(node_py efa --hardware "$HW/" --expected "$HYPERPD_NODE_EFA")
# The driver allocates huge pages by itself. Checked above, never lowered, never raised here.
left_alone "huge pages" "the EFA driver's own"
if [ ! -x "$efa_bin" ]; then
  warn "$efa_bin is missing: the host's libfabric was not tried; containers bring their own"
elif ! "$efa_bin" -p efa -t FI_EP_RDM >/dev/null; then
  fault_or_warn "$HYPERPD_EFA" "fi_info -p efa -t FI_EP_RDM finds nothing though EFA devices are there"
fi
