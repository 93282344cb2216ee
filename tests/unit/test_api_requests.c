/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: whatever a client sends is judged at the edge, with the id that fits; and openapi.json
 * says what the code does.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/blkmirrord/api_requests.h"
#include "tools/blkmirrord/openapi.h"
#include "tools/blkmirrord/route.h"

static enum err_id parse(const char *text, size_t bytes, json_t **out)
{
	struct err err = { 0 };

	*out = NULL;
	if (json_edge_parse(text, bytes, out, &err))
		assert_null(*out);
	return err.id;
}

static void test_parse(void **unused)
{
	static const struct {
		const char *text;
		enum err_id id;
	} rows[] = {
		{ "", ERR_NONE },
		{ "{}", ERR_NONE },
		{ "{\"a\":1}", ERR_NONE },
		{ "{\"a\":1,\"a\":2}", ERR_BAD_JSON },
		{ "{\"a\":1", ERR_BAD_JSON },
		{ "{} x", ERR_BAD_JSON },
		{ "[]", ERR_BAD_JSON },
		{ "null", ERR_BAD_JSON },
		{ "{\"a\":\"\\u0000\"}", ERR_BAD_JSON },
		{ "{\"a\":\"\xff\"}", ERR_BAD_JSON },
		{ "{\"a\":\"[[[[[[[[[[[[[[[[[[[[\"}", ERR_NONE },
		{ "{\"a\":\"\\\"[[[[[[[[[[[[[[[[[[[[\"}", ERR_NONE },
		{ "{\"a\":[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]}", ERR_BAD_JSON },
	};
	json_t *body;
	char *large;

	(void)unused;
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		enum err_id id = parse(rows[i].text, strlen(rows[i].text), &body);

		if (id != rows[i].id)
			fail_msg("%s: %s", rows[i].text, err_name(id));
		json_decref(body);
	}
	large = malloc(JSON_EDGE_BODY_MAX_BYTES + 1);
	assert_non_null(large);
	memset(large, ' ', JSON_EDGE_BODY_MAX_BYTES + 1);
	assert_int_equal(parse(large, JSON_EDGE_BODY_MAX_BYTES + 1, &body), ERR_TOO_LARGE);
	large[0] = '{';
	large[JSON_EDGE_BODY_MAX_BYTES - 1] = '}';
	assert_int_equal(parse(large, JSON_EDGE_BODY_MAX_BYTES, &body), ERR_NONE);
	json_decref(body);
	free(large);
}

static enum err_id judge(const char *shape, const char *text)
{
	struct err err = { 0 };
	json_t *body = json_loads(text, 0, NULL);
	unsigned i = 0;
	int rc;

	assert_non_null(body);
	while (strcmp(api_shape_at(i)->name, shape) != 0)
		i++;
	rc = api_judge_any(i, body, &err);
	assert_int_equal(rc != 0, err.id != ERR_NONE);
	json_decref(body);
	if (err.id != ERR_NONE) {
		assert_true(err.cause[0] != '\0');
		assert_true(err.remedy[0] != '\0');
	}
	return err.id;
}

