# shellcheck shell=bash
# What the entry points and the steps share: settings, log, records, files written only when they differ.
#
# An entry point calls run_hook. It copies this folder without carriage returns to /opt/hyperpd/lifecycle,
# which a reboot keeps, and runs steps/NN-name.sh of that copy in order, each in its own bash. A step
# says what it found, set and left alone; node.py makes /etc/hyperpd/node.json of that. Everything that
# is written is written only when it differs, so a second run changes nothing and says so.
#
# Exit code 0: the node may serve, warnings are in node.json. 1: it may not; the last line says why.

# The platform promises no environment.
export PATH="${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/sbin:/sbin" LC_ALL=C

INSTALLED=/opt/hyperpd/lifecycle
FILES="on_create.sh on_init_complete.sh boot.sh lib.sh task_prolog.sh node.py check_fabric.py fabric.py instances.tsv"
CONF=/etc/hyperpd
LOG=/var/log/provision/provisioning.log
RUN="${HYPERPD_RUN:-/run/hyperpd}" # a tmpfs: gone after a reboot, and writable on a full disk
HW="${HYPERPD_HW_ROOT:-}"          # another place for what hardware answers: /sys, /proc/driver, /dev/infiniband
# Nothing may wait without end: a step is ended after this, and the platform shows why.
STEP_LIMIT_S="${HYPERPD_STEP_LIMIT_S:-600}"

# name; default; what it may be (extended regular expression); meaning
SETTINGS='
HYPERPD_ORCHESTRATOR;auto;auto|eks|slurm;auto: what resource_config.json says
HYPERPD_FABRIC;auto;auto|efa|infiniband|local|tcp;auto: EFA where the instance type has EFA and GPUs, otherwise TCP
HYPERPD_EFA;require;require|warn;Whether missing or unusable EFA keeps a node with EFA out of service
HYPERPD_NVME;require;require|warn|ignore;The same for NVMe; ignore looks for none
HYPERPD_NVME_MOUNT;auto;auto|/[A-Za-z0-9._/-]+;auto: where the platform has mounted it, otherwise /opt/dlami/nvme
HYPERPD_NVME_WAIT_S;180;[0-9]|[1-9][0-9]|[1-4][0-9][0-9];Seconds to wait for the NVMe and the service that mounts it
HYPERPD_DATA_UID;10001;[0-9]{1,9};Owner of the folders for models and the KV cache: the user of the containers
HYPERPD_NOFILE;1048576;[0-9]{4,9};Open files of a process
HYPERPD_TCP_RETRIES2;5;[3-9]|1[0-5];A cut connection is noticed after about 13 s with 5, after 15 min with 15
HYPERPD_SOMAXCONN;16384;[0-9]{3,6};Connections that wait to be accepted; a higher value of the node stays
HYPERPD_SOCKET_BUFFER_BYTES;67108864;[0-9]{6,10};Largest socket buffer; a higher value of the node stays
HYPERPD_PORT_RANGE;32768-60999;[0-9]{4,5}-[0-9]{4,5};Ports of outgoing connections; above the NodePorts of Kubernetes
HYPERPD_RESERVED_PORTS;5557-5599,5600-5663,8080-8081,8100-8163,8300-8363;[0-9,-]+;Never given to outgoing connections: KV events, NIXL, gateway, workers
HYPERPD_SLURM_CONF;auto;auto|/[A-Za-z0-9._/-]+;auto: /opt/slurm/etc/slurm.conf, otherwise /etc/slurm/slurm.conf
HYPERPD_SLURM_EDIT;yes;yes|no;Whether missing lines are added to slurm.conf on the controller
HYPERPD_FAIL_WAIT_S;60;[0-9]|[1-9][0-9]|[12][0-9][0-9];Seconds between a failure and the exit, in which the platform ships the log
'

# ---------------------------------------------------------------- log and records

# say TEXT: one line to standard output and to the log, with time and step.
say() {
  local line
  line="$(date -u +%Y-%m-%dT%H:%M:%SZ) hyperpd ${HYPERPD_STEP:-$HYPERPD_HOOK}: $*"
  printf '%s\n' "$line"
  # A full disk must not hide the reason: standard output still has it.
  { printf '%s\n' "$line" >>"$LOG"; } 2>/dev/null || true
}

