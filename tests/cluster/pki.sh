#!/usr/bin/env bash
# Makes the cluster's certificates, in STATE/pki, and a kubeconfig for each of
# its clients, STATE/CLIENT.kubeconfig.
#
# Usage: pki.sh STATE NODE_ADDRESS
set -euo pipefail

state=$1
address=$2
umask 077
mkdir -p "$state/pki"
cd "$state/pki"

# certificate NAME SUBJECT OPTION…: a new key and its certificate.
certificate() {
    local name=$1 subject=$2
    shift 2
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 \
        -keyout "$name.key" -out "$name.crt" -subj "$subject" "$@" 2>openssl.log || {
        cat openssl.log >&2
        exit 1
    }
}

signed=(
    -CA ca.crt -CAkey ca.key
    -addext "basicConstraints=critical,CA:FALSE"
    -addext "keyUsage=critical,digitalSignature,keyEncipherment"
)

# client NAME SUBJECT: Kubernetes takes the subject's CN for the user's name and
# its O for a group.
client() {
    certificate "$1" "$2" "${signed[@]}" -addext extendedKeyUsage=clientAuth
    cat >"$state/$1.kubeconfig" <<EOF
apiVersion: v1
kind: Config
clusters:
- name: millrace
  cluster:
    server: https://$address:6443
    certificate-authority-data: $(base64 -w 0 ca.crt)
users:
- name: $1
  user:
    client-certificate-data: $(base64 -w 0 "$1.crt")
    client-key-data: $(base64 -w 0 "$1.key")
contexts:
- name: millrace
  context: {cluster: millrace, user: $1}
current-context: millrace
EOF
}

certificate ca /CN=millrace-test-cluster -addext keyUsage=critical,keyCertSign,cRLSign
certificate apiserver /CN=kube-apiserver "${signed[@]}" -addext extendedKeyUsage=serverAuth \
    -addext "subjectAltName=DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,IP:10.96.0.1,IP:$address"
client admin /O=system:masters/CN=admin
client kubelet /O=system:nodes/CN=system:node:node
client kube-controller-manager /CN=system:kube-controller-manager
client kube-scheduler /CN=system:kube-scheduler
client kube-proxy /CN=system:kube-proxy
# signs the tokens of service accounts
openssl ecparam -name prime256v1 -genkey -noout -out service-accounts.key
