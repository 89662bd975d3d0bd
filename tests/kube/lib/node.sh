# shellcheck shell=bash
# Sourced by cluster.sh: the namespaces that a cluster with a node runs in, its cgroups, and what runs
# on the node: containerd, kubelet, kube-proxy; CoreDNS as a Deployment.

NODE=node-1
ADDRESS6=fd00:172:30::1
CGROUP=anyam-kube-$NAME
DNS=10.96.0.10

# The process that holds the namespaces; fails where it has ended.
machine_pid() {
  local pid started
  read -r pid started 2>/dev/null <"$DIR/run/machine" || return
  [ "$(start_time "$pid")" = "$started" ] && echo "$pid"
}

start_machine() {
  local hidden real
  real=$(realpath "$DIR")
  for hidden in /run/ /var/run/ /var/lib/ /var/log/; do
    [[ $real/ != "$hidden"* && $(realpath "$CACHE")/ != "$hidden"* ]] ||
      fail "the node has its own $hidden; set ANYAM_KUBE_CACHE and ANYAM_KUBE_STATE to folders elsewhere"
  done
  # --kill-child: when this process is killed, so is the first one in the namespaces, and with it
  # all of them.
  setsid unshare --net --mount --pid --uts --ipc --fork --mount-proc --kill-child=SIGKILL -- \
    "$KUBE_HOME/lib/machine.sh" "$DIR/run/machine.ready" "$NODE" "$ADDRESS/24" "$ADDRESS6/64" \
    >"$DIR/logs/machine.log" 2>&1 </dev/null 9>&- &
  echo "$! $(start_time $!)" >"$DIR/run/machine"
  disown
  poll 10 test -e "$DIR/run/machine.ready" || {
    cat "$DIR/logs/machine.log" >&2
    fail "namespaces for the node could not be made"
  }
}

stop_machine() {
  local pid
  if pid=$(machine_pid); then
    kill -KILL "$pid"
    machine_ended() { ! machine_pid; }
    poll 10 machine_ended || fail "process $pid, which holds the namespaces of \"$NAME\", does not end"
  fi
  remove_cgroups
}

# Mount points of the cgroup hierarchies: one in version 2, many in version 1.
hierarchies() { awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/mounts; }

make_cgroups() {
  local root file
  while read -r root; do
    mkdir -p "$root/$CGROUP" 2>/dev/null || fail "the cgroup $root/$CGROUP cannot be made; a cluster with a node needs writable cgroups"
    # Version 1: a new cgroup of this controller has no processor and accepts no process.
    for file in cpuset.cpus cpuset.mems; do
      [ ! -e "$root/cgroup.procs" ] || [ ! -e "$root/$CGROUP/$file" ] || [ -n "$(cat "$root/$CGROUP/$file")" ] ||
        [ ! -s "$root/$file" ] || cat "$root/$file" >"$root/$CGROUP/$file"
    done
  done < <(hierarchies)
}

# Only this cluster's pods were in these cgroups: they are killed with their namespaces, and their
# end is waited for.
remove_cgroups() {
  local root
  empty() { [ ! -d "$1" ] || { find "$1" -depth -type d -exec rmdir {} + 2>/dev/null; [ ! -d "$1" ]; }; }
  while read -r root; do
    poll 10 empty "$root/$CGROUP" || fail "the cgroup $root/$CGROUP is not empty: processes $(find "$root/$CGROUP" -name cgroup.procs -exec cat {} + | tr '\n' ' ')"
  done < <(hierarchies)
}

