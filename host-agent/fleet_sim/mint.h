/* mint.h — client certificates for simulated hosts, signed in memory with the CA's key: EC P-256, one key for the whole fleet. */
#ifndef HA_FLEET_SIM_MINT_H
#define HA_FLEET_SIM_MINT_H

#include "base/error.h"

struct mint;

/* Errors name the file and OpenSSL's reason. */
int mint_new(const char *ca_file, const char *ca_key_file, struct mint **ret, struct hp_error *e) HP_MUST_CHECK;
void mint_free(struct mint *m);
/* Valid while the mint is. */
const char *mint_ca_pem(const struct mint *m);
const char *mint_key_pem(const struct mint *m);
/* A certificate for the host with SAN URI harpoon://regions/R/hosts/H, valid from an hour ago for 30 days; heap PEM, freed by the caller. */
int mint_host(struct mint *m, const char *region, const char *host, char **ret_pem, struct hp_error *e) HP_MUST_CHECK;

#endif
