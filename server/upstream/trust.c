#include "upstream/trust.h"

#include "base/log.h"
#include "upstream/sessions.h"

#include <dirent.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { ORIGIN_TEXT_MAX = NAME_TEXT_MAX + 8 };

TAILQ_HEAD(trust_list, trust);
TAILQ_HEAD(wait_list, trust_wait);

struct trusts {
	uv_loop_t *loop;
	unsigned refs; /* the owner's, and one a trust */
	struct trust_list list;
	struct sessions sessions;
	X509_STORE *system; /* the system's authorities, once they were needed */
	int origin_index;   /* of the origin's text in an SSL */
};

/* What is wrong with a file: which key names it, and why. */
struct problem {
	const char *key;
	char text[320];
};

struct trust {
	TAILQ_ENTRY(trust) entry; /* in trusts->list, while listed */
	struct trusts *trusts;
	unsigned refs;	    /* the list's, a reader's, the users' */
	char *paths[3];	    /* NULL: none */
	SSL_CTX *ctx;	    /* NULL: not read yet, or no good */
	X509_STORE *system; /* given to the reader, or made by it */
	struct wait_list waits;
	struct problem problem;
	uv_work_t work;
	bool listed, loaded;
};

static const char *const keys[] = {"upstream_ca", "client_certificate", "client_key"};
enum { CA, CERTIFICATE, KEY, PATHS };
_Static_assert(sizeof(keys) / sizeof(keys[0]) == PATHS, "a key for each path");

static void get_paths(const struct rule_policy *policy, const char *ret_paths[PATHS])
{
	ret_paths[CA] = policy->upstream_ca;
	ret_paths[CERTIFICATE] = policy->client_certificate;
	ret_paths[KEY] = policy->client_key;
}

static bool same_text(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static bool same_paths(const char *const a[PATHS], const char *const b[PATHS])
{
	return same_text(a[CA], b[CA]) && same_text(a[CERTIFICATE], b[CERTIFICATE]) &&
	       same_text(a[KEY], b[KEY]);
}

/* --- reading files: blocking, on a worker or at configuration time --- */

static int complain(struct problem *problem, int which, const char *path, const char *what)
{
	problem->key = keys[which];
	snprintf(problem->text, sizeof(problem->text), "%s: %s", path, what);
	return -EINVAL;
}

static int check_readable(struct problem *problem, int which, const char *path)
{
	FILE *file = fopen(path, "re");
	struct stat st;
	int r = 0;

	if (!file)
		return complain(problem, which, path, strerror(errno));
	if (fstat(fileno(file), &st) < 0 || !S_ISREG(st.st_mode))
		r = complain(problem, which, path, "not a file");
	fclose(file);
	return r;
}

/* Where OpenSSL would look by itself, but whole and now: later it would read on the loop. */
static void read_folder(X509_STORE *store, const char *path)
{
	DIR *folder = opendir(path);
	struct dirent *item;
	char file[512];

	if (!folder)
		return;
	while ((item = readdir(folder))) {
		const char *dot = strrchr(item->d_name, '.');

		/* HASH.0, as c_rehash makes them: one certificate each */
		if (!dot || dot - item->d_name != 8 || dot[1] < '0' || dot[1] > '9')
			continue;
		snprintf(file, sizeof(file), "%s/%s", path, item->d_name);
		if (X509_STORE_load_file(store, file) != 1)
			ERR_clear_error();
	}
	closedir(folder);
}

static X509_STORE *read_system(void)
{
	const char *file = getenv(X509_get_default_cert_file_env());
	const char *folder = getenv(X509_get_default_cert_dir_env());
	X509_STORE *store = X509_STORE_new();

	if (!store)
		return NULL;
	if (!file)
		file = X509_get_default_cert_file();
	if (!folder)
		folder = X509_get_default_cert_dir();
	if (X509_STORE_load_file(store, file) != 1) {
		ERR_clear_error();
		read_folder(store, folder);
	}
	return store;
}

static int read_authorities(SSL_CTX *ctx, const char *path, struct problem *problem)
{
	int r = check_readable(problem, CA, path);

	if (r < 0)
		return r;
	if (SSL_CTX_load_verify_file(ctx, path) != 1)
		return complain(problem, CA, path, "no certificate in PEM");
	/* What the file names is trusted, be it the root of a chain or not. */
	X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(ctx), X509_V_FLAG_PARTIAL_CHAIN);
	return 0;
}

