/* runtime_faults_test.c — every allocation behind a container's configuration and records fails once. A configuration that lacks its limits or its filter, a record that says less than was
 * written, and a container that is taken for gone because its record could not be read would each do harm. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "lib/fail_alloc.h"
#include "runtime/rt_fs.h"
#include "runtime/rt_image.h"
#include "runtime/rt_proc.h"
#include "runtime/rt_spec.h"
#include "runtime/rt_store.h"
#include "wire/json.h"

static json_t *process;    /* of an image */
static char *whole_config; /* what every configuration must be */

static void build_config(void *user)
{
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    Harpoon__V1__Resources r = HARPOON__V1__RESOURCES__INIT;
    r.cpu_millis = 1500;
    r.memory_bytes = 1 << 26;
    r.io_read_bps = r.io_write_bps = 1 << 20;
    spec.resources = &r;
    struct ha_image image = {.process = process};
    struct ha_cgroups cg = {.parent = "/harpoon", .swap = true, .dev_major = 8};
    struct ha_user who = {.uid = 1000, .gid = 1000, .home = "/home/x", .groups = {5, 6}, .group_count = 2};
    const struct ha_spec_input in = {.uid = "u1",
                                     .container = "projects/p/regions/r/containers/web",
                                     .spec = &spec,
                                     .image = &image,
                                     .user = &who,
                                     .cgroups = &cg,
                                     .etc_dir = "/run/x",
                                     .netns = "/run/netns/u1",
                                     .nofile_max = 20000,
                                     .cgroup_namespace = true,
                                     .net_sysctls = true};
    json_t *config = NULL;
    struct hp_error e = {0};
    fa_enter();
    int rc = ha_spec_build(&in, &config, &e);
    fa_leave();
    if (rc) {
        assert_true(fa_failed());
        assert_int_equal(rc, HP_ENOMEM);
        return;
    }
    char *text = json_dumps(config, JSON_COMPACT);
    if (!whole_config)
        whole_config = strdup(text);
    assert_string_equal(text, whole_config);
    free(text);
    fa_enter();
    json_decref(config);
    fa_leave();
}

static void a_configuration_is_whole_or_not_there(void **state)
{
    hp_json_memory_watch();
    process = json_loads("{\"Entrypoint\":[\"/e\"],\"Cmd\":[\"c\"],\"Env\":[\"A=1\",\"B=2\"],\"WorkingDir\":\"/w\"}", 0,
                         NULL);
    assert_true(fa_each(build_config, NULL) > 300);
    assert_non_null(strstr(whole_config, "\"limit\":67108864"));
    assert_non_null(strstr(whole_config, "SCMP_ACT_ERRNO"));
    json_decref(process);
    free(whole_config);
}

static void keep_records(void *user)
{
    const struct ha_store *s = user;
    struct hp_error e = {0};
    const struct ha_meta meta = {.uid = "u1",
                                 .container = "projects/p/regions/r/containers/web",
                                 .generation = 7,
                                 .complete = true,
                                 .image_digest = "sha256:x",
                                 .volumes = {{.name = "v1", .keep = true}, {.name = "v2", .class = "fast"}},
                                 .volume_count = 2};
    const struct ha_run run = {.pid = 41, .ticks = 42, .conmon_pid = 43, .conmon_ticks = 44, .start_wall_ns = 45};
    const struct ha_exit end = {.code = 137, .oom = true, .start_wall_ns = 1, .finish_wall_ns = 2};
    struct ha_meta meta_read;
    struct ha_run run_read;
    struct ha_exit end_read;
    int rc[6];
    fa_enter();
    rc[0] = ha_meta_write(s, &meta, false, &e);
    rc[1] = ha_run_write(s, "u1", &run, &e);
    rc[2] = ha_exit_write(s, "u1", &end, &e);
    rc[3] = ha_meta_read(s, "u1", &meta_read, &e);
    rc[4] = ha_run_read(s, "u1", &run_read, &e);
    rc[5] = ha_exit_read(s, "u1", &end_read, &e);
    fa_leave();
    for (int i = 0; i < 6; i++)
        assert_true(rc[i] == 0 || (fa_failed() && rc[i] == HP_ENOMEM));
    if (rc[3] == 0)
        assert_true(meta_read.generation == 7 && meta_read.complete && meta_read.volume_count == 2 &&
                    meta_read.volumes[0].keep && !strcmp(meta_read.volumes[1].name, "v2") &&
                    !strcmp(meta_read.volumes[1].class, "fast") && !*meta_read.volumes[0].class &&
                    !strcmp(meta_read.container, meta.container) && !strcmp(meta_read.image_digest, "sha256:x"));
    if (rc[4] == 0)
        assert_true(run_read.pid == 41 && run_read.ticks == 42 && run_read.conmon_ticks == 44);
    if (rc[5] == 0)
        assert_true(end_read.code == 137 && end_read.oom && end_read.finish_wall_ns == 2);
}

