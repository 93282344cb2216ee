#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# restart_guests.sh - thirty kills under one guest; the longest stall is judged too.
# minutes: 5
export RESTART_KILLS=30 RESTART_JUDGE=1
exec "$(dirname "$0")/../restart_guests.sh"
