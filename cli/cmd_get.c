/* get and describe: lists and single things. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "harpoon/v1/container_service.pb-c.h"
#include "harpoon/v1/host_service.pb-c.h"
#include "harpoon/v1/operation_service.pb-c.h"

static bool is_json(const struct cli *c)
{
    return c->format == CLI_JSON || c->format == CLI_JSONL;
}

/* ---- containers ---- */

static const char *const container_headers[] = {"NAME", "STATE",  "HEALTH",   "HOST", "ADDRESS",
                                                "CPU",  "MEMORY", "RESTARTS", "AGE",  NULL};
static const char *const container_headers_wide[] = {"NAME",       "STATE",  "HEALTH",   "HOST",    "ADDRESS",
                                                     "CPU",        "MEMORY", "RESTARTS", "AGE",     "PID",
                                                     "GENERATION", "UID",    "IMAGE",    "STORAGE", NULL};

/* "data fast 10Gi" */
static void volumes_in_classes(const Harpoon__V1__ContainerSpec *spec, char *out, size_t size)
{
    size_t n = 0;
    *out = '\0';
    for (size_t i = 0; spec && i < spec->n_volumes && n < size; i++) {
        const Harpoon__V1__VolumeMount *v = spec->volumes[i];
        char bytes[32];
        if (!*v->storage_class)
            continue;
        cli_format_bytes(bytes, v->size_bytes);
        n += (size_t)snprintf(out + n, size - n, "%s%s %s %s", n ? "," : "", v->volume, v->storage_class, bytes);
    }
}

static void container_row(struct cli *c, struct cli_table *t, const Harpoon__V1__Container *m)
{
    char cpu[32] = "", memory[32] = "", restarts[16], age[32], pid[24] = "", generation[24];
    char storage[2400]; /* 16 volumes with names and classes of 63 bytes */
    const Harpoon__V1__ContainerStatus none = HARPOON__V1__CONTAINER_STATUS__INIT;
    const Harpoon__V1__ContainerStatus *s = m->status ? m->status : &none;
    const Harpoon__V1__Resources *r = m->spec ? m->spec->resources : NULL;
    if (r) {
        cli_format_cpu(cpu, r->cpu_millis);
        cli_format_bytes(memory, r->memory_bytes);
    }
    snprintf(restarts, sizeof restarts, "%d", s->restart_count);
    cli_format_age(age, m->create_time);
    if (s->pid)
        snprintf(pid, sizeof pid, "%lld", (long long)s->pid);
    snprintf(generation, sizeof generation, "%lld", (long long)m->generation);
    volumes_in_classes(m->spec, storage, sizeof storage);
    bool all_projects = !c->project || !*c->project;
    const char *cells[] = {all_projects ? m->name : cli_last_segment(m->name),
                           cli_enum_name(&harpoon__v1__container_state__descriptor, (int)s->state),
                           cli_enum_name(&harpoon__v1__health_state__descriptor, (int)s->health),
                           cli_last_segment(s->host),
                           s->n_addresses ? s->addresses[0] : "",
                           cpu,
                           memory,
                           restarts,
                           age,
                           pid,
                           generation,
                           m->uid,
                           m->spec ? m->spec->image : "",
                           storage};
    cli_table_row(t, cells);
}

/* All pages of one list: the request's page token is set from the answer until it is empty. */
struct pager {
    const char *path;
    ProtobufCMessage *request;
    char **page_token;
    const ProtobufCMessageDescriptor *response;
    /* Adds a page's rows; returns its next_page_token. */
    const char *(*page_cb)(struct cli *c, struct cli_table *t, const ProtobufCMessage *page);
    const char *array; /* JSON name of the page's list */
    int pages_max;     /* 0: all */
};

static int print_pages(struct cli *c, struct pager *p, struct cli_table *t)
{
    char *token = NULL;
    json_t *doc = NULL;
    int code = CLI_OK, pages = 0;
    do {
        ProtobufCMessage *page = NULL;
        *p->page_token = token ? token : (char *)protobuf_c_empty_string;
        code = cli_call(c, p->path, p->request, p->response, true, &page);
        free(token);
        token = NULL;
        if (code)
            break;
        const char *next = p->page_cb(c, t, page);
        if (c->format == CLI_JSON)
            code = cli_add_page(&doc, p->array, page);
        token = next && *next ? strdup(next) : NULL;
        protobuf_c_message_free_unpacked(page, NULL);
        pages++;
    } while (token && !code && (!p->pages_max || pages < p->pages_max));
    free(token);
    if (!code && !is_json(c))
        cli_table_print(t, stdout);
    cli_table_free(t);
    int print_code = code ? code : cli_print_document(doc);
    if (code)
        json_decref(doc);
    return print_code;
}

