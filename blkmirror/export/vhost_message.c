/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost_message.c - a front end's message: judged by a table, then carried out.
 *
 * The table says for each request how long its payload is and how many descriptors come with
 * it; vhost_header_judge() looks there before a byte of the payload is taken.  What a handler
 * finds wrong it refuses, with nothing changed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "blkmirror/export/vhost_private.h"

/* ---- helpers ---- */

static enum vhost_verdict refuse(struct vhost_conn *conn, const char *reason)
{
	conn->reason = reason;
	return VHOST_REFUSED;
}

static enum vhost_verdict answer_u64(struct vhost_message *message, uint64_t value)
{
	message->payload.u64 = value;
	message->header.size_bytes = sizeof(value);
	return VHOST_ANSWER;
}

static int take_fd(struct vhost_message *message, uint32_t index)
{
	int fd = message->fds[index];

	message->fds[index] = -1;
	return fd;
}

static void replace_fd(int *place, int fd)
{
	if (*place >= 0)
		close(*place);
	*place = fd;
}

/* NULL: conn->reason says why. */
static struct vhost_queue *queue_named(struct vhost_conn *conn, uint64_t index)
{
	conn->reason = "a queue that is not offered";
	if (index >= conn->server->max_queues)
		return NULL;
	if (!conn->queues[index])
		conn->queues[index] = vhost_queue_new(conn, (uint32_t)index);
	if (!conn->queues[index])
		conn->reason = "out of memory";
	return conn->queues[index];
}

/* ---- features ---- */

static enum vhost_verdict get_features(struct vhost_conn *conn, struct vhost_message *message)
{
	return answer_u64(message, vhost_features_offered(conn->server));
}

static enum vhost_verdict set_features(struct vhost_conn *conn, struct vhost_message *message)
{
	if (message->payload.u64 & ~vhost_features_known())
		return refuse(conn, "features that were not offered");
	/* Sent again with or without the log bit while rings run: a migration begins or ends. */
	conn->features = message->payload.u64;
	for (uint32_t i = 0; i < VHOST_QUEUES_MAX; i++)
		if (conn->queues[i])
			vhost_queue_serve_later(conn->queues[i]);
	return VHOST_DONE;
}

static enum vhost_verdict get_protocol_features(struct vhost_conn *conn,
						struct vhost_message *message)
{
	(void)conn;
	return answer_u64(message, vhost_protocol_features());
}

static enum vhost_verdict set_protocol_features(struct vhost_conn *conn,
						struct vhost_message *message)
{
	if (message->payload.u64 & ~vhost_protocol_features())
		return refuse(conn, "protocol features that were not offered");
	conn->protocol_features = message->payload.u64;
	return VHOST_DONE;
}

static enum vhost_verdict get_queue_num(struct vhost_conn *conn, struct vhost_message *message)
{
	return answer_u64(message, conn->server->max_queues);
}

static enum vhost_verdict get_max_mem_slots(struct vhost_conn *conn, struct vhost_message *message)
{
	(void)conn;
	return answer_u64(message, VHOST_REGIONS_MAX);
}

/* SET_OWNER; RESET_OWNER, whose meaning nobody agreed on and which may be ignored. */
static enum vhost_verdict ignore(struct vhost_conn *conn, struct vhost_message *message)
{
	(void)conn;
	(void)message;
	return VHOST_DONE;
}

/* ---- memory ---- */

static enum vhost_verdict memory_refused(struct vhost_conn *conn, struct vhost_memory *memory,
					 int rc)
{
	vhost_memory_put(memory);
	if (rc == -ENOMEM)
		return refuse(conn, "out of memory for the guest's memory");
	if (rc == -ENOSPC)
		return refuse(conn, "more memory regions than were offered");
	return refuse(conn, "a memory region that overlaps another, or is not shared memory of "
			    "that length");
}

