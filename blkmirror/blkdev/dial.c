/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/blkdev/dial.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "blkmirror/base/loop.h"

/* D_wire of R3 and R-F1: unacknowledged bytes end the connection after this. */
#define WIRE_TIMEOUT_MS 4000
#define KEEPALIVE_IDLE_S 2
#define KEEPALIVE_INTERVAL_S 1
#define KEEPALIVE_PROBES 2

#define RESERVED_PORT_MIN 665u          /* below are services that people know */
#define RESERVED_PORT_MAX 1023u

uint64_t dial_clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

int dial_poll_timeout_ms(uint64_t deadline_ns)
{
	uint64_t now_ns = dial_clock_ns();
	uint64_t left_ms;

	if (now_ns >= deadline_ns)
		return 0;
	left_ms = (deadline_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS;
	return (int)MIN(left_ms, UINT64_C(1000000));
}

/* ---- name look-up: getaddrinfo() has no deadline, so a thread waits for it ---- */

struct lookup {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned holders;               /* the caller and the thread; the last one frees */
	bool answered;
	int rc;                         /* EAI_* */
	struct addrinfo *found;
	char host[DIAL_HOST_MAX + 1];
	char port[6];
};

/* Called with the lock held. */
static void lookup_put(struct lookup *lookup)
{
	bool last = --lookup->holders == 0;

	pthread_mutex_unlock(&lookup->lock);
	if (!last)
		return;
	if (lookup->found)
		freeaddrinfo(lookup->found);
	pthread_cond_destroy(&lookup->changed);
	pthread_mutex_destroy(&lookup->lock);
	free(lookup);
}

static void *lookup_main(void *arg)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	struct lookup *lookup = arg;
	struct addrinfo *found = NULL;
	int rc = getaddrinfo(lookup->host, lookup->port, &hints, &found);

	pthread_mutex_lock(&lookup->lock);
	lookup->rc = rc;
	lookup->found = rc ? NULL : found;
	lookup->answered = true;
	pthread_cond_signal(&lookup->changed);
	lookup_put(lookup);
	return NULL;
}

static struct lookup *lookup_new(const struct dial_address *address)
{
	struct lookup *lookup = calloc(1, sizeof(*lookup));

	if (!lookup)
		return NULL;
	pthread_mutex_init(&lookup->lock, NULL);
	pthread_cond_init(&lookup->changed, NULL);
	lookup->holders = 1;
	snprintf(lookup->host, sizeof(lookup->host), "%s", address->host);
	snprintf(lookup->port, sizeof(lookup->port), "%u", (unsigned)address->port);
	return lookup;
}

/* 0 and *found (gives), or -errno with *err. */
static int lookup_wait(struct lookup *lookup, const struct dial_address *address,
		       uint64_t deadline_ns, struct addrinfo **found, struct err *err)
{
	const struct timespec deadline = { (time_t)(deadline_ns / NS_PER_S),
					   (long)(deadline_ns % NS_PER_S) };
	int rc = 0;

	pthread_mutex_lock(&lookup->lock);
	while (!lookup->answered && rc != ETIMEDOUT)
		rc = pthread_cond_clockwait(&lookup->changed, &lookup->lock, CLOCK_MONOTONIC,
					    &deadline);
	if (!lookup->answered) {
		rc = err_set(err, address->err_id, -ETIMEDOUT,
			     "cannot connect to %s: looking up its name took too long",
			     address->shown);
	} else if (lookup->rc) {
		rc = err_set(err, address->err_id, -EHOSTUNREACH, "cannot connect to %s: %s",
			     address->shown, gai_strerror(lookup->rc));
	} else {
		rc = 0;
		*found = lookup->found;
		lookup->found = NULL;
	}
	lookup_put(lookup);
	return rc;
}

int dial_look_up(const struct dial_address *address, uint64_t deadline_ns,
		 struct addrinfo **found, struct err *err)
{
	struct lookup *lookup = lookup_new(address);
	pthread_t thread;
	int rc;

