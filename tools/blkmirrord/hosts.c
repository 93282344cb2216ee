/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/blkmirrord/hosts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blkmirror/base/log.h"

#define PROBES_MAX 32u
#define PROBE_NS (20 * NS_PER_S)
#define ADDRESSES_TEXT_BYTES (HOST_ADDRESSES_MAX * WIRE_PEER_BYTES)

struct hosts {
	struct loop *loop;
	struct store *store;
	struct events *events;
	struct wire_env env;
	struct wire_identity *identity;
	struct wire_keys keys;
	struct wire_hub *hub;
	struct wire_listener *listener;
	struct list entries, guests, probes;
	uint32_t entry_count, probe_count;
	bool stopping;
};

/* A link that another host has made. */
struct guest_link {
	struct hosts *hosts;
	struct wire_link *link;
	char fingerprint[WIRE_KEY_BYTES];
	struct list node;
};

struct probe {
	struct hosts *hosts;
	struct host_entry host;         /* as it was when asked */
	struct wire_dialler dialler;
	struct wire_link *link;
	struct timer timer;
	struct list node;
	void (*probed)(const struct wire_link_status *status, const struct err *err, void *user);
	void *user;
};

/* ---- addresses ---- */

int hosts_parse_addresses(const char *text, struct host_entry *entry, struct err *err)
{
	char copy[ADDRESSES_TEXT_BYTES], *rest = copy;

	if (snprintf(copy, sizeof(copy), "%s", text) >= (int)sizeof(copy))
		return err_set(err, ERR_HOST_ADDRESS, -EINVAL, "the addresses are too long");
	entry->address_count = 0;
	for (char *part; (part = strsep(&rest, ","));) {
		if (entry->address_count == HOST_ADDRESSES_MAX)
			return err_set(err, ERR_HOST_ADDRESS, -EINVAL,
				       "a host has at most %u addresses", HOST_ADDRESSES_MAX);
		if (wire_address_parse(part, &entry->addresses[entry->address_count]))
			return err_set(err, ERR_HOST_ADDRESS, -EINVAL,
				       "'%.60s' is no numeric ADDRESS:PORT", part);
		entry->address_count++;
	}
	return 0;
}

static void format_addresses(const struct host_entry *entry, char text[ADDRESSES_TEXT_BYTES])
{
	size_t used = 0;

	text[0] = '\0';
	for (uint32_t i = 0; i < entry->address_count; i++) {
		char one[WIRE_PEER_BYTES];

		wire_address_format(&entry->addresses[i], one);
		used += (size_t)snprintf(text + used, ADDRESSES_TEXT_BYTES - used, "%s%s",
					 i ? "," : "", one);
	}
}

/* ---- the list ---- */

struct host_entry *hosts_next(const struct hosts *hosts, const struct host_entry *entry)
{
	const struct list *node = entry ? entry->node.next : hosts->entries.next;

	while (node != &hosts->entries) {
		struct host_entry *found = list_entry((struct list *)node, struct host_entry, node);

		if (!found->unstored)
			return found;
		node = node->next;
	}
	return NULL;
}

static struct host_entry *find_any(const struct hosts *hosts, const char *name)
{
	list_for_each(node, (struct list *)&hosts->entries) {
		struct host_entry *entry = list_entry(node, struct host_entry, node);

		if (strcmp(entry->name, name) == 0)
			return entry;
	}
	return NULL;
}

struct host_entry *hosts_find(const struct hosts *hosts, const char *name, struct err *err)
{
	struct host_entry *entry = find_any(hosts, name);

	if (entry && !entry->unstored)
		return entry;
	err_set(err, ERR_HOST_UNKNOWN, 0, "there is no host '%.64s'", name);
	return NULL;
}

static struct host_entry *find_key(const struct hosts *hosts, const char *fingerprint)
{
	for (struct host_entry *entry = hosts_next(hosts, NULL); entry;
	     entry = hosts_next(hosts, entry))
		if (strcmp(entry->fingerprint, fingerprint) == 0)
			return entry;
	return NULL;
}

