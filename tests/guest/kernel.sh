#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kernel.sh DIR - put a Linux kernel for the test guest into DIR: vmlinuz, version, lib/modules.
#
# The distribution's kernel package is downloaded and unpacked, never installed: installing it
# would touch this machine's boot loader.  The packages stay in DIR/debs; where a machine cannot
# download, copy linux-image-*.deb (Ubuntu: linux-modules-*.deb too) there.
# Exit 77: no kernel can be had.
set -euo pipefail
dir=${1:?}
debs=$dir/debs

refuse()
{
	printf 'guest: %s; put a linux-image-*.deb (and on Ubuntu linux-modules-*.deb) into %s\n' \
		"$1" "$debs" >&2
	exit 77
}

[ ! -e "$dir/version" ] || exit 0
[ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] || refuse "the guest is for Debian amd64"
mkdir -p "$debs"

# The meta package names the real one by its version: linux-image-6.1.0-56-cloud-amd64.
real_image()
{
	local meta image
	for meta in linux-image-cloud-amd64 linux-image-virtual linux-image-kvm linux-image-amd64 \
		linux-image-generic; do
		image=$(apt-cache show --no-all-versions "$meta" 2>/dev/null |
			sed -nE '/^Depends:/s/.*(linux-image-(unsigned-)?[0-9][^ ,]*).*/\1/p') || continue
		[ -n "$image" ] || continue
		printf '%s\n' "$image"
		return 0
	done
	return 1
}

update_lists()
{
	local as_root=()
	[ "$(id -u)" -eq 0 ] || as_root=(sudo -n)
	"${as_root[@]}" apt-get -q update >&2
}

download()
{
	local image modules
	image=$(real_image) || return 1
	modules=linux-modules-${image#linux-image-}
	apt-cache show --no-all-versions "$modules" >/dev/null 2>&1 || modules=
	echo "guest: downloading $image $modules" >&2
	# Partial downloads stay out of the cache.
	rm -rf "$debs/.new" && mkdir "$debs/.new"
	# Word splitting is meant: there may be no modules package.
	# shellcheck disable=SC2086
	(cd "$debs/.new" && apt-get -q download "$image" $modules >&2) || return 1
	mv "$debs/.new"/*.deb "$debs"/ && rmdir "$debs/.new"
}

have_debs()
{
	compgen -G "$debs/linux-image-*.deb" >/dev/null
}

if ! have_debs; then
	command -v apt-get >/dev/null || refuse "there is no apt-get to download a kernel with"
	# Lists that are missing or stale are fetched once; then it is the network.
	download || { update_lists && download; } || refuse "cannot download a kernel package"
fi

rm -rf "$dir/unpacked" && mkdir "$dir/unpacked"
for deb in "$debs"/*.deb; do
	dpkg-deb -x "$deb" "$dir/unpacked"
done
vmlinuz=$(find "$dir/unpacked/boot" -name 'vmlinuz-*' | sort -V | tail -n 1)
[ -n "$vmlinuz" ] || refuse "the package holds no kernel"
version=${vmlinuz##*/vmlinuz-}
# Newer distributions keep modules below /usr.
modules=$dir/unpacked/lib/modules/$version
[ -d "$modules" ] || modules=$dir/unpacked/usr/lib/modules/$version
[ -d "$modules" ] || refuse "the packages hold no modules for $version"
rm -rf "${dir:?}/lib" && mkdir -p "$dir/lib/modules"
mv "$modules" "$dir/lib/modules/"
PATH=$PATH:/sbin:/usr/sbin depmod -b "$dir" "$version"
install -m 644 "$vmlinuz" "$dir/vmlinuz"
rm -rf "$dir/unpacked"
echo "$version" >"$dir/version.new" && mv "$dir/version.new" "$dir/version"
