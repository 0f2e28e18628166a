/*
 * TLS of a stream: OpenSSL reads ciphertext straight from the chunk that libuv has just read, and writes it into one buffer per loop that is handed to the kernel after
 * each operation. So a connection keeps no buffers between two turns; what OpenSSL itself keeps is released by SSL_MODE_RELEASE_BUFFERS.
 */
#include <assert.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "io/stream_private.h"
#include "io/tls.h"

static BIO_METHOD *link_method;

/* ---- The BIO between OpenSSL and the hub's buffers ---- */

static int link_read(BIO *b, char *out, int len)
{
    struct hp_stream *s = BIO_get_data(b);
    struct hp_hub *h = s->hub;
    BIO_clear_retry_flags(b);
    if (h->in_len == 0) {
        BIO_set_retry_read(b);
        return -1;
    }
    size_t n = h->in_len < (size_t)len ? h->in_len : (size_t)len;
    memcpy(out, h->in, n);
    h->in += n;
    h->in_len -= n;
    return (int)n;
}

static int link_write(BIO *b, const char *data, int len)
{
    struct hp_stream *s = BIO_get_data(b);
    struct hp_hub *h = s->hub;
    BIO_clear_retry_flags(b);
    if (h->out_cap - h->out_len < (size_t)len) {
        size_t cap = h->out_cap ? h->out_cap : HP_STREAM_OUT_MAX;
        while (cap - h->out_len < (size_t)len)
            cap *= 2;
        uint8_t *p = realloc(h->out, cap);
        if (!p) {
            h->out_failed = true;
            return -1;
        }
        h->out = p;
        h->out_cap = cap;
    }
    memcpy(h->out + h->out_len, data, (size_t)len);
    h->out_len += (size_t)len;
    return len;
}

static long link_ctrl(BIO *b, int cmd, long num, void *ptr)
{
    (void)b;
    (void)num;
    (void)ptr;
    return cmd == BIO_CTRL_FLUSH ? 1 : 0;
}

static void make_link_method(void)
{
    BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "harpoon stream");
    if (!m)
        return;
    BIO_meth_set_read(m, link_read);
    BIO_meth_set_write(m, link_write);
    BIO_meth_set_ctrl(m, link_ctrl);
    link_method = m;
}

static int set_client_name(struct hp_stream *s, const char *server_name, const char *alpn, struct hp_error *e)
{
    X509_VERIFY_PARAM *p = SSL_get0_param(s->ssl);
    if (X509_VERIFY_PARAM_set1_ip_asc(p, server_name) != 1 &&
        (SSL_set1_host(s->ssl, server_name) != 1 || SSL_set_tlsext_host_name(s->ssl, server_name) != 1))
        return hp_fail(e, HP_EINVAL, "%s: bad TLS server name \"%s\"", hp_stream_peer(s), server_name);
    ERR_clear_error(); /* a name is no IP address */
    size_t n = alpn ? strlen(alpn) : 0;
    unsigned char wire[256];
    if (n > sizeof wire - 1)
        return hp_fail(e, HP_EINVAL, "%s: ALPN name of %zu bytes (at most 255)", hp_stream_peer(s), n);
    wire[0] = (unsigned char)n;
    memcpy(wire + 1, alpn ? alpn : "", n);
    if (n && SSL_set_alpn_protos(s->ssl, wire, (unsigned)n + 1) != 0)
        return hp_fail(e, HP_ENOMEM, "%s: TLS: out of memory", hp_stream_peer(s));
    size_t key_size = strlen(s->peer) + strlen(server_name) + 2;
    s->session_key = malloc(key_size);
    if (!s->session_key)
        return hp_fail(e, HP_ENOMEM, "%s: TLS: out of memory", hp_stream_peer(s));
    snprintf(s->session_key, key_size, "%s %s", s->peer, server_name);
    SSL_SESSION *session = hp_tls_context_session(s->tls, s->session_key);
    if (session && SSL_set_session(s->ssl, session) != 1)
        ERR_clear_error(); /* a full handshake, then */
    return 0;
}

