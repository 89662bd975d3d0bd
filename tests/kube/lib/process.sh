# shellcheck shell=bash
# Sourced by cluster.sh: the processes of one cluster. For each, $DIR/run has its command, which
# starts it again, and its pid with its start time, so that no other process is taken for it;
# $DIR/logs has its log.

# A process's start in clock ticks since boot, /proc/PID/stat's 22nd field; its name, the second,
# may hold spaces. Fails where there is no such process, or only its exit status.
# shellcheck disable=SC2016 # for the shells in which it is evaluated
START_TIME='start_time() {
  local stat
  read -r stat 2>/dev/null <"/proc/$1/stat" || return
  set -- ${stat##*) }
  [ "$1" != Z ] && echo "${20}"
}'
eval "$START_TIME"

# Runs a command where the cluster's processes are.
inside() {
  if [ "$MODE" = node ]; then
    local of
    of=$(machine_pid) || fail "the cluster \"$NAME\" does not run (its namespaces are gone). Run: tests/kube/cluster.sh up"
    # The process made a PID namespace for its children and is not in it itself.
    nsenter --net="/proc/$of/ns/net" --mount="/proc/$of/ns/mnt" --uts="/proc/$of/ns/uts" --ipc="/proc/$of/ns/ipc" \
      --pid="/proc/$of/ns/pid_for_children" -- "$@"
  else
    "$@"
  fi
}

# start NAME COMMAND…
start() {
  local name=$1
  shift
  { printf 'exec '; printf '%q ' "$@"; echo; } >"$DIR/run/$name.command"
  launch "$name"
}

launch() { # NAME
  ! alive "$1" || return 0
  # A session of its own, so that an interrupt at the terminal ends only the script. No descriptor
  # is kept that a caller waits for: neither its output nor the lock.
  inside bash -c "$START_TIME"'
    setsid bash "$1/run/$2.command" >>"$1/logs/$2.log" 2>&1 </dev/null &
    echo "$! $(start_time $!)" >"$1/run/$2.pid"
  ' launch "$DIR" "$1" >/dev/null 2>&1 9>&-
}

components() {
  local file
  for file in "$DIR"/run/*.command; do
    [ ! -e "$file" ] || basename "$file" .command
  done
}

alive() { # NAME
  local pid started
  read -r pid started 2>/dev/null <"$DIR/run/$1.pid" || return
  inside bash -c "$START_TIME"'; [ "$(start_time "$1")" = "$2" ]' alive "$pid" "$started"
}

stop() { # NAME [SIGNAL]
  local pid started
  alive "$1" || return 0
  read -r pid started <"$DIR/run/$1.pid"
  inside kill "-${2:-TERM}" "$pid" 2>/dev/null || true
  if ! poll 20 ended "$1"; then
    inside kill -KILL "$pid" 2>/dev/null || true
    poll 5 ended "$1" || fail "$1 (pid $pid) does not end, not even by SIGKILL"
  fi
}
ended() { ! alive "$1"; }

# poll SECONDS COMMAND…: until it succeeds; 1 after that time.
poll() {
  local until=$((${EPOCHREALTIME/[.,]/} + $1 * 1000000))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "${EPOCHREALTIME/[.,]/}" -lt "$until" ] || return 1
    sleep 0.1
  done
}

# ready WHAT SECONDS COMPONENT COMMAND…: until it succeeds; an error with the end of the
# component's log when it takes too long, at once when the component ends.
ready() {
  local what=$1 seconds=$2 component=$3
  shift 3
  succeeded_or_ended() { "$@" || ended "$component"; }
  if poll "$seconds" succeeded_or_ended "$@" && "$@" >/dev/null 2>&1; then return; fi
  {
    if alive "$component"; then echo "error: $what is not ready after $seconds s."; else echo "error: $component ended."; fi
    echo "The end of $DIR/logs/$component.log:"
    tail -n 25 "$DIR/logs/$component.log"
  } >&2
  return 1
}
