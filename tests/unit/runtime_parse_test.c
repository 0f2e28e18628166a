/* What the container runtime reads and writes without touching the host: references, documents of images, config.json, cgroup mounts, metrics. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/rt_cgroup.h"
#include "runtime/rt_devices.h"
#include "runtime/rt_image.h"
#include "runtime/rt_proc.h"
#include "runtime/rt_spec.h"
#include "runtime/rt_warm.h"
#include "shell/rt_metrics.h"

#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void test_digests(void **state)
{
    char digest[HA_DIGEST_SIZE];
    ha_digest_of("abc", 3, digest); /* FIPS 180-4, example */
    assert_string_equal(digest, "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_true(hp_image_digest_valid(digest));
}

static int index_choose(const char *text, const char *tag, struct ha_blob *blob)
{
    struct hp_error e = {0};
    return ha_image_index_choose(text, strlen(text), tag, blob, &e);
}

static void test_index(void **state)
{
    struct ha_blob blob;
    static const char tagged[] = "{\"manifests\":[{\"digest\":\"sha256:" HEX64 "\",\"size\":7,"
                                 "\"annotations\":{\"org.opencontainers.image.ref.name\":\"v1\"}}]}";
    assert_int_equal(index_choose(tagged, "v1", &blob), 0);
    assert_int_equal(blob.size, 7);
    assert_int_equal(index_choose(tagged, "v2", &blob), HP_ENOTFOUND);
    assert_int_equal(index_choose("{\"manifests\":[]}", "", &blob), HP_ENOTFOUND);
    assert_int_equal(index_choose("{}", "", &blob), HP_ENOTFOUND);
    assert_int_equal(index_choose("[]", "", &blob), HP_ECORRUPT);
    assert_int_equal(index_choose("{\"manifests\":[{\"digest\":7,\"size\":1}]}", "", &blob), HP_ECORRUPT);
    assert_int_equal(index_choose("{\"manifests\":[{\"digest\":\"sha256:" HEX64 "\",\"size\":-1}]}", "", &blob),
                     HP_ECORRUPT);
    assert_int_equal(index_choose("{\"manifests\":[{\"digest\":\"sha256:" HEX64
                                  "\",\"size\":1},{\"digest\":\"sha256:" HEX64 "\",\"size\":1}]}",
                                  "", &blob),
                     HP_EINVAL);
}

static const char v1_mounts[] = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
                                "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
                                "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
                                "39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";

static void test_cgroup_modes(void **state)
{
    struct hp_error e = {0};
    struct ha_cgroups cg = {0};
    char hybrid[1024];
    assert_int_equal(ha_cg_detect(v1_mounts, &cg, &e), 0);
    assert_int_equal(cg.mode, HA_CG_V1);
    assert_string_equal(cg.mount[HA_CG_CPUACCT], "/sys/fs/cgroup/cpu,cpuacct");
    assert_string_equal(cg.mount[HA_CG_BLKIO], "");
    cg = (struct ha_cgroups){0};
    snprintf(hybrid, sizeof hybrid, "%s41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n", v1_mounts);
    assert_int_equal(ha_cg_detect(hybrid, &cg, &e), 0);
    assert_int_equal(cg.mode, HA_CG_HYBRID);
    assert_string_equal(cg.unified, "/sys/fs/cgroup/unified");
    cg = (struct ha_cgroups){0};
    assert_int_equal(ha_cg_detect("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n", &cg, &e), 0);
    assert_int_equal(cg.mode, HA_CG_V2);
    assert_string_equal(cg.mount[HA_CG_MEMORY], "/sys/fs/cgroup");
    cg = (struct ha_cgroups){0};
    assert_int_equal(ha_cg_detect("1 1 0:1 / / rw - ext4 /dev/vda rw\n", &cg, &e), HP_EUNSUPPORTED);
}

