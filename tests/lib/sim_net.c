/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/sim_net.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sim_pair;

/* An end, and what is on its way to it. */
struct sim_end {
	struct wire_pipe pipe;
	struct sim_pair *pair;
	uint8_t bytes[SIM_NET_WINDOW_MAX];
	uint64_t head, arrived, tail;   /* read, there, sent by the other */
	struct timer arrival;
	struct task wake;
	unsigned wanted;
	bool open;                      /* its owner has not closed it */
	bool ended, reset;              /* the other has: at tail; at once */
	int error;                      /* what its calls give from now on */
};

struct sim_pair {
	struct sim_net *net;
	struct list node;
	struct sim_end ends[2];
	struct task accept;
	bool accepted, hole;
};

static struct sim_end *other_end(struct sim_end *end)
{
	return &end->pair->ends[end == end->pair->ends];
}

static void end_wake(struct sim_end *end)
{
	if (end->open && !end->wake.queued)
		loop_post(end->pair->net->loop, &end->wake);
}

static uint64_t window_left(const struct sim_end *to)
{
	return to->pair->net->window_bytes - (to->tail - to->head);
}

static bool can_read(const struct sim_end *end)
{
	return end->error || end->arrived > end->head || (end->ended && end->arrived == end->tail);
}

static void end_woken(struct task *task)
{
	struct sim_end *end = container_of(task, struct sim_end, wake);
	struct sim_end *to = other_end(end);

	if (((end->wanted & WATCH_READ) && can_read(end)) ||
	    ((end->wanted & WATCH_WRITE) &&
	     (end->error || (end->pair->accepted && window_left(to) > 0))))
		end->pipe.ready(&end->pipe);
}

static void schedule(struct sim_end *end)
{
	struct sim_net *net = end->pair->net;

	if (!end->arrival.started && !end->pair->hole)
		timer_start(&end->arrival, loop_random_below(net->loop, net->delay_max_ns + 1));
}

static void arrive(struct timer *timer)
{
	struct sim_end *end = container_of(timer, struct sim_end, arrival);
	uint64_t coming = end->tail - end->arrived;

	if (end->pair->hole)
		return;
	if (end->reset) {
		end->error = -ECONNRESET;
	} else if (coming) {
		end->arrived += 1 + loop_random_below(end->pair->net->loop, coming);
		if (end->arrived < end->tail)
			schedule(end);
	}
	end_wake(end);
}

/* ---- the pipe ---- */

static ssize_t sim_read(struct wire_pipe *pipe, void *bytes, size_t count)
{
	struct sim_end *end = container_of(pipe, struct sim_end, pipe);
	uint64_t there = MIN(end->arrived - end->head, count);

	if (end->error)
		return end->error;
	if (there == 0)
		return end->ended && end->arrived == end->tail ? 0 : -EAGAIN;
	there = 1 + loop_random_below(end->pair->net->loop, there);
	for (uint64_t i = 0; i < there; i++)
		((uint8_t *)bytes)[i] = end->bytes[(end->head + i) % SIM_NET_WINDOW_MAX];
	end->head += there;
	if (!end->pair->hole)
		end_wake(other_end(end));
	return (ssize_t)there;
}

static ssize_t sim_write(struct wire_pipe *pipe, const void *bytes, size_t count)
{
	struct sim_end *end = container_of(pipe, struct sim_end, pipe);
	struct sim_end *to = other_end(end);
	uint64_t room = MIN(window_left(to), count);

	if (end->error)
		return end->error;
	if (room == 0 || !end->pair->accepted)
		return -EAGAIN;
	for (uint64_t i = 0; i < room; i++)
		to->bytes[(to->tail + i) % SIM_NET_WINDOW_MAX] = ((const uint8_t *)bytes)[i];
	to->tail += room;
	schedule(to);
	return (ssize_t)room;
}

static void sim_want(struct wire_pipe *pipe, unsigned events)
{
	struct sim_end *end = container_of(pipe, struct sim_end, pipe);

	end->wanted = events;
	end_wake(end);
}

