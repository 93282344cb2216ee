/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost_queue.c - a queue's life: start, replay, serve, drain, stop; telling the guest.
 *
 *	STOPPED --SET_VRING_KICK--> RUNNING --GET_VRING_BASE--> DRAINING --none in flight--> STOPPED
 *	                               '--rule broken--> BROKEN --GET_VRING_BASE--^
 *
 * A queue is served when it runs and is enabled.  It takes as many chains as there are,
 * until the ring is empty (then it asks for a kick), or there is no request object (then it starves
 * until one comes back).  Answers are gathered over a turn of the loop and told at once.
 */
#include <errno.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "blkmirror/export/vhost_private.h"

#ifndef RWF_NOWAIT
#define RWF_NOWAIT 8
#endif

static void log_used(struct vhost_queue *queue)
{
	vhost_log_mark(queue->conn, queue->memory, queue->ring.used,
		       vhost_ring_used_bytes(queue->ring.size));
}

/* ---- telling ---- */

void vhost_queue_call(struct vhost_queue *queue)
{
	/* Full: the guest has been told often enough. */
	if (queue->call_fd >= 0)
		(void)eventfd_write(queue->call_fd, 1);
}

static void queue_publish(struct vhost_queue *queue)
{
	bool wanted = vhost_ring_publish(&queue->ring);

	list_remove(&queue->unpublished_node);
	log_used(queue);
	if (wanted)
		vhost_queue_call(queue);
}

void vhost_queues_publish(struct vhost_conn *conn)
{
	struct list *node;

	while ((node = list_first(&conn->unpublished)))
		queue_publish(list_entry(node, struct vhost_queue, unpublished_node));
	vhost_log_tell(conn);
}

/* R3: what waited for the replays to settle may start. */
static void replay_settled(struct vhost_conn *conn, uint32_t count)
{
	CHECK(conn->replays_left >= count);
	conn->replays_left -= count;
	if (conn->replays_left || count == 0)
		return;
	for (uint32_t i = 0; i < VHOST_QUEUES_MAX; i++)
		if (conn->queues[i])
			vhost_queue_serve_later(conn->queues[i]);
}

void vhost_queue_answered(struct vhost_queue *queue, bool was_replay)
{
	struct vhost_conn *conn = queue->conn;

	if (!list_is_linked(&queue->unpublished_node))
		list_append(&conn->unpublished, &queue->unpublished_node);
	loop_at_turn_end(conn->server->loop, &conn->turn_end);
	replay_settled(conn, was_replay);
}

/* ---- serving ---- */

/* What will not be carried out again any more. */
static void replay_forget(struct vhost_queue *queue)
{
	uint32_t left = queue->replay_count - queue->replay_next;

	free(queue->replay);
	queue->replay = NULL;
	queue->replay_count = queue->replay_next = 0;
	replay_settled(queue->conn, left);
}

static void queue_break(struct vhost_queue *queue, const char *reason)
{
	struct vhost_conn *conn = queue->conn;

	vhost_server_complain(conn->server, "queue %u stopped: %s", queue->index, reason);
	queue->state = VHOST_QUEUE_BROKEN;
	watch_stop(&queue->kick);
	vhost_poll_end(queue);
	replay_forget(queue);
	if (queue->err_fd >= 0)
		(void)eventfd_write(queue->err_fd, 1);
}

enum taken { TAKEN, NOTHING, NOT_NOW, BROKEN };

/* One chain: the next of the replay, or of the ring. */
static enum taken queue_take(struct vhost_queue *queue)
{
	struct vhost_conn *conn = queue->conn;
	bool is_replay = queue->replay;
	struct vhost_request *request;
	const char *reason = NULL;
	int rc;

	/* R3: nothing newer before what is carried out again has settled, of whatever queue. */
	if (!is_replay && conn->replays_left)
		return NOT_NOW;
	request = vhost_request_take(conn);
	if (!request) {
		list_append(&conn->starving, &queue->starving_node);
		return NOT_NOW;
	}
	request->queue = queue;
	request->is_replay = is_replay;
	if (is_replay) {
		rc = vhost_ring_retake(&queue->ring, queue->memory,
				       queue->replay[queue->replay_next], &request->chain, &reason);
		if (!rc && ++queue->replay_next == queue->replay_count)
			replay_forget(queue);
	} else {
		rc = vhost_ring_take(&queue->ring, queue->memory, &request->chain, &reason);
		rc = rc == 1 ? 0 : rc == 0 ? -EAGAIN : rc;
	}
	if (!rc)
		reason = vhost_request_begin(request);
	if (!rc && !reason)
		return TAKEN;
	vhost_request_release(request);
	if (rc == -EAGAIN)
		return NOTHING;
	if (!rc)
		replay_settled(conn, is_replay);        /* off the list, and not to be answered */
	queue_break(queue, reason);
	return BROKEN;
}

