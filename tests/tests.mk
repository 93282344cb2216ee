# SPDX-License-Identifier: Apache-2.0
# tests.mk - the check, bench and demo targets.  Each part ends in 'N passed, N failed, N skipped'.

SEEDS ?= 300
SEED ?=

.PHONY: check-unit
check-unit: $(UNIT_TESTS) ## unit tests (cmocka)
	@tests/run.sh unit $(UNIT_TESTS)

.PHONY: check-sim
check-sim: $(SIM_TESTS) ## simulations; SEEDS=n how many, SEED=n only that one
	@SEEDS=$(SEEDS) SEED=$(SEED) tests/run-sim.sh $(SIM_TESTS)

.PHONY: check-mutations
check-mutations: ## break every rule on purpose: the suites must notice
	@tests/mutate.sh $(MUTATIONS)
