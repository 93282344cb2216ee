/* SPDX-License-Identifier: Apache-2.0 */
/* metrics.h - pieces of /metrics that are tested by themselves. */
#ifndef BM_METRICS_H
#define BM_METRICS_H

#include <stdio.h>

#include "blkmirror/blkdev/io_stats.h"

/* One histogram's lines; labels: disk="d1".  Cumulative, ends with +Inf, _sum and _count. */
void metrics_put_histogram(FILE *out, const char *name, const char *labels,
			   const struct io_snapshot *snapshot);

#endif
