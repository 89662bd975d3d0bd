#!/usr/bin/env bash
# A real Kubernetes for tests, from the binaries that build.sh made; without a container engine.
#
#   cluster.sh up                one node, in namespaces of its own without a way out: containerd,
#                                kubelet, kube-proxy, CoreDNS; needs root
#   cluster.sh up --api-only [--controllers]
#                                etcd and API server alone, on loopback of the network namespace that
#                                it is called in; with the controller-manager. Needs no root
#   cluster.sh down              ends it and removes all that it had
#   cluster.sh env               lines for `eval`: KUBECONFIG, ANYAM_KUBE_LOAD and others
#   cluster.sh kubeconfig        the path of an administrator's kubeconfig
#   cluster.sh exec COMMAND…     with that environment, in the network of the node: addresses of pods
#                                and Services are reachable, and what it serves is to the API server
#   cluster.sh kubectl …         the same for kubectl
#   cluster.sh load IMAGE.tar…   makes images of OCI archives known to the node
#   cluster.sh gateway-api [standard|experimental]    installs the CRDs of the Gateway API
#   cluster.sh metrics-server    installs it, unless the cluster has a metrics API
#   cluster.sh status            each process and node; exit status 1 when one is not ready
#   cluster.sh stop|start|restart COMPONENT    apiserver, etcd, kubelet…, with the same data
#   cluster.sh logs COMPONENT
#
#   ANYAM_KUBE_NAME      name of the cluster, default `main`; several can run at once
#   ANYAM_KUBE_STATE     the folder of all clusters' folders, default `state` in ANYAM_KUBE_CACHE
#   ANYAM_KUBE_OWNER     a pid: when it has ended, the next `up` of any cluster takes this one down
#   ANYAM_KUBE_ADDRESS   where an API server alone listens, default 127.0.0.1
#
# If KUBECONFIG and ANYAM_KUBE_LOAD (a command that loads an image archive, whose path it gets as its last
# argument) are set, their cluster is used: `up` loads the image of the tests' pods into it, `down` does not
# change it. `up --api-only` starts one of its own all the same.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/settings.sh"
check_name
DIR=$STATE/$NAME
PKI=$DIR/pki
. "$KUBE_HOME/lib/process.sh"
. "$KUBE_HOME/lib/pki.sh"
. "$KUBE_HOME/lib/control_plane.sh"
. "$KUBE_HOME/lib/node.sh"

# Settings of the running cluster: MODE (api or node; foreign has none of the others), ADDRESS,
# SERVER and the ports.
recall() {
  [ -f "$DIR/settings" ] || fail "there is no cluster \"$NAME\" ($DIR). Run: tests/kube/cluster.sh up"
  # shellcheck disable=SC1091
  . "$DIR/settings"
}

