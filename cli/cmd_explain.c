/* explain: the ranking that a create would use. */
#include <stdlib.h>

#include "cli.h"
#include "harpoon/v1/placement_service.pb-c.h"

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
    static const char *const headers[] = {"HOST", "SCORE", "REMOVED BY", "DETAIL", NULL};
    struct cli_table *t = cli_table_new(headers);
    for (size_t i = 0; i < r->n_hosts; i++) {
        char score[24] = "";
        if (!*r->hosts[i]->rejected_by)
            snprintf(score, sizeof score, "%.1f", r->hosts[i]->score);
        const char *cells[] = {cli_last_segment(r->hosts[i]->host), score, r->hosts[i]->rejected_by,
                               r->hosts[i]->detail};
        cli_table_row(t, cells);
    }
    cli_table_print(t, stdout);
    cli_table_free(t);
    protobuf_c_message_free_unpacked(m, NULL);
    return CLI_OK;
}