static void test_own_cgroup(void **state)
{
    static const struct {
        const char *text, *path;
        bool v2;
    } cases[] = {
        {"12:memory:/a\n3:pids:/system.slice/harpoon.service\n0::/\n", "/cg/pids/system.slice/harpoon.service", false},
        {"3:pids:/\n", "/cg/pids", false},
        {"3:cpu,pids:/x\n0::/x\n", NULL, false},
        {"3:pids:/../elsewhere\n", NULL, false},
        {"3:pids:", NULL, false},
        {"", NULL, false},
        {"0::/init.scope\n", "/cg/init.scope", true},
        {"1:name=systemd:/y\n0::/\n", "/cg", true},
        {"3:pids:/a\n", NULL, true},
        {"0::/..\n", NULL, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct ha_cgroups cg = {.mode = cases[i].v2 ? HA_CG_V2 : HA_CG_HYBRID};
        char path[256], expected[256];
        struct hp_error e = {0};
        strcpy(cg.mount[HA_CG_PIDS], cases[i].v2 ? "/cg" : "/cg/pids");
        int rc = ha_warm_path(&cg, cases[i].text, path, sizeof path, &e);
        assert_int_equal(rc, cases[i].path ? 0 : HP_ENOTFOUND);
        if (rc)
            continue;
        snprintf(expected, sizeof expected, "%s/cgroup.procs", cases[i].path);
        assert_string_equal(path, expected);
    }
}

static void test_limits(void **state)
{
    Harpoon__V1__Resources r = HARPOON__V1__RESOURCES__INIT;
    struct ha_cg_limits l = ha_cg_limits_of(&r);
    assert_int_equal(l.cpu_quota_us, -1);
    assert_int_equal(l.memory_bytes, -1);
    assert_int_equal(l.pids_max, 4096);
    r.cpu_millis = 10;
    assert_int_equal(ha_cg_limits_of(&r).cpu_quota_us, 1000);
    r.cpu_millis = 1024000;
    l = ha_cg_limits_of(&r);
    assert_int_equal(l.cpu_quota_us, 102400000);
    assert_int_equal(l.cpu_shares, 262144);
    assert_int_equal(l.cpu_weight, 10000);
}

static void test_devices(void **state)
{
    struct ha_disk d;
    struct ha_link_counters l;
    assert_true(ha_disk_line(" 254       0 vda 10 1 200 3 40 5 600 7 0 1234 9999 0 0 0 0\n", &d));
    assert_string_equal(d.name, "vda");
    assert_int_equal(d.read_bytes, 200 * 512);
    assert_int_equal(d.write_bytes, 600 * 512);
    assert_int_equal(d.busy_ms, 1234);
    assert_false(ha_disk_line("", &d));
    assert_false(ha_disk_line(" 254 0 vda 10 1\n", &d));
    assert_true(ha_link_line("  eth0: 100 1 0 0 0 0 0 0 7000 8 0 0 0 0 0 0\n", &l));
    assert_string_equal(l.name, "eth0");
    assert_int_equal(l.rx_bytes, 100);
    assert_int_equal(l.tx_bytes, 7000);
    assert_false(ha_link_line("Inter-|   Receive\n", &l));
    assert_int_equal(ha_device_use(0.25, 1), 2500);
    assert_int_equal(ha_device_use(3, 2), 10000);
    assert_int_equal(ha_device_use(-1, 2), 0);
    assert_int_equal(ha_device_use(1, 0), 0);
}

static void test_kernel_texts(void **state)
{
    uint64_t busy, total, rx, tx;
    static const char psi[] =
        "some avg10=1.23 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=1\n";
    assert_int_equal(ha_psi_avg10(psi, "some"), 123);
    assert_int_equal(ha_psi_avg10(psi, "full"), 50);
    assert_int_equal(ha_psi_avg10(NULL, "some"), -1);
    assert_int_equal(ha_cpu_ticks("cpu  1 2 3 40 5 6 7 8 0 0\ncpu0 9\n", &busy, &total), 0);
    assert_int_equal(total, 72);
    assert_int_equal(busy, 27);
    assert_int_equal(ha_cpu_ticks("nothing", &busy, &total), HP_EPROTO);
    ha_net_bytes("Inter-| Receive\n face |bytes\n    lo: 9 0 0 0 0 0 0 0 9 0\n  eth0: 10 1 0 0 0 0 0 0 20 1\n  br0:5 1 "
                 "0 0 0 0 0 0 6 1\n",
                 &rx, &tx);
    assert_int_equal(rx, 15);
    assert_int_equal(tx, 26);
    assert_int_equal(ha_meminfo("MemTotal:       100 kB\nMemAvailable: 50 kB\n", "MemAvailable"), 51200);
    assert_int_equal(ha_meminfo("MemTotal: 1 kB\n", "Nothing"), -1);
}

/* A root file system of our own with account files. */
static int make_rootfs(char *dir, const char *passwd, const char *group)
{
    char path[200];
    strcpy(dir, "/tmp/hp-rootfs-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/etc", dir);
    assert_int_equal(mkdir(path, 0755), 0);
    const char *const files[][2] = {{"passwd", passwd}, {"group", group}};
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/etc/%s", dir, files[i][0]);
        int fd = open(path, O_WRONLY | O_CREAT, 0644);
        assert_int_equal(write(fd, files[i][1], strlen(files[i][1])), strlen(files[i][1]));
        close(fd);
    }
    return open(dir, O_PATH | O_DIRECTORY);
}

