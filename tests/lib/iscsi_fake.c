/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/iscsi_fake.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "blkmirror/base/check.h"
#include "blkmirror/base/overflow.h"

#define HEADER_BYTES 48
#define BLOCK_BYTES 512u
#define DATA_MAX (256u << 10)

enum {
	OUT_NOP = 0x00, OUT_COMMAND = 0x01, OUT_TASK = 0x02, OUT_LOGIN = 0x03, OUT_LOGOUT = 0x06,
	IN_NOP = 0x20, IN_RESPONSE = 0x21, IN_TASK = 0x22, IN_LOGIN = 0x23, IN_DATA = 0x25,
	IN_LOGOUT = 0x26,
};

struct pdu {
	uint8_t header[HEADER_BYTES];
	uint8_t *data;
	uint32_t len;
};

static uint64_t be_at(const uint8_t *bytes, unsigned count)
{
	uint64_t value = 0;

	while (count--)
		value = value << 8 | *bytes++;
	return value;
}

static void put_be(uint8_t *bytes, uint64_t value, unsigned count)
{
	for (unsigned i = count; i-- > 0; value >>= 8)
		bytes[i] = (uint8_t)value;
}

static void note(struct iscsi_fake *fake, char what)
{
	pthread_mutex_lock(&fake->mutex);
	CHECK(fake->log_len + 1 < FAKE_LOG_BYTES);
	fake->log[fake->log_len++] = what;
	pthread_mutex_unlock(&fake->mutex);
}

/* ---- PDUs ---- */

static bool receive(struct fake_connection *from, struct pdu *pdu)
{
	uint32_t padded;

	pdu->data = NULL;
	if (recv(from->fd, pdu->header, HEADER_BYTES, MSG_WAITALL) != HEADER_BYTES)
		return false;
	pdu->len = (uint32_t)be_at(pdu->header + 5, 3);
	padded = (pdu->len + 3) & ~3u;
	CHECK(padded <= DATA_MAX && pdu->header[4] == 0);
	if (!padded)
		return true;
	pdu->data = malloc(padded);
	CHECK(pdu->data);
	return recv(from->fd, pdu->data, padded, MSG_WAITALL) == (ssize_t)padded;
}

static bool answer(struct fake_connection *to, const struct pdu *request, uint8_t *header,
		   const void *data, uint32_t len)
{
	static const uint8_t padding[4];
	uint32_t padded = (len + 3) & ~3u;

	if (!(request->header[0] & 0x40))       /* not immediate */
		to->exp_cmd_sn = (uint32_t)be_at(request->header + 24, 4) + 1;
	memcpy(header + 16, request->header + 16, 4);
	put_be(header + 5, len, 3);
	put_be(header + 24, to->stat_sn++, 4);
	put_be(header + 28, to->exp_cmd_sn, 4);
	put_be(header + 32, to->exp_cmd_sn + 127, 4);
	if (send(to->fd, header, HEADER_BYTES, MSG_NOSIGNAL) != HEADER_BYTES)
		return false;
	if (len && send(to->fd, data, len, MSG_NOSIGNAL) != (ssize_t)len)
		return false;
	return padded == len ||
	       send(to->fd, padding, padded - len, MSG_NOSIGNAL) == (ssize_t)(padded - len);
}

static bool respond(struct fake_connection *to, const struct pdu *request, uint8_t status,
		    const uint8_t *sense, uint32_t sense_len)
{
	uint8_t header[HEADER_BYTES] = { IN_RESPONSE, 0x80, 0, status }, data[32] = { 0 };

	if (sense_len) {
		put_be(data, sense_len, 2);
		memcpy(data + 2, sense, sense_len);
	}
	return answer(to, request, header, data, sense_len ? sense_len + 2 : 0);
}

static bool illegal(struct fake_connection *to, const struct pdu *request)
{
	static const uint8_t sense[18] = { 0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20 };

	return respond(to, request, 2, sense, sizeof(sense));
}

