/* SPDX-License-Identifier: Apache-2.0 */
/*
 * api_handlers.h - one function per route (route.c), by noun: api_NOUN_verb in api_NOUNs.c.
 *
 * Each judges its body first (api_requests.h), acts second, and answers once.
 */
#ifndef BM_API_HANDLERS_H
#define BM_API_HANDLERS_H

struct api_call;
struct user_task;
struct err;

/*
 * The answer to a POST that began a task (rc 0), or was refused.  Whoever has been told of a task
 * finds it again, also after a crash: so it is told when it is durable.
 */
void api_answer_task(struct api_call *call, int rc, struct user_task *task, const struct err *err);

void api_datastore_list(struct api_call *call);
void api_datastore_add(struct api_call *call);
void api_datastore_show(struct api_call *call);
void api_datastore_set(struct api_call *call);
void api_datastore_remove(struct api_call *call);
void api_datastore_files(struct api_call *call);

void api_disk_list(struct api_call *call);
void api_disk_create(struct api_call *call);
void api_disk_show(struct api_call *call);
void api_disk_import(struct api_call *call);
void api_disk_export(struct api_call *call);
void api_disk_attach(struct api_call *call);
void api_disk_detach(struct api_call *call);
void api_disk_resize(struct api_call *call);
void api_disk_delete(struct api_call *call);
void api_disk_fork(struct api_call *call);
void api_disk_unlock(struct api_call *call);
void api_disk_verify(struct api_call *call);
void api_disk_relocate(struct api_call *call);

void api_task_list(struct api_call *call);
void api_task_show(struct api_call *call);
void api_task_set(struct api_call *call);
void api_task_watch(struct api_call *call);
void api_task_watch_all(struct api_call *call);
void api_task_pause(struct api_call *call);
void api_task_resume(struct api_call *call);
void api_task_cancel(struct api_call *call);
void api_task_complete(struct api_call *call);

void api_host_list(struct api_call *call);
void api_host_add(struct api_call *call);
void api_host_show(struct api_call *call);
void api_host_remove(struct api_call *call);
void api_vm_list(struct api_call *call);
void api_vm_register(struct api_call *call);
void api_vm_create(struct api_call *call);
void api_vm_show(struct api_call *call);
void api_vm_unregister(struct api_call *call);
void api_vm_start(struct api_call *call);
void api_vm_stop(struct api_call *call);
void api_vm_suspend(struct api_call *call);
void api_vm_resume(struct api_call *call);
void api_vm_relocate(struct api_call *call);

void api_events(struct api_call *call);
void api_recover_list(struct api_call *call);
void api_recover(struct api_call *call);
void api_openapi(struct api_call *call);
void api_metrics(struct api_call *call);

#endif
