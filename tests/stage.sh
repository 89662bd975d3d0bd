# shellcheck shell=bash
# Sourced by run.sh here and in kube/: runs stages and keeps the time of each.

times=()

# stage NAME COMMAND…
stage() {
  local name=$1 began=$SECONDS
  shift
  printf '\n\033[1m==> %s\033[0m\n' "$name"
  "$@"
  times+=("$(printf '%5ds  %s' $((SECONDS - began)) "$name")")
}

stage_times() {
  printf '\nTime of each stage:\n'
  printf '%s\n' "${times[@]}"
  printf '%5ds  in all\n' "$SECONDS"
}
