/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop_sim.h - the simulated loop: virtual time, seeded order, one step at a time.
 *
 * Nothing happens in real time and nothing is concurrent: a step runs one ready
 * task (chosen by the seed), or, when none is ready, jumps to the next timer and
 * fires it.  Two runs with one seed take the same steps.  Watches do not exist
 * here: devices under simulation complete through timers.
 */
#ifndef BM_BASE_LOOP_SIM_H
#define BM_BASE_LOOP_SIM_H

#include "blkmirror/base/loop.h"

/* NULL: out of memory. */
struct loop *loop_sim_new(uint64_t seed);

/* One step.  False when nothing is left to do (no task, no timer). */
bool loop_sim_step(struct loop *loop);

/* Steps taken so far. */
uint64_t loop_sim_step_count(const struct loop *loop);

/* One chance in `one_in`, from the run's seed: for rare branches in simulation. */
bool loop_sim_chance(struct loop *loop, uint64_t one_in);

#endif
