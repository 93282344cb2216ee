/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost_proto.h - what goes over a vhost-user socket, in the words of QEMU's vhost-user.rst.
 *
 * A message is a header of 12 bytes, a payload whose size the header tells, and descriptors
 * that travel beside its first byte.  Everything is in the host's own byte order.  Only what
 * this back end speaks is named here.
 */
#ifndef BM_VHOST_PROTO_H
#define BM_VHOST_PROTO_H

#include <stddef.h>
#include <stdint.h>

/* ---- header ---- */

#define VHOST_USER_VERSION 1u
#define VHOST_USER_VERSION_MASK 3u
#define VHOST_USER_FLAG_REPLY 4u
#define VHOST_USER_FLAG_NEED_REPLY 8u
#define VHOST_USER_FLAGS_KNOWN 15u

struct vhost_wire_header {
	uint32_t request;
	uint32_t flags;
	uint32_t size_bytes;            /* of the payload */
};
_Static_assert(sizeof(struct vhost_wire_header) == 12, "the wire's header");

enum vhost_user_request {
	VHOST_USER_GET_FEATURES = 1,
	VHOST_USER_SET_FEATURES = 2,
	VHOST_USER_SET_OWNER = 3,
	VHOST_USER_RESET_OWNER = 4,
	VHOST_USER_SET_MEM_TABLE = 5,
	VHOST_USER_SET_LOG_BASE = 6,
	VHOST_USER_SET_LOG_FD = 7,
	VHOST_USER_SET_VRING_NUM = 8,
	VHOST_USER_SET_VRING_ADDR = 9,
	VHOST_USER_SET_VRING_BASE = 10,
	VHOST_USER_GET_VRING_BASE = 11,
	VHOST_USER_SET_VRING_KICK = 12,
	VHOST_USER_SET_VRING_CALL = 13,
	VHOST_USER_SET_VRING_ERR = 14,
	VHOST_USER_GET_PROTOCOL_FEATURES = 15,
	VHOST_USER_SET_PROTOCOL_FEATURES = 16,
	VHOST_USER_GET_QUEUE_NUM = 17,
	VHOST_USER_SET_VRING_ENABLE = 18,
	VHOST_USER_SET_BACKEND_REQ_FD = 21,
	VHOST_USER_GET_CONFIG = 24,
	VHOST_USER_SET_CONFIG = 25,
	VHOST_USER_GET_INFLIGHT_FD = 31,
	VHOST_USER_SET_INFLIGHT_FD = 32,
	VHOST_USER_RESET_DEVICE = 34,
	VHOST_USER_GET_MAX_MEM_SLOTS = 36,
	VHOST_USER_ADD_MEM_REG = 37,
	VHOST_USER_REM_MEM_REG = 38,
	VHOST_USER_REQUEST_END,
};

/* From us, on the back end's own channel. */
#define VHOST_USER_BACKEND_CONFIG_CHANGE 2u

/* ---- features ---- */

/* Beside virtio's own bits. */
#define VHOST_F_LOG_ALL_BIT 26
#define VHOST_USER_F_PROTOCOL_FEATURES_BIT 30

enum vhost_user_protocol_feature {
	VHOST_USER_PROTOCOL_F_MQ = 0,
	VHOST_USER_PROTOCOL_F_LOG_SHMFD = 1,
	VHOST_USER_PROTOCOL_F_REPLY_ACK = 3,
	VHOST_USER_PROTOCOL_F_BACKEND_REQ = 5,
	VHOST_USER_PROTOCOL_F_CONFIG = 9,
	VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD = 12,
	VHOST_USER_PROTOCOL_F_RESET_DEVICE = 13,
	VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS = 15,
};

/* ---- payloads ---- */

#define VHOST_USER_TABLE_REGIONS_MAX 8u
#define VHOST_USER_CONFIG_BYTES_MAX 256u
#define VHOST_USER_FDS_MAX 8u

/* SET_VRING_KICK, _CALL, _ERR: the queue's index; is a descriptor missing on purpose? */
#define VHOST_USER_VRING_INDEX_MASK UINT64_C(0xff)
#define VHOST_USER_VRING_NO_FD UINT64_C(0x100)

struct vhost_wire_region {
	uint64_t gpa;                   /* guest physical address */
	uint64_t len_bytes;
	uint64_t hva;                   /* the front end's own address */
	uint64_t mmap_offset_bytes;     /* into the descriptor */
};

struct vhost_wire_table {
	uint32_t count;
	uint32_t padding;
	struct vhost_wire_region regions[VHOST_USER_TABLE_REGIONS_MAX];
};
_Static_assert(sizeof(struct vhost_wire_table) == 264, "the wire's memory table");

struct vhost_wire_one_region {
	uint64_t padding;
	struct vhost_wire_region region;
};
_Static_assert(sizeof(struct vhost_wire_one_region) == 40, "the wire's single region");

struct vhost_wire_vring_state {
	uint32_t index;
	uint32_t value;
};

struct vhost_wire_vring_addr {
	uint32_t index;
	uint32_t flags;
	uint64_t desc_hva;
	uint64_t used_hva;
	uint64_t avail_hva;
	uint64_t log_gpa;               /* of the used ring */
};
_Static_assert(sizeof(struct vhost_wire_vring_addr) == 40, "the wire's ring addresses");

struct vhost_wire_log {
	uint64_t len_bytes;
	uint64_t mmap_offset_bytes;
};

struct vhost_wire_inflight {
	uint64_t len_bytes;
	uint64_t mmap_offset_bytes;
	uint16_t queue_count;
	uint16_t queue_size;
	uint32_t padding;               /* some send it, some do not */
};
#define VHOST_WIRE_INFLIGHT_BYTES_MIN 20u
_Static_assert(sizeof(struct vhost_wire_inflight) == 24, "the wire's in-flight region");

struct vhost_wire_config {
	uint32_t offset_bytes;
	uint32_t len_bytes;
	uint32_t flags;
	uint8_t bytes[VHOST_USER_CONFIG_BYTES_MAX];
};
#define VHOST_WIRE_CONFIG_HEADER_BYTES 12u
_Static_assert(offsetof(struct vhost_wire_config, bytes) == VHOST_WIRE_CONFIG_HEADER_BYTES,
	       "the wire's config");

union vhost_wire_payload {
	uint64_t u64;
	struct vhost_wire_table table;
	struct vhost_wire_one_region one_region;
	struct vhost_wire_vring_state vring_state;
	struct vhost_wire_vring_addr vring_addr;
	struct vhost_wire_log log;
	struct vhost_wire_inflight inflight;
	struct vhost_wire_config config;
};

/* ---- the in-flight region: a queue's part, on a multiple of 64 bytes ---- */

#define VHOST_INFLIGHT_VERSION 1u
#define VHOST_INFLIGHT_ALIGN 64u

struct vhost_inflight_desc {
	uint8_t inflight;
	uint8_t padding[5];
	uint16_t next;                  /* the batch's list of heads */
	uint64_t counter;               /* order of taking */
};
_Static_assert(sizeof(struct vhost_inflight_desc) == 16, "the region's entry");

struct vhost_inflight_queue {
	uint64_t features;
	uint16_t version;               /* 0: never used */
	uint16_t desc_count;
	uint16_t last_batch_head;
	uint16_t used_idx;
	struct vhost_inflight_desc descs[];
};
_Static_assert(sizeof(struct vhost_inflight_queue) == 16, "the region's head");

#endif
