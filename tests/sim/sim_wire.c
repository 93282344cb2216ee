/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_wire.c - two hosts linked over a bad network.
 *
 * Host A dials and opens channels, both send frames and messages with numbers in them, B reads
 * by fits and starts; connections are late, cut and go half-open, and everything is opened again.
 * Judged after every delivery:
 *
 *   - a channel's frames come in the order of sending, each once, none left out, undamaged
 *   - after channel_down() nothing of that epoch arrives, and what it says was delivered was
 *   - control messages come in order, each once
 *   - a dead peer is found in time, and once the network is calm all that is sent arrives
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "blkmirror/base/loop_sim.h"
#include "tests/lib/sim_net.h"
#include "vmotion/wire_hub.h"

#define CHANNELS 3u
#define EPOCH_FRAMES_MAX 4096u
#define PAYLOAD_MAX 6000u
#define KEY "SHA256:0000000000000000000000000000000000000000000"
#define WILD_NS (60 * NS_PER_S)
#define CALM_FRAMES 20u

/* One direction of one channel. */
struct stream {
	uint32_t epoch;
	uint64_t sent, delivered;       /* frames of this epoch that carry numbers */
	uint64_t sequences[EPOCH_FRAMES_MAX];   /* as the link numbered them */
	bool closed;                    /* the sender was told that it is drained */
};

struct host {
	struct world *world;
	struct wire_env env;
	struct wire_link *link;
	uint64_t told, heard;           /* control messages */
	bool room[CHANNELS];
};

struct world {
	struct loop *loop;
	struct sim_net net;
	struct host a, b;
	struct wire_hub *hub;
	struct wire_dialler dialler;
	struct stream to_b[CHANNELS], to_a[CHANNELS];
	struct timer traffic, chaos, redial;
	uint64_t calm_delivered[CHANNELS], ups, drains, losses;
	bool calm, ending;
};

static struct world *current;
static uint64_t current_seed;

static void on_abort(int number)
{
	(void)number;
	fprintf(stderr, "seed %" PRIu64 " failed at %.3f s: make check-sim SEED=%" PRIu64 "\n",
		current_seed, current ? (double)loop_now_ns(current->loop) / 1e9 : 0, current_seed);
}

static uint64_t dice(struct world *world, uint64_t sides)
{
	return loop_random_below(world->loop, sides);
}

/* ---- frames ---- */

static void fill(uint8_t *bytes, uint32_t count, uint64_t number)
{
	for (uint32_t i = 0; i < count; i++)
		bytes[i] = (uint8_t)(number * 31 + i * 7 + 1);
}

static void send_one(struct host *host, unsigned channel)
{
	struct world *world = host->world;
	bool from_a = host == &world->a;
	struct stream *stream = from_a ? &world->to_b[channel] : &world->to_a[channel];
	static uint8_t payload[PAYLOAD_MAX];
	uint32_t bytes = 1 + (uint32_t)dice(world, PAYLOAD_MAX);
	struct wire_frame frame = { .type = WIRE_FRAME_RAW, .object = channel,
				    .offset_bytes = stream->sent, .length_bytes = bytes,
				    .wire_bytes = bytes };
	int rc;

	if (!host->link || !wire_link_channel_is_up(host->link, channel) ||
	    stream->sent == EPOCH_FRAMES_MAX)
		return;
	fill(payload, bytes, stream->sent);
	rc = wire_link_send_frame(host->link, channel, &frame, payload);
	if (rc == -EAGAIN)
		return;
	CHECK(rc == 0);
	CHECK(frame.epoch == stream->epoch);
	stream->sequences[stream->sent++] = frame.sequence;
}

static void on_frame(struct wire_link *link, const struct wire_frame *frame, const uint8_t *payload)
{
	struct host *host = wire_link_user(link);
	struct world *world = host->world;
	bool at_b = host == &world->b;
	struct stream *stream = at_b ? &world->to_b[frame->channel] : &world->to_a[frame->channel];
	uint8_t expected[PAYLOAD_MAX];

	CHECK(frame->type == WIRE_FRAME_RAW);
	CHECK(frame->object == frame->channel);
	CHECK(frame->epoch == stream->epoch);           /* nothing of an old epoch */
	CHECK(!stream->closed);
	CHECK(frame->offset_bytes == stream->delivered);        /* in order, once, no gap */
	CHECK(frame->sequence == stream->sequences[stream->delivered]);
	CHECK(frame->wire_bytes <= PAYLOAD_MAX);
	fill(expected, frame->wire_bytes, frame->offset_bytes);
	CHECK(memcmp(payload, expected, frame->wire_bytes) == 0);
	stream->delivered++;
	if (world->calm)
		world->calm_delivered[frame->channel]++;
	if (at_b && dice(world, 40) == 0)
		wire_link_pause_channel(link, frame->channel);
}

/* ---- channels ---- */

