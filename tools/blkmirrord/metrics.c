/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics.c - GET /metrics, in Prometheus' text format.
 *
 * Labels are bounded: ids of attached disks and live tasks, names of datastores, and the
 * catalogue's ids as reasons; no free text.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/blkmirrord/api_handlers.h"
#include "tools/blkmirrord/daemon.h"
#include "tools/blkmirrord/metrics.h"

static void put_head(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP blkmirror_%s %s\n# TYPE blkmirror_%s %s\n", name, help, name, type);
}

/* ---- guests ---- */

static const char *const guest_names[][2] = {
	{ "guest_read_bytes_total", "Bytes read by guests" },
	{ "guest_write_bytes_total", "Bytes written by guests" },
	{ "guest_read_ops_total", "Read requests of guests" },
	{ "guest_write_ops_total", "Write requests of guests" },
	{ "guest_flush_ops_total", "Flush requests of guests" },
	{ "guest_errors_total", "Requests of guests that failed" },
};

static uint64_t guest_value(const struct io_snapshot *snapshot, size_t which)
{
	const uint64_t values[] = { snapshot->read_bytes, snapshot->write_bytes,
				    snapshot->read_ops,   snapshot->write_ops,
				    snapshot->flush_ops,  snapshot->errors };

	return values[which];
}

static void put_guest_counters(FILE *out, struct disk_service *disks)
{
	for (size_t i = 0; i < ARRAY_COUNT(guest_names); i++) {
		put_head(out, guest_names[i][0], "counter", guest_names[i][1]);
		for (struct disk *disk = disk_next(disks, NULL); disk;
		     disk = disk_next(disks, disk)) {
			struct io_snapshot snapshot;
			struct disk_info info;

			disk_info(disk, &info);
			io_stats_snapshot(disk_io_stats(disk), &snapshot);
			fprintf(out, "blkmirror_%s{disk=\"%s\",datastore=\"%s\"} %llu\n",
				guest_names[i][0], info.id, info.datastore,
				(unsigned long long)guest_value(&snapshot, i));
		}
	}
}

/* Sum up the fine buckets below each limit; the fine ones end where a coarse one does. */
void metrics_put_histogram(FILE *out, const char *name, const char *labels,
			   const struct io_snapshot *snapshot)
{
	static const uint64_t limits_us[] = { 50,    100,   250,    500,    1000,   2500,
					      5000,  10000, 25000,  50000,  100000, 250000,
					      500000, 1000000, 5000000, 10000000 };
	uint64_t count = 0, below = 0;
	unsigned bucket = 0;

	for (unsigned i = 0; i < IO_STATS_BUCKETS; i++)
		count += snapshot->buckets[i];
	for (size_t i = 0; i < ARRAY_COUNT(limits_us); i++) {
		while (bucket < IO_STATS_BUCKETS &&
		       io_stats_bucket_limit_ns(bucket) <= limits_us[i] * NS_PER_US)
			below += snapshot->buckets[bucket++];
		fprintf(out, "blkmirror_%s_bucket{%s,le=\"%g\"} %llu\n", name, labels,
			(double)limits_us[i] / 1e6, (unsigned long long)below);
	}
	fprintf(out, "blkmirror_%s_bucket{%s,le=\"+Inf\"} %llu\n", name, labels,
		(unsigned long long)count);
	fprintf(out, "blkmirror_%s_sum{%s} %.9f\n", name, labels,
		(double)snapshot->latency_sum_ns / 1e9);
	fprintf(out, "blkmirror_%s_count{%s} %llu\n", name, labels, (unsigned long long)count);
}

static void put_guest_latency(FILE *out, struct disk_service *disks)
{
	put_head(out, "guest_latency_seconds", "histogram",
		 "What guests waited for their requests, moves included");
	for (struct disk *disk = disk_next(disks, NULL); disk; disk = disk_next(disks, disk)) {
		struct io_snapshot snapshot;
		struct disk_info info;
		char labels[2 * DISK_ID_BYTES + 32];

		disk_info(disk, &info);
		io_stats_snapshot(disk_io_stats(disk), &snapshot);
		snprintf(labels, sizeof(labels), "disk=\"%s\"", info.id);
		metrics_put_histogram(out, "guest_latency_seconds", labels, &snapshot);
	}
}

/* ---- tasks ---- */

static uint64_t task_sum(const json_t *task, const char *key)
{
	json_t *disk;
	uint64_t sum = 0;
	size_t i;

	json_array_foreach (json_object_get(task, "disks"), i, disk)
		sum += (uint64_t)json_integer_value(json_object_get(disk, key));
	return sum;
}

