/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem_policy.h - when to send another round, throttle, stop the guest or give up; and which codec.
 *
 * Pure functions of what was measured.  Two truths rule:
 *
 *   a round that takes t seconds leaves about min(working set, dirty rate x t) to send, so
 *   rounds get shorter as long as the guest dirties more slowly than the link carries;
 *   what is left when the guest stops is the blackout: left / link rate + what is fixed.
 *
 * A guest is throttled only when rounds have stopped getting shorter, only as far as needed
 * (its rate becomes half of the link's, so that rounds halve), and never while disks are still
 * copied in bulk: that would slow the guest for something that does not wait for it.
 *
 * Units: bytes, nanoseconds, bytes per second, per cent of a vCPU's time taken away.
 */
#ifndef BM_VMOTION_MEM_POLICY_H
#define BM_VMOTION_MEM_POLICY_H

#include "vmotion/mem_batch.h"

#define MEM_THROTTLE_MAX_PERCENT 95u
/* So many rounds without getting better by a tenth: they do not converge. */
#define MEM_STALLED_ROUNDS 2u
/* So many more at the strongest throttle: it is given up. */
#define MEM_HOPELESS_ROUNDS 6u

struct mem_policy_options {
	uint64_t blackout_ns;           /* at most; 0 is never reached */
	uint32_t max_rounds;            /* then whatever is allowed must do; 0: no limit */
	uint32_t max_throttle_percent;  /* 0: never throttle */
};

struct mem_facts {
	uint64_t left_bytes;            /* changed and not yet sent, before encoding */
	uint64_t best_left_bytes;       /* the least that was left before any round so far */
	uint64_t dirty_rate;            /* bytes per second that the guest changes, as throttled now */
	uint64_t page_rate;             /* bytes of pages per second that the link carries */
	uint64_t fixed_ns;              /* of a blackout: scans, device state, round trips */
	uint32_t rounds;                /* sent so far */
	uint32_t stalled_rounds;        /* since best_left_bytes last fell by a tenth */
	uint32_t throttle_percent;      /* now */
	bool first_done;                /* all of the memory was sent once */
	bool disks_copying;             /* some disk is not in sync */
};

enum mem_verdict {
	MEM_ROUND,                      /* send what is left, the guest runs on */
	MEM_WAIT,                       /* good enough, but the disks are not: a round now and then */
	MEM_STOP,                       /* stop the guest and send the rest */
	MEM_GIVE_UP,                    /* it cannot be done within the blackout that is allowed */
};

struct mem_decision {
	enum mem_verdict verdict;
	uint32_t throttle_percent;      /* from now on */
	uint64_t blackout_ns;           /* predicted, if the guest stopped now; UINT64_MAX: no idea */
};

struct mem_decision mem_policy_decide(const struct mem_policy_options *options,
				      const struct mem_facts *facts);

uint64_t mem_policy_blackout_ns(const struct mem_facts *facts);

/* Count best_left_bytes and stalled_rounds on after a look at what is left. */
void mem_policy_note(struct mem_facts *facts);

/* ---- which codec ---- */

struct mem_codec_facts {
	/* Per MiB of pages: what encoding costs, and the wire bytes that come out, in 1/1024. */
	uint64_t encode_ns[MEM_CODEC_COUNT];
	uint32_t ratio[MEM_CODEC_COUNT];
	uint64_t link_ns;               /* per MiB on the wire; 0: the link has never made us wait */
};

/* What is believed before anything was measured. */
void mem_codec_facts_init(struct mem_codec_facts *facts);

/* Of pages that went through a codec. */
void mem_codec_facts_note(struct mem_codec_facts *facts, enum mem_codec codec, uint64_t raw_bytes,
			  uint64_t wire_bytes, uint64_t encode_ns);

/* The codec with which a MiB is there soonest; the current one unless another is a tenth better. */
enum mem_codec mem_policy_codec(const struct mem_codec_facts *facts, enum mem_codec current);

#endif
