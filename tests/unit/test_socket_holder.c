/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_socket_holder.c - sockets that outlive their daemon: who holds them, and what is taken back.
 *
 * This program is the holder process too, as blkmirrord is: see main().
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "vmotion/holder_serve.h"

#define PATIENCE_MS 30000

static char dir[64], path[96], other_path[96];
static struct err err;

static struct sockaddr_un address_of(const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", name);
	return address;
}

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/bm-holder-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/d1.sock", dir);
	snprintf(other_path, sizeof(other_path), "%s/d2.sock", dir);
	unsetenv("NOTIFY_SOCKET");
	unsetenv("FDSTORE");
	return 0;
}

/* Removing the directory ends its holder. */
static int teardown(void **state)
{
	char command[96];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

static struct socket_holder *open_holder(enum socket_holder_kind kind, uint32_t linger_s)
{
	struct socket_holder_options options = { .kind = kind, .run_dir = dir,
						 .linger_s = linger_s };
	struct socket_holder *holder = NULL;

	assert_int_equal(socket_holder_open(&options, &holder, &err), 0);
	return holder;
}

static struct disk_socket listen_at(const char *name)
{
	struct disk_socket sock;

	assert_int_equal(disk_socket_listen(name, &sock, &err), 0);
	return sock;
}

/* Kept, and our own descriptor closed as by a death. */
static void keep_at(struct socket_holder *holder, const char *id, const char *name)
{
	struct disk_socket sock = listen_at(name);

	assert_true(socket_holder_keep(holder, id, &sock));
	close(sock.fd);
}

static int client(const char *name)
{
	struct sockaddr_un address = address_of(name);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	close(fd);
	return -1;
}

/* ---- the process, from outside ---- */

static bool is_holder(pid_t pid)
{
	char name[64], line[256] = "";
	ssize_t got;
	int fd;

	snprintf(name, sizeof(name), "/proc/%d/cmdline", (int)pid);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	got = read(fd, line, sizeof(line) - 1);
	close(fd);
	for (ssize_t i = 0; i + 1 < got; i++)
		if (line[i] == '\0')
			line[i] = ' ';
	return strstr(line, HOLDER_MODE) && strstr(line, dir);
}

/* A pidfd of this test's holder; -1: there is none. */
static int holder_process(pid_t *pid_out)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	int fd = -1;

	assert_non_null(proc);
	while (fd < 0 && (entry = readdir(proc))) {
		pid_t pid = atoi(entry->d_name);

		if (pid > 0 && is_holder(pid)) {
			fd = (int)syscall(SYS_pidfd_open, pid, 0);
			*pid_out = pid;
		}
	}
	closedir(proc);
	return fd;
}

static bool has_ended(int pidfd, int patience_ms)
{
	struct pollfd poll_fd = { .fd = pidfd, .events = POLLIN };

	return poll(&poll_fd, 1, patience_ms) == 1;
}

static int must_run(void)
{
	pid_t pid;
	int fd = holder_process(&pid);

	assert_true(fd >= 0);
	return fd;
}

static void must_end(int pidfd)
{
	assert_true(has_ended(pidfd, PATIENCE_MS));
	close(pidfd);
}

