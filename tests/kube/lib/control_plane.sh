# shellcheck shell=bash
# Sourced by cluster.sh: etcd, API server, controller-manager, scheduler.
#
# Both address families: a Service has IPv4 unless it asks for more.

SERVICE_RANGE=10.96.0.0/16,fd00:10:96::/112
POD_RANGE=10.244.0.0/16,fd00:10:244::/56

start_etcd() {
  local client=http://127.0.0.1:$ETCD_PORT peer=http://127.0.0.1:$ETCD_PEER_PORT
  # State is never needed after a crash, so nothing waits for the disk.
  start etcd "$(command -v etcd)" --name default --data-dir "$DIR/etcd" --unsafe-no-fsync --logger zap --log-level warn \
    --listen-client-urls "$client" --advertise-client-urls "$client" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer"
}

start_apiserver() {
  # shellcheck disable=SC2054 # a comma inside a flag's value
  local flags=(
    --etcd-servers="http://127.0.0.1:$ETCD_PORT"
    --secure-port="$API_PORT" --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key"
    --client-ca-file="$PKI/ca.crt"
    --service-account-issuer=https://kubernetes.default.svc.cluster.local
    --service-account-key-file="$PKI/service-accounts.key" --service-account-signing-key-file="$PKI/service-accounts.key"
    --service-cluster-ip-range="$SERVICE_RANGE"
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true
    --requestheader-client-ca-file="$PKI/front-proxy-ca.crt" --requestheader-allowed-names=front-proxy-client
    --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group
    --requestheader-extra-headers-prefix=X-Remote-Extra-
    --proxy-client-cert-file="$PKI/front-proxy-client.crt" --proxy-client-key-file="$PKI/front-proxy-client.key"
    --profiling=false
    --audit-policy-file="$DIR/etc/audit.yaml" --audit-log-path="$DIR/logs/audit.log"
  )
  # Audit log of the requests of the mesh's control plane: tests compare it with the rights granted.
  cat >"$DIR/etc/audit.yaml" <<K
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - {level: Metadata, userGroups: ["system:serviceaccounts:anyam-system"]}
  - {level: None}
K
  if [ "$MODE" = node ]; then
    flags+=(
      --advertise-address="$ADDRESS"
      # The node's name is not in DNS, where `exec` and `logs` would look it up.
      --kubelet-preferred-address-types=InternalIP
      --kubelet-certificate-authority="$PKI/ca.crt"
      --kubelet-client-certificate="$PKI/apiserver-kubelet-client.crt" --kubelet-client-key="$PKI/apiserver-kubelet-client.key"
    )
  else
    # A loopback address is no valid endpoint of the Service `kubernetes`.
    flags+=(--bind-address="$ADDRESS" --advertise-address="$ADDRESS" --endpoint-reconciler-type=none)
  fi
  start apiserver "$(binary kube-apiserver)" "${flags[@]}"
}

start_controller_manager() {
  local flags=(
    --kubeconfig="$DIR/etc/controller-manager.kubeconfig"
    --authentication-kubeconfig="$DIR/etc/controller-manager.kubeconfig"
    --authorization-kubeconfig="$DIR/etc/controller-manager.kubeconfig"
    --bind-address=127.0.0.1 --secure-port="$CONTROLLER_MANAGER_PORT" --cert-dir="$PKI" --profiling=false
    --leader-elect=false --use-service-account-credentials
    --service-account-private-key-file="$PKI/service-accounts.key" --root-ca-file="$PKI/ca.crt"
    --cluster-signing-cert-file="$PKI/ca.crt" --cluster-signing-key-file="$PKI/ca.key"
    --service-cluster-ip-range="$SERVICE_RANGE"
    --horizontal-pod-autoscaler-sync-period=5s
  )
  if [ "$MODE" = node ]; then
    flags+=(--allocate-node-cidrs=true --cluster-cidr="$POD_RANGE" --node-cidr-mask-size-ipv4=24 --node-cidr-mask-size-ipv6=64)
  else
    # Without a kubelet, nodes are objects of the test: these controllers would mark them as lost,
    # and delete their pods.
    flags+=(--controllers='*,-node-lifecycle-controller,-taint-eviction-controller,-pod-garbage-collector-controller')
  fi
  start controller-manager "$(binary kube-controller-manager)" "${flags[@]}"
}

start_scheduler() {
  start scheduler "$(binary kube-scheduler)" --kubeconfig="$DIR/etc/scheduler.kubeconfig" \
    --authentication-kubeconfig="$DIR/etc/scheduler.kubeconfig" --authorization-kubeconfig="$DIR/etc/scheduler.kubeconfig" \
    --bind-address=127.0.0.1 --cert-dir="$PKI" --leader-elect=false --profiling=false
}

api_is_ready() { kubectl get --raw /readyz && kubectl get namespaces default kube-system kube-public kube-node-lease; }
# The namespace's service account is the first thing that only a working controller-manager makes.
controllers_are_ready() { kubectl get serviceaccount default && kubectl -n kube-system get configmap kube-root-ca.crt; }

# CONTROLLERS: with the controller-manager?
start_control_plane() {
  start_etcd
  start_apiserver
  ready "the API server" 90 apiserver api_is_ready
  if [ "$CONTROLLERS" = yes ]; then
    start_controller_manager
    ready "the controller-manager" 60 controller-manager controllers_are_ready
  fi
}
