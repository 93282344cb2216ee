/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/blkdev/net_dial.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "blkmirror/base/loop.h"
#include "blkmirror/base/overflow.h"

/* D_wire of R3 and R-F1: unacknowledged bytes end the connection after this. */
#define WIRE_TIMEOUT_MS 4000
#define KEEPALIVE_IDLE_S 2
#define KEEPALIVE_INTERVAL_S 1
#define KEEPALIVE_PROBES 2

uint64_t net_clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

int net_poll_timeout_ms(uint64_t deadline_ns)
{
	uint64_t now_ns = net_clock_ns();
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
	char host[NET_HOST_MAX + 1];
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

static struct lookup *lookup_new(const struct net_place *place)
{
	struct lookup *lookup = calloc(1, sizeof(*lookup));

	if (!lookup)
		return NULL;
	pthread_mutex_init(&lookup->lock, NULL);
	pthread_cond_init(&lookup->changed, NULL);
	lookup->holders = 1;
	snprintf(lookup->host, sizeof(lookup->host), "%s", place->host);
	snprintf(lookup->port, sizeof(lookup->port), "%s", place->port);
	return lookup;
}

/* 0 and *found (gives), or -errno with *err. */
static int lookup_wait(struct lookup *lookup, uint64_t deadline_ns, const struct net_place *place,
		       struct addrinfo **found, struct err *err)
{
	const struct timespec deadline = { (time_t)(deadline_ns / NS_PER_S),
					   (long)(deadline_ns % NS_PER_S) };
	int rc = 0;

	pthread_mutex_lock(&lookup->lock);
	while (!lookup->answered && rc != ETIMEDOUT)
		rc = pthread_cond_clockwait(&lookup->changed, &lookup->lock, CLOCK_MONOTONIC,
					    &deadline);
	if (!lookup->answered) {
		rc = err_set(err, place->err_id, -ETIMEDOUT,
			     "cannot connect to %s: looking up its name took too long",
			     place->shown);
	} else if (lookup->rc) {
		rc = err_set(err, place->err_id, -EHOSTUNREACH, "cannot connect to %s: %s",
			     place->shown, gai_strerror(lookup->rc));
	} else {
		rc = 0;
		*found = lookup->found;
		lookup->found = NULL;
	}
	lookup_put(lookup);
	return rc;
}

int net_look_up(const struct net_place *place, uint64_t deadline_ns, struct addrinfo **found,
		struct err *err)
{
	struct lookup *lookup = lookup_new(place);
	pthread_t thread;
	int rc;

	if (!lookup)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot connect to %s", place->shown);
	lookup->holders++;
	rc = pthread_create(&thread, NULL, lookup_main, lookup);
	if (rc) {
		pthread_mutex_lock(&lookup->lock);
		lookup->holders--;
		lookup_put(lookup);
		return err_set(err, ERR_NO_MEMORY, -rc, "cannot connect to %s: %s", place->shown,
			       err_strerror(rc));
	}
	pthread_detach(thread);
	return lookup_wait(lookup, deadline_ns, place, found, err);
}

/* ---- TCP ---- */

static int set_option(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value)) ? -errno : 0;
}

int net_tcp_options(int fd)
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
