#include "lib/pki.h"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DAY_S = 86400 };

struct pki {
    EVP_PKEY *key;
    X509 *cert;
    char *pem;
};

static void *must(const void *p)
{
    if (!p) {
        fputs("pki: OpenSSL failed\n", stderr);
        abort();
    }
    return (void *)(uintptr_t)p;
}

static char *bio_text(BIO *b)
{
    char *data;
    long n = BIO_get_mem_data(b, &data);
    char *text = must(strndup(data, (size_t)n));
    BIO_free(b);
    return text;
}

static char *cert_text(X509 *x)
{
    BIO *b = must(BIO_new(BIO_s_mem()));
    PEM_write_bio_X509(b, x);
    return bio_text(b);
}

static void extend(X509 *x, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
    X509_EXTENSION *ext = must(X509V3_EXT_conf_nid(NULL, &ctx, nid, value));
    X509_add_ext(x, ext, -1);
    X509_EXTENSION_free(ext);
}

static X509 *make(const char *cn, EVP_PKEY *key, long seconds)
{
    static long serial = 1;
    X509 *x = must(X509_new());
    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), serial++);
    X509_gmtime_adj(X509_getm_notBefore(x), -2 * DAY_S);
    X509_gmtime_adj(X509_getm_notAfter(x), seconds);
    X509_set_pubkey(x, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_UTF8, (const unsigned char *)cn, -1, -1, 0);
    return x;
}

struct pki *pki_new(const char *ca_name)
{
    struct pki *p = must(calloc(1, sizeof *p));
    p->key = must(EVP_EC_gen("P-256"));
    p->cert = make(ca_name, p->key, 10 * DAY_S);
    X509_set_issuer_name(p->cert, X509_get_subject_name(p->cert));
    extend(p->cert, p->cert, NID_basic_constraints, "critical,CA:TRUE");
    extend(p->cert, p->cert, NID_key_usage, "critical,keyCertSign,cRLSign");
    X509_sign(p->cert, p->key, EVP_sha256());
    p->pem = cert_text(p->cert);
    return p;
}

void pki_free(struct pki *p)
{
    if (!p)
        return;
    EVP_PKEY_free(p->key);
    X509_free(p->cert);
    free(p->pem);
    free(p);
}

const char *pki_ca_pem(const struct pki *p)
{
    return p->pem;
}

struct pki_leaf pki_issue_for(const struct pki *p, const char *cn, const char *san, long seconds)
{
    struct pki_leaf leaf;
    EVP_PKEY *key = must(EVP_EC_gen("P-256"));
    X509 *x = make(cn, key, seconds);
    X509_set_issuer_name(x, X509_get_subject_name(p->cert));
    if (san)
        extend(x, p->cert, NID_subject_alt_name, san);
    X509_sign(x, p->key, EVP_sha256());
    leaf.cert_pem = cert_text(x);
    BIO *b = must(BIO_new(BIO_s_mem()));
    PEM_write_bio_PrivateKey(b, key, NULL, NULL, 0, NULL, NULL);
    leaf.key_pem = bio_text(b);
    X509_free(x);
    EVP_PKEY_free(key);
    return leaf;
}

struct pki_leaf pki_issue(const struct pki *p, const char *cn, const char *san, bool expired)
{
    return pki_issue_for(p, cn, san, expired ? -DAY_S : 10 * DAY_S);
}

void pki_leaf_done(struct pki_leaf *l)
{
    free(l->cert_pem);
    free(l->key_pem);
}