static void memory_use(struct vhost_conn *conn, struct vhost_memory *memory)
{
	vhost_memory_put(conn->memory);
	conn->memory = memory;
	for (uint32_t i = 0; i < VHOST_QUEUES_MAX; i++)
		if (conn->queues[i])
			vhost_queue_memory_changed(conn->queues[i]);
}

static enum vhost_verdict set_mem_table(struct vhost_conn *conn, struct vhost_message *message)
{
	const struct vhost_wire_table *table = &message->payload.table;
	uint32_t count = table->count;
	struct vhost_memory *memory;
	int rc = 0;

	if (count > VHOST_USER_TABLE_REGIONS_MAX || count != message->fd_count ||
	    message->header.size_bytes !=
		    offsetof(struct vhost_wire_table, regions) + count * sizeof(table->regions[0]))
		return refuse(conn, "a memory table that is not as long as it says");
	memory = vhost_memory_new();
	if (!memory)
		return refuse(conn, "out of memory");
	for (uint32_t i = 0; i < count && !rc; i++)
		rc = vhost_memory_add(memory, &table->regions[i], message->fds[i]);
	if (rc)
		return memory_refused(conn, memory, rc);
	memory_use(conn, memory);
	return VHOST_DONE;
}

static enum vhost_verdict add_mem_reg(struct vhost_conn *conn, struct vhost_message *message)
{
	struct vhost_memory *memory = vhost_memory_copy(conn->memory, UINT32_MAX);
	int rc;

	if (!memory)
		return refuse(conn, "out of memory");
	rc = vhost_memory_add(memory, &message->payload.one_region.region, message->fds[0]);
	if (rc)
		return memory_refused(conn, memory, rc);
	memory_use(conn, memory);
	return VHOST_DONE;
}

static enum vhost_verdict rem_mem_reg(struct vhost_conn *conn, struct vhost_message *message)
{
	uint32_t index = vhost_memory_find(conn->memory, &message->payload.one_region.region);
	struct vhost_memory *memory;

	if (index == conn->memory->count)
		return refuse(conn, "a memory region to remove that is not there");
	memory = vhost_memory_copy(conn->memory, index);
	if (!memory)
		return refuse(conn, "out of memory");
	memory_use(conn, memory);
	return VHOST_DONE;
}

/* ---- the dirty log ---- */

static enum vhost_verdict set_log_base(struct vhost_conn *conn, struct vhost_message *message)
{
	const struct vhost_wire_log *wire = &message->payload.log;
	struct vhost_map *map;

	if (vhost_map_new(message->fds[0], wire->mmap_offset_bytes, wire->len_bytes, &map))
		return refuse(conn, "a dirty log that is not shared memory of that length");
	vhost_map_put(conn->log);
	conn->log = map;
	return answer_u64(message, 0);
}

static enum vhost_verdict set_log_fd(struct vhost_conn *conn, struct vhost_message *message)
{
	if (!vhost_fd_is_event(message->fds[0]))
		return refuse(conn, "a descriptor to tell of the log that is no eventfd");
	(void)fcntl(message->fds[0], F_SETFL, O_NONBLOCK);
	replace_fd(&conn->log_fd, take_fd(message, 0));
	return VHOST_DONE;
}

/* ---- the in-flight region ---- */

static enum vhost_verdict inflight_judge(struct vhost_conn *conn,
					 const struct vhost_wire_inflight *wire)
{
	if (wire->queue_count == 0 || wire->queue_count > conn->server->max_queues ||
	    !vhost_ring_size_is_valid(wire->queue_size))
		return refuse(conn, "an in-flight region for queues that are not offered");
	return VHOST_DONE;
}

static uint64_t inflight_bytes(const struct vhost_wire_inflight *wire)
{
	return wire->queue_count * vhost_inflight_queue_bytes(wire->queue_size);
}

static enum vhost_verdict get_inflight_fd(struct vhost_conn *conn, struct vhost_message *message)
{
	struct vhost_wire_inflight *wire = &message->payload.inflight;
	enum vhost_verdict verdict = inflight_judge(conn, wire);
	int fd;

