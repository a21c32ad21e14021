#!/bin/bash
# Builds Helm from its Go module, at the version of the go.mod beside this file, and prints the folder it lies in. It is
# outside the tree, in ${XDG_CACHE_HOME:-~/.cache}/raven, and appears with one rename.
#
#   build.sh --where    only print the folder, whether it is there yet or not
set -euo pipefail
cd "$(dirname "$0")"

module=helm.sh/helm/v4
version=$(sed -n "s|^require $module \(v.*\)|\1|p" go.mod)
key=$({ go version && cat go.mod go.sum build.sh; } | sha256sum)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/raven
folder=$cache/helm-$version-${key::12}

if [[ ${1:-} == --where || -d $folder ]]; then
	echo "$folder"
	exit
fi
mkdir -p "$cache"
exec 9>"$cache/helm.lock"
flock 9
if [[ ! -d $folder ]]; then
	rm -rf "$cache"/helm-building.* # of runs that were killed: the lock says that none is alive
	work=$(mktemp -d "$cache/helm-building.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	echo "helm: building $version into $folder (once, some minutes)" >&2
	CGO_ENABLED=0 GOFLAGS='' GOWORK=off nice -n 19 go build -p "${JOBS:-$((($(nproc) + 1) / 2))}" -trimpath -buildvcs=false \
		-ldflags "-s -w -X $module/internal/version.version=$version" -o "$work/" $module/cmd/helm >&2
	chmod 755 "$work"
	mv --no-target-directory "$work" "$folder"
	trap - EXIT
fi
echo "$folder"
