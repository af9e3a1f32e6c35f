#!/usr/bin/env bash
# /etc/hyperpd/fabric.env: the settings of UCX and libfabric, computed by the fabric.py that the container imports.
set -Eeuo pipefail
# shellcheck source-path=SCRIPTDIR source=../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
begin_step

# Where the operator lets a node serve without EFA, it says so in fabric.env and here.
allow=()
[ "$HYPERPD_EFA" = require ] || allow=(--allow-tcp)
# decide ADDRESS: the text of fabric.env, or the reason in RUN/fabric.
decide() {
  node_py fabric --hardware "$HW/" --wanted "$HYPERPD_FABRIC" --expected "$HYPERPD_NODE_EFA" \
    --gpus "$HYPERPD_NODE_GPUS" --address "$1" ${allow[@]+"${allow[@]}"} 2>"$RUN/fabric"
}

if ! text="$(decide "$HYPERPD_NODE_ADDRESS")"; then
  reason="$(tail -n 1 "$RUN/fabric")"
  # TCP without a named device works, over all of them; everything else is a reason not to serve.
  text="$(decide "")" || fault "$reason"
  warn "$reason"
fi
put "$CONF/fabric.env" 644 <<<"$text"
while IFS='=' read -r key value; do
  [[ "$key" = \#* ]] || now_set "$key" "$value"
done <<<"$text"
