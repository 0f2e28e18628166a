/* pki.h — certificates for tests, made in memory: one CA and what it signs. EC P-256; valid from a day ago for ten days. */
#ifndef HP_TESTS_LIB_PKI_H
#define HP_TESTS_LIB_PKI_H

#include <stdbool.h>

struct pki;

struct pki_leaf {
    char *cert_pem, *key_pem;
};

struct pki *pki_new(const char *ca_name);
void pki_free(struct pki *p);
const char *pki_ca_pem(const struct pki *p);
/* `san` as in OpenSSL's configuration: "URI:harpoon://regions/r1/hosts/h1,DNS:localhost,IP:127.0.0.1"; NULL none. */
struct pki_leaf pki_issue(const struct pki *p, const char *cn, const char *san, bool expired);
/* One that is valid for so many seconds from now. */
struct pki_leaf pki_issue_for(const struct pki *p, const char *cn, const char *san, long seconds);
void pki_leaf_done(struct pki_leaf *l);

#endif
