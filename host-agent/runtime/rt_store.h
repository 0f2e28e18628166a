/* rt_store.h — what is kept of one container on the host's disks: in the state directory what outlives a reboot, in the run directory what does not.
 *   STATE/containers/UID/meta      what was created (JSON); marked complete, durably, as a create's last act
 *   STATE/containers/UID/exit      how the last process ended (JSON)
 *   STATE/containers/UID/network   the network's record (rt_cni.h)
 *   STATE/containers/UID/upper, work, log
 *   RUN/c/UID/run                  the process that runs: pid, start ticks, boot (JSON)
 *   RUN/c/UID/config.json, rootfs, pid, conmon.pid, persist/exit, etc files: the OCI bundle */
#ifndef HA_RT_STORE_H
#define HA_RT_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "core/runtime.h"
#include "rt_image.h"
#include "rt_proc.h"
#include "shell/storage_class.h"
#include "wire/storage.h"

#define HA_UID_MAX 63

struct ha_store {
    char state_dir[256], run_dir[256];
    char boot_id[40];
    struct ha_storage_class classes[HP_STORAGE_CLASSES_MAX]; /* directories for volumes, beside state_dir/volumes */
    size_t class_count;
};

struct ha_meta {
    char uid[HA_UID_MAX + 1];
    char container[256];
    int64_t generation;
    uint64_t spec_digest; /* of the create's job; 0 unknown */
    bool complete;        /* the create went through */
    char image_digest[HA_DIGEST_SIZE];
    int stop_signal; /* of the image, when the request has none */
    bool bridge;     /* else loopback only */
    size_t volume_count;
    struct {
        char name[64], class[64]; /* "": of none */
        bool keep;
    } volumes[16];
};

/* The process that was started last. */
struct ha_run {
    int64_t pid, ticks; /* 0: none in this boot */
    int64_t conmon_pid, conmon_ticks;
    int64_t start_wall_ns;
    struct ha_program runtime; /* what it ran while it waited for its start */
};

/* How a process ended. */
struct ha_exit {
    int32_t code; /* -1 unknown */
    bool oom;
    int64_t start_wall_ns,
        finish_wall_ns; /* finish 0: written at the start; it has not ended, or was lost with the machine */
};

int ha_store_init(struct ha_store *s, const char *state_dir, const char *run_dir, struct hp_error *e) HP_MUST_CHECK;
/* 1 to HA_UID_MAX letters, digits, '-' and '_', not beginning with '-'. */
bool ha_uid_valid(const char *uid);

/* Paths below a container's two directories; `file` "" for the directory itself. */
int ha_store_path(const struct ha_store *s, const char *uid, const char *file, char *buf, size_t size,
                  struct hp_error *e) HP_MUST_CHECK;
int ha_run_path(const struct ha_store *s, const char *uid, const char *file, char *buf, size_t size,
                struct hp_error *e) HP_MUST_CHECK;

/* `durable`: on disk when it returns. */
int ha_meta_write(const struct ha_store *s, const struct ha_meta *m, bool durable, struct hp_error *e) HP_MUST_CHECK;
/* HP_ENOTFOUND: nothing is recorded of this uid. Any other failure of this function and its kin: it cannot be told, so nothing must be done that rests on it. */
int ha_meta_read(const struct ha_store *s, const char *uid, struct ha_meta *ret, struct hp_error *e) HP_MUST_CHECK;

int ha_run_write(const struct ha_store *s, const char *uid, const struct ha_run *r, struct hp_error *e) HP_MUST_CHECK;
/* Zeros when there is none of this boot. */
int ha_run_read(const struct ha_store *s, const char *uid, struct ha_run *ret, struct hp_error *e) HP_MUST_CHECK;

int ha_exit_write(const struct ha_store *s, const char *uid, const struct ha_exit *x, struct hp_error *e) HP_MUST_CHECK;
/* HP_ENOTFOUND: it was never started. */
int ha_exit_read(const struct ha_store *s, const char *uid, struct ha_exit *ret, struct hp_error *e) HP_MUST_CHECK;

/* Calls fn for each uid that has a directory in the state directory (complete or not). */
int ha_store_each(const struct ha_store *s, void (*fn)(void *user, const char *uid), void *user) HP_MUST_CHECK;
/* The same for the run directory. */
int ha_run_each(const struct ha_store *s, void (*fn)(void *user, const char *uid), void *user) HP_MUST_CHECK;

#endif