static void pair_free_if_closed(struct sim_pair *pair)
{
	if (pair->ends[0].open || pair->ends[1].open || pair->accept.queued)
		return;
	for (int i = 0; i < 2; i++) {
		timer_stop(&pair->ends[i].arrival);
		loop_unpost(pair->net->loop, &pair->ends[i].wake);
	}
	list_remove(&pair->node);
	pair->net->pair_count--;
	free(pair);
}

static void sim_close(struct wire_pipe *pipe, bool abort)
{
	struct sim_end *end = container_of(pipe, struct sim_end, pipe);
	struct sim_end *to = other_end(end);

	end->open = false;
	end->wanted = 0;
	loop_unpost(end->pair->net->loop, &end->wake);
	if (abort)
		to->reset = true;
	to->ended = true;
	schedule(to);
	pair_free_if_closed(end->pair);
}

static const struct wire_pipe_ops sim_ops = { sim_read, sim_write, sim_want, sim_close };

/* ---- the net ---- */

void sim_net_init(struct sim_net *net, struct loop *loop)
{
	*net = (struct sim_net){ .loop = loop, .delay_max_ns = NS_PER_MS,
				 .window_bytes = SIM_NET_WINDOW_MAX };
	list_init(&net->pairs);
}

void sim_net_release(struct sim_net *net)
{
	CHECK(list_is_empty(&net->pairs));
}

static void pair_accept(struct task *task)
{
	struct sim_pair *pair = container_of(task, struct sim_pair, accept);
	struct sim_end *end = &pair->ends[1];

	if (!pair->ends[0].open || pair->hole) {
		pair_free_if_closed(pair);
		return;
	}
	pair->accepted = true;
	end->open = true;
	end_wake(&pair->ends[0]);
	pair->net->arrived(pair->net, &end->pipe);
}

static void end_init(struct sim_end *end, struct sim_pair *pair, const char *key, const char *name)
{
	end->pair = pair;
	end->pipe.ops = &sim_ops;
	end->pipe.encrypted = key[0] != '\0';
	snprintf(end->pipe.peer_key, sizeof(end->pipe.peer_key), "%s", key);
	snprintf(end->pipe.peer, sizeof(end->pipe.peer), "%s", name);
	end->wake.run = end_woken;
	timer_init(&end->arrival, pair->net->loop, arrive);
}

int sim_net_dial(struct sim_net *net, const char *key, struct wire_pipe **out)
{
	struct sim_pair *pair;

	if (net->refuse_one_in && loop_random_below(net->loop, net->refuse_one_in) == 0)
		return -ECONNREFUSED;
	pair = calloc(1, sizeof(*pair));
	CHECK(pair);
	pair->net = net;
	pair->hole = net->dark;
	pair->accept.run = pair_accept;
	end_init(&pair->ends[0], pair, key, "accepter");
	end_init(&pair->ends[1], pair, key, "dialler");
	pair->ends[0].open = true;
	list_append(&net->pairs, &pair->node);
	net->pair_count++;
	loop_post(net->loop, &pair->accept);
	*out = &pair->ends[0].pipe;
	return 0;
}

static struct sim_pair *one_pair(struct sim_net *net)
{
	uint64_t index;

	if (!net->pair_count)
		return NULL;
	index = loop_random_below(net->loop, net->pair_count);
	list_for_each(node, &net->pairs) {
		if (index-- == 0)
			return list_entry(node, struct sim_pair, node);
	}
	return NULL;
}

void sim_net_cut_one(struct sim_net *net)
{
	struct sim_pair *pair = one_pair(net);

	for (int i = 0; pair && i < 2; i++) {
		pair->ends[i].reset = true;
		timer_stop(&pair->ends[i].arrival);
		schedule(&pair->ends[i]);
	}
}

static void pair_hole(struct sim_pair *pair)
{
	pair->hole = true;
	for (int i = 0; i < 2; i++)
		timer_stop(&pair->ends[i].arrival);
}

void sim_net_hole_one(struct sim_net *net)
{
	struct sim_pair *pair = one_pair(net);

	if (pair)
		pair_hole(pair);
}

void sim_net_hole_all(struct sim_net *net)
{
	list_for_each(node, &net->pairs)
		pair_hole(list_entry(node, struct sim_pair, node));
}
