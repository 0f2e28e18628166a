/* scheduler_rest_test.c — a container at rest is packed, and opened again it is what it was; what containers have in common is kept once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/containers.h"
#include "core/state.h"

#define UID "0123456789abcdefghjkmnpqrs"

static struct sc_region *region_new(size_t open_max)
{
    struct sc_region_config c;
    struct sc_region *r = NULL;
    sc_region_config_defaults(&c);
    c.open_max = open_max;
    assert_int_equal(sc_region_new(&c, "r1", 1, 1, &r), 0);
    return r;
}

static void load_host(struct sc_region *r, const char *name)
{
    Harpoon__V1__Host m = HARPOON__V1__HOST__INIT;
    Harpoon__V1__Resources all = HARPOON__V1__RESOURCES__INIT;
    struct hp_error e = {0};
    uint8_t body[256];
    char full[64];
    snprintf(full, sizeof full, "regions/r1/hosts/%s", name);
    all.cpu_millis = 4000;
    all.memory_bytes = 1 << 30;
    m.allocatable = &all;
    m.name = full;
    m.state = HARPOON__V1__HOST_STATE__HOST_STATE_READY;
    assert_int_equal(sc_region_load_host(r, name, body, harpoon__v1__host__pack(&m, body), &e), 0);
}

/* Everything that a container can have, and how a test wants it to be different. */
struct row {
    Harpoon__Internal__V1__ContainerRecord m;
    Harpoon__V1__Container c;
    Harpoon__V1__ContainerSpec spec;
    Harpoon__V1__ContainerStatus status;
    Harpoon__V1__PlacementSpec placement;
    Harpoon__V1__Gang gang;
    Harpoon__V1__Resources size;
    Harpoon__V1__EnvVar env, *env_list;
    Harpoon__V1__Container__LabelsEntry labels[2], *label_list[2];
    Google__Protobuf__Timestamp times[4];
    char name[96], uid[32], etag[32], *addresses[3], *command[2];
    uint8_t body[4096];
    size_t len;
};

static void row_init(struct row *x, int i)
{
    static char *const addresses[] = {(char *)"10.88.0.7/16", (char *)"", (char *)"fd00::7/64"};
    memset(x, 0, sizeof *x);
    harpoon__internal__v1__container_record__init(&x->m);
    harpoon__v1__container__init(&x->c);
    harpoon__v1__container_spec__init(&x->spec);
    harpoon__v1__container_status__init(&x->status);
    harpoon__v1__placement_spec__init(&x->placement);
    harpoon__v1__gang__init(&x->gang);
    harpoon__v1__resources__init(&x->size);
    harpoon__v1__env_var__init(&x->env);
    snprintf(x->name, sizeof x->name, "projects/p/regions/r1/containers/c%d", i);
    snprintf(x->uid, sizeof x->uid, "%.24s%02d", UID, i);
    snprintf(x->etag, sizeof x->etag, "7-%.8s", x->uid);
    for (int k = 0; k < 2; k++) {
        harpoon__v1__container__labels_entry__init(&x->labels[k]);
        x->labels[k].key = (char *)(k ? "tier" : "app");
        x->labels[k].value = (char *)(k ? "" : "web");
        x->label_list[k] = &x->labels[k];
    }
    for (int k = 0; k < 4; k++) {
        google__protobuf__timestamp__init(&x->times[k]);
        x->times[k].seconds = 1700000000 - 100 * k;
        x->times[k].nanos = 999999999 - k;
    }
    memcpy(x->addresses, addresses, sizeof addresses);
    x->command[0] = (char *)"/bin/service";
    x->command[1] = (char *)"--flag";
    x->env.name = (char *)"MODE";
    x->env.value = (char *)"a";
    x->env_list = &x->env;
    x->size.cpu_millis = 100;
    x->size.memory_bytes = 64 << 20;
    x->gang.name = (char *)"g";
    x->gang.size = 2;
    x->placement.anti_affinity_group = (char *)"anti";
    x->placement.spread_group = (char *)"spread";
    x->placement.gang = &x->gang;
    x->placement.role = HARPOON__V1__CONTAINER_ROLE__CONTAINER_ROLE_PRIMARY;
    x->spec.image = (char *)"docker://registry.example/web:1";
    x->spec.command = x->command;
    x->spec.n_command = 2;
    x->spec.env = &x->env_list;
    x->spec.n_env = 1;
    x->spec.resources = &x->size;
    x->spec.placement = &x->placement;
    x->spec.desired_state = HARPOON__V1__DESIRED_STATE__DESIRED_STATE_RUNNING;
    x->status.state = HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_RUNNING;
    x->status.observed_generation = 7;
    x->status.pid = 4194304;
    x->status.pid_start_ticks = 1LL << 40;
    x->status.addresses = x->addresses;
    x->status.n_addresses = 3;
    x->status.exit_code = 137;
    x->status.oom_killed = 1;
    x->status.restart_count = 3;
    x->status.health = HARPOON__V1__HEALTH_STATE__HEALTH_STATE_UNHEALTHY;
    x->status.message = (char *)"restarted";
    x->status.image_digest = (char *)"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    x->status.resources = &x->size;
    x->c.name = x->name;
    x->c.uid = x->uid;
    x->c.generation = 7;
    x->c.etag = x->etag;
    x->c.labels = x->label_list;
    x->c.n_labels = 2;
    x->c.spec = &x->spec;
    x->c.status = &x->status;
    x->c.create_time = &x->times[0];
    x->c.update_time = &x->times[1];
    x->status.start_time = &x->times[2];
    x->status.finish_time = &x->times[3];
    x->m.container = &x->c;
    x->m.restart_serial = 5;
    x->m.operation_id = (char *)"0123456789abcdef0123456789abcdef";
    x->m.claim = &x->size;
    x->m.reported_generation = 7;
    x->m.reported_desired = HARPOON__V1__DESIRED_STATE__DESIRED_STATE_RUNNING;
    x->m.reported_state = HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_RUNNING;
    x->m.reported_id = 12;
}