static void open_one(struct world *world, unsigned channel)
{
	struct stream *streams[2] = { &world->to_b[channel], &world->to_a[channel] };
	uint32_t epoch = world->to_b[channel].epoch + 1;

	if (wire_link_open_channel(world->a.link, channel))
		return;
	for (int i = 0; i < 2; i++) {
		streams[i]->epoch = epoch;
		streams[i]->sent = streams[i]->delivered = 0;
		streams[i]->closed = false;
	}
}

static uint64_t sent_until(const struct stream *stream, uint64_t sequence)
{
	uint64_t count = 0;

	while (count < stream->sent && stream->sequences[count] <= sequence)
		count++;
	return count;
}

static void on_channel_up(struct wire_link *link, unsigned channel)
{
	struct host *host = wire_link_user(link);

	host->world->ups++;
	CHECK(wire_link_channel_is_up(link, channel));
}

static void on_channel_down(struct wire_link *link, unsigned channel, uint64_t delivered)
{
	struct host *host = wire_link_user(link);
	struct world *world = host->world;
	struct stream *stream =
		host == &world->a ? &world->to_b[channel] : &world->to_a[channel];

	world->drains++;
	/* R-C4: exactly what the other side has, no frame more can come. */
	CHECK(sent_until(stream, delivered) == stream->delivered);
	stream->closed = true;
	if (host == &world->a && !world->ending)
		open_one(world, channel);
}

/* ---- control ---- */

static void tell(struct host *host)
{
	json_t *message = json_pack("{s:I}", "number", (json_int_t)host->told);

	CHECK(message);
	if (host->link && wire_link_send(host->link, "number", message) == 0)
		host->told++;
	json_decref(message);
}

static void on_message(struct wire_link *link, const struct wire_line *line)
{
	struct host *host = wire_link_user(link);
	uint64_t number;

	CHECK(strcmp(line->type, "number") == 0);
	CHECK(wire_get_uint(line->message, "number", UINT32_MAX, &number) == 0);
	CHECK(number == host->heard);
	host->heard++;
}

/* ---- the link ---- */

static void forget_streams(struct world *world)
{
	for (unsigned i = 0; i < CHANNELS; i++) {
		world->to_b[i] = (struct stream){ .closed = true };
		world->to_a[i] = (struct stream){ .closed = true };
	}
	world->a.told = world->a.heard = world->b.told = world->b.heard = 0;
}

static void on_up(struct wire_link *link)
{
	struct host *host = wire_link_user(link);

	for (unsigned i = 0; i < CHANNELS; i++)
		open_one(host->world, i);
}

static void on_down(struct wire_link *link, const struct err *err)
{
	struct host *host = wire_link_user(link);
	struct world *world = host->world;

	/* Our own sides never break the protocol; a fault of the network is no such thing. */
	CHECK(err->id != ERR_WIRE_PROTOCOL);
	CHECK(host->link == link);
	host->link = NULL;
	wire_link_free(link);
	world->losses++;
	timer_start(&world->redial, dice(world, NS_PER_S));
}

static const struct wire_link_ops link_ops = {
	.up = on_up, .message = on_message, .channel_up = on_channel_up, .frame = on_frame,
	.channel_down = on_channel_down, .down = on_down,
};

static int world_dial(struct wire_dialler *dialler, unsigned address, bool plain,
		      struct wire_pipe **out, struct err *err)
{
	struct world *world = container_of(dialler, struct world, dialler);
	int rc = sim_net_dial(&world->net, plain ? "" : KEY, out);

	CHECK(address < dialler->address_count);
	return rc ? err_set(err, ERR_HOST_UNREACHABLE, rc, "refused") : 0;
}

static bool world_judge(void *user, const char *peer_key, const struct wire_hello *hello,
			bool *plain_data, struct err *err)
{
	struct world *world = user;

	(void)hello;
	(void)err;
	CHECK(strcmp(peer_key, KEY) == 0);
	*plain_data = dice(world, 2);
	return true;
}

/* B's old link may not have found out yet: its peer is gone, so nothing may come of it. */
static bool world_accepted(void *user, struct wire_link *link, const char *peer_key)
{
	struct world *world = user;

	if (world->b.link)
		wire_link_free(world->b.link);
	forget_streams(world);
	world->b.link = link;
	wire_link_adopt(link, &link_ops, &world->b);
	return strcmp(peer_key, KEY) == 0;
}

static void world_arrived(struct sim_net *net, struct wire_pipe *pipe)
{
	wire_hub_take(container_of(net, struct world, net)->hub, pipe);
}

static void redial(struct timer *timer)
{
	struct world *world = container_of(timer, struct world, redial);
	struct wire_link_options options = { .env = &world->a.env, .dialler = &world->dialler,
					     .ops = &link_ops, .user = &world->a,
					     .plain_data = dice(world, 2) };

	if (world->ending || world->a.link)
		return;
	CHECK(wire_link_new(&options, &world->a.link, NULL) == 0);
}

/* ---- what happens ---- */

