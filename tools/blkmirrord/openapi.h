/* SPDX-License-Identifier: Apache-2.0 */
/* openapi.h - openapi.json as it is served; the file is put into the program as it stands. */
#ifndef BM_OPENAPI_H
#define BM_OPENAPI_H

#include <stddef.h>

extern const char openapi_json[];
extern const char openapi_json_end[];

#endif