/* The ring is empty.  True: not any more, go on. */
static bool queue_idle(struct vhost_queue *queue)
{
	bool more;

	if (queue->conn->server->poll_ns && vhost_poll_begin(queue))
		return false;
	more = vhost_ring_arm(&queue->ring);
	log_used(queue);
	return more;
}

void vhost_queue_serve(struct vhost_queue *queue)
{
	uint32_t budget = queue->ring.size;
	enum taken taken = TAKEN;

	if (!vhost_queue_takes(queue) || list_is_linked(&queue->starving_node))
		return;
	while (taken == TAKEN) {
		/* A driver that adds as fast as we take gives way to others. */
		if (budget-- == 0) {
			vhost_queue_serve_later(queue);
			break;
		}
		taken = queue_take(queue);
		if (taken == NOTHING && queue_idle(queue))
			taken = TAKEN;
	}
}

void vhost_queue_serve_later(struct vhost_queue *queue)
{
	if (vhost_queue_takes(queue) && !queue->serve_task.queued)
		loop_post(queue->conn->server->loop, &queue->serve_task);
}

static void queue_serve_task(struct task *task)
{
	struct vhost_queue *queue = container_of(task, struct vhost_queue, serve_task);
	struct vhost_conn *conn = queue->conn;

	vhost_queue_serve(queue);
	vhost_conn_settle(conn);
}

/* Empty it.  Its owner may have made it blocking again: never wait (eventfd(2), preadv2(2)). */
static void kick_clear(int fd)
{
	uint64_t count;
	struct iovec iov = { .iov_base = &count, .iov_len = sizeof(count) };

	(void)!preadv2(fd, &iov, 1, -1, RWF_NOWAIT);
}

static void queue_kicked(struct watch *watch, unsigned events)
{
	struct vhost_queue *queue = container_of(watch, struct vhost_queue, kick);
	struct vhost_conn *conn = queue->conn;

	(void)events;
	kick_clear(queue->kick_fd);
	vhost_poll_kicked(queue);
	vhost_queue_serve(queue);
	vhost_conn_settle(conn);
}

/* ---- start ---- */

static struct vhost_inflight_queue *inflight_of(const struct vhost_queue *queue)
{
	const struct vhost_conn *conn = queue->conn;
	uint64_t queue_bytes = vhost_inflight_queue_bytes(conn->inflight_queue_size);

	if (!conn->inflight || queue->index >= conn->inflight_queue_count ||
	    queue->place.size > conn->inflight_queue_size)
		return NULL;
	return (void *)(conn->inflight->bytes + queue->index * queue_bytes);
}

static void say_lacks_inflight(struct vhost_conn *conn)
{
	if (conn->lacks_inflight_said)
		return;
	conn->lacks_inflight_said = true;
	log_warn("vhost", "%s: the front end keeps no in-flight region: requests in flight are "
		 "lost when this daemon is killed", conn->server->name);
}

static int queue_refuse(struct vhost_queue *queue, int rc, const char *reason)
{
	queue->conn->reason = reason;
	return rc;
}

static int queue_start_ring(struct vhost_queue *queue)
{
	struct vhost_conn *conn = queue->conn;
	struct vhost_ring_place *place = &queue->place;
	int rc;

	place->event_idx = vhost_has(conn, VIRTIO_RING_F_EVENT_IDX);
	place->indirect = vhost_has(conn, VIRTIO_RING_F_INDIRECT_DESC);
	place->inflight = inflight_of(queue);
	if (!place->inflight)
		say_lacks_inflight(conn);
	queue->replay = calloc(place->size, sizeof(*queue->replay));
	if (!queue->replay)
		return queue_refuse(queue, -ENOMEM, "out of memory");
	rc = vhost_ring_start(&queue->ring, conn->memory, place, queue->replay,
			      &queue->replay_count, &conn->reason);
	if (rc || queue->replay_count == 0) {
		free(queue->replay);
		queue->replay = NULL;
	}
	return rc;
}

