/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_attachments.c - disks that are attached come back after the daemon has died (R-J7).
 *
 * The first life is this program once more, which kills itself; the second is in the test.
 * It is the holder process too, as blkmirrord is: see main().
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "datastores/disk_lock.h"
#include "tools/blkmirrord/inventory.h"
#include "vmotion/holder_serve.h"

#define FIRST_LIFE "--first-life"
#define MIB (UINT64_C(1) << 20)
#define PATIENCE_NS (20 * NS_PER_S)
#define PATIENCE_MS 20000

static char dir[64];

static const char *in(const char *name)
{
	static char path[4][160];
	static unsigned next;
	char *out = path[next++ % 4];

	snprintf(out, sizeof(path[0]), "%s/%s", dir, name);
	return out;
}

/* ---- a daemon's life, as far as it is about attachments ---- */

struct life {
	struct loop *loop;
	struct store *store;
	struct events *events;
	struct socket_holder *holder;
	struct disk_service *disks;
	struct inventory *inventory;
	struct timer poll, watchdog;
	bool (*reached)(struct life *life);     /* what is waited for */
	bool is_reached, is_restored, is_stored;
	unsigned came_up;
};

static void polled(struct timer *timer)
{
	struct life *life = container_of(timer, struct life, poll);

	life->is_reached = life->reached(life);
	if (life->is_reached)
		loop_stop(life->loop);
	else
		timer_start(timer, NS_PER_MS);
}

static void too_long(struct timer *timer)
{
	loop_stop(timer->loop);
}

/* Asserts: a failure must not keep teardown from ending the holder. */
static void life_until(struct life *life, bool (*reached)(struct life *life))
{
	life->reached = reached;
	life->is_reached = false;
	timer_start(&life->watchdog, PATIENCE_NS);
	timer_start(&life->poll, 0);
	loop_run(life->loop);
	timer_stop(&life->watchdog);
	timer_stop(&life->poll);
	assert_true(life->is_reached);
}

static void came_up(void *user)
{
	((struct life *)user)->came_up++;       /* a recovery that has not answered yet */
}

static bool a_is_in_move(const char *datastore, const char *path, void *user)
{
	(void)user;
	return strcmp(datastore, "ds") == 0 && strcmp(path, "a.img") == 0;
}

static void restored(void *user)
{
	((struct life *)user)->is_restored = true;
}

static void life_begin(struct life *life, bool some_in_move)
{
	struct socket_holder_options sockets = { .kind = SOCKET_HOLDER_PROCESS, .run_dir = dir,
						 .linger_s = 10 };
	struct disk_service_options disks = { .run_dir = dir, .io_threads = 1 };
	struct inventory_options options = { .came_up = came_up, .user = life,
					     .in_move = some_in_move ? a_is_in_move : NULL };

	*life = (struct life){ .loop = loop_new() };
	CHECK(life->loop);
	timer_init(&life->poll, life->loop, polled);
	timer_init(&life->watchdog, life->loop, too_long);
	CHECK(store_open(life->loop, in("tasks.db"), &life->store, NULL) == 0);
	CHECK(events_new(life->store, 1000, &life->events, NULL) == 0);
	CHECK(socket_holder_open(&sockets, &life->holder, NULL) == 0);
	disks.holder = life->holder;
	CHECK(disk_service_new(life->loop, &disks, &life->disks, NULL) == 0);
	options.loop = life->loop;
	options.store = life->store;
	options.events = life->events;
	options.disks = life->disks;
	CHECK(inventory_new(&options, &life->inventory, NULL) == 0);
	CHECK(inventory_load(life->inventory, NULL) == 0);
	inventory_start(life->inventory, restored, life);
}

static bool all_let_go(struct life *life)
{
	return !disk_next(life->disks, NULL) && !disk_service_is_busy(life->disks) &&
	       !inventory_is_busy(life->inventory) && !store_pending(life->store);
}

static void left(const struct err *err, void *user)
{
	(void)user;
	CHECK(!err);
}

/* In order, as at SIGTERM. */
static void life_end(struct life *life)
{
	inventory_stop(life->inventory);
	for (struct attachment *a = inventory_next_attachment(life->inventory, NULL); a;
	     a = inventory_next_attachment(life->inventory, a)) {
		if (!a->disk)
			continue;
		disk_leave(a->disk, left, NULL);
		ds_entry_put(a->entry);
		a->entry = NULL;
		a->disk = NULL;
	}
	life_until(life, all_let_go);
	inventory_free(life->inventory);
	disk_service_free(life->disks);
	socket_holder_close(life->holder);
	events_free(life->events);
	store_close(life->store);
	timer_stop(&life->poll);
	loop_free(life->loop);
}

