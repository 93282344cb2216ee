/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost_private.h - what the rooms of the vhost-user export share.
 *
 *	vhost_blk_server.c   listening, one front end, closing
 *	vhost_connection.c   the socket: messages in, answers out; dying
 *	vhost_message.c      a message: judged by a table, carried out
 *	vhost_config.c       features and the disk's configuration space
 *	vhost_queue.c        a queue's life: start, serve, drain, stop; telling the guest
 *	vhost_poll.c         looking for requests without a kick
 *	vhost_request.c      a request: decoded, judged, submitted, answered
 *	vhost_log.c          pages that we wrote
 *	vhost_ring.c, vhost_memory.c, vhost_map.c   rings, addresses, maps; know none of these
 *
 * A request's path:
 *
 *	kick -> vhost_queue_serve() -> ring_take() -> blk_submit() ... done() -> ring_give()
 *	                                  '- refused: status at once --------------'|
 *	                                              publish, one notification per turn
 *
 * Life: a connection is freed only by vhost_conn_settle(), which is the last thing that each
 * entry from the loop or the device does (socket or kick ready, turn's end, timer, task, done()).
 * Anything deeper only changes the state.
 */
#ifndef BM_VHOST_PRIVATE_H
#define BM_VHOST_PRIVATE_H

#include "blkmirror/export/complaints.h"
#include "blkmirror/export/listener.h"
#include "blkmirror/export/vhost_blk_server.h"
#include "blkmirror/export/vhost_ring.h"

#define VHOST_NAME_BYTES_MAX 255u
#define VHOST_QUEUES_MAX 256u
#define VHOST_SECTOR_BYTES 512u
/* The longest discard or zeroing in one request. */
#define VHOST_ZERO_BYTES_MAX (UINT64_C(1) << 30)
/* A guest sends at most SEG_MAX pieces of SIZE_MAX: below BLK_MAX_TRANSFER_BYTES in all. */
#define VHOST_SEG_MAX 126u
#define VHOST_SIZE_MAX (256u << 10)
_Static_assert((uint64_t)VHOST_SEG_MAX * VHOST_SIZE_MAX <= BLK_MAX_TRANSFER_BYTES,
	       "a lawful request is never too large");

struct vhost_conn;
struct vhost_queue;

/* ---- requests ---- */

struct vhost_request {
	struct blk_req blk;
	struct vhost_queue *queue;
	struct vhost_memory *memory;    /* a reference: what the pieces lie in */
	struct list node;               /* on the free list */
	bool is_replay;
	uint8_t *status;                /* in guest memory */
	struct iovec *landing;          /* where data land; landing_count 0: nowhere */
	uint32_t landing_count;
	uint32_t written_bytes;         /* with the status */
	struct vhost_chain chain;
};

/* ---- queues ---- */

enum vhost_queue_state {
	VHOST_QUEUE_STOPPED,
	VHOST_QUEUE_RUNNING,
	VHOST_QUEUE_DRAINING,           /* GET_VRING_BASE waits for it */
	VHOST_QUEUE_BROKEN,             /* its driver broke the rules; until it is stopped */
};

struct vhost_poll {
	struct task task;               /* queued while looking */
	uint64_t window_ns;             /* how long to look; 0: not at all */
	uint64_t until_ns;
	uint64_t slept_ns;              /* when it gave up last */
};

struct vhost_queue {
	struct vhost_conn *conn;
	uint32_t index;
	enum vhost_queue_state state;
	bool enabled;                   /* by SET_VRING_ENABLE */
	bool has_addr;
	struct vhost_ring_place place;  /* as the front end says */
	struct vhost_ring ring;
	struct vhost_memory *memory;    /* a reference: what the ring lies in */
	int kick_fd, call_fd, err_fd;   /* -1: none */
	struct watch kick;
	uint32_t in_flight;
	struct list unpublished_node;   /* among those with something to tell */
	struct list starving_node;      /* among those that wait for a request object */
	struct task serve_task;
	struct vhost_poll poll;
	uint16_t *replay;               /* heads; NULL once all are submitted */
	uint32_t replay_count, replay_next;
};

/* ---- messages ---- */

struct vhost_message {
	struct vhost_wire_header header;
	union vhost_wire_payload payload;
	int fds[VHOST_USER_FDS_MAX];    /* -1: taken */
	uint32_t fd_count;
};

/* What became of a message. */
enum vhost_verdict {
	VHOST_DONE,                     /* acknowledge it where that is wished */
	VHOST_ANSWER,                   /* its payload (and fds) are the answer */
	VHOST_LATER,                    /* the answer comes with the end of a drain */
	VHOST_REFUSED,                  /* conn->reason says why; nothing was changed */
};

/* ---- the connection ---- */

enum vhost_conn_state {
	VHOST_OPEN,
	VHOST_CLOSING,          /* takes nothing more; what is in flight is told */
	VHOST_DEAD,             /* no socket; waits for the device to give requests back */
};

struct vhost_conn {
	struct vhost_blk_server *server;
	enum vhost_conn_state state;
	int fd;                         /* -1 once dead */
	struct watch watch;
	struct turn_hook turn_end;      /* publishes */
	struct timer drain_timer;

	struct vhost_message in;
	uint32_t received_bytes;        /* of header and payload */
	const char *reason;             /* of the last refusal */
	const char *fault;              /* ends the connection at the next settle */

	uint64_t features;
	uint64_t protocol_features;
	struct vhost_memory *memory;    /* never NULL */
	struct vhost_map *log;          /* NULL: none */
	int log_fd;                     /* told when the log has changed; -1: nobody */
	bool log_changed;
	struct vhost_map *inflight;     /* NULL: none */
	uint16_t inflight_queue_count, inflight_queue_size;
	bool lacks_inflight_said;
	int backend_fd;                 /* the channel to the front end; -1: none */

	struct vhost_queue *queues[VHOST_QUEUES_MAX];   /* made when first named */
	struct vhost_queue *draining;
	struct list unpublished;
	struct list starving;
	struct list free_requests;
	uint32_t request_count;         /* objects made */
	uint32_t in_flight;             /* in the device */
	uint32_t replays_left;          /* of all queues: not settled yet */
	uint64_t requests_served;
};

struct vhost_blk_server {
	struct loop *loop;
	struct blk_dev *dev;
	char name[VHOST_NAME_BYTES_MAX + 1];
	bool read_only;
	uint32_t max_queues;
	uint32_t max_requests;
	uint64_t drain_timeout_ns;
	uint64_t poll_ns;

	struct listener listener;
	struct vhost_conn *conn;        /* NULL: none, not even a dead one */
	uint64_t accepted;

	struct complaints complaints;

	bool closing;
	void (*closed)(void *user);
	void *closed_user;
	struct task closed_task;
};

/* ---- vhost_blk_server.c ---- */

/* Say what somebody did wrong, at most a few times per window. */
void vhost_server_complain(struct vhost_blk_server *server, const char *format, ...)
	PRINTF_LIKE(2, 3);

/* The connection is freed. */
void vhost_server_conn_gone(struct vhost_blk_server *server);

/* ---- vhost_connection.c ---- */

/* Takes fd, whatever comes of it. */
MUST_CHECK int vhost_conn_start(struct vhost_blk_server *server, int fd);

/* Take nothing more; tell what is in flight, then close.  Harmless when already closing. */
void vhost_conn_finish(struct vhost_conn *conn);

/* The front end broke the protocol: log, count, close at once. */
void vhost_conn_violation(struct vhost_conn *conn, const char *reason);

/* Has it hung up without our having noticed yet?  Then that is noticed now. */
void vhost_conn_probe(struct vhost_conn *conn);

/* The last thing an entry does: `conn` may be gone afterwards. */
void vhost_conn_settle(struct vhost_conn *conn);

/* The drained queue's base: the answer to GET_VRING_BASE. */
void vhost_conn_drained(struct vhost_conn *conn);

/* A message of ours on the back end's channel.  0 or -errno. */
MUST_CHECK int vhost_conn_tell(struct vhost_conn *conn, uint32_t request);

static inline bool vhost_has_protocol(const struct vhost_conn *conn,
				      enum vhost_user_protocol_feature feature)
{
	return conn->protocol_features >> feature & 1;
}

static inline bool vhost_has(const struct vhost_conn *conn, unsigned feature)
{
	return conn->features >> feature & 1;
}

/* ---- vhost_message.c ---- */

/* The edge, before the payload has come: do we take such a message?  NULL, or what is wrong. */
const char *vhost_header_judge(const struct vhost_conn *conn,
			       const struct vhost_wire_header *header);

/* Carry it out.  What it takes of fds it sets to -1. */
enum vhost_verdict vhost_message_run(struct vhost_conn *conn, struct vhost_message *message);

/* ---- vhost_config.c ---- */

uint64_t vhost_features_offered(const struct vhost_blk_server *server);
/* What we can do for a guest that negotiated with an earlier back end; more than is offered now. */
uint64_t vhost_features_known(void);
uint64_t vhost_protocol_features(void);

/* Copy from the configuration space; what lies behind the fields is zero. */
void vhost_config_read(const struct vhost_blk_server *server, uint32_t offset_bytes,
		       uint32_t len_bytes, uint8_t *to);

/* ---- vhost_queue.c ---- */

/* NULL: out of memory. */
struct vhost_queue *vhost_queue_new(struct vhost_conn *conn, uint32_t index);
/* Nothing more from the loop: the connection is dead. */
void vhost_queue_halt(struct vhost_queue *queue);
/* Halted, nothing in flight.  NULL is harmless. */
void vhost_queue_free(struct vhost_queue *queue);

/* Takes kick_fd on success.  0, or -errno and conn->reason. */
MUST_CHECK int vhost_queue_start(struct vhost_queue *queue, int kick_fd);
/* Begin to drain; vhost_conn_drained() follows, perhaps at once. */
void vhost_queue_drain(struct vhost_queue *queue);
/* Nothing is in flight: publish, stop.  The ring's next place is in place.next_avail then. */
void vhost_queue_stop(struct vhost_queue *queue);
/* The memory table is another one. */
void vhost_queue_memory_changed(struct vhost_queue *queue);

/* Take what there is and may be taken now. */
void vhost_queue_serve(struct vhost_queue *queue);
/* From a task: who calls may be served from there. */
void vhost_queue_serve_later(struct vhost_queue *queue);
/* A request of this queue has its answer in the ring: to be told at the turn's end. */
void vhost_queue_answered(struct vhost_queue *queue, bool was_replay);
/* Tell the driver that there may be something, in case nobody did. */
void vhost_queue_call(struct vhost_queue *queue);
/* Publish all queues' answers. */
void vhost_queues_publish(struct vhost_conn *conn);

/* Where the protocol's features are not negotiated, a queue that runs is enabled. */
static inline bool vhost_queue_takes(const struct vhost_queue *queue)
{
	return queue->state == VHOST_QUEUE_RUNNING && queue->conn->state == VHOST_OPEN &&
	       (queue->enabled || !vhost_has(queue->conn, VHOST_USER_F_PROTOCOL_FEATURES_BIT));
}

/* ---- vhost_poll.c ---- */

void vhost_poll_init(struct vhost_poll *poll);
/* The ring is empty.  True: it is looked at for a while, without kicks. */
MUST_CHECK bool vhost_poll_begin(struct vhost_queue *queue);
/* A kick came: would looking have been worth it? */
void vhost_poll_kicked(struct vhost_queue *queue);
void vhost_poll_end(struct vhost_queue *queue);

/* ---- vhost_request.c ---- */

/* NULL: all are in use, or out of memory with others in use. */
struct vhost_request *vhost_request_take(struct vhost_conn *conn);
void vhost_request_release(struct vhost_request *request);
/*
 * Its chain has been read: judge it, then submit or answer it.  NULL; or why it is none, and then
 * it is still the caller's.
 */
const char *vhost_request_begin(struct vhost_request *request);

/* ---- vhost_log.c ---- */

/* R-E4: mark what was written, after it was. */
void vhost_log_mark(struct vhost_conn *conn, const struct vhost_memory *memory, const void *bytes,
		    uint64_t len_bytes);
/* Tell whoever wants to know that the log has changed. */
void vhost_log_tell(struct vhost_conn *conn);

#endif
