# SPDX-License-Identifier: Apache-2.0
# packaging.mk - make install, uninstall, deb.  DESTDIR and PREFIX (/usr/local) as everywhere.

BINDIR ?= $(PREFIX)/bin
MANDIR ?= $(PREFIX)/share/man
DOCDIR ?= $(PREFIX)/share/doc/blkmirror
UNITDIR ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
COMPLETIONDIR ?= $(PREFIX)/share/bash-completion/completions

DOCUMENTS := README.md LICENSE docs/ARCHITECTURE.md docs/ERRORS.md

# MODE SOURCE TARGET of every file that is installed.
FILES = $(foreach program,$(PROGRAMS),755 $(B)/bin/$(program) $(BINDIR)/$(program)) \
	$(foreach page,$(MAN_PAGES),644 $(page) \
		$(MANDIR)/man$(subst .,,$(suffix $(page)))/$(notdir $(page))) \
	$(foreach file,$(wildcard completions/*.bash),644 $(file) \
		$(COMPLETIONDIR)/$(basename $(notdir $(file)))) \
	$(foreach file,$(wildcard packaging/systemd/*.service),644 $(file) $(UNITDIR)/$(notdir $(file))) \
	$(foreach file,$(wildcard packaging/systemd/*.sysusers),644 $(file) \
		$(SYSUSERSDIR)/$(basename $(notdir $(file))).conf) \
	$(foreach file,$(DOCUMENTS),644 $(file) $(DOCDIR)/$(notdir $(file)))

.PHONY: install
install: all ## programs, manual pages, systemd unit, completion, documents; DESTDIR=, PREFIX=
	@printf '%s %s %s\n' $(FILES) | while read -r mode source target; do \
		echo "  INSTALL $(DESTDIR)$$target"; \
		install -D -m "$$mode" "$$source" "$(DESTDIR)$$target" || exit 1; \
	done
	@! [ -d "$(DESTDIR)$(UNITDIR)" ] || \
		sed -i 's|/usr/bin/|$(BINDIR)/|' "$(DESTDIR)$(UNITDIR)"/blkmirrord.service

# What the daemon keeps (/var/lib/blkmirror) stays, and so do folders that others may share.
.PHONY: uninstall
uninstall: ## take away what 'install' put there, and only that
	@printf '%s %s %s\n' $(FILES) | while read -r mode source target; do \
		rm -f "$(DESTDIR)$$target" || exit 1; \
	done
	@! [ -d "$(DESTDIR)$(DOCDIR)" ] || rmdir --ignore-fail-on-non-empty "$(DESTDIR)$(DOCDIR)"

.PHONY: deb
deb: all ## build/blkmirror_VERSION_ARCH.deb
	@packaging/deb.sh $(VERSION) $(B) "$(MAKE)"
