/* links: hf_proxy */
#include "proxy/sniff.h"

#include <check.h>
#include <openssl/bio.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>

static enum sniff_kind sniff_text(const char *text)
{
	char name[NAME_TEXT_MAX];

	return sniff((const uint8_t *)text, strlen(text), name);
}

START_TEST(http_is_known_by_method_and_target)
{
	ck_assert_int_eq(sniff_text("GET / HTTP/1.1\r\n"), SNIFF_HTTP);
	ck_assert_int_eq(sniff_text("M-SEARCH * HTTP/1.1\r\n"), SNIFF_HTTP);
	ck_assert_int_eq(sniff_text("POST http://a/ HTTP/1.1\r\n"), SNIFF_HTTP);
	ck_assert_int_eq(sniff_text("CONNECT a:443 HTTP/1.1\r\n"), SNIFF_HTTP);
	ck_assert_int_eq(sniff_text("G"), SNIFF_MORE);
	ck_assert_int_eq(sniff_text("GET"), SNIFF_MORE);
	ck_assert_int_eq(sniff_text("GET "), SNIFF_MORE);
	ck_assert_int_eq(sniff_text(""), SNIFF_MORE);
}
END_TEST

START_TEST(what_is_not_http_is_opaque)
{
	ck_assert_int_eq(sniff_text("EHLO mail.example\r\n"), SNIFF_OPAQUE);
	ck_assert_int_eq(sniff_text("SSH-2.0-OpenSSH\r\n"), SNIFF_OPAQUE);
	ck_assert_int_eq(sniff_text("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), SNIFF_OPAQUE);
	ck_assert_int_eq(sniff_text("PRI * HT"), SNIFF_MORE);
	ck_assert_int_eq(sniff_text("\x10\x1eMQTT"), SNIFF_OPAQUE);
	ck_assert_int_eq(sniff_text("get / HTTP/1.1\r\n"), SNIFF_OPAQUE);
	ck_assert_int_eq(sniff_text("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), SNIFF_OPAQUE);
}
END_TEST

/* A real client's hello. */
static size_t client_hello(const char *name, uint8_t *bytes, size_t size)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	SSL *ssl = SSL_new(ctx);
	BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
	int n;

	SSL_set_bio(ssl, in, out);
	if (name)
		SSL_set_tlsext_host_name(ssl, name);
	SSL_connect(ssl);
	n = BIO_read(out, bytes, (int)size);
	ck_assert_int_gt(n, 0);
	SSL_free(ssl);
	SSL_CTX_free(ctx);
	return (size_t)n;
}

START_TEST(the_name_is_read_from_a_whole_hello_only)
{
	uint8_t bytes[4096];
	char name[NAME_TEXT_MAX];
	size_t len = client_hello("Some.Fleet.Example", bytes, sizeof(bytes));

	for (size_t n = 1; n < len; n++)
		ck_assert_int_eq(sniff(bytes, n, name), SNIFF_MORE);
	ck_assert_int_eq(sniff(bytes, len, name), SNIFF_TLS);
	ck_assert_str_eq(name, "some.fleet.example");
	len = client_hello(NULL, bytes, sizeof(bytes));
	ck_assert_int_eq(sniff(bytes, len, name), SNIFF_TLS);
	ck_assert_str_eq(name, "");
}
END_TEST

START_TEST(a_hello_split_over_records_is_joined)
{
	uint8_t bytes[4096], split[8192];
	char name[NAME_TEXT_MAX];
	size_t len = client_hello("split.example", bytes, sizeof(bytes)), at = 0;

	for (size_t from = 5; from < len;) {
		size_t n = len - from < 37 ? len - from : 37;

		memcpy(split + at, bytes, 3);
		split[at + 3] = 0;
		split[at + 4] = (uint8_t)n;
		memcpy(split + at + 5, bytes + from, n);
		at += 5 + n;
		from += n;
	}
	ck_assert_int_eq(sniff(split, at, name), SNIFF_TLS);
	ck_assert_str_eq(name, "split.example");
	ck_assert_int_eq(sniff(split, at - 1, name), SNIFF_MORE);
}
END_TEST

START_TEST(a_damaged_hello_is_survived)
{
	uint8_t bytes[4096], copy[4096];
	char name[NAME_TEXT_MAX];
	size_t len = client_hello("damaged.example", bytes, sizeof(bytes));

	for (size_t i = 0; i < len; i++)
		for (int bit = 0; bit < 8; bit++) {
			memcpy(copy, bytes, len);
			copy[i] ^= (uint8_t)(1 << bit);
			sniff(copy, len, name);
			ck_assert_uint_lt(strlen(name), NAME_TEXT_MAX);
		}
}
END_TEST

/* Cut anywhere, with the lengths around it set right, it is no hello that can be trusted to ask
 * for no name; but for the one place before the extensions, which old clients do not have. */
START_TEST(a_hello_that_cannot_be_read_to_its_end_is_malformed)
{
	uint8_t bytes[4096];
	char name[NAME_TEXT_MAX];
	size_t len = client_hello("cut.example", bytes, sizeof(bytes)), whole = 0;

	for (size_t n = len - 1; n > 9 + 2 + 32 + 1 + 2 + 2 + 2; n--) {
		size_t body = n - 9, record = n - 5;

		bytes[3] = (uint8_t)(record >> 8);
		bytes[4] = (uint8_t)record;
		bytes[6] = 0;
		bytes[7] = (uint8_t)(body >> 8);
		bytes[8] = (uint8_t)body;
		whole += sniff(bytes, n, name) != SNIFF_BAD_TLS;
		ck_assert_str_eq(name, "");
	}
	ck_assert_uint_eq(whole, 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("sniff");
	TCase *tc = tcase_create("sniff");
	SRunner *runner;
	int failed;

	tcase_add_test(tc, http_is_known_by_method_and_target);
	tcase_add_test(tc, what_is_not_http_is_opaque);
	tcase_add_test(tc, the_name_is_read_from_a_whole_hello_only);
	tcase_add_test(tc, a_hello_split_over_records_is_joined);
	tcase_add_test(tc, a_damaged_hello_is_survived);
	tcase_add_test(tc, a_hello_that_cannot_be_read_to_its_end_is_malformed);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
