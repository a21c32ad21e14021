#!/bin/bash
# Packs what a user installs from.
#
#   bundle.sh chart DIR     DIR/raven-agent-<version>.tgz: the Helm chart
#   bundle.sh bundle DIR    DIR/raven-<version>.tar.gz: image archives (of DIR/images), manifests, chart, bill of materials,
#                           documentation and checksums, for a site without a registry
#
# REPOSITORY and VERSION come from the environment. The same commit and images give the same files.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${REPOSITORY:=ravencni}" "${VERSION:=latest}" "${ARCHS:=amd64 arm64}"
what=${1:-} dir=${2:-}
[[ $what =~ ^(chart|bundle)$ && -n $dir ]] || { echo "bundle.sh chart | bundle DIR" >&2; exit 2; }
mkdir -p "$dir"
umask 022
epoch=$(git log -1 --format=%ct)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

pack() { # archive, folder, name in it
	tar --create --directory="$2" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$epoch" --format=ustar "$3" | gzip -9n >"$1"
}

# Helm wants a semantic version; what git says when there is no tag is none.
chart_version=${VERSION#v}
[[ $chart_version =~ ^[0-9]+\.[0-9]+\.[0-9]+([-+].*)?$ ]] || chart_version=0.0.0-g${VERSION//[^A-Za-z0-9-]/-}

chart() { # into which folder
	rm -rf "$work/chart"
	mkdir "$work/chart"
	cp -r manifests/charts/raven-agent "$work/chart/"
	sed -i "s|^version: .*|version: $chart_version|; s|^appVersion: .*|appVersion: \"$VERSION\"|" "$work/chart/raven-agent/Chart.yaml"
	sed -i "s|^  repository: .*|  repository: $REPOSITORY|" "$work/chart/raven-agent/values.yaml"
	pack "$1/raven-agent-$chart_version.tgz" "$work/chart" raven-agent
}

if [[ $what == chart ]]; then
	chart "$dir"
	echo "bundle: $dir/raven-agent-$chart_version.tgz"
	exit
fi

name=raven-$VERSION
out=$work/$name
mkdir -p "$out/images" "$out/manifests"
cp "$dir"/images/raven-{agent,controller}.oci.tar "$out/images/"
chart "$out"
for driver in ipsec wireguard; do
	go run ./hack/render --repository "$REPOSITORY" --version "$VERSION" --vpn-driver $driver manifests/install >"$out/manifests/raven-$driver.yaml"
done
go run ./hack/render --repository "$REPOSITORY" --version "$VERSION" manifests/cleanup >"$out/manifests/cleanup.yaml"
cp LICENSE CHANGELOG.md docs/install.md "$out/"

# The binaries and the packages that are in the archives themselves, not those of another build.
go run ./hack/image/unpack "$out"/images/*.oci.tar "$work/unpacked"
mapfile -t programs < <(find "$work/unpacked" -path '*/usr/local/bin/*' -type f | sort)
mapfile -t debian < <(find "$work/unpacked" -name debian-packages | sort)
go run ./hack/sbom --name raven --version "$VERSION" --time "$epoch" "${debian[@]/#/--debian=}" "${programs[@]}" >"$out/sbom.cdx.json"

(cd "$out" && find . -type f ! -name SHA256SUMS -printf '%P\n' | LC_ALL=C sort | xargs -d '\n' sha256sum >SHA256SUMS)
pack "$dir/$name.tar.gz" "$work" "$name"
echo "bundle: $dir/$name.tar.gz ($(du -h "$dir/$name.tar.gz" | cut -f1)), sha256 $(sha256sum "$dir/$name.tar.gz" | cut -d' ' -f1)"