	if (verdict != VHOST_DONE)
		return verdict;
	fd = memfd_create("vhost-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0 || ftruncate(fd, (off_t)inflight_bytes(wire)) ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
		if (fd >= 0)
			close(fd);
		return refuse(conn, "out of memory for an in-flight region");
	}
	wire->len_bytes = inflight_bytes(wire);
	wire->mmap_offset_bytes = 0;
	message->fds[0] = fd;
	message->fd_count = 1;
	return VHOST_ANSWER;
}

static bool any_queue_runs(const struct vhost_conn *conn)
{
	for (uint32_t i = 0; i < VHOST_QUEUES_MAX; i++)
		if (conn->queues[i] && conn->queues[i]->state != VHOST_QUEUE_STOPPED)
			return true;
	return false;
}

static enum vhost_verdict set_inflight_fd(struct vhost_conn *conn, struct vhost_message *message)
{
	const struct vhost_wire_inflight *wire = &message->payload.inflight;
	enum vhost_verdict verdict = inflight_judge(conn, wire);
	struct vhost_map *map;

	if (verdict != VHOST_DONE)
		return verdict;
	if (any_queue_runs(conn))
		return refuse(conn, "an in-flight region while a ring runs");
	if (wire->len_bytes < inflight_bytes(wire) ||
	    vhost_map_new(message->fds[0], wire->mmap_offset_bytes, wire->len_bytes, &map))
		return refuse(conn, "an in-flight region that is not shared memory of that length");
	if ((uintptr_t)map->bytes % VHOST_INFLIGHT_ALIGN) {
		vhost_map_put(map);
		return refuse(conn, "an in-flight region that is not aligned");
	}
	vhost_map_put(conn->inflight);
	conn->inflight = map;
	conn->inflight_queue_count = wire->queue_count;
	conn->inflight_queue_size = wire->queue_size;
	return VHOST_DONE;
}

/* ---- rings ---- */

static enum vhost_verdict set_vring_num(struct vhost_conn *conn, struct vhost_message *message)
{
	const struct vhost_wire_vring_state *wire = &message->payload.vring_state;
	struct vhost_queue *queue = queue_named(conn, wire->index);

	if (!queue)
		return VHOST_REFUSED;
	if (queue->state != VHOST_QUEUE_STOPPED)
		return refuse(conn, "a new size for a ring that runs");
	if (!vhost_ring_size_is_valid(wire->value))
		return refuse(conn, "a ring's size that is no power of two up to 1024");
	queue->place.size = (uint16_t)wire->value;
	return VHOST_DONE;
}

static enum vhost_verdict set_vring_base(struct vhost_conn *conn, struct vhost_message *message)
{
	const struct vhost_wire_vring_state *wire = &message->payload.vring_state;
	struct vhost_queue *queue = queue_named(conn, wire->index);

	if (!queue)
		return VHOST_REFUSED;
	if (queue->state != VHOST_QUEUE_STOPPED || wire->value > UINT16_MAX)
		return refuse(conn, "a base for a ring that runs, or that is no place in one");
	queue->place.next_avail = (uint16_t)wire->value;
	return VHOST_DONE;
}

/* Also while the ring runs: a migration's begin and end set the same place with another flag. */
static enum vhost_verdict set_vring_addr(struct vhost_conn *conn, struct vhost_message *message)
{
	const struct vhost_wire_vring_addr *wire = &message->payload.vring_addr;
	struct vhost_queue *queue = queue_named(conn, wire->index);

	if (!queue)
		return VHOST_REFUSED;
	if (queue->state != VHOST_QUEUE_STOPPED &&
	    (queue->place.desc_hva != wire->desc_hva || queue->place.avail_hva != wire->avail_hva ||
	     queue->place.used_hva != wire->used_hva))
		return refuse(conn, "another place for a ring that runs");
	queue->place.desc_hva = wire->desc_hva;
	queue->place.avail_hva = wire->avail_hva;
	queue->place.used_hva = wire->used_hva;
	queue->has_addr = true;
	return VHOST_DONE;
}