static void put_task_bytes(FILE *out, struct task_table *tasks)
{
	static const char *const names[] = { "copied", "remaining", "mirrored" };

	for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
		char name[64], key[32];

		snprintf(name, sizeof(name), "task_%s_bytes", names[i]);
		snprintf(key, sizeof(key), "%s_bytes", names[i]);
		put_head(out, name, "gauge", "Of tasks that have not ended");
		for (struct user_task *task = task_table_next(tasks, NULL); task;
		     task = task_table_next(tasks, task)) {
			json_t *object =
				user_task_state_ended(task->state) ? NULL : user_task_json(task);
			json_t *progress = json_object_get(object, "progress");

			if (object)
				fprintf(out, "blkmirror_%s{task=\"%s\",type=\"%s\"} %llu\n", name,
					task->id, task->ops->type,
					i == 1 ? (unsigned long long)json_integer_value(
							 json_object_get(progress, key))
					       : (unsigned long long)task_sum(object, key));
			json_decref(object);
		}
	}
}

static void put_task_counts(FILE *out, struct task_table *tasks)
{
	static const char *const types[] = { "relocate", "import", "export", "verify" };

	put_head(out, "tasks", "gauge", "Tasks by type and state; ended ones as far as remembered");
	for (size_t i = 0; i < ARRAY_COUNT(types); i++)
		for (int state = 0; state < USER_TASK_STATE_COUNT; state++)
			fprintf(out, "blkmirror_tasks{type=\"%s\",state=\"%s\"} %u\n", types[i],
				user_task_state_name((enum user_task_state)state),
				task_table_count(tasks, types[i], (enum user_task_state)state));
	put_head(out, "task_failures_total", "counter", "Failed tasks by error id");
	for (unsigned i = 0; err_at(i) != ERR_NONE; i++)
		if (task_table_failures(tasks, err_at(i)))
			fprintf(out, "blkmirror_task_failures_total{reason=\"%s\"} %llu\n",
				err_name(err_at(i)),
				(unsigned long long)task_table_failures(tasks, err_at(i)));
	put_head(out, "switchover_stun_seconds", "gauge",
		 "How long the last switch-over of each remembered task held its guest");
	for (struct user_task *task = task_table_next(tasks, NULL); task;
	     task = task_table_next(tasks, task)) {
		json_t *object = user_task_json(task);
		json_t *stun = json_object_get(json_object_get(object, "switchover"), "stun_us");

		if (json_is_integer(stun))
			fprintf(out, "blkmirror_switchover_stun_seconds{task=\"%s\"} %.6f\n",
				task->id, (double)json_integer_value(stun) / 1e6);
		json_decref(object);
	}
}

/* ---- datastores ---- */

static void put_datastores(FILE *out, struct inventory *inventory)
{
	put_head(out, "datastore_capacity_bytes", "gauge", "Size of the datastore; 0: unknown");
	for (struct ds_entry *e = inventory_next(inventory, NULL); e;
	     e = inventory_next(inventory, e))
		fprintf(out, "blkmirror_datastore_capacity_bytes{datastore=\"%s\"} %llu\n", e->name,
			(unsigned long long)e->space.capacity_bytes);
	put_head(out, "datastore_free_bytes", "gauge", "Free space as last seen");
	for (struct ds_entry *e = inventory_next(inventory, NULL); e;
	     e = inventory_next(inventory, e))
		fprintf(out, "blkmirror_datastore_free_bytes{datastore=\"%s\"} %llu\n", e->name,
			(unsigned long long)e->space.free_bytes);
	put_head(out, "datastore_up", "gauge", "1: usable");
	for (struct ds_entry *e = inventory_next(inventory, NULL); e;
	     e = inventory_next(inventory, e))
		fprintf(out, "blkmirror_datastore_up{datastore=\"%s\"} %d\n", e->name,
			e->datastore && datastore_state(e->datastore) == DS_UP);
}

void api_metrics(struct api_call *call)
{
	struct daemon *daemon = api_daemon(call);
	char *text = NULL;
	size_t text_bytes = 0;
	FILE *out = open_memstream(&text, &text_bytes);

	if (!out) {
		api_answer_text(call, NULL, NULL);
		return;
	}
	put_guest_counters(out, daemon->disks);
	put_guest_latency(out, daemon->disks);
	put_task_bytes(out, daemon->tasks);
	put_task_counts(out, daemon->tasks);
	put_datastores(out, daemon->inventory);
	if (fclose(out)) {
		free(text);
		text = NULL;
	}
	api_answer_text(call, "text/plain; version=0.0.4", text);
}
