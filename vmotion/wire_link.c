/* SPDX-License-Identifier: Apache-2.0 */
/* wire_link.c - the control connection of a link.  Channels are in wire_channel.c. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "vmotion/wire_link_private.h"

/* ---- life ---- */

static void link_release(struct task *task)
{
	struct wire_link *link = container_of(task, struct wire_link, release);

	link->env->live--;
	explicit_bzero(link->session, sizeof(link->session));
	free(link);
}

struct wire_link *link_alloc(struct wire_env *env)
{
	struct wire_link *link = calloc(1, sizeof(*link));

	if (!link)
		return NULL;
	link->env = env;
	link->release.run = link_release;
	list_init(&link->node);
	for (unsigned i = 0; i < WIRE_CHANNELS_MAX; i++) {
		link->channels[i].link = link;
		link->channels[i].number = i;
	}
	env->live++;
	return link;
}

/* Everything but the memory. */
static void link_end(struct wire_link *link)
{
	link->dead = true;
	link->up = false;
	loop_unpost(link->env->loop, &link->start);
	channels_close(link);
	if (link->control && link->bye)
		wire_conn_close(link->control);
	link->control = NULL;
	if (link->hub)
		hub_forget_link(link);
}

void link_down(struct wire_link *link, const struct err *err)
{
	struct err copy = *err;

	if (link->dead)
		return;
	link->bye = true;               /* there is nobody to say it to */
	link_end(link);
	link->ops->down(link, &copy);
}

void link_violation(struct wire_link *link, const char *what)
{
	struct err err;

	err_set(&err, ERR_WIRE_PROTOCOL, 0, "%s broke the protocol: %s", link->peer_address, what);
	log_warn("wire", "%s (%s)", err.cause, err_name(err.id));
	link_down(link, &err);
}

static const struct wire_conn_ops leaving_ops;

void wire_link_free(struct wire_link *link)
{
	if (!link)
		return;
	CHECK(!link->release.queued);
	if (!link->dead) {
		if (link->up && wire_conn_send_line(link->control, "bye", NULL) == 0) {
			wire_conn_adopt(link->control, &leaving_ops, NULL);
			wire_conn_finish(link->control);
			link->control = NULL;
		}
		link->bye = true;
		link_end(link);
	}
	loop_post(link->env->loop, &link->release);
}

static void left(struct wire_conn *conn, const struct err *err)
{
	(void)conn;
	(void)err;
}

static const struct wire_conn_ops leaving_ops = { .dead = left };

/* ---- control messages ---- */

void link_tell(struct wire_link *link, const char *type, json_t *message)
{
	struct err err;
	int rc = message ? wire_conn_send_line(link->control, type, message) : -ENOMEM;

	json_decref(message);
	if (!rc)
		return;
	err_set(&err, ERR_WIRE_LOST, 0, "cannot speak with %s: %s", link->peer_address,
		err_strerror(rc));
	link_down(link, &err);
}

static void answer_ping(struct wire_link *link, const struct wire_line *line)
{
	uint64_t stamp;

	if (wire_get_uint(line->message, "stamp", INT64_MAX, &stamp))
		link_violation(link, "a ping without a stamp");
	else
		link_tell(link, "pong", json_pack("{s:I}", "stamp", (json_int_t)stamp));
}

static void take_pong(struct wire_link *link, const struct wire_line *line)
{
	void (*pong)(struct wire_link *link) = link->pong;
	uint64_t stamp;

	if (wire_get_uint(line->message, "stamp", INT64_MAX, &stamp) || !link->ping_sent_ns ||
	    stamp != link->ping_stamp) {
		link_violation(link, "a pong that nobody asked for");
		return;
	}
	link->round_trip_ns = MAX(loop_now_ns(link->env->loop) - link->ping_sent_ns, 1);
	link->ping_sent_ns = 0;
	link->pong = NULL;
	if (pong)
		pong(link);
}

static void control_line(struct wire_conn *conn, const struct wire_line *line)
{
	struct wire_link *link = wire_conn_owner(conn);
	struct err none = { 0 };

	if (strcmp(line->type, "ping") == 0)
		answer_ping(link, line);
	else if (strcmp(line->type, "pong") == 0)
		take_pong(link, line);
	else if (strcmp(line->type, "bye") == 0)
		link_down(link, &none);
	else if (!channel_message(link, line) && link->ops->message)
		link->ops->message(link, line);
}

static int send_ping(struct wire_link *link)
{
	json_t *message = json_pack("{s:I}", "stamp", (json_int_t)(link->ping_stamp + 1));
	int rc = message ? wire_conn_send_line(link->control, "ping", message) : -ENOMEM;

	json_decref(message);
	if (rc)
		return rc;
	link->ping_stamp++;
	link->ping_sent_ns = MAX(loop_now_ns(link->env->loop), 1);
	return 0;
}

/* One ping under way at a time; one that no queue takes is no loss: others wait there. */
static void control_beat(struct wire_conn *conn)
{
	struct wire_link *link = wire_conn_owner(conn);

	if (!link->ping_sent_ns && send_ping(link))
		log_debug("wire", "%s: no room for a ping", link->peer_address);
}

int wire_link_ping(struct wire_link *link, void (*pong)(struct wire_link *link))
{
	int rc = 0;

	if (!link->up)
		return -ENOTCONN;
	if (!link->ping_sent_ns)
		rc = send_ping(link);
	if (!rc)
		link->pong = pong;
	return rc;
}

static void control_writable(struct wire_conn *conn)
{
	struct wire_link *link = wire_conn_owner(conn);

	if (link->ops->writable)
		link->ops->writable(link, WIRE_CONTROL_ROOM);
}

