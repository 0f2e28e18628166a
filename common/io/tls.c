/* TLS contexts: one policy for all of Harpoon's connections, and the clients' sessions for resumption. */
#include "io/tls.h"

#include <assert.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "io/loop.h"
#include "io/stream_private.h"
#include "io/tls_files.h"

enum { SESSIONS_MAX = 8, VERIFY_DEPTH_MAX = 4 };

/* AES-128 first: it is safe, the fastest, and a connection keeps two states of the hash, of which SHA-256's are half as big. */
#define CIPHERSUITES "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

static int context_index = -1; /* of SSL_get_ex_data: the context of a connection */

struct kept_session {
    char *key; /* address and server name */
    SSL_SESSION *session;
};

struct hp_tls_context {
    SSL_CTX *ctx;  /* a counted reference */
    X509 *cert;    /* leaf of this context when ctx is shared; else NULL: it is in ctx */
    EVP_PKEY *key; /* likewise */
    size_t refs;
    struct hp_tls_files files;
    enum hp_tls_role role;
    bool require_peer;
    unsigned char alpn[256]; /* server: wire form, best first */
    size_t alpn_len;
    struct kept_session sessions[SESSIONS_MAX]; /* client */
    unsigned next_victim;                       /* of sessions */
};

static int fail_ssl(struct hp_error *e, int code, const char *what, const char *name)
{
    unsigned long err = ERR_peek_last_error();
    const char *reason = ERR_reason_error_string(err);
    if (ERR_GET_LIB(err) == ERR_LIB_PEM && ERR_GET_REASON(err) == PEM_R_NO_START_LINE)
        reason = "no such PEM block in it";
    hp_fail(e, code, "TLS: %s %s: %s", what, name, reason ? reason : "not usable");
    ERR_clear_error();
    return code;
}

/* ---- Sessions of clients ---- */

SSL_SESSION *hp_tls_context_session(struct hp_tls_context *c, const char *key)
{
    for (size_t i = 0; i < SESSIONS_MAX; i++)
        if (c->sessions[i].key && strcmp(c->sessions[i].key, key) == 0)
            return c->sessions[i].session;
    return NULL;
}

/* OpenSSL's new-session callback: returning 1 keeps the reference. */
static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    struct hp_tls_context *c = SSL_get_ex_data(ssl, context_index);
    const char *key = SSL_get_app_data(ssl);
    if (!c || c->role != HP_TLS_CLIENT || !key || !SSL_SESSION_is_resumable(session))
        return 0;
    struct kept_session *k = NULL;
    for (size_t i = 0; i < SESSIONS_MAX && !k; i++)
        if (!c->sessions[i].key || strcmp(c->sessions[i].key, key) == 0)
            k = &c->sessions[i];
    if (!k)
        k = &c->sessions[c->next_victim++ % SESSIONS_MAX];
    if (!k->key || strcmp(k->key, key) != 0) {
        char *copy = strdup(key);
        if (!copy)
            return 0;
        free(k->key);
        k->key = copy;
    }
    SSL_SESSION_free(k->session);
    k->session = session;
    return 1;
}

/* ---- ALPN ---- */

static int set_alpn(struct hp_tls_context *c, const char *list, struct hp_error *e)
{
    while (*list) {
        size_t n = strcspn(list, ",");
        if (n == 0 || n > 255 || c->alpn_len + n + 1 > sizeof c->alpn)
            return hp_fail(e, HP_EINVAL, "TLS: bad ALPN list at \"%s\"", list);
        c->alpn[c->alpn_len++] = (unsigned char)n;
        memcpy(c->alpn + c->alpn_len, list, n);
        c->alpn_len += n;
        list += n + (list[n] == ',');
    }
    return 0;
}

