
set -u
umask 077 # keys, prompts in a core file, endpoints: nobody else's
unset "${!HYPERPD_@}" "${!SM_VLLM_@}" # of the shell that submitted this
job=$SLURM_JOB_ID
run=$folder/$name-$job/${SLURM_RESTART_COUNT:-0} # requeued, a job begins in a new one
stopping=$run/stopping
offset=$(((job + ${SLURM_RESTART_COUNT:-0}) % slots * stride)) # requeued, a job tries other ports

say() { printf '%(%F %T)T %s\n' -1 "$*"; }
die() {
  say "error: $*" >&2
  exit 1
}

mine() { # FOLDER: who may write there decides where prompts go, and which compiled code engines run
  [ -d "$1" ] && [ -O "$1" ] && [ -z "$(find "$1" -maxdepth 0 -perm /022)" ] || die "$1: has to be a folder of yours that nobody else may write to"
}
mine "$folder"
[ -z "$cache" ] || { mkdir -p "$cache" && mine "$cache"; } || die "$cache: cannot be made"
[ -n "$cache" ] || [ "${#container[@]}" -gt 0 ] || cache=${XDG_CACHE_HOME:-$HOME/.cache}
if [ -n "$cache" ]; then
  # By default in TMPDIR, which goes with each step: the first request with logprobs would compile for 25 s.
  compiled=$cache/torchinductor
  mkdir -p "$compiled" || die "$compiled: cannot be made" # nor is a container started without what it mounts
  mine "$compiled"
  settings+=("TORCHINDUCTOR_CACHE_DIR=$compiled")
