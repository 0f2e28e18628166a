/* What the CLI prints: tables that line up, one JSON document from many pages, statuses to exit codes, the migrations that were built in. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cli.h"
#include "grpc/status.h"
#include "migrations.h"

static char *printed(struct cli_table *t)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    assert_non_null(f);
    cli_table_print(t, f);
    fclose(f);
    cli_table_free(t);
    return text;
}

static void columns_are_as_wide_as_their_widest_cell(void **state)
{
    static const char *const headers[] = {"NAME", "STATE", "AGE", NULL};
    static const char *const one[] = {"web", "RUNNING", "5s"}, *const two[] = {"a-longer-name", "", NULL};
    struct cli_table *t = cli_table_new(headers);
    cli_table_row(t, one);
    cli_table_row(t, two);
    char *text = printed(t);
    assert_string_equal(text, "NAME           STATE    AGE\n"
                              "web            RUNNING  5s\n"
                              "a-longer-name  -        -\n");
    free(text);
}

static void a_table_without_rows_is_its_header(void **state)
{
    static const char *const headers[] = {"A", "B", NULL};
    char *text = printed(cli_table_new(headers));
    assert_string_equal(text, "A  B\n");
    free(text);
}

static void many_rows_are_kept_in_order(void **state)
{
    static const char *const headers[] = {"N", NULL};
    struct cli_table *t = cli_table_new(headers);
    for (int i = 0; i < 1000; i++) {
        char n[16];
        snprintf(n, sizeof n, "%d", i);
        const char *cells[] = {n};
        cli_table_row(t, cells);
    }
    char *text = printed(t);
    assert_non_null(strstr(text, "\n998\n999\n"));
    free(text);
}

static void add(json_t **doc, const char *const *names, const char *token)
{
    Harpoon__V1__ListContainersResponse page = HARPOON__V1__LIST_CONTAINERS_RESPONSE__INIT;
    Harpoon__V1__Container containers[4], *pointers[4];
    for (; names[page.n_containers]; page.n_containers++) {
        Harpoon__V1__Container *m = pointers[page.n_containers] = &containers[page.n_containers];
        harpoon__v1__container__init(m);
        m->name = (char *)names[page.n_containers];
    }
    page.containers = pointers;
    page.next_page_token = (char *)token;
    assert_int_equal(cli_add_page(doc, "containers", &page.base), CLI_OK);
}

static void pages_become_one_document(void **state)
{
    json_t *doc = NULL;
    add(&doc, (const char *const[]){"a", "b", NULL}, "next");
    add(&doc, (const char *const[]){"c", NULL}, "");
    assert_int_equal(json_object_size(doc), 1);
    json_t *all = json_object_get(doc, "containers");
    assert_int_equal(json_array_size(all), 3);
    assert_string_equal(json_string_value(json_object_get(json_array_get(all, 2), "name")), "c");
    json_decref(doc);
}

static void an_empty_list_is_an_empty_array(void **state)
{
    json_t *doc = NULL;
    add(&doc, (const char *const[]){NULL}, "");
    char *text = json_dumps(doc, JSON_COMPACT);
    assert_string_equal(text, "{\"containers\":[]}");
    free(text);
    json_decref(doc);
}

static void a_description_has_what_is_set(void **state)
{
    Harpoon__V1__Container c = HARPOON__V1__CONTAINER__INIT;
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    Harpoon__V1__Resources resources = HARPOON__V1__RESOURCES__INIT;
    Harpoon__V1__ContainerStatus status = HARPOON__V1__CONTAINER_STATUS__INIT;
    Google__Protobuf__Timestamp created = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    char web[] = "web\x1b[2J", one[] = "10.0.0.2/22", two[] = "10.0.0.3/22", *addresses[] = {one, two};
    c.name = web;
    c.spec = &spec;
    spec.resources = &resources;
    resources.cpu_millis = 1500;
    resources.memory_bytes = 96 << 20;
    c.status = &status;
    status.state = HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_RUNNING;
    status.addresses = addresses;
    status.n_addresses = 2;
    c.create_time = &created;
    created.seconds = 4102444800; /* in the year 2100 */
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    assert_non_null(f);
    cli_describe(f, &c.base);
    fclose(f);
    assert_string_equal(text, "name:                   web [2J\n"
                              "spec:\n"
                              "  resources:\n"
                              "    cpu:                1500m\n"
                              "    memory:             96Mi\n"
                              "status:\n"
                              "  state:                RUNNING\n"
                              "  addresses:            10.0.0.2/22\n"
                              "                        10.0.0.3/22\n"
                              "create time:            2100-01-01T00:00:00.000Z\n");
    free(text);
}

static void times_are_utc_with_milliseconds(void **state)
{
    char out[40];
    Google__Protobuf__Timestamp t = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    t.seconds = 1700000000;
    t.nanos = 7999999;
    cli_format_time(out, &t);
    assert_string_equal(out, "2023-11-14T22:13:20.007Z");
    cli_format_time(out, NULL);
    assert_string_equal(out, "-");
}

/* The table of `harpoon help exit-codes`. */
static void every_code_has_its_exit_code(void **state)
{
    static const struct {
        int code, exit;
    } all[] = {
        {HP_CODE_OK, 0},
        {HP_CODE_CANCELLED, 130},
        {HP_CODE_UNKNOWN, 1},
        {HP_CODE_INVALID_ARGUMENT, 5},
        {HP_CODE_DEADLINE_EXCEEDED, 6},
        {HP_CODE_NOT_FOUND, 3},
        {HP_CODE_ALREADY_EXISTS, 4},
        {HP_CODE_PERMISSION_DENIED, 7},
        {HP_CODE_RESOURCE_EXHAUSTED, 8},
        {HP_CODE_FAILED_PRECONDITION, 5},
        {HP_CODE_ABORTED, 4},
        {HP_CODE_OUT_OF_RANGE, 5},
        {HP_CODE_UNIMPLEMENTED, 1},
        {HP_CODE_INTERNAL, 1},
        {HP_CODE_UNAVAILABLE, 6},
        {HP_CODE_DATA_LOSS, 1},
        {HP_CODE_UNAUTHENTICATED, 7},
        {99, 1},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        assert_int_equal(cli_exit_of_code(all[i].code), all[i].exit);
}

static void all_migrations_are_built_in(void **state)
{
    int built_in = 0, files = 0;
    for (; cli_migrations[built_in].name; built_in++) {
        assert_int_equal(cli_migrations[built_in].version, built_in + 1);
        assert_int_equal(strlen(cli_migrations[built_in].sql), cli_migrations[built_in].len);
        assert_int_equal(strtol(cli_migrations[built_in].name, NULL, 10), built_in + 1);
    }
    DIR *dir = opendir(SQL_DIRECTORY);
    assert_non_null(dir);
    for (struct dirent *d; (d = readdir(dir));)
        files += strstr(d->d_name, ".sql") != NULL;
    closedir(dir);
    assert_int_equal(built_in, files); /* a file is new: run `meson setup --reconfigure` */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_are_as_wide_as_their_widest_cell),
        cmocka_unit_test(a_table_without_rows_is_its_header),
        cmocka_unit_test(many_rows_are_kept_in_order),
        cmocka_unit_test(pages_become_one_document),
        cmocka_unit_test(an_empty_list_is_an_empty_array),
        cmocka_unit_test(a_description_has_what_is_set),
        cmocka_unit_test(times_are_utc_with_milliseconds),
        cmocka_unit_test(every_code_has_its_exit_code),
        cmocka_unit_test(all_migrations_are_built_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