/* A password would be asked for on a terminal. */
static int no_password(char *buffer, int size, int writing, void *arg)
{
	return -1;
}

static int explain_key(struct problem *problem, const char *path)
{
	unsigned long error = ERR_peek_error();

	if (ERR_GET_LIB(error) == ERR_LIB_X509 &&
	    (ERR_GET_REASON(error) == X509_R_KEY_VALUES_MISMATCH ||
	     ERR_GET_REASON(error) == X509_R_KEY_TYPE_MISMATCH))
		return complain(problem, KEY, path,
				"this key does not belong to the certificate of "
				"client_certificate");
	return complain(problem, KEY, path, "no private key in PEM without a password");
}

static int read_client(SSL_CTX *ctx, const char *const paths[PATHS], struct problem *problem)
{
	const char *reason;
	int r = check_readable(problem, CERTIFICATE, paths[CERTIFICATE]);

	if (r < 0)
		return r;
	if (!paths[KEY])
		return complain(problem, KEY, paths[CERTIFICATE], "this certificate has no key");
	if (SSL_CTX_use_certificate_chain_file(ctx, paths[CERTIFICATE]) != 1) {
		reason = ERR_reason_error_string(ERR_peek_error());
		return complain(problem, CERTIFICATE, paths[CERTIFICATE],
				reason && strcmp(reason, "no start line") != 0
					? reason
					: "no certificate in PEM");
	}
	r = check_readable(problem, KEY, paths[KEY]);
	if (r == 0 && SSL_CTX_use_PrivateKey_file(ctx, paths[KEY], SSL_FILETYPE_PEM) != 1)
		r = explain_key(problem, paths[KEY]);
	return r;
}

static SSL_CTX *new_context(void)
{
	static const unsigned char alpn[] = "\x08http/1.1";
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

	if (!ctx)
		return NULL;
	/* The system's settings may ask for more, not for less. */
	if (SSL_CTX_get_min_proto_version(ctx) < TLS1_2_VERSION)
		SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_session_cache_mode(ctx,
				       SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL_STORE);
	SSL_CTX_set_default_passwd_cb(ctx, no_password);
	if (SSL_CTX_set_alpn_protos(ctx, alpn, sizeof(alpn) - 1) == 0)
		return ctx;
	SSL_CTX_free(ctx);
	return NULL;
}

/* *system: the authorities of the system where they are known already; made when needed. */
static int read_context(const char *const paths[PATHS], X509_STORE **system,
			struct problem *problem, SSL_CTX **ret_ctx)
{
	SSL_CTX *ctx = new_context();
	int r = 0;

	ERR_clear_error();
	if (!ctx)
		return -ENOMEM;
	if (paths[CA])
		r = read_authorities(ctx, paths[CA], problem);
	else if (!*system && !(*system = read_system()))
		r = -ENOMEM;
	else
		SSL_CTX_set1_cert_store(ctx, *system);
	if (r == 0 && paths[CERTIFICATE])
		r = read_client(ctx, paths, problem);
	ERR_clear_error();
	if (r < 0)
		SSL_CTX_free(ctx);
	else
		*ret_ctx = ctx;
	return r;
}

/* --- checking a configuration --- */

static bool needs_files(const char *const paths[PATHS])
{
	return paths[CA] || paths[CERTIFICATE];
}

static int check_policy(const struct rule_policy *policy, const char *at,
			struct config_errors *errors)
{
	const char *paths[PATHS];
	struct problem problem = {0};
	X509_STORE *none = NULL;
	SSL_CTX *ctx = NULL;
	char path[80];
	int r;

	get_paths(policy, paths);
	if (!needs_files(paths))
		return 0;
	/* The system's authorities are no file of the configuration. */
	if (!paths[CA] && !(none = X509_STORE_new()))
		return -ENOMEM;
	r = read_context(paths, &none, &problem, &ctx);
	if (r == 0)
		SSL_CTX_free(ctx);
	X509_STORE_free(none);
	if (r != -EINVAL)
		return r;
	snprintf(path, sizeof(path), "%s.%s", at, problem.key);
	return errors_add(errors, path, 0, "%s", problem.text);
}

static bool is_like(const struct rule_policy *a, const struct rule_policy *b)
{
	const char *of_a[PATHS], *of_b[PATHS];

	get_paths(a, of_a);
	get_paths(b, of_b);
	return same_paths(of_a, of_b);
}