static void drop_rootfs(const char *dir, int fd)
{
    static const char *const files[] = {"etc/passwd", "etc/group"};
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(unlinkat(fd, files[i], 0), 0);
    assert_int_equal(unlinkat(fd, "etc", AT_REMOVEDIR), 0);
    close(fd);
    assert_int_equal(rmdir(dir), 0);
}

static void test_users(void **state)
{
    char dir[64];
    struct ha_user u;
    struct hp_error e = {0};
    int fd = make_rootfs(dir, "root:x:0:0::/root:/bin/sh\nbroken\napp:x:10:11::/srv:/bin/sh\n",
                         "app:x:11:\nmore:x:12:root,app\n");
    assert_int_equal(ha_user_resolve(fd, "app", &u, &e), 0);
    assert_int_equal(u.uid, 10);
    assert_int_equal(u.gid, 11);
    assert_int_equal(u.group_count, 1);
    assert_int_equal(u.groups[0], 12);
    assert_string_equal(u.home, "/srv");
    assert_int_equal(ha_user_resolve(fd, "10", &u, &e), 0); /* a known number has its account's groups */
    assert_int_equal(u.gid, 11);
    assert_int_equal(ha_user_resolve(fd, "77:more", &u, &e), 0);
    assert_int_equal(u.uid, 77);
    assert_int_equal(u.gid, 12);
    assert_int_equal(u.group_count, 0);
    assert_int_equal(ha_user_resolve(fd, "", &u, &e), 0);
    assert_int_equal(u.uid, 0);
    assert_int_equal(ha_user_resolve(fd, "nobody", &u, &e), HP_EINVAL);
    assert_int_equal(ha_user_resolve(fd, "-1", &u, &e), HP_EINVAL);
    assert_int_equal(ha_user_resolve(fd, "4294967295", &u, &e), HP_EINVAL);
    assert_int_equal(ha_user_resolve(fd, "app:nogroup", &u, &e), HP_EINVAL);
    drop_rootfs(dir, fd);
}

static unsigned data_device = 8;

static json_t *config_of(Harpoon__V1__ContainerSpec *spec, const char *process, int expected)
{
    struct ha_image image = {.process = json_loads(process, 0, NULL)};
    struct ha_cgroups cg = {.parent = "/harpoon", .swap = true, .dev_major = data_device};
    struct ha_user user = {.uid = 1000, .gid = 1000, .home = "/home/x"};
    const char *volumes[] = {"/v/0", "/v/1"};
    const struct ha_spec_input in = {.uid = "u1",
                                     .container = "projects/p/regions/r/containers/web",
                                     .spec = spec,
                                     .image = &image,
                                     .user = &user,
                                     .cgroups = &cg,
                                     .etc_dir = "/run/x",
                                     .volume_dirs = volumes,
                                     .nofile_max = 20000,
                                     .cgroup_namespace = true};
    json_t *config = NULL;
    struct hp_error e = {0};
    assert_int_equal(ha_spec_build(&in, &config, &e), expected);
    json_decref(image.process);
    return config;
}

