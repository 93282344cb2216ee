/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wire_socket.c
 *
 *   CONNECTING  the socket is (dialled)
 *   SNIFFING    nothing has come yet that tells TLS from plain text (accepted)
 *   SHAKING     TLS is at its handshake
 *   OPEN        bytes flow
 *   BROKEN      every call tells why
 *
 * TLS may want to write before it can read, and the other way round: `retry` keeps what the last
 * call on either side waits for, and the socket is watched for the sum of what the owner wants.
 */
#include "vmotion/wire_socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TLS_FIRST_BYTE 0x16             /* a handshake record */
/* Bytes that nobody has acknowledged end the connection, as does silence: wire_conn.h. */
#define USER_TIMEOUT_MS 20000

enum socket_state { SOCKET_CONNECTING, SOCKET_SNIFFING, SOCKET_SHAKING, SOCKET_OPEN, SOCKET_BROKEN };

struct wire_socket {
	struct wire_pipe pipe;
	struct wire_verifier verifier;
	struct loop *loop;
	const struct wire_identity *identity;
	struct watch watch;
	int fd;
	SSL *ssl;
	enum socket_state state;
	int error;                      /* when BROKEN: -errno */
	unsigned wanted;                /* by the owner */
	unsigned read_waits, write_waits;       /* WATCH_* that the last -EAGAIN of each waits for */
	bool dialled, refused_key;
	char pin[WIRE_KEY_BYTES];
	struct wire_keys *keys;
};

/* ---- addresses ---- */

static bool port_parse(const char *text, in_port_t *port)
{
	char *end;
	unsigned long number;

	if (text[0] < '0' || text[0] > '9')
		return false;
	errno = 0;
	number = strtoul(text, &end, 10);
	if (errno || *end || number == 0 || number > 65535)
		return false;
	*port = htons((in_port_t)number);
	return true;
}

int wire_address_parse(const char *text, struct wire_address *out)
{
	const char *colon = strrchr(text, ':');
	struct wire_address address = { .v6 = { 0 } };
	char host[INET6_ADDRSTRLEN];
	in_port_t port;
	size_t len;

	if (!colon || !port_parse(colon + 1, &port))
		return -EINVAL;
	len = (size_t)(colon - text);
	if (text[0] == '[' && len > 2 && text[len - 1] == ']') {
		text++;
		len -= 2;
		address.v6.sin6_family = AF_INET6;
		address.v6.sin6_port = port;
	} else {
		address.v4.sin_family = AF_INET;
		address.v4.sin_port = port;
	}
	if (len == 0 || len >= sizeof(host))
		return -EINVAL;
	memcpy(host, text, len);
	host[len] = '\0';
	if (inet_pton(address.any.sa_family, host,
		      address.any.sa_family == AF_INET ? (void *)&address.v4.sin_addr
						       : (void *)&address.v6.sin6_addr) != 1)
		return -EINVAL;
	*out = address;
	return 0;
}

char *wire_address_format(const struct wire_address *address, char text[WIRE_PEER_BYTES])
{
	char host[INET6_ADDRSTRLEN] = "?";

	if (address->any.sa_family == AF_INET) {
		inet_ntop(AF_INET, &address->v4.sin_addr, host, sizeof(host));
		snprintf(text, WIRE_PEER_BYTES, "%s:%u", host, ntohs(address->v4.sin_port));
	} else {
		inet_ntop(AF_INET6, &address->v6.sin6_addr, host, sizeof(host));
		snprintf(text, WIRE_PEER_BYTES, "[%s]:%u", host, ntohs(address->v6.sin6_port));
	}
	return text;
}

socklen_t wire_address_bytes(const struct wire_address *address)
{
	return address->any.sa_family == AF_INET ? sizeof(address->v4) : sizeof(address->v6);
}

/* ---- what goes wrong ---- */

static int socket_break(struct wire_socket *sock, int rc)
{
	sock->state = SOCKET_BROKEN;
	sock->error = rc;
	return rc;
}

static int connect_failed(struct wire_socket *sock, int rc)
{
	err_set(&sock->pipe.err, ERR_HOST_UNREACHABLE, 0, "cannot connect to %s: %s",
		sock->pipe.peer, err_strerror(rc));
	return socket_break(sock, rc);
}

