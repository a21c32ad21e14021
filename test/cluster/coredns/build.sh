#!/bin/bash
# Builds CoreDNS from its Go module, at the version of the go.mod beside this file, and prints the folder it lies in. It is
# outside the tree, in ${XDG_CACHE_HOME:-~/.cache}/raven, and appears with one rename.
set -euo pipefail
cd "$(dirname "$0")"

version=$(sed -n 's|.*github.com/coredns/coredns \(v.*\)|\1|p' go.mod)
key=$({ go version && cat go.mod go.sum build.sh main.go; } | sha256sum)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/raven
folder=$cache/coredns-$version-${key::12}

if [[ -d $folder ]]; then
	echo "$folder"
	exit
fi
mkdir -p "$cache"
exec 9>"$cache/coredns.lock"
flock 9
if [[ ! -d $folder ]]; then
	rm -rf "$cache"/coredns-building.* # of runs that were killed: the lock says that none is alive
	work=$(mktemp -d "$cache/coredns-building.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	echo "coredns: building $version into $folder (once, some minutes)" >&2
	CGO_ENABLED=0 GOFLAGS='' GOWORK=off nice -n 19 go build -p "${JOBS:-$((($(nproc) + 1) / 2))}" -trimpath -buildvcs=false \
		-ldflags '-s -w' -o "$work/coredns" . >&2
	chmod 755 "$work"
	mv --no-target-directory "$work" "$folder"
	trap - EXIT
fi
echo "$folder"
