#!/usr/bin/env bash
# Network sysctls, now and after a reboot. A value of the node that is better than ours stays.
set -Eeuo pipefail
# shellcheck source-path=SCRIPTDIR source=../lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
begin_step

LINES="# Written by hyperpd's lifecycle scripts."

# now NAME: its value, words separated by one space.
now() { tr -s '\t ' ' ' <"/proc/sys/${1//.//}"; }

# set_to NAME VALUE: now, and after a reboot.
set_to() {
  local file="/proc/sys/${1//.//}"
  if [ ! -e "$file" ]; then
    left_alone "$1" "this kernel or namespace does not show it"
    LINES+=$'\n'"$1 = $2"
    return 0
  fi
  LINES+=$'\n'"$1 = $2"
  if [ "$(now "$1")" != "$2" ]; then
    if ! { echo "$2" >"$file"; } 2>/dev/null; then
      warn "$1 cannot be set here; it is in the file for the next start"
      left_alone "$1" "$(now "$1")"
      return 0
    fi
    changed "$1"
  fi
  now_set "$1" "$2"
}

# at_least NAME VALUE: raised to VALUE, never lowered.
at_least() {
  local have=0
  [ ! -e "/proc/sys/${1//.//}" ] || have="$(now "$1")"
  set_to "$1" "$((have > $2 ? have : $2))"
}

set_to net.ipv4.tcp_retries2 "$HYPERPD_TCP_RETRIES2"
at_least net.core.somaxconn "$HYPERPD_SOMAXCONN"
set_to net.ipv4.ip_local_port_range "${HYPERPD_PORT_RANGE/-/ }"
# Others have reserved ports too: theirs stay.
set_to net.ipv4.ip_local_reserved_ports "$(node_py ports "$HYPERPD_RESERVED_PORTS" "$(now net.ipv4.ip_local_reserved_ports)")"
at_least net.core.rmem_max "$HYPERPD_SOCKET_BUFFER_BYTES"
at_least net.core.wmem_max "$HYPERPD_SOCKET_BUFFER_BYTES"
# 99-zz: after what the AMI and the base scripts bring.
put /etc/sysctl.d/99-zz-hyperpd.conf 644 <<<"$LINES"
