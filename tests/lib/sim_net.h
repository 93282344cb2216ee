/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_net.h - connections between simulated hosts: late, in pieces, cut, or half-open.
 *
 * Bytes of one connection keep their order; connections among each other do not.  Each has a
 * bounded window.  All that happens comes from the loop's seed.
 */
#ifndef BM_TESTS_SIM_NET_H
#define BM_TESTS_SIM_NET_H

#include "vmotion/wire_pipe.h"

struct sim_net {
	struct loop *loop;
	uint64_t delay_max_ns;          /* of a piece */
	uint32_t window_bytes;          /* at most SIM_NET_WINDOW_MAX */
	bool dark;                      /* new connections are never answered */
	uint32_t refuse_one_in;         /* dials that fail; 0: none */
	struct list pairs;
	uint32_t pair_count;
	/* The other end of what was dialled, a moment later. */
	void (*arrived)(struct sim_net *net, struct wire_pipe *pipe);
};

#define SIM_NET_WINDOW_MAX (UINT32_C(64) << 10)

void sim_net_init(struct sim_net *net, struct loop *loop);
/* Every pipe must be closed. */
void sim_net_release(struct sim_net *net);

/* 0 and *out, or -ECONNREFUSED.  key: what each end finds proved of the other; "": plain. */
int sim_net_dial(struct sim_net *net, const char *key, struct wire_pipe **out);

/* One of the living connections, by chance: reset, each end learns it in its own time. */
void sim_net_cut_one(struct sim_net *net);
/* Nothing gets through any more, and nobody is told. */
void sim_net_hole_one(struct sim_net *net);
void sim_net_hole_all(struct sim_net *net);

#endif