/*
 * In TLS 1.3 who dialled has finished its handshake before the other side has looked at its key:
 * a refusal arrives as an alert in place of the first bytes.
 */
static bool is_refusal(unsigned long code)
{
	int reason = ERR_GET_REASON(code);

	return ERR_GET_LIB(code) == ERR_LIB_SSL && reason > SSL_AD_REASON_OFFSET &&
	       reason < SSL_AD_REASON_OFFSET + 256;
}

static int tls_failed(struct wire_socket *sock, int error, int system_error)
{
	unsigned long code = ERR_peek_last_error();
	char text[120] = "the connection was cut";

	if (code)
		ERR_error_string_n(code, text, sizeof(text));
	if (sock->refused_key) {
		/* pipe.err says whose key it is not */
	} else if (sock->dialled && is_refusal(code)) {
		err_set(&sock->pipe.err, ERR_HOST_REFUSED, 0,
			"%s does not accept this host's key", sock->pipe.peer);
	} else if (error == SSL_ERROR_SYSCALL && system_error) {
		err_set(&sock->pipe.err, sock->state == SOCKET_OPEN ? ERR_WIRE_LOST
								    : ERR_HOST_UNREACHABLE, 0,
			"the connection with %s is lost: %s", sock->pipe.peer,
			err_strerror(-system_error));
	} else {
		err_set(&sock->pipe.err, ERR_WIRE_PROTOCOL, 0, "TLS with %s failed: %s",
			sock->pipe.peer, text);
	}
	ERR_clear_error();
	return socket_break(sock, sock->refused_key ? -EKEYREJECTED : -EPROTO);
}

/* What a call of OpenSSL has come to: 0 for the end of the stream, -EAGAIN, -errno. */
static int tls_result(struct wire_socket *sock, int result, unsigned *waits)
{
	int system_error = errno;
	int error = SSL_get_error(sock->ssl, result);

	if (error == SSL_ERROR_WANT_READ) {
		*waits = WATCH_READ;
		return -EAGAIN;
	}
	if (error == SSL_ERROR_WANT_WRITE) {
		*waits = WATCH_WRITE;
		return -EAGAIN;
	}
	if (error == SSL_ERROR_ZERO_RETURN)
		return 0;
	return tls_failed(sock, error, system_error);
}

/* ---- keys ---- */

static bool socket_verify(struct wire_verifier *verifier, const char *fingerprint)
{
	struct wire_socket *sock = container_of(verifier, struct wire_socket, verifier);
	bool known = sock->dialled ? strcmp(fingerprint, sock->pin) == 0
				   : sock->keys->known(sock->keys, fingerprint);

	if (known) {
		snprintf(sock->pipe.peer_key, sizeof(sock->pipe.peer_key), "%s", fingerprint);
		return true;
	}
	sock->refused_key = true;
	if (sock->dialled)
		err_set(&sock->pipe.err, ERR_HOST_KEY, 0,
			"%s has the key %s, not the one that was pinned", sock->pipe.peer,
			fingerprint);
	else
		err_set(&sock->pipe.err, ERR_HOST_KEY, 0,
			"a stranger at %s was refused: no host has the key %s", sock->pipe.peer,
			fingerprint);
	return false;
}

static int tls_begin(struct wire_socket *sock)
{
	sock->ssl = SSL_new(sock->dialled ? sock->identity->dial : sock->identity->accept);
	if (!sock->ssl || SSL_set_fd(sock->ssl, sock->fd) != 1) {
		ERR_clear_error();
		return socket_break(sock, -ENOMEM);
	}
	SSL_set_app_data(sock->ssl, &sock->verifier);
	if (sock->dialled)
		SSL_set_connect_state(sock->ssl);
	else
		SSL_set_accept_state(sock->ssl);
	sock->pipe.encrypted = true;
	sock->state = SOCKET_SHAKING;
	return 0;
}

/* ---- from connecting to open: 0, or -EAGAIN, or -errno ---- */

