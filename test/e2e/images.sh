#!/bin/bash
# Makes the images of the end-to-end test in a folder: Raven's, as `make image` makes them for this machine's processor, and
# two of Debian's static busybox: one of that name, and one that holds a pod's namespaces. CoreDNS is built from its module, and
# has the name, too, that manifests/proxy asks for. The stand-in is test/e2e/cmd/standin. OUT/next has Raven's images with another ABI, tag VERSION-next.
#
#   images.sh OUT       VERSION is the tag of Raven's images
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:?folder for the archives}
arch=$(go env GOARCH)
mkdir -p "$out"
ARCHS=$arch REPOSITORY=ravencni VERSION=${VERSION:?} hack/image/build.sh "$out"
VERSION=$VERSION-next test/e2e/nextabi.sh "$out/next"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{busybox,pause}/bin "$work/busybox/tmp" "$work/coredns" "$work/standin"
CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$work/standin/" ./test/e2e/cmd/standin
install -m 755 "$(test/cluster/coredns/build.sh)/coredns" "$work/coredns/coredns"
for image in busybox pause; do
	install -m 755 /bin/busybox "$work/$image/bin/busybox"
done
/bin/busybox --list | grep -vx busybox | while read -r applet; do ln -s busybox "$work/busybox/bin/$applet"; done
printf '%s\n' '#!/bin/busybox sh' 'exec /bin/busybox sleep 2147483647' >"$work/pause/pause"
chmod 755 "$work/pause/pause"
pack() { # name, entrypoint, archive, folder where it is called otherwise
	go run ./hack/image --name "$1" --entrypoint "$2" --out "$out/$3.oci.tar" "$arch=$work/${4:-$3}"
}
pack docker.io/library/busybox:latest /bin/sh busybox
pack registry.k8s.io/pause:3.10 /pause pause
pack docker.io/raven-test/standin:e2e /standin standin
pack registry.k8s.io/coredns/coredns:e2e /coredns coredns
pack "docker.io/$(sed -n 's/^ *image: \(coredns.*\)/\1/p' manifests/proxy/coredns.yaml)" /coredns raven-dns coredns
