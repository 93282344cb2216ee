/* SPDX-License-Identifier: Apache-2.0 */
/* test_disk.c - attach and detach: ids, sockets, locks, clients, and what each failure leaves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/lib/move_fixture.h"
#include "tests/lib/vhost_front.h"
#include "vmotion/disk_socket.h"

static void open_world(struct move_fixture *fixture, uint32_t io_threads)
{
	move_fixture_make(fixture);
	move_fixture_open(fixture, io_threads);
	make_disk(fixture, 0, "a.img");
	make_disk(fixture, 0, "b.img");
}

static void close_world(struct move_fixture *fixture)
{
	move_fixture_close(fixture);
	move_fixture_remove(fixture);
}

static int client(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	close(fd);
	return -1;
}

/* Connected, and greeted by an NBD server. */
static int nbd_greeted(const char *path)
{
	char greeting[18];
	int fd = client(path);

	assert_true(fd >= 0);
	assert_int_equal(recv(fd, greeting, sizeof(greeting), MSG_WAITALL), sizeof(greeting));
	assert_memory_equal(greeting, "NBDMAGIC", 8);
	return fd;
}

static void test_attach_and_detach(void **state)
{
	struct move_fixture fixture;
	struct disk_info info;
	struct disk *disk;
	struct stat st;
	char uri[300];

	(void)state;
	open_world(&fixture, 1);
	assert_false(disk_service_uses(fixture.service, fixture.ds[0]));
	disk = attach_path(&fixture, 0, "a.img", NULL);
	assert_non_null(disk);
	disk_info(disk, &info);
	assert_string_equal(info.id, "d1");
	assert_string_equal(info.datastore, "one");
	assert_string_equal(info.path, "a.img");
	assert_int_equal(info.disk.size_bytes, MOVE_DISK_BYTES);
	snprintf(uri, sizeof(uri), "nbd+unix:///d1?socket=%s/disks/d1.sock", fixture.run_dir);
	assert_string_equal(info.uri, uri);
	assert_int_equal(stat(info.socket_path, &st), 0);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 0777, 0660);
	close(nbd_greeted(info.socket_path));
	assert_ptr_equal(disk_find(fixture.service, "d1"), disk);
	assert_ptr_equal(disk_find_by_path(fixture.service, fixture.ds[0], "a.img"), disk);
	assert_ptr_equal(disk_next(fixture.service, NULL), disk);
	assert_null(disk_next(fixture.service, disk));
	assert_true(disk_service_uses(fixture.service, fixture.ds[0]));
	assert_false(disk_service_uses(fixture.service, fixture.ds[1]));
	assert_int_equal(detach(&fixture, disk, true), ERR_NONE);
	assert_int_equal(access(info.socket_path, F_OK), -1);
	assert_null(disk_find(fixture.service, "d1"));
	assert_false(disk_service_uses(fixture.service, fixture.ds[0]));
	close_world(&fixture);
}

static void assert_attach_refused(struct move_fixture *fixture,
				  const struct disk_attach_spec *spec, enum err_id id)
{
	assert_null(attach(fixture, spec));
	assert_int_equal(fixture->err.id, id);
	assert_true(fixture->err.cause[0]);
}

static void test_refusals(void **state)
{
	struct move_fixture fixture;
	struct disk_attach_spec spec, other;
	char path[160];
	int fd;

	(void)state;
	open_world(&fixture, 1);
	spec = (struct disk_attach_spec){ .datastore = fixture.ds[0], .path = "b.img",
					  .export_kind = DISK_EXPORT_NBD, .id = "b" };
	assert_non_null(attach_path(&fixture, 0, "a.img", "a"));
	other = spec;
	other.id = "a";
	assert_attach_refused(&fixture, &other, ERR_DISK_ID_TAKEN);
	other.id = "../a";
	assert_attach_refused(&fixture, &other, ERR_BAD_NAME);
	other.id = "";
	assert_attach_refused(&fixture, &other, ERR_BAD_NAME);
	other = spec;
	other.path = "a.img";
	assert_attach_refused(&fixture, &other, ERR_DISK_ATTACHED);
	other.path = "nobody.img";
	assert_attach_refused(&fixture, &other, ERR_DISK_UNKNOWN);
	other.path = "../b.img";
	assert_attach_refused(&fixture, &other, ERR_DS_PATH_ESCAPE);
	other = spec;
	other.export_kind = (enum disk_export)9;
	assert_attach_refused(&fixture, &other, ERR_EXPORT_KIND);
	other = spec;
	other.socket_path = "relative.sock";
	assert_attach_refused(&fixture, &other, ERR_EXPORT_SOCKET);
	memset(path, 'x', sizeof(path) - 1);
	path[0] = '/';
	path[DISK_SOCKET_BYTES] = '\0';
	other.socket_path = path;
	assert_attach_refused(&fixture, &other, ERR_EXPORT_SOCKET);
	/* A file that is no socket is never replaced. */
	snprintf(path, sizeof(path), "%s/file", fixture.root);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_attach_refused(&fixture, &other, ERR_EXPORT_SOCKET);
	assert_int_equal(access(path, F_OK), 0);
	/* And after all of that it can be attached: nothing was left locked or taken. */
	assert_non_null(attach(&fixture, &spec));
	close_world(&fixture);
}

