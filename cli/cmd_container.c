/* create, update, resize, start, stop, restart, delete. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "harpoon/v1/container_service.pb-c.h"
#include "harpoon/v1/placement_service.pb-c.h"
#include "wire/json.h"
#include "wire/names.h"

/* Options that all changes share. */
struct change_options {
    bool help, wait, validate_only;
    const char *request_id, *etag, *wait_timeout, *deadline;
    char made_id[37];
    uint64_t wait_ms;
    int32_t deadline_seconds;
};

#define CHANGE_OPTIONS(o)                                                                                              \
    {"wait", 'w', CLI_FLAG, &(o).wait, NULL, "return when the operation has ended (exit code 9 when it failed)"},      \
        {"wait-timeout", 0, CLI_STRING, &(o).wait_timeout, "TIME", "give up waiting after this time; default: never"}, \
        {"request-id", 0, CLI_STRING, &(o).request_id, "ID", "repeat an earlier request safely; default: a new UUID"}, \
        {"deadline", 0, CLI_STRING, &(o).deadline, "TIME", "the operation expires when not done by then; default 1h"}, \
        {"validate-only", 0, CLI_FLAG, &(o).validate_only, NULL, "check, and change nothing"},                         \
    {                                                                                                                  \
        "help", 'h', CLI_FLAG, &(o).help, NULL, "this text"                                                            \
    }

static int finish_options(struct change_options *o)
{
    struct hp_error e = {0};
    int64_t ms = 0;
    if (o->wait_timeout && cli_parse_duration(o->wait_timeout, &ms, &e))
        return cli_usage("--wait-timeout: %s", e.message);
    o->wait_ms = (uint64_t)ms;
    ms = 0;
    if (o->deadline && cli_parse_duration(o->deadline, &ms, &e))
        return cli_usage("--deadline: %s", e.message);
    if (ms > 604800000)
        return cli_usage("--deadline %s: at most 7d", o->deadline);
    o->deadline_seconds = (int32_t)((ms + 999) / 1000);
    if (!o->request_id) {
        cli_new_request_id(o->made_id);
        o->request_id = o->made_id;
    }
    return CLI_OK;
}

static int print_help(const char *usage, const struct cli_option *table)
{
    printf("Usage: harpoon %s\n\nOptions:\n", usage);
    cli_print_options(stdout, table);
    cli_print_global_options(stdout);
    return CLI_OK;
}

static int send_change(struct cli *c, const char *path, const ProtobufCMessage *m, const char *name,
                       const struct change_options *o)
{
    struct hp_container_name n;
    struct hp_error e = {0};
    if (hp_container_name_parse("name", name, &n, &e))
        return cli_error(CLI_USAGE, "%s", e.message);
    struct cli_change ch = {.path = path,
                            .request = m,
                            .project = n.project,
                            .region = n.region,
                            .request_id = o->request_id,
                            .wait = o->wait,
                            .validate_only = o->validate_only,
                            .wait_ms = o->wait_ms};
    return cli_change(c, &ch);
}

int cli_read_message(const char *file, const ProtobufCMessageDescriptor *d, ProtobufCMessage **ret)
{
    enum { FILE_MAX = 1 << 20 };
    FILE *f = strcmp(file, "-") == 0 ? stdin : fopen(file, "r");
    if (!f)
        return cli_error(CLI_USAGE, "%s: %m", file);
    char *text = malloc(FILE_MAX + 1);
    size_t n = text ? fread(text, 1, FILE_MAX + 1, f) : 0;
    if (f != stdin)
        fclose(f);
    struct hp_error e = {0};
    int code = CLI_OK;
    if (!text || n > FILE_MAX)
        code = cli_error(CLI_USAGE, "%s: more than %d bytes", file, (int)FILE_MAX);
    else if (hp_json_parse_message(text, n, d, ret, &e))
        code = cli_error(CLI_USAGE, "%s: %s", file, e.message);
    free(text);
    return code;
}

/* ---- create ---- */

