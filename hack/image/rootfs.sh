#!/bin/bash
# Unpacks the Debian packages of hack/image/packages, and what they depend on, into a folder, for one processor
# architecture, without running anything of theirs: the same on any machine that has apt.
#
#   rootfs.sh ARCH DIR      ARCH: amd64 or arm64
#
# The packages are Debian 12's, whatever runs here, as Debian's own keys sign them. DEBIAN_MIRROR and
# DEBIAN_SECURITY_MIRROR name other mirrors. Lists and packages are kept in ${XDG_CACHE_HOME:-~/.cache}/raven/debian.
# DIR/usr/share/doc/raven/debian-packages says what is there: name, version, architecture and SHA-256, one a line.
set -euo pipefail
arch=${1:?architecture} dir=${2:?folder}
here=$(dirname "$0")
suite=bookworm
keys=/usr/share/keyrings/debian-archive-keyring.gpg
: "${DEBIAN_MIRROR:=http://deb.debian.org/debian}" "${DEBIAN_SECURITY_MIRROR:=http://deb.debian.org/debian-security}"

[[ -e $keys ]] || { echo "rootfs: no $keys: install debian-archive-keyring" >&2; exit 1; }
cache=${XDG_CACHE_HOME:-$HOME/.cache}/raven/debian/$suite-$arch
mkdir -p "$cache/lists/partial" "$cache/archives/partial" "$cache/none/partial" "$dir"
exec 9>"$cache/lock"
flock 9
cat >"$cache/sources.list" <<-END
	deb [signed-by=$keys] $DEBIAN_MIRROR $suite main
	deb [signed-by=$keys] $DEBIAN_MIRROR $suite-updates main
	deb [signed-by=$keys] $DEBIAN_SECURITY_MIRROR $suite-security main
END
: >"$cache/status" # as if nothing were installed: apt then takes in every dependency
apt() {
	apt-get --quiet=2 -o APT::Architecture="$arch" -o APT::Architectures="$arch" -o APT::Sandbox::User=root \
		-o Dir::Etc::SourceList="$cache/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::Etc::Preferences=/dev/null \
		-o Dir::Etc::PreferencesParts=/dev/null -o Dir::State="$cache" -o Dir::State::Lists="$cache/lists" \
		-o Dir::State::Status="$cache/status" -o Dir::Cache="$cache" -o Dir::Cache::Archives="$cache/archives" \
		-o Acquire::Languages=none -o APT::Install-Recommends=false "$@"
}
mapfile -t wanted < <(sed 's/#.*//; s/ *$//; /^$/d' "$here/packages")
if [[ -z $(find "$cache/updated" -mmin -60 2>/dev/null) ]]; then
	apt update
	touch "$cache/updated"
fi
uris=$(apt -o Dir::Cache::Archives="$cache/none" install --yes --print-uris "${wanted[@]}") # those in the cache, too
[[ -n $uris ]] || { echo "rootfs: apt names no packages for ${wanted[*]}" >&2; exit 1; }
apt install --yes --download-only "${wanted[@]}" >/dev/null

list=$dir/usr/share/doc/raven/debian-packages
mkdir -p "$(dirname "$list")"
lines=()
while read -r _ file _; do
	file=$cache/archives/$file
	read -r name version <<<"$(dpkg-deb --show --showformat '${Package} ${Version}' "$file")"
	[[ $name != debconf ]] || continue # asks questions while packages are set up
	dpkg-deb --fsys-tarfile "$file" | tar --extract --directory="$dir" --keep-directory-symlink --no-same-owner \
		--exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' --exclude='./usr/share/info/*' \
		--exclude='./usr/share/lintian/*' --exclude='./usr/share/bug/*' --exclude='./usr/share/bash-completion/*' \
		--exclude='./usr/share/doc/*/changelog*' --exclude='./usr/share/doc/*/NEWS*' --exclude='./usr/share/doc/*/README*' \
		--exclude='./usr/share/doc/*/examples' --exclude='./usr/share/perl*' --exclude='./lib/systemd/*' --exclude='./etc/init.d/*'
	lines+=("$name $version $(dpkg-deb --show --showformat '${Architecture}' "$file") $(sha256sum "$file" | cut -d' ' -f1)")
done <<<"$uris"
printf '%s\n' "${lines[@]}" | LC_ALL=C sort >"$list"
