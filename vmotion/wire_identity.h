/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wire_identity.h - the key that proves to other hosts who this one is.
 *
 * STATE-DIR/host-key.pem holds an Ed25519 key, made at the first start, readable by its owner
 * only.  Its fingerprint is the SHA-256 of the public key (SubjectPublicKeyInfo, DER), written
 * as ssh does: "SHA256:" and 43 characters of base64.  Other hosts pin that, never a
 * certificate: the one that TLS asks for is made anew at each start and vouches for nothing.
 *
 * Threading: opened before threads; the contexts may then be used by any.
 */
#ifndef BM_WIRE_IDENTITY_H
#define BM_WIRE_IDENTITY_H

#include <openssl/ssl.h>

#include "vmotion/wire_pipe.h"

struct wire_identity {
	char fingerprint[WIRE_KEY_BYTES];
	SSL_CTX *dial, *accept;         /* TLS 1.3 only; both sides show a key */
};

/* 0 and *out (gives), or -errno with *err (ERR_HOST_KEY_FILE, ERR_NO_MEMORY).  Blocks. */
MUST_CHECK int wire_identity_open(const char *state_dir, struct wire_identity **out,
				  struct err *err);
/* NULL is harmless.  No connection may use it any more. */
void wire_identity_free(struct wire_identity *identity);

/* Is it written as a fingerprint is? */
bool wire_fingerprint_is_valid(const char *text);

/*
 * Judges a peer's key during the handshake; the contexts call it with what stands in
 * SSL_set_app_data().  True: go on.
 */
struct wire_verifier {
	bool (*verify)(struct wire_verifier *verifier, const char *fingerprint);
};

#endif