int trust_check(const struct config *config, struct config_errors *errors)
{
	char at[32];
	int r, worst = check_policy(&config->defaults.policy, "defaults", errors);

	for (size_t i = 0; i < config->rule_count && worst != -ENOMEM; i++) {
		const struct rule_policy *policy = &config->rules[i].policy;
		bool told = is_like(policy, &config->defaults.policy);

		for (size_t j = 0; j < i && !told; j++)
			told = is_like(policy, &config->rules[j].policy);
		if (told)
			continue;
		snprintf(at, sizeof(at), "rules[%zu]", i);
		r = check_policy(policy, at, errors);
		if (r < 0)
			worst = r;
	}
	return worst;
}

/* --- the list --- */

static void free_origin(void *parent, void *text, CRYPTO_EX_DATA *data, int index, long number,
			void *pointer)
{
	free(text);
}

int trusts_new(uv_loop_t *loop, struct trusts **ret_trusts)
{
	struct trusts *trusts = calloc(1, sizeof(*trusts));

	if (!trusts)
		return -ENOMEM;
	trusts->loop = loop;
	trusts->refs = 1;
	TAILQ_INIT(&trusts->list);
	sessions_init(&trusts->sessions);
	trusts->origin_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, free_origin);
	if (trusts->origin_index < 0) {
		free(trusts);
		return -ENOMEM;
	}
	*ret_trusts = trusts;
	return 0;
}

static void trusts_unref(struct trusts *trusts)
{
	if (--trusts->refs)
		return;
	sessions_done(&trusts->sessions);
	X509_STORE_free(trusts->system);
	free(trusts);
}

static void unlist(struct trust *trust)
{
	if (!trust->listed)
		return;
	trust->listed = false;
	TAILQ_REMOVE(&trust->trusts->list, trust, entry);
	trust_unref(trust);
}

void trusts_close(struct trusts *trusts)
{
	while (!TAILQ_EMPTY(&trusts->list))
		unlist(TAILQ_FIRST(&trusts->list));
	trusts_unref(trusts);
}

struct trust *trust_ref(struct trust *trust)
{
	trust->refs++;
	return trust;
}

void trust_unref(struct trust *trust)
{
	if (!trust || --trust->refs)
		return;
	sessions_forget(&trust->trusts->sessions, trust);
	if (trust->ctx) {
		/* A connection may outlive it. */
		SSL_CTX_sess_set_new_cb(trust->ctx, NULL);
		SSL_CTX_free(trust->ctx);
	}
	X509_STORE_free(trust->system);
	for (int i = 0; i < PATHS; i++)
		free(trust->paths[i]);
	trusts_unref(trust->trusts);
	free(trust);
}

/* --- sessions --- */

static int on_session(SSL *ssl, SSL_SESSION *session)
{
	struct trust *trust = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
	const char *origin = SSL_get_ex_data(ssl, trust->trusts->origin_index);

	sessions_put(&trust->trusts->sessions, trust, origin, session);
	return 1; /* it is ours now */
}

/* --- loading --- */

static void load(uv_work_t *work)
{
	struct trust *trust = work->data;

	if (read_context((const char *const *)trust->paths, &trust->system, &trust->problem,
			 &trust->ctx) == -ENOMEM)
		snprintf(trust->problem.text, sizeof(trust->problem.text), "out of memory");
}

static void tell(struct trust *trust)
{
	struct trust_wait *wait;
	char text[400];

	if (!trust->ctx)
		snprintf(text, sizeof(text), "%s%s%s", trust->problem.key ? trust->problem.key : "",
			 trust->problem.key ? " " : "", trust->problem.text);
	while ((wait = TAILQ_FIRST(&trust->waits))) {
		TAILQ_REMOVE(&trust->waits, wait, entry);
		wait->trust = NULL;
		wait->ready(wait->arg, trust->ctx ? NULL : text);
	}
}

static void loaded(uv_work_t *work, int status)
{
	struct trust *trust = work->data;
	struct trusts *trusts = trust->trusts;

	trust->loaded = true;
	if (trust->ctx) {
		SSL_CTX_set_app_data(trust->ctx, trust);
		SSL_CTX_sess_set_new_cb(trust->ctx, on_session);
	} else {
		log_warning("upstream", "TLS: %s", trust->problem.text);
		/* The next one reads the files again. */
		unlist(trust);
	}
	if (!trusts->system && trust->system && trust->ctx) {
		trusts->system = trust->system;
		trust->system = NULL;
	}
	tell(trust);
	trust_unref(trust);
}

