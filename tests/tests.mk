# SPDX-License-Identifier: Apache-2.0
# tests.mk - the check, bench and demo targets.  Each part ends in 'N passed, N failed, N skipped'.

SEEDS ?= 300
SEED ?=

# The order: what is quick and catches most comes first.
CHECK_MUTATIONS ?= check-mutations-quick
CHECK_PARTS ?= check-layers check-unit check-sim check-fault $(CHECK_MUTATIONS) check-integration

# Two makes: the libraries are looked up when a makefile is read, so after 'deps'.
.PHONY: check
check: ## deps, build and all the tests; the last line is 'N passed, N failed, N skipped'
	@$(MAKE) --no-print-directory deps
	@MAKE="$(MAKE)" tests/check.sh $(CHECK_PARTS)

.PHONY: check-layers
check-layers: ## who includes whom, against docs/ARCHITECTURE.md
	@tests/check-layers.sh

# TSan wants less randomness in addresses than some kernels give.
RUN_UNDER := $(if $(findstring thread,$(SANITIZE)),$(shell \
	[ "$$(cat /proc/sys/vm/mmap_rnd_bits 2>/dev/null || echo 0)" -le 28 ] || echo setarch -R))
RUN := RUN_UNDER="$(RUN_UNDER)" B=$(B) BUILD=$(B) CHECK_LOGS=$(B)/logs tests/run.sh

.PHONY: check-unit
check-unit: $(UNIT_TESTS) ## unit tests (cmocka)
	@$(RUN) unit $(UNIT_TESTS)

.PHONY: check-fault
check-fault: $(FAULT_TESTS) ## fail the N-th of everything
	@$(RUN) fault $(FAULT_TESTS)

.PHONY: check-sim
check-sim: $(SIM_TESTS) ## simulations; SEEDS=n how many, SEED=n only that one
	@RUN_UNDER="$(RUN_UNDER)" SEEDS=$(SEEDS) SEED=$(SEED) tests/run-sim.sh $(SIM_TESTS)

INTEGRATION_TESTS ?= $(wildcard tests/integration/*.sh)
INTEGRATION_SECONDS ?= 420

.PHONY: check-integration
check-integration: all $(HELPERS) ## with real servers, clients and guests; INTEGRATION_SECONDS=n at most, each
	@CHECK_TIMEOUT=$(INTEGRATION_SECONDS) $(RUN) integration $(INTEGRATION_TESTS)

# Under names of their own in tests/integration/long; MINUTES is shared among all campaigns.
MINUTES ?= 30

.PHONY: check-long
check-long: all tests-build ## the campaigns: MINUTES=n of fresh seeds, mutations, fuzzing, long scripts
	@MAKE="$(MAKE)" BUILD=$(B) MINUTES=$(MINUTES) tests/check-long.sh $(SIM_TESTS)

.PHONY: check-mutations
check-mutations: ## break every rule on purpose: the suites must notice
	@tests/mutate.sh $(MUTATIONS)

.PHONY: check-mutations-quick
check-mutations-quick: ## break each rule in one way only
	@tests/mutate.sh --quick

.PHONY: guest
guest: ## the Linux guest of the tests and the demo (downloads a kernel once)
	@tests/guest/build.sh

# Two makes: the libraries are looked up when a makefile is read, so after 'deps'.
.PHONY: demo
demo: ## relocate the disk of a running guest, and prove that nothing was lost
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory all guest
	@tools/demo.sh

# ---- fuzzing: every tests/fuzz/fuzz_*.c, with clang's libFuzzer, in a build of its own ----

FUZZ_SECONDS ?= 10
FUZZ_CC ?= clang
FUZZ_B := build/fuzz
FUZZ_CFLAGS := -std=gnu17 -D_GNU_SOURCE -DBM_VERSION='"$(VERSION)"' -DBM_LIBNFS_VERSION='"$(LIBNFS_VERSION)"' -I. -O1 -g -fno-omit-frame-pointer \
	$(shell pkg-config --cflags $(PKGS) 2>/dev/null)
FUZZ_OBJS := $(patsubst %.c,$(FUZZ_B)/obj/%.o,$(LIB_SRCS) $(TOOL_SRCS) $(TESTLIB_SRCS))
FUZZERS := $(patsubst tests/fuzz/%.c,$(FUZZ_B)/%,$(wildcard tests/fuzz/fuzz_*.c))
HAVE_FUZZ_CC := $(shell command -v $(FUZZ_CC))

$(FUZZ_B)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(if $(Q),@echo "  FUZZ  $<")
	$(Q)$(FUZZ_CC) $(FUZZ_CFLAGS) -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all \
		-MMD -MP -c $< -o $@

$(FUZZ_B)/libfuzz.a: $(FUZZ_OBJS)
	@mkdir -p $(@D)
	$(if $(Q),@echo "  AR    $@")
	$(Q)rm -f $@ && ar rcs $@ $^

$(FUZZ_B)/fuzz_%: $(FUZZ_B)/obj/tests/fuzz/fuzz_%.o $(FUZZ_B)/libfuzz.a
	$(if $(Q),@echo "  LINK  $@")
	$(Q)$(FUZZ_CC) -fsanitize=fuzzer,address,undefined -o $@ $^ $(LIBS) -lcmocka

-include $(shell find $(FUZZ_B)/obj -name '*.d' 2>/dev/null)

.PHONY: check-fuzz
check-fuzz: $(if $(HAVE_FUZZ_CC),$(FUZZERS)) ## fuzzers, FUZZ_SECONDS (10) each (libFuzzer, ASan, UBSan)
	@FUZZ_SECONDS=$(FUZZ_SECONDS) tests/fuzz/run.sh $(FUZZ_B) $(FUZZERS)

# ---- benchmarks: side by side with peers; docs/PERFORMANCE.md ----

BENCH_PROGRAMS := $(patsubst tests/bench/%.c,$(B)/tests/bench/%,$(wildcard tests/bench/*.c))

.PHONY: bench
bench: $(BENCH_PROGRAMS) ## side by side with peers; QUICK=1 for a try (bench-NAME: one of bench-list)
	@tests/bench/bench.sh

.PHONY: bench-list
bench-list: ## the names for bench-NAME
	@tests/bench/bench.sh list

bench-%: $(BENCH_PROGRAMS)
	@tests/bench/bench.sh $*
