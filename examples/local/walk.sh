#!/usr/bin/env bash
# Prefill and decode apart, and together, on this machine; the same answer, and the KV cache that moved. See README.md.
set -euo pipefail
prompt='Once upon a time there was a river that ran from the hills to the sea, and on its bank'
cd "$(mktemp -d)"
field() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$@"; }
stop() {
  for fleet in apart.json together.json; do
    if [ -s "$fleet" ]; then hyperpd down "$(field "$fleet" name)"; fi
  done
}

trap stop EXIT
hyperpd up --recipe tiny-cpu-1p1d --detach --json >apart.json
hyperpd up --recipe tiny-cpu-aggregated --port-offset 1000 --detach --json >together.json

for fleet in apart together; do
  echo "$fleet: $(hyperpd invoke "$prompt" --max-tokens 16 --url "$(field $fleet.json url)")"
done
echo "decode read this many bytes of KV cache from prefill:"
curl --silent --fail http://127.0.0.1:8101/metrics | grep '^vllm:nixl_bytes_transferred_sum'
echo "what the gateway decided:"
curl --silent --fail "$(field apart.json admin_url)/metrics" | grep '^hyperpd_decisions_total'