static int start_loading(struct trust *trust)
{
	int r;

	trust->system = trust->trusts->system;
	if (trust->system)
		X509_STORE_up_ref(trust->system);
	trust->work.data = trust;
	r = uv_queue_work(trust->trusts->loop, &trust->work, load, loaded);
	if (r == 0)
		trust_ref(trust);
	return r;
}

static struct trust *trust_new(struct trusts *trusts, const char *const paths[PATHS])
{
	struct trust *trust = calloc(1, sizeof(*trust));
	int r = 0;

	if (!trust)
		return NULL;
	trusts->refs++;
	trust->trusts = trusts;
	trust->refs = 1;
	TAILQ_INIT(&trust->waits);
	for (int i = 0; i < PATHS; i++) {
		trust->paths[i] = paths[i] ? strdup(paths[i]) : NULL;
		if (paths[i] && !trust->paths[i])
			r = -ENOMEM;
	}
	if (r == 0)
		r = start_loading(trust);
	if (r == 0)
		return trust;
	trust_unref(trust);
	return NULL;
}

struct trust *trusts_get(struct trusts *trusts, const struct rule_policy *policy)
{
	const char *paths[PATHS];
	struct trust *trust;

	get_paths(policy, paths);
	TAILQ_FOREACH (trust, &trusts->list, entry) {
		if (same_paths((const char *const *)trust->paths, paths))
			return trust_ref(trust);
	}
	trust = trust_new(trusts, paths);
	if (!trust)
		return NULL;
	TAILQ_INSERT_TAIL(&trusts->list, trust, entry);
	trust->listed = true;
	return trust_ref(trust);
}

void trust_wait(struct trust *trust, struct trust_wait *wait,
		void (*ready)(void *arg, const char *failure), void *arg)
{
	wait->trust = trust;
	wait->ready = ready;
	wait->arg = arg;
	TAILQ_INSERT_TAIL(&trust->waits, wait, entry);
	if (!trust->loaded)
		return;
	trust_ref(trust);
	tell(trust);
	trust_unref(trust);
}

void trust_wait_cancel(struct trust_wait *wait)
{
	if (wait->trust)
		TAILQ_REMOVE(&wait->trust->waits, wait, entry);
	wait->trust = NULL;
}

/* --- one connection --- */

/* A name that begins with a dot would be any name below it, and an empty one any at all. */
static int expect_name(SSL *ssl, const char *server_name)
{
	char name[NAME_TEXT_MAX];
	size_t len = strlen(server_name);
	struct ip ip;

	if (ip_parse(server_name, &ip) == 0)
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), server_name) == 1
			       ? 0
			       : -ENOMEM;
	if (len && server_name[len - 1] == '.')
		len--;
	if (!len || len >= sizeof(name) || server_name[0] == '.')
		return -EINVAL;
	memcpy(name, server_name, len);
	name[len] = '\0';
	SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS |
				       X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
	return SSL_set1_host(ssl, name) == 1 && SSL_set_tlsext_host_name(ssl, name) == 1 ? 0
											 : -EINVAL;
}

static int name_origin(struct trust *trust, SSL *ssl, const char *server_name, uint16_t port,
		       char origin[ORIGIN_TEXT_MAX])
{
	char *copy;

	snprintf(origin, ORIGIN_TEXT_MAX, "%s:%u", server_name, port);
	copy = strdup(origin);
	if (copy && SSL_set_ex_data(ssl, trust->trusts->origin_index, copy) == 1)
		return 0;
	free(copy);
	return -ENOMEM;
}

int trust_ssl(struct trust *trust, const char *server_name, uint16_t port, struct ssl_st **ret_ssl)
{
	SSL *ssl = SSL_new(trust->ctx);
	char origin[ORIGIN_TEXT_MAX];
	SSL_SESSION *session;
	int r;

	if (!ssl)
		return -ENOMEM;
	r = expect_name(ssl, server_name);
	if (r == 0)
		r = name_origin(trust, ssl, server_name, port, origin);
	if (r < 0) {
		SSL_free(ssl);
		return r;
	}
	session = sessions_take(&trust->trusts->sessions, trust, origin);
	if (session)
		SSL_set_session(ssl, session);
	SSL_SESSION_free(session);
	*ret_ssl = ssl;
	return 0;
}
