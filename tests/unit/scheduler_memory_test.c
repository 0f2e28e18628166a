/* scheduler_memory_test.c — what a host and a container cost the scheduler, at rest, as a reign finds them in the record. */
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/region.h"
#include "harpoon/internal/v1/record.pb-c.h"
#include "harpoon/v1/event.pb-c.h"
#include "lib/sanitized.h"
#include "lib/sc_world.h"

#define IMAGE "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
enum { HOSTS = 16000, CONTAINERS = 8000, IMAGES = 12, CLASSES = 4 };

static struct sc_region *region_new(void)
{
    struct sc_region_config c;
    struct sc_region *r = NULL;
    sc_region_config_defaults(&c);
    assert_int_equal(sc_region_new(&c, "r1", 1, 1, &r), 0);
    return r;
}

/* As an agent describes its machine: facts, two labels, a rack, twelve images of the forty that the fleet has. */
static void load_host(struct sc_region *r, int i)
{
    Harpoon__V1__Host m = HARPOON__V1__HOST__INIT;
    Harpoon__V1__HostFacts facts = HARPOON__V1__HOST_FACTS__INIT;
    Harpoon__V1__Resources all = HARPOON__V1__RESOURCES__INIT, claimed = HARPOON__V1__RESOURCES__INIT;
    Harpoon__V1__Host__LabelsEntry labels[2] = {HARPOON__V1__HOST__LABELS_ENTRY__INIT,
                                                HARPOON__V1__HOST__LABELS_ENTRY__INIT},
                                   *label_list[] = {&labels[0], &labels[1]};
    Google__Protobuf__Timestamp t;
    struct hp_error e = {0};
    uint8_t body[2048];
    Harpoon__V1__StorageClass classes[CLASSES], *class_list[CLASSES];
    char class_names[CLASSES][16];
    char name[32], full[96], images[IMAGES][80], *image_list[IMAGES];
    snprintf(name, sizeof name, "host-%05d", i);
    snprintf(full, sizeof full, "regions/r1/hosts/%s", name);
    google__protobuf__timestamp__init(&t);
    t.seconds = 1700000000;
    m.name = full;
    m.state = HARPOON__V1__HOST_STATE__HOST_STATE_READY;
    m.zone = (char *)"zone-a";
    m.rack = (char *)"rack-17";
    m.router = (char *)"er1-0a0b0c0d";
    m.session = 1700000000000 + i;
    all.cpu_millis = facts.cpu_millis = 64000;
    all.memory_bytes = facts.memory_bytes = 256LL << 30;
    all.disk_bytes = facts.disk_bytes = 4LL << 40;
    facts.agent_version = (char *)"0.1.0";
    facts.kernel = (char *)"6.1.0-18-amd64";
    facts.runtime = (char *)"crun 1.8.1";
    facts.cgroup_mode = (char *)"v2";
    facts.boot_id = (char *)"8c5b1f0e-53a5-4f8e-9d43-1f0e8c5b53a5";
    for (int k = 0; k < IMAGES; k++) {
        snprintf(images[k], sizeof images[k], "sha256:%064d", (i * 7 + k * 3) % 40);
        image_list[k] = images[k];
    }
    facts.images = image_list;
    facts.n_images = IMAGES;
    for (int k = 0; k < CLASSES; k++) {
        harpoon__v1__storage_class__init(&classes[k]);
        snprintf(class_names[k], sizeof class_names[k], "class-%d", k);
        classes[k].name = class_names[k];
        classes[k].size_bytes = 4LL << 40;
        class_list[k] = &classes[k];
    }
    facts.storage_classes = class_list;
    facts.n_storage_classes = CLASSES;
    labels[0].key = (char *)"disk";
    labels[0].value = (char *)"nvme";
    labels[1].key = (char *)"generation";
    labels[1].value = (char *)"g12";
    m.labels = label_list;
    m.n_labels = 2;
    m.allocatable = &all;
    m.claimed = &claimed;
    m.facts = &facts;
    m.attach_time = m.update_time = &t;
    assert_true(harpoon__v1__host__get_packed_size(&m) <= sizeof body);
    size_t n = harpoon__v1__host__pack(&m, body);
    assert_int_equal(sc_region_load_host(r, name, body, n, &e), 0);
}

