/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_holder.c - any messages, with any descriptors, to the process that holds sockets.
 *
 * Input: for each message a byte of flags and 128 bytes, the last one as many as are left.  What
 * is held must be what a model of the protocol says, and no descriptor may be lost or closed
 * twice.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmotion/holder_serve.h"

enum { WITH_FD = 1, FD_LISTENS = 2, MEND_HEADER = 4, MEND_NAME = 8, OTHERS = 16 };

static int listening = -1, file = -1;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void open_once(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (listening >= 0)
		return;
	listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	file = open("/dev/null", O_RDONLY | O_CLOEXEC);
	CHECK(listening >= 0 && file >= 0);
	/* An abstract name that the kernel chooses. */
	CHECK(bind(listening, (struct sockaddr *)&address, sizeof(address.sun_family)) == 0);
	CHECK(listen(listening, 1) == 0);
}

static void mend(uint8_t flags, struct holder_message *message)
{
	if (flags & MEND_HEADER) {
		message->magic = HOLDER_MAGIC;
		message->version = HOLDER_VERSION;
		message->type = (uint16_t)(message->type % (HOLDER_DONE + 2));
	}
	if (flags & MEND_NAME) {        /* few names, so that they meet again */
		memset(message->name, 0, sizeof(message->name));
		if (message->type != HOLDER_TAKE && message->type != HOLDER_RELEASE)
			message->name[0] = (char)('a' + (message->result & 7));
	}
}

static void check_table(const struct holder_table *table)
{
	CHECK(table->count <= HOLDER_SOCKETS_MAX);
	for (uint32_t i = 0; i < table->count; i++) {
		CHECK(holder_name_is_valid(table->rows[i].name, HOLDER_NAME_BYTES));
		CHECK(fcntl(table->rows[i].fd, F_GETFD) >= 0);
		for (uint32_t j = 0; j < i; j++)
			CHECK(strcmp(table->rows[i].name, table->rows[j].name) != 0);
	}
}

static void do_one(struct holder_table *table, uint8_t flags, const uint8_t *bytes, size_t length)
{
	struct holder_message raw = { 0 }, message, answer;
	uint32_t before = table->count;
	int fd = -1, rc;

	memcpy(&raw, bytes, length);
	mend(flags, &raw);
	if (holder_message_judge(&raw, length, &message))
		return;
	CHECK(length == sizeof(message));
	if (flags & WITH_FD)
		fd = dup(flags & FD_LISTENS ? listening : file);
	rc = holder_table_do(table, &message, fd, flags & OTHERS ? 1 : 0, &answer);
	check_table(table);
	CHECK(rc == 0 || table->count == before);
	CHECK(rc || answer.type == HOLDER_DONE);
	if (!rc && message.type == HOLDER_STORE)
		CHECK((answer.result == 0) == ((flags & FD_LISTENS) != 0));
	if (!rc && message.type == HOLDER_REMOVE)
		CHECK(table->count + (answer.result == 0) == before);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct holder_table table;
	int lowest, after;

	open_once();
	lowest = dup(file);
	close(lowest);
	CHECK(holder_table_init(&table) == 0);
	while (size > 1) {
		size_t length = MIN(size - 1, sizeof(struct holder_message));

		do_one(&table, data[0], data + 1, length);
		data += 1 + length;
		size -= 1 + length;
	}
	holder_table_release(&table);
	after = dup(file);
	close(after);
	CHECK(after == lowest);         /* nothing is left open */
	return 0;
}