static int step_connecting(struct wire_socket *sock)
{
	int error = 0;
	socklen_t len = sizeof(error);
	struct wire_address peer;
	socklen_t peer_len = sizeof(peer);

	if (getsockopt(sock->fd, SOL_SOCKET, SO_ERROR, &error, &len))
		return connect_failed(sock, -errno);
	if (error)
		return connect_failed(sock, -error);
	if (getpeername(sock->fd, &peer.any, &peer_len)) {
		sock->read_waits = sock->write_waits = WATCH_WRITE;
		return -EAGAIN;         /* not connected yet, and nothing wrong */
	}
	if (sock->pin[0])
		return tls_begin(sock);
	sock->state = SOCKET_OPEN;
	return 0;
}

static int step_sniffing(struct wire_socket *sock)
{
	uint8_t first;
	ssize_t got = recv(sock->fd, &first, 1, MSG_PEEK);

	if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
		sock->read_waits = sock->write_waits = WATCH_READ;
		return -EAGAIN;
	}
	if (got <= 0)
		return socket_break(sock, got ? -errno : -ECONNRESET);
	if (first == TLS_FIRST_BYTE)
		return tls_begin(sock);
	sock->state = SOCKET_OPEN;
	return 0;
}

static int step_shaking(struct wire_socket *sock)
{
	unsigned waits = 0;
	int rc;

	ERR_clear_error();
	rc = SSL_do_handshake(sock->ssl);
	if (rc == 1) {
		sock->state = SOCKET_OPEN;
		return 0;
	}
	rc = tls_result(sock, rc, &waits);
	if (rc == -EAGAIN)
		sock->read_waits = sock->write_waits = waits;
	return rc == 0 ? socket_break(sock, -ECONNRESET) : rc;
}

static int socket_open(struct wire_socket *sock)
{
	int rc = 0;

	while (!rc && sock->state != SOCKET_OPEN) {
		if (sock->state == SOCKET_BROKEN)
			return sock->error;
		if (sock->state == SOCKET_CONNECTING)
			rc = step_connecting(sock);
		else if (sock->state == SOCKET_SNIFFING)
			rc = step_sniffing(sock);
		else
			rc = step_shaking(sock);
	}
	return rc;
}

/* ---- the pipe ---- */

static ssize_t plain_result(struct wire_socket *sock, ssize_t count, unsigned waits,
			    unsigned *waits_out)
{
	if (count >= 0)
		return count;
	if (errno == EAGAIN || errno == EINTR) {
		*waits_out = waits;
		return -EAGAIN;
	}
	return socket_break(sock, -errno);
}

static ssize_t socket_read(struct wire_pipe *pipe, void *bytes, size_t count)
{
	struct wire_socket *sock = container_of(pipe, struct wire_socket, pipe);
	int rc = socket_open(sock);

	if (rc)
		return rc;
	if (!sock->ssl)
		return plain_result(sock, recv(sock->fd, bytes, count, 0), WATCH_READ,
				    &sock->read_waits);
	ERR_clear_error();
	errno = 0;
	rc = SSL_read(sock->ssl, bytes, (int)MIN(count, (size_t)INT32_MAX));
	return rc > 0 ? rc : tls_result(sock, rc, &sock->read_waits);
}

static ssize_t socket_write(struct wire_pipe *pipe, const void *bytes, size_t count)
{
	struct wire_socket *sock = container_of(pipe, struct wire_socket, pipe);
	int rc = socket_open(sock);

	if (rc)
		return rc;
	if (!sock->ssl)
		return plain_result(sock, send(sock->fd, bytes, count, MSG_NOSIGNAL), WATCH_WRITE,
				    &sock->write_waits);
	ERR_clear_error();
	errno = 0;
	rc = SSL_write(sock->ssl, bytes, (int)MIN(count, (size_t)INT32_MAX));
	if (rc > 0)
		return rc;
	rc = tls_result(sock, rc, &sock->write_waits);
	return rc ? rc : socket_break(sock, -EPIPE);
}

static void socket_watch(struct wire_socket *sock)
{
	unsigned events = 0;

	if (sock->wanted & WATCH_READ)
		events |= sock->read_waits;
	if (sock->wanted & WATCH_WRITE)
		events |= sock->write_waits;
	watch_set_events(&sock->watch, events);
}

static void socket_want(struct wire_pipe *pipe, unsigned events)
{
	struct wire_socket *sock = container_of(pipe, struct wire_socket, pipe);

	sock->wanted = events;
	socket_watch(sock);
}

