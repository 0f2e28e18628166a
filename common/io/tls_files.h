/* tls_files.h — the PEM files behind a TLS context, and whether they are others than those that were read. For tls.c and rpc_http.c. */
#ifndef HP_IO_TLS_FILES_H
#define HP_IO_TLS_FILES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "io/file_mark.h"

enum hp_tls_file { HP_TLS_FILE_CA, HP_TLS_FILE_CERT, HP_TLS_FILE_KEY, HP_TLS_FILES };

struct hp_tls_files {
    char *path[HP_TLS_FILES];               /* NULL: there is none */
    struct hp_file_mark mark[HP_TLS_FILES]; /* of the last reading */
    uint64_t looked_ms;
};

/* Copies the paths; NULL and "": none. */
int hp_tls_files_init(struct hp_tls_files *f, const char *ca, const char *cert, const char *key,
                      struct hp_error *e) HP_MUST_CHECK;
void hp_tls_files_close(struct hp_tls_files *f);
/* The files' texts on the heap (NULL: there is none); at most 1 MiB each. Errors name the file. hp_tls_texts_free in any case. */
int hp_tls_files_read(struct hp_tls_files *f, char *text[HP_TLS_FILES], struct hp_error *e) HP_MUST_CHECK;
/* Wipes the key. */
void hp_tls_texts_free(char *text[HP_TLS_FILES]);
/* Whether a file was written or replaced since the last reading. Looks at most every HP_FILE_LOOK_MS; false in between. */
bool hp_tls_files_changed(struct hp_tls_files *f, uint64_t now_ms);

#endif