struct create_flags {
    struct change_options common;
    const char *file, *image, *network, *restart, *host, *group, *user, *workdir;
    const char *stop_signal, *stop_grace, *priority;
    struct cli_list env, labels, host_labels, zones, publish, volumes;
    bool stateless, stopped, may_preempt;
};

static int fill_env(Harpoon__V1__ContainerSpec *spec, const struct cli_list *l)
{
    spec->env = cli_keep(sizeof *spec->env * (size_t)l->count);
    for (int i = 0; i < l->count; i++) {
        const char *eq = strchr(l->items[i], '=');
        if (!eq)
            return cli_usage("--env %s: must be NAME=VALUE", l->items[i]);
        Harpoon__V1__EnvVar *v = cli_keep(sizeof *v);
        harpoon__v1__env_var__init(v);
        v->name = cli_keep_text(l->items[i], (size_t)(eq - l->items[i]));
        v->value = (char *)eq + 1;
        spec->env[spec->n_env++] = v;
    }
    return CLI_OK;
}

static int split_pair(const char *option, const char *text, char **key, char **value)
{
    const char *eq = strchr(text, '=');
    if (!eq)
        return cli_usage("--%s %s: must be KEY=VALUE", option, text);
    *key = cli_keep_text(text, (size_t)(eq - text));
    *value = (char *)eq + 1;
    return CLI_OK;
}

static int fill_labels(Harpoon__V1__Container *m, const struct cli_list *l)
{
    m->labels = cli_keep(sizeof *m->labels * (size_t)l->count);
    for (int i = 0; i < l->count; i++) {
        Harpoon__V1__Container__LabelsEntry *x = cli_keep(sizeof *x);
        harpoon__v1__container__labels_entry__init(x);
        int code = split_pair("label", l->items[i], &x->key, &x->value);
        if (code)
            return code;
        m->labels[m->n_labels++] = x;
    }
    return CLI_OK;
}

static int fill_placement(Harpoon__V1__ContainerSpec *spec, const struct create_flags *f)
{
    struct hp_error e = {0};
    int64_t priority = 0;
    if (f->priority && cli_parse_int(f->priority, -1000, 1000, &priority, &e))
        return cli_usage("--priority: %s", e.message);
    if (!f->zones.count && !f->host_labels.count && !f->host && !f->group && !priority && !f->may_preempt)
        return CLI_OK;
    Harpoon__V1__PlacementSpec *p = cli_keep(sizeof *p);
    harpoon__v1__placement_spec__init(p);
    spec->placement = p;
    p->priority = (int32_t)priority;
    p->may_preempt = f->may_preempt;
    p->zones = (char **)f->zones.items;
    p->n_zones = (size_t)f->zones.count;
    if (f->host)
        p->host = (char *)f->host;
    if (f->group)
        p->anti_affinity_group = (char *)f->group;
    p->host_labels = cli_keep(sizeof *p->host_labels * (size_t)f->host_labels.count);
    for (int i = 0; i < f->host_labels.count; i++) {
        Harpoon__V1__PlacementSpec__HostLabelsEntry *x = cli_keep(sizeof *x);
        harpoon__v1__placement_spec__host_labels_entry__init(x);
        int code = split_pair("host-label", f->host_labels.items[i], &x->key, &x->value);
        if (code)
            return code;
        p->host_labels[p->n_host_labels++] = x;
    }
    return CLI_OK;
}

/* "8080:80" or "8080:80/udp" */
static bool parse_port(const char *text, Harpoon__V1__PortMapping *m)
{
    char *end;
    long host = strtol(text, &end, 10);
    if (end == text || *end != ':' || host < 1 || host > 65535)
        return false;
    const char *second = end + 1;
    long inner = strtol(second, &end, 10);
    bool protocol = strcmp(end, "/tcp") == 0 || strcmp(end, "/udp") == 0;
    if (end == second || (*end && !protocol) || inner < 1 || inner > 65535)
        return false;
    m->host_port = (int32_t)host;
    m->container_port = (int32_t)inner;
    m->protocol = *end ? end + 1 : (char *)"tcp";
    return true;
}

