#!/usr/bin/env -S bash
# The OnCreate hook: EKS, and classic Slurm as one step beside the scripts that start Slurm.
# Alone: it is OnCreate itself. Beside others: put this folder into the same S3 prefix as hyperpd/, and
# make `bash "$(dirname "$0")/hyperpd/on_create.sh"` the last line of the other on_create.sh, after Slurm
# has started; its exit code must become theirs.
# A file edited on Windows still works: env -S (coreutils 8.30) drops the carriage return, and "#" hides it elsewhere.
set -Eeuo pipefail #
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)" #
[ -r "$here/lib.sh" ] || { echo "hyperpd on_create: lib.sh is missing beside it; upload the whole folder"; exit 1; } #
# shellcheck source-path=SCRIPTDIR source=lib.sh
source <(tr -d '\r' <"$here/lib.sh") #
run_hook on_create "$here" #
