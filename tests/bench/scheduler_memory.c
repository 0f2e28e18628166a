/* scheduler_memory.c — what hosts and containers at rest cost a scheduler, as a reign finds them in the record; for tests/bench/scheduler_memory.py.
 *
 *   scheduler_memory HOSTS CONTAINERS LINE
 * LINE containers after one another are of one line of business: they have the same spec and labels, and their own names, processes, addresses and times. With LINE 1 no two specs are alike. Fifty are in one spread group, whatever the lines.
 * Prints one JSON object. Bytes are resident memory (pages of this process that are in memory, allocator and all), the growth while hosts, and then containers, are taken in, divided by their number;
 * the rows are packed in memory that was there before. Seconds are CPU time from the first row to the end of the first step of the reign. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/region.h"
#include "harpoon/internal/v1/record.pb-c.h"

enum { BODY_MAX = 16384, ENV = 10, LABELS = 4, ARGS = 5, IMAGES = 12, TEXT = 160, GROUP = 50 };

static uint8_t body[BODY_MAX];

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double resident(void)
{
    long size, pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f || fscanf(f, "%ld %ld", &size, &pages) != 2)
        abort();
    fclose(f);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static void must(int code, const struct hp_error *e)
{
    if (!code)
        return;
    fprintf(stderr, "scheduler_memory: %s\n", e->message);
    exit(1);
}

static char *text(char *to, const char *format, int n)
{
    char plain[TEXT];
    snprintf(plain, sizeof plain, "%s%d", format, n);
    return strcpy(to, plain);
}

static void load_host(struct sc_region *r, int i)
{
    Harpoon__V1__Host m = HARPOON__V1__HOST__INIT;
    Harpoon__V1__HostFacts facts = HARPOON__V1__HOST_FACTS__INIT;
    Harpoon__V1__Resources all = HARPOON__V1__RESOURCES__INIT;
    Google__Protobuf__Timestamp t = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    struct hp_error e = {0};
    char name[TEXT], full[2 * TEXT], zone[TEXT], rack[TEXT], images[IMAGES][TEXT], *list[IMAGES];
    text(name, "host-", i);
    snprintf(full, sizeof full, "regions/r1/hosts/%s", name);
    m.name = full;
    m.state = HARPOON__V1__HOST_STATE__HOST_STATE_READY;
    m.zone = text(zone, "zone-", i % 3);
    m.rack = text(rack, "rack-", i / 40);
    m.router = (char *)"er1-0a0b0c0d";
    m.session = 1700000000000 + i;
    all.cpu_millis = facts.cpu_millis = 640000;
    all.memory_bytes = facts.memory_bytes = 4LL << 40;
    all.disk_bytes = facts.disk_bytes = 64LL << 40;
    facts.kernel = (char *)"6.1.0-18-amd64";
    facts.runtime = (char *)"crun 1.8.1";
    facts.boot_id = (char *)"8c5b1f0e-53a5-4f8e-9d43-1f0e8c5b53a5";
    for (int k = 0; k < IMAGES; k++) {
        snprintf(images[k], sizeof images[k], "sha256:%064d", (i * 7 + k * 3) % 400);
        list[k] = images[k];
    }
    facts.images = list;
    facts.n_images = IMAGES;
    m.allocatable = &all;
    m.facts = &facts;
    t.seconds = 1700000000;
    m.attach_time = m.update_time = &t;
    size_t n = harpoon__v1__host__pack(&m, body);
    must(sc_region_load_host(r, name, body, n, &e), &e);
}

/* Of a line: image, command, environment, volumes, probe, labels. */
struct line {
    Harpoon__V1__ContainerSpec spec;
    Harpoon__V1__Resources size;
    Harpoon__V1__HealthCheck health;
    Harpoon__V1__TcpProbe probe;
    Harpoon__V1__RestartPolicy restart;
    Harpoon__V1__PlacementSpec placement;
    Harpoon__V1__EnvVar env[ENV], *env_list[ENV];
    Harpoon__V1__VolumeMount volumes[2], *volume_list[2];
    Harpoon__V1__Container__LabelsEntry labels[LABELS], *label_list[LABELS];
    char image[TEXT], args[ARGS][TEXT], *arg_list[ARGS], group[TEXT];
    char env_name[ENV][TEXT], env_value[ENV][TEXT], key[LABELS][TEXT], value[LABELS][TEXT], digest[TEXT];
};

