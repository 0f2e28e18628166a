#include "io/tls_files.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PEM_MAX_BYTES = 1024 * 1024 };

int hp_tls_files_init(struct hp_tls_files *f, const char *ca, const char *cert, const char *key, struct hp_error *e)
{
    const char *paths[HP_TLS_FILES] = {ca, cert, key};
    *f = (struct hp_tls_files){0};
    for (int i = 0; i < HP_TLS_FILES; i++) {
        if (!paths[i] || !*paths[i])
            continue;
        f->path[i] = strdup(paths[i]);
        if (!f->path[i]) {
            hp_tls_files_close(f);
            return hp_fail(e, HP_ENOMEM, "TLS: %s: out of memory", paths[i]);
        }
    }
    return 0;
}

void hp_tls_files_close(struct hp_tls_files *f)
{
    for (int i = 0; i < HP_TLS_FILES; i++)
        free(f->path[i]);
    *f = (struct hp_tls_files){0};
}

static int read_all(int fd, const char *path, char **ret, struct hp_error *e)
{
    size_t len = 0;
    char *text = malloc(PEM_MAX_BYTES + 1);
    if (!text)
        return hp_fail(e, HP_ENOMEM, "TLS: %s: out of memory", path);
    for (;;) {
        ssize_t n = read(fd, text + len, PEM_MAX_BYTES + 1 - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            int err = errno;
            OPENSSL_cleanse(text, len);
            free(text);
            return hp_fail_errno(e, HP_EIO, err, "TLS: %s", path);
        }
        if (n == 0)
            break;
        len += (size_t)n;
        if (len > PEM_MAX_BYTES) {
            OPENSSL_cleanse(text, len);
            free(text);
            return hp_fail(e, HP_ELIMIT, "TLS: %s: larger than %d bytes", path, PEM_MAX_BYTES);
        }
    }
    text[len] = '\0';
    char *smaller = realloc(text, len + 1);
    *ret = smaller ? smaller : text;
    return 0;
}

static int read_file(const char *path, struct hp_file_mark *mark, char **ret, struct hp_error *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), err = errno;
    *mark = hp_file_mark(fd, path);
    if (fd < 0)
        return hp_fail_errno(e, err == EACCES ? HP_EPERM : HP_ENOTFOUND, err, "TLS: %s", path);
    int rc = read_all(fd, path, ret, e);
    close(fd);
    return rc;
}

int hp_tls_files_read(struct hp_tls_files *f, char *text[HP_TLS_FILES], struct hp_error *e)
{
    int rc = 0;
    for (int i = 0; i < HP_TLS_FILES; i++) {
        text[i] = NULL;
        struct hp_error one = {0};
        int result = f->path[i] ? read_file(f->path[i], &f->mark[i], &text[i], &one) : 0;
        if (result && !rc) { /* the others are marked all the same */
            rc = result;
            if (e)
                *e = one;
        }
    }
    return rc;
}

void hp_tls_texts_free(char *text[HP_TLS_FILES])
{
    for (int i = 0; i < HP_TLS_FILES; i++) {
        if (text[i])
            OPENSSL_cleanse(text[i], strlen(text[i]));
        free(text[i]);
        text[i] = NULL;
    }
}

bool hp_tls_files_changed(struct hp_tls_files *f, uint64_t now_ms)
{
    if (f->looked_ms && now_ms - f->looked_ms < HP_FILE_LOOK_MS)
        return false;
    f->looked_ms = now_ms;
    for (int i = 0; i < HP_TLS_FILES; i++)
        if (f->path[i] && !hp_file_mark_is(&f->mark[i], f->path[i]))
            return true;
    return false;
}
