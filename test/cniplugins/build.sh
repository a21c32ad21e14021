#!/bin/bash
# Builds the reference CNI plugins from their Go module, at the version of the go.mod beside this file, and prints the
# folder they lie in. It is outside the tree, in ${XDG_CACHE_HOME:-~/.cache}/raven, and appears with one rename.
set -euo pipefail
cd "$(dirname "$0")"

version=$(sed -n 's|^require github.com/containernetworking/plugins \(v.*\)|\1|p' go.mod)
key=$({ go version && cat go.mod go.sum build.sh; } | sha256sum)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/raven
folder=$cache/cni-plugins-$version-${key::12}

if [[ -d $folder ]]; then
	echo "$folder"
	exit
fi
mkdir -p "$cache"
exec 9>"$cache/cni-plugins.lock"
flock 9
if [[ ! -d $folder ]]; then
	rm -rf "$cache"/cni-plugins-building.* # of runs that were killed: the lock says that none is alive
	work=$(mktemp -d "$cache/cni-plugins-building.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	all=github.com/containernetworking/plugins/plugins
	CGO_ENABLED=0 GOFLAGS='' GOWORK=off nice go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$work/" \
		$all/main/{bridge,ptp,macvlan} $all/ipam/host-local $all/meta/{portmap,bandwidth,tuning} >&2
	chmod 755 "$work"
	mv --no-target-directory "$work" "$folder"
	trap - EXIT
fi
echo "$folder"