static void line_lists(struct line *x, int n)
{
    static const char *const paths[] = {"/var/lib/service", "/etc/service/secrets"};
    for (int i = 0; i < ARGS; i++)
        x->arg_list[i] = text(x->args[i], i ? "--option-of-the-service=" : "/usr/local/bin/service-", n + i);
    for (int i = 0; i < ENV; i++) {
        harpoon__v1__env_var__init(&x->env[i]);
        x->env[i].name = text(x->env_name[i], "SERVICE_SETTING_", i);
        x->env[i].value = text(x->env_value[i], "tcp://endpoint.of.a.neighbour.example:", 10000 + n + i);
        x->env_list[i] = &x->env[i];
    }
    for (int i = 0; i < 2; i++) {
        harpoon__v1__volume_mount__init(&x->volumes[i]);
        x->volumes[i].volume = (char *)(i ? "secrets" : "data");
        x->volumes[i].path = (char *)paths[i];
        x->volumes[i].read_only = i;
        x->volume_list[i] = &x->volumes[i];
    }
    for (int i = 0; i < LABELS; i++) {
        harpoon__v1__container__labels_entry__init(&x->labels[i]);
        x->labels[i].key = text(x->key[i], "example.com/label-", i);
        x->labels[i].value = text(x->value[i], "value-", n % (i * 10 + 1));
        x->label_list[i] = &x->labels[i];
    }
}

static void line_make(struct line *x, int n, int group)
{
    harpoon__v1__container_spec__init(&x->spec);
    harpoon__v1__resources__init(&x->size);
    harpoon__v1__health_check__init(&x->health);
    harpoon__v1__tcp_probe__init(&x->probe);
    harpoon__v1__restart_policy__init(&x->restart);
    harpoon__v1__placement_spec__init(&x->placement);
    line_lists(x, n);
    snprintf(x->image, sizeof x->image, "docker://registry.example/team-%d/service-%d:1.%d.7", n % 40, n, n % 30);
    snprintf(x->digest, sizeof x->digest, "sha256:%064d", n % 400);
    x->size.cpu_millis = 10 + n % 7;
    x->size.memory_bytes = (64 + n % 5) << 20;
    x->size.disk_bytes = 1LL << 30;
    x->probe.port = 8080;
    x->health.probe_case = HARPOON__V1__HEALTH_CHECK__PROBE_TCP;
    x->health.tcp = &x->probe;
    x->health.interval_ms = 5000;
    x->restart.mode = HARPOON__V1__RESTART_MODE__RESTART_MODE_ALWAYS;
    x->placement.spread_group = text(x->group, "service-", group);
    x->spec.image = x->image;
    x->spec.command = x->arg_list;
    x->spec.n_command = ARGS;
    x->spec.env = x->env_list;
    x->spec.n_env = ENV;
    x->spec.volumes = x->volume_list;
    x->spec.n_volumes = 2;
    x->spec.resources = &x->size;
    x->spec.health_check = &x->health;
    x->spec.restart_policy = &x->restart;
    x->spec.placement = &x->placement;
    x->spec.desired_state = HARPOON__V1__DESIRED_STATE__DESIRED_STATE_RUNNING;
}