static int raw_client(void)
{
	struct sockaddr_un address;
	char name[96];
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(name, sizeof(name), "%s/" HOLDER_SOCKET_NAME, dir);
	address = address_of(name);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

/* ---- what is a message ---- */

static void test_messages(void **state)
{
	struct holder_message good, message, out;
	char longer[sizeof(good) + 1] = { 0 };

	(void)state;
	holder_message_init(&good, HOLDER_STORE, "disk-1-2-d1");
	assert_int_equal(holder_message_judge(&good, sizeof(good), &out), 0);
	assert_string_equal(out.name, "disk-1-2-d1");
	memcpy(longer, &good, sizeof(good));
	assert_int_equal(holder_message_judge(longer, sizeof(longer), &out), -EBADMSG);
	for (size_t length = 0; length < sizeof(good); length++)
		assert_int_equal(holder_message_judge(&good, length, &out), -EBADMSG);
	message = good;
	message.magic++;
	assert_int_equal(holder_message_judge(&message, sizeof(message), &out), -EBADMSG);
	message = good;
	message.version++;
	assert_int_equal(holder_message_judge(&message, sizeof(message), &out), -EPROTONOSUPPORT);
	message = good;
	message.type = 0;
	assert_int_equal(holder_message_judge(&message, sizeof(message), &out), -EBADMSG);
	message.type = HOLDER_DONE + 1;
	assert_int_equal(holder_message_judge(&message, sizeof(message), &out), -EBADMSG);
	message.type = HOLDER_TAKE;     /* it has no name */
	assert_int_equal(holder_message_judge(&message, sizeof(message), &out), -EBADMSG);
	message = good;
	message.name[0] = '\0';
	assert_int_equal(holder_message_judge(&message, sizeof(message), &out), -EBADMSG);
	message = good;
	message.name[3] = '/';
	assert_int_equal(holder_message_judge(&message, sizeof(message), &out), -EBADMSG);
	memset(message.name, 'a', sizeof(message.name));        /* without an end */
	assert_int_equal(holder_message_judge(&message, sizeof(message), &out), -EBADMSG);
}

/* ---- what is done with one ---- */

static int table_do(struct holder_table *table, enum holder_message_type type, const char *name,
		    int fd, uint32_t others, struct holder_message *answer)
{
	struct holder_message message;

	holder_message_init(&message, type, name);
	return holder_table_do(table, &message, fd, others, answer);
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static void test_table(void **state)
{
	struct disk_socket one = listen_at(path), two = listen_at(other_path);
	struct holder_message answer;
	struct holder_table table;
	int file = open("/dev/null", O_RDONLY);

	(void)state;
	assert_int_equal(holder_table_init(&table), 0);
	assert_int_equal(table_do(&table, HOLDER_STORE, "a", file, 0, &answer), 0);
	assert_int_equal(answer.result, -ENOTSOCK);
	assert_false(is_open(file));
	assert_int_equal(table_do(&table, HOLDER_STORE, "a", one.fd, 0, &answer), 0);
	assert_int_equal(answer.result, 0);
	assert_int_equal(table_do(&table, HOLDER_STORE, "a", two.fd, 0, &answer), 0);
	assert_false(is_open(one.fd));                  /* replaced */
	assert_int_equal(table_do(&table, HOLDER_TAKE, "", -1, 0, &answer), 0);
	assert_int_equal(answer.count, 1);
	assert_int_equal(table_do(&table, HOLDER_REMOVE, "b", -1, 0, &answer), 0);
	assert_int_equal(answer.result, -ENOENT);
	assert_int_equal(table_do(&table, HOLDER_RELEASE, "", -1, 1, &answer), 0);
	assert_int_equal(answer.result, -EBUSY);
	assert_true(is_open(two.fd));
	/* A descriptor where none belongs, none where one belongs, an answer for a question. */
	file = open("/dev/null", O_RDONLY);
	assert_int_equal(table_do(&table, HOLDER_TAKE, "", file, 0, &answer), -EBADMSG);
	assert_false(is_open(file));
	assert_int_equal(table_do(&table, HOLDER_STORE, "c", -1, 0, &answer), -EBADMSG);
	assert_int_equal(table_do(&table, HOLDER_HELD, "c", -1, 0, &answer), -EBADMSG);
	assert_int_equal(table_do(&table, HOLDER_DONE, "", -1, 0, &answer), -EBADMSG);
	assert_int_equal(table_do(&table, HOLDER_REMOVE, "a", -1, 0, &answer), 0);
	assert_int_equal(answer.result, 0);
	assert_false(is_open(two.fd));
	assert_int_equal(table.count, 0);
	holder_table_release(&table);
}

static void test_table_is_bounded(void **state)
{
	struct rlimit limit;
	struct disk_socket sock = listen_at(path);
	struct holder_message answer;
	struct holder_table table;
	char name[16];

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = MIN(limit.rlim_max, 8192);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	if (limit.rlim_cur < HOLDER_SOCKETS_MAX + 64) {
		close(sock.fd);
		print_message("too few descriptors allowed here\n");
		skip();
	}
	assert_int_equal(holder_table_init(&table), 0);
	for (unsigned i = 0; i <= HOLDER_SOCKETS_MAX; i++) {
		snprintf(name, sizeof(name), "s%u", i);
		assert_int_equal(table_do(&table, HOLDER_STORE, name, dup(sock.fd), 0, &answer), 0);
		assert_int_equal(answer.result, i < HOLDER_SOCKETS_MAX ? 0 : -ENOSPC);
	}
	assert_int_equal(table.count, HOLDER_SOCKETS_MAX);
	holder_table_release(&table);
	close(sock.fd);
}

/* ---- the process ---- */

/* R-J7: who connects while the daemon is away is served by the next one. */
static void test_outlives_the_daemon(void **state)
{
	struct socket_holder *holder = open_holder(SOCKET_HOLDER_PROCESS, 60);
	struct disk_socket sock = { .fd = -1 };
	int waiting, accepted, pidfd;

	(void)state;
	assert_int_equal(socket_holder_event_fd(holder), -1);   /* nothing to hold: no process */
	keep_at(holder, "d1", path);
	pidfd = must_run();
	socket_holder_close(holder);                            /* as a death does */
	waiting = client(path);
	assert_true(waiting >= 0);
	holder = open_holder(SOCKET_HOLDER_PROCESS, 60);
	assert_int_equal(socket_holder_count(holder), 1);
	assert_false(socket_holder_take(holder, "d2", path, &sock));
	assert_true(socket_holder_take(holder, "d1", path, &sock));
	accepted = accept4(sock.fd, NULL, NULL, SOCK_NONBLOCK);
	assert_true(accepted >= 0);
	close(accepted);
	close(waiting);
	close(sock.fd);
	/* Detached: nobody listens any more, and a process with nothing to hold ends. */
	assert_true(socket_holder_forget(holder, "d1", &sock));
	assert_int_equal(client(path), -1);
	assert_false(has_ended(pidfd, 0));
	socket_holder_close(holder);
	must_end(pidfd);
}

static void test_other_file_is_not_taken(void **state)
{
	struct socket_holder *holder = open_holder(SOCKET_HOLDER_PROCESS, 60);
	struct disk_socket sock = { .fd = -1 };
	int fd;

	(void)state;
	keep_at(holder, "d1", path);
	keep_at(holder, "d2", other_path);
	socket_holder_close(holder);
	assert_int_equal(unlink(path), 0);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	close(fd);
	assert_int_equal(unlink(other_path), 0);
	sock = listen_at(other_path);                           /* another socket, same name */
	close(sock.fd);
	holder = open_holder(SOCKET_HOLDER_PROCESS, 60);
	assert_int_equal(socket_holder_count(holder), 2);
	assert_false(socket_holder_take(holder, "d1", path, &sock));
	assert_false(socket_holder_take(holder, "d2", other_path, &sock));
	assert_int_equal(socket_holder_count(holder), 0);
	socket_holder_close(holder);
}

static bool wants_d2(const char *id, const void *user)
{
	(void)user;
	return strcmp(id, "d2") == 0;
}

static void test_sweep(void **state)
{
	struct socket_holder *holder = open_holder(SOCKET_HOLDER_PROCESS, 60);
	struct disk_socket sock;

	(void)state;
	keep_at(holder, "d1", path);
	keep_at(holder, "d2", other_path);
	socket_holder_close(holder);
	holder = open_holder(SOCKET_HOLDER_PROCESS, 60);
	socket_holder_sweep(holder, wants_d2, NULL);
	assert_int_equal(socket_holder_count(holder), 1);
	assert_int_equal(client(path), -1);
	assert_true(socket_holder_take(holder, "d2", other_path, &sock));
	close(sock.fd);
	socket_holder_close(holder);
}

static void test_ends_without_a_daemon(void **state)
{
	struct socket_holder *holder = open_holder(SOCKET_HOLDER_PROCESS, 1);
	int pidfd, fd;

	(void)state;
	keep_at(holder, "d1", path);
	pidfd = must_run();
	assert_false(has_ended(pidfd, 1500));   /* not while a daemon is there */
	socket_holder_close(holder);
	fd = client(path);
	assert_true(fd >= 0);
	close(fd);
	must_end(pidfd);
	assert_int_equal(client(path), -1);
}

static void test_ends_with_the_directory(void **state)
{
	struct socket_holder *holder = open_holder(SOCKET_HOLDER_PROCESS, 60);
	int pidfd;

	(void)state;
	keep_at(holder, "d1", path);
	pidfd = must_run();
	teardown(NULL);
	must_end(pidfd);
	socket_holder_close(holder);
	assert_int_equal(mkdir(dir, 0700), 0);
}

static void test_release(void **state)
{
	struct socket_holder *holder = open_holder(SOCKET_HOLDER_PROCESS, 60);
	int pidfd;

	(void)state;
	assert_int_equal(socket_holder_release(dir, &err), 0);  /* there is none */
	keep_at(holder, "d1", path);
	pidfd = must_run();
	assert_int_equal(socket_holder_release(dir, &err), -EBUSY);
	assert_int_equal(err.id, ERR_SOCKET_HOLDER);
	socket_holder_close(holder);
	/* The daemon's end may reach it after our question. */
	while (socket_holder_release(dir, &err) == -EBUSY)
		;
	must_end(pidfd);
	assert_int_equal(client(path), -1);
}

/* Somebody kills it: the daemon has all sockets still. */
static void test_lost_holder_is_replaced(void **state)
{
	struct socket_holder *holder = open_holder(SOCKET_HOLDER_PROCESS, 60);
	struct disk_socket sock;
	struct pollfd hangup;
	pid_t pid;
	int pidfd;

	(void)state;
	keep_at(holder, "d1", path);
	pidfd = holder_process(&pid);
	assert_true(pidfd >= 0);
	assert_int_equal(kill(pid, SIGKILL), 0);
	hangup = (struct pollfd){ .fd = socket_holder_event_fd(holder) };
	assert_int_equal(poll(&hangup, 1, PATIENCE_MS), 1);
	must_end(pidfd);
	sock = listen_at(other_path);
	assert_false(socket_holder_keep(holder, "d2", &sock));  /* said, and it works all the same */
	close(sock.fd);
	assert_int_equal(socket_holder_again(holder, &err), 0);
	close(must_run());
	socket_holder_close(holder);
	holder = open_holder(SOCKET_HOLDER_PROCESS, 60);
	assert_true(socket_holder_take(holder, "d1", path, &sock));
	close(sock.fd);
	assert_true(socket_holder_take(holder, "d2", other_path, &sock));
	close(sock.fd);
	socket_holder_close(holder);
}

/* ---- hostile clients ---- */

static bool is_cut_off(int fd)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	char byte;

	return poll(&poll_fd, 1, 10000) == 1 && recv(fd, &byte, 1, 0) <= 0;
}

static void send_with_fds(int socket, const void *bytes, size_t length, int fd, unsigned count)
{
	char control[CMSG_SPACE(4 * sizeof(int))] __attribute__((aligned(8))) = { 0 };
	struct iovec iov = { (void *)bytes, length };
	struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
				 .msg_controllen = CMSG_SPACE(count * sizeof(int)) };
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&header);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(count * sizeof(int));
	for (unsigned i = 0; i < count; i++)
		memcpy(CMSG_DATA(cmsg) + i * sizeof(int), &fd, sizeof(int));
	assert_int_equal(sendmsg(socket, &header, MSG_NOSIGNAL), length);
}