static void test_stale_socket_is_replaced_live_one_not(void **state)
{
	struct move_fixture fixture;
	struct disk_attach_spec spec;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct disk_info info;
	struct disk *disk;
	char path[DISK_SOCKET_BYTES];
	int fd;

	(void)state;
	open_world(&fixture, 1);
	snprintf(path, sizeof(path), "%s/x.sock", fixture.root);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fd, 1), 0);
	spec = (struct disk_attach_spec){ .datastore = fixture.ds[0], .path = "a.img",
					  .export_kind = DISK_EXPORT_NBD, .socket_path = path };
	assert_attach_refused(&fixture, &spec, ERR_EXPORT_SOCKET);
	close(fd);                      /* its daemon dies; the file stays */
	assert_int_equal(access(path, F_OK), 0);
	disk = attach(&fixture, &spec);
	assert_non_null(disk);
	disk_info(disk, &info);
	close(nbd_greeted(info.socket_path));
	/* Somebody else's socket at our path is not removed with the disk. */
	assert_int_equal(unlink(path), 0);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(detach(&fixture, disk, true), ERR_NONE);
	assert_int_equal(access(path, F_OK), 0);
	close(fd);
	close_world(&fixture);
}

static void test_busy_client(void **state)
{
	struct move_fixture fixture;
	struct disk_info info;
	struct disk *disk;
	char byte;
	int fd;

	(void)state;
	open_world(&fixture, 1);
	disk = attach_path(&fixture, 0, "a.img", "a");
	disk_info(disk, &info);
	fd = nbd_greeted(info.socket_path);
	assert_int_equal(detach(&fixture, disk, false), ERR_EXPORT_BUSY);
	close(nbd_greeted(info.socket_path));           /* still served */
	for (disk_info(disk, &info); info.clients == 0; disk_info(disk, &info))
		wait_ns(&fixture, 50 * NS_PER_MS);
	assert_int_equal(detach(&fixture, disk, true), ERR_NONE);
	assert_true(recv(fd, &byte, 1, 0) <= 0);
	close(fd);
	assert_non_null(attach_path(&fixture, 0, "a.img", "a"));
	close_world(&fixture);
}

/* The same life with the other export: a socket, no URI, one front end that keeps it busy. */
static void test_vhost_user_export(void **state)
{
	struct move_fixture fixture;
	struct disk_attach_spec spec;
	struct disk_info info;
	struct disk *disk;
	struct front front;

	(void)state;
	open_world(&fixture, 1);
	spec = (struct disk_attach_spec){ .datastore = fixture.ds[0], .path = "a.img",
					  .export_kind = DISK_EXPORT_VHOST_USER, .id = "a" };
	disk = attach(&fixture, &spec);
	assert_non_null(disk);
	disk_info(disk, &info);
	assert_string_equal(info.uri, "");
	front_init(&front, 64);
	front_usual(&front, info.socket_path, 1);
	memset(front.memory + FRONT_DATA, 0x5a, 4096);
	assert_int_equal(front_io(&front, 0, VIRTIO_BLK_T_OUT, 8, FRONT_DATA, 4096), 0);
	assert_int_equal(front_io(&front, 0, VIRTIO_BLK_T_IN, 8, FRONT_DATA + 8192, 4096), 0);
	assert_int_equal(front.memory[FRONT_DATA + 8192 + 4095], 0x5a);
	assert_int_equal(detach(&fixture, disk, false), ERR_EXPORT_BUSY);
	for (disk_info(disk, &info); info.clients == 0; disk_info(disk, &info))
		wait_ns(&fixture, 50 * NS_PER_MS);
	assert_int_equal(detach(&fixture, disk, true), ERR_NONE);
	assert_true(front_is_dropped(&front));
	assert_int_equal(access(info.socket_path, F_OK), -1);
	front_release(&front);
	close_world(&fixture);
}

