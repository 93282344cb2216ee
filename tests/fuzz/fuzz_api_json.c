/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_api_json.c - any bytes as the body of every request the API takes.
 *
 * Judging is apart from acting, so nothing is done: the body is refused with an id, a cause and
 * a remedy that are proper text, or it is taken.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tools/blkmirrord/api_requests.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_refusal(const struct err *err)
{
	json_t *object;

	CHECK(err->id != ERR_NONE);
	CHECK(err->cause[0] != '\0');
	CHECK(err->remedy[0] != '\0');
	object = json_edge_error(err);
	CHECK(object);
	json_decref(object);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err err = { 0 };
	json_t *body = NULL;

	if (json_edge_parse((const char *)data, size, &body, &err)) {
		check_refusal(&err);
		return 0;
	}
	CHECK(json_is_object(body));
	for (unsigned i = 0; api_shape_at(i); i++) {
		err_clear(&err);
		if (api_judge_any(i, body, &err))
			check_refusal(&err);
	}
	json_decref(body);
	return 0;
}