static void test_judge(void **unused)
{
	static const struct {
		const char *shape, *text;
		enum err_id id;
	} rows[] = {
		{ "DatastoreAdd", "{\"name\":\"a\",\"url\":\"dir:///x\"}", ERR_NONE },
		{ "DatastoreAdd", "{\"name\":\"a\"}", ERR_BAD_FIELD },
		{ "DatastoreAdd", "{\"name\":\"../a\",\"url\":\"u\"}", ERR_BAD_NAME },
		{ "DatastoreAdd", "{\"name\":1,\"url\":\"u\"}", ERR_BAD_FIELD },
		{ "DatastoreAdd", "{\"name\":\"a\",\"url\":\"u\",\"colour\":1}", ERR_BAD_FIELD },
		{ "DatastoreAdd", "{\"name\":\"a\",\"url\":\"u\\u0007\"}", ERR_BAD_FIELD },
		{ "DatastoreAdd", "{\"name\":\"a\",\"url\":\"u\",\"secret_file\":\"x\"}", ERR_BAD_FIELD },
		{ "DatastoreSet", "{}", ERR_BAD_FIELD },
		{ "DatastoreSet", "{\"bandwidth\":\"none\"}", ERR_NONE },
		{ "DatastoreSet", "{\"bandwidth\":\"100MB\"}", ERR_BAD_UNIT },
		{ "DatastoreSet", "{\"budget\":15}", ERR_BAD_FIELD },
		{ "DatastoreSet", "{\"budget\":-1}", ERR_BAD_FIELD },
		{ "DiskCreate", "{\"disk\":\"a:b\",\"size\":\"1GiB\"}", ERR_NONE },
		{ "DiskCreate", "{\"disk\":\"a:b\",\"size\":\"1024\"}", ERR_BAD_UNIT },
		{ "DiskCreate", "{\"disk\":\"a:b\",\"size\":1024}", ERR_BAD_UNIT },
		{ "DiskCreate", "{\"disk\":\"a:b\",\"size\":\"1K\"}", ERR_DISK_BAD_SIZE },
		{ "DiskCreate", "{\"disk\":\"a:b\",\"size\":\"63T\"}", ERR_DISK_BAD_SIZE },
		{ "DiskCreate", "{\"disk\":\"a:b\",\"size\":\"1000001B\"}", ERR_DISK_BAD_SIZE },
		{ "DiskCreate", "{\"disk\":\"a:../b\",\"size\":\"1GiB\"}", ERR_DS_PATH_ESCAPE },
		{ "DiskCreate", "{\"disk\":\"b\",\"size\":\"1GiB\"}", ERR_USAGE },
		{ "DiskCreate", "{\"disk\":\"a:b\",\"size\":\"1G\",\"provision\":\"fat\"}", ERR_BAD_FIELD },
		{ "DiskImport", "{\"file\":\"rel\",\"disk\":\"a:b\"}", ERR_BAD_FIELD },
		{ "DiskImport", "{\"file\":\"/a/../b\",\"disk\":\"a:b\"}", ERR_BAD_FIELD },
		{ "DiskImport", "{\"file\":\"/a/b\",\"disk\":\"a:b\"}", ERR_NONE },
		{ "DiskExport", "{\"file\":\"/a/..\",\"disk\":\"a:b\"}", ERR_BAD_FIELD },
		{ "DiskAttach", "{\"disk\":\"a:b\",\"export\":\"smb\"}", ERR_BAD_FIELD },
		{ "DiskAttach", "{\"disk\":\"a:b\",\"id\":\"a/b\"}", ERR_BAD_NAME },
		{ "DiskAttach", "{\"disk\":\"a:b\",\"read_only\":\"yes\"}", ERR_BAD_FIELD },
		{ "DiskUnlock", "{\"disk\":\"a:b\"}", ERR_USAGE },
		{ "DiskUnlock", "{\"disk\":\"a:b\",\"force\":true}", ERR_NONE },
		{ "DiskVerify", "{\"disk\":\"a:b\",\"other\":\"a:b\"}", ERR_MOVE_SAME },
		{ "DiskRelocate", "{\"disk\":\"d1\",\"to\":\"b\"}", ERR_NONE },
		{ "DiskRelocate", "{\"disk\":\"a:b\",\"to\":\"b:c\"}", ERR_NONE },
		{ "DiskRelocate", "{\"disk\":\"d/1\",\"to\":\"b\"}", ERR_BAD_NAME },
		{ "DiskRelocate", "{\"disk\":\"d1\",\"to\":\"b:../c\"}", ERR_DS_PATH_ESCAPE },
		{ "DiskRelocate", "{\"disk\":\"d1\",\"to\":\"b\",\"max_stun\":\"0s\"}", ERR_BAD_FIELD },
		{ "DiskRelocate", "{\"disk\":\"d1\",\"to\":\"b\",\"max_stun\":\"5\"}", ERR_BAD_UNIT },
		{ "DiskRelocate", "{\"disk\":\"d1\",\"to\":\"b\",\"weight\":0}", ERR_BAD_FIELD },
		{ "DiskRelocate", "{\"disk\":\"d1\",\"to\":\"b\",\"verify\":false,\"keep_source\":false}",
		  ERR_USAGE },
		{ "TaskSet", "{}", ERR_BAD_FIELD },
		{ "TaskSet", "{\"priority\":\"urgent\"}", ERR_BAD_FIELD },
		{ "Recover", "{}", ERR_USAGE },
		{ "Recover", "{\"keep\":\"source\",\"run_here\":true}", ERR_USAGE },
		{ "Recover", "{\"run_here\":true}", ERR_USAGE },
		{ "Recover", "{\"keep\":\"target\"}", ERR_NONE },
		{ "Nothing", "{\"x\":1}", ERR_BAD_FIELD },
	};

	(void)unused;
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		enum err_id id = judge(rows[i].shape, rows[i].text);

		if (id != rows[i].id)
			fail_msg("%s %s: %s", rows[i].shape, rows[i].text, err_name(id));
	}
}

