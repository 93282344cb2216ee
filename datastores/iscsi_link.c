/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iscsi_link.c - the blocking half of the iSCSI client.
 *
 * libiscsi has blocking calls of its own, but they wait without a deadline, look names up
 * again for each portal, and leave the socket as it is.  Here its asynchronous calls are
 * driven by poll() until the callback has noted the answer.
 */
#include "datastores/iscsi_link.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>

#include "blkmirror/base/loop.h"
#include "blkmirror/base/overflow.h"
#include "blkmirror/base/uuid.h"
#include "blkmirror/blkdev/dial.h"
#include "datastores/iscsi_private.h"

#define PORT_DEFAULT 3260
#define LOGOUT_NS NS_PER_S
#define TICK_NS (100 * NS_PER_MS)
#define PORTAL_BYTES (NI_MAXHOST + 16)

/* ---- waiting for one answer ---- */

void iscsi_link_answered(struct iscsi_context *context, int status, void *data, void *user)
{
	struct iscsi_link *link = user;

	(void)context;
	(void)data;
	link->answered = true;
	link->status = status;
}

int iscsi_link_wait(struct iscsi_link *link, uint64_t deadline_ns)
{
	while (!link->answered) {
		struct pollfd poller = { .fd = iscsi_get_fd(link->context) };
		uint64_t now_ns = dial_clock_ns();
		int rc;

		if (now_ns >= deadline_ns) {
			link->dead = true;
			return -ETIMEDOUT;
		}
		poller.events = (short)iscsi_which_events(link->context);
		rc = poll(&poller, 1, dial_poll_timeout_ms(MIN(deadline_ns, now_ns + TICK_NS)));
		if (rc < 0 && errno == EINTR)
			continue;
		if (rc < 0 || iscsi_service(link->context, rc ? poller.revents : 0) < 0) {
			link->dead = true;
			/* What libiscsi gave up about is what its callback has told already. */
			return link->answered ? 0 : -EIO;
		}
	}
	return 0;
}

/* libiscsi's last words, cut and without what could forge a line. */
static const char *link_words(const struct iscsi_link *link, char *text, size_t bytes)
{
	const char *words = iscsi_get_error(link->context);

	snprintf(text, bytes, "%s", words && words[0] ? words : "the connection ended");
	for (char *c = text; *c; c++)
		if ((unsigned char)*c < 0x20 || (unsigned char)*c >= 0x7f)
			*c = '?';
	return text;
}

/* ---- connecting ---- */

uint64_t iscsi_deadline_after(uint64_t timeout_ns)
{
	uint64_t deadline_ns;

	return u64_add(dial_clock_ns(), timeout_ns, &deadline_ns) ? deadline_ns : UINT64_MAX;
}

/* A number for each session of this host: the target tells sessions apart by nothing else. */
static int link_set_isid(struct iscsi_link *link)
{
	static atomic_uint sessions;
	uint32_t random;

	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return -EIO;
	return iscsi_set_isid_random(link->context, random & 0xffffff,
				     atomic_fetch_add(&sessions, 1) & 0xffff) ? -EIO : 0;
}

static int link_set_secret(struct iscsi_link *link, const struct ds_secret *secret)
{
	if (!secret || !secret->user[0])
		return 0;
	if (iscsi_set_initiator_username_pwd(link->context, secret->user, secret->password))
		return -EINVAL;
	if (secret->mutual_user[0] &&
	    iscsi_set_target_username_pwd(link->context, secret->mutual_user,
					  secret->mutual_password))
		return -EINVAL;
	return 0;
}

/* A context that has gone nowhere yet; one portal, one context. */
static int link_prepare(struct iscsi_link *link, const struct iscsi_login *login, struct err *err)
{
	char initiator[80], text[UUID_TEXT_BYTES];
	struct uuid uuid;

	memcpy(&uuid, login->host_uuid, sizeof(uuid));
	snprintf(initiator, sizeof(initiator), "iqn.2026-11.net.blkmirror:host-%s",
		 uuid_format(&uuid, text));
	if (link->context)
		iscsi_destroy_context(link->context);
	link->answered = link->dead = false;
	link->context = iscsi_create_context(initiator);
	if (!link->context)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot connect to %s", link->shown);
	iscsi_set_noautoreconnect(link->context, 1);    /* R2: no replay but ours */
	iscsi_set_timeout(link->context, 0);
	if (iscsi_set_targetname(link->context, login->url->iqn) ||
	    iscsi_set_session_type(link->context, ISCSI_SESSION_NORMAL) ||
	    iscsi_set_header_digest(link->context, ISCSI_HEADER_DIGEST_NONE_CRC32C) ||
	    link_set_isid(link) || link_set_secret(link, login->secret))
		return err_set(err, ERR_ISCSI_CONNECT, -EINVAL, "cannot connect to %s: libiscsi"
			       " does not take the names", link->shown);
	return 0;
}

/* One numeric address, so that libiscsi has nothing to look up.  0 or -errno. */
static int link_connect_to(struct iscsi_link *link, const struct addrinfo *to,
			   uint64_t deadline_ns)
{
	char host[NI_MAXHOST], port[8], portal[PORTAL_BYTES];
	bool v6 = to->ai_family == AF_INET6;
	int fd, rc;

	if (getnameinfo(to->ai_addr, to->ai_addrlen, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV))
		return -EADDRNOTAVAIL;
	snprintf(portal, sizeof(portal), v6 ? "[%s]:%s" : "%s:%s", host, port);
	if (iscsi_connect_async(link->context, portal, iscsi_link_answered, link))
		return -EHOSTUNREACH;
	fd = iscsi_get_fd(link->context);
	rc = fcntl(fd, F_SETFD, FD_CLOEXEC) ? -errno : dial_tcp_options(fd);
	rc = rc ? rc : iscsi_link_wait(link, deadline_ns);
	if (rc)
		return rc;
	return link->status == SCSI_STATUS_GOOD ? 0 : -ECONNREFUSED;
}