static int fill_ports(Harpoon__V1__NetworkSpec *net, const struct cli_list *l)
{
    net->ports = cli_keep(sizeof *net->ports * (size_t)l->count);
    for (int i = 0; i < l->count; i++) {
        Harpoon__V1__PortMapping *m = cli_keep(sizeof *m);
        harpoon__v1__port_mapping__init(m);
        if (!parse_port(l->items[i], m))
            return cli_usage("--publish %s: must be HOSTPORT:CONTAINERPORT[/udp], ports 1 to 65535", l->items[i]);
        net->ports[net->n_ports++] = m;
    }
    return CLI_OK;
}

static int fill_network(Harpoon__V1__ContainerSpec *spec, const struct create_flags *f)
{
    Harpoon__V1__NetworkSpec *net = cli_keep(sizeof *net);
    harpoon__v1__network_spec__init(net);
    spec->network = net;
    net->mode = HARPOON__V1__NETWORK_MODE__NETWORK_MODE_BRIDGE;
    static const char *const modes[] = {"bridge", "none", "macvlan", "sriov", "overlay"}; /* from 1 on */
    size_t i = 0, n = sizeof modes / sizeof *modes;
    while (f->network && i < n && strcmp(f->network, modes[i]) != 0)
        i++;
    if (i == n)
        return cli_usage("--network %s: must be bridge, none, macvlan, sriov or overlay", f->network);
    net->mode = (Harpoon__V1__NetworkMode)(i + 1);
    return fill_ports(net, &f->publish);
}

/* What follows the path: ":ro", ":CLASS=SIZE", or both. *path_len becomes shorter by it. */
static int volume_options(const char *text, const char *path, size_t *path_len, Harpoon__V1__VolumeMount *v)
{
    for (;;) {
        const char *colon = memrchr(path, ':', *path_len);
        const char *item = colon ? colon + 1 : path;
        size_t n = (size_t)(path + *path_len - item);
        const char *eq = colon ? memchr(item, '=', n) : NULL;
        struct hp_error e = {0};
        if (colon && n == 2 && !memcmp(item, "ro", 2)) {
            v->read_only = true;
        } else if (eq && !memchr(item, '/', n)) {
            v->storage_class = cli_keep_text(item, (size_t)(eq - item));
            if (cli_parse_bytes(cli_keep_text(eq + 1, n - (size_t)(eq + 1 - item)), &v->size_bytes, &e))
                return cli_usage("--volume %s: %s", text, e.message);
        } else {
            return CLI_OK;
        }
        *path_len = (size_t)(colon - path);
    }
}

/* "data:/var/lib/mysql", "data:/path:ro", or "data:/path:fast=10Gi" */
static int fill_volumes(Harpoon__V1__ContainerSpec *spec, const struct cli_list *l)
{
    spec->volumes = cli_keep(sizeof *spec->volumes * (size_t)l->count);
    for (int i = 0; i < l->count; i++) {
        const char *colon = strchr(l->items[i], ':');
        if (!colon || colon[1] != '/')
            return cli_usage("--volume %s: must be NAME:/PATH[:CLASS=SIZE][:ro]", l->items[i]);
        Harpoon__V1__VolumeMount *v = cli_keep(sizeof *v);
        harpoon__v1__volume_mount__init(v);
        v->volume = cli_keep_text(l->items[i], (size_t)(colon - l->items[i]));
        size_t n = strlen(colon + 1);
        int code = volume_options(l->items[i], colon + 1, &n, v);
        if (code)
            return code;
        v->path = cli_keep_text(colon + 1, n);
        spec->volumes[spec->n_volumes++] = v;
    }
    return CLI_OK;
}