static void entry_free(struct host_entry *entry)
{
	list_remove(&entry->node);
	entry->hosts->entry_count--;
	free(entry);
}

static struct host_entry *entry_new(struct hosts *hosts, const struct host_entry *model)
{
	struct host_entry *entry = calloc(1, sizeof(*entry));

	if (!entry)
		return NULL;
	*entry = *model;
	entry->hosts = hosts;
	list_append(&hosts->entries, &entry->node);
	hosts->entry_count++;
	return entry;
}

/* ---- adding and removing ---- */

struct adding {
	struct host_entry *entry;
	void (*added)(struct host_entry *entry, const struct err *err, void *user);
	void *user;
};

static void add_stored(int rc, const struct err *err, void *user)
{
	struct adding adding = *(struct adding *)user;
	struct host_entry *entry = adding.entry;

	free(user);
	if (rc) {
		entry_free(entry);
		adding.added(NULL, err, adding.user);
		return;
	}
	entry->unstored = false;
	log_info("host", "%s is known: %s", entry->name, entry->fingerprint);
	events_emit(entry->hosts->events, "host_added", json_pack("{s:s}", "host", entry->name));
	adding.added(entry, NULL, adding.user);
}

static int add_judge(struct hosts *hosts, const struct host_entry *model, struct err *err)
{
	if (!wire_fingerprint_is_valid(model->fingerprint))
		return err_set(err, ERR_HOST_FINGERPRINT, -EINVAL, "'%.60s' is no fingerprint",
			       model->fingerprint);
	if (strcmp(model->fingerprint, hosts->identity->fingerprint) == 0)
		return err_set(err, ERR_HOST_SELF, -EINVAL, "that is the key of this host");
	if (find_any(hosts, model->name))
		return err_set(err, ERR_HOST_EXISTS, -EEXIST, "there is a host '%s' already",
			       model->name);
	list_for_each(node, &hosts->entries) {
		const struct host_entry *other = list_entry(node, struct host_entry, node);

		if (strcmp(other->fingerprint, model->fingerprint) == 0)
			return err_set(err, ERR_HOST_EXISTS, -EEXIST,
				       "host '%s' has that key already", other->name);
	}
	if (hosts->stopping)
		return err_set(err, ERR_SHUTTING_DOWN, -ESHUTDOWN, "the daemon is stopping");
	if (hosts->entry_count >= HOSTS_MAX)
		return err_set(err, ERR_BUSY, -ENOSPC, "there are %u hosts already", HOSTS_MAX);
	return 0;
}

void hosts_add(struct hosts *hosts, const struct host_entry *model,
	       void (*added)(struct host_entry *entry, const struct err *err, void *user),
	       void *user)
{
	char addresses[ADDRESSES_TEXT_BYTES];
	struct store_value values[4];
	struct adding *adding;
	struct err err = { 0 };

	if (add_judge(hosts, model, &err)) {
		added(NULL, &err, user);
		return;
	}
	adding = calloc(1, sizeof(*adding));
	if (adding)
		adding->entry = entry_new(hosts, model);
	if (!adding || !adding->entry) {
		free(adding);
		err_set(&err, ERR_NO_MEMORY, 0, "out of memory");
		added(NULL, &err, user);
		return;
	}
	adding->entry->unstored = true;         /* nobody links with it before it is durable */
	adding->added = added;
	adding->user = user;
	format_addresses(model, addresses);
	values[0] = STORE_TEXT(model->name);
	values[1] = STORE_TEXT(addresses);
	values[2] = STORE_TEXT(model->fingerprint);
	values[3] = STORE_INT(model->plain_data);
	if (store_exec(hosts->store,
		       "INSERT INTO host(name, addresses, fingerprint, plain_data) "
		       "VALUES(?1, ?2, ?3, ?4)",
		       values, 4, add_stored, adding, &err))
		add_stored(-EBUSY, &err, adding);
}

