#!/usr/bin/env bash
# Slurm: partitions, Enroot and Pyxis as found, for who launches jobs; on the controller the lines of
# slurm.conf with which jobs see the limits and the fabric of their node.
set -Eeuo pipefail
# shellcheck source-path=SCRIPTDIR source=../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
begin_step

[ "$HYPERPD_NODE_ORCHESTRATOR" = slurm ] || { left_alone slurm "not a Slurm cluster"; exit 0; }
export PATH="$PATH:/opt/slurm/bin:/opt/slurm/sbin"

# slurm_conf: the path of slurm.conf on this node, or nothing: computes of a configless cluster have none.
slurm_conf() {
  local path
  for path in "$HYPERPD_SLURM_CONF" /opt/slurm/etc/slurm.conf /etc/slurm/slurm.conf; do
    [ ! -f "$path" ] || { readlink -f "$path"; return 0; }
  done
}

# wants NAME VALUE: the line NAME=VALUE in slurm.conf, where NAME is not set yet. Another value stays.
wants() {
  local have
  have="$(sed -nE "s/^[[:space:]]*$1[[:space:]]*=[[:space:]]*([^#]*[^#[:space:]]).*/\1/Ip" "$conf" | tail -n 1)"
  if [ "$have" = "$2" ]; then
    now_set "$1" "$2"
  elif [ -n "$have" ]; then
    left_alone "$1" "$have"
    warn "slurm.conf has $1=$have; hyperpd needs $2"
  elif [ "$HYPERPD_SLURM_EDIT" = no ]; then
    left_alone "$1" "HYPERPD_SLURM_EDIT=no"
    warn "add $1=$2 to slurm.conf"
  else
    add+="$1=$2"$'\n'
    now_set "$1" "$2"
  fi
}

# reconfigure: makes slurmctld read slurm.conf. Never a restart of slurmd on the controller: it deletes slurm.conf.
reconfigure() {
  timeout 30 scontrol reconfigure || warn "scontrol reconfigure failed: the lines hold after slurmctld's next start"
}

conf="$(slurm_conf)"
found slurm.conf "${conf:-none on this node}"
found enroot "$(enroot version 2>/dev/null || true)"
pyxis=""
for path in /usr/local/lib/slurm/spank_pyxis.so /opt/slurm/lib/slurm/spank_pyxis.so /usr/lib/*/slurm*/spank_pyxis.so; do
  [ ! -f "$path" ] || pyxis="$path"
done
found pyxis "$pyxis"
if [ "$HYPERPD_NODE_CONTROLLER" = yes ] && [ -n "$conf" ]; then
  add=""
  # Otherwise jobs get the limits of who submits them.
  wants PropagateResourceLimitsExcept MEMLOCK,NOFILE
  wants TaskProlog "$INSTALLED/task_prolog.sh"
  if [ -n "$add" ]; then
    add="# hyperpd: limits and fabric of the node that a task runs on"$'\n'"$add"
    [ -z "$(tail -c 1 "$conf")" ] || add=$'\n'"$add" # a last line without its end
  fi
  { cat "$conf"; printf '%s' "$add"; } | put_and reconfigure "$conf" "$(stat -c '%a' "$conf")" "$(stat -c '%u:%g' "$conf")"
fi
# Names only: states change by themselves, and node.json must not. A compute may be up before its controller.
if partitions="$(timeout 30 sinfo --noheader --format '%R %l %D' 2>/dev/null)" && [ -n "$partitions" ]; then
  found partitions "$(printf '%s' "$partitions" | tr '\n' ';')"
else
  found partitions "none yet: slurmctld does not answer"
fi
