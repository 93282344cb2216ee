/* SPDX-License-Identifier: Apache-2.0 */
/* wire_channel.c - the channels of a link: opened, up, lost, drained (the table in wire_link.h). */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "blkmirror/base/log.h"
#include "vmotion/wire_link_private.h"

static const struct wire_conn_ops channel_ops;

static struct wire_channel *channel_of(struct wire_link *link, unsigned number)
{
	CHECK(number < WIRE_CHANNELS_MAX);
	return &link->channels[number];
}

/* Its connection ends, as far as we are concerned: nothing more is delivered from it. */
static void channel_drop(struct wire_channel *channel)
{
	if (!channel->conn)
		return;
	channel->received = wire_conn_received(channel->conn);
	wire_conn_close(channel->conn);
	channel->conn = NULL;
}

void channels_close(struct wire_link *link)
{
	for (unsigned i = 0; i < WIRE_CHANNELS_MAX; i++) {
		channel_drop(&link->channels[i]);
		link->channels[i].state = CHANNEL_CLOSED;
	}
}

static void tell_about(struct wire_channel *channel, const char *type)
{
	link_tell(channel->link, type,
		  json_pack("{s:I, s:I, s:I}", "channel", (json_int_t)channel->number, "epoch",
			    (json_int_t)channel->epoch, "received",
			    (json_int_t)channel->received));
}

/* ---- the side that dialled ---- */

int wire_link_open_channel(struct wire_link *link, unsigned number)
{
	struct wire_channel *channel = channel_of(link, number);
	json_t *message;
	int rc;

	CHECK(link->dialler);
	if (!link->up)
		return -ENOTCONN;
	CHECK(channel->state == CHANNEL_CLOSED);
	message = json_pack("{s:I, s:I}", "channel", (json_int_t)number, "epoch",
			    (json_int_t)channel->epoch + 1);
	rc = message ? wire_conn_send_line(link->control, "open", message) : -ENOMEM;
	json_decref(message);
	if (rc)
		return rc;
	channel->epoch++;
	channel->received = 0;
	channel->attempts = 0;
	channel->state = CHANNEL_ASKED;
	return 0;
}

static void channel_drain(struct wire_channel *channel)
{
	channel_drop(channel);
	channel->state = CHANNEL_DRAINING;
	tell_about(channel, "close");
}

void wire_link_close_channel(struct wire_link *link, unsigned number)
{
	struct wire_channel *channel = channel_of(link, number);

	CHECK(link->dialler);
	if (link->up && channel->state != CHANNEL_CLOSED && channel->state != CHANNEL_DRAINING)
		channel_drain(channel);
}

/* Channels are spread over the addresses; where one does not answer, the next is tried. */
static void channel_dial(struct wire_channel *channel)
{
	struct wire_link *link = channel->link;
	struct wire_hello hello = { .version = WIRE_VERSION, .oldest = WIRE_VERSION_OLDEST,
				    .role = WIRE_DATA, .host = link->env->host,
				    .software = BM_VERSION, .channel = channel->number,
				    .epoch = channel->epoch };
	unsigned count = link->dialler->address_count;
	struct wire_pipe *pipe;
	struct err err;

	memcpy(hello.session, link->session, sizeof(hello.session));
	memcpy(hello.token, channel->token, sizeof(hello.token));
	while (channel->attempts < count) {
		unsigned address = (channel->number + channel->attempts++) % count;

		if (link->dialler->dial(link->dialler, address, link->plain_data, &pipe, &err)) {
			log_debug("wire", "%s", err.cause);
			continue;
		}
		channel->conn = wire_conn_dialled(link->env, pipe, &hello, &channel_ops, channel);
		if (!channel->conn)
			continue;
		wire_conn_set_seed(channel->conn, link->seed);
		return;
	}
	channel_drain(channel);
}