int hp_stream_tls_begin(struct hp_stream *s, bool server, const char *server_name, const char *alpn, struct hp_error *e)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_link_method);
    ERR_clear_error();
    s->ssl = hp_tls_context_ssl(s->tls);
    BIO *b = s->ssl && link_method ? BIO_new(link_method) : NULL;
    if (!b)
        return hp_fail(e, HP_ENOMEM, "%s: TLS: out of memory", hp_stream_peer(s));
    BIO_set_data(b, s);
    BIO_set_init(b, 1);
    SSL_set_bio(s->ssl, b, b);
    if (server) {
        SSL_set_accept_state(s->ssl);
        return 0;
    }
    SSL_set_connect_state(s->ssl);
    int rc = set_client_name(s, server_name, alpn, e);
    SSL_set_app_data(s->ssl, s->session_key);
    return rc;
}

/* ---- Errors ---- */

static bool is_about_certificates(int reason)
{
    switch (reason) {
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
    case SSL_R_CERTIFICATE_VERIFY_FAILED:
    case SSL_AD_REASON_OFFSET + SSL_AD_BAD_CERTIFICATE:
    case SSL_AD_REASON_OFFSET + SSL_AD_UNSUPPORTED_CERTIFICATE:
    case SSL_AD_REASON_OFFSET + SSL_AD_CERTIFICATE_REVOKED:
    case SSL_AD_REASON_OFFSET + SSL_AD_CERTIFICATE_EXPIRED:
    case SSL_AD_REASON_OFFSET + SSL_AD_CERTIFICATE_UNKNOWN:
    case SSL_AD_REASON_OFFSET + SSL_AD_UNKNOWN_CA:
    case SSL_AD_REASON_OFFSET + SSL_AD_ACCESS_DENIED:
    case SSL_AD_REASON_OFFSET + SSL_AD_CERTIFICATE_REQUIRED:
        return true;
    default:
        return false;
    }
}

static void describe(struct hp_stream *s, const char *what, struct hp_error *e)
{
    unsigned long code = ERR_peek_error();
    long verdict = SSL_get_verify_result(s->ssl);
    const char *reason = ERR_reason_error_string(code);
    if (s->hub->out_failed)
        hp_fail(e, HP_ENOMEM, "%s: %s: out of memory", hp_stream_peer(s), what);
    else if (verdict != X509_V_OK)
        hp_fail(e, HP_EPERM, "%s: %s: the peer's certificate: %s", hp_stream_peer(s), what,
                X509_verify_cert_error_string(verdict));
    else
        hp_fail(e, is_about_certificates(ERR_GET_REASON(code)) ? HP_EPERM : HP_EPROTO, "%s: %s: %s", hp_stream_peer(s),
                what, reason ? reason : "failed");
    s->hub->out_failed = false;
    ERR_clear_error();
}

/* ---- Sending ---- */

/* Hands over what the last operation has produced. */
static void transmit(struct hp_stream *s)
{
    struct hp_hub *h = s->hub;
    size_t n = h->out_len;
    h->out_len = 0;
    if (n == 0 || s->state == HP_STREAM_CLOSING || hp_stream_send_now(s, h->out, n))
        return;
    /* Only a peer that makes us answer (key updates) and reads nothing gets here: our own writes stop at the limit. */
    if (s->inflight_bytes > s->write_queue_max + 2 * (size_t)HP_STREAM_OUT_MAX) {
        struct hp_error e;
        hp_fail(&e, HP_ELIMIT, "%s: TLS: %zu bytes wait for the peer to read", hp_stream_peer(s), s->inflight_bytes);
        hp_stream_fail(s, &e);
    }
}

void hp_stream_tls_flush(struct hp_stream *s)
{
    while (s->pending_len && !s->inflight_bytes && s->state != HP_STREAM_CLOSING) {
        int n = (int)(s->pending_len < HP_STREAM_RECORD ? s->pending_len : HP_STREAM_RECORD);
        ERR_clear_error();
        int rc = SSL_write(s->ssl, s->pending + s->pending_off, n);
        if (rc <= 0) {
            struct hp_error e;
            s->hub->out_len = 0;
            describe(s, "TLS write", &e);
            hp_stream_fail(s, &e);
            return;
        }
        s->pending_off += (size_t)rc;
        s->pending_len -= (size_t)rc;
        if (s->hub->out_len >= HP_STREAM_OUT_MAX)
            transmit(s);
    }
    transmit(s);
}

void hp_stream_tls_goodbye(struct hp_stream *s)
{
    if (!s->ssl)
        return;
    SSL_shutdown(s->ssl);
    ERR_clear_error();
    transmit(s);
}

