#!/bin/bash
# Fails where a generated file is not what its generator makes of the sources. It works on a copy of the tree, so that
# it changes nothing here and also proves that the generated files do not depend on where the tree lies.
set -euo pipefail
cd "$(dirname "$0")/.."

target=generate
status=0
hack/install-deps.sh generate || status=$?
case $status in
0) ;;
4)
	echo "verify-generated: SKIPPED the BPF objects: they come from clang-16 alone, which this release does not have." \
		"The committed objects are used as they are; Debian 12 can verify them." >&2
	target=generate-api
	;;
*) exit "$status" ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/committed"
git ls-files -z --cached --others --exclude-standard --deduplicate |
	while IFS= read -r -d '' file; do [[ ! -e $file ]] || printf '%s\0' "$file"; done |
	tar --create --null --files-from=- | tar --extract --directory="$work/committed"
cp -a "$work/committed" "$work/generated"
cd "$work/generated"
rm -f manifests/crds/*.yaml manifests/charts/raven-agent/templates/* pkg/apis/raven/*/zz_generated.*.go
[[ $target != generate ]] || rm -f bpf/*_bpfel.go bpf/*_bpfel.o
make --no-print-directory "$target" generate-chart
cd "$work"
if ! diff -r committed generated; then
	echo "verify-generated: these files are not what the generators make: run 'make generate' and commit the result" >&2
	exit 1
fi
echo "verify-generated: all generated files are what 'make $target' makes"