static enum vhost_verdict get_vring_base(struct vhost_conn *conn, struct vhost_message *message)
{
	struct vhost_queue *queue = queue_named(conn, message->payload.vring_state.index);

	if (!queue)
		return VHOST_REFUSED;
	vhost_queue_drain(queue);
	return VHOST_LATER;
}

/*
 * The queue and the eventfd that KICK, CALL and ERR name; *fd is -1 where none is meant.
 * NULL: conn->reason says why.
 */
static struct vhost_queue *queue_and_event(struct vhost_conn *conn,
					   const struct vhost_message *message, int *fd)
{
	uint64_t value = message->payload.u64;

	conn->reason = "a ring's descriptor that is missing, too many, or no eventfd";
	*fd = -1;
	if (value & ~(VHOST_USER_VRING_INDEX_MASK | VHOST_USER_VRING_NO_FD) ||
	    message->fd_count != !(value & VHOST_USER_VRING_NO_FD))
		return NULL;
	if (message->fd_count) {
		*fd = message->fds[0];
		if (!vhost_fd_is_event(*fd))
			return NULL;
		/* Of the eventfd itself, so the front end's too: QEMU's are so already. */
		(void)fcntl(*fd, F_SETFL, O_NONBLOCK);
	}
	return queue_named(conn, value & VHOST_USER_VRING_INDEX_MASK);
}

static enum vhost_verdict set_vring_kick(struct vhost_conn *conn, struct vhost_message *message)
{
	int fd;
	struct vhost_queue *queue = queue_and_event(conn, message, &fd);

	if (!queue)
		return VHOST_REFUSED;
	if (fd < 0)
		return refuse(conn, "a ring without a kick: polling is not offered");
	if (queue->state != VHOST_QUEUE_STOPPED)
		return refuse(conn, "a kick for a ring that runs");
	if (vhost_queue_start(queue, fd))
		return VHOST_REFUSED;
	(void)take_fd(message, 0);
	return VHOST_DONE;
}

static enum vhost_verdict set_vring_call(struct vhost_conn *conn, struct vhost_message *message)
{
	int fd;
	struct vhost_queue *queue = queue_and_event(conn, message, &fd);

	if (!queue)
		return VHOST_REFUSED;
	replace_fd(&queue->call_fd, fd);
	if (fd >= 0)
		(void)take_fd(message, 0);
	/* What was said to the old one may not have been heard. */
	if (queue->state != VHOST_QUEUE_STOPPED)
		vhost_queue_call(queue);
	return VHOST_DONE;
}

static enum vhost_verdict set_vring_err(struct vhost_conn *conn, struct vhost_message *message)
{
	int fd;
	struct vhost_queue *queue = queue_and_event(conn, message, &fd);

	if (!queue)
		return VHOST_REFUSED;
	replace_fd(&queue->err_fd, fd);
	if (fd >= 0)
		(void)take_fd(message, 0);
	return VHOST_DONE;
}

static enum vhost_verdict set_vring_enable(struct vhost_conn *conn, struct vhost_message *message)
{
	const struct vhost_wire_vring_state *wire = &message->payload.vring_state;
	struct vhost_queue *queue = queue_named(conn, wire->index);

	if (!queue)
		return VHOST_REFUSED;
	if (wire->value > 1)
		return refuse(conn, "a ring that is neither enabled nor disabled");
	queue->enabled = wire->value;
	vhost_queue_serve_later(queue);
	return VHOST_DONE;
}

/* The front end has stopped the rings before: what still runs is a mistake. */
static enum vhost_verdict reset_device(struct vhost_conn *conn, struct vhost_message *message)
{
	(void)message;
	if (any_queue_runs(conn))
		return refuse(conn, "a reset while a ring runs");
	conn->features = 0;
	for (uint32_t i = 0; i < VHOST_QUEUES_MAX; i++)
		if (conn->queues[i])
			conn->queues[i]->enabled = false;
	return VHOST_DONE;
}

