# SPDX-License-Identifier: Apache-2.0
# chores.mk - what keeps the sources in order.

SOURCES = $(LIB_SRCS) $(wildcard tools/*/*.c) $(TESTLIB_SRCS) $(wildcard tests/unit/*.c tests/sim/*.c \
	tests/fault/*.c tests/fuzz/*.c tests/bench/*.c tests/integration/*.c)
HEADERS = $(wildcard $(LIB_DIRS:%=%/*.h) tools/*/*.h tests/*/*.h)

CLANG_TIDY ?= clang-tidy
CLANG_FORMAT ?= clang-format
TIDY_SOURCES ?= $(LIB_SRCS) $(wildcard tools/*/*.c)

.PHONY: tidy
tidy: ## clang-tidy with .clang-tidy; TIDY_SOURCES=... for some files only
	@command -v $(CLANG_TIDY) >/dev/null || { echo "tidy: $(CLANG_TIDY) is not installed" >&2; exit 1; }
	@mkdir -p build/tidy
	@printf '%s\n' -I$(CURDIR) $(ALL_CFLAGS) >build/tidy/compile_flags.txt
	@printf '%s\n' $(TIDY_SOURCES:%=$(CURDIR)/%) | xargs -P "$$(nproc)" -n 1 $(CLANG_TIDY) --quiet -p build/tidy

.PHONY: format-check
format-check: ## which files clang-format would change (advice: exits 0)
	@command -v $(CLANG_FORMAT) >/dev/null || \
		{ echo "format-check: $(CLANG_FORMAT) is not installed" >&2; exit 1; }
	@tools/format-check.sh $(CLANG_FORMAT) $(SOURCES) $(HEADERS)

.PHONY: tour
tour: ## four paths through the code: a guest write, a copied run, the switch-over, a page of memory
	@tools/tour.sh

.PHONY: errors-doc
errors-doc: ## write docs/ERRORS.md anew from the catalogue
	@mkdir -p build
	@tools/errors-doc.sh >build/ERRORS.md
	@mv build/ERRORS.md docs/ERRORS.md

MAN_PAGES = $(wildcard man/*.[1-8])

.PHONY: man
man: ## check the manual pages (mandoc)
	$(if $(MAN_PAGES),@mandoc -Tlint -Wwarning $(MAN_PAGES))
	@echo "man: $(words $(MAN_PAGES)) pages, no complaint"
