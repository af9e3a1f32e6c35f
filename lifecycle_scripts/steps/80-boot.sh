#!/usr/bin/env bash
# hyperpd-node.service runs the steps again after a reboot, when HyperPod does not and NVMe may be empty.
set -Eeuo pipefail
# shellcheck source-path=SCRIPTDIR source=../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
begin_step

unit=/etc/systemd/system/hyperpd-node.service
# reload: makes systemd read the unit.
reload() { systemctl daemon-reload; }

# Before what uses NVMe and limits; no Requires: a fault of ours must not keep kubelet from reporting.
put_and reload "$unit" 644 <<TEXT
[Unit]
Description=hyperpd: NVMe, EFA, network settings of this node
After=network-online.target dlami-nvme.service
Wants=network-online.target
Before=kubelet.service slurmd.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=$INSTALLED/boot.sh
TimeoutStartSec=1200

[Install]
WantedBy=multi-user.target
TEXT
if ! systemctl --quiet is-enabled hyperpd-node.service 2>/dev/null; then
  systemctl enable hyperpd-node.service # not --now: this is the run
  changed "hyperpd-node.service enabled"
fi
now_set hyperpd-node.service enabled