static const char *container_page(struct cli *c, struct cli_table *t, const ProtobufCMessage *page)
{
    const Harpoon__V1__ListContainersResponse *r = (const Harpoon__V1__ListContainersResponse *)page;
    for (size_t i = 0; i < r->n_containers; i++) {
        if (c->format == CLI_JSONL)
            cli_print_json(c, &r->containers[i]->base);
        else
            container_row(c, t, r->containers[i]);
    }
    return r->next_page_token;
}

int cli_list_containers(struct cli *c)
{
    char parent[256];
    int code = cli_parent_name(c, true, parent);
    if (code)
        return code;
    Harpoon__V1__ListContainersRequest req = HARPOON__V1__LIST_CONTAINERS_REQUEST__INIT;
    req.parent = parent;
    req.page_size = 1000;
    struct pager p = {"/harpoon.v1.ContainerService/ListContainers",
                      &req.base,
                      &req.page_token,
                      &harpoon__v1__list_containers_response__descriptor,
                      container_page,
                      "containers",
                      0};
    return print_pages(c, &p, cli_table_new(c->format == CLI_WIDE ? container_headers_wide : container_headers));
}

/* ---- hosts ---- */

static const char *const host_headers[] = {"NAME",   "STATE",  "ZONE", "CONTAINERS", "CPU",
                                           "MEMORY", "ROUTER", "AGE",  NULL};
static const char *const host_headers_wide[] = {"NAME",   "STATE",    "ZONE",    "CONTAINERS", "CPU",     "MEMORY",
                                                "ROUTER", "AGE",      "RACK",    "DISK",       "RUNTIME", "CGROUP",
                                                "KERNEL", "BREAKERS", "STORAGE", NULL};