static int link_connect(struct iscsi_link *link, const struct iscsi_login *login,
			uint64_t deadline_ns, struct err *err)
{
	struct dial_address place = { .port = PORT_DEFAULT, .shown = link->shown,
				      .err_id = ERR_ISCSI_CONNECT };
	struct addrinfo *found = NULL;
	char words[120];
	uint64_t left = 0;
	int rc;

	snprintf(place.host, sizeof(place.host), "%s", login->url->host);
	if (login->url->port)
		place.port = login->url->port;
	rc = dial_look_up(&place, deadline_ns, &found, err);
	if (rc)
		return rc;
	for (const struct addrinfo *to = found; to; to = to->ai_next)
		left++;
	rc = -EHOSTUNREACH;
	for (const struct addrinfo *to = found; to && rc; to = to->ai_next, left--) {
		uint64_t now_ns = dial_clock_ns();

		/* A silent address must leave time for those behind it. */
		rc = now_ns < deadline_ns ? link_prepare(link, login, err) : -ETIMEDOUT;
		if (rc == -ETIMEDOUT)
			break;
		if (rc) {
			freeaddrinfo(found);
			return rc;
		}
		rc = link_connect_to(link, to, now_ns + (deadline_ns - now_ns) / left);
	}
	freeaddrinfo(found);
	if (rc == -ETIMEDOUT || !link->context)
		return rc ? err_set(err, ERR_ISCSI_CONNECT, rc, "cannot connect to %s: %s",
				    link->shown, err_strerror(rc)) : 0;
	return rc ? err_set(err, ERR_ISCSI_CONNECT, rc, "cannot connect to %s: %s", link->shown,
			    link_words(link, words, sizeof(words))) : 0;
}

/* ---- logging in ---- */

/*
 * libiscsi tells why only in words; the target's status (RFC 7143, 11.13.5) stands at their
 * end in brackets.  What failed in checking the target's own proof has no status.
 */
static enum err_id login_err_id(const char *words)
{
	const char *bracket = strrchr(words, '(');
	long status = bracket ? strtol(bracket + 1, NULL, 10) : 0;

	if (status == 0x0201 || status == 0x0202)
		return ERR_ISCSI_LOGIN;
	if (status == 0x0203 || status == 0x0204)
		return ERR_ISCSI_NO_TARGET;
	if (strstr(words, "CHAP") || strstr(words, "uthentication"))
		return ERR_ISCSI_LOGIN;
	return ERR_ISCSI_CONNECT;
}

static int link_login(struct iscsi_link *link, uint64_t deadline_ns, struct err *err)
{
	char words[120];
	int rc = 0;

	link->answered = false;
	if (iscsi_login_async(link->context, iscsi_link_answered, link))
		link->dead = true;
	else
		rc = iscsi_link_wait(link, deadline_ns);
	if (rc == -ETIMEDOUT)
		return err_set(err, ERR_ISCSI_CONNECT, rc,
			       "cannot log in to %s: the target did not answer in time",
			       link->shown);
	if (!rc && !link->dead && link->status == SCSI_STATUS_GOOD) {
		link->logged_in = true;
		return 0;
	}
	link->dead = true;
	if (!rc && link->status == SCSI_STATUS_REDIRECT)
		return err_set(err, ERR_NOT_SUPPORTED, -ENOTSUP,
			       "cannot log in to %s: the target names another portal: give that one",
			       link->shown);
	link_words(link, words, sizeof(words));
	return err_set(err, login_err_id(words), -EACCES, "cannot log in to %s: %s", link->shown,
		       words);
}

int iscsi_link_connect(const struct iscsi_login *login, uint64_t timeout_ns,
		       struct iscsi_link **out, struct err *err)
{
	uint64_t deadline_ns = iscsi_deadline_after(timeout_ns);
	struct iscsi_link *link = calloc(1, sizeof(*link));
	int rc;

	if (!link)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot connect to an iSCSI target");
	snprintf(link->shown, sizeof(link->shown), "iscsi://%s", login->url->host);
	rc = link_connect(link, login, deadline_ns, err);
	if (!rc)
		rc = link_login(link, deadline_ns, err);
	if (rc) {
		iscsi_link_free(link);
		return rc;
	}
	*out = link;
	return 0;
}

static void link_logout(struct iscsi_link *link)
{
	const struct linger keep = { .l_onoff = 0 };

	link->answered = false;
	/* A courtesy: a target that does not get it sees the connection end. */
	if (iscsi_logout_async(link->context, iscsi_link_answered, link) ||
	    iscsi_link_wait(link, iscsi_deadline_after(LOGOUT_NS)))
		return;
	(void)setsockopt(iscsi_get_fd(link->context), SOL_SOCKET, SO_LINGER, &keep, sizeof(keep));
}

void iscsi_link_free(struct iscsi_link *link)
{
	if (!link)
		return;
	if (link->context) {
		if (link->logged_in && !link->dead)
			link_logout(link);
		iscsi_destroy_context(link->context);
	}
	/* Only now: libiscsi tells the end to what was in flight, by way of the task. */
	if (link->task)
		scsi_free_scsi_task(link->task);
	free(link);
}
