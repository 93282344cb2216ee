#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# deb.sh VERSION BUILD MAKE - pack what 'make install' installs as a Debian package in BUILD/.
#
# Depends: the packages that own the libraries which the programs ask for, in at least the versions
# they were linked with.
set -euo pipefail
version=$1
build=$2
make=$3
command -v dpkg-deb >/dev/null || { echo "deb: dpkg-deb is not installed" >&2; exit 1; }

root=$(mktemp -d "$build/deb.XXXXXX")
trap 'rm -rf "$root"' EXIT
umask 022
chmod 755 "$root"
"$make" --no-print-directory install DESTDIR="$PWD/$root" PREFIX=/usr >/dev/null

# The package that owns a library, and its version here.
owner_of()
{
	local path=$1 package
	# Where /lib is a link to /usr/lib, dpkg may know the file under either name.
	package=$(dpkg-query -S "$path" 2>/dev/null || dpkg-query -S "/usr$path" 2>/dev/null ||
		dpkg-query -S "${path#/usr}" 2>/dev/null) ||
		{ echo "deb: no package owns $path" >&2; exit 1; }
	package=${package%%:*}
	printf '%s (>= %s)\n' "$package" "$(dpkg-query -W -f '${Version}\n' "$package" | head -n 1)"
}

depends()
{
	local programs=("$root"/usr/bin/*) program library path
	for program in "${programs[@]}"; do
		[ -f "$program" ] || continue
		readelf -d "$program" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'
	done | sort -u >"$root/needed"
	while read -r library; do
		path=$(ldconfig -p | awk -v library="$library" '$1 == library { print $NF; exit }')
		[ -n "$path" ] || { echo "deb: $library is nowhere" >&2; exit 1; }
		owner_of "$path"
	done <"$root/needed" | sort -u | paste -s -d ',' | sed 's/,/, /g'
	rm -f "$root/needed"
}

arch=$(dpkg --print-architecture)
needed=$(depends)
[ -n "$needed" ] || { echo "deb: there is no program to pack" >&2; exit 1; }
mkdir "$root/DEBIAN"
cat >"$root/DEBIAN/control" <<CONTROL
Package: blkmirror
Version: $version
Architecture: $arch
Section: admin
Priority: optional
Maintainer: blkmirror developers <blkmirror@localhost>
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)
Depends: passwd, $needed
Recommends: qemu-utils
Description: moves the virtual disks of running QEMU/KVM machines
 blkmirrord serves virtual disks to QEMU and moves them between datastores while
 the machine goes on working; blkmirror is the command that tells it to.
CONTROL
cat >"$root/DEBIAN/postinst" <<'POSTINST'
#!/bin/sh
set -e
if [ "$1" = configure ]; then
	getent group blkmirror >/dev/null || groupadd --system blkmirror
	[ ! -d /run/systemd/system ] || systemctl daemon-reload
fi
POSTINST
cat >"$root/DEBIAN/postrm" <<'POSTRM'
#!/bin/sh
set -e
# Upgrades leave the daemon alone: it serves disks.  State and group stay, also on purge.
[ ! -d /run/systemd/system ] || systemctl daemon-reload
POSTRM
chmod 755 "$root/DEBIAN/postinst" "$root/DEBIAN/postrm"
find "$root/usr/share/man" -name '*.[1-8]' -exec gzip -9n {} + 2>/dev/null || true
package=$build/blkmirror_${version}_$arch.deb
dpkg-deb --root-owner-group --build "$root" "$package" >/dev/null
echo "$package"
