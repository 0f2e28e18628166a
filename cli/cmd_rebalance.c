/* rebalance: moves that would be worth their while; with --apply, one after another. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "harpoon/v1/container_service.pb-c.h"
#include "harpoon/v1/placement_service.pb-c.h"
#include "wire/names.h"

static void print_moves(struct cli *c, const Harpoon__V1__ProposeMovesResponse *r)
{
    static const char *const headers[] = {"CONTAINER", "FROM", "TO", "GAIN", NULL};
    struct cli_table *t = cli_table_new(headers);
    for (size_t i = 0; i < r->n_moves; i++) {
        const Harpoon__V1__ProposedMove *m = r->moves[i];
        char gain[24];
        snprintf(gain, sizeof gain, "%.1f", m->gain);
        cli_table_row(t, (const char *[]){m->container, cli_last_segment(m->from), cli_last_segment(m->to), gain});
    }
    cli_table_print(t, stdout);
    cli_table_free(t);
    printf("%d containers examined; standard deviation of the hosts' use: %.1f %%, with these moves %.1f %%\n",
           r->examined, r->imbalance_before, r->imbalance_after);
}

static int apply_one(struct cli *c, const Harpoon__V1__ProposedMove *m)
{
    Harpoon__V1__MoveContainerRequest req = HARPOON__V1__MOVE_CONTAINER_REQUEST__INIT;
    struct hp_container_name n;
    struct hp_error e = {0};
    char id[37];
    if (hp_container_name_parse("container", m->container, &n, &e))
        return cli_error(CLI_INTERNAL, "%s", e.message);
    cli_new_request_id(id);
    req.name = m->container;
    req.host = (char *)cli_last_segment(m->to);
    req.request_id = id;
    struct cli_change ch = {.path = "/harpoon.v1.ContainerService/MoveContainer",
                            .request = &req.base,
                            .project = n.project,
                            .region = n.region,
                            .request_id = id,
                            .wait = true};
    return cli_change(c, &ch);
}

/* One after another; goes on after what could not be moved, and gives the first failure. */
static int apply_all(struct cli *c, const Harpoon__V1__ProposeMovesResponse *r)
{
    int first = CLI_OK;
    for (size_t i = 0; i < r->n_moves && !c->interrupted; i++) {
        int code = apply_one(c, r->moves[i]);
        first = first ? first : code;
    }
    return first;
}

int cli_cmd_rebalance(struct cli *c, int argc, char **argv)
{
    bool help = false, dry_run = false, apply = false;
    const char *max = NULL, *gain = NULL;
    struct cli_args args;
    const struct cli_option table[] = {
        {"dry-run", 0, CLI_FLAG, &dry_run, NULL, "only show the moves (what it does without --apply)"},
        {"apply", 0, CLI_FLAG, &apply, NULL, "make the moves, one after another, each waited for"},
        {"max", 0, CLI_STRING, &max, "N", "at most so many moves; default 10, at most 100"},
        {"min-gain", 0, CLI_STRING, &gain, "POINTS", "only moves that gain so many points of score; default 1"},
        {"help", 'h', CLI_FLAG, &help, NULL, "this text"},
        {0}};
    struct hp_error e = {0};
    Harpoon__V1__ProposeMovesRequest req = HARPOON__V1__PROPOSE_MOVES_REQUEST__INIT;
    if (cli_parse(c, table, argc, argv, &args, &e))
        return cli_usage("rebalance: %s", e.message);
    if (help) {
        puts("Usage: harpoon rebalance [--dry-run | --apply] [options]\n\n"
             "Shows which stateless containers would be better on another host, and what each move gains in points of "
             "the\n"
             "score by which containers are placed. Moves nothing without --apply.\n\nOptions:");
        cli_print_options(stdout, table);
        cli_print_global_options(stdout);
        return CLI_OK;
    }
    char *end = NULL, parent[96];
    req.max_moves = max ? (int32_t)strtol(max, &end, 10) : 0;
    if (args.count || (dry_run && apply) || (max && (*end || req.max_moves < 1 || req.max_moves > 100)))
        return cli_usage("rebalance: takes no names; --dry-run or --apply; --max is 1 to 100");
    req.min_gain = gain ? strtod(gain, &end) : 0;
    if (gain && (*end || !(req.min_gain > 0 && req.min_gain <= 100)))
        return cli_usage("--min-gain %s: more than 0, at most 100", gain);
    snprintf(parent, sizeof parent, "regions/%s", c->region);
    req.parent = parent;
    ProtobufCMessage *m = NULL;
    int code = cli_call(c, "/harpoon.v1.PlacementService/ProposeMoves", &req.base,
                        &harpoon__v1__propose_moves_response__descriptor, true, &m);
    if (code)
        return code;
    const Harpoon__V1__ProposeMovesResponse *r = (const Harpoon__V1__ProposeMovesResponse *)m;
    if (c->format == CLI_JSON || c->format == CLI_JSONL)
        code = cli_print_json(c, m);
    else
        print_moves(c, r);
    if (apply && !code)
        code = apply_all(c, r);
    protobuf_c_message_free_unpacked(m, NULL);
    return code;
}