int vhost_queue_start(struct vhost_queue *queue, int kick_fd)
{
	struct vhost_conn *conn = queue->conn;
	int rc;

	CHECK(queue->state == VHOST_QUEUE_STOPPED);
	if (!queue->place.size || !queue->has_addr)
		return queue_refuse(queue, -EINVAL, "a ring started without its size and place");
	rc = queue_start_ring(queue);
	if (rc)
		return rc;
	rc = watch_start(&queue->kick, conn->server->loop, kick_fd, WATCH_READ, queue_kicked);
	if (rc) {
		free(queue->replay);
		queue->replay = NULL;
		queue->replay_count = 0;
		vhost_ring_release(&queue->ring);
		return queue_refuse(queue, rc, "a kick that cannot be waited for");
	}
	queue->kick_fd = kick_fd;
	queue->memory = vhost_memory_ref(conn->memory);
	queue->state = VHOST_QUEUE_RUNNING;
	conn->replays_left += queue->replay_count;
	if (queue->replay_count)
		log_info("vhost", "%s: queue %u: %u requests are carried out again",
			 conn->server->name, queue->index, queue->replay_count);
	/* Whoever was here before may have been killed between the answer and the call. */
	vhost_queue_call(queue);
	vhost_queue_serve_later(queue);
	return 0;
}

/* ---- stop ---- */

void vhost_queue_drain(struct vhost_queue *queue)
{
	if (queue->state != VHOST_QUEUE_STOPPED) {
		queue->state = VHOST_QUEUE_DRAINING;
		watch_stop(&queue->kick);
		vhost_poll_end(queue);
		replay_forget(queue);
		list_remove(&queue->starving_node);
	}
	queue->conn->draining = queue;
	if (queue->in_flight == 0)
		vhost_conn_drained(queue->conn);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void vhost_queue_stop(struct vhost_queue *queue)
{
	CHECK(queue->in_flight == 0);
	if (queue->state == VHOST_QUEUE_STOPPED)
		return;
	queue_publish(queue);
	vhost_log_tell(queue->conn);
	queue->place.next_avail = queue->ring.next_avail;
	vhost_ring_release(&queue->ring);
	vhost_memory_put(queue->memory);
	queue->memory = NULL;
	watch_stop(&queue->kick);
	close_fd(&queue->kick_fd);
	queue->state = VHOST_QUEUE_STOPPED;
}

void vhost_queue_memory_changed(struct vhost_queue *queue)
{
	struct vhost_conn *conn = queue->conn;

	if (queue->state == VHOST_QUEUE_STOPPED)
		return;
	if (!vhost_ring_move(&queue->ring, conn->memory, &queue->place)) {
		/* What is in flight is still answered, where the ring was. */
		if (queue->state == VHOST_QUEUE_RUNNING)
			queue_break(queue, "its ring lies in the guest's memory no more");
		return;
	}
	vhost_memory_put(queue->memory);
	queue->memory = vhost_memory_ref(conn->memory);
}

/* ---- life ---- */

struct vhost_queue *vhost_queue_new(struct vhost_conn *conn, uint32_t index)
{
	struct vhost_queue *queue = calloc(1, sizeof(*queue));

	if (!queue)
		return NULL;
	queue->conn = conn;
	queue->index = index;
	queue->kick_fd = queue->call_fd = queue->err_fd = -1;
	queue->serve_task.run = queue_serve_task;
	list_init(&queue->unpublished_node);
	list_init(&queue->starving_node);
	vhost_poll_init(&queue->poll);
	return queue;
}

void vhost_queue_halt(struct vhost_queue *queue)
{
	watch_stop(&queue->kick);
	vhost_poll_end(queue);
	loop_unpost(queue->conn->server->loop, &queue->serve_task);
	list_remove(&queue->unpublished_node);
	list_remove(&queue->starving_node);
	close_fd(&queue->kick_fd);
	close_fd(&queue->call_fd);
	close_fd(&queue->err_fd);
}

void vhost_queue_free(struct vhost_queue *queue)
{
	if (!queue)
		return;
	CHECK(queue->in_flight == 0);
	vhost_ring_release(&queue->ring);
	vhost_memory_put(queue->memory);
	free(queue->replay);
	free(queue);
}