# record KIND KEY VALUE: for node.json. KIND: found, set, left, warning, changed.
record() { printf '%s\t%s\t%s\t%s\n' "$1" "$HYPERPD_STEP" "$2" "${3//[$'\t\n']/ }" >>"$RUN/records"; }

# found KEY VALUE: what the node has.
found() { record found "$1" "$2"; }

# now_set KEY VALUE: what this step answers for, whether or not this run had to change it.
now_set() { record 'set' "$1" "$2"; }

# left_alone KEY VALUE: what was seen and deliberately not touched.
left_alone() { record left "$1" "$2"; }

# changed WHAT: this run changed it.
changed() { record changed "$1" ""; echo "changed $1"; }

# warn TEXT: not as it should be, and no reason to keep the node out of service.
warn() { record warning "$1" ""; echo "warning: $1"; }

# fault TEXT: ends the step; the node must not serve.
fault() {
  printf '%s\n' "$1" >"$RUN/reason"
  exit 1
}

# fault_or_warn MODE TEXT: a fault where MODE is require, otherwise a warning.
fault_or_warn() { if [ "$1" = require ]; then fault "$2"; else warn "$2"; fi; }

# ---------------------------------------------------------------- files

# put PATH MODE [OWNER]: standard input becomes the file, in one step, and only when content, mode or owner differ.
put() {
  # Compared in /run, so that not even the folder's time changes; a fixed name beside the file, so that
  # what a killed run has left is overwritten.
  local path="$1" mode="$2" owner="${3:-0:0}" text="$RUN/put.$BASHPID" new="$1.hyperpd-new" problem
  cat >"$text" || return 1
  if [ -f "$path" ] && [ ! -L "$path" ] && cmp -s "$text" "$path" &&
    [ "$(stat -c '%a %u:%g' "$path")" = "$mode $owner" ]; then
    rm "$text"
    return 0
  fi
  # Asked here, because bash goes on after a failure where a caller asks for the outcome.
  if problem="$({ mkdir -p "$(dirname "$path")" && cp "$text" "$new" && chmod "$mode" "$new" && chown "$owner" "$new" &&
    mv -T "$new" "$path"; } 2>&1)"; then
    rm "$text"
    changed "$path"
  else
    rm -f "$new" "$text"
    fault "cannot write $path: ${problem##*: }"
  fi
}

# put_and COMMAND PATH MODE [OWNER]: put, and COMMAND after a change, also after one of a run that was killed before it.
put_and() {
  local command="$1" pending="$RUN/pending${2//\//-}" before old=no
  shift
  [ ! -e "$pending" ] || old=yes
  : >"$pending"
  before="$(stat -c '%i' "$1" 2>/dev/null || true)"
  put "$@"
  [ "$old" = no ] && [ "$before" = "$(stat -c '%i' "$1")" ] || "$command"
  rm "$pending"
}

# folder PATH MODE UID: makes the folder, or mends its mode and owner.
folder() {
  if [ ! -d "$1" ]; then
    mkdir -p "$1"
    chmod "$2" "$1"
    chown "$3:$3" "$1"
    changed "$1"
  elif [ "$(stat -c '%a %u' "$1")" != "$2 $3" ]; then
    chmod "$2" "$1"
    chown "$3:$3" "$1"
    changed "$1"
  fi
}

# first_line FILE: its first line, or nothing where it is not there.
first_line() { { [ -r "$1" ] && head -n 1 "$1"; } || true; }

# ---------------------------------------------------------------- start of a hook