static void test_hostile_clients(void **state)
{
	struct socket_holder *holder = open_holder(SOCKET_HOLDER_PROCESS, 60);
	struct holder_message message, answer;
	struct disk_socket sock;
	char big[4096] = { 0 };
	int fd, got;

	(void)state;
	keep_at(holder, "d1", path);
	holder_message_init(&message, HOLDER_STORE, "disk-1-1-x");
	fd = raw_client();
	assert_int_equal(send(fd, "x", 1, 0), 1);
	assert_true(is_cut_off(fd));
	close(fd);
	fd = raw_client();
	assert_int_equal(send(fd, big, sizeof(big), 0), sizeof(big));
	assert_true(is_cut_off(fd));
	close(fd);
	fd = raw_client();
	send_with_fds(fd, &message, sizeof(message), 0, 3);
	assert_true(is_cut_off(fd));
	close(fd);
	fd = raw_client();                      /* STORE without a descriptor */
	assert_int_equal(send(fd, &message, sizeof(message), 0), sizeof(message));
	assert_true(is_cut_off(fd));
	close(fd);
	fd = raw_client();                      /* of what is no socket: refused, not cut off */
	send_with_fds(fd, &message, sizeof(message), 0, 1);
	assert_int_equal(holder_message_recv(fd, &answer, &got), 0);
	assert_int_equal(answer.result, -ENOTSOCK);
	close(fd);
	socket_holder_close(holder);
	holder = open_holder(SOCKET_HOLDER_PROCESS, 60);
	assert_int_equal(socket_holder_count(holder), 1);
	assert_true(socket_holder_take(holder, "d1", path, &sock));
	close(sock.fd);
	socket_holder_close(holder);
}