fi
mkdir -p "$run" || die "$run: cannot be made"
# Of a killed run with the same id: a cluster that is made again counts its jobs from 1.
rm -f "$stopping" "$run/endpoints.json" "$run"/*/fleet.json || die "$run: an older run's files cannot be removed"
for file in "${secrets[@]}"; do
  [ -r "$file" ] || die "$file: cannot be read on $(hostname)"
  [ -z "$(find -L "$file" -maxdepth 0 -perm /077)" ] || die "$file: others may read it; chmod 600"
done
recipe >"$run/recipe.yaml"
sha256sum --check --status <<<"$digest  $run/recipe.yaml" || die "the recipe in this script is not what was rendered; render it again"

address() { # NODE: what its peers reach it by; Slurm's name for it may mean nothing to them
  local at
  at=$(scontrol --oneliner show node "$1" | grep -o 'NodeAddr=[^ ]*') || die "node $1: scontrol does not know it"
  at=$(getent ahosts "${at#NodeAddr=}" | head -n 1 | cut -d ' ' -f 1)
  case $at in '' | 127.* | ::1) die "node $1: no address that others reach; see NodeAddr in slurm.conf" ;; esac
  printf '%s' "$at"
}

declare -A nodes addresses group
ids=$job # of all components
for number in "${!components[@]}"; do
  component=${components[number]}
  list=SLURM_JOB_NODELIST_HET_GROUP_$number
  names=$(scontrol show hostnames "${!list:-$SLURM_JOB_NODELIST}") || die "scontrol does not answer"
  for node in $names; do
    at=$(address "$node") || exit 1
    nodes[$component]+="$node "
    addresses[$component]+="$at "
  done
  group[$component]=$number
  id=SLURM_JOB_ID_HET_GROUP_$number
  ids+=,${!id:-$job}
done
first=${components[0]}

# What a task runs: ADDRESSES STATE COMMAND...; its own address is that of its rank.
# shellcheck disable=SC2016 # the task's own variables
task='
read -ra at <<<"$1"
state=$2
shift 2
TMPDIR=$(mktemp -d "/tmp/hyperpd-$SLURM_JOB_ID.XXXXXX") || exit 1
export TMPDIR
trap "rm -rf \"\$TMPDIR\"" EXIT
trap : TERM # the command has it, too, and takes its time
if [ "${#at[@]}" -gt 0 ]; then
  [ "$SLURM_PROCID" = 0 ] || set -- "$@" --node-rank "$SLURM_PROCID" --leader "${at[0]}"
  set -- "$@" --address "${at[SLURM_PROCID]}" --state-dir "$state$([ "$SLURM_PROCID" = 0 ] || echo ".$SLURM_PROCID")"
fi
"$@"
'

step() { # NAME COMPONENT NODES ADDRESSES COMMAND...: one task on each of NODES, until the step ends
  local name=$1 on=() names
  [ "${#components[@]}" = 1 ] || on=(--het-group="${group[$2]}")
  read -ra names <<<"$3"
  on+=(--nodelist="${3// /,}" --nodes="${#names[@]}" --ntasks="${#names[@]}" --ntasks-per-node=1)
  srun --job-name="$name" "${on[@]}" --overlap --kill-on-bad-exit=1 --cpu-bind=quiet,none --mpi=none --input=none \
    --chdir="$run" --output="$run/$name.log" --open-mode=append "${container[@]}" \
    bash -c "$task" "$name" "$4" "$run/$name" env "${settings[@]}" "${python[@]}" "${@:5}"
}

worker() { # COMPONENT ORDINAL
  local names at start index more=()
  read -ra names <<<"${nodes[$1]}"
  read -ra at <<<"${addresses[$1]}"
  start=$(($2 / per_node[$1])) # which of the component's node groups
  start=$((start * nodes_each[$1]))
  names=("${names[@]:start:nodes_each[$1]}")
  at=("${at[@]:start:nodes_each[$1]}")
  index=$((first_index[$1] + $2 % per_node[$1]))
  [ -z "${instance_type[$1]:-}" ] || more+=(--instance-type "${instance_type[$1]}")
  [ "$1" != aggregated ] || more+=(--front false) # the job's gateway has the ports of the API
  step "$1-$2" "$1" "${names[*]}" "${at[*]}" -m hyperpd_runtime --role "$1" --recipe "$run/recipe.yaml" \
    --port-offset "$offset" --ordinal "$2" --local-index "$index" "${more[@]}"
}

on_first() { # NAME ADDRESS COMMAND...: on the job's first node
  step "$1" "$first" "${nodes[$first]%% *}" "$2" "${@:3}"
}

front() { # NAME ROLE SETTING...: what serves the API
  on_first "$1" "${addresses[$first]%% *}" -m hyperpd_runtime --role "$2" --recipe "$run/recipe.yaml" \
    --port-offset "$offset" "${front_settings[@]}" "${@:3}"
}

keep() { # NAME COMMAND...: again when it fails, until it has failed too often; 0 once the job ends
  local name=$1 left=$restarts began code
  shift
  trap : TERM # scancel tells everything at once: wait for the step
  while [ ! -e "$stopping" ]; do
    began=$SECONDS
    "$@"
    code=$?
    rm -f "$run/$name/fleet.json" # it says ready still, where the end came without a word
    [ ! -e "$stopping" ] || break
    if [ "$code" = 0 ]; then
      say "$name ended as it was told; not started again"
      return 0
    fi
    [ $((SECONDS - began)) -lt 600 ] || left=$restarts
    say "$name failed with exit code $code; $left restarts left. Its last lines ($run/$name.log):"
    tail -n 15 "$run/$name.log" | sed 's/^/    /'
    [ "$left" -gt 0 ] || return "$code"
    left=$((left - 1))
    [ $((SECONDS - began)) -ge 10 ] || sleep 10 # what fails at once: its ports may not be free yet
  done
}

drained() { # Whether the node step's gateway takes POST /drain. The node may have no curl.
  local answer
  { printf 'POST /drain HTTP/1.1\r\nHost: gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n' >&3 &&
    read -r -t 5 answer <&3; } 2>/dev/null 3<>"/dev/tcp/${addresses[node]% }/$((admin_port + offset))" &&
    [[ $answer == 'HTTP/1.1 202 '* ]]
}

declare -A told # until when a step is left in peace
tell() { # PATTERN: SIGTERM to each step with such a name. Not to srun: that would kill its step.
  local id what
  while read -r id what; do
    # shellcheck disable=SC2053 # a pattern
    if [[ $what == $1 && $id != *.batch && $id != *.extern && $SECONDS -ge ${told[$id]:-0} ]]; then
      if [ "$what" = node ] && drained; then # a signal would end engines before what their gateway has accepted
        told[$id]=$((1 << 40)) # for good
      else # no gateway that could have accepted anything; again, as a task that just begins may miss it
        told[$id]=$((SECONDS + 10))
        scancel --quiet --signal=TERM "$id"
      fi
    fi
  done < <(squeue --noheader --steps --jobs="$ids" --format='%i %j')
}

until_ended() { # PATTERN PID...
  local pid pattern=$1
  shift
  for pid; do
    while kill -0 "$pid" 2>/dev/null; do # again and again: a step may only just begin
      tell "$pattern"
      sleep 1
    done
  done
}

pids=()
trap 'touch "$stopping"' TERM INT
say "job $job, run ${SLURM_RESTART_COUNT:-0}: logs in $run"
if [ "$first" = node ]; then
  keep node front node node &
  front_pid=$!
else
  for component in "${components[@]}"; do
    for ((ordinal = 0; ordinal < workers[$component]; ordinal++)); do
      keep "$component-$ordinal" worker "$component" "$ordinal" &
      pids+=($!)
    done
  done
  keep endpoints on_first endpoints "" -m hyperpd_runtime.endpoints "$run" &
  pids+=($!)
  sources=()
  for component in "${components[@]}"; do sources+=("--$component" "file://$run/endpoints.json"); done
  keep gateway front gateway gateway "${sources[@]}" &
  front_pid=$!
fi
api=${addresses[$first]%% *}
[[ $api != *:* ]] || api="[$api]" # IPv6
say "API: http://$api:$((api_port + offset)); /ping answers 200 when it is ready"

code=0
while [ "$code" = 0 ] && [ ! -e "$stopping" ]; do
  left=0
  for pid in "${pids[@]}" "$front_pid"; do # not `wait -n`, which knows nothing of one that ended before it
    if kill -0 "$pid" 2>/dev/null; then left=$((left + 1)); else wait "$pid" || code=$?; fi
  done
  [ "$left" -gt 0 ] || break
  sleep 1
done
[ ! -e "$stopping" ] || code=0
say "ending"
touch "$stopping"
until_ended "$([ "$first" = node ] && echo node || echo gateway)" "$front_pid" # what it has accepted ends first
until_ended '*' "${pids[@]}"
wait
rm -f "$stopping"
say "ended with exit code $code"
exit "$code"