static void lead(struct sc_region *r)
{
    struct hp_error e = {0};
    struct sc_ev ev = {.kind = SC_EV_LEAD, .time = {1000, 1700000000000000000}};
    assert_int_equal(sc_region_step(r, &ev, &e), 0);
}

/* Large arrays have mappings of their own. */
static size_t memory_used(void)
{
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

/* In a large region. With HOSTS = 2000 it is 1,049: the arrays' last pages and the room to grow weigh more. */
static void a_host_costs_at_most_1024_bytes(void **state)
{
    size_t before = memory_used();
    struct sc_region *r = region_new();
    for (int i = 0; i < HOSTS; i++)
        load_host(r, i);
    lead(r);
    size_t each = (memory_used() - before) / HOSTS;
    print_message("%zu bytes a host\n", each);
    if (!SANITIZED)
        assert_in_range(each, 500, 1024);
    sc_region_free(r);
}

/* As most are: an image, a size, a label, running. */
static void load_container(struct sc_region *r, int i)
{
    Harpoon__Internal__V1__ContainerRecord m = HARPOON__INTERNAL__V1__CONTAINER_RECORD__INIT;
    Harpoon__V1__Container c = HARPOON__V1__CONTAINER__INIT;
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    Harpoon__V1__ContainerStatus status = HARPOON__V1__CONTAINER_STATUS__INIT;
    Harpoon__V1__Resources size = HARPOON__V1__RESOURCES__INIT;
    Harpoon__V1__Container__LabelsEntry label = HARPOON__V1__CONTAINER__LABELS_ENTRY__INIT, *labels = &label;
    Google__Protobuf__Timestamp t;
    struct hp_error e = {0};
    char name[96], uid[27], etag[32], host[64], address[32], *addresses = address;
    static uint8_t body[2048];
    snprintf(name, sizeof name, "projects/demo/regions/r1/containers/web-%05d", i);
    snprintf(uid, sizeof uid, "%026d", i);
    snprintf(etag, sizeof etag, "1-%.8s", uid);
    snprintf(host, sizeof host, "regions/r1/hosts/host-%05d", i % 10);
    snprintf(address, sizeof address, "10.88.%d.%d/16", i / 250, i % 250 + 2);
    google__protobuf__timestamp__init(&t);
    t.seconds = 1700000000;
    size.cpu_millis = 10;
    size.memory_bytes = 64 << 20;
    spec.image = (char *)"docker://registry.example/team/web:1.24.7";
    spec.resources = &size;
    spec.desired_state = HARPOON__V1__DESIRED_STATE__DESIRED_STATE_RUNNING;
    status.state = HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_RUNNING;
    status.host = host;
    status.observed_generation = 1;
    status.pid = 1000 + i;
    status.pid_start_ticks = 123456;
    status.addresses = &addresses;
    status.n_addresses = 1;
    status.image_digest = (char *)"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    status.start_time = &t;
    status.resources = &size;
    label.key = (char *)"app";
    label.value = (char *)"web";
    c.name = name;
    c.uid = uid;
    c.generation = 1;
    c.etag = etag;
    c.labels = &labels;
    c.n_labels = 1;
    c.spec = &spec;
    c.status = &status;
    c.create_time = c.update_time = &t;
    m.container = &c;
    m.operation_id = (char *)"0123456789abcdef0123456789abcdef";
    m.claim = &size;
    m.reported_generation = 1;
    m.reported_desired = HARPOON__V1__DESIRED_STATE__DESIRED_STATE_RUNNING;
    m.reported_state = HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_RUNNING;
    m.reported_id = i + 1;
    assert_true(harpoon__internal__v1__container_record__get_packed_size(&m) <= sizeof body);
    size_t n = harpoon__internal__v1__container_record__pack(&m, body);
    assert_int_equal(sc_region_load_container(r, name, body, n, &e), 0);
}

static void a_container_costs_at_most_512_bytes(void **state)
{
    struct sc_region *r = region_new();
    for (int i = 0; i < 10; i++)
        load_host(r, i);
    size_t before = memory_used();
    for (int i = 0; i < CONTAINERS; i++)
        load_container(r, i);
    lead(r);
    size_t each = (memory_used() - before) / CONTAINERS;
    print_message("%zu bytes a container\n", each);
    if (!SANITIZED)
        assert_in_range(each, 200, 512);
    sc_region_free(r);
}

/* ---- What is kept in parts is whole wherever it is told ---- */

static void attach(struct scw *w, const char *host, int64_t session, const char *disk, const char *boot)
{
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__AgentHello hello = HARPOON__INTERNAL__V1__AGENT_HELLO__INIT;
    Harpoon__Internal__V1__AgentHello__LabelsEntry label = HARPOON__INTERNAL__V1__AGENT_HELLO__LABELS_ENTRY__INIT,
                                                   *labels = &label;
    Harpoon__V1__Resources all = HARPOON__V1__RESOURCES__INIT;
    Harpoon__V1__HostFacts facts = HARPOON__V1__HOST_FACTS__INIT;
    char *image = (char *)IMAGE;
    label.key = (char *)"disk";
    label.value = (char *)disk;
    all.cpu_millis = facts.cpu_millis = 4000;
    all.memory_bytes = 1 << 30;
    facts.boot_id = (char *)boot;
    facts.kernel = (char *)"6.1";
    facts.images = &image;
    facts.n_images = 1;
    hello.session = m.session = session;
    hello.labels = &labels;
    hello.n_labels = 1;
    hello.allocatable = &all;
    hello.facts = &facts;
    hello.zone = (char *)"z1";
    hello.rack = (char *)"k1";
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_ATTACH;
    m.attach = &hello;
    scw_report(w, host, &m);
}

static void expect_message(const Harpoon__V1__Host *m, const char *disk, const char *boot)
{
    assert_string_equal(m->zone, "z1");
    assert_string_equal(m->rack, "k1");
    assert_string_equal(m->router, "er1");
    assert_int_equal(m->n_labels, 1);
    assert_string_equal(m->labels[0]->value, disk);
    assert_int_equal(m->allocatable->cpu_millis, 4000);
    assert_int_equal(m->facts->cpu_millis, 4000);
    assert_string_equal(m->facts->kernel, "6.1");
    assert_string_equal(m->facts->boot_id, boot);
    assert_int_equal(m->facts->n_images, 1);
    assert_string_equal(m->facts->images[0], IMAGE);
    assert_true(m->attach_time->seconds > 0 && m->update_time->seconds >= m->attach_time->seconds);
    assert_non_null(m->claimed);
}

/* In its row, and in its last event. */
static void expect(struct scw *w, const char *host, const char *disk, const char *boot)
{
    const struct scw_row *row = scw_find(&w->hosts, host);
    assert_non_null(row);
    Harpoon__V1__Host *m = harpoon__v1__host__unpack(NULL, row->body->len, row->body->bytes);
    expect_message(m, disk, boot);
    harpoon__v1__host__free_unpacked(m, NULL);
    for (size_t i = w->events.count; i-- > 0;) {
        const struct sc_blob *b = w->events.rows[i].body;
        Harpoon__V1__Event *e = harpoon__v1__event__unpack(NULL, b->len, b->bytes);
        bool of_it = e->data_case == HARPOON__V1__EVENT__DATA_HOST_DATA && !strcmp(strrchr(e->subject, '/') + 1, host);
        if (of_it)
            expect_message(e->host_data, disk, boot);
        harpoon__v1__event__free_unpacked(e, NULL);
        if (of_it)
            return;
    }
    fail();
}

static void hosts_that_share_what_they_are_stay_apart(void **state)
{
    struct scw *w = scw_new(NULL);
    attach(w, "h1", 1, "ssd", "b1");
    attach(w, "h2", 1, "ssd", "b2");
    expect(w, "h1", "ssd", "b1");
    expect(w, "h2", "ssd", "b2");
    attach(w, "h2", 2, "nvme", "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"); /* another disk */
    expect(w, "h1", "ssd", "b1");
    expect(w, "h2", "nvme", "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0");
    scw_takeover(w);
    scw_verb(w, 1, HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_CORDON, "h1", "");
    scw_verb(w, 2, HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_CORDON, "h2", "");
    expect(w, "h1", "ssd", "b1");
    expect(w, "h2", "nvme", "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0");
    scw_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_host_costs_at_most_1024_bytes),
        cmocka_unit_test(hosts_that_share_what_they_are_stay_apart),
        cmocka_unit_test(a_container_costs_at_most_512_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