# run_hook NAME FOLDER: the whole of on_create.sh, on_init_complete.sh and boot.sh.
run_hook() {
  export HYPERPD_HOOK="$1" HYPERPD_STEP=""
  local from="$2" began=$SECONDS step
  umask 022
  mkdir -p "$RUN" "$(dirname "$LOG")" 2>/dev/null || true
  cd /
  trap 'refuse "line $LINENO: $BASH_COMMAND failed"' ERR
  trap 'refuse "ended by SIGTERM"' TERM
  # A second hook, or the boot unit, waits for the first, and not for ever.
  exec 9>"$RUN/lock"
  flock -w "$STEP_LIMIT_S" 9 || refuse "another run holds $RUN/lock"
  : >"$RUN/records"
  : >"$RUN/reason"
  HYPERPD_FAIL_WAIT_S=60
  say "start, from $from"
  find_python
  read_settings "$from/hyperpd.env"
  step_in_order install "$from"
  # Before the steps, so that a fault in any of them is in node.json with group and type.
  identify
  for step in "$INSTALLED"/steps/[0-9][0-9]-*.sh; do
    step_in_order "$(basename "$step" .sh)"
  done
  HYPERPD_STEP=""
  summary ok "" || refuse "$(cat "$RUN/reason")"
  local changes warnings
  changes="$(grep -c '^changed' "$RUN/records" || true)" warnings="$(grep -c '^warning' "$RUN/records" || true)"
  say "done in $((SECONDS - began)) s: $([ "$changes" = 0 ] && echo "nothing changed" || echo "$changes changed"), $warnings warnings"
}

# refuse REASON: the end of a hook that failed. Written, flushed, and the reason is the last line.
refuse() {
  trap - ERR TERM
  summary fault "$1" || true
  say "exit 1 after $HYPERPD_FAIL_WAIT_S s, in which the log is shipped, because of:"
  say "$1"
  sync -f "$LOG" 2>/dev/null || true
  sleep "$HYPERPD_FAIL_WAIT_S"
  exit 1
}

# step_in_order NAME [FOLDER]: runs one step with a limit, its output in the log; ends the hook when it fails.
step_in_order() {
  local name="$1" code=0 script="$INSTALLED/steps/$1.sh"
  export HYPERPD_STEP="$name"
  say "start"
  if [ "$name" = install ]; then
    # Not a file: it is what brings the files. A bash of its own, because errexit is off left of "||".
    bash -c "set -Eeuo pipefail"$'\n'"$(tr -d '\r' <"$2/lib.sh")"$'\n''begin_step; install_scripts "$1"' install "$2" 2>&1 |
      log_lines || code=$?
  else
    timeout --kill-after=5 "$STEP_LIMIT_S" bash "$script" 2>&1 | log_lines || code=$?
  fi
  [ "$code" = 0 ] && return
  local reason
  reason="$(cat "$RUN/reason" 2>/dev/null || true)"
  [ "$code" != 124 ] || reason="not done after $STEP_LIMIT_S s"
  refuse "${reason:-ended with $code}"
}

# log_lines: standard input to standard output and the log, with time and step.
log_lines() {
  local line
  while IFS= read -r line || [ -n "$line" ]; do say "$line"; done
}

# fault_at LINE COMMAND: the ERR trap of a step: what failed, unless fault has already said why.
fault_at() {
  [ -s "$RUN/reason" ] || printf '%s\n' "line $1: $2 failed" >"$RUN/reason"
}

# begin_step: the first call of a step.
begin_step() {
  trap 'fault_at $LINENO "$BASH_COMMAND"' ERR
  [ -n "${HYPERPD_STEP:-}" ] || { echo "run by on_create.sh, not by hand" >&2; exit 2; }
}

# find_python: the first Python that is 3.9 or newer, in HYPERPD_PYTHON.
find_python() {
  local name
  for name in python3 python3.9 python3.10 python3.11 python3.12 python3.13; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then
      export HYPERPD_PYTHON="$name"
      return
    fi
  done
  refuse "no Python 3.9 or newer on this node"
}

# node_py COMMAND …: node.py of the installed copy. -B: no compiled files beside it.
node_py() { "$HYPERPD_PYTHON" -B "$INSTALLED/node.py" "$@"; }