static int fill_restart(Harpoon__V1__ContainerSpec *spec, const char *text)
{
    static const char *const names[] = {"always", "on-failure", "never"};
    if (!text)
        return CLI_OK;
    for (int i = 0; i < 3; i++) {
        if (strcmp(text, names[i]) == 0) {
            spec->restart_policy = cli_keep(sizeof *spec->restart_policy);
            harpoon__v1__restart_policy__init(spec->restart_policy);
            spec->restart_policy->mode = (Harpoon__V1__RestartMode)(i + 1);
            return CLI_OK;
        }
    }
    return cli_usage("--restart %s: must be always, on-failure or never", text);
}

struct limit_flags {
    const char *cpu, *memory, *disk, *pids, *io_read_bps, *io_write_bps, *io_read_iops, *io_write_iops, *network_bps;
};

static int fill_limits(Harpoon__V1__Resources *r, const struct limit_flags *f)
{
    struct {
        const char *name, *text;
        int64_t *target;
        int (*parse)(const char *, int64_t *, struct hp_error *);
    } all[] = {{"cpu", f->cpu, &r->cpu_millis, cli_parse_cpu},
               {"memory", f->memory, &r->memory_bytes, cli_parse_bytes},
               {"disk", f->disk, &r->disk_bytes, cli_parse_bytes},
               {"pids", f->pids, &r->pids_max, cli_parse_bytes},
               {"io-read-bps", f->io_read_bps, &r->io_read_bps, cli_parse_bytes},
               {"io-write-bps", f->io_write_bps, &r->io_write_bps, cli_parse_bytes},
               {"io-read-iops", f->io_read_iops, &r->io_read_iops, cli_parse_bytes},
               {"io-write-iops", f->io_write_iops, &r->io_write_iops, cli_parse_bytes},
               {"network-bps", f->network_bps, &r->network_bps, cli_parse_bytes}};
    harpoon__v1__resources__init(r);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        struct hp_error e = {0};
        if (all[i].text && all[i].parse(all[i].text, all[i].target, &e))
            return cli_usage("--%s: %s", all[i].name, e.message);
    }
    return CLI_OK;
}

static int spec_of_flags(Harpoon__V1__Container *m, struct create_flags *f, const char *const *command, int commands,
                         const struct limit_flags *limits)
{
    struct hp_error e = {0};
    Harpoon__V1__ContainerSpec *spec = cli_keep(sizeof *spec);
    harpoon__v1__container_spec__init(spec);
    m->spec = spec;
    spec->resources = cli_keep(sizeof *spec->resources);
    if (!f->image)
        return cli_usage("create: --image is missing (or use -f FILE.json)");
    spec->image = (char *)f->image;
    spec->args = (char **)command;
    spec->n_args = (size_t)commands;
    spec->stateless = f->stateless;
    spec->desired_state = f->stopped ? HARPOON__V1__DESIRED_STATE__DESIRED_STATE_STOPPED
                                     : HARPOON__V1__DESIRED_STATE__DESIRED_STATE_RUNNING;
    if (f->user)
        spec->user = (char *)f->user;
    if (f->workdir)
        spec->working_dir = (char *)f->workdir;
    if (f->stop_signal)
        spec->stop_signal = (char *)f->stop_signal;
    int64_t grace_ms = 0;
    if (f->stop_grace && cli_parse_duration(f->stop_grace, &grace_ms, &e))
        return cli_usage("--stop-grace: %s", e.message);
    spec->stop_grace_seconds = (int32_t)((grace_ms + 999) / 1000);
    int code = fill_limits(spec->resources, limits);
    if (!code)
        code = fill_env(spec, &f->env);
    if (!code)
        code = fill_labels(m, &f->labels);
    if (!code)
        code = fill_placement(spec, f);
    if (!code)
        code = fill_network(spec, f);
    if (!code)
        code = fill_volumes(spec, &f->volumes);
    return code ? code : fill_restart(spec, f->restart);
}

