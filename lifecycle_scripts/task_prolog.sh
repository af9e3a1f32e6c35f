#!/usr/bin/env bash
# Slurm's TaskProlog: its "export NAME=value" lines become the environment of the task. The fabric is that
# of the node where the task runs, not of the one where it was submitted; what the job sets itself stays.
[ -r /etc/hyperpd/fabric.env ] || exit 0
while IFS='=' read -r name value; do
  case "$name" in '' | \#*) continue ;; esac
  [ -n "${!name+set}" ] || echo "export $name=$value"
done </etc/hyperpd/fabric.env