static bool send_data(struct fake_connection *to, const struct pdu *request, const void *data,
		      uint32_t len)
{
	uint32_t wanted = (uint32_t)be_at(request->header + 20, 4);
	uint8_t header[HEADER_BYTES] = { IN_DATA, 0x81 };

	len = MIN(len, wanted);
	memset(header + 20, 0xff, 4);
	if (len < wanted) {
		header[1] |= 0x02;
		put_be(header + 44, wanted - len, 4);
	}
	return answer(to, request, header, data, len);
}

static bool login(struct iscsi_fake *fake, struct fake_connection *to, const struct pdu *request)
{
	static const char security[] = "AuthMethod=None\0TargetPortalGroupTag=1";
	static const char operational[] =
		"HeaderDigest=None\0DataDigest=None\0InitialR2T=No\0ImmediateData=Yes\0"
		"MaxRecvDataSegmentLength=262144\0MaxBurstLength=262144\0FirstBurstLength=262144\0"
		"DefaultTime2Wait=2\0DefaultTime2Retain=0\0MaxOutstandingR2T=1\0"
		"ErrorRecoveryLevel=0\0MaxConnections=1\0DataPDUInOrder=Yes\0DataSequenceInOrder=Yes";
	uint8_t header[HEADER_BYTES] = { IN_LOGIN, request->header[1] };
	bool is_operational = (request->header[1] >> 2 & 3) == 1;

	memcpy(header + 8, request->header + 8, 6);
	header[15] = 1;
	to->exp_cmd_sn = (uint32_t)be_at(request->header + 24, 4);
	if ((request->header[1] & 0x83) == 0x83)
		note(fake, 'L');
	return is_operational ? answer(to, request, header, operational, sizeof(operational))
			      : answer(to, request, header, security, sizeof(security));
}

/* ---- commands ---- */

static void keep(struct iscsi_fake *fake, uint64_t offset_bytes, const struct pdu *request)
{
	CHECK(fake->kept_count < FAKE_KEPT);
	fake->kept[fake->kept_count].offset_bytes = offset_bytes;
	fake->kept[fake->kept_count].len_bytes = request->len;
	fake->kept[fake->kept_count].bytes = malloc(request->len);
	CHECK(fake->kept[fake->kept_count].bytes);
	memcpy(fake->kept[fake->kept_count++].bytes, request->data, request->len);
}

static bool do_write(struct iscsi_fake *fake, struct fake_connection *to,
		     const struct pdu *request, uint64_t offset_bytes)
{
	CHECK(request->len == be_at(request->header + 20, 4));
	CHECK(range_fits(offset_bytes, request->len, FAKE_BYTES));
	pthread_mutex_lock(&fake->mutex);
	if (fake->keeps_writes)
		keep(fake, offset_bytes, request);
	else
		memcpy(fake->disk + offset_bytes, request->data, request->len);
	pthread_mutex_unlock(&fake->mutex);
	note(fake, fake->keeps_writes ? 'w' : 'W');
	return fake->keeps_writes || respond(to, request, 0, NULL, 0);
}

static bool do_read(struct iscsi_fake *fake, struct fake_connection *to,
		    const struct pdu *request, uint64_t offset_bytes)
{
	uint32_t len = (uint32_t)be_at(request->header + 20, 4);

	CHECK(range_fits(offset_bytes, len, FAKE_BYTES));
	if (fake->empty_reads)
		return respond(to, request, 0, NULL, 0);
	return send_data(to, request, fake->disk + offset_bytes,
			 fake->short_reads ? len / 2 : len);
}

static bool do_same(struct iscsi_fake *fake, struct fake_connection *to,
		    const struct pdu *request, uint64_t offset_bytes)
{
	uint64_t len = be_at(request->header + 42, 4) * BLOCK_BYTES;

	if (fake->no_write_same)
		return illegal(to, request);
	CHECK(range_fits(offset_bytes, len, FAKE_BYTES));
	memset(fake->disk + offset_bytes, 0, len);
	note(fake, 'Z');
	return respond(to, request, 0, NULL, 0);
}