static void dial_control(struct wire_link *link);

static void control_dead(struct wire_conn *conn, const struct err *err)
{
	struct wire_link *link = wire_conn_owner(conn);

	link->control = NULL;
	/* Another address may do; another key, version or opinion will not. */
	if (!link->up && err->id == ERR_HOST_UNREACHABLE &&
	    ++link->address < link->dialler->address_count) {
		link->err = *err;
		dial_control(link);
		return;
	}
	link_down(link, err);
}

static void keep_peer(struct wire_link *link, const struct wire_conn *conn)
{
	const struct wire_pipe *pipe = wire_conn_pipe(conn);

	snprintf(link->peer_key, sizeof(link->peer_key), "%s", pipe->peer_key);
	snprintf(link->peer_address, sizeof(link->peer_address), "%s", pipe->peer);
}

static void control_welcome(struct wire_conn *conn, const struct wire_welcome *welcome)
{
	struct wire_link *link = wire_conn_owner(conn);

	keep_peer(link, conn);
	link->up = true;
	link->peer = welcome->host;
	link->version = wire_version_agree(welcome->version, welcome->oldest);
	snprintf(link->software, sizeof(link->software), "%s", welcome->software);
	memcpy(link->session, welcome->session, sizeof(link->session));
	link->seed = welcome->seed;
	link->plain_data = link->plain_wanted && welcome->plain_data;
	link->ops->up(link);
}

static const struct wire_conn_ops control_ops = {
	.welcome = control_welcome,
	.line = control_line,
	.writable = control_writable,
	.beat = control_beat,
	.dead = control_dead,
};

/* ---- dialled ---- */

static void dial_control(struct wire_link *link)
{
	struct wire_hello hello = { .version = WIRE_VERSION, .oldest = WIRE_VERSION_OLDEST,
				    .role = WIRE_CONTROL, .host = link->env->host,
				    .software = BM_VERSION };
	struct wire_pipe *pipe;
	struct err err;

	for (; link->address < link->dialler->address_count; link->address++) {
		if (link->dialler->dial(link->dialler, link->address, false, &pipe, &link->err))
			continue;
		snprintf(link->peer_address, sizeof(link->peer_address), "%s", pipe->peer);
		link->control = wire_conn_dialled(link->env, pipe, &hello, &control_ops, link);
		if (link->control)
			return;
		err_set(&link->err, ERR_NO_MEMORY, 0, "out of memory");
	}
	err = link->err;
	link_down(link, &err);
}

static void link_start(struct task *task)
{
	struct wire_link *link = container_of(task, struct wire_link, start);

	dial_control(link);
}

/* It dials a moment later: no callback may run before its owner has it in hand. */
int wire_link_new(const struct wire_link_options *options, struct wire_link **out, struct err *err)
{
	struct wire_link *link = link_alloc(options->env);

	CHECK(options->dialler->address_count > 0);
	if (!link)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	link->dialler = options->dialler;
	link->ops = options->ops;
	link->user = options->user;
	link->plain_wanted = options->plain_data;
	link->start.run = link_start;
	loop_post(link->env->loop, &link->start);
	*out = link;
	return 0;
}

/* ---- accepted ---- */

void link_accept_control(struct wire_link *link, struct wire_conn *conn,
			 const struct wire_hello *hello)
{
	struct wire_welcome welcome = { .version = WIRE_VERSION, .oldest = WIRE_VERSION_OLDEST,
					.host = link->env->host, .software = BM_VERSION,
					.seed = link->seed, .plain_data = link->plain_wanted };

	link->control = conn;
	link->up = true;
	link->peer = hello->host;
	link->version = wire_version_agree(hello->version, hello->oldest);
	snprintf(link->software, sizeof(link->software), "%s", hello->software);
	link->plain_data = link->plain_wanted;
	keep_peer(link, conn);
	memcpy(welcome.session, link->session, sizeof(welcome.session));
	wire_conn_adopt(conn, &control_ops, link);
	wire_conn_welcome(conn, &welcome, 0);
}

/* ---- small ones ---- */

void *wire_link_user(const struct wire_link *link)
{
	return link->user;
}

void wire_link_adopt(struct wire_link *link, const struct wire_link_ops *ops, void *user)
{
	link->ops = ops;
	link->user = user;
}

int wire_link_send(struct wire_link *link, const char *type, const json_t *message)
{
	return link->up ? wire_conn_send_line(link->control, type, message) : -ENOTCONN;
}

void wire_link_status(const struct wire_link *link, struct wire_link_status *out)
{
	*out = (struct wire_link_status){ .up = link->up, .peer = link->peer,
					  .version = link->version,
					  .round_trip_ns = link->round_trip_ns,
					  .plain_data = link->plain_data };
	snprintf(out->software, sizeof(out->software), "%s", link->software);
	snprintf(out->peer_key, sizeof(out->peer_key), "%s", link->peer_key);
	snprintf(out->address, sizeof(out->address), "%s", link->peer_address);
	if (link->control) {
		out->bytes_in = wire_conn_bytes_in(link->control);
		out->bytes_out = wire_conn_bytes_out(link->control);
	}
	for (unsigned i = 0; i < WIRE_CHANNELS_MAX; i++) {
		const struct wire_channel *channel = &link->channels[i];

		if (channel->state != CHANNEL_UP)
			continue;
		out->channels_up++;
		out->bytes_in += wire_conn_bytes_in(channel->conn);
		out->bytes_out += wire_conn_bytes_out(channel->conn);
	}
}