# read_settings FILE: every option from its default, then from FILE; all problems at once.
read_settings() {
  local file="$1" name default allowed line value problems=""
  while IFS=';' read -r name default _; do
    [ -z "$name" ] || export "$name=$default"
  done <<<"$SETTINGS"
  if [ -r "$file" ]; then
    # Read, never sourced: it says values, it runs nothing.
    while IFS= read -r line || [ -n "$line" ]; do
      line="${line%$'\r'}"
      [[ "$line" =~ ^[[:space:]]*(#|$) ]] && continue
      name="${line%%=*}" value="${line#*=}"
      allowed="$(awk -F';' -v name="$name" '$1 == name { print $3 }' <<<"$SETTINGS")"
      if [[ "$line" != *=* ]] || [ -z "$allowed" ]; then
        problems+="; ${name} is no option"
      elif ! [[ "$value" =~ ^($allowed)$ ]]; then
        problems+="; $name=$value is not one of $allowed"
      else
        export "$name=$value"
      fi
    done <"$file"
  fi
  [ -z "$problems" ] || refuse "hyperpd.env: ${problems#; }"
}

# identify: orchestrator, group, type and what the type has, exported as HYPERPD_NODE_….
identify() {
  local config="${SAGEMAKER_RESOURCE_CONFIG_PATH:-/opt/ml/config/resource_config.json}" saved="" line answer
  HYPERPD_STEP=identify
  # The file may be stale after a reboot; what was true at creation still is.
  [ "$HYPERPD_HOOK" != boot ] || saved="$CONF/node.json"
  local -a addresses
  mapfile -t addresses < <(ip -o -4 addr show scope global | sed -nE 's/.* inet ([0-9.]+).*/\1/p' || true)
  if ! answer="$(node_py identify --config "$config" --saved "$saved" --orchestrator "$HYPERPD_ORCHESTRATOR" \
    --hardware "$HW/" "${addresses[@]}" 2>"$RUN/reason")"; then
    refuse "$(tail -n 1 "$RUN/reason")"
  fi
  while IFS= read -r line; do
    if [[ "$line" = warning=* ]]; then warn "${line#warning=}" | log_lines; else export "HYPERPD_NODE_$line"; fi
  done <<<"$answer"
  say "$HYPERPD_NODE_ORCHESTRATOR, group $HYPERPD_NODE_GROUP, $HYPERPD_NODE_TYPE, $HYPERPD_NODE_ADDRESS"
}

# install_scripts FOLDER: this folder without carriage returns to where a reboot keeps it.
install_scripts() {
  local from="$1" file name mode
  [ "$from" != "$INSTALLED" ] || return 0
  # By name: an S3 prefix may hold other scripts too.
  for name in $FILES; do
    [ -s "$from/$name" ] || fault "$name is missing in $from; upload the whole folder"
  done
  for file in $FILES hyperpd.env "$from"/steps/[0-9][0-9]-*.sh; do
    name="${file#"$from"/}" mode=644
    [ -e "$from/$name" ] || continue
    [[ "$name" != *.sh ]] || mode=755
    tr -d '\r' <"$from/$name" | put "$INSTALLED/$name" "$mode"
  done
  for file in "$INSTALLED"/steps/*.sh; do # steps of an older version
    [ -e "$from/steps/$(basename "$file")" ] || { rm "$file"; changed "$file"; }
  done
  [ -e "$from/hyperpd.env" ] || [ ! -e "$INSTALLED/hyperpd.env" ] || { rm "$INSTALLED/hyperpd.env"; changed "$INSTALLED/hyperpd.env"; }
}

# summary STATUS REASON: node.json in /etc/hyperpd, and in /run for a disk that is full.
summary() {
  local new="$RUN/node.json" from="$INSTALLED/node.py"
  [ -s "$from" ] && [ -n "${HYPERPD_PYTHON:-}" ] || return 0
  "$HYPERPD_PYTHON" -B "$from" summary --records "$RUN/records" --status "$1" --reason "$2" \
    --step "${HYPERPD_STEP:-}" --settings "$(cut -d';' -f1 <<<"$SETTINGS" | tr '\n' ' ')" >"$new" || return 1
  { put "$CONF/node.json" 644 <"$new"; } 2>&1 | log_lines
}
