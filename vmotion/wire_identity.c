/* SPDX-License-Identifier: Apache-2.0 */
#include "vmotion/wire_identity.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_FILE "host-key.pem"
#define KEY_FILE_MAX_BYTES 8192
#define CERTIFICATE_DAYS 36500L         /* nobody looks: keys are pinned */

/* ---- fingerprints ---- */

static const char prefix[] = "SHA256:";
static const char base64_digits[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

bool wire_fingerprint_is_valid(const char *text)
{
	size_t skip = sizeof(prefix) - 1;

	return strlen(text) == WIRE_KEY_BYTES - 1 && strncmp(text, prefix, skip) == 0 &&
	       strspn(text + skip, base64_digits) == WIRE_KEY_BYTES - 1 - skip;
}

static bool fingerprint_of(X509 *certificate, char text[WIRE_KEY_BYTES])
{
	unsigned char digest[EVP_MAX_MD_SIZE], base64[64];
	unsigned char *der = NULL;
	unsigned digest_bytes = 0;
	int der_bytes = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &der);
	bool made = der_bytes > 0 &&
		    EVP_Digest(der, (size_t)der_bytes, digest, &digest_bytes, EVP_sha256(), NULL) &&
		    digest_bytes == 32;

	OPENSSL_free(der);
	if (!made)
		return false;
	EVP_EncodeBlock(base64, digest, 32);    /* 44 characters, the last is '=' */
	snprintf(text, WIRE_KEY_BYTES, "%s%.43s", prefix, (const char *)base64);
	return true;
}

/* ---- the file ---- */

static int key_fail(struct err *err, int rc, const char *what, const char *state_dir)
{
	return err_set(err, ERR_HOST_KEY_FILE, rc, "cannot %s '%s/" KEY_FILE "': %s", what, state_dir,
		       err_strerror(rc));
}

static int judge_key_file(int fd, const char *state_dir, struct err *err)
{
	struct stat st;
	int rc;

	if (fstat(fd, &st))
		return key_fail(err, -errno, "look at", state_dir);
	if (S_ISREG(st.st_mode) && !(st.st_mode & 077) && st.st_size <= KEY_FILE_MAX_BYTES)
		return 0;
	rc = err_set(err, ERR_HOST_KEY_FILE, -EPERM,
		     "'%s/" KEY_FILE "' may be read by others, or is no plain file", state_dir);
	err_remedy(err, "A key that others could read is no secret: remove it and restart, or chmod "
			"600 it when nobody had access.");
	return rc;
}

static int read_key(int fd, const char *state_dir, EVP_PKEY **key, struct err *err)
{
	char text[KEY_FILE_MAX_BYTES];
	ssize_t got;
	BIO *bio;
	int rc = judge_key_file(fd, state_dir, err);

	if (rc)
		return rc;
	got = read(fd, text, sizeof(text));
	if (got < 0)
		return key_fail(err, -errno, "read", state_dir);
	bio = BIO_new_mem_buf(text, (int)got);
	*key = bio ? PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *)"") : NULL;
	BIO_free(bio);
	OPENSSL_cleanse(text, sizeof(text));
	if (*key)
		return 0;
	ERR_clear_error();
	return err_set(err, ERR_HOST_KEY_FILE, -EBADMSG, "'%s/" KEY_FILE "' holds no key", state_dir);
}

/* Written aside, synced and renamed: it is there whole or not at all. */
static int write_key(int dir_fd, const char *state_dir, const char *text, size_t bytes,
		     struct err *err)
{
	int rc = 0;
	int fd = openat(dir_fd, KEY_FILE ".new",
			O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0 || fchmod(fd, 0600) || write(fd, text, bytes) != (ssize_t)bytes || fsync(fd) ||
	    renameat(dir_fd, KEY_FILE ".new", dir_fd, KEY_FILE) || fsync(dir_fd))
		rc = key_fail(err, errno ? -errno : -EIO, "write", state_dir);
	if (fd >= 0)
		close(fd);
	return rc;
}

static int make_key(int dir_fd, const char *state_dir, EVP_PKEY **out, struct err *err)
{
	EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	BIO *bio = BIO_new(BIO_s_secmem());
	char *text;
	long bytes;
	int rc;

	if (!key || !bio || !PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL)) {
		rc = err_set(err, ERR_HOST_KEY_FILE, -EIO, "cannot make a key for this host");
		goto free_all;
	}
	bytes = BIO_get_mem_data(bio, &text);
	rc = write_key(dir_fd, state_dir, text, (size_t)bytes, err);
	if (!rc) {
		*out = key;
		key = NULL;
	}
