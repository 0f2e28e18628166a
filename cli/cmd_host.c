/* hosts: list, get, cordon, uncordon, drain, declare-lost, quarantined, adopt. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "harpoon/v1/host_service.pb-c.h"
#include "wire/names.h"

static int send_host_change(struct cli *c, const char *path, const ProtobufCMessage *m, const char *name,
                            const char *request_id, bool wait)
{
    struct hp_host_name n;
    struct hp_error e = {0};
    if (hp_host_name_parse("host", name, &n, &e))
        return cli_error(CLI_USAGE, "%s", e.message);
    struct cli_change ch = {
        .path = path, .request = m, .project = "", .region = n.region, .request_id = request_id, .wait = wait};
    return cli_change(c, &ch);
}

struct drain_flags {
    const char *parallel, *deadline;
};

static int drain(struct cli *c, char *name, char *request_id, bool wait, const struct drain_flags *f)
{
    enum { PARALLEL_MAX = 100, DEADLINE_MAX_S = 7 * 86400 };
    Harpoon__V1__DrainHostRequest req = HARPOON__V1__DRAIN_HOST_REQUEST__INIT;
    struct hp_error e = {0};
    int64_t ms = 0;
    char *end = NULL;
    long parallel = f->parallel ? strtol(f->parallel, &end, 10) : 0;
    if (f->parallel && (*end || parallel < 1 || parallel > PARALLEL_MAX))
        return cli_usage("--parallel %s: a number from 1 to %d", f->parallel, (int)PARALLEL_MAX);
    if (f->deadline && cli_parse_duration(f->deadline, &ms, &e))
        return cli_usage("--deadline: %s", e.message);
    if (ms > (int64_t)DEADLINE_MAX_S * 1000)
        return cli_usage("--deadline %s: at most 7d", f->deadline);
    req.name = name;
    req.request_id = request_id;
    req.max_parallel = (int32_t)parallel;
    req.deadline_seconds = (int32_t)((ms + 999) / 1000);
    return send_host_change(c, "/harpoon.v1.HostService/DrainHost", &req.base, name, request_id, wait);
}

static int host_change(struct cli *c, const char *verb, char *name, char *request_id, bool wait)
{
#define SEND(Type, INIT, path)                                                                                         \
    do {                                                                                                               \
        Harpoon__V1__##Type req = INIT;                                                                                \
        req.name = name;                                                                                               \
        req.request_id = request_id;                                                                                   \
        return send_host_change(c, "/harpoon.v1.HostService/" path, &req.base, name, request_id, wait);                \
    } while (0)
    if (strcmp(verb, "cordon") == 0)
        SEND(CordonHostRequest, HARPOON__V1__CORDON_HOST_REQUEST__INIT, "CordonHost");
    if (strcmp(verb, "uncordon") == 0)
        SEND(UncordonHostRequest, HARPOON__V1__UNCORDON_HOST_REQUEST__INIT, "UncordonHost");
    if (strcmp(verb, "declare-lost") == 0)
        SEND(DeclareHostLostRequest, HARPOON__V1__DECLARE_HOST_LOST_REQUEST__INIT, "DeclareHostLost");
    return cli_usage("hosts: no verb \"%s\"", verb);
#undef SEND
}

/* ---- What a host has and the record does not know ---- */

static int get_host(struct cli *c, char *name, Harpoon__V1__Host **ret)
{
    Harpoon__V1__GetHostRequest req = HARPOON__V1__GET_HOST_REQUEST__INIT;
    ProtobufCMessage *m = NULL;
    req.name = name;
    int code = cli_call(c, "/harpoon.v1.HostService/GetHost", &req.base, &harpoon__v1__host__descriptor, true, &m);
    *ret = (Harpoon__V1__Host *)m;
    return code;
}

static int quarantined(struct cli *c, char *name)
{
    static const char *const headers[] = {"UID", "NAME", "STATE", "GENERATION", "IMAGE", "ADOPTABLE", NULL};
    Harpoon__V1__Host *h = NULL;
    int code = get_host(c, name, &h);
    if (code)
        return code;
    struct cli_table *t = cli_table_new(headers);
    for (size_t i = 0; i < h->n_quarantined; i++) {
        const Harpoon__V1__QuarantinedContainer *q = h->quarantined[i];
        char generation[24];
        snprintf(generation, sizeof generation, "%lld", (long long)q->generation);
        const char *cells[] = {q->uid,
                               q->name,
                               cli_enum_name(&harpoon__v1__container_state__descriptor, (int)q->state),
                               generation,
                               q->spec ? q->spec->image : "",
                               q->spec ? "yes" : "no"};
        if (c->format == CLI_JSON || c->format == CLI_JSONL)
            cli_print_json(c, &q->base);
        else
            cli_table_row(t, cells);
    }
    if (c->format != CLI_JSON && c->format != CLI_JSONL)
        cli_table_print(t, stdout);
    cli_table_free(t);
    harpoon__v1__host__free_unpacked(h, NULL);
    return CLI_OK;
}