/* Another user who has got as far as the socket gets no further. */
static void test_other_user_is_refused(void **state)
{
	struct socket_holder *holder;
	char name[96];
	int status;
	pid_t pid;

	(void)state;
	if (geteuid() != 0) {
		print_message("only root can be somebody else\n");
		skip();
	}
	holder = open_holder(SOCKET_HOLDER_PROCESS, 60);
	keep_at(holder, "d1", path);
	snprintf(name, sizeof(name), "%s/" HOLDER_SOCKET_NAME, dir);
	assert_int_equal(chmod(dir, 0755), 0);
	assert_int_equal(chmod(name, 0666), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(setuid(65534) ? 2 : !is_cut_off(raw_client()));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	socket_holder_close(holder);
}

/* A stranger listens where the holder should, and answers nonsense: the daemon starts. */
static void *nonsense(void *listen_fd)
{
	int fd = accept(*(int *)listen_fd, NULL, NULL);
	char bytes[512] = { 0 };

	CHECK(fd >= 0);
	CHECK(recv(fd, bytes, sizeof(bytes), 0) > 0);
	CHECK(send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL) > 0);
	close(fd);
	return NULL;
}

static void test_nonsense_from_a_holder(void **state)
{
	struct sockaddr_un address;
	struct socket_holder *holder;
	char name[96];
	int listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	pthread_t thread;

	(void)state;
	snprintf(name, sizeof(name), "%s/" HOLDER_SOCKET_NAME, dir);
	address = address_of(name);
	assert_int_equal(bind(listen_fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listen_fd, 4), 0);
	assert_int_equal(pthread_create(&thread, NULL, nonsense, &listen_fd), 0);
	log_set_level(LOG_LEVEL_ERROR);
	holder = open_holder(SOCKET_HOLDER_PROCESS, 60);
	pthread_join(thread, NULL);
	close(listen_fd);
	assert_int_equal(socket_holder_count(holder), 0);
	keep_at(holder, "d1", path);            /* a new process takes that place */
	close(must_run());
	socket_holder_close(holder);
}

