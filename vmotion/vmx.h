/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmx.h - VMware's configuration file of a virtual machine, kept byte for byte.
 *
 *   #!/usr/bin/vmware                          a comment
 *   .encoding = "UTF-8"                        how bytes above 127 are meant
 *   displayName = "web|2201|22"                key = "value"; |22 stands for a quote
 *   scsi0:0.fileName = "web01.vmdk"
 *   memsize=4096                               spacing and quotes are a matter of taste
 *
 * The text is kept as it was read: line ends, order, spacing, comments, unknown keys and
 * what we do not understand survive.  An edit splices one value, one new line at the
 * end, or one line less; every other byte stays.
 *
 *         displayName = "web|2201|22"\r\n
 *         ^key                ^value        a set of displayName replaces only the bytes between
 *                                           the quotes
 *
 * Keys are compared without regard to case, as VMware does.  A key that stands there twice is
 * read by nobody: vmx_get() and vmx_set() refuse it, because which one counts would be a guess.
 *
 * Encodings: UTF-8 (also when none is named), US-ASCII, ISO-8859-1 and windows-1252.  Of another
 * one the ASCII values can be read, others are refused when they are asked for.
 *
 * Bounds: VMX_TEXT_MAX_BYTES of text, VMX_ENTRIES_MAX entries, VMX_KEY_BYTES, VMX_VALUE_BYTES.
 * A file may come from anywhere: whatever it holds, it is refused or taken, never a fault.
 *
 * Values here are UTF-8.  Pure; any thread, one at a time.
 */
#ifndef BM_VMOTION_VMX_H
#define BM_VMOTION_VMX_H

#include <stdbool.h>
#include <stddef.h>

#include "blkmirror/base/err.h"

#define VMX_TEXT_MAX_BYTES (256u << 10)
#define VMX_ENTRIES_MAX 4096u
#define VMX_KEY_BYTES 128       /* with the end */
#define VMX_VALUE_BYTES 4096    /* decoded, with the end */

struct vmx;

/*
 * Take a file apart; name is for messages.  0 and *out (gives), or -EINVAL, -EFBIG, -ENOMEM with
 * *err: ERR_VMX_SYNTAX names the line, ERR_VMX_LIMIT, ERR_NO_MEMORY.
 */
MUST_CHECK int vmx_parse(const char *bytes, size_t len, const char *name, struct vmx **out,
			 struct err *err);
/* An empty one that says it is UTF-8. */
MUST_CHECK int vmx_new(const char *name, struct vmx **out, struct err *err);
/* NULL is harmless. */
void vmx_free(struct vmx *vmx);

/* The file as it stands; borrowed until the next edit. */
const char *vmx_text(const struct vmx *vmx, size_t *len);
const char *vmx_name(const struct vmx *vmx);

/*
 * The value of a key, decoded.  0; -ENOENT when it is not there (*err is untouched); else -EINVAL
 * with *err: ERR_VMX_DUPLICATE, ERR_VMX_BAD_VALUE (encoding, a zero byte, longer than
 * value_bytes).
 */
MUST_CHECK int vmx_get(const struct vmx *vmx, const char *key, char *value, size_t value_bytes,
		       struct err *err);
bool vmx_has(const struct vmx *vmx, const char *key);

/*
 * Change a value, or append a line for it.  0, or -errno with *err and the file as it was:
 * ERR_VMX_DUPLICATE, ERR_VMX_BAD_VALUE (key or value cannot be written, or not in the file's
 * encoding), ERR_VMX_LIMIT, ERR_NO_MEMORY.
 */
MUST_CHECK int vmx_set(struct vmx *vmx, const char *key, const char *value, struct err *err);

/* Take out every line of the key.  How many there were. */
unsigned vmx_remove(struct vmx *vmx, const char *key);

/* Walk the keys in the order of the lines; false past the end.  key: VMX_KEY_BYTES. */
bool vmx_key_at(const struct vmx *vmx, unsigned index, char *key);

#endif