static struct sc_container *load(struct sc_region *r, struct row *x)
{
    struct hp_error e = {0};
    assert_true(harpoon__internal__v1__container_record__get_packed_size(&x->m) <= sizeof x->body);
    x->len = harpoon__internal__v1__container_record__pack(&x->m, x->body);
    assert_int_equal(sc_region_load_container(r, x->name, x->body, x->len, &e), 0);
    struct sc_container *c = sc_container_find(r, x->name);
    assert_ptr_equal(sc_container_of(r, x->uid), c);
    return c;
}

static void expect_told(struct sc_region *r, struct sc_container *c, const struct row *x)
{
    struct sc_blob *b = sc_container_pack(r, c);
    assert_int_equal(b->len, x->len);
    assert_memory_equal(b->bytes, x->body, x->len);
    sc_blob_unref(b);
}

static void it_is_told_as_it_was(void **state)
{
    static struct row rows[8];
    struct sc_region *r = region_new(0);
    load_host(r, "h1");
    for (int i = 0; i < 8; i++)
        row_init(&rows[i], i);
    rows[0].status.host = rows[7].status.host = (char *)"regions/r1/hosts/h1";
    rows[1].c.etag = (char *)"an older one"; /* that does not follow from the generation */
    rows[2].c.etag = (char *)"";
    rows[3].c.create_time = rows[3].c.update_time = rows[3].status.start_time = rows[3].status.finish_time = NULL;
    rows[3].status.n_addresses = 0;
    rows[4].times[0].seconds = -5; /* what a host may say */
    rows[4].times[0].nanos = -1;
    rows[4].times[1].seconds = INT64_MIN;
    rows[4].times[2].seconds = INT64_MAX;
    rows[4].status.pid = -1;
    rows[4].status.restart_count = INT32_MIN;
    rows[5].c.n_labels = 0;
    rows[5].spec.placement = NULL;
    rows[6].m.deleting = rows[6].m.sync = 1;
    rows[7].m.cleanup = 1;
    harpoon__v1__container_status__init(&rows[6].status);
    for (int i = 0; i < 8; i++) {
        struct sc_container *c = load(r, &rows[i]);
        assert_null(c->open);
        expect_told(r, c, &rows[i]); /* opened for it */
        assert_non_null(c->open);
        sc_containers_rest(r);
        assert_null(c->open);
        sc_region_check(r);
        expect_told(r, c, &rows[i]);
    }
    sc_region_free(r);
}