/* From flags, or from a file that holds a Container. Without a name: `fallback`; NULL makes that an error. */
static int create_request(struct cli *c, int argc, char **argv, Harpoon__V1__CreateContainerRequest *req,
                          struct change_options *common, const char *fallback, const char *usage)
{
    struct create_flags f = {0};
    struct limit_flags l = {0};
    struct cli_args args;
    const struct cli_option table[] = {
        {"file", 'f', CLI_STRING, &f.file, "FILE",
         "a Container (or its spec's options) as JSON; \"-\" reads standard input"},
        {"image", 'i', CLI_STRING, &f.image, "IMAGE", "oci:/dir:tag, docker://registry/name:tag, or with @sha256:…"},
        {"cpu", 'c', CLI_STRING, &l.cpu, "CORES", "0.5 or 500m"},
        {"memory", 'm', CLI_STRING, &l.memory, "SIZE", "64Mi, 1.5Gi"},
        {"disk", 0, CLI_STRING, &l.disk, "SIZE", "claimed on the host"},
        {"pids", 0, CLI_STRING, &l.pids, "N", "processes and threads; default 4096"},
        {"io-read-bps", 0, CLI_STRING, &l.io_read_bps, "SIZE", "bytes a second"},
        {"io-write-bps", 0, CLI_STRING, &l.io_write_bps, "SIZE", "bytes a second"},
        {"io-read-iops", 0, CLI_STRING, &l.io_read_iops, "N", "operations a second"},
        {"io-write-iops", 0, CLI_STRING, &l.io_write_iops, "N", "operations a second"},
        {"network-bps", 0, CLI_STRING, &l.network_bps, "SIZE", "bytes a second of the network, claimed on the host"},
        {"env", 'e', CLI_REPEATED, &f.env, "NAME=VALUE", "environment; repeatable"},
        {"label", 'l', CLI_REPEATED, &f.labels, "KEY=VALUE", "label of the container; repeatable"},
        {"network", 0, CLI_STRING, &f.network, "MODE", "bridge (default), none, macvlan, sriov, overlay"},
        {"publish", 0, CLI_REPEATED, &f.publish, "HOST:PORT", "publish a port, 8080:80[/udp]; repeatable"},
        {"volume", 'v', CLI_REPEATED, &f.volumes, "NAME:/PATH",
         "a volume of the host, [:CLASS=SIZE] in a storage class, [:ro]; repeatable"},
        {"restart", 0, CLI_STRING, &f.restart, "POLICY", "always (default), on-failure or never"},
        {"zone", 0, CLI_REPEATED, &f.zones, "ZONE", "allowed zone; repeatable"},
        {"host-label", 0, CLI_REPEATED, &f.host_labels, "KEY=VALUE", "label that the host must have; repeatable"},
        {"host", 0, CLI_STRING, &f.host, "HOST", "exactly this host"},
        {"anti-affinity", 0, CLI_STRING, &f.group, "GROUP", "never on one host with others of this group"},
        {"priority", 0, CLI_STRING, &f.priority, "N",
         "-1000 to 1000, default 0: what has less may have to make room for what has more"},
        {"may-preempt", 0, CLI_FLAG, &f.may_preempt, NULL,
         "when no host has room, containers of lower priority may have to go"},
        {"user", 'u', CLI_STRING, &f.user, "USER", "uid[:gid] or a name in the image"},
        {"workdir", 0, CLI_STRING, &f.workdir, "PATH", "working directory"},
        {"stop-signal", 0, CLI_STRING, &f.stop_signal, "SIGNAL", "default: the image's, else SIGTERM"},
        {"stop-grace", 0, CLI_STRING, &f.stop_grace, "TIME", "from the stop signal to SIGKILL; default 10s"},
        {"stateless", 0, CLI_FLAG, &f.stateless, NULL, "may be moved: made anew on another host"},
        {"stopped", 0, CLI_FLAG, &f.stopped, NULL, "create, and do not start"},
        CHANGE_OPTIONS(*common),
        {0}};
    struct hp_error e = {0};
    if (cli_parse(c, table, argc, argv, &args, &e))
        return cli_usage("%s: %s", argv[0], e.message);
    if (common->help)
        return print_help(usage, table);
    const char *const *name = args.count ? &args.items[0] : NULL;
    Harpoon__V1__Container *m = NULL;
    int code;
    if (f.file) {
        code = cli_read_message(f.file, &harpoon__v1__container__descriptor, (ProtobufCMessage **)&m);
    } else {
        m = cli_keep(sizeof *m);
        harpoon__v1__container__init(m);
        char **command = cli_keep(sizeof *command * CLI_ARGS_MAX);
        int n = args.count > 1 ? args.count - 1 : 0;
        memcpy(command, args.items + 1, sizeof *command * (size_t)n);
        code = spec_of_flags(m, &f, (const char *const *)command, n, &l);
    }
    if (code || !m)
        return code;
    req->container = m;
    char full[256];
    const char *given = name ? *name : *m->name ? m->name : fallback;
    if (!given)
        return cli_usage("%s: the container's name is missing", argv[0]);
    code = cli_container_name(c, given, full);
    if (code)
        return code;
    char *slash = strstr(full, "/containers/");
    req->parent = cli_keep_text(full, (size_t)(slash - full));
    req->container_id = cli_keep_text(slash + strlen("/containers/"), strlen(slash) - strlen("/containers/"));
    m->name = cli_keep_text(full, strlen(full));
    return finish_options(common);
}

