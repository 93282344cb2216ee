# SPDX-License-Identifier: Apache-2.0
# packaging.mk - make install, uninstall, deb.  DESTDIR and PREFIX (/usr/local) as everywhere.

BINDIR ?= $(PREFIX)/bin
SBINDIR ?= $(PREFIX)/sbin
MANDIR ?= $(PREFIX)/share/man
DOCDIR ?= $(PREFIX)/share/doc/blkmirror
UNITDIR ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
COMPLETIONDIR ?= $(PREFIX)/share/bash-completion/completions

# Daemons go to sbin, what people type to bin.
DAEMONS := $(filter %d,$(PROGRAMS))
COMMANDS := $(filter-out $(DAEMONS),$(PROGRAMS))
# packaging/NAME.bash completes the command NAME.
COMPLETIONS := $(wildcard packaging/*.bash)
DOCUMENTS := README.md LICENSE docs/ARCHITECTURE.md docs/ERRORS.md

INSTALLED = $(COMMANDS:%=$(BINDIR)/%) $(DAEMONS:%=$(SBINDIR)/%) \
	$(foreach page,$(MAN_PAGES),$(MANDIR)/man$(subst .,,$(suffix $(page)))/$(notdir $(page))) \
	$(COMPLETIONS:packaging/%.bash=$(COMPLETIONDIR)/%) \
	$(DOCUMENTS:%=$(DOCDIR)/%) $(UNITDIR)/blkmirrord.service $(SYSUSERSDIR)/blkmirror.conf

.PHONY: install
install: all ## programs, manual pages, systemd unit, completion, documents; DESTDIR=, PREFIX=
	$(foreach program,$(COMMANDS),install -D -m 755 $(B)/bin/$(program) $(DESTDIR)$(BINDIR)/$(program);)
	$(foreach program,$(DAEMONS),install -D -m 755 $(B)/bin/$(program) $(DESTDIR)$(SBINDIR)/$(program);)
	$(foreach page,$(MAN_PAGES),install -D -m 644 $(page) \
		$(DESTDIR)$(MANDIR)/man$(subst .,,$(suffix $(page)))/$(notdir $(page));)
	$(foreach file,$(COMPLETIONS),install -D -m 644 $(file) \
		$(DESTDIR)$(COMPLETIONDIR)/$(basename $(notdir $(file)));)
	$(foreach file,$(DOCUMENTS),install -D -m 644 $(file) $(DESTDIR)$(DOCDIR)/$(file);)
	install -d $(DESTDIR)$(UNITDIR) $(DESTDIR)$(SYSUSERSDIR)
	sed 's|@SBINDIR@|$(SBINDIR)|g' packaging/blkmirrord.service.in >$(DESTDIR)$(UNITDIR)/blkmirrord.service
	chmod 644 $(DESTDIR)$(UNITDIR)/blkmirrord.service
	install -m 644 packaging/blkmirror.sysusers $(DESTDIR)$(SYSUSERSDIR)/blkmirror.conf

# Folders that others may share stay; what the daemon keeps (/var/lib/blkmirror) stays too.
.PHONY: uninstall
uninstall: ## take away what 'install' put there, and only that
	rm -f $(INSTALLED:%=$(DESTDIR)%)
	rmdir $(DESTDIR)$(DOCDIR)/docs $(DESTDIR)$(DOCDIR) 2>/dev/null || true

.PHONY: deb
deb: all ## build/blkmirror_VERSION_ARCH.deb
	@packaging/deb.sh $(VERSION) $(B) "$(MAKE)"
