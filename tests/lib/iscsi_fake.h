/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iscsi_fake.h - an iSCSI target in a thread of the test's own, that can be told to misbehave.
 *
 * It speaks just enough: login without authentication, one unit (LUN 1) of FAKE_BYTES in memory,
 * writes of at most 64 KiB as immediate data.  What it did stands in `log`, a letter each:
 *
 *   L login   R unit reset, answered   W write carried out   w write taken and kept
 *   Z WRITE SAME carried out   S cache synchronised
 *
 * The knobs may be turned at any time.
 */
#ifndef BM_TEST_ISCSI_FAKE_H
#define BM_TEST_ISCSI_FAKE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#define FAKE_BYTES (4u << 20)
#define FAKE_CONNECTIONS 8u
#define FAKE_LOG_BYTES 4096u
#define FAKE_KEPT 32u

struct fake_connection {
	int fd;
	uint32_t stat_sn, exp_cmd_sn;
};

struct iscsi_fake {
	uint16_t port;
	atomic_bool keeps_writes;       /* a write is neither carried out nor answered ... */
	atomic_bool refuses_reset, ignores_reset;
	atomic_bool hangs_up;           /* once: every connection ends, with a reset */
	atomic_bool short_reads;        /* half of what was asked, and says so */
	atomic_bool empty_reads;        /* GOOD, but no data */
	atomic_bool no_write_same;
	atomic_uint status;             /* of the next `status_count` READs and WRITEs; 0: none */
	atomic_uint status_count;
	atomic_uint blocks;             /* what READ CAPACITY says */
	/* The thread's; the test reads them under the mutex. */
	pthread_mutex_t mutex;
	char log[FAKE_LOG_BYTES];
	unsigned log_len;
	uint8_t *disk;
	struct {
		uint64_t offset_bytes;
		uint32_t len_bytes;
		uint8_t *bytes;
	} kept[FAKE_KEPT];
	unsigned kept_count;
	struct fake_connection connections[FAKE_CONNECTIONS];
	int listener, wake[2];
	atomic_bool stops;
	pthread_t thread;
};

void iscsi_fake_start(struct iscsi_fake *fake);
void iscsi_fake_stop(struct iscsi_fake *fake);
/* ... until now: what a unit reset has not thrown away lands. */
unsigned iscsi_fake_land(struct iscsi_fake *fake);
/* A copy of the log, for asserting on. */
const char *iscsi_fake_log(struct iscsi_fake *fake, char text[FAKE_LOG_BYTES]);
void iscsi_fake_forget(struct iscsi_fake *fake);

#endif