static void traffic(struct timer *timer)
{
	struct world *world = container_of(timer, struct world, traffic);
	unsigned channel = (unsigned)dice(world, CHANNELS);
	uint64_t burst = dice(world, 12);

	for (uint64_t i = 0; i < burst; i++)
		send_one(&world->a, channel);
	send_one(&world->b, channel);
	if (dice(world, 4) == 0)
		tell(&world->a);
	if (dice(world, 4) == 0)
		tell(&world->b);
	if (world->b.link)
		wire_link_resume_channel(world->b.link, channel);
	if (world->a.link && !world->calm && dice(world, 200) == 0)
		wire_link_close_channel(world->a.link, channel);
	timer_start(timer, dice(world, 100 * NS_PER_MS));
}

static void chaos(struct timer *timer)
{
	struct world *world = container_of(timer, struct world, chaos);

	switch (dice(world, 8)) {
	case 0:
		sim_net_hole_one(&world->net);
		break;
	case 1:
		world->net.dark = !world->net.dark;
		break;
	case 2:
		if (dice(world, 3) == 0)
			sim_net_hole_all(&world->net);
		break;
	default:
		sim_net_cut_one(&world->net);
	}
	timer_start(timer, dice(world, 20 * NS_PER_S));
}

static bool calm_is_enough(const struct world *world)
{
	for (unsigned i = 0; i < CHANNELS; i++)
		if (world->calm_delivered[i] < CALM_FRAMES)
			return false;
	return true;
}

static void run_until(struct world *world, uint64_t end_ns, bool (*enough)(const struct world *))
{
	while (loop_now_ns(world->loop) < end_ns && !(enough && enough(world)))
		CHECK(loop_sim_step(world->loop));
}

static struct world *world_new(uint64_t seed)
{
	struct world *world = calloc(1, sizeof(*world));
	struct wire_hub_options hub = { .judge = world_judge, .accepted = world_accepted };

	CHECK(world);
	current = world;
	world->loop = loop_sim_new(seed);
	CHECK(world->loop);
	sim_net_init(&world->net, world->loop);
	world->net.arrived = world_arrived;
	world->net.delay_max_ns = dice(world, 2) ? NS_PER_MS : 300 * NS_PER_MS;
	world->net.window_bytes = (uint32_t)(500 + dice(world, SIM_NET_WINDOW_MAX - 500));
	world->net.refuse_one_in = dice(world, 2) ? 0 : 5;
	world->a.world = world->b.world = world;
	world->a.env = world->b.env = (struct wire_env){ .loop = world->loop };
	world->dialler.dial = world_dial;
	world->dialler.address_count = 1 + (unsigned)dice(world, 3);
	hub.env = &world->b.env;
	hub.user = world;
	world->hub = wire_hub_new(&hub);
	CHECK(world->hub);
	timer_init(&world->traffic, world->loop, traffic);
	timer_init(&world->chaos, world->loop, chaos);
	timer_init(&world->redial, world->loop, redial);
	return world;
}

static void world_free(struct world *world)
{
	world->ending = true;
	timer_stop(&world->traffic);
	timer_stop(&world->redial);
	wire_link_free(world->a.link);
	wire_link_free(world->b.link);
	world->a.link = world->b.link = NULL;
	wire_hub_free(world->hub);
	while (world->a.env.live || world->b.env.live)
		CHECK(loop_sim_step(world->loop));
	sim_net_release(&world->net);
	timer_stop(&world->redial);
	loop_free(world->loop);
	free(world);
	current = NULL;
}

static void run_seed(uint64_t seed, uint64_t *losses, uint64_t *drains)
{
	struct world *world = world_new(seed);
	uint64_t calm_ns;

	timer_start(&world->redial, 0);
	timer_start(&world->traffic, 0);
	timer_start(&world->chaos, dice(world, 10 * NS_PER_S));
	run_until(world, loop_now_ns(world->loop) + WILD_NS, NULL);
	/* Whatever was cut or went dark is found in time, and then everything works. */
	timer_stop(&world->chaos);
	world->net.dark = false;
	world->net.refuse_one_in = 0;
	world->net.delay_max_ns = NS_PER_MS;
	world->calm = true;
	calm_ns = loop_now_ns(world->loop);
	run_until(world, calm_ns + 90 * NS_PER_S, calm_is_enough);
	CHECK(calm_is_enough(world));
	*losses += world->losses;
	*drains += world->drains;
	world_free(world);
}

int main(int argc, char **argv)
{
	uint64_t seeds = argc > 1 ? strtoull(argv[1], NULL, 10) : 300;
	uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
	uint64_t losses = 0, drains = 0;

	log_set_level(LOG_LEVEL_NONE);
	signal(SIGABRT, on_abort);
	for (uint64_t seed = first; seed < first + seeds; seed++) {
		current_seed = seed;
		run_seed(seed, &losses, &drains);
	}
	/* A simulation in which nothing ever goes wrong proves nothing. */
	CHECK(seeds < 20 || (losses > seeds / 2 && drains > seeds));
	printf("%" PRIu64 " seeds: %" PRIu64 " links lost, %" PRIu64 " channels drained\n", seeds,
	       losses, drains);
	return 0;
}
