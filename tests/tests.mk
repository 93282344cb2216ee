# SPDX-License-Identifier: Apache-2.0
# tests.mk - the check, bench and demo targets.  Each part ends in 'N passed, N failed, N skipped'.

SEEDS ?= 300
SEED ?=

.PHONY: check-unit
check-unit: $(UNIT_TESTS) ## unit tests (cmocka)
	@tests/run.sh unit $(UNIT_TESTS)
