#!/usr/bin/env bash
# Locked memory (EFA registers GPU memory) and open files, for logins and for the services that start workers.
set -Eeuo pipefail
# shellcheck source-path=SCRIPTDIR source=../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
begin_step

# restart: makes systemd know the drop-in of SERVICE, and SERVICE where it runs.
restart() {
  systemctl daemon-reload
  # slurmd of the controller: a restart deletes slurm.conf. --no-block: at boot it is ordered after us.
  if [ "$SERVICE" = slurmd.service ] && [ "$HYPERPD_NODE_CONTROLLER" = yes ]; then
    echo "$SERVICE is not restarted on the controller"
  else
    systemctl try-restart --no-block "$SERVICE"
  fi
}

# drop_in: both limits for SERVICE.
drop_in() {
  put_and restart "/etc/systemd/system/$SERVICE.d/50-hyperpd.conf" 644 <<TEXT
# Written by hyperpd's lifecycle scripts.
[Service]
LimitMEMLOCK=infinity
LimitNOFILE=$HYPERPD_NOFILE
TEXT
  now_set "$SERVICE" "memlock unlimited, nofile $HYPERPD_NOFILE"
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
  SERVICE=slurmd.service
  drop_in
else
  left_alone slurmd.service "not a Slurm cluster"
fi
# On Slurm too: Pyxis aside, workers may run in containers there.
if [ "$HYPERPD_NODE_ORCHESTRATOR" = eks ] || [ "$(systemctl show -p LoadState --value containerd.service || true)" = loaded ]; then
  SERVICE=containerd.service
  drop_in
else
  left_alone containerd.service "not installed"
fi