/* ---- The peer's identity ---- */

static char *copy_printable(const unsigned char *data, int len)
{
    if (len <= 0 || len > 1024)
        return NULL;
    for (int i = 0; i < len; i++)
        if (data[i] < 0x20 || data[i] == 0x7F)
            return NULL;
    return strndup((const char *)data, (size_t)len);
}

/* Certificates are the CA's word, but still input: names with control characters or NUL count as absent. */
static void read_certificate(struct hp_stream *s)
{
    X509 *cert = SSL_get0_peer_certificate(s->ssl);
    if (!cert)
        return;
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; i < sk_GENERAL_NAME_num(names) && !s->peer_uri; i++) {
        const GENERAL_NAME *n = sk_GENERAL_NAME_value(names, i);
        if (n->type == GEN_URI)
            s->peer_uri = copy_printable(ASN1_STRING_get0_data(n->d.uniformResourceIdentifier),
                                         ASN1_STRING_length(n->d.uniformResourceIdentifier));
    }
    GENERAL_NAMES_free(names);
    X509_NAME *subject = X509_get_subject_name(cert);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (at >= 0) {
        unsigned char *text = NULL;
        int len = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
        s->peer_cn = copy_printable(text, len);
        OPENSSL_free(text);
    }
    ERR_clear_error();
}

/* A resumed session brings its certificate from the ticket, unverified: as each resumption brings a new ticket, an expired certificate could live for ever. */
static int check_resumed(struct hp_stream *s, struct hp_error *e)
{
    X509 *cert = SSL_session_reused(s->ssl) ? SSL_get0_peer_certificate(s->ssl) : NULL;
    if (!cert)
        return 0;
    if (X509_cmp_current_time(X509_get0_notAfter(cert)) > 0 && X509_cmp_current_time(X509_get0_notBefore(cert)) < 0)
        return 0;
    return hp_fail(e, HP_EPERM, "%s: TLS handshake: the peer's certificate: certificate has expired",
                   hp_stream_peer(s));
}

/* The smallest thing that OpenSSL reads as a certificate: no names, no key, valid for a second of 1970. */
static const uint8_t blank_certificate[] = {
    0x30, 0x40,                                                                          /* Certificate */
    0x30, 0x36,                                                                          /* TBSCertificate */
    0x02, 0x01, 0x01,                                                                    /* serialNumber */
    0x30, 0x03, 0x06, 0x01, 0x2A,                                                        /* signature: OID 1.2 */
    0x30, 0x00,                                                                          /* issuer */
    0x30, 0x1E,                                                                          /* validity */
    0x17, 0x0D, '7',  '0',  '0',  '1',  '0',  '1',  '0',  '0',  '0', '0', '0', '0', 'Z', /* notBefore */
    0x17, 0x0D, '7',  '0',  '0',  '1',  '0',  '1',  '0',  '0',  '0', '0', '0', '1', 'Z', /* notAfter */
    0x30, 0x00,                                                                          /* subject */
    0x30, 0x08, 0x30, 0x03, 0x06, 0x01, 0x2A, 0x03, 0x01, 0x00,                          /* subjectPublicKeyInfo */
    0x30, 0x03, 0x06, 0x01, 0x2A,                                                        /* signatureAlgorithm */
    0x03, 0x01, 0x00,                                                                    /* signature */
};

/* OpenSSL keeps the peer's certificate with the session for as long as the connection lives, 4 KiB for one with an EC key. Ours are read once, and the ticket, which
 * carries a copy, has been sent: so a blank one is read into its place (d2i_X509(3): what was there is given back). */
static void blank_peer_certificate(const struct hp_stream *s)
{
    X509 *cert = SSL_get0_peer_certificate(s->ssl), *reused = cert;
    const uint8_t *der = blank_certificate;
    if (!cert || X509_up_ref(cert) != 1)
        return;
    if (d2i_X509(&reused, &der, sizeof blank_certificate)) /* if not (no memory), it has given back our reference */
        X509_free(cert);
    ERR_clear_error(); /* it looked for the key */
}

