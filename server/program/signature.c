#include "program/signature.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BASE64_LENGTH = 88 }; /* of 64 octets */

struct key {
	EVP_PKEY *pkey; /* NULL: the problem says why */
	char name[128];
	char *problem;
};

struct keys {
	size_t count;
	struct key items[];
};

/* --- reading --- */

static int key_fails(struct key *key, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static int key_fails(struct key *key, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vasprintf(&key->problem, format, args);
	va_end(args);
	if (n < 0)
		key->problem = NULL;
	return n < 0 ? -ENOMEM : 0;
}

/* The bytes of a regular file; a FIFO or a device in its place must not hold a worker up. */
static ssize_t read_file(const char *path, char *buffer, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	ssize_t n;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		n = -errno;
	else if (!S_ISREG(st.st_mode))
		n = -EINVAL;
	else if (st.st_size > (off_t)size)
		n = -EFBIG;
	else if ((n = read(fd, buffer, size)) < 0)
		n = -errno;
	close(fd);
	return n;
}

static int no_passphrase(char *buffer, int size, int writing, void *arg)
{
	return 0;
}

static int key_read(struct key *key, const char *path)
{
	char buffer[PROGRAM_KEY_FILE_MAX];
	const char *slash = strrchr(path, '/');
	ssize_t len = read_file(path, buffer, sizeof(buffer));
	BIO *bio;

	snprintf(key->name, sizeof(key->name), "%s", slash ? slash + 1 : path);
	if (len == -EINVAL)
		return key_fails(key, "%s is no ordinary file", path);
	if (len < 0)
		return key_fails(key, "%s cannot be read: %s", path, strerror((int)-len));
	bio = BIO_new_mem_buf(buffer, (int)len);
	if (!bio)
		return -ENOMEM;
	key->pkey = PEM_read_bio_PUBKEY(bio, NULL, no_passphrase, NULL);
	BIO_free(bio);
	ERR_clear_error();
	if (!key->pkey)
		return key_fails(key, "%s is no public key in PEM", path);
	if (EVP_PKEY_get_id(key->pkey) == EVP_PKEY_ED25519)
		return 0;
	EVP_PKEY_free(key->pkey);
	key->pkey = NULL;
	return key_fails(key, "%s is a public key, but not of Ed25519", path);
}

int keys_read(char *const *files, struct keys **ret_keys)
{
	struct keys *keys;
	size_t count = 0;
	int r;

	while (files && files[count])
		count++;
	keys = calloc(1, sizeof(*keys) + count * sizeof(keys->items[0]));
	if (!keys)
		return -ENOMEM;
	keys->count = count;
	for (size_t i = 0; i < count; i++) {
		r = key_read(&keys->items[i], files[i]);
		if (r < 0) {
			keys_free(keys);
			return r;
		}
	}
	*ret_keys = keys;
	return 0;
}

void keys_free(struct keys *keys)
{
	if (!keys)
		return;
	for (size_t i = 0; i < keys->count; i++) {
		EVP_PKEY_free(keys->items[i].pkey);
		free(keys->items[i].problem);
	}
	free(keys);
}

const char *keys_problem(const struct keys *keys, size_t n)
{
	for (size_t i = 0; keys && i < keys->count; i++)
		if (keys->items[i].problem && n-- == 0)
			return keys->items[i].problem;
	return NULL;
}

/* --- verifying --- */

static bool key_verifies(EVP_PKEY *pkey, const uint8_t *digest, const uint8_t *signature)
{
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	bool good;

	good = context && EVP_DigestVerifyInit(context, NULL, NULL, NULL, pkey) == 1 &&
	       EVP_DigestVerify(context, signature, PROGRAM_SIGNATURE_BYTES, digest,
				PROGRAM_DIGEST_BYTES) == 1;
	EVP_MD_CTX_free(context);
	ERR_clear_error();
	return good;
}

int keys_verify(const struct keys *keys, const uint8_t digest[PROGRAM_DIGEST_BYTES],
		const uint8_t signature[PROGRAM_SIGNATURE_BYTES], char *ret_name, size_t name_size)
{
	for (size_t i = 0; i < keys->count; i++) {
		const struct key *key = &keys->items[i];

		if (!key->pkey || !key_verifies(key->pkey, digest, signature))
			continue;
		snprintf(ret_name, name_size, "%s", key->name);
		return 0;
	}
	return -EKEYREJECTED;
}

int signature_decode(const char *text, uint8_t ret_signature[PROGRAM_SIGNATURE_BYTES])
{
	unsigned char bytes[BASE64_LENGTH / 4 * 3];

	/* EVP_DecodeBlock takes blanks around the text, and says nothing of the padding. */
	if (strlen(text) != BASE64_LENGTH || strcspn(text, "= \t\r\n") != BASE64_LENGTH - 2 ||
	    strcmp(text + BASE64_LENGTH - 2, "==") != 0)
		return -EINVAL;
	if (EVP_DecodeBlock(bytes, (const unsigned char *)text, BASE64_LENGTH) != sizeof(bytes))
		return -EINVAL;
	memcpy(ret_signature, bytes, PROGRAM_SIGNATURE_BYTES);
	return 0;
}

int signature_digest(const uint8_t *bytes, size_t size, uint8_t ret_digest[PROGRAM_DIGEST_BYTES])
{
	return EVP_Digest(bytes, size, ret_digest, NULL, EVP_sha256(), NULL) == 1 ? 0 : -ENOMEM;
}