static struct ha_store *new_store(char dir[64])
{
    static struct ha_store s;
    char path[128];
    struct hp_error e = {0};
    strcpy(dir, "/tmp/ha-records-XXXXXX");
    assert_non_null(mkdtemp(dir));
    assert_int_equal(ha_store_init(&s, dir, dir, &e), 0);
    for (int i = 0; i < 4; i++) {
        static const char *const below[] = {"containers", "containers/u1", "c", "c/u1"};
        snprintf(path, sizeof path, "%s/%s", dir, below[i]);
        assert_true(mkdir(path, 0700) == 0 || access(path, F_OK) == 0);
    }
    return &s;
}

static void remove_store(const char *dir)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    assert_int_equal(system(command), 0);
}

static void records_are_whole_or_unreadable(void **state)
{
    char dir[64];
    struct ha_store *s = new_store(dir);
    assert_true(fa_each(keep_records, s) > 50);
    remove_store(dir);
}

/* The agent ran out of descriptors; it took each container that it looked at for ended, and removed it with its process. */
static void without_descriptors_nothing_is_taken_for_gone(void **state)
{
    char dir[64];
    struct ha_store *s = new_store(dir);
    struct hp_error e = {0};
    struct ha_run run = {.pid = getpid(), .ticks = ha_proc_start_ticks(getpid())}, found;
    struct ha_meta meta = {.uid = "u1"};
    struct ha_exit end = {.code = -1};
    assert_true(run.ticks > 0);
    assert_int_equal(ha_run_write(s, "u1", &run, &e), 0);
    assert_int_equal(ha_meta_write(s, &meta, false, &e), 0);
    assert_int_equal(ha_exit_write(s, "u1", &end, &e), 0);
    struct rlimit was, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    none = was;
    none.rlim_cur = 3;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int told[] = {ha_run_read(s, "u1", &found, &e), ha_meta_read(s, "u1", &meta, &e), ha_exit_read(s, "u1", &end, &e)};
    int64_t ticks = ha_proc_start_ticks(getpid());
    int fd = ha_proc_open_exact(getpid(), run.ticks);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(told[i], HP_EIO);
    assert_true(ticks < 0);
    assert_true(fd < 0 && fd != -ESRCH);
    fd = ha_proc_open_exact(getpid(), run.ticks);
    assert_true(fd >= 0);
    close(fd);
    remove_store(dir);
}

static const char layer[] = "sha256:cbcaea906a0a131476423a799a5b2732f1d2d8350ba02336f99575ade3604017";

static void look_at_layer(void *user)
{
    struct hp_error e = {0};
    fa_enter();
    int rc = ha_layer_look(user, layer, &e);
    fa_leave();
    assert_int_equal(rc, fa_failed() ? HP_ENOMEM : 0);
}

/* It was taken for missing, and the create that needed it failed for good. */
static void a_layer_that_cannot_be_looked_at_is_not_missing(void **state)
{
    char dir[] = "/tmp/ha-layers-XXXXXX", name[HA_LAYER_NAME_SIZE], path[1024];
    struct ha_images s = {0};
    struct hp_error e = {0};
    assert_non_null(mkdtemp(dir));
    assert_int_equal(ha_images_init(&s, dir, &e), 0);
    assert_int_equal(ha_layer_look(&s, layer, &e), HP_ENOTFOUND);
    ha_layer_name(layer, name);
    snprintf(path, sizeof path, "%s/layers/%s", s.dir, name);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(ha_layer_look(&s, layer, &e), HP_ENOTFOUND);
    strcat(path, "/diff_id");
    assert_int_equal(ha_fs_write(path, layer, strlen(layer), 0600, false, &e), 0);
    assert_true(fa_each(look_at_layer, &s) > 0);
    ha_images_close(&s);
    remove_store(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_configuration_is_whole_or_not_there),
                                       cmocka_unit_test(records_are_whole_or_unreadable),
                                       cmocka_unit_test(without_descriptors_nothing_is_taken_for_gone),
                                       cmocka_unit_test(a_layer_that_cannot_be_looked_at_is_not_missing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
