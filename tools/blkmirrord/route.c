/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/blkmirrord/route.h"

#include <stdio.h>
#include <string.h>

#include "tools/blkmirrord/api_handlers.h"

// clang-format off
/* method, path, handler, changes, public */
static const struct route routes[] = {
	{ "GET",    "/v1/datastores",              api_datastore_list, false, false },
	{ "POST",   "/v1/datastores",              api_datastore_add, true, false },
	{ "GET",    "/v1/datastores/{name}",       api_datastore_show, false, false },
	{ "PATCH",  "/v1/datastores/{name}",       api_datastore_set, true, false },
	{ "DELETE", "/v1/datastores/{name}",       api_datastore_remove, true, false },
	{ "GET",    "/v1/datastores/{name}/files", api_datastore_files, false, false },
	{ "GET",    "/v1/disks",                   api_disk_list, false, false },
	{ "POST",   "/v1/disks",                   api_disk_create, true, false },
	{ "GET",    "/v1/disks/show",              api_disk_show, false, false },
	{ "POST",   "/v1/disks/import",            api_disk_import, true, false },
	{ "POST",   "/v1/disks/export",            api_disk_export, true, false },
	{ "POST",   "/v1/disks/attach",            api_disk_attach, true, false },
	{ "POST",   "/v1/disks/detach",            api_disk_detach, true, false },
	{ "POST",   "/v1/disks/resize",            api_disk_resize, true, false },
	{ "POST",   "/v1/disks/delete",            api_disk_delete, true, false },
	{ "POST",   "/v1/disks/fork",              api_disk_fork, true, false },
	{ "POST",   "/v1/disks/unlock",            api_disk_unlock, true, false },
	{ "POST",   "/v1/disks/verify",            api_disk_verify, true, false },
	{ "POST",   "/v1/disks/relocate",          api_disk_relocate, true, false },
	{ "GET",    "/v1/hosts",                   api_host_list, false, false },
	{ "POST",   "/v1/hosts",                   api_host_add, true, false },
	{ "GET",    "/v1/hosts/{name}",            api_host_show, false, false },
	{ "DELETE", "/v1/hosts/{name}",            api_host_remove, true, false },
	{ "GET",    "/v1/tasks",                   api_task_list, false, false },
	{ "GET",    "/v1/tasks/watch",             api_task_watch_all, false, false },
	{ "GET",    "/v1/tasks/{id}",              api_task_show, false, false },
	{ "PATCH",  "/v1/tasks/{id}",              api_task_set, true, false },
	{ "GET",    "/v1/tasks/{id}/watch",        api_task_watch, false, false },
	{ "POST",   "/v1/tasks/{id}/pause",        api_task_pause, true, false },
	{ "POST",   "/v1/tasks/{id}/resume",       api_task_resume, true, false },
	{ "POST",   "/v1/tasks/{id}/cancel",       api_task_cancel, true, false },
	{ "POST",   "/v1/tasks/{id}/complete",     api_task_complete, true, false },
	{ "GET",    "/v1/vms",                    api_vm_list, false, false },
	{ "POST",   "/v1/vms",                    api_vm_register, true, false },
	{ "POST",   "/v1/vms/create",             api_vm_create, true, false },
	{ "GET",    "/v1/vms/{id}",               api_vm_show, false, false },
	{ "DELETE", "/v1/vms/{id}",               api_vm_unregister, true, false },
	{ "POST",   "/v1/vms/{id}/start",         api_vm_start, true, false },
	{ "POST",   "/v1/vms/{id}/stop",          api_vm_stop, true, false },
	{ "POST",   "/v1/vms/{id}/suspend",       api_vm_suspend, true, false },
	{ "POST",   "/v1/vms/{id}/resume",        api_vm_resume, true, false },
	{ "POST",   "/v1/vms/{id}/relocate",      api_vm_relocate, true, false },
	{ "GET",    "/v1/events",                  api_events, false, false },
	{ "GET",    "/v1/recover",                 api_recover_list, false, false },
	{ "POST",   "/v1/recover/{id}",            api_recover, true, false },
	{ "GET",    "/v1/openapi.json",            api_openapi, false, true },
	{ "GET",    "/metrics",                    api_metrics, false, true },
};
// clang-format on

/* Does path fit the pattern?  At most one {..}, which stands for one segment. */
static bool route_fits(const char *pattern, const char *path, char *param, size_t param_bytes)
{
	while (*pattern) {
		size_t len;

		if (*pattern != '{') {
			if (*pattern++ != *path++)
				return false;
			continue;
		}
		len = strcspn(path, "/");
		if (len == 0 || len >= param_bytes)
			return false;
		memcpy(param, path, len);
		param[len] = '\0';
		path += len;
		pattern = strchr(pattern, '}') + 1;
	}
	return *path == '\0';
}

const struct route *route_find(const char *method, const char *path, char *param,
			       size_t param_bytes, bool *path_known)
{
	char scratch[API_PARAM_BYTES];

	*path_known = false;
	param[0] = '\0';
	for (size_t i = 0; i < ARRAY_COUNT(routes); i++) {
		if (!route_fits(routes[i].path, path, scratch, sizeof(scratch)))
			continue;
		*path_known = true;
		if (strcmp(routes[i].method, method) != 0)
			continue;
		if (strchr(routes[i].path, '{'))
			snprintf(param, param_bytes, "%s", scratch);
		return &routes[i];
	}
	return NULL;
}

const struct route *route_at(unsigned index)
{
	return index < ARRAY_COUNT(routes) ? &routes[index] : NULL;
}
