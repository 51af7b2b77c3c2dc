/* Who an exchange is: its id, and the hash by which the same request is recognised. */
#include "exchange/exchange.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <time.h>

int64_t exchange_wall_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void exchange_make_id(int64_t now_ms, char ret_id[ID_TEXT_MAX])
{
	struct timespec now;
	uint32_t fraction;
	uint8_t b[16];

	for (int i = 0; i < 6; i++)
		b[i] = (uint8_t)(now_ms >> (40 - 8 * i));
	while (getrandom(b + 6, 10, 0) != 10)
		;
	/* Those of one millisecond sort as they were made (RFC 9562, 6.2, method 3). */
	clock_gettime(CLOCK_REALTIME, &now);
	fraction = (uint32_t)((uint64_t)now.tv_nsec % 1000000 * 4096 / 1000000);
	b[6] = (uint8_t)(fraction >> 8 | 0x70);
	b[7] = (uint8_t)fraction;
	b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
	snprintf(ret_id, ID_TEXT_MAX,
		 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
		 b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14],
		 b[15]);
}

/* A part with its length, so that no two lists of parts look alike. */
static int add_part(EVP_MD_CTX *ctx, const void *bytes, size_t len)
{
	uint64_t n = len;

	return EVP_DigestUpdate(ctx, &n, sizeof(n)) == 1 &&
			       (!len || EVP_DigestUpdate(ctx, bytes, len) == 1)
		       ? 0
		       : -EIO;
}

static int add_text(EVP_MD_CTX *ctx, const char *text)
{
	return add_part(ctx, text, strlen(text));
}

static int add_fields(EVP_MD_CTX *ctx, const struct http_head *head, char *const *names)
{
	int r = 0;

	for (; names && *names && r == 0; names++) {
		r = add_text(ctx, *names);
		for (uint32_t i = 0; i < head->field_count && r == 0; i++)
			if (strcasecmp(http_text(head, head->fields[i].name), *names) == 0)
				r = add_text(ctx, http_text(head, head->fields[i].value));
	}
	return r;
}

int exchange_hash(const struct http_head *head, const char *source, const char *scheme,
		  const char *authority, char *const *hash_headers, const uint8_t body_hash[32],
		  uint8_t ret_hash[32])
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	int r;

	if (!ctx)
		return -ENOMEM;
	r = EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1 ? add_text(ctx, source) : -EIO;
	if (r == 0)
		r = add_text(ctx, http_method(head));
	if (r == 0)
		r = add_text(ctx, scheme);
	if (r == 0)
		r = add_text(ctx, authority);
	if (r == 0)
		r = add_text(ctx, http_target(head));
	if (r == 0)
		r = add_fields(ctx, head, hash_headers);
	if (r == 0)
		r = add_part(ctx, body_hash, 32);
	if (r == 0 && EVP_DigestFinal_ex(ctx, ret_hash, NULL) != 1)
		r = -EIO;
	EVP_MD_CTX_free(ctx);
	return r;
}
