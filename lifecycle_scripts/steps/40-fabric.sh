#!/usr/bin/env bash
# /etc/hyperpd/fabric.env: the settings of UCX and libfabric, computed by the fabric.py that the container imports.
set -Eeuo pipefail
# shellcheck source-path=SCRIPTDIR source=../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
begin_step

# Where the operator lets a node serve without EFA, it says so in fabric.env and here.
allow=()
[ "$HYPERPD_EFA" = require ] || allow=(--allow-tcp)
if ! text="$(node_py fabric --hardware "$HW/" --wanted "$HYPERPD_FABRIC" --expected "$HYPERPD_NODE_EFA" \
  --gpus "$HYPERPD_NODE_GPUS" --address "$HYPERPD_NODE_ADDRESS" ${allow[@]+"${allow[@]}"} 2>"$RUN/fabric")"; then
  fault "$(tail -n 1 "$RUN/fabric")"
fi
put "$CONF/fabric.env" 644 <<<"$text"
while IFS='=' read -r key value; do
  [[ "$key" = \#* ]] || now_set "$key" "$value"
done <<<"$text"
