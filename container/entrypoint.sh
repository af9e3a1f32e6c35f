#!/bin/sh
# exec: Python becomes process 1 in this shell's place, so that SIGTERM reaches it and it can drain.
set -eu
if [ "${1:-}" = serve ]; then shift; fi # SageMaker endpoints start every image with this word
exec python3 -m hyperpd_runtime "$@"