static bool is_stored(struct life *life)
{
	return life->is_stored;
}

static void stored(int rc, const struct err *err, void *user)
{
	(void)err;
	CHECK(rc == 0);
	((struct life *)user)->is_stored = true;
}

static void attached(struct disk *disk, const struct err *err, void *user)
{
	struct life *life = user;

	CHECK(disk && !err);
	life->is_stored = false;
	CHECK(inventory_attached(life->inventory, inventory_find(life->inventory, "ds", NULL), disk,
				 stored, life, NULL) == 0);
}

static void attach(struct life *life, const char *id, const char *path)
{
	struct ds_entry *entry = inventory_find(life->inventory, "ds", NULL);
	struct disk_attach_spec spec = { .datastore = entry->datastore, .path = path, .id = id,
					 .export_kind = DISK_EXPORT_NBD };

	life->is_stored = false;
	disk_attach(life->disks, &spec, attached, life);
	life_until(life, is_stored);
}

static void added(struct ds_entry *entry, const struct err *err, void *user)
{
	(void)err;
	CHECK(entry);
	((struct life *)user)->is_stored = true;
}

/* Disks a and b are attached; then a kill that nothing is told of. */
static void first_life(void)
{
	struct life life;
	char url[96];

	snprintf(url, sizeof(url), "dir://%s/store", dir);
	life_begin(&life, false);
	inventory_add(life.inventory, "ds", url, NULL, added, &life);
	life_until(&life, is_stored);
	attach(&life, "a", "a.img");
	attach(&life, "b", "b.img");
	raise(SIGKILL);
}

static int setup(void **state)
{
	static const char *const names[] = { "store/a.img", "store/b.img" };
	char command[96];
	int status;
	pid_t pid;

	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/bm-attach-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(command, sizeof(command), "mkdir %s/store", dir);
	assert_int_equal(system(command), 0);
	for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
		int fd = open(in(names[i]), O_CREAT | O_WRONLY, 0600);

		assert_true(fd >= 0);
		assert_int_equal(ftruncate(fd, MIB), 0);
		close(fd);
	}
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {         /* a program of its own: this one has had threads */
		execl("/proc/self/exe", "first-life", FIRST_LIFE, dir, NULL);
		_exit(127);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	return 0;
}

static int teardown(void **state)
{
	char command[96];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", dir);   /* ends the holder too */
	return system(command);
}

static int client(const char *id)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/disks/%s.sock", dir, id);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	close(fd);
	return -1;
}

static bool is_greeted(int fd, int patience_ms)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	char greeting[8];

	return poll(&poll_fd, 1, patience_ms) == 1 &&
	       recv(fd, greeting, 8, MSG_WAITALL) == 8 && memcmp(greeting, "NBDMAGIC", 8) == 0;
}

static bool a_is_served(struct life *life)
{
	return inventory_attachment(life->inventory, "a")->disk;
}

static bool both_are_served(struct life *life)
{
	return a_is_served(life) && inventory_attachment(life->inventory, "b")->disk;
}

/* ---- what must hold ---- */

/* A client's connect() meets nobody, and is answered by the next daemon all the same. */
static void test_backlog_is_answered(void **state)
{
	int before = client("a");
	struct life life;

	(void)state;
	assert_true(before >= 0);
	life_begin(&life, false);
	life_until(&life, both_are_served);
	assert_true(is_greeted(before, PATIENCE_MS));
	close(before);
	life_end(&life);
	/* And so over an orderly end. */
	before = client("b");
	assert_true(before >= 0);
	life_begin(&life, false);
	life_until(&life, both_are_served);
	assert_true(is_greeted(before, PATIENCE_MS));
	close(before);
	life_end(&life);
}