# Whether the cluster was not started by this script.
is_foreign() {
  [ -n "${KUBECONFIG:-}" ] && [ -n "${ANYAM_KUBE_LOAD:-}" ] && [[ $KUBECONFIG != "$STATE"/* ]]
}

kubectl() {
  if [ "$MODE" = foreign ]; then
    command kubectl "$@"
  else
    # kubectl's discovery cache is kept with the cluster, not in the home folder.
    in_network env KUBECACHEDIR="$DIR/kubectl" "$DIR/bin/kubectl" --kubeconfig "$DIR/etc/admin.kubeconfig" "$@"
  fi
}

in_network() {
  local of
  [ "$MODE" = node ] || { "$@"; return; }
  of=$(machine_pid) || fail "the cluster \"$NAME\" does not run any more. Run: tests/kube/cluster.sh up"
  nsenter --net="/proc/$of/ns/net" -- "$@"
}

needs() { # COMMAND PACKAGE
  command -v "$1" >/dev/null || fail "$1 is missing (Debian package $2). Run: tests/prerequisites.sh kube"
}

check_machine() {
  needs openssl openssl
  needs etcd etcd-server
  needs python3 python3
  binary kube-apiserver >/dev/null
  binary kubectl >/dev/null
  [ "$CONTROLLERS" = no ] || binary kube-controller-manager >/dev/null
  [ "$MODE" = node ] || return 0
  [ "$(id -u)" = 0 ] || fail "a cluster with a node needs root (network namespaces, mounts, containers); up --api-only does not"
  local program
  needs containerd containerd
  needs runc runc
  needs iptables iptables
  needs nsenter util-linux
  [ -x /usr/lib/cni/bridge ] || fail "the CNI plugins are missing (Debian package containernetworking-plugins). Run: tests/prerequisites.sh kube"
  for program in kube-scheduler kube-proxy kubelet coredns; do binary "$program" >/dev/null; done
}

# Free ports, below those that the kernel gives to clients.
free_ports() { # NUMBER
  python3 - "$1" "$ADDRESS" <<'P'
import random, socket, sys
held = []
while len(held) < int(sys.argv[1]):
    listener = socket.socket()
    try:
        listener.bind((sys.argv[2], random.randrange(20000, 32000)))
        held.append(listener)
    except OSError:
        listener.close()
print(*(listener.getsockname()[1] for listener in held))
P
}

settings() {
  if [ "$MODE" = node ]; then
    ADDRESS=172.30.0.1 API_PORT=6443 ETCD_PORT=2379 ETCD_PEER_PORT=2380 CONTROLLER_MANAGER_PORT=10257
    SERVER=https://127.0.0.1:$API_PORT
  else
    ADDRESS=${ANYAM_KUBE_ADDRESS:-127.0.0.1}
    read -r API_PORT ETCD_PORT ETCD_PEER_PORT CONTROLLER_MANAGER_PORT < <(free_ports 4)
    SERVER=https://$ADDRESS:$API_PORT
  fi
  local name
  for name in MODE CONTROLLERS ADDRESS SERVER API_PORT ETCD_PORT ETCD_PEER_PORT CONTROLLER_MANAGER_PORT; do
    printf '%s=%q\n' "$name" "${!name}"
  done
}

up() {
  local began=$EPOCHREALTIME
  MODE=node CONTROLLERS=yes
  for option in "$@"; do
    case $option in
      --api-only) MODE=api CONTROLLERS=no ;;
      --controllers) CONTROLLERS=yes ;;
      *) fail "up: unknown option $option" ;;
    esac
  done
  if [ "$MODE" = node ] && is_foreign; then
    command -v kubectl >/dev/null || fail "kubectl is not on the PATH; it is needed to use the cluster of KUBECONFIG=$KUBECONFIG"
    command kubectl get --raw /readyz >/dev/null || fail "the cluster of KUBECONFIG=$KUBECONFIG does not answer"
    MODE=foreign
    load "$(archive images/app)"
    say "using the cluster of KUBECONFIG=$KUBECONFIG"
    return
  fi
  check_machine
  sweep
  [ ! -f "$DIR/up" ] || ! is_well || fail "the cluster \"$NAME\" is up already. Run: tests/kube/cluster.sh down"
  remove
  mkdir -p "$DIR"/{pki,etc,run,logs,etcd,bin}
  # A failure ends all processes again and keeps the logs.
  trap '(end_processes) || true; say "the logs are in $DIR/logs"' EXIT
  settings >"$DIR/settings"
  recall
  [ -z "${ANYAM_KUBE_OWNER:-}" ] || echo "$ANYAM_KUBE_OWNER $(start_time "$ANYAM_KUBE_OWNER" || echo ended)" >"$DIR/owner"
  link_programs
  certificates
  if [ "$MODE" = node ]; then
    start_machine
    make_cgroups
    start_containerd
  fi
  start_control_plane
  [ "$MODE" != node ] || start_node
  touch "$DIR/up"
  trap - EXIT
  say "cluster \"$NAME\" is ready after $(((${EPOCHREALTIME/[.,]/} - ${began/[.,]/}) / 1000)) ms: $SERVER"
}

link_programs() {
  local program
  for program in kubectl helm helm3; do
    [ ! -x "$(component $program)/$program" ] || ln -sf "$(component $program)/$program" "$DIR/bin/$program"
  done
}

end_processes() {
  local component
  if [ "$MODE" = node ]; then
    stop_machine
  else
    for component in $(components); do stop "$component" KILL; done
  fi
}

# Removes what DIR has, of a running cluster or of one whose start failed.
remove() {
  [ -d "$DIR" ] || return 0
  # With its own settings, not with those of the cluster that is started next.
  [ ! -f "$DIR/settings" ] || (recall; end_processes) || fail "the cluster \"$NAME\" could not be ended; its folder $DIR is kept"
  rm -rf "$DIR"
}

# Removes clusters whose owner has ended.
sweep() {
  local file pid started
  for file in "$STATE"/*/owner; do
    [ -e "$file" ] || continue
    read -r pid started <"$file" || continue
    [ "$(start_time "$pid")" != "$started" ] || continue
    file=$(basename "$(dirname "$file")")
    [ "$file" != "$NAME" ] || continue
    say "taking down \"$file\", whose owner has ended"
    ANYAM_KUBE_NAME=$file "$KUBE_HOME/cluster.sh" down 9>&- || say "\"$file\" could not be taken down"
  done
}

is_well() {
  (
    recall
    for component in $(components); do alive "$component" || exit 1; done
    api_is_ready >/dev/null 2>&1
  )
}

status() {
  local component result=0
  of_cluster
  if [ "$MODE" = foreign ]; then
    kubectl get nodes
    return
  fi
  for component in $(components); do
    if alive "$component"; then
      printf '%-20s running\n' "$component"
    else
      printf '%-20s ended; see %s\n' "$component" "$DIR/logs/$component.log"
      result=1
    fi
  done
  api_is_ready >/dev/null 2>&1 || { echo "the API server is not ready"; return 1; }
  [ "$MODE" != node ] || kubectl get nodes,pods --all-namespaces || result=1
  return $result
}

environment() {
  if [ "$MODE" = foreign ]; then
    printf 'export KUBECONFIG=%q ANYAM_KUBE_LOAD=%q\n' "$KUBECONFIG" "$ANYAM_KUBE_LOAD"
    return
  fi
  printf 'export KUBECONFIG=%q ANYAM_KUBE_NAME=%q ANYAM_KUBE_STATE=%q ANYAM_KUBE_CACHE=%q\n' "$DIR/etc/admin.kubeconfig" "$NAME" "$STATE" "$CACHE"
  printf 'export KUBECACHEDIR=%q\n' "$DIR/kubectl"
  # shellcheck disable=SC2016 # for the shell that reads it
  printf 'export PATH=%q:"$PATH"\n' "$DIR/bin"
  [ "$MODE" != node ] || {
    printf 'export ANYAM_KUBE_LOAD=%q\n' "$KUBE_HOME/cluster.sh load"
    printf 'export ANYAM_KUBE_NETNS=%q\n' "/proc/$(machine_pid)/ns/net"
  }
}

load() {
  local archive
  [ $# -gt 0 ] || fail "load: name an image archive"
  for archive in "$@"; do
    [ -r "$archive" ] || fail "load: $archive cannot be read"
    archive=$(realpath "$archive")
    if [ "$MODE" = foreign ]; then
      sh -c "$ANYAM_KUBE_LOAD"' "$1"' load "$archive" || fail "ANYAM_KUBE_LOAD ($ANYAM_KUBE_LOAD $archive) failed"
    else
      [ "$MODE" = node ] || fail "the cluster \"$NAME\" has no node"
      load_into_node "$archive"
    fi
  done
}

gateway_api() {
  local folder
  folder=$(component gateway-api)/${1:-standard}
  [ -d "$folder" ] || fail "$folder is missing. Run: tests/kube/build.sh gateway-api; channels are standard and experimental"
  kubectl apply --server-side --force-conflicts -f "$folder"
  kubectl wait --for=condition=Established --timeout=30s -f "$folder" >/dev/null
}

# Held by `up` and `down`, whose last step removes the file: who waited for it waits for the next.
lock() {
  local file=$STATE/.$NAME.lock
  mkdir -p "$STATE"
  chmod 700 "$STATE"
  while :; do
    exec 9>"$file"
    flock -w 300 9 || fail "another cluster.sh works on \"$NAME\" and does not end"
    [ "$(stat -Lc %i /proc/self/fd/9)" != "$(stat -c %i "$file" 2>/dev/null)" ] || return 0
  done
}

# Of the cluster that this command concerns.
of_cluster() { if is_foreign; then MODE=foreign; else recall; fi; }
of_component() {
  recall
  [ -f "$DIR/run/$1.command" ] || fail "\"$NAME\" has no component $1; it has: $(components | tr '\n' ' ')"
}

case ${1:-} in
  up | down) lock ;;
esac
case ${1:-} in
  up) up "${@:2}" ;;
  down)
    if is_foreign && [ ! -d "$DIR" ]; then say "the cluster of KUBECONFIG=$KUBECONFIG is left as it is"; else remove; fi
    rm -f "$STATE/.$NAME.lock"
    ;;
  env) of_cluster; environment ;;
  kubeconfig) if is_foreign; then echo "$KUBECONFIG"; else recall; echo "$DIR/etc/admin.kubeconfig"; fi ;;
  exec)
    of_cluster
    variables=$(environment)
    eval "$variables"
    in_network "${@:2}"
    ;;
  kubectl) of_cluster; kubectl "${@:2}" ;;
  load) of_cluster; load "${@:2}" ;;
  gateway-api) of_cluster; gateway_api "${2:-standard}" ;;
  metrics-server) of_cluster; metrics_server ;;
  status) status ;;
  stop) of_component "${2:?component}"; stop "$2" ;;
  start) of_component "${2:?component}"; launch "$2" ;;
  restart) of_component "${2:?component}"; stop "$2"; launch "$2" ;;
  logs) of_component "${2:?component}"; cat "$DIR/logs/$2.log" ;;
  *)
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
    exit 2
    ;;
esac
