# SPDX-License-Identifier: Apache-2.0
# blkmirror - one non-recursive Makefile.  'make help' lists the targets.
#
# Knobs: CC=gcc|clang  SANITIZE=address,undefined|thread  DEVELOPER=1 (-Werror)  V=1 (show commands)
#        BLKMIRROR_NO_DEPS=1 (install no packages)  PREFIX, DESTDIR (install)
# The plain build lives in build/, every variant in build/variants/ of its own.

CC ?= gcc
ifeq ($(origin CC),default)
CC := gcc
endif
SANITIZE ?=
DEVELOPER ?=
PREFIX ?= /usr/local
DESTDIR ?=
VERSION := 0.1.0
LIBNFS_VERSION := $(shell pkg-config --modversion libnfs 2>/dev/null)

comma := ,
VARIANT := $(CC)$(if $(SANITIZE),-$(subst $(comma),+,$(SANITIZE)))
ifeq ($(VARIANT),gcc)
B := build
else
B := build/variants/$(VARIANT)
endif
Q := $(if $(V),,@)

PKGS := libuv libnbd libnfs libiscsi jansson libmicrohttpd libcurl sqlite3 libxxhash liblz4 libzstd libsystemd inih openssl
WARNINGS := -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
	-Wwrite-strings -Wundef -Wformat=2 -Wconversion -Wno-sign-conversion -Wimplicit-fallthrough
CFLAGS ?= -O2 -g
HARDENING := $(if $(SANITIZE),,-D_FORTIFY_SOURCE=2) -fstack-protector-strong -fPIE
SANITIZE_FLAGS := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer)
ALL_CFLAGS := -std=gnu17 -D_GNU_SOURCE -DBM_VERSION='"$(VERSION)"' -DBM_LIBNFS_VERSION='"$(LIBNFS_VERSION)"' -I. $(CFLAGS) $(WARNINGS) \
	$(if $(DEVELOPER),-Werror) $(HARDENING) $(SANITIZE_FLAGS) $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
ALL_LDFLAGS := -pie -Wl,-z,relro,-z,now $(SANITIZE_FLAGS) $(LDFLAGS)
LIBS := $(shell pkg-config --libs $(PKGS) 2>/dev/null) -laio -lpthread -lm

LIB_DIRS := blkmirror/base blkmirror/blkdev blkmirror/mirror blkmirror/journal blkmirror/export \
	vmfs datastores vmotion
LIB_SRCS := $(foreach dir,$(LIB_DIRS),$(wildcard $(dir)/*.c))
PROGRAMS := $(patsubst tools/%/,%,$(dir $(wildcard tools/*/main.c)))
TOOL_SRCS := $(foreach program,$(PROGRAMS),$(filter-out %/main.c,$(wildcard tools/$(program)/*.c))) \
	$(wildcard tools/common/*.c)
TESTLIB_SRCS := $(wildcard tests/lib/*.c)

LIB_OBJS := $(LIB_SRCS:%.c=$(B)/obj/%.o)
TOOL_OBJS := $(TOOL_SRCS:%.c=$(B)/obj/%.o)
TESTLIB_OBJS := $(TESTLIB_SRCS:%.c=$(B)/obj/%.o)
BINS := $(PROGRAMS:%=$(B)/bin/%)
UNIT_TESTS := $(patsubst tests/unit/%.c,$(B)/tests/unit/%,$(wildcard tests/unit/test_*.c))
SIM_TESTS := $(patsubst tests/sim/%.c,$(B)/tests/sim/%,$(wildcard tests/sim/sim_*.c))
FAULT_TESTS := $(patsubst tests/fault/%.c,$(B)/tests/fault/%,$(wildcard tests/fault/test_*.c))
HELPERS := $(patsubst tests/bench/%.c,$(B)/tests/bench/%,$(wildcard tests/bench/*.c)) \
	$(patsubst tests/integration/%.c,$(B)/tests/integration/%,$(wildcard tests/integration/*.c))

.PHONY: all
all: $(BINS) ## build everything into build/

.PHONY: tests-build
tests-build: $(UNIT_TESTS) $(SIM_TESTS) $(FAULT_TESTS) $(HELPERS) ## build the tests too

# ---- rules ----

# Said once, instead of by the compiler for each file.
.PHONY: libraries
libraries:
	@pkg-config --exists $(PKGS) || \
		{ echo "make: libraries are missing: 'make deps' installs them ($(PKGS))" >&2; exit 1; }

$(B)/obj/%.o: %.c | libraries
	@mkdir -p $(@D)
	$(if $(Q),@echo "  CC    $<")
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

$(B)/libblkmirror.a: $(LIB_OBJS)
	@mkdir -p $(@D)
	$(if $(Q),@echo "  AR    $@")
	$(Q)rm -f $@ && ar rcs $@ $^

$(B)/libtools.a: $(TOOL_OBJS)
	@mkdir -p $(@D)
	$(if $(Q),@echo "  AR    $@")
	$(Q)rm -f $@ && ar rcs $@ $^

$(B)/libtest.a: $(TESTLIB_OBJS)
	@mkdir -p $(@D)
	$(if $(Q),@echo "  AR    $@")
	$(Q)rm -f $@ && ar rcs $@ $^

$(B)/bin/%: $(B)/obj/tools/%/main.o $(B)/libtools.a $(B)/libblkmirror.a
	@mkdir -p $(@D)
	$(if $(Q),@echo "  LINK  $@")
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

$(B)/tests/%: $(B)/obj/tests/%.o $(B)/libtest.a $(B)/libtools.a $(B)/libblkmirror.a
	@mkdir -p $(@D)
	$(if $(Q),@echo "  LINK  $@")
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS) -lcmocka

# What .incbin reads is no dependency that the compiler tells.
$(B)/obj/tools/blkmirrord/openapi.o: tools/blkmirrord/openapi.json

-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)
.SECONDARY:

include tests/tests.mk
include tools/chores.mk
include packaging/packaging.mk

# What 'make' needs before it can find its libraries: recipes that want it to be there call
# 'make deps' first and then make again.
.PHONY: deps
deps: ## install what building and testing need (Debian, Ubuntu; as root or with sudo)
	@tools/deps.sh install

.PHONY: deps-list
deps-list: ## print the packages that 'make deps' installs
	@tools/deps.sh list

.PHONY: help
help: ## this list
	@grep -hE '^[a-z0-9 -]+:.*##' Makefile $(wildcard */*.mk) | sed -E 's/:.*## /\t/' | \
		awk -F'\t' '{ printf "  %-22s %s\n", $$1, $$2 }'

.PHONY: clean
clean: ## remove build/
	rm -rf build
