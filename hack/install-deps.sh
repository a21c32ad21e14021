#!/bin/bash
# Installs what Raven's make targets need from Debian's packages, and nothing where all is there.
#
#   hack/install-deps.sh SET...      sets: build test demo generate kernels image ipsec bench e2e
#
# Exit status: 0 all there; 1 something could not be installed; 4 this release has no such package (set generate).
set -euo pipefail
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# What each set needs: a command, or a file where it begins with /, and the Debian package that brings it.
needs() {
	case $1 in
	build) # Go fetches its modules over HTTPS
		echo /etc/ssl/certs/ca-certificates.crt ca-certificates
		;;
	demo | test)
		cat <<-'LIST'
			ip               iproute2
			ping             iputils-ping
			nft              nftables
			iptables         iptables
			conntrack        conntrack
			ipset            ipset
			tcpdump          tcpdump
			iperf3           iperf3
			wg               wireguard-tools
			bpftool          bpftool
		LIST
		;;&
	test) # the race detector links with C
		cat <<-'LIST'
			sysctl           procps
			setpriv          util-linux
			sockperf         sockperf
			cpio             cpio
			curl             curl
			gcc              gcc
			/usr/include/stdlib.h libc6-dev
		LIST
		;;
	generate) # the compiler is pinned: another one makes other objects
		cat <<-'LIST'
			clang-16         clang-16
			llvm-strip-16    llvm-16
			/usr/include/bpf/bpf_helpers.h libbpf-dev
		LIST
		;;
	kernels) # other kernels, and what boots them
		cat <<-'LIST'
			qemu-system-x86_64 qemu-system-x86
			depmod           kmod
			dpkg-deb         dpkg
			/usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring
		LIST
		;;
	image) # Debian's packages for other processors, too
		echo /usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring
		;;
	ipsec) # charon that negotiates and, on kernels without ESP, encrypts
		cat <<-'LIST'
			charon-systemd   charon-systemd
			swanctl          strongswan-swanctl
			/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so libcharon-extra-plugins
			/usr/lib/ipsec/plugins/libstrongswan-openssl.so libstrongswan-standard-plugins
		LIST
		;;
	bench) # what is measured beside Raven
		cat <<-'LIST'
			haproxy          haproxy
			ipset            ipset
		LIST
		;;
	e2e) # what runs containers, and what the tutorial's image busybox is made of
		cat <<-'LIST'
			runc             runc
			/usr/share/doc/busybox-static busybox-static
		LIST
		;;
	demo) ;;
	*)
		echo "install-deps: there is no set $1; sets are: build test demo generate kernels image ipsec bench e2e" >&2
		exit 2
		;;
	esac
}

have() {
	case $1 in
	/*) [[ -e $1 ]] ;;
	*) command -v "$1" >/dev/null ;;
	esac
}

missing=()
for set in "${@:?name a set: build test demo generate kernels image ipsec bench e2e}"; do
	listed=$(needs "$set")
	while read -r what package; do
		have "$what" || missing+=("$package")
	done <<<"$listed"
done
[[ ${#missing[@]} -gt 0 ]] || exit 0
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)

if ! command -v apt-get >/dev/null; then
	echo "install-deps: this machine lacks what Debian's packages ${missing[*]} bring, and has no apt-get: install" \
		"them with its own package manager" >&2
	exit 1
fi
if [[ $(id -u) != 0 ]]; then
	echo "install-deps: Debian's packages ${missing[*]} are missing: run 'apt-get install ${missing[*]}' as root" >&2
	exit 1
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
run() {
	if ! DEBIAN_FRONTEND=noninteractive "$@" >"$log" 2>&1 </dev/null; then
		cat "$log" >&2
		echo "install-deps: '$*' failed: see its words above" >&2
		exit 1
	fi
}
echo "install-deps: reading Debian's package lists (apt-get update)" >&2
run apt-get -o DPkg::Lock::Timeout=120 update
for package in "${missing[@]}"; do
	if [[ -z $(apt-cache policy "$package" | sed -n 's/^  Candidate: //p' | grep -v '(none)') ]]; then
		echo "install-deps: Debian $(cat /etc/debian_version) has no package $package" >&2
		exit 4
	fi
done
echo "install-deps: installing ${missing[*]} (apt-get; a minute or two)" >&2
run apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "${missing[@]}"
