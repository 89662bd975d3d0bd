# shellcheck shell=bash
# Sourced by cluster.sh: authorities, certificates and kubeconfigs of one cluster, in $DIR/pki.
#
# Two authorities, as in any real cluster: `ca` for the API server, nodes and users;
# `front-proxy-ca` only for the API server itself when it forwards a request to an aggregated one.

DAYS=30

authority() { # NAME
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days $DAYS -subj "/CN=$1" \
    -addext keyUsage=critical,keyCertSign,cRLSign -keyout "$PKI/$1.key" -out "$PKI/$1.crt" 2>/dev/null
}

certificate() { # NAME AUTHORITY SUBJECT [SUBJECT-ALTERNATIVE-NAMES]
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$3" -keyout "$PKI/$1.key" 2>/dev/null |
    openssl x509 -req -CA "$PKI/$2.crt" -CAkey "$PKI/$2.key" -CAcreateserial -days $DAYS -out "$PKI/$1.crt" \
      -extfile <(printf 'basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\n%s\n' "${4:+subjectAltName=$4}") 2>/dev/null
}

# A kubeconfig with embedded certificates, so that it can be moved.
kubeconfig() { # CERTIFICATE
  local file=$DIR/etc/$1.kubeconfig
  cat >"$file" <<K
apiVersion: v1
kind: Config
current-context: anyam-$NAME
contexts: [{name: anyam-$NAME, context: {cluster: anyam-$NAME, user: $1}}]
clusters: [{name: anyam-$NAME, cluster: {server: "$SERVER", certificate-authority-data: $(base64 -w0 "$PKI/ca.crt")}}]
users: [{name: $1, user: {client-certificate-data: $(base64 -w0 "$PKI/$1.crt"), client-key-data: $(base64 -w0 "$PKI/$1.key")}}]
K
}

user() { # NAME SUBJECT [SUBJECT-ALTERNATIVE-NAMES]
  certificate "$1" ca "$2" "${3:-}"
  kubeconfig "$1"
}

certificates() {
  local names="DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
  authority ca
  authority front-proxy-ca
  certificate apiserver ca /CN=kube-apiserver "$names,IP:127.0.0.1,IP:$ADDRESS,IP:10.96.0.1,IP:fd00:10:96::1"
  certificate apiserver-kubelet-client ca /CN=kube-apiserver-kubelet-client
  certificate front-proxy-client front-proxy-ca /CN=front-proxy-client
  openssl ecparam -name prime256v1 -genkey -noout -out "$PKI/service-accounts.key"
  user admin /O=system:masters/CN=admin
  user controller-manager /CN=system:kube-controller-manager
  if [ "$MODE" = node ]; then
    user scheduler /CN=system:kube-scheduler
    user kubelet "/O=system:nodes/CN=system:node:$NODE" "DNS:$NODE,IP:$ADDRESS,IP:$ADDRESS6,IP:127.0.0.1"
    user kube-proxy /CN=system:kube-proxy
  fi
}