/* What is not verified is never deleted, whoever asks. */
static void test_no_verify_keeps_source(void **unused)
{
	struct disk_relocate_request request;
	json_t *body = json_loads("{\"disk\":\"d1\",\"to\":\"b\",\"verify\":false}", 0, NULL);

	(void)unused;
	assert_int_equal(judge_disk_relocate(body, &request, NULL), 0);
	assert_true(request.keep_source);
	assert_false(request.verify);
	json_decref(body);
	body = json_loads("{\"disk\":\"d1\",\"to\":\"b\"}", 0, NULL);
	assert_int_equal(judge_disk_relocate(body, &request, NULL), 0);
	assert_false(request.keep_source);
	assert_true(request.verify);
	json_decref(body);
}

/* ---- openapi.json ---- */

static json_t *openapi(void)
{
	json_error_t error;
	json_t *document = json_loadb(openapi_json, (size_t)(openapi_json_end - openapi_json),
				      JSON_REJECT_DUPLICATES, &error);

	if (!document)
		fail_msg("openapi.json:%d: %s", error.line, error.text);
	return document;
}

static void test_openapi_paths(void **unused)
{
	json_t *document = openapi(), *methods, *operation;
	json_t *paths = json_object_get(document, "paths");
	const char *path, *method;
	const struct route *route;
	unsigned count = 0, told = 0;

	(void)unused;
	for (; (route = route_at(count)); count++) {
		char lower[16];

		snprintf(lower, sizeof(lower), "%s", route->method);
		for (char *c = lower; *c; c++)
			*c = (char)tolower(*c);
		if (!json_object_get(json_object_get(paths, route->path), lower))
			fail_msg("openapi.json lacks %s %s", route->method, route->path);
	}
	json_object_foreach (paths, path, methods)
		json_object_foreach (methods, method, operation)
			told++;
	assert_int_equal(told, count);
	json_decref(document);
}

static void test_openapi_shapes(void **unused)
{
	json_t *document = openapi();
	json_t *schemas = json_object_get(json_object_get(document, "components"), "schemas");
	const struct json_shape *shape;

	(void)unused;
	for (unsigned i = 0; (shape = api_shape_at(i)); i++) {
		json_t *schema = json_object_get(schemas, shape->name);
		json_t *properties = json_object_get(schema, "properties");
		size_t required = 0;

		assert_non_null(schema);
		assert_int_equal(json_object_size(properties), shape->field_count);
		for (uint32_t f = 0; f < shape->field_count; f++) {
			if (!json_object_get(properties, shape->fields[f].name))
				fail_msg("%s lacks %s", shape->name, shape->fields[f].name);
			required += shape->fields[f].required;
		}
		assert_int_equal(json_array_size(json_object_get(schema, "required")), required);
	}
	json_decref(document);
}

static void test_routes(void **unused)
{
	char param[API_PARAM_BYTES];
	bool known;

	(void)unused;
	assert_non_null(route_find("GET", "/v1/tasks/t12", param, sizeof(param), &known));
	assert_string_equal(param, "t12");
	assert_string_equal(route_find("POST", "/v1/tasks/t1/pause", param, sizeof(param), &known)->path,
			    "/v1/tasks/{id}/pause");
	assert_string_equal(route_find("GET", "/v1/tasks/watch", param, sizeof(param), &known)->path,
			    "/v1/tasks/watch");
	assert_null(route_find("PUT", "/v1/tasks", param, sizeof(param), &known));
	assert_true(known);
	assert_null(route_find("GET", "/v1/tasks/", param, sizeof(param), &known));
	assert_false(known);
	assert_null(route_find("GET", "/v1/tasks/t1/pause/x", param, sizeof(param), &known));
	assert_null(route_find("GET", "", param, sizeof(param), &known));
	assert_null(route_find("GET", "/v1/datastores/a/b/files", param, sizeof(param), &known));
	assert_false(known);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_judge),
		cmocka_unit_test(test_no_verify_keeps_source),
		cmocka_unit_test(test_openapi_paths),
		cmocka_unit_test(test_openapi_shapes),
		cmocka_unit_test(test_routes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