/* RFC 7301, 3.2: no common protocol is fatal; a client that offers none is served without. */
static int choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
                       unsigned in_len, void *arg)
{
    struct hp_tls_context *c = arg;
    (void)ssl;
    unsigned char *chosen = NULL;
    if (SSL_select_next_proto(&chosen, out_len, c->alpn, (unsigned)c->alpn_len, in, in_len) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

/* ---- Material ---- */

struct material {
    const char *pem;  /* text */
    const char *name; /* file, or what it is, for messages */
};

static BIO *open_pem(const struct material *m, struct hp_error *e)
{
    BIO *b = BIO_new_mem_buf(m->pem, -1);
    if (!b)
        hp_fail(e, HP_ENOMEM, "TLS: %s: out of memory", m->name);
    return b;
}

static int no_password(char *buf, int size, int rwflag, void *user)
{
    (void)buf;
    (void)size;
    (void)rwflag;
    (void)user;
    return -1;
}

static int use_ca(struct hp_tls_context *c, const struct material *m, struct hp_error *e)
{
    BIO *b = open_pem(m, e);
    if (!b)
        return HP_ENOMEM;
    X509_STORE *store = SSL_CTX_get_cert_store(c->ctx);
    int count = 0, ok = 1;
    X509 *x;
    while (ok && (x = PEM_read_bio_X509(b, NULL, no_password, NULL))) {
        ok = X509_STORE_add_cert(store, x) == 1;
        if (ok && c->role == HP_TLS_SERVER)
            ok = SSL_CTX_add_client_CA(c->ctx, x) == 1;
        X509_free(x);
        count++;
    }
    BIO_free(b);
    if (!ok || count == 0)
        return fail_ssl(e, HP_EINVAL, "CA certificates in", m->name);
    ERR_clear_error(); /* the end of the text is an error to the reader */
    return 0;
}

static int use_cert(struct hp_tls_context *c, const struct material *m, struct hp_error *e)
{
    BIO *b = open_pem(m, e);
    if (!b)
        return HP_ENOMEM;
    X509 *x = PEM_read_bio_X509(b, NULL, no_password, NULL);
    int ok = x && SSL_CTX_use_certificate(c->ctx, x) == 1;
    X509_free(x);
    while (ok && (x = PEM_read_bio_X509(b, NULL, no_password, NULL)))
        ok = SSL_CTX_add0_chain_cert(c->ctx, x) == 1;
    BIO_free(b);
    if (!ok)
        return fail_ssl(e, HP_EINVAL, "certificate in", m->name);
    ERR_clear_error();
    return 0;
}

static int use_key(struct hp_tls_context *c, const struct material *m, struct hp_error *e)
{
    BIO *b = open_pem(m, e);
    if (!b)
        return HP_ENOMEM;
    EVP_PKEY *k = PEM_read_bio_PrivateKey(b, NULL, no_password, NULL);
    BIO_free(b);
    int ok = k && SSL_CTX_use_PrivateKey(c->ctx, k) == 1 && SSL_CTX_check_private_key(c->ctx) == 1;
    EVP_PKEY_free(k);
    return ok ? 0 : fail_ssl(e, HP_EINVAL, "private key in", m->name);
}

/* ---- Contexts ---- */

static int set_policy(struct hp_tls_context *c, const struct hp_tls_options *o, bool has_ca)
{
    SSL_CTX *ctx = c->ctx;
    SSL_CTX_set_mode(ctx, SSL_MODE_NO_AUTO_CHAIN | SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                              SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                 SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_verify_depth(ctx, VERIFY_DEPTH_MAX);
    if (o->role == HP_TLS_CLIENT) {
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
        SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(ctx, keep_session);
    } else {
        int mode = has_ca ? SSL_VERIFY_PEER : SSL_VERIFY_NONE;
        SSL_CTX_set_verify(ctx, mode | (o->require_peer ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), NULL);
        /* Tickets carry the session, so the server keeps none; one is enough for one reconnection. */
        SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
        SSL_CTX_set_num_tickets(ctx, 1);
        if (SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"harpoon", 7) != 1)
            return HP_ENOMEM;
        if (c->alpn_len)
            SSL_CTX_set_alpn_select_cb(ctx, choose_alpn, c);
    }
    if (SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1 || SSL_CTX_set_ciphersuites(ctx, CIPHERSUITES) != 1 ||
        SSL_CTX_set_cipher_list(ctx, "ECDHE+AESGCM:ECDHE+CHACHA20") != 1)
        return HP_EINTERNAL;
    return 0;
}

static int check_options(const struct hp_tls_options *o, bool ca, bool cert, bool key, struct hp_error *e)
{
    if (o->role == HP_TLS_CLIENT && !ca)
        return hp_fail(e, HP_EINVAL, "TLS: a client needs CA certificates");
    if (o->role == HP_TLS_SERVER && (!cert || !key))
        return hp_fail(e, HP_EINVAL, "TLS: a server needs a certificate and its key");
    if (cert != key)
        return hp_fail(e, HP_EINVAL, "TLS: a certificate and its key come together: the %s is missing",
                       cert ? "key" : "certificate");
    if (o->role == HP_TLS_SERVER && o->require_peer && !ca)
        return hp_fail(e, HP_EINVAL, "TLS: asking clients for certificates needs CA certificates");
    return 0;
}

static void make_index(void)
{
    context_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
}

static struct hp_tls_context *context_alloc(const struct hp_tls_options *o)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_index);
    struct hp_tls_context *c = context_index >= 0 ? calloc(1, sizeof *c) : NULL;
    if (c) {
        c->refs = 1;
        c->role = o->role;
        c->require_peer = o->require_peer;
    }
    return c;
}