static void drop_guests(struct hosts *hosts, const char *fingerprint)
{
	list_for_each(node, &hosts->guests) {
		struct guest_link *guest = list_entry(node, struct guest_link, node);

		if (fingerprint && strcmp(guest->fingerprint, fingerprint) != 0)
			continue;
		list_remove(&guest->node);
		wire_link_free(guest->link);
		free(guest);
	}
}

struct removing {
	struct host_entry *entry;
	void (*removed)(int rc, const struct err *err, void *user);
	void *user;
};

static void remove_stored(int rc, const struct err *err, void *user)
{
	struct removing removing = *(struct removing *)user;
	struct host_entry *entry = removing.entry;

	free(user);
	if (rc) {
		entry->unstored = false;        /* it is known still */
	} else {
		log_info("host", "%s is known no more", entry->name);
		events_emit(entry->hosts->events, "host_removed",
			    json_pack("{s:s}", "host", entry->name));
		entry_free(entry);
	}
	removing.removed(rc, err, removing.user);
}

int hosts_remove(struct hosts *hosts, const char *name,
		 void (*removed)(int rc, const struct err *err, void *user), void *user,
		 struct err *err)
{
	struct host_entry *entry = hosts_find(hosts, name, err);
	struct removing *removing;
	struct store_value value;
	int rc;

	if (!entry)
		return -ENOENT;
	removing = malloc(sizeof(*removing));
	if (!removing)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	*removing = (struct removing){ .entry = entry, .removed = removed, .user = user };
	value = STORE_TEXT(entry->name);
	rc = store_exec(hosts->store, "DELETE FROM host WHERE name = ?1", &value, 1, remove_stored,
			removing, err);
	if (rc) {
		free(removing);
		return rc;
	}
	entry->unstored = true;         /* nobody links with it from here on */
	drop_guests(hosts, entry->fingerprint);
	return 0;
}

/* ---- links that others make ---- */

static void guest_down(struct wire_link *link, const struct err *err)
{
	struct guest_link *guest = wire_link_user(link);

	log_info("host", "a link has ended: %s", err->id == ERR_NONE ? "bye" : err->cause);
	list_remove(&guest->node);
	free(guest);
	wire_link_free(link);
}

static const struct wire_link_ops guest_ops = { .down = guest_down };

static bool hub_judge(void *user, const char *peer_key, const struct wire_hello *hello,
		      bool *plain_data, struct err *err)
{
	struct hosts *hosts = user;
	const struct host_entry *entry = find_key(hosts, peer_key);

	(void)hello;
	if (!entry || hosts->stopping) {
		err_set(err, entry ? ERR_SHUTTING_DOWN : ERR_HOST_REFUSED, 0,
			entry ? "the daemon is stopping" : "no host here has the key %s", peer_key);
		return false;
	}
	*plain_data = entry->plain_data;
	return true;
}

static bool hub_accepted(void *user, struct wire_link *link, const char *peer_key)
{
	struct hosts *hosts = user;
	struct guest_link *guest = calloc(1, sizeof(*guest));

	if (!guest)
		return false;
	guest->hosts = hosts;
	guest->link = link;
	snprintf(guest->fingerprint, sizeof(guest->fingerprint), "%s", peer_key);
	list_append(&hosts->guests, &guest->node);
	wire_link_adopt(link, &guest_ops, guest);
	return true;
}

static bool key_is_known(struct wire_keys *keys, const char *fingerprint)
{
	return find_key(container_of(keys, struct hosts, keys), fingerprint) != NULL;
}

/* ---- asking whether a host is there ---- */

static void probe_end(struct probe *probe, const struct wire_link_status *status,
		      const struct err *err)
{
	struct probe it = *probe;

	timer_stop(&probe->timer);
	list_remove(&probe->node);
	probe->hosts->probe_count--;
	wire_link_free(probe->link);
	it.probed(status, err, it.user);
}