/* Another process has the lock of a. */
static pid_t lock_a(int *tell)
{
	int ready[2], go[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	assert_int_equal(pipe(go), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int fd = open(in("store/a.img"), O_RDWR);

		close(go[1]);
		if (disk_lock_take(fd, DISK_LOCK_WRITE, 0, "a", NULL))
			_exit(1);
		if (write(ready[1], "r", 1) != 1)
			_exit(2);
		_exit(read(go[0], &byte, 1) == 0 ? 0 : 3);
	}
	close(ready[1]);
	close(go[0]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	*tell = go[1];
	return pid;
}

static bool b_is_served_a_waits(struct life *life)
{
	struct attachment *a = inventory_attachment(life->inventory, "a");

	assert_null(a->disk);
	return inventory_attachment(life->inventory, "b")->disk &&
	       a->error.id == ERR_DISK_IN_USE && !a->attaching;
}

static void test_lock_is_waited_for(void **state)
{
	struct life life;
	int tell, status, before = client("a");
	pid_t pid = lock_a(&tell);

	(void)state;
	life_begin(&life, false);
	/* The neighbour does not wait with it, though both are on one datastore. */
	life_until(&life, b_is_served_a_waits);
	inventory_attach_waiting(life.inventory);
	/* Refused once more, it is not given up: who waits for all disks waits on. */
	life_until(&life, b_is_served_a_waits);
	assert_false(life.is_restored);
	close(tell);
	life_until(&life, both_are_served);
	assert_true(life.is_restored);
	assert_true(is_greeted(before, PATIENCE_MS));
	assert_int_equal(inventory_attachment(life.inventory, "a")->error.id, ERR_NONE);
	close(before);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	life_end(&life);
}

/* The daemon can be stopped while a disk waits. */
static void test_stop_while_waiting(void **state)
{
	struct life life;
	int tell, status;
	pid_t pid = lock_a(&tell);

	(void)state;
	life_begin(&life, false);
	life_until(&life, b_is_served_a_waits);
	life_end(&life);
	close(tell);
	assert_int_equal(waitpid(pid, &status, 0), pid);
}

static bool b_is_served_a_failed(struct life *life)
{
	return inventory_attachment(life->inventory, "b")->disk &&
	       inventory_attachment(life->inventory, "a")->error.id == ERR_EXPORT_SOCKET;
}

/* Somebody serves the socket meanwhile: that fails, and is tried again. */
static void test_socket_is_served_by_another(void **state)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct life life;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)state;
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/disks/a.sock", dir);
	assert_int_equal(unlink(address.sun_path), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fd, 8), 0);
	life_begin(&life, false);
	life_until(&life, b_is_served_a_failed);
	close(fd);
	life_until(&life, both_are_served);
	life_end(&life);
}

static bool b_is_served_alone(struct life *life)
{
	assert_null(inventory_attachment(life->inventory, "a")->disk);
	return inventory_attachment(life->inventory, "b")->disk;
}

/* Only what a move is about waits for the moves to be looked through. */
static void test_disk_in_move_waits(void **state)
{
	struct life life;

	(void)state;
	life_begin(&life, true);
	/* The second of them: had the first been tried, its turn had come before. */
	life_until(&life, b_is_served_alone);
	assert_int_equal(life.came_up, 1);
	assert_false(life.is_restored);
	assert_false(inventory_attachment(life.inventory, "a")->attaching);
	inventory_attach_waiting(life.inventory);
	life_until(&life, both_are_served);
	assert_true(life.is_restored);
	life_end(&life);
}

/* At once: in the next turn it may be tried again, and cannot be forgotten then. */
static bool a_waits_and_is_forgotten(struct life *life)
{
	if (!b_is_served_a_waits(life))
		return false;
	life->is_stored = false;
	assert_int_equal(inventory_forget(life->inventory, "a", stored, life, NULL), 0);
	return true;
}

static bool a_is_gone(struct life *life)
{
	return life->is_stored && !disk_service_is_busy(life->disks);
}

/* Detached while it waits for its datastore: nobody is left in its backlog. */
static void test_forgotten_socket_is_closed(void **state)
{
	struct life life;
	int tell, status;
	pid_t pid = lock_a(&tell);

	(void)state;
	life_begin(&life, false);
	life_until(&life, a_waits_and_is_forgotten);
	life_until(&life, a_is_gone);
	assert_int_equal(client("a"), -1);
	assert_int_equal(access(in("disks/a.sock"), F_OK), -1);
	assert_int_equal(socket_holder_count(life.holder), 1);
	close(tell);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	life_end(&life);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_backlog_is_answered),
		TEST(test_lock_is_waited_for),
		TEST(test_stop_while_waiting),
		TEST(test_socket_is_served_by_another),
		TEST(test_disk_in_move_waits),
		TEST(test_forgotten_socket_is_closed),
	};

	if (holder_is_asked(argc, argv))
		return holder_main(argv);
	log_set_level(getenv("BM_TEST_LOG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
	if (argc == 3 && strcmp(argv[1], FIRST_LIFE) == 0) {
		snprintf(dir, sizeof(dir), "%s", argv[2]);
		first_life();
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
