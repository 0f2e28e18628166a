/* tls.h — TLS contexts (OpenSSL) for io/stream.h: 1.2 and 1.3, peers verified against our CA. */
#ifndef HP_IO_TLS_H
#define HP_IO_TLS_H

#include <stdbool.h>

#include "base/error.h"

struct hp_tls_context;

enum hp_tls_role { HP_TLS_CLIENT, HP_TLS_SERVER };

struct hp_tls_options {
    enum hp_tls_role role;
    const char *ca_file;   /* PEM; required for clients, and for servers that ask for certificates */
    const char *cert_file; /* PEM chain; required for servers */
    const char *key_file;  /* PEM */
    bool require_peer;     /* server: refuse clients without a certificate (else it is asked for, and optional) */
    const char *alpn;      /* server: protocols to choose from, comma-separated, best first; NULL none */
};

/* Errors name the file and OpenSSL's reason. Any thread; used on one. Files that are written or replaced later are read again when a connection begins, at most a second after; connections that stand go
 * on with what they have, and while the files cannot be used (a certificate is there whose key is not yet) the former ones stay. */
int hp_tls_context_new(const struct hp_tls_options *o, struct hp_tls_context **ret, struct hp_error *e) HP_MUST_CHECK;
/* From memory, for simulated fleets: PEM texts. Clients with the same CA share what can be shared; their certificate is one, without a chain. */
int hp_tls_context_new_pem(const struct hp_tls_options *o, const char *ca_pem, const char *cert_pem,
                           const char *key_pem, struct hp_tls_context **ret, struct hp_error *e) HP_MUST_CHECK;
/* Takes a reference; streams hold one. */
struct hp_tls_context *hp_tls_context_ref(struct hp_tls_context *c);
void hp_tls_context_unref(struct hp_tls_context *c);

#endif