/* ---- none, and systemd ---- */

static void test_none(void **state)
{
	struct socket_holder *holder = open_holder(SOCKET_HOLDER_PROCESS, 60);
	struct disk_socket sock;
	int pidfd;

	(void)state;
	keep_at(holder, "d1", path);
	pidfd = must_run();
	socket_holder_close(holder);
	holder = open_holder(SOCKET_HOLDER_NONE, 60);
	must_end(pidfd);                                /* what it held is ours alone now */
	assert_true(socket_holder_take(holder, "d1", path, &sock));
	close(sock.fd);
	sock = listen_at(other_path);
	assert_false(socket_holder_keep(holder, "d2", &sock));
	close(sock.fd);
	socket_holder_close(holder);
	assert_int_equal(client(path), -1);
}

struct manager {                        /* a service manager with a store of one descriptor */
	int socket;
	int stored;
	char name[128];
	bool removed;
};

static void manager_read(struct manager *manager)
{
	char text[512], control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
	struct iovec iov = { text, sizeof(text) - 1 };
	struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
				 .msg_controllen = sizeof(control) };
	ssize_t got = recvmsg(manager->socket, &header, 0);
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&header);
	int fd = -1;
	char *name;

	CHECK(got > 0);
	text[got] = '\0';
	if (cmsg && cmsg->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
	if (strstr(text, "FDSTORE=1")) {
		CHECK(fd >= 0 && strstr(text, "FDPOLL=0"));
		name = strstr(text, "FDNAME=");
		CHECK(name);
		snprintf(manager->name, sizeof(manager->name), "%.*s",
			 (int)strcspn(name + 7, "\n"), name + 7);
		manager->stored = fd;
	} else if (fd >= 0) {
		close(fd);              /* BARRIER=1 */
	}
	manager->removed |= strstr(text, "FDSTOREREMOVE=1") && strstr(text, manager->name);
}