/* Fail the 1st, 2nd ... operation of an attach: nothing is left, and it works the next time. */
static void test_each_failing_attach_unwinds(void **state)
{
	bool fired = true;

	(void)state;
	for (uint64_t nth = 1; fired; nth++) {
		struct move_fixture fixture;
		struct disk *disk;
		char path[160];

		open_world(&fixture, 1);
		ds_fault_fail_at(nth);
		disk = attach_path(&fixture, 0, "a.img", "a");
		fired = ds_fault_count() >= nth;
		ds_fault_fail_at(0);
		assert_true(fired == !disk);
		if (fired) {
			assert_int_equal(fixture.err.id, ERR_DS_IO);
			snprintf(path, sizeof(path), "%s/disks/a.sock", fixture.run_dir);
			assert_int_equal(access(path, F_OK), -1);
			assert_null(disk_next(fixture.service, NULL));
			assert_false(disk_service_uses(fixture.service, fixture.ds[0]));
			assert_non_null(attach_path(&fixture, 0, "a.img", "a"));
		}
		close_world(&fixture);
	}
}

static void test_threads_are_shared_out(void **state)
{
	struct move_fixture fixture;
	struct disk_attach_spec spec;
	struct disk *a, *b, *c;

	(void)state;
	open_world(&fixture, 2);
	make_disk(&fixture, 0, "c.img");
	a = attach_path(&fixture, 0, "a.img", "a");
	b = attach_path(&fixture, 0, "b.img", "b");
	assert_ptr_not_equal(disk_loop(a), disk_loop(b));
	spec = (struct disk_attach_spec){ .datastore = fixture.ds[0], .path = "c.img",
					  .beside = b };
	c = attach(&fixture, &spec);
	assert_ptr_equal(disk_loop(c), disk_loop(b));
	close_world(&fixture);
}

static void test_guest_window(void **state)
{
	struct move_fixture fixture;
	struct disk_guest_window window;
	struct guest *guest;
	struct disk *disk;
	uint64_t failures;

	(void)state;
	open_world(&fixture, 1);
	disk = attach_path(&fixture, 0, "a.img", "a");
	disk_guest_window(disk, 1, &window);
	assert_int_equal(window.span_ns, 0);
	guest = guest_start(&fixture, disk, 2);
	do {
		wait_ns(&fixture, 100 * NS_PER_MS);
		disk_guest_window(disk, 10, &window);
	} while (window.span_ns == 0 || io_snapshot_ops(&window.io) == 0);
	assert_true(window.max_ns > 0);
	assert_true(window.io.write_ops > 0);
	assert_true(guest_stop(guest, &failures));
	close_world(&fixture);
}

static void test_uri_is_encoded(void **state)
{
	char uri[DISK_URI_BYTES], path[DISK_SOCKET_BYTES];

	(void)state;
	disk_socket_uri("a", "/run/x y&z%?#=+.sock", uri);
	assert_string_equal(uri, "nbd+unix:///a?socket=/run/x%20y%26z%25%3F%23%3D%2B.sock");
	memset(path, ' ', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	path[0] = '/';
	disk_socket_uri("a123456789012345678901234567890123456789012345678901234567890123", path,
			uri);
	assert_int_equal(strlen(uri), strlen("nbd+unix:///?socket=/") + 64 + 3 * 106);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_attach_and_detach),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_stale_socket_is_replaced_live_one_not),
		cmocka_unit_test(test_busy_client),
		cmocka_unit_test(test_vhost_user_export),
		cmocka_unit_test(test_each_failing_attach_unwinds),
		cmocka_unit_test(test_threads_are_shared_out),
		cmocka_unit_test(test_guest_window),
		cmocka_unit_test(test_uri_is_encoded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