static bool do_service(struct iscsi_fake *fake, struct fake_connection *to,
		       const struct pdu *request)
{
	uint8_t data[32] = { 0 };

	if ((request->header[33] & 0x1f) != 0x10)
		return illegal(to, request);
	put_be(data, fake->blocks - 1, 8);
	put_be(data + 8, BLOCK_BYTES, 4);
	return send_data(to, request, data, sizeof(data));
}

static bool command(struct iscsi_fake *fake, struct fake_connection *to,
		    const struct pdu *request)
{
	static const uint8_t inquiry[36] = { 0, 0, 5, 2, 31 }, mode[4] = { 3, 0, 0x10, 0 };
	const uint8_t *cdb = request->header + 32;
	uint64_t offset_bytes = be_at(cdb + 2, 8) * BLOCK_BYTES;

	if ((cdb[0] == 0x88 || cdb[0] == 0x8a) && fake->status_count) {
		fake->status_count--;
		return respond(to, request, (uint8_t)fake->status, NULL, 0);
	}
	switch (cdb[0]) {
	case 0x00:
		return respond(to, request, 0, NULL, 0);
	case 0x12:
		return cdb[1] ? illegal(to, request)
			      : send_data(to, request, inquiry, sizeof(inquiry));
	case 0x1a:
		return send_data(to, request, mode, sizeof(mode));
	case 0x88:
		return do_read(fake, to, request, offset_bytes);
	case 0x8a:
		return do_write(fake, to, request, offset_bytes);
	case 0x91:
		note(fake, 'S');
		return respond(to, request, 0, NULL, 0);
	case 0x93:
		return do_same(fake, to, request, offset_bytes);
	case 0x9e:
		return do_service(fake, to, request);
	default:
		return illegal(to, request);
	}
}

static void drop_kept(struct iscsi_fake *fake)
{
	for (unsigned i = 0; i < fake->kept_count; i++)
		free(fake->kept[i].bytes);
	fake->kept_count = 0;
}

static bool task_function(struct iscsi_fake *fake, struct fake_connection *to,
			  const struct pdu *request)
{
	uint8_t header[HEADER_BYTES] = { IN_TASK, 0x80, fake->refuses_reset ? 5 : 0 };

	CHECK((request->header[1] & 0x7f) == 5);        /* LOGICAL UNIT RESET */
	if (fake->ignores_reset)
		return true;
	if (!fake->refuses_reset) {
		pthread_mutex_lock(&fake->mutex);
		drop_kept(fake);
		pthread_mutex_unlock(&fake->mutex);
		note(fake, 'R');
	}
	return answer(to, request, header, NULL, 0);
}

static bool serve(struct iscsi_fake *fake, struct fake_connection *connection)
{
	uint8_t logout[HEADER_BYTES] = { IN_LOGOUT, 0x80 };
	struct pdu pdu;
	bool goes_on = receive(connection, &pdu);

	if (goes_on) {
		switch (pdu.header[0] & 0x3f) {
		case OUT_LOGIN:
			goes_on = login(fake, connection, &pdu);
			break;
		case OUT_COMMAND:
			goes_on = command(fake, connection, &pdu);
			break;
		case OUT_TASK:
			goes_on = task_function(fake, connection, &pdu);
			break;
		case OUT_LOGOUT:
			goes_on = answer(connection, &pdu, logout, NULL, 0);
			break;
		default:
			break;
		}
	}
	free(pdu.data);
	return goes_on;
}

/* ---- the thread ---- */

static void hang_up(struct fake_connection *connection)
{
	const struct linger now = { .l_onoff = 1 };

	setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(connection->fd);
	connection->fd = -1;
}

static void take_connection(struct iscsi_fake *fake)
{
	int fd = accept(fake->listener, NULL, NULL);

	for (unsigned i = 0; i < FAKE_CONNECTIONS && fd >= 0; i++) {
		if (fake->connections[i].fd >= 0)
			continue;
		fake->connections[i] = (struct fake_connection){ .fd = fd, .stat_sn = 1 };
		return;
	}
	CHECK(fd < 0);
}