	if (!lookup)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot connect to %s", address->shown);
	lookup->holders++;
	rc = pthread_create(&thread, NULL, lookup_main, lookup);
	if (rc) {
		pthread_mutex_lock(&lookup->lock);
		lookup->holders--;
		lookup_put(lookup);
		return err_set(err, ERR_NO_MEMORY, -rc, "cannot connect to %s: %s", address->shown,
			       err_strerror(rc));
	}
	pthread_detach(thread);
	return lookup_wait(lookup, address, deadline_ns, found, err);
}

/* ---- TCP ---- */

static int set_option(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value)) ? -errno : 0;
}

int dial_tcp_options(int fd)
{
	const struct linger drop = { .l_onoff = 1, .l_linger = 0 };
	int rc;

	if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &drop, sizeof(drop)))
		return -errno;
	rc = set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, WIRE_TIMEOUT_MS);
	rc = rc ? rc : set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	/* A peer that vanished while we only wait for its answer is found by probes. */
	rc = rc ? rc : set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	rc = rc ? rc : set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
	rc = rc ? rc : set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S);
	rc = rc ? rc : set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
	return rc;
}

/* The outcome of a connect() under way: 0 or -errno. */
static int dial_await(int fd, uint64_t deadline_ns)
{
	struct pollfd poller = { .fd = fd, .events = POLLOUT };
	int rc, error = 0;
	socklen_t length = sizeof(error);

	do {
		rc = poll(&poller, 1, dial_poll_timeout_ms(deadline_ns));
	} while (rc < 0 && errno == EINTR);
	if (rc < 0)
		return -errno;
	if (rc == 0)
		return -ETIMEDOUT;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length))
		return -errno;
	return -error;
}

/*
 * A port below 1024 where we may have one: servers can be told to trust no other.  Best effort:
 * a server that insists says so in words of its own.
 */
static void dial_bind_reserved(int fd, int family)
{
	static atomic_uint next;
	unsigned count = RESERVED_PORT_MAX - RESERVED_PORT_MIN + 1;

	for (unsigned i = 0; i < count; i++) {
		in_port_t port = htons((in_port_t)(RESERVED_PORT_MAX - next++ % count));
		struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = port };
		struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = port };
		const void *any = family == AF_INET6 ? (const void *)&v6 : (const void *)&v4;

		if (!bind(fd, any, family == AF_INET6 ? sizeof(v6) : sizeof(v4)) ||
		    errno != EADDRINUSE)
			return;
	}
}

static int dial_one(const struct addrinfo *to, bool reserved_port, uint64_t deadline_ns,
		    int *fd_out)
{
	int fd = socket(to->ai_family, to->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC,
			to->ai_protocol);
	int rc;

	if (fd < 0)
		return -errno;
	rc = dial_tcp_options(fd);
	if (!rc && reserved_port)
		dial_bind_reserved(fd, to->ai_family);
	if (!rc && connect(fd, to->ai_addr, to->ai_addrlen))
		rc = errno == EINPROGRESS ? dial_await(fd, deadline_ns) : -errno;
	if (rc) {
		close(fd);
		return rc;
	}
	*fd_out = fd;
	return 0;
}

int dial_tcp(const struct dial_address *address, uint64_t deadline_ns, int *fd_out,
	     struct err *err)
{
	struct addrinfo *found = NULL;
	unsigned left = 0;
	int rc = dial_look_up(address, deadline_ns, &found, err);

	if (rc)
		return rc;
	for (const struct addrinfo *to = found; to; to = to->ai_next)
		left++;
	rc = -EHOSTUNREACH;
	for (const struct addrinfo *to = found; to; to = to->ai_next, left--) {
		uint64_t now_ns = dial_clock_ns();

		/* A silent address must leave time for those behind it. */
		if (now_ns >= deadline_ns) {
			rc = -ETIMEDOUT;
			break;
		}
		rc = dial_one(to, address->reserved_port,
			      now_ns + (deadline_ns - now_ns) / left, fd_out);
		if (!rc)
			break;
	}
	freeaddrinfo(found);
	if (rc)
		return err_set(err, address->err_id, rc, "cannot connect to %s: %s", address->shown,
			       err_strerror(rc));
	return 0;
}
