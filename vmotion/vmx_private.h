/* SPDX-License-Identifier: Apache-2.0 */
/* vmx_private.h - how values are written in a VMX file; for vmx.c and its test. */
#ifndef BM_VMOTION_VMX_PRIVATE_H
#define BM_VMOTION_VMX_PRIVATE_H

#include "vmotion/vmx.h"

/* A part of the text, by position. */
struct vmx_piece {
	size_t at;
	size_t len;
};

enum vmx_encoding { VMX_UTF8, VMX_ASCII, VMX_LATIN1, VMX_WINDOWS_1252, VMX_OTHER };

/* Each byte may become |XX. */
#define VMX_ENCODED_BYTES (3 * VMX_VALUE_BYTES)

enum vmx_encoding vmx_encoding_of(const char *name);

/* From the file: |XX resolved, as UTF-8.  NULL, or what is wrong ("has ..."). */
const char *vmx_value_decode(enum vmx_encoding encoding, const char *raw, size_t raw_len,
			     char *value, size_t value_bytes);

/* For the file, without quotes: encoded has VMX_ENCODED_BYTES.  NULL, or what is wrong. */
const char *vmx_value_encode(enum vmx_encoding encoding, const char *value, char *encoded);

#endif
