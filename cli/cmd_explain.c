/* explain: the ranking that a create would use. */
#include <stdlib.h>

#include "cli.h"
#include "harpoon/v1/placement_service.pb-c.h"

/* "cpu 80, memory 75, …": the parts of the score, before they are weighted. */
static void format_parts(const Harpoon__V1__HostVerdict *v, char *out, size_t size)
{
    size_t n = 0;
    *out = '\0';
    for (size_t i = 0; i < v->n_parts && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s%s %.0f", i ? ", " : "", v->parts[i]->key, v->parts[i]->value);
}

static void print_preemption(const Harpoon__V1__Preemption *p)
{
    printf("preemption: %s\n", p->detail);
    for (size_t i = 0; i < p->n_spared; i++)
        printf("  %d not touched: %s\n", p->spared[i]->value, p->spared[i]->key);
}

int cli_print_explain(struct cli *c, Harpoon__V1__CreateContainerRequest *create)
{
    Harpoon__V1__ExplainRequest req = HARPOON__V1__EXPLAIN_REQUEST__INIT;
    req.create = create;
    ProtobufCMessage *m = NULL;
    int code = cli_call(c, "/harpoon.v1.PlacementService/Explain", &req.base,
                        &harpoon__v1__explain_response__descriptor, true, &m);
    if (code)
        return code;
    if (c->format == CLI_JSON || c->format == CLI_JSONL) {
        code = cli_print_json(c, m);
        protobuf_c_message_free_unpacked(m, NULL);
        return code;
    }
    const Harpoon__V1__ExplainResponse *r = (const Harpoon__V1__ExplainResponse *)m;
    printf("%d of %d hosts fit\n", r->feasible_count, r->host_count);
    for (size_t i = 0; i < r->n_rejected; i++)
        printf("  %d removed by %s\n", r->rejected[i]->value, r->rejected[i]->key);
    if (r->preemption)
        print_preemption(r->preemption);
    static const char *const headers[] = {"HOST", "SCORE", "REMOVED BY", "DETAIL", NULL}, *const wide[] = {
                                                                                              "HOST",       "SCORE",
                                                                                              "REMOVED BY", "PARTS",
                                                                                              "DETAIL",     NULL};
    struct cli_table *t = cli_table_new(c->format == CLI_WIDE ? wide : headers);
    for (size_t i = 0; i < r->n_hosts; i++) {
        char score[24] = "", parts[512];
        format_parts(r->hosts[i], parts, sizeof parts);
        if (!*r->hosts[i]->rejected_by)
            snprintf(score, sizeof score, "%.1f", r->hosts[i]->score);
        const char *host = cli_last_segment(r->hosts[i]->host), *by = r->hosts[i]->rejected_by,
                   *detail = r->hosts[i]->detail;
        cli_table_row(t, c->format == CLI_WIDE ? (const char *[]){host, score, by, parts, detail}
                                               : (const char *[]){host, score, by, detail});
    }
    cli_table_print(t, stdout);
    cli_table_free(t);
    protobuf_c_message_free_unpacked(m, NULL);
    return CLI_OK;
}