int cli_cmd_create(struct cli *c, int argc, char **argv)
{
    Harpoon__V1__CreateContainerRequest req = HARPOON__V1__CREATE_CONTAINER_REQUEST__INIT;
    struct change_options o = {0};
    int code = create_request(c, argc, argv, &req, &o, NULL,
                              "create NAME --image IMAGE --cpu CORES --memory SIZE [options] [-- ARGUMENTS…]\n"
                              "       harpoon create [NAME] -f FILE.json");
    if (code || o.help || !req.container)
        return code;
    char *name = req.container->name;
    req.container->name = (char *)protobuf_c_empty_string; /* parent and container_id say it */
    req.request_id = (char *)o.request_id;
    req.validate_only = o.validate_only;
    req.deadline_seconds = o.deadline_seconds;
    return send_change(c, "/harpoon.v1.ContainerService/CreateContainer", &req.base, name, &o);
}

int cli_cmd_explain(struct cli *c, int argc, char **argv)
{
    Harpoon__V1__CreateContainerRequest create = HARPOON__V1__CREATE_CONTAINER_REQUEST__INIT;
    struct change_options o = {0};
    int code = create_request(c, argc, argv, &create, &o, "explained",
                              "explain [NAME] -f FILE.json | explain [NAME] --image IMAGE …");
    if (code || o.help || !create.container)
        return code;
    create.container->name = (char *)protobuf_c_empty_string;
    return cli_print_explain(c, &create);
}

/* The place that the create would get; --deadline says for how long. */
int cli_cmd_reserve(struct cli *c, int argc, char **argv)
{
    Harpoon__V1__CreateContainerRequest create = HARPOON__V1__CREATE_CONTAINER_REQUEST__INIT;
    Harpoon__V1__ReserveRequest req = HARPOON__V1__RESERVE_REQUEST__INIT;
    struct change_options o = {0};
    int code = create_request(
        c, argc, argv, &create, &o, NULL,
        "reserve NAME -f FILE.json | reserve NAME --image IMAGE --cpu CORES --memory SIZE …\n\n"
        "Takes a place for the container of that name: its create, or its next move, gets it. It is held until "
        "--deadline\n(5m; at most 1d), or until \"harpoon ops cancel\".");
    if (code || o.help || !create.container)
        return code;
    char *name = create.container->name;
    create.container->name = (char *)protobuf_c_empty_string;
    req.create = &create;
    req.request_id = (char *)o.request_id;
    req.validate_only = o.validate_only;
    req.ttl_seconds = o.deadline_seconds;
    return send_change(c, "/harpoon.v1.PlacementService/Reserve", &req.base, name, &o);
}

