#!/usr/bin/env -S bash
# The OnInitComplete hook: runs after the AMI has set itself up, with OnCreate left out. New Slurm
# clusters (SlurmConfig in each group) and EKS. Nothing but this folder is needed in the S3 prefix.
# A file edited on Windows still works: env -S (coreutils 8.30) drops the carriage return, and "#" hides it elsewhere.
set -Eeuo pipefail #
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)" #
[ -r "$here/lib.sh" ] || { echo "hyperpd on_init_complete: lib.sh is missing beside it; upload the whole folder"; exit 1; } #
# shellcheck source-path=SCRIPTDIR source=lib.sh
source <(tr -d '\r' <"$here/lib.sh") #
run_hook on_init_complete "$here" #
