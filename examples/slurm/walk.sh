#!/usr/bin/env bash
# Prefill and decode apart, as a Slurm job without GPUs and containers: rendered, submitted, asked, ended. See README.md.
set -euo pipefail
folder=$(realpath "${1:?say a folder that every node has, and that is yours alone}")
there() { [ -n "$(squeue --noheader --job "$job" 2>/dev/null)" ]; }
api() { sed -n 's/.* API: \(.*\);.*/\1/p' "$log"; }

hyperpd render tiny-cpu-1p1d --target slurm --out "$folder" --set folder="$folder" \
  --set mode=bare --set python="$(command -v python)" --set time=0:20:00
job=$(sbatch --parsable "$folder/job.sh")
trap 'scancel "$job"' EXIT
log=$folder/tiny-cpu-1p1d-$job.log

until [ -s "$log" ] && [ -n "$(api)" ] && curl --silent --fail --output "$folder/ping" "$(api)/ping"; do
  there || { cat "$log" >&2; exit 1; }
  sleep 2
done
echo "ready: $(api)"
echo "answer: $(hyperpd invoke 'Once upon a time there was a river' --max-tokens 16 --url "$(api)")"

scancel --batch --signal=TERM "$job" # what was accepted is finished, then workers end
while there; do sleep 2; done
trap - EXIT
tail -n 1 "$log"
