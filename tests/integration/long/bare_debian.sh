#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# minutes: 25
#
# bare_debian.sh - the README's two commands, each the first one ever given on a bare Debian.
#
# A minimal Debian 12 (debootstrap's minbase, and make) is unpacked once and copied for each
# command.  Mount and process namespaces of their own: nothing is mounted here, and whatever
# a command leaves running ends with it.
#
#   BARE_COMMANDS   "check demo": the targets to try; each in a system of its own
#   BARE_DIR        where the systems are unpacked (TMPDIR, /tmp): 8 GiB
#   BARE_SECONDS    2400: the most that one command may take
# Skipped without root, debootstrap or a mirror to be reached.
set -u
cd "$(dirname "$0")/../../.." || exit 1
skip()
{
	echo "skipped: $*"
	exit 77
}

# ---- inside: one command in its system, in namespaces of our own ----

if [ "${1:-}" = --inside ]; then
	root=$2
	target=$3
	set -e
	mount --make-rprivate /
	# A root that is a mount of its own: what makes a namespace in there can make it private.
	mount --bind "$root" "$root"
	mount -t proc proc "$root/proc"
	mount --rbind /dev "$root/dev"
	mount --rbind /sys "$root/sys"
	mount --bind "$root/../archives" "$root/var/cache/apt/archives"
	# What a login would set, and where the network is reached through a proxy, that.
	proxies=()
	for name in http_proxy https_proxy no_proxy; do
		[ -z "${!name:-}" ] || proxies+=("$name=${!name}")
	done
	exec chroot "$root" /usr/bin/env -i HOME=/root LANG=C.UTF-8 CI=true \
		PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		"${proxies[@]}" make -C /root/blkmirror --no-print-directory "$target"
fi

# ---- outside ----

[ "$(id -u)" -eq 0 ] || skip "root is needed for a system of its own"
command -v debootstrap >/dev/null || skip "debootstrap is not installed"
unshare --mount --pid --fork true 2>/dev/null || skip "no namespaces of our own may be made here"
commands=${BARE_COMMANDS:-check demo}
place=${BARE_DIR:-${TMPDIR:-/tmp}}
[ "$(df --output=avail -B 1G "$place" | tail -n 1)" -ge 8 ] || skip "$place has less than 8 GiB free"

work=$(mktemp -d "$place/bare.XXXXXX")
# One file system, ours: should a mount ever be left, its contents are not followed.
trap 'rm -rf --one-file-system "$work"' EXIT
trap 'exit 130' INT TERM

step()
{
	printf '%(%H:%M:%S)T  %s\n' -1 "$*"
}

step "debootstrap"
timeout -k 10 900 debootstrap --variant=minbase --include=make bookworm "$work/base" \
	>"$work/debootstrap.log" 2>&1 </dev/null || {
	tail -n 5 "$work/debootstrap.log"
	grep -qiE 'failed getting release file|could not (download|resolve)|invalid release' \
		"$work/debootstrap.log" && skip "no Debian mirror can be reached"
	exit 1
}
cp /etc/resolv.conf "$work/base/etc/resolv.conf"
cp /etc/hosts "$work/base/etc/hosts"
mkdir -p "$work/base/root/blkmirror" "$work/archives/partial"
if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
	git ls-files -z | tar --null -T - -c
else
	tar -c --exclude=./build .
fi | tar -x -C "$work/base/root/blkmirror" || exit 1

rc=0
for target in $commands; do
	step "the first command: make $target"
	cp -a --reflink=auto "$work/base" "$work/$target" || exit 1
	if timeout -k 30 "${BARE_SECONDS:-2400}" unshare --mount --pid --fork --kill-child \
		"$0" --inside "$work/$target" "$target" >"$work/$target.log" 2>&1 </dev/null; then
		step "make $target: $(tail -n 1 "$work/$target.log")"
		printf '[       OK ] make %s on a bare Debian\n' "$target"
	else
		rc=1
		step "make $target failed"
		tail -n 80 "$work/$target.log"
	fi
	rm -rf --one-file-system "${work:?}/$target"
done
exit $rc