/* "cpu,io" */
static void open_breakers(const Harpoon__V1__Host *h, char *out, size_t size)
{
    size_t n = 0;
    *out = '\0';
    for (size_t i = 0; i < h->n_breakers && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s%s", i ? "," : "", h->breakers[i]->resource);
}

/* "fast 10Gi/100Gi,bulk 0/4Ti" */
static void storage_classes(const Harpoon__V1__Host *h, char *out, size_t size)
{
    size_t n = 0;
    *out = '\0';
    for (size_t i = 0; h->facts && i < h->facts->n_storage_classes && n < size; i++) {
        char used[32], has[32];
        int64_t claimed = 0;
        for (size_t k = 0; k < h->n_storage_claimed; k++)
            if (!strcmp(h->storage_claimed[k]->name, h->facts->storage_classes[i]->name))
                claimed = h->storage_claimed[k]->size_bytes;
        cli_format_bytes(used, claimed);
        cli_format_bytes(has, h->facts->storage_classes[i]->size_bytes);
        n += (size_t)snprintf(out + n, size - n, "%s%s %s/%s", i ? "," : "", h->facts->storage_classes[i]->name, used,
                              has);
    }
}

static void host_row(struct cli *c, struct cli_table *t, const Harpoon__V1__Host *h)
{
    static const Harpoon__V1__Resources none = HARPOON__V1__RESOURCES__INIT;
    char cpu[70], memory[70], disk[70], a[32], b[32], containers[16], age[32], state[64], breakers[64];
    char storage[1200]; /* 8 classes with names of 63 bytes */
    const Harpoon__V1__Resources *has = h->allocatable ? h->allocatable : &none,
                                 *uses = h->claimed ? h->claimed : &none;
    cli_format_cpu(a, uses->cpu_millis);
    cli_format_cpu(b, has->cpu_millis);
    snprintf(cpu, sizeof cpu, "%s/%s", a, b);
    cli_format_bytes(a, uses->memory_bytes);
    cli_format_bytes(b, has->memory_bytes);
    snprintf(memory, sizeof memory, "%s/%s", a, b);
    cli_format_bytes(a, uses->disk_bytes);
    cli_format_bytes(b, has->disk_bytes);
    snprintf(disk, sizeof disk, "%s/%s", a, b);
    snprintf(containers, sizeof containers, "%d", h->container_count);
    snprintf(state, sizeof state, "%s%s", cli_enum_name(&harpoon__v1__host_state__descriptor, (int)h->state),
             h->cordoned ? ",CORDONED" : "");
    cli_format_age(age, h->attach_time);
    open_breakers(h, breakers, sizeof breakers);
    storage_classes(h, storage, sizeof storage);
    bool all_regions = !c->region || !*c->region;
    const char *cells[] = {all_regions ? h->name : cli_last_segment(h->name),
                           state,
                           h->zone,
                           containers,
                           cpu,
                           memory,
                           h->router,
                           age,
                           h->rack,
                           disk,
                           h->facts ? h->facts->runtime : "",
                           h->facts ? h->facts->cgroup_mode : "",
                           h->facts ? h->facts->kernel : "",
                           breakers,
                           storage};
    cli_table_row(t, cells);
}

static const char *host_page(struct cli *c, struct cli_table *t, const ProtobufCMessage *page)
{
    const Harpoon__V1__ListHostsResponse *r = (const Harpoon__V1__ListHostsResponse *)page;
    for (size_t i = 0; i < r->n_hosts; i++) {
        if (c->format == CLI_JSONL)
            cli_print_json(c, &r->hosts[i]->base);
        else
            host_row(c, t, r->hosts[i]);
    }
    return r->next_page_token;
}

int cli_list_hosts(struct cli *c)
{
    char parent[256];
    int code = cli_region_parent(c, true, parent);
    if (code)
        return code;
    Harpoon__V1__ListHostsRequest req = HARPOON__V1__LIST_HOSTS_REQUEST__INIT;
    req.parent = parent;
    req.page_size = 1000;
    struct pager p = {"/harpoon.v1.HostService/ListHosts",
                      &req.base,
                      &req.page_token,
                      &harpoon__v1__list_hosts_response__descriptor,
                      host_page,
                      "hosts",
                      0};
    return print_pages(c, &p, cli_table_new(c->format == CLI_WIDE ? host_headers_wide : host_headers));
}

/* ---- operations ---- */

static const char *const op_headers[] = {"OPERATION", "VERB", "STAGE", "TARGET", "HOST", "AGE", "REASON", NULL};

static const char *op_page(struct cli *c, struct cli_table *t, const ProtobufCMessage *page)
{
    const Harpoon__V1__ListOperationsResponse *r = (const Harpoon__V1__ListOperationsResponse *)page;
    for (size_t i = 0; i < r->n_operations; i++) {
        const Harpoon__V1__Operation *op = r->operations[i];
        if (c->format == CLI_JSONL) {
            cli_print_json(c, &op->base);
            continue;
        }
        char age[32];
        cli_format_age(age, op->create_time);
        const char *cells[] = {c->format == CLI_WIDE ? op->name : cli_last_segment(op->name),
                               cli_enum_name(&harpoon__v1__verb__descriptor, (int)op->verb),
                               cli_enum_name(&harpoon__v1__stage__descriptor, (int)op->stage),
                               c->format == CLI_WIDE ? op->target : cli_last_segment(op->target),
                               cli_last_segment(op->host),
                               age,
                               op->error && *op->error->message ? op->error->message : op->reason};
        cli_table_row(t, cells);
    }
    return r->next_page_token;
}

int cli_list_operations(struct cli *c, const char *target, bool active_only, int limit)
{
    char parent[256];
    int code = cli_parent_name(c, true, parent);
    if (code)
        return code;
    Harpoon__V1__ListOperationsRequest req = HARPOON__V1__LIST_OPERATIONS_REQUEST__INIT;
    req.parent = parent;
    req.page_size = limit;
    req.target = (char *)(target ? target : "");
    req.active_only = active_only;
    struct pager p = {"/harpoon.v1.OperationService/ListOperations",
                      &req.base,
                      &req.page_token,
                      &harpoon__v1__list_operations_response__descriptor,
                      op_page,
                      "operations",
                      1};
    return print_pages(c, &p, cli_table_new(op_headers));
}

/* ---- one thing ---- */

static int print_one(struct cli *c, ProtobufCMessage *m)
{
    assert(m);
    if (!is_json(c)) {
        if (m->descriptor == &harpoon__v1__container__descriptor) {
            struct cli_table *t = cli_table_new(c->format == CLI_WIDE ? container_headers_wide : container_headers);
            container_row(c, t, (Harpoon__V1__Container *)m);
            cli_table_print(t, stdout);
            cli_table_free(t);
            return CLI_OK;
        }
        if (m->descriptor == &harpoon__v1__host__descriptor) {
            struct cli_table *t = cli_table_new(c->format == CLI_WIDE ? host_headers_wide : host_headers);
            host_row(c, t, (Harpoon__V1__Host *)m);
            cli_table_print(t, stdout);
            cli_table_free(t);
            return CLI_OK;
        }
        cli_describe(stdout, m); /* a single operation reads best whole */
        return CLI_OK;
    }
    return cli_print_json(c, m);
}

static int fetch(struct cli *c, const char *kind, const char *text, char name[256], ProtobufCMessage **ret)
{
    int code;
    if (strcmp(kind, "container") == 0) {
        Harpoon__V1__GetContainerRequest req = HARPOON__V1__GET_CONTAINER_REQUEST__INIT;
        code = cli_container_name(c, text, req.name = name);
        return code ? code
                    : cli_call(c, "/harpoon.v1.ContainerService/GetContainer", &req.base,
                               &harpoon__v1__container__descriptor, true, ret);
    }
    if (strcmp(kind, "host") == 0) {
        Harpoon__V1__GetHostRequest req = HARPOON__V1__GET_HOST_REQUEST__INIT;
        code = cli_host_name(c, text, req.name = name);
        return code ? code
                    : cli_call(c, "/harpoon.v1.HostService/GetHost", &req.base, &harpoon__v1__host__descriptor, true,
                               ret);
    }
    if (strcmp(kind, "operation") == 0) {
        Harpoon__V1__GetOperationRequest req = HARPOON__V1__GET_OPERATION_REQUEST__INIT;
        code = cli_operation_name(c, text, req.name = name);
        return code ? code
                    : cli_call(c, "/harpoon.v1.OperationService/GetOperation", &req.base,
                               &harpoon__v1__operation__descriptor, true, ret);
    }
    return cli_usage("\"%s\": must be container, host or operation", kind);
}

int cli_cmd_get(struct cli *c, int argc, char **argv)
{
    bool help = false, active = false;
    struct cli_args args;
    const struct cli_option table[] = {{"active", 0, CLI_FLAG, &active, NULL, "operations: only those that go on"},
                                       {"help", 'h', CLI_FLAG, &help, NULL, "this text"},
                                       {0}};
    struct hp_error e = {0};
    if (cli_parse(c, table, argc, argv, &args, &e))
        return cli_usage("get: %s", e.message);
    if (help) {
        puts("Usage: harpoon get containers|hosts|operations|events\n"
             "       harpoon get container|host|operation NAME\n\nOptions:");
        cli_print_options(stdout, table);
        cli_print_global_options(stdout);
        return CLI_OK;
    }
    const char *kind = args.count ? args.items[0] : "containers";
    if (strcmp(kind, "containers") == 0 && args.count < 2)
        return cli_list_containers(c);
    if (strcmp(kind, "hosts") == 0 && args.count < 2)
        return cli_list_hosts(c);
    if (strcmp(kind, "operations") == 0 && args.count < 2)
        return cli_list_operations(c, NULL, active, 100);
    if (strcmp(kind, "events") == 0 && args.count < 2) {
        char *none[] = {(char *)"events", NULL};
        return cli_cmd_events(c, 1, none);
    }
    char singular[32], name[256];
    snprintf(singular, sizeof singular, "%s", kind);
    size_t n = strlen(singular);
    if (n && singular[n - 1] == 's')
        singular[n - 1] = '\0';
    if (args.count != 2)
        return cli_usage("get %s: give one name", kind);
    ProtobufCMessage *m = NULL;
    int code = fetch(c, singular, args.items[1], name, &m);
    if (code)
        return code;
    code = print_one(c, m);
    protobuf_c_message_free_unpacked(m, NULL);
    return code;
}

/* What the scheduler measures now; without its answer the host is shown as the record has it. */
static void add_load(struct cli *c, char *name, Harpoon__V1__Host *h)
{
    Harpoon__V1__GetHostLoadRequest req = HARPOON__V1__GET_HOST_LOAD_REQUEST__INIT;
    ProtobufCMessage *m = NULL;
    assert(h);
    req.name = name;
    if (cli_call(c, "/harpoon.v1.HostService/GetHostLoad", &req.base, &harpoon__v1__host_load__descriptor, false, &m))
        return;
    h->load = (Harpoon__V1__HostLoad *)m;
}

int cli_cmd_describe(struct cli *c, int argc, char **argv)
{
    bool help = false;
    struct cli_args args;
    const struct cli_option table[] = {{"help", 'h', CLI_FLAG, &help, NULL, "this text"}, {0}};
    struct hp_error e = {0};
    if (cli_parse(c, table, argc, argv, &args, &e))
        return cli_usage("describe: %s", e.message);
    if (help) {
        puts("Usage: harpoon describe container|host|operation NAME\n\nOptions:");
        cli_print_global_options(stdout);
        return CLI_OK;
    }
    /* "describe web" means the container. */
    const char *kind = args.count == 2 ? args.items[0] : "container";
    if (args.count < 1 || args.count > 2)
        return cli_usage("describe: give container, host or operation, and a name");
    char name[256];
    ProtobufCMessage *m = NULL;
    int code = fetch(c, kind, args.items[args.count - 1], name, &m);
    if (code)
        return code;
    if (strcmp(kind, "host") == 0)
        add_load(c, name, (Harpoon__V1__Host *)m);
    if (is_json(c))
        code = cli_print_json(c, m);
    else
        cli_describe(stdout, m);
    protobuf_c_message_free_unpacked(m, NULL);
    if (!code && !is_json(c) && strcmp(kind, "operation") != 0) {
        puts("\nLatest operations:");
        code = cli_list_operations(c, name, false, 10);
    }
    return code;
}
