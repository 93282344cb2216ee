#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# target_faults_long.sh - target_faults.sh with the default deadline and long freezes; how long the
# guest waits is judged.  Leave the machine alone meanwhile.
# minutes: 4
TARGET_FAULTS_LONG=1 exec "$(dirname "$0")/../target_faults.sh"