start_containerd() {
  mkdir -p "$DIR/etc/cni"
  cat >"$DIR/etc/containerd.toml" <<K
version = 2
root = "$DIR/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$DIR/containerd-opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/anyam-test/pause:1"
  # Where a process may not lower its own score, every sandbox would fail.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$DIR/etc/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
K
  cat >"$DIR/etc/cni/10-pods.conflist" <<K
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true, "ipam": {
    "type": "host-local", "dataDir": "/run/cni-addresses",
    "ranges": [[{"subnet": "10.244.0.0/24"}], [{"subnet": "fd00:10:244::/64"}]],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
K
  start containerd "$(command -v containerd)" --config "$DIR/etc/containerd.toml"
}

ctr() { inside ctr --namespace k8s.io "$@"; }

start_kubelet() {
  echo "nameserver 127.0.0.1" >"$DIR/etc/resolv.conf"
  mkdir -p "$DIR/kubelet"
  cat >"$DIR/etc/kubelet.yaml" <<K
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {x509: {clientCAFile: "$PKI/ca.crt"}, webhook: {enabled: true}, anonymous: {enabled: false}}
authorization: {mode: Webhook}
tlsCertFile: "$PKI/kubelet.crt"
tlsPrivateKeyFile: "$PKI/kubelet.key"
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: "/$CGROUP"
failSwapOn: false
clusterDNS: [$DNS]
clusterDomain: cluster.local
resolvConf: "$DIR/etc/resolv.conf"
volumePluginDir: "$DIR/kubelet/volume-plugins"
serializeImagePulls: false
# The disk and the memory are those of the machine; a full one fails elsewhere, more clearly.
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 0%, imagefs.inodesFree: 0%}
imageGCHighThresholdPercent: 100
K
  start kubelet "$(binary kubelet)" --config="$DIR/etc/kubelet.yaml" --kubeconfig="$DIR/etc/kubelet.kubeconfig" \
    --hostname-override="$NODE" --node-ip="$ADDRESS,$ADDRESS6" --root-dir="$DIR/kubelet" --cert-dir="$DIR/kubelet/pki"
}

start_kube_proxy() {
  cat >"$DIR/etc/kube-proxy.yaml" <<K
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clusterCIDR: $POD_RANGE
hostnameOverride: $NODE
clientConnection: {kubeconfig: "$DIR/etc/kube-proxy.kubeconfig"}
# Limits of the whole machine, not of a namespace.
conntrack: {maxPerCore: 0, min: 0}
K
  start kube-proxy "$(binary kube-proxy)" --config="$DIR/etc/kube-proxy.yaml"
}

node_is_ready() { kubectl wait --for=condition=Ready "node/$NODE" --timeout=5s; }
dns_is_ready() { kubectl -n kube-system rollout status deployment/coredns --timeout=5s; }
containerd_is_ready() { ctr version; }

start_node() {
  local image
  for image in images/app images/pause system-images/coredns; do archive "$image" >/dev/null; done
  start_scheduler
  ready "containerd" 30 containerd containerd_is_ready
  for image in images/app images/pause system-images/coredns; do load_into_node "$(archive "$image")"; done
  start_kubelet
  kubectl apply --server-side -f <(sed "s/COREDNS_VERSION/$COREDNS/; s/DNS_ADDRESS/$DNS/" "$KUBE_HOME/manifests/system.yaml") >/dev/null
  start_kube_proxy
  ready "the node" 60 kubelet node_is_ready
  ready "CoreDNS" 60 kubelet dns_is_ready
}

# The metrics API, by which `kubectl top` and HorizontalPodAutoscalers know what pods use.
metrics_server() {
  local service=apiservice/v1beta1.metrics.k8s.io
  if ! kubectl get "$service" >/dev/null 2>&1; then
    [ "$MODE" = node ] || fail "the cluster has no metrics API ($service): install metrics-server in it, https://github.com/kubernetes-sigs/metrics-server"
    load_into_node "$(archive system-images/metrics-server)"
    kubectl apply --server-side -f <(sed "s/METRICS_SERVER_VERSION/$METRICS_SERVER/" "$KUBE_HOME/manifests/metrics-server.yaml") >/dev/null
  fi
  kubectl wait --for=condition=Available --timeout=90s "$service" >/dev/null
}

load_into_node() { # ARCHIVE
  local name
  ctr images import --digests=false "$1" >/dev/null || fail "containerd refuses the image archive $1"
  # Kubernetes takes a name without a registry for one of docker.io.
  while read -r name; do
    case ${name%%/*} in
      "$name") ctr images tag "$name" "docker.io/library/$name" >/dev/null 2>&1 || true ;;
      *.* | *:* | localhost) ;;
      *) ctr images tag "$name" "docker.io/$name" >/dev/null 2>&1 || true ;;
    esac
  done < <(tar -xOf "$1" index.json | grep -o '"io.containerd.image.name": *"[^"]*"' | sed 's/.*: *"\(.*\)"/\1/')
}
