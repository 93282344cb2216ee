/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_memory.c - a guest's memory is sent while the guest writes: after the last round both are
 * equal, byte for byte, whatever the order of writes, snapshots, harvests and batches was.
 *
 * usage: sim_memory [SEEDS [FIRST]]
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/lib/mem_sim.h"

static uint64_t current_seed;

static void on_abort(int signal_number UNUSED)
{
	fprintf(stderr, "CHECK failed with: make check-sim SEED=%" PRIu64 "\n", current_seed);
}

static void must(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "FAILED: %s: make check-sim SEED=%" PRIu64 "\n", what, current_seed);
	exit(1);
}

static void run_round(struct mem_sim *sim)
{
	struct err err = { 0 };
	int rc = mem_sim_round(sim, &err);

	if (rc)
		fprintf(stderr, "round: %d %s\n", rc, err.cause);
	must(rc == 0, "a round fails");
}

/* R-E1: what a device writes after the last look is seen, and sent when it is asked for again. */
static void late_writer(struct mem_sim *sim)
{
	struct err err = { 0 };

	mem_sim_late_write(sim);
	must(mem_rounds_check_quiet(sim->rounds, &err) == -ESTALE,
	     "R-E1: a write after the last look is not seen");
	must(err.id == ERR_MEM_LATE_WRITE, "R-E1: by its own error");
	run_round(sim);
}

static void run_seed(uint64_t seed)
{
	struct mem_sim sim;
	struct err err = { 0 };

	mem_sim_init(&sim, seed);
	for (uint64_t rounds = mem_sim_random(&sim, 5); rounds > 0; rounds--)
		run_round(&sim);
	mem_sim_stop(&sim);
	/* A page may still change between the stop and the last look (T4). */
	if (mem_sim_random(&sim, 2))
		mem_sim_late_write(&sim);
	run_round(&sim);
	must(mem_sim_differences(&sim) == 0, "the memories differ after the last round");
	if (mem_sim_random(&sim, 4) == 0) {
		late_writer(&sim);
		must(mem_sim_differences(&sim) == 0, "the memories differ after a late write");
	}
	must(mem_rounds_check_quiet(sim.rounds, &err) == 0, "a stopped guest is called busy");
	must(mem_receiver_close(sim.receiver, mem_receiver_rounds(sim.receiver), &err) == 0,
	     "the receiver does not close");
	must(!sim.fault, sim.fault);
	mem_sim_release(&sim);
}

int main(int argc, char **argv)
{
	uint64_t seeds = argc > 1 ? strtoull(argv[1], NULL, 10) : 300;
	uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;

	signal(SIGABRT, on_abort);
	for (uint64_t seed = first; seed < first + seeds; seed++) {
		current_seed = seed;
		run_seed(seed);
	}
	printf("%" PRIu64 " guests moved\n", seeds);
	return 0;
}