int cli_cmd_update(struct cli *c, int argc, char **argv)
{
    struct change_options o = {0};
    const char *file = NULL;
    struct cli_args args;
    const struct cli_option table[] = {
        {"file", 'f', CLI_STRING, &file, "FILE", "the new Container as JSON: labels and spec are read"},
        {"etag", 0, CLI_STRING, &o.etag, "ETAG", "only if it is still the container's"},
        CHANGE_OPTIONS(o),
        {0}};
    struct hp_error e = {0};
    if (cli_parse(c, table, argc, argv, &args, &e))
        return cli_usage("update: %s", e.message);
    if (o.help)
        return print_help("update NAME -f FILE.json [options]", table);
    if (!file || args.count > 1)
        return cli_usage("update: give a name and -f FILE.json");
    int code = finish_options(&o);
    Harpoon__V1__UpdateContainerRequest req = HARPOON__V1__UPDATE_CONTAINER_REQUEST__INIT;
    if (!code)
        code = cli_read_message(file, &harpoon__v1__container__descriptor, (ProtobufCMessage **)&req.container);
    char name[256];
    if (!code && req.container)
        code = cli_container_name(c, args.count ? args.items[0] : req.container->name, name);
    if (code || !req.container)
        return code;
    req.container->name = name;
    req.etag = (char *)(o.etag ? o.etag : "");
    req.request_id = (char *)o.request_id;
    req.validate_only = o.validate_only;
    req.deadline_seconds = o.deadline_seconds;
    return send_change(c, "/harpoon.v1.ContainerService/UpdateContainer", &req.base, name, &o);
}

int cli_cmd_resize(struct cli *c, int argc, char **argv)
{
    struct change_options o = {0};
    struct limit_flags l = {0};
    struct cli_args args;
    const struct cli_option table[] = {
        {"cpu", 'c', CLI_STRING, &l.cpu, "CORES", "0.5 or 500m"},
        {"memory", 'm', CLI_STRING, &l.memory, "SIZE", "64Mi, 1.5Gi; refused when less than in use"},
        {"disk", 0, CLI_STRING, &l.disk, "SIZE", "claimed on the host"},
        {"pids", 0, CLI_STRING, &l.pids, "N", "processes and threads"},
        {"io-read-bps", 0, CLI_STRING, &l.io_read_bps, "SIZE", "bytes a second"},
        {"io-write-bps", 0, CLI_STRING, &l.io_write_bps, "SIZE", "bytes a second"},
        {"io-read-iops", 0, CLI_STRING, &l.io_read_iops, "N", "operations a second"},
        {"io-write-iops", 0, CLI_STRING, &l.io_write_iops, "N", "operations a second"},
        {"network-bps", 0, CLI_STRING, &l.network_bps, "SIZE", "bytes a second of the network, claimed on the host"},
        {"etag", 0, CLI_STRING, &o.etag, "ETAG", "only if it is still the container's"},
        CHANGE_OPTIONS(o),
        {0}};
    struct hp_error e = {0};
    if (cli_parse(c, table, argc, argv, &args, &e))
        return cli_usage("resize: %s", e.message);
    if (o.help)
        return print_help("resize NAME [--cpu CORES] [--memory SIZE] [options]", table);
    if (args.count != 1)
        return cli_usage("resize: give one name");
    Harpoon__V1__Resources r;
    char name[256];
    int code = finish_options(&o);
    if (!code)
        code = fill_limits(&r, &l);
    if (!code)
        code = cli_container_name(c, args.items[0], name);
    if (code)
        return code;
    Harpoon__V1__ResizeContainerRequest req = HARPOON__V1__RESIZE_CONTAINER_REQUEST__INIT;
    req.name = name;
    req.resources = &r;
    req.etag = (char *)(o.etag ? o.etag : "");
    req.request_id = (char *)o.request_id;
    req.validate_only = o.validate_only;
    req.deadline_seconds = o.deadline_seconds;
    return send_change(c, "/harpoon.v1.ContainerService/ResizeContainer", &req.base, name, &o);
}

/* ---- move ---- */

