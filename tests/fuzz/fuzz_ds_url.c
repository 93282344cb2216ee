/* SPDX-License-Identifier: Apache-2.0 */
/* Any text as a datastore's URL, as a path and as DATASTORE:path. */
#include <stdlib.h>
#include <string.h>

#include "datastores/ds_path.h"
#include "datastores/ds_url.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void judge_url(const char *text)
{
	struct err err = { 0 };
	struct ds_url *url = malloc(sizeof(*url));

	CHECK(url);
	if (ds_url_parse(text, url, &err)) {
		CHECK(err.id == ERR_DS_BAD_URL || err.id == ERR_DS_SECRET_IN_URL);
		free(url);
		return;
	}
	CHECK(url->kind < DS_URL_KIND_COUNT);
	CHECK(!strchr(url->host, '@') && !strchr(url->host, '/'));
	CHECK(ds_text_is_clean(url->path, strlen(url->path)));
	CHECK(url->kind > DS_URL_VMFS || url->path[0] == '/');
	for (uint32_t i = 0; i < url->extent_count; i++)
		CHECK(url->extents[i][0] == '/');
	CHECK(url->kind != DS_URL_NBD_UNIX || url->socket[0] == '/');
	free(url);
}

static void judge_path(const char *text)
{
	size_t parent_len;

	if (ds_path_check(text, false, NULL))
		return;
	CHECK(text[0] != '/' && !strstr(text, "//") && !strstr(text, "/../"));
	CHECK(ds_path_part_is_valid(ds_path_last(text, &parent_len)));
	CHECK(parent_len < strlen(text));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	char *text = malloc(len + 1);
	char name[DS_NAME_BYTES], path[DS_PATH_BYTES];

	CHECK(text);
	memcpy(text, bytes, len);
	text[len] = 0;
	judge_url(text);
	judge_path(text);
	if (ds_name_parse(text, name, path, NULL) == 0)
		CHECK(ds_name_is_valid(name) && strlen(name) + 1 + strlen(path) == strlen(text));
	free(text);
	return 0;
}
