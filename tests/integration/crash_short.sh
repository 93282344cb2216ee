#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# crash_short.sh - kill -9 at a few moments of relocations (crash_campaign.py), for 'make check'.
#
# Each run another seed, printed; SEED=N repeats its choices.  The long form, with 200 kills, is
# long/crash_campaign.sh.
. "$(dirname "$0")/../lib/crash_places.sh"
campaign=$here/crash_campaign.py
MORE_PLACES=
export KILLS=${KILLS:-9} VERIFY_EVERY=${VERIFY_EVERY:-5} MINUTES=${MINUTES:-2}
add_memory 128
run_campaign 128