static void channel_welcome(struct wire_conn *conn, const struct wire_welcome *welcome)
{
	struct wire_channel *channel = wire_conn_owner(conn);
	struct wire_link *link = channel->link;

	(void)welcome;
	channel->state = CHANNEL_UP;
	if (link->ops->channel_up)
		link->ops->channel_up(link, channel->number);
}

static void take_opened(struct wire_channel *channel, const struct wire_line *line)
{
	if (channel->state == CHANNEL_DRAINING)
		return;                 /* it was closed meanwhile: the answer crossed that */
	if (channel->state != CHANNEL_ASKED ||
	    wire_get_secret(line->message, "token", channel->token)) {
		link_violation(channel->link, "a channel that nobody asked for is opened");
		return;
	}
	channel->state = CHANNEL_DIALLING;
	channel_dial(channel);
}

/* ---- the side that was dialled ---- */

static void random_secret(uint8_t secret[WIRE_SECRET_BYTES])
{
	CHECK(getrandom(secret, WIRE_SECRET_BYTES, 0) == WIRE_SECRET_BYTES);
}

static void take_open(struct wire_link *link, struct wire_channel *channel, uint32_t epoch)
{
	char token[WIRE_SECRET_TEXT_BYTES];

	if (channel->state != CHANNEL_CLOSED || epoch <= channel->epoch) {
		link_violation(link, "a channel is opened that is open, or in an old epoch");
		return;
	}
	channel->epoch = epoch;
	channel->received = 0;
	channel->state = CHANNEL_AWAITED;
	random_secret(channel->token);
	link_tell(link, "opened",
		  json_pack("{s:I, s:I, s:s}", "channel", (json_int_t)channel->number, "epoch",
			    (json_int_t)epoch, "token", wire_secret_format(channel->token, token)));
}

bool channel_accept(struct wire_link *link, struct wire_conn *conn, const struct wire_hello *hello)
{
	struct wire_channel *channel = channel_of(link, hello->channel);
	struct wire_welcome welcome = { .version = WIRE_VERSION, .oldest = WIRE_VERSION_OLDEST,
					.host = link->env->host, .software = BM_VERSION,
					.plain_data = link->plain_data };
	const struct wire_pipe *pipe = wire_conn_pipe(conn);

	if (channel->state != CHANNEL_AWAITED || channel->epoch != hello->epoch ||
	    !wire_secret_equal(channel->token, hello->token))
		return false;
	if (pipe->encrypted ? strcmp(pipe->peer_key, link->peer_key) != 0 : !link->plain_data)
		return false;
	explicit_bzero(channel->token, sizeof(channel->token));         /* it works once */
	channel->conn = conn;
	channel->state = CHANNEL_UP;
	wire_conn_adopt(conn, &channel_ops, channel);
	wire_conn_welcome(conn, &welcome, link->seed);
	if (channel->conn && link->ops->channel_up)
		link->ops->channel_up(link, channel->number);
	return true;
}

/* ---- both ---- */

static void channel_is_down(struct wire_channel *channel, const struct wire_line *line)
{
	struct wire_link *link = channel->link;
	uint64_t delivered;

	if (wire_get_uint(line->message, "received", INT64_MAX, &delivered)) {
		link_violation(link, "a channel is closed without a count");
		return;
	}
	channel_drop(channel);
	channel->state = CHANNEL_CLOSED;
	if (!link->dialler) {
		tell_about(channel, "closed");
		if (link->dead)
			return;
	}
	if (link->ops->channel_down)
		link->ops->channel_down(link, channel->number, delivered);
}

static void take_lost(struct wire_channel *channel)
{
	if (channel->state == CHANNEL_UP || channel->state == CHANNEL_DIALLING)
		channel_drain(channel);
	else if (channel->state != CHANNEL_DRAINING)
		link_violation(channel->link, "a channel is lost that is not open");
}

static bool is_about_channels(const char *type)
{
	static const char *const types[] = { "open", "opened", "close", "closed", "lost" };

	for (size_t i = 0; i < ARRAY_COUNT(types); i++)
		if (strcmp(type, types[i]) == 0)
			return true;
	return false;
}

