/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hosts.h - the other hosts that this one knows, and its own key and ear.
 *
 * A host is a name, up to 8 addresses (used side by side) and the fingerprint of its key.  Only
 * hosts that stand here may link with this one, whoever dials; the daemon listens only when it
 * was told where.
 *
 * Threading: main loop.
 */
#ifndef BM_HOSTS_H
#define BM_HOSTS_H

#include "tools/blkmirrord/events.h"
#include "vmotion/wire_hub.h"

#define HOSTS_MAX 256u
#define HOST_NAME_BYTES 65
#define HOST_ADDRESSES_MAX 8u

struct hosts;

struct host_entry {
	char name[HOST_NAME_BYTES];
	struct wire_address addresses[HOST_ADDRESSES_MAX];
	uint32_t address_count;
	char fingerprint[WIRE_KEY_BYTES];
	bool plain_data;                /* data connections go without encryption, if it agrees */
	bool unstored;                  /* private from here */
	struct hosts *hosts;
	struct list node;
};

struct hosts_options {
	struct loop *loop;
	struct store *store;
	struct events *events;
	const char *state_dir;
	uint8_t host_uuid[16];
	int listen_fd;                  /* listening; taken, also on failure; -1: none */
};

/* Opens the key (made at the first start) and reads the store.  Blocks: before the loop runs. */
MUST_CHECK int hosts_new(const struct hosts_options *options, struct hosts **out, struct err *err);
/* No new links, the living ones end.  hosts_is_busy() until they have. */
void hosts_stop(struct hosts *hosts);
bool hosts_is_busy(const struct hosts *hosts);
void hosts_free(struct hosts *hosts);

const char *hosts_fingerprint(const struct hosts *hosts);

/* The next one in the order of names' adding; NULL: the first, and past the end. */
struct host_entry *hosts_next(const struct hosts *hosts, const struct host_entry *entry);
/* NULL with *err (ERR_HOST_UNKNOWN). */
struct host_entry *hosts_find(const struct hosts *hosts, const char *name, struct err *err);

/* Judge "ADDR:PORT,ADDR:PORT": 0, or -EINVAL with *err (ERR_HOST_ADDRESS). */
MUST_CHECK int hosts_parse_addresses(const char *text, struct host_entry *entry, struct err *err);

/*
 * Know a host: model's name, addresses, fingerprint and plain_data are copied.  added() runs once,
 * now or later: the entry when it is durable, or *err.
 */
void hosts_add(struct hosts *hosts, const struct host_entry *model,
	       void (*added)(struct host_entry *entry, const struct err *err, void *user),
	       void *user);
/*
 * Links with it end at once.  0: removed() follows; it is forgotten for good when that says 0, and
 * known again else.  Or -errno with *err.
 */
MUST_CHECK int hosts_remove(struct hosts *hosts, const char *name,
			    void (*removed)(int rc, const struct err *err, void *user), void *user,
			    struct err *err);

/*
 * Link with a host, measure the round trip, let go.  probed() runs once, later: the link's status,
 * or *err.  0, or -errno with *err; then it does not run.
 */
MUST_CHECK int hosts_probe(struct hosts *hosts, const struct host_entry *entry,
			   void (*probed)(const struct wire_link_status *status,
					  const struct err *err, void *user),
			   void *user, struct err *err);

#endif