/* ---- configuration ---- */

static enum vhost_verdict get_config(struct vhost_conn *conn, struct vhost_message *message)
{
	struct vhost_wire_config *wire = &message->payload.config;

	if (message->header.size_bytes != VHOST_WIRE_CONFIG_HEADER_BYTES + wire->len_bytes ||
	    wire->offset_bytes > VHOST_USER_CONFIG_BYTES_MAX ||
	    wire->len_bytes > VHOST_USER_CONFIG_BYTES_MAX - wire->offset_bytes)
		return refuse(conn, "a part of the configuration that does not exist");
	vhost_config_read(conn->server, wire->offset_bytes, wire->len_bytes, wire->bytes);
	return VHOST_ANSWER;
}

static enum vhost_verdict set_config(struct vhost_conn *conn, struct vhost_message *message)
{
	(void)message;
	return refuse(conn, "a change of the configuration: nothing in it is writable");
}

static enum vhost_verdict set_backend_req_fd(struct vhost_conn *conn, struct vhost_message *message)
{
	int domain = AF_UNSPEC;
	socklen_t len = sizeof(domain);

	/* Not stat(): it may wait, for what somebody else serves. */
	if (getsockopt(message->fds[0], SOL_SOCKET, SO_DOMAIN, &domain, &len) || domain != AF_UNIX)
		return refuse(conn, "a back end's channel that is no UNIX socket");
	replace_fd(&conn->backend_fd, take_fd(message, 0));
	return VHOST_DONE;
}

/* ---- the table ---- */

#define NO_FEATURE 0xff
#define TABLE_MIN offsetof(struct vhost_wire_table, regions)

struct rule {
	enum vhost_verdict (*run)(struct vhost_conn *conn, struct vhost_message *message);
	uint16_t min_bytes, max_bytes;  /* of the payload */
	uint8_t min_fds, max_fds;
	uint8_t feature;                /* of the protocol, that must have been negotiated */
};