/* Both ends' keys of the key exchange stay with the connection, too. They have done their work; and a private key that is gone cannot leak. */
static void drop_exchange_keys(const struct hp_stream *s)
{
    EVP_PKEY *own = NULL, *peers = NULL;
    if (SSL_get_tmp_key(s->ssl, &own) == 1)
        EVP_PKEY_set_type(own, EVP_PKEY_X25519); /* without a key */
    if (SSL_get_peer_tmp_key(s->ssl, &peers) == 1)
        EVP_PKEY_set_type(peers, EVP_PKEY_X25519);
    EVP_PKEY_free(own);
    EVP_PKEY_free(peers);
    ERR_clear_error();
}

static void read_alpn(struct hp_stream *s)
{
    const unsigned char *data = NULL;
    unsigned len = 0;
    SSL_get0_alpn_selected(s->ssl, &data, &len);
    if (len)
        s->alpn = strndup((const char *)data, len);
}

/* ---- Receiving ---- */

/* Connections wait in the kernel's backlog while too many handshakes are under way. Who has given up meanwhile left its first words there: to answer them costs a signature, and the living wait the longer for it. */
static bool peer_has_gone(const struct hp_stream *s)
{
    uv_os_fd_t fd;
    char next;
    return s->listener && uv_fileno(&s->uv.handle, &fd) == 0 && recv(fd, &next, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* False: not done, or failed. */
static bool shake(struct hp_stream *s)
{
    struct hp_error e;
    if (peer_has_gone(s)) {
        hp_fail(&e, HP_EUNAVAILABLE, "%s: closed by the peer", hp_stream_peer(s));
        hp_stream_fail(s, &e);
        return false;
    }
    ERR_clear_error();
    int rc = SSL_do_handshake(s->ssl);
    int why = rc == 1 ? SSL_ERROR_NONE : SSL_get_error(s->ssl, rc);
    if (rc == 1 || why == SSL_ERROR_WANT_READ) {
        transmit(s);
        if (rc != 1 || s->state != HP_STREAM_HANDSHAKE)
            return false;
        if (check_resumed(s, &e)) {
            hp_stream_fail_handshake(s, &e);
            return false;
        }
        read_certificate(s);
        if (s->listener) {
            blank_peer_certificate(s);
            drop_exchange_keys(s);
        }
        read_alpn(s);
        hp_stream_set_open(s);
        return true;
    }
    describe(s, "TLS handshake", &e);
    transmit(s); /* the alert */
    hp_stream_fail_handshake(s, &e);
    return false;
}

static void hold_rest(struct hp_stream *s)
{
    struct hp_hub *h = s->hub;
    assert(!s->held);
    s->held = malloc(h->in_len);
    if (!s->held) {
        struct hp_error e;
        hp_fail(&e, HP_ENOMEM, "%s: out of memory", hp_stream_peer(s));
        hp_stream_fail(s, &e);
        return;
    }
    memcpy(s->held, h->in, h->in_len);
    s->held_len = h->in_len;
}

static void decrypt(struct hp_stream *s)
{
    struct hp_error e;
    while (s->state == HP_STREAM_OPEN && !s->paused && !s->close_asked) {
        ERR_clear_error();
        int n = SSL_read(s->ssl, s->hub->plain, sizeof s->hub->plain);
        int why = n > 0 ? SSL_ERROR_NONE : SSL_get_error(s->ssl, n);
        if (n <= 0 && why != SSL_ERROR_WANT_READ && why != SSL_ERROR_ZERO_RETURN)
            describe(s, "TLS read", &e);
        transmit(s);
        if (s->state != HP_STREAM_OPEN)
            return;
        if (n > 0) {
            hp_stream_deliver(s, s->hub->plain, (size_t)n);
        } else if (why == SSL_ERROR_WANT_READ) {
            return;
        } else {
            if (why == SSL_ERROR_ZERO_RETURN)
                hp_fail(&e, HP_EUNAVAILABLE, "%s: closed by the peer", hp_stream_peer(s));
            hp_stream_fail(s, &e);
            return;
        }
    }
}

void hp_stream_tls_input(struct hp_stream *s, const uint8_t *data, size_t len)
{
    struct hp_hub *h = s->hub;
    assert(h->out_len == 0);
    assert(h->in_len == 0);
    h->in = data;
    h->in_len = len;
    if (s->state == HP_STREAM_OPEN || (s->state == HP_STREAM_HANDSHAKE && shake(s)))
        decrypt(s);
    if (h->in_len && s->state == HP_STREAM_OPEN && !s->close_asked)
        hold_rest(s);
    h->in = NULL;
    h->in_len = 0;
}
