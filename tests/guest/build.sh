#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# build.sh [ledger] - make the test guest in build/guest: vmlinuz, initrd-base.cpio, ledger; or
# the ledger alone.
#
# A busybox, an init, the ledger, the alternating writer and the modules in modules.list with all they need.  Needs no
# root: the kernel makes the device nodes (devtmpfs).  Rebuilt when an input is newer.
# Exit 77: no kernel can be had (see kernel.sh).
set -euo pipefail
cd "$(dirname "$0")/../.."
here=tests/guest
out=build/guest
mkdir -p "$out"
PATH=$PATH:/sbin:/usr/sbin

# Tests that run side by side build it once.
exec 9>"$out/.lock"
flock 9

newer_than()
{
	local made=$1
	shift
	[ -e "$made" ] && [ -z "$(find "$@" -newer "$made" -print -quit)" ]
}

build_ledger()
{
	newer_than "$out/ledger" "$here"/ledger*.[ch] && return
	gcc -std=gnu17 -D_GNU_SOURCE -O2 -g -Wall -Wextra -Werror -static -pthread \
		"$here"/ledger*.c -o "$out/ledger.new"
	mv "$out/ledger.new" "$out/ledger"
}

build_alternate()
{
	newer_than "$out/alternate" "$here/alternate.c" && return
	gcc -std=gnu17 -D_GNU_SOURCE -O2 -g -Wall -Wextra -Werror -static "$here/alternate.c" \
		-o "$out/alternate.new"
	mv "$out/alternate.new" "$out/alternate"
}

find_busybox()
{
	local busybox
	for busybox in /bin/busybox /usr/bin/busybox; do
		if [ -x "$busybox" ] && ! ldd "$busybox" >/dev/null 2>&1; then
			printf '%s\n' "$busybox"
			return
		fi
	done
	echo "guest: there is no static busybox: install busybox-static (make deps)" >&2
	return 1
}

# Print a module's file and those it needs, from modules.dep; nothing for a built-in one.
module_files()
{
	local name=$1 pattern
	pattern=${name//_/[-_]}
	if grep -qE "/$pattern\.ko" "$modules/modules.builtin"; then
		return
	fi
	grep -E "^[^:]*/$pattern\.ko(\.xz|\.zst|\.gz)?:" "$modules/modules.dep" | tr -d : |
		tr ' ' '\n' | grep . ||
		echo "guest: this kernel has no module $name" >&2
}

# busybox reads plain modules only.
unpack_module()
{
	local file=$1 to=$root/lib/modules/$version/${1##*/}
	case $file in
	*.xz) xz -dc "$modules/$file" >"${to%.xz}" ;;
	*.zst) zstd -qdc "$modules/$file" >"${to%.zst}" ;;
	*.gz) gzip -dc "$modules/$file" >"${to%.gz}" ;;
	*) cp "$modules/$file" "$to" ;;
	esac
}

build_initrd()
{
	local busybox name file
	busybox=$(find_busybox)
	newer_than "$out/initrd-base.cpio" "$out/ledger" "$out/alternate" "$out/version" "$here/init" \
		"$here/modules.list" "$here/build.sh" "$busybox" && return
	version=$(cat "$out/version")
	modules=$out/lib/modules/$version
	root=$out/root
	rm -rf "$root"
	mkdir -p "$root/bin" "$root/lib/modules/$version"
	cp "$busybox" "$root/bin/busybox"
	cp "$out/ledger" "$root/bin/ledger"
	cp "$out/alternate" "$root/bin/alternate"
	install -m 755 "$here/init" "$root/init"
	cp "$modules"/modules.{builtin,builtin.modinfo,order} "$root/lib/modules/$version/"
	# No < <( ): a bare chroot lacks /dev/fd.
	# shellcheck disable=SC2013 # words are meant
	for name in $(sed 's/#.*//' "$here/modules.list"); do
		for file in $(module_files "$name"); do
			unpack_module "$file"
		done
	done
	depmod -b "$root" "$version"
	rm "$root/lib/modules/$version/modules.builtin.modinfo" # large, and the guest reads it not
	(cd "$root" && find . -print0 | LC_ALL=C sort -z |
		cpio --quiet --null -o -H newc -R 0:0) >"$out/initrd-base.cpio.new"
	mv "$out/initrd-base.cpio.new" "$out/initrd-base.cpio"
	rm -rf "$root"
}

build_ledger
[ "${1:-}" != ledger ] || exit 0
build_alternate
"$here/kernel.sh" "$out"
build_initrd
