#!/bin/bash
# Checks the rules of the house that no standard tool knows. Each finding says what to do.
set -euo pipefail
cd "$(dirname "$0")/.."

git ls-files >/dev/null # fails here, with its own words, outside a checkout
found=0
complain() { # sentence, then findings on standard input
	local lines
	lines=$(cat)
	[[ -n $lines ]] || return 0
	printf '%s:\n%s\n' "$1" "$lines" >&2
	found=1
}
sources() { # of these patterns, what people write
	git ls-files --cached --others --exclude-standard --deduplicate -- "$@" |
		grep -Ev '(_bpfel|/zz_generated\.[^/]*)\.go$' | while read -r file; do [[ ! -e $file ]] || echo "$file"; done
}

complain "A name says what is in there: rename" < <(
	sources '*.go' '*.c' '*.h' | grep -Ei '(^|/)(utils?|common|helpers?|misc)(/|\.)')
complain "A file is about one concept, in at most 500 lines: split" < <(
	sources '*.go' '*.c' '*.h' '*.sh' | xargs awk 'FNR == 501 { print FILENAME }')
complain "Wait for the condition instead of sleeping" < <(
	sources '*.go' | xargs grep -nE '\btime\.Sleep\(')
complain "Do it now, or leave it to an issue and say nothing here" < <(
	sources '*.go' '*.c' '*.h' | xargs grep -nE '\b(TODO|FIXME|XXX)\b')
complain "A document that is referred to does not exist" < <(
	sources '*' | xargs grep -IohE '\bdocs/[A-Za-z0-9_/.-]+\.md\b' | sort -u | while read -r page; do [[ -e $page ]] || echo "$page"; done)
complain "A page is missing in docs/design/README.md" < <(
	for page in docs/design/*.md; do grep -qF "(${page##*/})" docs/design/README.md || echo "$page"; done | grep -v README)
exit "$found"