static void socket_ready(struct watch *watch, unsigned events)
{
	struct wire_socket *sock = container_of(watch, struct wire_socket, watch);

	(void)events;
	sock->pipe.ready(&sock->pipe);
}

static void socket_close(struct wire_pipe *pipe, bool abort)
{
	struct wire_socket *sock = container_of(pipe, struct wire_socket, pipe);
	const struct linger drop = { .l_onoff = 1, .l_linger = 0 };

	if (watch_is_started(&sock->watch))
		watch_stop(&sock->watch);
	if (abort && sock->state == SOCKET_OPEN) {
		/* R3: what lies in the socket must not arrive later. */
		(void)setsockopt(sock->fd, SOL_SOCKET, SO_LINGER, &drop, sizeof(drop));
	} else if (!abort && sock->ssl) {
		ERR_clear_error();
		(void)SSL_shutdown(sock->ssl);
	}
	SSL_free(sock->ssl);
	ERR_clear_error();
	close(sock->fd);
	free(sock);
}

static const struct wire_pipe_ops socket_ops = {
	.read = socket_read,
	.write = socket_write,
	.want = socket_want,
	.close = socket_close,
};

/* ---- the beginning ---- */

static int set_option(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value)) ? -errno : 0;
}

static int tune(int fd)
{
	int rc = set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);

	return rc ? rc : set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS);
}

/* Takes fd. */
static int socket_new(struct loop *loop, const struct wire_identity *identity, int fd,
		      enum socket_state state, struct wire_socket **out)
{
	struct wire_socket *sock = calloc(1, sizeof(*sock));
	int rc = sock ? tune(fd) : -ENOMEM;

	if (rc)
		goto close_fd;
	sock->pipe.ops = &socket_ops;
	sock->verifier.verify = socket_verify;
	sock->loop = loop;
	sock->identity = identity;
	sock->fd = fd;
	sock->state = state;
	sock->dialled = state == SOCKET_CONNECTING;
	sock->read_waits = sock->write_waits = sock->dialled ? WATCH_WRITE : WATCH_READ;
	rc = watch_start(&sock->watch, loop, fd, 0, socket_ready);
	if (rc)
		goto close_fd;
	*out = sock;
	return 0;

close_fd:
	free(sock);
	close(fd);
	return rc;
}

int wire_socket_dial(struct loop *loop, const struct wire_identity *identity,
		     const struct wire_address *address, const char *pin, struct wire_pipe **out,
		     struct err *err)
{
	struct wire_socket *sock;
	char shown[WIRE_PEER_BYTES];
	int fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int rc;

	wire_address_format(address, shown);
	if (fd < 0)
		return err_set(err, ERR_HOST_UNREACHABLE, -errno, "cannot connect to %s: %s", shown,
			       err_strerror(-errno));
	if (connect(fd, &address->any, wire_address_bytes(address)) && errno != EINPROGRESS) {
		rc = err_set(err, ERR_HOST_UNREACHABLE, -errno, "cannot connect to %s: %s", shown,
			     err_strerror(-errno));
		close(fd);
		return rc;
	}
	rc = socket_new(loop, identity, fd, SOCKET_CONNECTING, &sock);
	if (rc)
		return err_set(err, ERR_HOST_UNREACHABLE, rc, "cannot connect to %s: %s", shown,
			       err_strerror(rc));
	snprintf(sock->pipe.peer, sizeof(sock->pipe.peer), "%s", shown);
	if (pin)
		snprintf(sock->pin, sizeof(sock->pin), "%s", pin);
	*out = &sock->pipe;
	return 0;
}

int wire_socket_accepted(struct loop *loop, const struct wire_identity *identity, int fd,
			 struct wire_keys *keys, struct wire_pipe **out)
{
	struct wire_address peer = { .v6 = { 0 } };
	socklen_t len = sizeof(peer);
	struct wire_socket *sock;
	int rc;

	if (getpeername(fd, &peer.any, &len))
		peer.any.sa_family = AF_INET;   /* it has gone already: its first read will tell */
	rc = socket_new(loop, identity, fd, SOCKET_SNIFFING, &sock);
	if (rc)
		return rc;
	sock->keys = keys;
	wire_address_format(&peer, sock->pipe.peer);
	*out = &sock->pipe;
	return 0;
}