static int adopt_one(struct cli *c, char *name, char *uid, const char *request_id)
{
    Harpoon__V1__AdoptContainerRequest req = HARPOON__V1__ADOPT_CONTAINER_REQUEST__INIT;
    char made[37];
    cli_new_request_id(made);
    req.name = name;
    req.uid = uid;
    req.request_id = request_id ? (char *)request_id : made;
    return send_host_change(c, "/harpoon.v1.HostService/AdoptContainer", &req.base, name, req.request_id, false);
}

/* Goes on after what cannot be adopted; the first failure is the exit code. */
static int adopt_all(struct cli *c, char *name)
{
    Harpoon__V1__Host *h = NULL;
    int code = get_host(c, name, &h), first = CLI_OK;
    if (code)
        return code;
    for (size_t i = 0; i < h->n_quarantined; i++) {
        code = adopt_one(c, name, h->quarantined[i]->uid, NULL);
        first = first ? first : code;
    }
    harpoon__v1__host__free_unpacked(h, NULL);
    return first;
}

int cli_cmd_hosts(struct cli *c, int argc, char **argv)
{
    bool help = false, wait = false, yes = false, all = false;
    const char *request_id = NULL;
    struct drain_flags d = {0};
    struct cli_args args;
    const struct cli_option table[] = {
        {"wait", 'w', CLI_FLAG, &wait, NULL, "return when the operation has ended"},
        {"request-id", 0, CLI_STRING, &request_id, "ID", "repeat an earlier request safely"},
        {"parallel", 0, CLI_STRING, &d.parallel, "N", "drain: so many moves at a time; default: the scheduler's"},
        {"deadline", 0, CLI_STRING, &d.deadline, "TIME", "drain: what has found no place by then stays; default 1h"},
        {"yes", 'y', CLI_FLAG, &yes, NULL, "declare-lost: do not ask"},
        {"all", 0, CLI_FLAG, &all, NULL, "adopt: everything under quarantine on the host"},
        {"help", 'h', CLI_FLAG, &help, NULL, "this text"},
        {0}};
    struct hp_error e = {0};
    if (cli_parse(c, table, argc, argv, &args, &e))
        return cli_usage("%s: %s", argv[0], e.message);
    if (help) {
        puts("Usage: harpoon hosts list | get HOST | cordon HOST | uncordon HOST | declare-lost HOST\n"
             "       harpoon hosts drain HOST [--parallel N] [--deadline TIME] [--wait]   moves what may move, and "
             "says what stays"
             "\n       harpoon hosts quarantined HOST | adopt HOST UID | adopt HOST --all\n\nOptions:");
        cli_print_options(stdout, table);
        cli_print_global_options(stdout);
        return CLI_OK;
    }
    const char *verb = args.count ? args.items[0] : "list";
    if (strcmp(verb, "list") == 0 && args.count < 2)
        return cli_list_hosts(c);
    bool adopt = strcmp(verb, "adopt") == 0;
    if (adopt && args.count != (all ? 2 : 3))
        return cli_usage("hosts adopt: give a host and a uid, or a host and --all");
    if (!adopt && args.count != 2)
        return cli_usage("hosts %s: give one host", verb);
    if (strcmp(verb, "get") == 0) {
        char *get[] = {(char *)"get", (char *)"host", (char *)args.items[1], NULL};
        return cli_cmd_get(c, 3, get);
    }
    char name[256], made[37];
    int code = cli_host_name(c, args.items[1], name);
    if (code)
        return code;
    if (strcmp(verb, "quarantined") == 0)
        return quarantined(c, name);
    if (adopt)
        return all ? adopt_all(c, name) : adopt_one(c, name, (char *)args.items[2], request_id);
    if (strcmp(verb, "declare-lost") == 0 && !yes) {
        if (!c->interactive)
            return cli_usage("declare-lost gives up every container of %s: confirm with --yes", name);
        fprintf(stderr,
                "Every container of %s becomes LOST and its place is given away. Type the host's short name: ", name);
        char line[80] = "";
        if (!fgets(line, sizeof line, stdin) || strcmp(strtok(line, "\n") ? line : "", cli_last_segment(name)) != 0)
            return cli_error(CLI_USAGE, "not confirmed; nothing was changed");
    }
    cli_new_request_id(made);
    if (strcmp(verb, "drain") == 0)
        return drain(c, name, request_id ? (char *)request_id : made, wait, &d);
    return host_change(c, verb, name, request_id ? (char *)request_id : made, wait);
}
