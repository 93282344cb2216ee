#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# check_layers.sh - the check of the layers, checked: a tree that keeps to them passes, and each
# way of breaking them is found, by file and line.
set -u
cd "$(dirname "$0")/../.." || exit 1
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
fail()
{
	echo "FAIL: $*"
	sed 's/^/  /' "$tree/out.txt" 2>/dev/null
	exit 1
}
pass() { printf '[       OK ] %s\n' "$*"; }

# put FILE LINE... - a source file with these lines.
put()
{
	local file=$tree/$1
	shift
	mkdir -p "$(dirname "$file")"
	printf '%s\n' "$@" >"$file"
}

fresh()
{
	rm -rf "${tree:?}"/*
	put blkmirror/base/list.h
	put blkmirror/blkdev/blkdev.h '#include "blkmirror/base/list.h"'
	put blkmirror/blkdev/file_private.h
	put blkmirror/blkdev/file.c '#include "blkmirror/blkdev/file_private.h"' '#include <errno.h>'
	put blkmirror/mirror/mirror.h '#include "blkmirror/blkdev/blkdev.h"'
	put blkmirror/export/server.h '#include "blkmirror/blkdev/blkdev.h"'
	put vmfs/volume.h '#include "blkmirror/blkdev/blkdev.h"'
	put datastores/datastore.h '#include "vmfs/volume.h"' '#include "blkmirror/mirror/mirror.h"'
	put vmotion/disk.h '#include "datastores/datastore.h"' '#include "blkmirror/export/server.h"'
	put tools/common/json.h '#include "vmotion/disk.h"'
	put tools/one/one.h '#include "tools/common/json.h"'
	put tools/two/main.c '#include "tools/common/json.h"' '#include "blkmirror/base/list.h"'
	put tests/lib/own.h
	put tests/unit/test_file.c '#include "blkmirror/blkdev/file_private.h"' '#include "tests/lib/own.h"'
}

check() { tests/check-layers.sh "$tree" >"$tree/out.txt" 2>&1; }

# refused NAME FILE INCLUDED [#INCLUDE] - with one more line, the 2nd of FILE, the tree is refused for it.
refused()
{
	local name=$1 file=$2 include=$3
	fresh
	put "$file" '/* one */' "${4:-#include} $include"
	check && fail "$name: not noticed"
	grep -q "^$file:2: " "$tree/out.txt" || fail "$name: not named: $(cat "$tree/out.txt")"
	pass "$name"
}

fresh
check || fail "a tree that keeps to the layers: $(cat "$tree/out.txt")"
pass "a tree that keeps to the layers"
refused "base knows nobody" blkmirror/base/up.c '"blkmirror/blkdev/blkdev.h"'
refused "a device knows no mirror" blkmirror/blkdev/up.c '"blkmirror/mirror/mirror.h"'
refused "a mirror knows no export" blkmirror/mirror/side.c '"blkmirror/export/server.h"'
refused "a mirror knows no datastore" blkmirror/mirror/up.c '"datastores/datastore.h"'
refused "a volume knows no mirror" vmfs/side.c '"blkmirror/mirror/mirror.h"'
refused "a datastore knows no machine" datastores/up.c '"vmotion/disk.h"'
refused "a machine knows no program" vmotion/up.c '"tools/common/json.h"'
refused "a program knows no other program" tools/two/side.c '"tools/one/one.h"'
refused "what programs share knows none of them" tools/common/up.c '"tools/one/one.h"'
refused "nobody knows the tests" tools/one/up.c '"tests/lib/own.h"'
refused "private to its folder" blkmirror/mirror/look.c '"blkmirror/blkdev/file_private.h"'
refused "our own in angle brackets" vmotion/angle.c '<datastores/datastore.h>'
refused "not from the top folder" blkmirror/blkdev/near.c '"blkdev.h"'
refused "a room without a place" blkmirror/attic/new.c '"blkmirror/base/list.h"'
refused "indented, with blanks" blkmirror/base/blank.c '"vmfs/volume.h"' '	#  include'
rm -rf "${tree:?}"/*
check && fail "an empty tree passes"
pass "an empty tree is no success"