static void *manager_run(void *user)
{
	struct manager *manager = user;

	manager_read(manager);
	manager_read(manager);          /* the barrier */
	return NULL;
}

/* The next life of the service; its exit status says how it went. */
static int next_life(const struct manager *manager)
{
	struct disk_socket sock = { .fd = -1 };
	struct socket_holder *holder;
	char pid[16];

	CHECK(dup2(manager->stored, 3) == 3);
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	setenv("LISTEN_PID", pid, 1);
	setenv("LISTEN_FDS", "1", 1);
	setenv("LISTEN_FDNAMES", manager->name, 1);
	holder = open_holder(SOCKET_HOLDER_AUTO, 60);
	if (socket_holder_count(holder) != 1 || getenv("LISTEN_FDS"))
		return 2;
	if (!socket_holder_take(holder, "d1", path, &sock))
		return 3;
	if (accept(sock.fd, NULL, NULL) < 0)
		return 4;
	return socket_holder_forget(holder, "d1", NULL) ? 0 : 5;
}

static void test_systemd(void **state)
{
	struct manager manager = { .stored = -1 };
	struct sockaddr_un address;
	struct socket_holder_options options = { .kind = SOCKET_HOLDER_SYSTEMD, .run_dir = dir };
	struct socket_holder *holder;
	pthread_t thread;
	char name[96];
	int status, waiting;
	pid_t pid;

	(void)state;
	assert_int_equal(socket_holder_open(&options, &holder, &err), -EINVAL);
	assert_int_equal(err.id, ERR_BAD_CONFIG);
	snprintf(name, sizeof(name), "%s/notify", dir);
	address = address_of(name);
	manager.socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(manager.socket, (struct sockaddr *)&address, sizeof(address)), 0);
	setenv("NOTIFY_SOCKET", name, 1);
	setenv("FDSTORE", "4096", 1);
	holder = open_holder(SOCKET_HOLDER_AUTO, 60);
	assert_int_equal(pthread_create(&thread, NULL, manager_run, &manager), 0);
	keep_at(holder, "d1", path);
	pthread_join(thread, NULL);
	socket_holder_close(holder);
	assert_true(manager.stored >= 0);
	waiting = client(path);
	assert_true(waiting >= 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(next_life(&manager));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	manager_read(&manager);
	assert_true(manager.removed);
	close(waiting);
	close(manager.stored);
	close(manager.socket);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_messages),
		TEST(test_table),
		TEST(test_table_is_bounded),
		TEST(test_outlives_the_daemon),
		TEST(test_other_file_is_not_taken),
		TEST(test_sweep),
		TEST(test_ends_without_a_daemon),
		TEST(test_ends_with_the_directory),
		TEST(test_release),
		TEST(test_lost_holder_is_replaced),
		TEST(test_hostile_clients),
		TEST(test_other_user_is_refused),
		TEST(test_nonsense_from_a_holder),
		TEST(test_none),
		TEST(test_systemd),
	};

	if (holder_is_asked(argc, argv))
		return holder_main(argv);
	log_set_level(getenv("BM_TEST_LOG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
