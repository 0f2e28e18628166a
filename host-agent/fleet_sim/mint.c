#include "fleet_sim/mint.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct mint {
    X509 *ca;
    EVP_PKEY *ca_key;
    EVP_PKEY *key; /* of all hosts */
    char *ca_pem, *key_pem;
};

static int fail_ssl(struct hp_error *e, int code, const char *what)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    hp_fail(e, code, "%s: %s", what, reason ? reason : "OpenSSL failed");
    ERR_clear_error();
    return code;
}

static char *bio_text(BIO *b)
{
    char *data, *copy;
    long n = BIO_get_mem_data(b, &data);
    copy = n >= 0 ? malloc((size_t)n + 1) : NULL;
    if (copy) {
        memcpy(copy, data, (size_t)n);
        copy[n] = '\0';
    }
    return copy;
}

static char *pem_of_cert(X509 *x)
{
    BIO *b = BIO_new(BIO_s_mem());
    char *text = b && PEM_write_bio_X509(b, x) ? bio_text(b) : NULL;
    BIO_free(b);
    return text;
}

static char *pem_of_key(EVP_PKEY *k)
{
    BIO *b = BIO_new(BIO_s_mem());
    char *text = b && PEM_write_bio_PrivateKey(b, k, NULL, NULL, 0, NULL, NULL) ? bio_text(b) : NULL;
    BIO_free(b);
    return text;
}

static int open_file(const char *path, FILE **ret, struct hp_error *e)
{
    *ret = fopen(path, "re");
    return *ret ? 0 : hp_fail_errno(e, HP_EIO, errno, "%s", path);
}

static int load(struct mint *m, const char *ca_file, const char *ca_key_file, struct hp_error *e)
{
    FILE *f;
    int rc = open_file(ca_file, &f, e);
    if (rc)
        return rc;
    m->ca = PEM_read_X509(f, NULL, NULL, NULL);
    fclose(f);
    if (!m->ca)
        return fail_ssl(e, HP_EINVAL, ca_file);
    rc = open_file(ca_key_file, &f, e);
    if (rc)
        return rc;
    m->ca_key = PEM_read_PrivateKey(f, NULL, NULL, NULL);
    fclose(f);
    if (!m->ca_key)
        return fail_ssl(e, HP_EINVAL, ca_key_file);
    if (!X509_check_private_key(m->ca, m->ca_key))
        return fail_ssl(e, HP_EINVAL, "the CA's key does not belong to its certificate");
    return 0;
}

int mint_new(const char *ca_file, const char *ca_key_file, struct mint **ret, struct hp_error *e)
{
    struct mint *m = calloc(1, sizeof *m);
    if (!m)
        return hp_fail(e, HP_ENOMEM, "certificates");
    int rc = load(m, ca_file, ca_key_file, e);
    if (!rc) {
        m->key = EVP_EC_gen("P-256");
        m->ca_pem = pem_of_cert(m->ca);
        m->key_pem = m->key ? pem_of_key(m->key) : NULL;
        if (!m->ca_pem || !m->key_pem)
            rc = fail_ssl(e, HP_EINTERNAL, "making a key");
    }
    if (rc) {
        mint_free(m);
        return rc;
    }
    *ret = m;
    return 0;
}

void mint_free(struct mint *m)
{
    if (!m)
        return;
    X509_free(m->ca);
    EVP_PKEY_free(m->ca_key);
    EVP_PKEY_free(m->key);
    free(m->ca_pem);
    free(m->key_pem);
    free(m);
}

const char *mint_ca_pem(const struct mint *m)
{
    return m->ca_pem;
}

const char *mint_key_pem(const struct mint *m)
{
    return m->key_pem;
}

static int add_extension(X509 *x, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
    X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    int ok = ext && X509_add_ext(x, ext, -1);
    X509_EXTENSION_free(ext);
    return ok;
}

static int fill(X509 *x, const struct mint *m, const char *region, const char *host)
{
    char uri[256];
    uint64_t serial;
    snprintf(uri, sizeof uri, "URI:harpoon://regions/%s/hosts/%s", region, host);
    X509_NAME *name = X509_get_subject_name(x);
    return RAND_bytes((unsigned char *)&serial, sizeof serial) == 1 && X509_set_version(x, X509_VERSION_3) &&
           ASN1_INTEGER_set_uint64(X509_get_serialNumber(x), serial >> 1) &&
           X509_gmtime_adj(X509_getm_notBefore(x), -3600) && X509_gmtime_adj(X509_getm_notAfter(x), 30L * 86400) &&
           X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)host, -1, -1, 0) &&
           X509_set_issuer_name(x, X509_get_subject_name(m->ca)) && X509_set_pubkey(x, m->key) &&
           add_extension(x, m->ca, NID_subject_alt_name, uri) &&
           add_extension(x, m->ca, NID_ext_key_usage, "clientAuth") &&
           add_extension(x, m->ca, NID_authority_key_identifier, "keyid") && X509_sign(x, m->ca_key, EVP_sha256());
}

int mint_host(struct mint *m, const char *region, const char *host, char **ret_pem, struct hp_error *e)
{
    X509 *x = X509_new();
    char *pem = x && fill(x, m, region, host) ? pem_of_cert(x) : NULL;
    X509_free(x);
    if (!pem)
        return fail_ssl(e, HP_EINTERNAL, "signing a host's certificate");
    *ret_pem = pem;
    return 0;
}