static void *fake_run(void *user)
{
	struct iscsi_fake *fake = user;

	while (!fake->stops) {
		struct pollfd pollers[FAKE_CONNECTIONS + 2];

		pollers[0] = (struct pollfd){ fake->listener, POLLIN, 0 };
		pollers[1] = (struct pollfd){ fake->wake[0], POLLIN, 0 };
		for (unsigned i = 0; i < FAKE_CONNECTIONS; i++)
			pollers[i + 2] = (struct pollfd){ fake->connections[i].fd, POLLIN, 0 };
		CHECK(poll(pollers, FAKE_CONNECTIONS + 2, 10) >= 0);
		for (unsigned i = 0; i < FAKE_CONNECTIONS; i++)
			if (pollers[i + 2].revents && !serve(fake, &fake->connections[i]))
				hang_up(&fake->connections[i]);
		if (atomic_exchange(&fake->hangs_up, false))
			for (unsigned i = 0; i < FAKE_CONNECTIONS; i++)
				if (fake->connections[i].fd >= 0)
					hang_up(&fake->connections[i]);
		if (pollers[0].revents)
			take_connection(fake);
	}
	return NULL;
}

void iscsi_fake_start(struct iscsi_fake *fake)
{
	struct sockaddr_in here = { .sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t here_bytes = sizeof(here);

	memset(fake, 0, sizeof(*fake));
	pthread_mutex_init(&fake->mutex, NULL);
	fake->blocks = FAKE_BYTES / BLOCK_BYTES;
	fake->disk = calloc(1, FAKE_BYTES);
	CHECK(fake->disk);
	for (unsigned i = 0; i < FAKE_CONNECTIONS; i++)
		fake->connections[i].fd = -1;
	CHECK(pipe(fake->wake) == 0);
	fake->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(fake->listener >= 0);
	CHECK(bind(fake->listener, (struct sockaddr *)&here, sizeof(here)) == 0);
	CHECK(listen(fake->listener, 16) == 0);
	CHECK(getsockname(fake->listener, (struct sockaddr *)&here, &here_bytes) == 0);
	fake->port = ntohs(here.sin_port);
	CHECK(pthread_create(&fake->thread, NULL, fake_run, fake) == 0);
}

void iscsi_fake_stop(struct iscsi_fake *fake)
{
	fake->stops = true;
	CHECK(write(fake->wake[1], "x", 1) == 1);
	pthread_join(fake->thread, NULL);
	for (unsigned i = 0; i < FAKE_CONNECTIONS; i++)
		if (fake->connections[i].fd >= 0)
			close(fake->connections[i].fd);
	close(fake->listener);
	close(fake->wake[0]);
	close(fake->wake[1]);
	drop_kept(fake);
	free(fake->disk);
	pthread_mutex_destroy(&fake->mutex);
}

unsigned iscsi_fake_land(struct iscsi_fake *fake)
{
	unsigned count;

	pthread_mutex_lock(&fake->mutex);
	count = fake->kept_count;
	for (unsigned i = 0; i < count; i++)
		memcpy(fake->disk + fake->kept[i].offset_bytes, fake->kept[i].bytes,
		       fake->kept[i].len_bytes);
	drop_kept(fake);
	pthread_mutex_unlock(&fake->mutex);
	return count;
}

const char *iscsi_fake_log(struct iscsi_fake *fake, char text[FAKE_LOG_BYTES])
{
	pthread_mutex_lock(&fake->mutex);
	memcpy(text, fake->log, FAKE_LOG_BYTES);
	text[fake->log_len] = '\0';
	pthread_mutex_unlock(&fake->mutex);
	return text;
}

void iscsi_fake_forget(struct iscsi_fake *fake)
{
	pthread_mutex_lock(&fake->mutex);
	fake->log_len = 0;
	pthread_mutex_unlock(&fake->mutex);
}