static int context_new(const struct hp_tls_options *o, const struct material *ca, const struct material *cert,
                       const struct material *key, struct hp_tls_context **ret, struct hp_error *e)
{
    int rc = check_options(o, ca->pem, cert->pem, key->pem, e);
    if (rc)
        return rc;
    struct hp_tls_context *c = context_alloc(o);
    if (!c)
        return hp_fail(e, HP_ENOMEM, "TLS: out of memory");
    ERR_clear_error();
    c->ctx = SSL_CTX_new(o->role == HP_TLS_CLIENT ? TLS_client_method() : TLS_server_method());
    if (!c->ctx)
        rc = fail_ssl(e, HP_ENOMEM, "new", "context");
    if (!rc && o->alpn && o->role == HP_TLS_SERVER)
        rc = set_alpn(c, o->alpn, e);
    if (!rc && set_policy(c, o, ca->pem))
        rc = fail_ssl(e, HP_EINTERNAL, "setting", "the policy");
    if (!rc && ca->pem)
        rc = use_ca(c, ca, e);
    if (!rc && cert->pem)
        rc = use_cert(c, cert, e);
    if (!rc && key->pem)
        rc = use_key(c, key, e);
    if (rc)
        hp_tls_context_unref(c);
    else
        *ret = c;
    return rc;
}

/* A simulated fleet has one context per host, all of one CA: an SSL_CTX costs milliseconds and tens of kilobytes, so the latest one is shared by
 * clients, and only the certificate is the context's own. */
static _Thread_local struct {
    char *ca_pem;
    SSL_CTX *ctx;
    char *key_pem; /* decoding a key takes OpenSSL 3 most of a millisecond, and such a fleet has one */
    EVP_PKEY *key;
} latest_client;

static EVP_PKEY *read_client_key(const char *pem)
{
    if (latest_client.key_pem && strcmp(latest_client.key_pem, pem) == 0) {
        EVP_PKEY_up_ref(latest_client.key);
        return latest_client.key;
    }
    BIO *b = BIO_new_mem_buf(pem, -1);
    EVP_PKEY *key = b ? PEM_read_bio_PrivateKey(b, NULL, no_password, NULL) : NULL;
    BIO_free(b);
    char *copy = key ? strdup(pem) : NULL;
    if (copy) {
        free(latest_client.key_pem);
        EVP_PKEY_free(latest_client.key);
        EVP_PKEY_up_ref(key);
        latest_client.key_pem = copy;
        latest_client.key = key;
    }
    return key;
}

static SSL_CTX *shared_ctx(const char *ca_pem)
{
    if (!latest_client.ca_pem || strcmp(latest_client.ca_pem, ca_pem) != 0)
        return NULL;
    SSL_CTX_up_ref(latest_client.ctx);
    return latest_client.ctx;
}

static void share_ctx(const char *ca_pem, SSL_CTX *ctx)
{
    char *copy = strdup(ca_pem);
    if (!copy)
        return;
    free(latest_client.ca_pem);
    SSL_CTX_free(latest_client.ctx);
    SSL_CTX_up_ref(ctx);
    latest_client.ca_pem = copy;
    latest_client.ctx = ctx;
}

/* Certificate and key of a client, beside the shared SSL_CTX. */
static int read_leaf(struct hp_tls_context *c, const char *cert_pem, const char *key_pem, struct hp_error *e)
{
    if (!cert_pem)
        return 0;
    BIO *cert = BIO_new_mem_buf(cert_pem, -1);
    c->cert = cert ? PEM_read_bio_X509(cert, NULL, no_password, NULL) : NULL;
    BIO_free(cert);
    if (!c->cert)
        return fail_ssl(e, HP_EINVAL, "certificate in", "the certificate text");
    c->key = read_client_key(key_pem);
    if (!c->key || X509_check_private_key(c->cert, c->key) != 1)
        return fail_ssl(e, HP_EINVAL, "private key in", "the key text");
    return 0;
}

