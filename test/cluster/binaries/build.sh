#!/bin/bash
# Builds the programs of Kubernetes (etcd, kubectl, the control plane's and the nodes') from their Go modules, at the
# versions of the go.mod beside this file, and prints the folder they lie in.
#
#   build.sh            build what is missing; progress goes to standard error
#   build.sh --where    only print the folder, whether it is there yet or not
#
# The folder lies outside the tree, in ${XDG_CACHE_HOME:-~/.cache}/raven, named after all that decides what comes out. It
# appears with one rename when all is built: two runs at once, or a run that is killed, leave nothing half. JOBS is the
# number of packages that are compiled at once; the default leaves half of the processors to others.
set -euo pipefail
cd "$(dirname "$0")"

kubernetes=$(sed -n 's|^\tk8s.io/kubernetes \(v[^ ]*\).*|\1|p' go.mod)
key=$({ go version && cat go.mod go.sum build.sh; } | sha256sum)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/raven
folder=$cache/cluster-$kubernetes-${key::12}

if [[ ${1:-} == --where || -d $folder ]]; then
	echo "$folder"
	exit
fi

mkdir -p "$cache"
exec 9>"$cache/lock"
if ! flock --nonblock 9; then
	echo "cluster binaries: another run is building; waiting for it" >&2
	flock 9
fi
if [[ -d $folder ]]; then
	echo "$folder"
	exit
fi

jobs=${JOBS:-$((($(nproc) + 1) / 2))}
rm -rf "$cache"/building.* # of runs that were killed: the lock says that none is alive
work=$(mktemp -d "$cache/building.XXXXXX")
trap 'rm -rf "$work"' EXIT

echo "cluster binaries: building Kubernetes $kubernetes and etcd into $folder (the first time about 20 minutes" \
	"on two cores, afterwards they are there)" >&2
package=k8s.io/component-base/version
IFS=. read -r major minor _ <<<"${kubernetes#v}"
version="-X $package.gitVersion=$kubernetes -X $package.gitMajor=$major -X $package.gitMinor=$minor -X $package.gitTreeState=clean"
build() { # name, package
	echo "cluster binaries: $1" >&2
	CGO_ENABLED=0 GOFLAGS='' GOWORK=off nice -n 19 ionice -c 3 go build -v -p "$jobs" -trimpath -buildvcs=false \
		-ldflags "-s -w $version" -o "$work/$1" "$2" 2>&1 |
		awk '/^[^ :]+$/ { if (++n % 50 == 0) print "cluster binaries:   " n " packages compiled, now " $0; fflush(); next }
			{ print; fflush() }' >&2
}
build etcd go.etcd.io/etcd/server/v3
for name in kubectl kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy; do
	build "$name" "k8s.io/kubernetes/cmd/$name"
done
chmod 755 "$work"
mv --no-target-directory "$work" "$folder"
trap - EXIT
echo "$folder"