/* clang-format off */
static const struct rule rules[VHOST_USER_REQUEST_END] = {
	[VHOST_USER_GET_FEATURES]          = { get_features, 0, 0, 0, 0, NO_FEATURE },
	[VHOST_USER_SET_FEATURES]          = { set_features, 8, 8, 0, 0, NO_FEATURE },
	[VHOST_USER_SET_OWNER]             = { ignore, 0, 0, 0, 0, NO_FEATURE },
	[VHOST_USER_RESET_OWNER]           = { ignore, 0, 0, 0, 0, NO_FEATURE },
	[VHOST_USER_SET_MEM_TABLE]         = { set_mem_table, TABLE_MIN,
					       sizeof(struct vhost_wire_table),
					       0, VHOST_USER_FDS_MAX, NO_FEATURE },
	[VHOST_USER_SET_LOG_BASE]          = { set_log_base, 16, 16, 1, 1,
					       VHOST_USER_PROTOCOL_F_LOG_SHMFD },
	[VHOST_USER_SET_LOG_FD]            = { set_log_fd, 0, 8, 1, 1, NO_FEATURE },
	[VHOST_USER_SET_VRING_NUM]         = { set_vring_num, 8, 8, 0, 0, NO_FEATURE },
	[VHOST_USER_SET_VRING_ADDR]        = { set_vring_addr, 40, 40, 0, 0, NO_FEATURE },
	[VHOST_USER_SET_VRING_BASE]        = { set_vring_base, 8, 8, 0, 0, NO_FEATURE },
	[VHOST_USER_GET_VRING_BASE]        = { get_vring_base, 8, 8, 0, 0, NO_FEATURE },
	[VHOST_USER_SET_VRING_KICK]        = { set_vring_kick, 8, 8, 0, 1, NO_FEATURE },
	[VHOST_USER_SET_VRING_CALL]        = { set_vring_call, 8, 8, 0, 1, NO_FEATURE },
	[VHOST_USER_SET_VRING_ERR]         = { set_vring_err, 8, 8, 0, 1, NO_FEATURE },
	[VHOST_USER_GET_PROTOCOL_FEATURES] = { get_protocol_features, 0, 0, 0, 0, NO_FEATURE },
	[VHOST_USER_SET_PROTOCOL_FEATURES] = { set_protocol_features, 8, 8, 0, 0, NO_FEATURE },
	[VHOST_USER_GET_QUEUE_NUM]         = { get_queue_num, 0, 0, 0, 0,
					       VHOST_USER_PROTOCOL_F_MQ },
	[VHOST_USER_SET_VRING_ENABLE]      = { set_vring_enable, 8, 8, 0, 0, NO_FEATURE },
	[VHOST_USER_SET_BACKEND_REQ_FD]    = { set_backend_req_fd, 0, 8, 1, 1,
					       VHOST_USER_PROTOCOL_F_BACKEND_REQ },
	[VHOST_USER_GET_CONFIG]            = { get_config, VHOST_WIRE_CONFIG_HEADER_BYTES,
					       sizeof(struct vhost_wire_config), 0, 0,
					       VHOST_USER_PROTOCOL_F_CONFIG },
	[VHOST_USER_SET_CONFIG]            = { set_config, VHOST_WIRE_CONFIG_HEADER_BYTES,
					       sizeof(struct vhost_wire_config), 0, 0,
					       VHOST_USER_PROTOCOL_F_CONFIG },
	[VHOST_USER_GET_INFLIGHT_FD]       = { get_inflight_fd, VHOST_WIRE_INFLIGHT_BYTES_MIN,
					       sizeof(struct vhost_wire_inflight), 0, 0,
					       VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD },
	[VHOST_USER_SET_INFLIGHT_FD]       = { set_inflight_fd, VHOST_WIRE_INFLIGHT_BYTES_MIN,
					       sizeof(struct vhost_wire_inflight), 1, 1,
					       VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD },
	[VHOST_USER_RESET_DEVICE]          = { reset_device, 0, 0, 0, 0,
					       VHOST_USER_PROTOCOL_F_RESET_DEVICE },
	[VHOST_USER_GET_MAX_MEM_SLOTS]     = { get_max_mem_slots, 0, 0, 0, 0,
					       VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS },
	[VHOST_USER_ADD_MEM_REG]           = { add_mem_reg, 40, 40, 1, 1,
					       VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS },
	[VHOST_USER_REM_MEM_REG]           = { rem_mem_reg, 40, 40, 0, 1,
					       VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS },
};
/* clang-format on */

const char *vhost_header_judge(const struct vhost_conn *conn,
			       const struct vhost_wire_header *header)
{
	const struct rule *rule;

	if ((header->flags & VHOST_USER_VERSION_MASK) != VHOST_USER_VERSION ||
	    header->flags & ~VHOST_USER_FLAGS_KNOWN || header->flags & VHOST_USER_FLAG_REPLY)
		return "a message of another version, or with unknown flags";
	if (header->request >= VHOST_USER_REQUEST_END || !rules[header->request].run)
		return "a request that is not known";
	rule = &rules[header->request];
	if (rule->feature != NO_FEATURE && !vhost_has_protocol(conn, rule->feature))
		return "a request whose feature was not negotiated";
	if (header->size_bytes < rule->min_bytes || header->size_bytes > rule->max_bytes)
		return "a message of a length that it cannot have";
	return NULL;
}

enum vhost_verdict vhost_message_run(struct vhost_conn *conn, struct vhost_message *message)
{
	const struct rule *rule = &rules[message->header.request];

	if (message->fd_count < rule->min_fds || message->fd_count > rule->max_fds)
		return refuse(conn, "a message with descriptors that it cannot have");
	return rule->run(conn, message);
}