free_all:
	BIO_free(bio);
	EVP_PKEY_free(key);
	return rc;
}

static int get_key(const char *state_dir, EVP_PKEY **key, struct err *err)
{
	int dir_fd = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int fd, rc;

	if (dir_fd < 0)
		return key_fail(err, -errno, "open", state_dir);
	fd = openat(dir_fd, KEY_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd >= 0)
		rc = read_key(fd, state_dir, key, err);
	else if (errno == ENOENT)
		rc = make_key(dir_fd, state_dir, key, err);
	else
		rc = key_fail(err, -errno, "open", state_dir);
	if (fd >= 0)
		close(fd);
	close(dir_fd);
	return rc;
}

/* ---- TLS ---- */

static X509 *make_certificate(EVP_PKEY *key)
{
	static const unsigned char name[] = "blkmirror";
	X509 *certificate = X509_new();
	X509_NAME *subject;

	if (!certificate)
		return NULL;
	subject = X509_get_subject_name(certificate);
	if (X509_set_version(certificate, X509_VERSION_3) &&
	    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1) &&
	    X509_gmtime_adj(X509_getm_notBefore(certificate), -86400L) &&
	    X509_time_adj_ex(X509_getm_notAfter(certificate), CERTIFICATE_DAYS, 0, NULL) &&
	    X509_set_pubkey(certificate, key) &&
	    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, name, -1, -1, 0) &&
	    X509_set_issuer_name(certificate, subject) && X509_sign(certificate, key, NULL))
		return certificate;
	X509_free(certificate);
	return NULL;
}

/*
 * Instead of chains and names: the peer's key itself, for whoever made this connection to judge.
 * That the peer holds the key's other half TLS has seen to by then or will before it goes on.
 */
static int verify_peer(X509_STORE_CTX *store, void *unused)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct wire_verifier *verifier = ssl ? SSL_get_app_data(ssl) : NULL;
	X509 *certificate = X509_STORE_CTX_get0_cert(store);
	char fingerprint[WIRE_KEY_BYTES];

	(void)unused;
	if (verifier && certificate && fingerprint_of(certificate, fingerprint) &&
	    verifier->verify(verifier, fingerprint)) {
		X509_STORE_CTX_set_error(store, X509_V_OK);
		return 1;
	}
	X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION);
	return 0;
}

static SSL_CTX *make_context(const SSL_METHOD *method, EVP_PKEY *key, X509 *certificate)
{
	SSL_CTX *context = SSL_CTX_new(method);

	if (!context)
		return NULL;
	SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE |
					  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
					  SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_read_ahead(context, 1);
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_cert_verify_callback(context, verify_peer, NULL);
	if (SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) &&
	    SSL_CTX_set_num_tickets(context, 0) &&
	    SSL_CTX_use_certificate(context, certificate) == 1 &&
	    SSL_CTX_use_PrivateKey(context, key) == 1)
		return context;
	SSL_CTX_free(context);
	return NULL;
}

int wire_identity_open(const char *state_dir, struct wire_identity **out, struct err *err)
{
	struct wire_identity *identity = calloc(1, sizeof(*identity));
	X509 *certificate = NULL;
	EVP_PKEY *key = NULL;
	int rc;

	if (!identity)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	rc = get_key(state_dir, &key, err);
	if (rc)
		goto free_identity;
	certificate = make_certificate(key);
	if (certificate && fingerprint_of(certificate, identity->fingerprint)) {
		identity->dial = make_context(TLS_client_method(), key, certificate);
		identity->accept = make_context(TLS_server_method(), key, certificate);
	}
	X509_free(certificate);
	EVP_PKEY_free(key);
	if (identity->dial && identity->accept) {
		*out = identity;
		return 0;
	}
	ERR_clear_error();
	rc = err_set(err, ERR_HOST_KEY_FILE, -EINVAL,
		     "the key in '%s/" KEY_FILE "' cannot be used for TLS", state_dir);
free_identity:
	wire_identity_free(identity);
	return rc;
}

void wire_identity_free(struct wire_identity *identity)
{
	if (!identity)
		return;
	SSL_CTX_free(identity->dial);
	SSL_CTX_free(identity->accept);
	free(identity);
}