int hp_tls_context_new_pem(const struct hp_tls_options *o, const char *ca_pem, const char *cert_pem,
                           const char *key_pem, struct hp_tls_context **ret, struct hp_error *e)
{
    const struct material ca = {ca_pem, "the CA text"}, cert = {cert_pem, "the certificate text"},
                          key = {key_pem, "the key text"}, none = {0};
    if (o->role == HP_TLS_SERVER)
        return context_new(o, &ca, &cert, &key, ret, e);
    struct hp_tls_context *c = NULL;
    int rc = check_options(o, ca_pem, cert_pem, key_pem, e);
    if (rc)
        return rc;
    ERR_clear_error();
    SSL_CTX *ctx = shared_ctx(ca_pem);
    if (ctx) {
        c = context_alloc(o);
        if (!c) {
            SSL_CTX_free(ctx);
            return hp_fail(e, HP_ENOMEM, "TLS: out of memory");
        }
        c->ctx = ctx;
    } else {
        rc = context_new(o, &ca, &none, &none, &c, e);
        if (rc)
            return rc;
        share_ctx(ca_pem, c->ctx);
    }
    rc = read_leaf(c, cert_pem, key_pem, e);
    if (rc)
        hp_tls_context_unref(c);
    else
        *ret = c;
    return rc;
}

/* ---- Files ---- */

static int new_from(const struct hp_tls_options *o, char *text[HP_TLS_FILES], char *const path[HP_TLS_FILES],
                    struct hp_tls_context **ret, struct hp_error *e)
{
    struct material m[HP_TLS_FILES];
    for (int i = 0; i < HP_TLS_FILES; i++)
        m[i] = (struct material){text[i], path[i]};
    return context_new(o, &m[HP_TLS_FILE_CA], &m[HP_TLS_FILE_CERT], &m[HP_TLS_FILE_KEY], ret, e);
}

int hp_tls_context_new(const struct hp_tls_options *o, struct hp_tls_context **ret, struct hp_error *e)
{
    struct hp_tls_files files;
    struct hp_tls_context *c = NULL;
    char *text[HP_TLS_FILES] = {NULL};
    int rc = hp_tls_files_init(&files, o->ca_file, o->cert_file, o->key_file, e);
    if (rc)
        return rc;
    rc = hp_tls_files_read(&files, text, e);
    if (!rc)
        rc = new_from(o, text, files.path, &c, e);
    hp_tls_texts_free(text);
    if (rc) {
        hp_tls_files_close(&files);
        return rc;
    }
    c->files = files;
    *ret = c;
    return 0;
}

static void forget_sessions(struct hp_tls_context *c)
{
    for (size_t i = 0; i < SESSIONS_MAX; i++) {
        free(c->sessions[i].key);
        SSL_SESSION_free(c->sessions[i].session);
        c->sessions[i] = (struct kept_session){0};
    }
}

/* Connections that stand go on with what they have. What cannot be used is told once, and what there was stays. */
static void take_over_files(struct hp_tls_context *c)
{
    struct hp_error e = {0};
    struct hp_tls_context *next = NULL;
    char *text[HP_TLS_FILES] = {NULL};
    const struct hp_tls_options o = {.role = c->role, .require_peer = c->require_peer};
    const char *name = c->files.path[c->files.path[HP_TLS_FILE_CERT] ? HP_TLS_FILE_CERT : HP_TLS_FILE_CA];
    int rc = hp_tls_files_read(&c->files, text, &e);
    if (!rc)
        rc = new_from(&o, text, c->files.path, &next, &e);
    hp_tls_texts_free(text);
    if (rc) {
        hp_warn("the certificates have changed and cannot be used; the former ones stay", HP_S("file", name),
                HP_S("error", e.message));
        return;
    }
    SSL_CTX *former = c->ctx;
    c->ctx = next->ctx;
    next->ctx = former;
    if (c->alpn_len)
        SSL_CTX_set_alpn_select_cb(c->ctx, choose_alpn, c);
    hp_tls_context_unref(next);
    forget_sessions(c);
    hp_info("the certificates have changed: new connections use them", HP_S("file", name));
}

struct hp_tls_context *hp_tls_context_ref(struct hp_tls_context *c)
{
    assert(c->refs > 0);
    c->refs++;
    return c;
}

void hp_tls_context_unref(struct hp_tls_context *c)
{
    if (!c)
        return;
    assert(c->refs > 0);
    if (--c->refs > 0)
        return;
    forget_sessions(c);
    hp_tls_files_close(&c->files);
    SSL_CTX_free(c->ctx);
    X509_free(c->cert);
    EVP_PKEY_free(c->key);
    free(c);
}

SSL *hp_tls_context_ssl(struct hp_tls_context *c)
{
    if (hp_tls_files_changed(&c->files, hp_now_ms()))
        take_over_files(c);
    SSL *ssl = SSL_new(c->ctx);
    if (!ssl)
        return NULL;
    bool ok = SSL_set_ex_data(ssl, context_index, c) == 1;
    if (ok && c->cert)
        ok = SSL_use_certificate(ssl, c->cert) == 1 && SSL_use_PrivateKey(ssl, c->key) == 1;
    if (ok)
        return ssl;
    SSL_free(ssl);
    return NULL;
}
