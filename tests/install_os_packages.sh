#!/usr/bin/env bash
# Installs the packages of os-packages.txt where it may; elsewhere names what is missing and which suites do not run.
set -Eeuo pipefail

list="$(dirname "$0")/os-packages.txt"

missing() {
  local package suite
  grep -v '^#' "$list" | while read -r package suite; do
    if [ -n "$package" ] && ! dpkg-query -W "$package" >/dev/null 2>&1; then echo "$package $suite"; fi
  done || true
}

wanted="$(missing)"
[ -n "$wanted" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  apt-get update -qq
  cut -d' ' -f1 <<<"$wanted" | xargs apt-get install -qq -y --no-install-recommends >/dev/null
else
  while read -r package suite; do echo "NOT RUN: $suite: package $package is missing"; done <<<"$wanted"
fi
