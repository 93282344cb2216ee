/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost_poll.c - looking for the next request for a while before waiting for a kick.
 *
 * While it looks, a task posts itself, so the loop turns without sleeping and everything else on
 * it goes on.  The window adapts between nothing and options.poll_ns: it doubles when a request
 * came while looking, or so soon after giving up that a wider one would have caught it; it halves
 * when looking was in vain.
 */
#include "blkmirror/export/vhost_private.h"

#define WINDOW_MIN_NS (4 * NS_PER_US)

static void window_widen(struct vhost_queue *queue)
{
	struct vhost_poll *poll = &queue->poll;

	poll->window_ns = MIN(MAX(poll->window_ns * 2, WINDOW_MIN_NS),
			      queue->conn->server->poll_ns);
}

static void window_narrow(struct vhost_poll *poll)
{
	poll->window_ns /= 2;
	if (poll->window_ns < WINDOW_MIN_NS)
		poll->window_ns = 0;
}

static void poll_look(struct task *task)
{
	struct vhost_queue *queue = container_of(task, struct vhost_queue, poll.task);
	struct vhost_conn *conn = queue->conn;
	uint64_t now_ns = loop_now_ns(conn->server->loop);
	bool found = vhost_queue_takes(queue) && vhost_ring_has_more(&queue->ring);

	if (vhost_queue_takes(queue) && !found && now_ns < queue->poll.until_ns) {
		loop_post(conn->server->loop, task);
		return;
	}
	if (found) {
		window_widen(queue);
	} else {
		window_narrow(&queue->poll);
		queue->poll.slept_ns = now_ns;
		queue->poll.until_ns = 0;       /* the serve below arms instead of looking again */
	}
	vhost_queue_serve(queue);
	vhost_conn_settle(conn);
}

void vhost_poll_init(struct vhost_poll *poll)
{
	*poll = (struct vhost_poll){ .task.run = poll_look, .until_ns = 1 };
}

bool vhost_poll_begin(struct vhost_queue *queue)
{
	struct vhost_poll *poll = &queue->poll;
	struct loop *loop = queue->conn->server->loop;
	bool gave_up = poll->until_ns == 0;

	if (poll->task.queued)
		return true;
	poll->until_ns = 1;
	if (poll->window_ns == 0 || gave_up)
		return false;
	poll->until_ns = loop_now_ns(loop) + poll->window_ns;
	vhost_ring_disarm(&queue->ring);
	loop_post(loop, &poll->task);
	return true;
}

void vhost_poll_kicked(struct vhost_queue *queue)
{
	struct vhost_poll *poll = &queue->poll;
	uint64_t max_ns = queue->conn->server->poll_ns;

	if (max_ns == 0 || poll->task.queued)
		return;
	if (loop_now_ns(queue->conn->server->loop) - poll->slept_ns < max_ns)
		window_widen(queue);
}

void vhost_poll_end(struct vhost_queue *queue)
{
	loop_unpost(queue->conn->server->loop, &queue->poll.task);
}
