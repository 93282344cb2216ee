/* SPDX-License-Identifier: Apache-2.0 */
/* vhost_config.c - what the disk is, in virtio's words: feature bits and configuration space. */
#include <endian.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "blkmirror/export/vhost_private.h"

#define BIT(number) (UINT64_C(1) << (number))

_Static_assert(sizeof(struct virtio_blk_config) <= VHOST_USER_CONFIG_BYTES_MAX, "it fits");

/* Of every disk. */
static const uint64_t features_always =
	BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_RING_F_INDIRECT_DESC) |
	BIT(VIRTIO_BLK_F_SIZE_MAX) | BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_BLK_SIZE) |
	BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_TOPOLOGY) | BIT(VIRTIO_BLK_F_MQ) |
	BIT(VIRTIO_BLK_F_WRITE_ZEROES) | BIT(VHOST_F_LOG_ALL_BIT) |
	BIT(VHOST_USER_F_PROTOCOL_FEATURES_BIT);

uint64_t vhost_features_offered(const struct vhost_blk_server *server)
{
	uint64_t features = features_always;

	if (server->read_only)
		features |= BIT(VIRTIO_BLK_F_RO);
	/* Without it a guest's fstrim would write zeroes over all its free space. */
	if (server->dev->limits.can_unmap)
		features |= BIT(VIRTIO_BLK_F_DISCARD);
	return features;
}

uint64_t vhost_features_known(void)
{
	/*
	 * A guest keeps what it negotiated when the daemon is restarted, though the disk may
	 * lie on another store by then: zeroes are a lawful answer to a discard, too.
	 */
	return features_always | BIT(VIRTIO_BLK_F_RO) | BIT(VIRTIO_BLK_F_DISCARD);
}

uint64_t vhost_protocol_features(void)
{
	return BIT(VHOST_USER_PROTOCOL_F_MQ) | BIT(VHOST_USER_PROTOCOL_F_LOG_SHMFD) |
	       BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK) | BIT(VHOST_USER_PROTOCOL_F_BACKEND_REQ) |
	       BIT(VHOST_USER_PROTOCOL_F_CONFIG) | BIT(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD) |
	       BIT(VHOST_USER_PROTOCOL_F_RESET_DEVICE) |
	       BIT(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS);
}

/* ---- configuration space ---- */

static uint8_t exponent_of(uint32_t blocks)
{
	return (uint8_t)(31 - __builtin_clz(blocks));
}

static void config_fill(const struct vhost_blk_server *server, struct virtio_blk_config *config)
{
	const struct blk_limits *limits = &server->dev->limits;
	uint32_t block_bytes = MAX(limits->block_bytes, VHOST_SECTOR_BYTES);
	uint32_t physical_bytes = MAX(limits->physical_bytes, block_bytes);
	uint32_t zero_sectors = VHOST_ZERO_BYTES_MAX / VHOST_SECTOR_BYTES;

	*config = (struct virtio_blk_config){
		.capacity = htole64(server->dev->size_bytes / VHOST_SECTOR_BYTES),
		.size_max = htole32(VHOST_SIZE_MAX),
		.seg_max = htole32(VHOST_SEG_MAX),
		.blk_size = htole32(block_bytes),
		.physical_block_exp = exponent_of(physical_bytes / block_bytes),
		.min_io_size = htole16((uint16_t)MIN(physical_bytes / block_bytes, UINT16_MAX)),
		.wce = 1,               /* a cache that FLUSH empties */
		.num_queues = htole16((uint16_t)server->max_queues),
		.max_discard_sectors = htole32(zero_sectors),
		.max_discard_seg = htole32(1),
		.discard_sector_alignment = htole32(physical_bytes / VHOST_SECTOR_BYTES),
		.max_write_zeroes_sectors = htole32(zero_sectors),
		.max_write_zeroes_seg = htole32(1),
		.write_zeroes_may_unmap = limits->can_unmap,
	};
}

void vhost_config_read(const struct vhost_blk_server *server, uint32_t offset_bytes,
		       uint32_t len_bytes, uint8_t *to)
{
	uint8_t space[VHOST_USER_CONFIG_BYTES_MAX] = { 0 };
	struct virtio_blk_config config;

	CHECK(offset_bytes <= sizeof(space));
	CHECK(len_bytes <= sizeof(space) - offset_bytes);
	config_fill(server, &config);
	memcpy(space, &config, sizeof(config));
	memcpy(to, space + offset_bytes, len_bytes);
}
