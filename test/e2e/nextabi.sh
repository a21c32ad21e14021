#!/bin/bash
# Makes the images of a version whose maps have another layout, and so another ABI number: a field comes first in the
# entries of raven_pods, which moves all others. All else is this checkout's.
#
#   nextabi.sh OUT      VERSION is the images' tag
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:?folder for the archives}
mkdir -p "$out"
out=$(realpath "$out")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

git ls-files -z --cached --others --exclude-standard --deduplicate |
	while IFS= read -r -d '' file; do [[ ! -e $file ]] || printf '%s\0' "$file"; done |
	tar --create --null --files-from=- | tar --extract --directory="$work"
GIT_DIR=$(git rev-parse --absolute-git-dir)
export GIT_DIR GIT_OPTIONAL_LOCKS=0 # the copy is told the same commit, and leaves the checkout's index alone
cd "$work"

abi=$(sed -n 's/^#define RAVEN_ABI \([0-9]*\)$/\1/p' bpf/include/abi.h)
change() { # file, sed's words, what must be there then
	sed -i "$2" "$1"
	grep -q -- "$3" "$1" || { echo "nextabi: $1 is not as this script knows it" >&2; exit 1; }
}
change bpf/include/abi.h "s/^#define RAVEN_ABI $abi\$/#define RAVEN_ABI $((abi + 1))/" "RAVEN_ABI $((abi + 1))"
change bpf/types.go "s/^const ABI = $abi\$/const ABI = $((abi + 1))/" "ABI = $((abi + 1))"
change bpf/include/maps.h 's/^struct raven_pod {$/&\n\t__u32 moves_the_rest;/' moves_the_rest
go generate ./bpf >&2
ARCHS=$(go env GOARCH) REPOSITORY=ravencni VERSION=${VERSION:?} hack/image/build.sh "$out"
