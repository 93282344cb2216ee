#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# deps.sh list | install - the Debian/Ubuntu packages that building and testing need.
#
# 'install' asks dpkg first and touches nothing when all is there.  Only apt-get runs with
# privileges (as root, or through sudo), and ln, so that no package in the list starts a service:
# the units of those that bring one are masked before they are installed for the first time.
# BLKMIRROR_NO_DEPS=1 turns 'install' into nothing, for machines that are prepared otherwise.
set -euo pipefail

packages=(
	# building
	gcc make pkg-config libc6-dev linux-libc-dev libuv1-dev libaio-dev libnbd-dev libnfs-dev
	libiscsi-dev libssl-dev libxxhash-dev libcmocka-dev libjansson-dev libmicrohttpd-dev
	libcurl4-openssl-dev libsqlite3-dev libsystemd-dev libinih-dev liblz4-dev libzstd-dev
	clang mandoc
	# peers and clients in the tests
	qemu-system-x86 qemu-system-common qemu-utils qemu-block-extra libnbd-bin nbdkit fio tgt
	sqlite3 jq curl iproute2 python3 socat
	nfs-ganesha nfs-ganesha-vfs nfs-common rpcbind
	# the test guest, scratch file systems
	busybox-static cpio kmod xz-utils zstd xfsprogs e2fsprogs util-linux
	# judges of VMFS volumes
	vmfs-tools vmfs6-tools
)

# Package=unit: the tests run these programs themselves.
services=(
	tgt=tgt.service
	nfs-ganesha=nfs-ganesha.service nfs-ganesha=nfs-ganesha-lock.service
	rpcbind=rpcbind.service rpcbind=rpcbind.socket
	nfs-common=nfs-client.target nfs-common=nfs-blkmap.service
)

die()
{
	printf 'deps: %s\n' "$1" >&2
	printf '      %s\n' "$2" >&2
	exit 1
}

is_installed()
{
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# One question for all: this is what every 'make check' waits for.  (No <( ) here and below: it
# needs /dev/fd, which a bare chroot lacks.)
missing_of()
{
	local installed package
	# dpkg-query fails when it does not know one of them; what it prints is right all the same.
	installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null |
		sed -n 's/^installed //p') || true
	for package in "$@"; do
		[[ $'\n'$installed$'\n' == *$'\n'$package$'\n'* ]] || printf '%s\n' "$package"
	done
}

# The sanitizer and fuzzer runtime goes with the default clang, whose number differs by release;
# until LLVM 14 on Ubuntu it was part of libclang-common.
clang_runtime()
{
	local number candidate
	number=$(dpkg-query -W -f '${Depends}\n' clang 2>/dev/null | sed -nE 's/.*clang-([0-9]+).*/\1/p')
	[ -n "$number" ] || return 0
	for candidate in "libclang-rt-$number-dev" "libclang-common-$number-dev"; do
		if is_installed "$candidate" || apt_knows "$candidate"; then
			printf '%s\n' "$candidate"
			return 0
		fi
	done
}

apt_knows()
{
	[[ $(apt-cache policy "$1" 2>/dev/null) =~ 'Candidate: '[^\(] ]]
}

run_apt()
{
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y \
		-o DPkg::Lock::Timeout=300 "$@"
}

find_root()
{
	as_root=()
	[ "$(id -u)" -eq 0 ] && return
	command -v sudo >/dev/null ||
		die "these packages are missing and must be installed by root: $*" \
			"run 'make deps' as root, or install them and set BLKMIRROR_NO_DEPS=1"
	as_root=(sudo)
}

# A service that was there before, or that somebody has dealt with, is left as it is.
mask_services()
{
	local pair package unit
	for pair in "${services[@]}"; do
		package=${pair%%=*} unit=/etc/systemd/system/${pair#*=}
		[[ " $* " == *" $package "* ]] || continue
		if [ -e "$unit" ] || [ -L "$unit" ]; then continue; fi
		"${as_root[@]}" install -d "${unit%/*}"
		"${as_root[@]}" ln -s /dev/null "$unit" ||
			die "cannot mask ${unit##*/}" "install $package by hand, without its service"
		printf 'deps: %s is masked: the tests need its programs only\n' "${unit##*/}"
	done
}

# The package lists are fetched when a package is unknown, and once more when one that they
# name is no longer to be had.
install_packages()
{
	local package updated=0
	[ $# -gt 0 ] || return 0
	find_root "$@"
	printf 'deps: installing %s\n' "$*"
	for package in "$@"; do
		apt_knows "$package" || { run_apt update; updated=1; break; }
	done
	for package in "$@"; do
		apt_knows "$package" || die "apt does not know the package '$package'" \
			"this needs Debian 12 or Ubuntu 22.04 (with 'universe') or later"
	done
	mask_services "$@"
	run_apt install --no-install-recommends "$@" && return
	[ $updated -eq 0 ] || die "apt-get install failed" "its messages above say why"
	run_apt update
	run_apt install --no-install-recommends "$@" ||
		die "apt-get install failed" "its messages above say why"
}

install_all()
{
	local missing runtime
	[ -x /usr/bin/apt-get ] ||
		die "this is no Debian or Ubuntu" \
			"install what 'make deps-list' prints by your own means, set BLKMIRROR_NO_DEPS=1"
	missing=$(missing_of "${packages[@]}")
	# Package names are words.
	# shellcheck disable=SC2086
	install_packages $missing
	runtime=$(clang_runtime)
	[ -n "$runtime" ] || die "clang has no runtime package that apt knows" "its name may be new"
	missing=$(missing_of "$runtime")
	# shellcheck disable=SC2086
	install_packages $missing
}

case ${1:-} in
list)
	printf '%s\n' "${packages[@]}"
	if command -v dpkg-query >/dev/null && is_installed clang; then
		clang_runtime
	else
		echo libclang-rt-dev
	fi
	;;
install)
	[ "${BLKMIRROR_NO_DEPS:-0}" = 1 ] || install_all
	;;
*)
	echo "usage: deps.sh list | install" >&2
	exit 2
	;;
esac
