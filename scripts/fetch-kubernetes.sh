#!/usr/bin/env bash
# Builds a Kubernetes node's programs, CoreDNS, the pause container's program,
# kubectl and Helm from the Go module proxy into the cache and prints the folder
# with the binaries. Does nothing but print when they are there. They are built
# because no package registry has them as binaries; it takes about eight minutes
# of CPU on two cores, once per machine.
#
# Usage: scripts/fetch-kubernetes.sh
set -euo pipefail

cd "$(dirname "$0")/.."
. scripts/cache.sh
. scripts/go.sh

source=$PWD/tests/cluster/src
hash=$(cd "$source" && cat go.mod go.sum ./*/main.go | sha256sum | cut -c 1-12)
home=$MILLRACE_CACHE/kubernetes-$hash

if [ ! -d "$home" ]; then
    go=$(find_go) || {
        echo "fetch-kubernetes: no Go >= $GO_NEEDED; run scripts/setup.sh test" >&2
        exit 1
    }

    # Modules and build cache are ten times the size of the result: they live
    # beside it only while it is built. Go makes its module cache read-only.
    work=$(mktemp -d "$MILLRACE_CACHE/kubernetes-build.XXXXXX")
    trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
    mkdir "$work/home"

    # Kubernetes reports the version that it was linked with, and clients
    # compare it with theirs.
    version=$(sed -n 's|.*k8s.io/kubernetes \(v.*\)|\1|p' "$source/go.mod")
    minor=${version#v1.}
    minor=${minor%%.*}
    flags='-s -w'
    for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        flags+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$minor"
    done

    echo "fetch-kubernetes: building Kubernetes $version, CoreDNS and Helm, eight minutes or more" >&2
    (cd "$source" && env -u GOBIN -u GOROOT GOPATH="$work/path" GOCACHE="$work/cache" \
        GOFLAGS=-buildvcs=false GOTOOLCHAIN=local CGO_ENABLED=0 \
        nice "$go" build -mod=readonly -trimpath -ldflags="$flags" -o "$work/home/" \
        ./kubernetes ./coredns ./pause helm.sh/helm/v3/cmd/helm >&2)
    for name in etcd kubectl kubelet kube-apiserver kube-controller-manager kube-proxy kube-scheduler; do
        ln -s kubernetes "$work/home/$name"
    done

    # One rename makes the installation appear whole, or not at all.
    mv -T "$work/home" "$home" 2>/dev/null || [ -d "$home" ]
fi

# Where `cargo test` finds it without make.
ln -sfn "$home" "$MILLRACE_CACHE/kubernetes"
echo "$home"