/* The link reads its dialler until it is down or freed; both have happened a turn later. */
static void probe_finish(struct probe *probe, const struct wire_link_status *status,
			 const struct err *err)
{
	probe_end(probe, status, err);
	free(probe);
}

static void probe_pong(struct wire_link *link)
{
	struct wire_link_status status;

	wire_link_status(link, &status);
	probe_finish(wire_link_user(link), &status, NULL);
}

static void probe_up(struct wire_link *link)
{
	struct err err;

	if (!wire_link_ping(link, probe_pong))
		return;
	err_set(&err, ERR_WIRE_LOST, 0, "the link does not take a ping");
	probe_finish(wire_link_user(link), NULL, &err);
}

static void probe_down(struct wire_link *link, const struct err *err)
{
	struct err bye;

	err_set(&bye, ERR_WIRE_LOST, 0, "the other host has closed the link");
	probe_finish(wire_link_user(link), NULL, err->id == ERR_NONE ? &bye : err);
}

static const struct wire_link_ops probe_ops = { .up = probe_up, .down = probe_down };

static void probe_late(struct timer *timer)
{
	struct probe *probe = container_of(timer, struct probe, timer);
	struct err err;

	err_set(&err, ERR_HOST_UNREACHABLE, 0, "host '%s' does not answer in time",
		probe->host.name);
	probe_finish(probe, NULL, &err);
}

static int probe_dial(struct wire_dialler *dialler, unsigned address, bool plain,
		      struct wire_pipe **out, struct err *err)
{
	struct probe *probe = container_of(dialler, struct probe, dialler);

	return wire_socket_dial(probe->hosts->loop, probe->hosts->identity,
				&probe->host.addresses[address],
				plain ? NULL : probe->host.fingerprint, out, err);
}

int hosts_probe(struct hosts *hosts, const struct host_entry *entry,
		void (*probed)(const struct wire_link_status *status, const struct err *err,
			       void *user),
		void *user, struct err *err)
{
	struct wire_link_options options = { .env = &hosts->env, .ops = &probe_ops };
	struct probe *probe;
	int rc;

	if (hosts->stopping)
		return err_set(err, ERR_SHUTTING_DOWN, -ESHUTDOWN, "the daemon is stopping");
	if (hosts->probe_count >= PROBES_MAX)
		return err_set(err, ERR_BUSY, -EBUSY, "%u hosts are being asked already",
			       PROBES_MAX);
	probe = calloc(1, sizeof(*probe));
	if (!probe)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	probe->hosts = hosts;
	probe->host = *entry;
	probe->probed = probed;
	probe->user = user;
	probe->dialler.dial = probe_dial;
	probe->dialler.address_count = entry->address_count;
	options.dialler = &probe->dialler;
	options.user = probe;
	rc = wire_link_new(&options, &probe->link, err);
	if (rc) {
		free(probe);
		return rc;
	}
	timer_init(&probe->timer, hosts->loop, probe_late);
	timer_start(&probe->timer, PROBE_NS);
	list_append(&hosts->probes, &probe->node);
	hosts->probe_count++;
	return 0;
}

/* ---- life ---- */

static const char table_sql[] =
	"CREATE TABLE IF NOT EXISTS host(name TEXT PRIMARY KEY, addresses TEXT NOT NULL,"
	"  fingerprint TEXT NOT NULL UNIQUE, plain_data INTEGER NOT NULL) STRICT";

static int load_row(struct hosts *hosts, const json_t *row, struct err *err)
{
	struct host_entry model = { 0 };
	const char *name = json_string_value(json_array_get(row, 0));
	const char *addresses = json_string_value(json_array_get(row, 1));
	const char *fingerprint = json_string_value(json_array_get(row, 2));
	int rc;

	snprintf(model.name, sizeof(model.name), "%s", name ? name : "");
	snprintf(model.fingerprint, sizeof(model.fingerprint), "%s", fingerprint ? fingerprint : "");
	model.plain_data = json_integer_value(json_array_get(row, 3)) != 0;
	rc = hosts_parse_addresses(addresses ? addresses : "", &model, err);
	if (rc || !wire_fingerprint_is_valid(model.fingerprint))
		return err_set(err, ERR_STATE_DIR, -EBADMSG, "host '%s' is damaged in the store",
			       model.name);
	return entry_new(hosts, &model) ? 0
					: err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
}