static void what_is_under_way_stays_open(void **state)
{
    static struct row x;
    struct sc_region *r = region_new(0);
    Harpoon__Internal__V1__ContainerBase base = HARPOON__INTERNAL__V1__CONTAINER_BASE__INIT;
    Harpoon__V1__Container doc = HARPOON__V1__CONTAINER__INIT;
    row_init(&x, 0);
    doc.spec = &x.spec;
    base.container = &doc;
    x.m.confirmed = &base;
    struct sc_container *c = load(r, &x);
    assert_non_null(c->open);
    sc_containers_rest(r);
    assert_non_null(c->open);
    expect_told(r, c, &x);
    sc_confirmed_set(c, NULL);
    sc_containers_rest(r);
    assert_null(c->open);
    sc_region_free(r);
}

static void what_is_the_same_is_kept_once(void **state)
{
    static struct row rows[4];
    struct sc_container *c[4];
    struct sc_region *r = region_new(0);
    load_host(r, "h1");
    for (int i = 0; i < 4; i++)
        row_init(&rows[i], i);
    rows[1].status.pid = 7; /* its own */
    rows[1].status.host = (char *)"regions/r1/hosts/h1";
    rows[2].env.value = (char *)"b";      /* another spec */
    rows[3].size.memory_bytes = 65 << 20; /* another claim, too */
    for (int i = 0; i < 4; i++)
        c[i] = load(r, &rows[i]);
    assert_int_equal(r->shares.count, 3);
    assert_ptr_equal(c[0]->common, c[1]->common);
    assert_string_equal(sc_body(c[2])->spec->env[0]->value, "b");
    assert_int_equal(r->shares.count, 2);
    sc_containers_rest(r);
    assert_int_equal(r->shares.count, 3);
    for (int i = 0; i < 4; i++)
        expect_told(r, c[i], &rows[i]);
    assert_int_equal(r->shares.count, 0);
    sc_region_free(r);
}

static void so_many_stay_open(void **state)
{
    static struct row x;
    struct sc_container *c[8];
    struct sc_region *r = region_new(3);
    for (int i = 0; i < 8; i++) {
        row_init(&x, i);
        c[i] = load(r, &x);
    }
    assert_int_equal(r->opened_count, 0);
    for (int i = 0; i < 8; i++)
        (void)sc_open(c[i]);
    assert_int_equal(r->opened_count, 8);
    sc_containers_rest(r);
    for (int i = 0; i < 8; i++)
        assert_int_equal(c[i]->open != NULL, i >= 5); /* those that were opened last */
    sc_region_check(r);
    sc_region_free(r);
}

static void shares_are_counted(void **state)
{
    enum { COUNT = 1000 };
    static struct sc_share *x[COUNT];
    struct sc_shares s;
    sc_shares_init(&s, 7);
    for (uint32_t i = 0; i < COUNT; i++) {
        x[i] = sc_share_take(&s, &i, sizeof i);
        assert_ptr_equal(sc_share_take(&s, &i, sizeof i), x[i]);
    }
    struct sc_share *none = sc_share_take(&s, "", 0);
    assert_int_equal(s.count, COUNT + 1);
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_int_equal(x[i]->refs, 2);
        assert_memory_equal(x[i]->bytes, &i, sizeof i);
        sc_share_give(&s, x[i]);
        sc_share_give(&s, x[i]);
    }
    assert_int_equal(s.count, 1);
    assert_ptr_equal(sc_share_take(&s, "", 0), none);
    sc_share_give(&s, none);
    sc_share_give(&s, none);
    sc_share_give(&s, NULL);
    sc_shares_done(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_told_as_it_was),
        cmocka_unit_test(what_is_under_way_stays_open),
        cmocka_unit_test(what_is_the_same_is_kept_once),
        cmocka_unit_test(so_many_stay_open),
        cmocka_unit_test(shares_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
