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

.PHONY: guest
guest: ## the Linux guest of the tests and the demo (downloads a kernel once)
	@tests/guest/build.sh

# Two makes: the libraries are looked up when a makefile is read, so after 'deps'.
.PHONY: demo
demo: ## relocate the disk of a running guest, and prove that nothing was lost
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory all guest
	@tools/demo.sh