/* An old store has no such table yet; the rest of it is as it was. */
static int load(struct hosts *hosts, struct err *err)
{
	json_t *rows = NULL;
	int rc = store_exec_now(hosts->store, table_sql, NULL, 0, err);

	if (!rc)
		rc = store_load(hosts->store,
				"SELECT name, addresses, fingerprint, plain_data FROM host "
				"ORDER BY rowid",
				&rows, err);
	for (size_t i = 0; !rc && i < json_array_size(rows); i++)
		rc = load_row(hosts, json_array_get(rows, i), err);
	json_decref(rows);
	return rc;
}

static int open_hub(struct hosts *hosts, int *listen_fd, struct err *err)
{
	struct wire_hub_options hub = { .env = &hosts->env, .judge = hub_judge,
					.accepted = hub_accepted, .user = hosts };
	int fd = *listen_fd, rc = 0;

	hosts->hub = wire_hub_new(&hub);
	if (!hosts->hub)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	*listen_fd = -1;
	if (fd >= 0)
		rc = wire_listener_new(hosts->hub, fd, hosts->identity, &hosts->keys,
				       &hosts->listener);
	return rc ? err_set(err, ERR_INTERNAL, rc, "cannot listen for hosts: %s", err_strerror(rc))
		  : 0;
}

int hosts_new(const struct hosts_options *options, struct hosts **out, struct err *err)
{
	struct hosts *hosts = calloc(1, sizeof(*hosts));
	int listen_fd = options->listen_fd;
	int rc = -ENOMEM;

	if (!hosts) {
		err_set(err, ERR_NO_MEMORY, rc, "out of memory");
		goto close_fd;
	}
	hosts->loop = hosts->env.loop = options->loop;
	hosts->store = options->store;
	hosts->events = options->events;
	memcpy(hosts->env.host.bytes, options->host_uuid, sizeof(hosts->env.host.bytes));
	hosts->keys.known = key_is_known;
	list_init(&hosts->entries);
	list_init(&hosts->guests);
	list_init(&hosts->probes);
	rc = wire_identity_open(options->state_dir, &hosts->identity, err);
	if (!rc)
		rc = load(hosts, err);
	if (!rc)
		rc = open_hub(hosts, &listen_fd, err);
	if (rc) {
		hosts_free(hosts);
		goto close_fd;
	}
	*out = hosts;
	return 0;

close_fd:
	if (listen_fd >= 0)
		close(listen_fd);
	return rc;
}

void hosts_stop(struct hosts *hosts)
{
	struct err err;

	if (hosts->stopping)
		return;
	hosts->stopping = true;
	wire_listener_free(hosts->listener);
	hosts->listener = NULL;
	err_set(&err, ERR_SHUTTING_DOWN, 0, "the daemon is stopping");
	list_for_each(node, &hosts->probes)
		probe_finish(list_entry(node, struct probe, node), NULL, &err);
	drop_guests(hosts, NULL);
	wire_hub_free(hosts->hub);
	hosts->hub = NULL;
}

bool hosts_is_busy(const struct hosts *hosts)
{
	return hosts->env.live > 0;
}

void hosts_free(struct hosts *hosts)
{
	if (!hosts)
		return;
	CHECK(!hosts_is_busy(hosts));
	wire_listener_free(hosts->listener);
	wire_hub_free(hosts->hub);
	list_for_each(node, &hosts->entries)
		entry_free(list_entry(node, struct host_entry, node));
	wire_identity_free(hosts->identity);
	free(hosts);
}

const char *hosts_fingerprint(const struct hosts *hosts)
{
	return hosts->identity->fingerprint;
}
