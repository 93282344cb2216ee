/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/blkmirrord/openapi.h"

#include <stdlib.h>
#include <string.h>

#include "tools/blkmirrord/api_handlers.h"
#include "tools/blkmirrord/api_server.h"

__asm__(".section .rodata\n"
	".globl openapi_json\n"
	".globl openapi_json_end\n"
	"openapi_json:\n"
	".incbin \"tools/blkmirrord/openapi.json\"\n"
	"openapi_json_end:\n"
	".byte 0\n"
	".previous\n");

void api_openapi(struct api_call *call)
{
	size_t text_bytes = (size_t)(openapi_json_end - openapi_json);
	char *text = malloc(text_bytes + 1);

	if (text) {
		memcpy(text, openapi_json, text_bytes);
		text[text_bytes] = '\0';
	}
	api_answer_text(call, "application/json", text);
}