static const char *at(const json_t *object, const char *a, const char *b, size_t i)
{
    return json_string_value(json_array_get(json_object_get(json_object_get(object, a), b), i));
}

/* Limits that nothing would keep are refused, not forgotten. */
static void test_io_limits_need_a_device(void **state)
{
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    Harpoon__V1__Resources r = HARPOON__V1__RESOURCES__INIT;
    r.cpu_millis = 100;
    r.memory_bytes = 1 << 26;
    spec.resources = &r;
    data_device = 0;
    json_decref(config_of(&spec, "{\"Entrypoint\":[\"/e\"]}", 0));
    r.io_write_iops = 100;
    assert_null(config_of(&spec, "{\"Entrypoint\":[\"/e\"]}", HP_EUNSUPPORTED));
    data_device = 8;
    json_decref(config_of(&spec, "{\"Entrypoint\":[\"/e\"]}", 0));
}

static void test_config(void **state)
{
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    Harpoon__V1__Resources r = HARPOON__V1__RESOURCES__INIT;
    r.cpu_millis = 1500;
    r.memory_bytes = 1 << 26;
    spec.resources = &r;
    json_t *c = config_of(&spec, "{\"Entrypoint\":[\"/e\"],\"Cmd\":[\"c\"],\"Env\":[\"A=1\",\"bad\"]}", 0);
    assert_string_equal(at(c, "process", "args", 0), "/e");
    assert_string_equal(at(c, "process", "args", 1), "c");
    assert_string_equal(at(c, "process", "env", 0), "A=1");
    assert_true(json_is_true(json_object_get(json_object_get(c, "process"), "noNewPrivileges")));
    const json_t *caps = json_object_get(json_object_get(c, "process"), "capabilities");
    assert_int_equal(json_array_size(json_object_get(caps, "effective")), 0); /* not root */
    assert_int_equal(json_array_size(json_object_get(caps, "bounding")), 11);
    const json_t *linux_part = json_object_get(c, "linux");
    assert_string_equal(json_string_value(json_object_get(linux_part, "cgroupsPath")), "/harpoon/u1");
    assert_int_equal(json_array_size(json_object_get(linux_part, "namespaces")), 6);
    assert_non_null(json_object_get(linux_part, "seccomp"));
    const json_t *memory = json_object_get(json_object_get(linux_part, "resources"), "memory");
    assert_int_equal(json_integer_value(json_object_get(memory, "limit")), 1 << 26);
    assert_int_equal(json_integer_value(json_object_get(memory, "swap")), 1 << 26);
    json_decref(c);
    char *command[] = {(char *)(uintptr_t) "/mine"};
    spec.command = command;
    spec.n_command = 1;
    c = config_of(&spec, "{\"Entrypoint\":[\"/e\"],\"Cmd\":[\"c\"]}", 0);
    assert_null(at(c, "process", "args", 1)); /* the image's command belongs to the image's entrypoint */
    json_decref(c);
    spec.n_command = 0;
    assert_null(config_of(&spec, "{}", HP_EINVAL));
    spec.working_dir = (char *)(uintptr_t) "relative";
    assert_null(config_of(&spec, "{\"Cmd\":[\"c\"]}", HP_EINVAL));
}

/* The kernel gives pids out again: a process is its pid and the moment of its start. */
static void test_reused_pids(void **state)
{
    int64_t ticks = ha_proc_start_ticks(getpid());
    assert_true(ticks > 0);
    int fd = ha_proc_open_exact(getpid(), ticks);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(ha_proc_open_exact(getpid(), ticks + 1), -ESRCH);
    assert_int_equal(ha_proc_open_exact(getpid(), 0), -ESRCH);
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    siginfo_t info;
    assert_int_equal(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
    assert_int_equal(ha_proc_start_ticks(child), 0); /* it has ended, and only its parent has not looked yet */
    assert_int_equal(waitid(P_PID, (id_t)child, &info, WEXITED), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_digests),
        cmocka_unit_test(test_index),
        cmocka_unit_test(test_cgroup_modes),
        cmocka_unit_test(test_own_cgroup),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_kernel_texts),
        cmocka_unit_test(test_users),
        cmocka_unit_test(test_io_limits_need_a_device),
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_reused_pids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
