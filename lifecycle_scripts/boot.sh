#!/usr/bin/env -S bash
# What hyperpd-node.service runs: HyperPod calls its hooks once, not after a reboot, and a reboot may
# leave the NVMe empty.
# A file edited on Windows still works: env -S (coreutils 8.30) drops the carriage return, and "#" hides it elsewhere.
set -Eeuo pipefail #
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)" #
[ -r "$here/lib.sh" ] || { echo "hyperpd boot: lib.sh is missing beside it; upload the whole folder"; exit 1; } #
# shellcheck source-path=SCRIPTDIR source=lib.sh
source <(tr -d '\r' <"$here/lib.sh") #
run_hook boot "$here" #