bool channel_message(struct wire_link *link, const struct wire_line *line)
{
	uint64_t number, epoch;
	struct wire_channel *channel;
	bool dialled = link->dialler != NULL;

	if (!is_about_channels(line->type))
		return false;
	if (wire_get_uint(line->message, "channel", WIRE_CHANNELS_MAX - 1, &number) ||
	    wire_get_uint(line->message, "epoch", UINT32_MAX, &epoch) || epoch == 0) {
		link_violation(link, "a message about no channel");
		return true;
	}
	channel = channel_of(link, (unsigned)number);
	if (strcmp(line->type, "open") == 0 && !dialled)
		take_open(link, channel, (uint32_t)epoch);
	else if (epoch != channel->epoch)
		link_violation(link, "a message about another epoch");
	else if (strcmp(line->type, "opened") == 0 && dialled)
		take_opened(channel, line);
	else if (strcmp(line->type, "lost") == 0 && dialled)
		take_lost(channel);
	else if (strcmp(line->type, "close") == 0 && !dialled && channel->state != CHANNEL_CLOSED)
		channel_is_down(channel, line);
	else if (strcmp(line->type, "closed") == 0 && dialled && channel->state == CHANNEL_DRAINING)
		channel_is_down(channel, line);
	else
		link_violation(link, "a message that does not fit the channel's state");
	return true;
}

static uint8_t *channel_place(struct wire_conn *conn, const struct wire_frame *frame)
{
	struct wire_channel *channel = wire_conn_owner(conn);
	struct wire_link *link = channel->link;

	return link->ops->place ? link->ops->place(link, frame) : NULL;
}

static void channel_frame(struct wire_conn *conn, const struct wire_frame *frame,
			  const uint8_t *payload)
{
	struct wire_channel *channel = wire_conn_owner(conn);
	struct wire_link *link = channel->link;

	if (link->ops->frame)
		link->ops->frame(link, frame, payload);
}

static void channel_writable(struct wire_conn *conn)
{
	struct wire_channel *channel = wire_conn_owner(conn);
	struct wire_link *link = channel->link;

	if (link->ops->writable)
		link->ops->writable(link, channel->number);
}

static void channel_dead(struct wire_conn *conn, const struct err *err)
{
	struct wire_channel *channel = wire_conn_owner(conn);
	struct wire_link *link = channel->link;

	channel->received = wire_conn_received(conn);
	channel->conn = NULL;
	log_info("wire", "channel %u with %s: %s", channel->number, link->peer_address, err->cause);
	if (!link->dialler) {
		channel->state = CHANNEL_LOST;
		tell_about(channel, "lost");
	} else if (channel->state == CHANNEL_DIALLING && err->id == ERR_HOST_UNREACHABLE) {
		channel_dial(channel);
	} else {
		channel_drain(channel);
	}
}

static const struct wire_conn_ops channel_ops = {
	.welcome = channel_welcome,
	.place = channel_place,
	.frame = channel_frame,
	.writable = channel_writable,
	.dead = channel_dead,
};

bool wire_link_channel_is_up(const struct wire_link *link, unsigned number)
{
	CHECK(number < WIRE_CHANNELS_MAX);
	return link->channels[number].state == CHANNEL_UP;
}

int wire_link_send_frame(struct wire_link *link, unsigned number, struct wire_frame *frame,
			 const void *payload)
{
	struct wire_channel *channel = channel_of(link, number);

	if (channel->state != CHANNEL_UP)
		return -ENOTCONN;
	return wire_conn_send_frame(channel->conn, frame, payload);
}

void wire_link_pause_channel(struct wire_link *link, unsigned number)
{
	struct wire_channel *channel = channel_of(link, number);

	if (channel->conn)
		wire_conn_pause(channel->conn);
}

void wire_link_resume_channel(struct wire_link *link, unsigned number)
{
	struct wire_channel *channel = channel_of(link, number);

	if (channel->conn)
		wire_conn_resume(channel->conn);
}