int cli_cmd_move(struct cli *c, int argc, char **argv)
{
    struct change_options o = {0};
    const char *to = "";
    struct cli_args args;
    const struct cli_option table[] = {{"to", 0, CLI_STRING, &to, "HOST", "to just this host; otherwise to the best"},
                                       {"etag", 0, CLI_STRING, &o.etag, "ETAG", "only if it is still the container's"},
                                       CHANGE_OPTIONS(o),
                                       {0}};
    struct hp_error e = {0};
    char name[256];
    if (cli_parse(c, table, argc, argv, &args, &e))
        return cli_usage("move: %s", e.message);
    if (o.help)
        return print_help("move NAME [--to HOST] [options]", table);
    if (args.count != 1)
        return cli_usage("move: give one name");
    int code = finish_options(&o);
    if (!code)
        code = cli_container_name(c, args.items[0], name);
    if (code)
        return code;
    Harpoon__V1__MoveContainerRequest req = HARPOON__V1__MOVE_CONTAINER_REQUEST__INIT;
    req.name = name;
    req.host = (char *)to;
    req.etag = (char *)(o.etag ? o.etag : "");
    req.request_id = (char *)o.request_id;
    req.validate_only = o.validate_only;
    req.deadline_seconds = o.deadline_seconds;
    return send_change(c, "/harpoon.v1.ContainerService/MoveContainer", &req.base, name, &o);
}

/* ---- start, stop, restart, delete: four requests of one shape ---- */

static int send_lifecycle(struct cli *c, const char *verb, char *name, const struct change_options *o)
{
#define SEND(Type, INIT, path)                                                                                         \
    do {                                                                                                               \
        Harpoon__V1__##Type req = INIT;                                                                                \
        req.name = name;                                                                                               \
        req.etag = (char *)(o->etag ? o->etag : "");                                                                   \
        req.request_id = (char *)o->request_id;                                                                        \
        req.validate_only = o->validate_only;                                                                          \
        req.deadline_seconds = o->deadline_seconds;                                                                    \
        return send_change(c, "/harpoon.v1.ContainerService/" path, &req.base, name, o);                               \
    } while (0)
    if (strcmp(verb, "start") == 0)
        SEND(StartContainerRequest, HARPOON__V1__START_CONTAINER_REQUEST__INIT, "StartContainer");
    if (strcmp(verb, "stop") == 0)
        SEND(StopContainerRequest, HARPOON__V1__STOP_CONTAINER_REQUEST__INIT, "StopContainer");
    if (strcmp(verb, "restart") == 0)
        SEND(RestartContainerRequest, HARPOON__V1__RESTART_CONTAINER_REQUEST__INIT, "RestartContainer");
    SEND(DeleteContainerRequest, HARPOON__V1__DELETE_CONTAINER_REQUEST__INIT, "DeleteContainer");
#undef SEND
}

int cli_cmd_lifecycle(struct cli *c, int argc, char **argv)
{
    struct change_options o = {0};
    struct cli_args args;
    const struct cli_option table[] = {
        {"etag", 0, CLI_STRING, &o.etag, "ETAG", "only if it is still the container's"}, CHANGE_OPTIONS(o), {0}};
    struct hp_error e = {0};
    char usage[64];
    if (cli_parse(c, table, argc, argv, &args, &e))
        return cli_usage("%s: %s", argv[0], e.message);
    snprintf(usage, sizeof usage, "%s NAME… [options]", argv[0]);
    if (o.help)
        return print_help(usage, table);
    if (args.count == 0)
        return cli_usage("%s: the container's name is missing", argv[0]);
    if (args.count > 1 && (o.request_id || o.etag))
        return cli_usage("%s: --request-id and --etag go with one name", argv[0]);
    int worst = CLI_OK;
    for (int i = 0; i < args.count; i++) {
        struct change_options one = o;
        char name[256];
        int code = finish_options(&one);
        one.request_id = o.request_id ? o.request_id : one.made_id;
        if (!code)
            code = cli_container_name(c, args.items[i], name);
        if (!code)
            code = send_lifecycle(c, argv[0], name, &one);
        if (code)
            worst = code;
        if (c->interrupted)
            break;
    }
    return worst;
}
