#!/usr/bin/env bash
# Locked memory (EFA registers GPU memory) and open files, for logins and for the services that start workers.
set -Eeuo pipefail
# shellcheck source-path=SCRIPTDIR source=../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
begin_step

# drop_in SERVICE: both limits for it; restarts it only when they are new and it runs.
drop_in() {
  local path="/etc/systemd/system/$1.d/50-hyperpd.conf" before after
  before="$(stat -c '%i' "$path" 2>/dev/null || true)"
  put "$path" 644 <<TEXT
# Written by hyperpd's lifecycle scripts.
[Service]
LimitMEMLOCK=infinity
LimitNOFILE=$HYPERPD_NOFILE
TEXT
  now_set "$1" "memlock unlimited, nofile $HYPERPD_NOFILE"
  after="$(stat -c '%i' "$path")"
  [ "$before" != "$after" ] || return 0
  systemctl daemon-reload
  # slurmd of the controller: a restart deletes slurm.conf. --no-block: at boot it is ordered after us.
  if [ "$1" = slurmd.service ] && [ "$HYPERPD_NODE_CONTROLLER" = yes ]; then
    left_alone "$1" "not restarted on the controller"
  else
    systemctl try-restart --no-block "$1"
  fi
}

put /etc/security/limits.d/99-hyperpd.conf 644 <<TEXT
# Written by hyperpd's lifecycle scripts.
*    -  memlock  unlimited
root -  memlock  unlimited
*    -  nofile   $HYPERPD_NOFILE
root -  nofile   $HYPERPD_NOFILE
TEXT
now_set logins "memlock unlimited, nofile $HYPERPD_NOFILE"
if [ "$HYPERPD_NODE_ORCHESTRATOR" = slurm ]; then
  drop_in slurmd.service
else
  left_alone slurmd.service "not a Slurm cluster"
fi
# On Slurm too: Pyxis aside, workers may run in containers there.
if [ "$HYPERPD_NODE_ORCHESTRATOR" = eks ] || [ "$(systemctl show -p LoadState --value containerd.service || true)" = loaded ]; then
  drop_in containerd.service
else
  left_alone containerd.service "not installed"
fi