static size_t pack_container(struct line *x, int i, int hosts, char name[2 * TEXT])
{
    Harpoon__Internal__V1__ContainerRecord m = HARPOON__INTERNAL__V1__CONTAINER_RECORD__INIT;
    Harpoon__V1__Container c = HARPOON__V1__CONTAINER__INIT;
    Harpoon__V1__ContainerStatus status = HARPOON__V1__CONTAINER_STATUS__INIT;
    Google__Protobuf__Timestamp started = GOOGLE__PROTOBUF__TIMESTAMP__INIT, made = started;
    char uid[TEXT], etag[TEXT], host[TEXT], address[TEXT], operation[33], *addresses = address;
    snprintf(name, 2 * TEXT, "projects/team-%d/regions/r1/containers/%s-%d", (i / GROUP) % 40, x->group, i);
    snprintf(uid, sizeof uid, "%026d", i);
    snprintf(etag, sizeof etag, "3-%.8s", uid);
    snprintf(operation, sizeof operation, "%032x", i);
    snprintf(address, sizeof address, "10.%d.%d.%d/16", 88 + i % 7, i / 250 % 250, i % 250 + 2);
    status.host = text(host, "regions/r1/hosts/host-", i % hosts);
    started.seconds = 1700000000 + i;
    started.nanos = (i * 7919) % 1000000000;
    made.seconds = 1690000000 + i;
    made.nanos = (i * 104729) % 1000000000;
    status.state = HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_RUNNING;
    status.health = HARPOON__V1__HEALTH_STATE__HEALTH_STATE_HEALTHY;
    status.observed_generation = 3;
    status.pid = 1000 + i;
    status.pid_start_ticks = 123456789 + i;
    status.addresses = &addresses;
    status.n_addresses = 1;
    status.image_digest = x->digest;
    status.start_time = &started;
    status.resources = &x->size;
    c.name = name;
    c.uid = uid;
    c.generation = 3;
    c.etag = etag;
    c.labels = x->label_list;
    c.n_labels = LABELS;
    c.spec = &x->spec;
    c.status = &status;
    c.create_time = &made;
    c.update_time = &started;
    m.container = &c;
    m.operation_id = operation;
    m.claim = &x->size;
    m.reported_generation = 3;
    m.reported_desired = HARPOON__V1__DESIRED_STATE__DESIRED_STATE_RUNNING;
    m.reported_state = HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_RUNNING;
    m.reported_id = i + 1;
    if (harpoon__internal__v1__container_record__get_packed_size(&m) > sizeof body)
        abort();
    return harpoon__internal__v1__container_record__pack(&m, body);
}

/* The CPU time of taking the row in. */
static double load_container(struct sc_region *r, struct line *x, int i, int hosts)
{
    struct hp_error e = {0};
    char name[2 * TEXT];
    size_t n = pack_container(x, i, hosts, name);
    double before = seconds();
    must(sc_region_load_container(r, name, body, n, &e), &e);
    return seconds() - before;
}

static void lead(struct sc_region *r)
{
    struct hp_error e = {0};
    struct sc_ev ev = {.kind = SC_EV_LEAD, .time = {1000, 1700000000000000000}};
    struct sc_effects out = {0};
    must(sc_region_step(r, &ev, &e), &e);
    must(sc_region_flush(r, ev.time, &out, &e), &e);
    for (struct sc_message *m = out.messages.first, *next; m; m = next) {
        next = m->next;
        sc_message_free(m);
    }
    sc_batch_free(out.commit);
}

int main(int argc, char **argv)
{
    int hosts = argc > 1 ? atoi(argv[1]) : 2000, containers = argc > 2 ? atoi(argv[2]) : 100000,
        line = argc > 3 ? atoi(argv[3]) : 50;
    static struct line x;
    struct sc_region_config c;
    struct sc_region *r;
    struct hp_error e = {0};
    sc_region_config_defaults(&c);
    memset(body, 1, sizeof body);
    must(sc_region_new(&c, "r1", 1, 1, &r), &e);
    double start = resident(), cpu = 0;
    for (int i = 0; i < hosts; i++)
        load_host(r, i);
    double with_hosts = resident();
    size_t row = 0;
    for (int i = 0; i < containers; i++) {
        if (i % line == 0)
            line_make(&x, i / line, i / GROUP);
        cpu += load_container(r, &x, i, hosts);
        row = row ? row : x.spec.base.descriptor ? protobuf_c_message_get_packed_size(&x.spec.base) : 0;
    }
    double before = seconds();
    lead(r);
    cpu += seconds() - before;
    double end = resident();
    printf(
        "{\"hosts\":%d,\"containers\":%d,\"line\":%d,\"spec_bytes\":%zu,\"host_bytes\":%.0f,\"container_bytes\":%.0f,"
        "\"takeover_us\":%.2f}\n",
        hosts, containers, line, row, (with_hosts - start) / hosts, (end - with_hosts) / containers,
        1e6 * cpu / containers);
    sc_region_free(r);
    return 0;
}
