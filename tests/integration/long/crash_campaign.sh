#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# minutes: 25
#
# crash_campaign.sh - the daemon is killed -9 at 200 random moments of relocations, under a
# client that keeps a ledger of its acknowledged writes.  None may be lost.
#
#   KILLS 200     CRASH_MINUTES 24 (fewer kills when they are over; at least KILLS_LEAST, 20)
#   SEED          of all choices; printed     DISK_MIB 1024     VERIFY_EVERY 20 kills
#   DEPTH 16, RATE 1500                       of the client
#   KEEP=DIR      the logs and the state go there when something is wrong
# What it prints for each kill: see crash_campaign.py.
. "$(dirname "$0")/../../lib/crash_places.sh"
campaign=$here/../crash_campaign.py
MORE_PLACES=
export KILLS=${KILLS:-200} KILLS_LEAST=${KILLS_LEAST:-20} MINUTES=${CRASH_MINUTES:-24}
disk_mib=${DISK_MIB:-1024}
add_memory "$disk_mib"
run_campaign "$disk_mib"
