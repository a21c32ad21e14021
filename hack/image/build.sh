#!/bin/bash
# Makes the images of Raven as OCI archives, for amd64 and arm64, without a container engine and without root:
# OUT/raven-agent.oci.tar and OUT/raven-controller.oci.tar.
#
#   build.sh OUT            ARCHS="amd64 arm64", REPOSITORY and VERSION come from the environment
#   build.sh --rootfs IMAGE ARCH DIR    only fill DIR with what lies in the image, for the Dockerfile
#
# The same commit gives the same archives, as long as Debian 12 has the same packages: the time of all files is the commit's.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${ARCHS:=amd64 arm64}" "${REPOSITORY:=ravencni}" "${VERSION:=latest}"

# The programs of an image: all of cmd/ but the controller's go to the nodes.
programs() {
	case $1 in
	raven-controller) echo raven-controller ;;
	raven-agent) find cmd -mindepth 1 -maxdepth 1 -type d ! -name raven-controller -printf '%f\n' | sort ;;
	*) echo "build: there is no image $1" >&2; exit 2 ;;
	esac
}

# own IMAGE ARCH DIR: the layer with Raven's own binaries and all licences
own() {
	local image=$1 arch=$2 dir=$3 doc=$3/usr/share/doc/raven program
	local -a packages=()
	mkdir -p "$dir/usr/local/bin" "$dir/etc" "$doc"
	for program in $(programs "$image"); do packages+=("./cmd/$program"); done
	CGO_ENABLED=0 GOOS=linux GOARCH=$arch GOFLAGS= go build -trimpath -buildvcs=false \
		-ldflags "-s -w -X github.com/ravencni/raven/pkg/version.version=$VERSION" -o "$dir/usr/local/bin/" "${packages[@]}"
	printf '%s\n' 'root:x:0:0:root:/:/usr/sbin/nologin' 'raven:x:65532:65532:raven:/:/usr/sbin/nologin' >"$dir/etc/passwd"
	printf '%s\n' 'root:x:0:' 'raven:x:65532:' >"$dir/etc/group"
	cp LICENSE bpf/LICENSE-BSD-2-Clause bpf/LICENSE-GPL-2.0 "$doc"
	mkdir -p "$doc/modules/go"
	cp "$(go env GOROOT)/LICENSE" "$doc/modules/go/"
	local module folder
	while read -r module folder; do
		mkdir -p "$doc/modules/$module"
		find "$folder" -maxdepth 1 -type f \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'notice*' -o -iname 'patents*' \) \
			-exec cp -- {} "$doc/modules/$module/" \;
		[[ -n $(ls "$doc/modules/$module") ]] || { echo "build: module $module has no licence file" >&2; exit 1; }
	done < <(GOOS=linux GOARCH=$arch CGO_ENABLED=0 go list -deps \
		-f '{{with .Module}}{{if not .Main}}{{.Path}}@{{.Version}} {{.Dir}}{{end}}{{end}}' "${packages[@]}" | sort -u)
	find "$dir" -type d -exec chmod 755 {} + -o -type f ! -path '*/bin/*' -exec chmod 644 {} + -o -type f -exec chmod 755 {} +
}

if [[ ${1:-} == --rootfs ]]; then
	own "$2" "$3" "$4"
	[[ $2 != raven-agent ]] || hack/image/rootfs.sh "$3" "$4"
	exit
fi

out=${1:?folder for the archives}
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 022
epoch=$(git log -1 --format=%ct)
revision=$(git rev-parse HEAD)
[[ -z $(git status --porcelain) ]] || revision+=-dirty
agent=() controller=()
for arch in $ARCHS; do
	echo "image: $arch" >&2
	hack/image/rootfs.sh "$arch" "$work/$arch/debian"
	own raven-agent "$arch" "$work/$arch/agent"
	own raven-controller "$arch" "$work/$arch/controller"
	agent+=("$arch=$work/$arch/debian,$work/$arch/agent")
	controller+=("$arch=$work/$arch/controller")
done
GOFLAGS= go build -o "$work/image" ./hack/image
make_image() { # image, title, user, folders...
	"$work/image" --name "$REPOSITORY/$1:$VERSION" --title "$2" --user "$3" --entrypoint "/usr/local/bin/$1" --revision "$revision" \
		--time "$epoch" --out "$out/$1.oci.tar" "${@:4}"
	echo "image: $out/$1.oci.tar: $REPOSITORY/$1:$VERSION for $ARCHS, sha256 $(sha256sum "$out/$1.oci.tar" | cut -d' ' -f1)" >&2
}
make_image raven-agent "Raven's node daemon" '' "${agent[@]}"
make_image raven-controller "Raven's controller" 65532:65532 "${controller[@]}"
