#include "wire/agent_limits.h"

#include <stdio.h>
#include <string.h>

#include "wire/utf8.h"

enum { SHOWN_MAX = 64 };

/* So that a log can show it: what is not printable ASCII as \xNN. */
static void show(char out[4 * SHOWN_MAX + 1], const char *text)
{
    size_t at = 0;
    for (size_t i = 0; text[i] && i < SHOWN_MAX; i++) {
        unsigned char c = (unsigned char)text[i];
        at += (size_t)snprintf(out + at, 5, c < 0x20 || c > 0x7E ? "\\x%02x" : "%c", c);
    }
    out[at] = '\0';
}

int hp_agent_text_check(const char *field, const char *text, size_t max, struct hp_error *e)
{
    char shown[4 * SHOWN_MAX + 1] = "";
    size_t n = text ? strlen(text) : 0;
    if (n > max) {
        show(shown, text);
        return hp_fail(e, HP_EINVAL, "%s: \"%s\"… has %zu bytes (at most %zu)", field, shown, n, max);
    }
    if (n && !hp_utf8_valid(text, n)) {
        show(shown, text);
        return hp_fail(e, HP_EINVAL, "%s: \"%s\" is not UTF-8", field, shown);
    }
    return 0;
}

int hp_agent_generation_check(const char *field, int64_t generation, struct hp_error *e)
{
    if (generation > HP_GENERATION_MAX)
        return hp_fail(e, HP_EINVAL, "%s: %lld is over %d", field, (long long)generation, HP_GENERATION_MAX);
    return 0;
}

static int check_id(const char *field, int64_t id, struct hp_error *e)
{
    return id > 0 ? 0 : hp_fail(e, HP_EINVAL, "%s: %lld is not above 0", field, (long long)id);
}

static int check_list(const char *field, char *const *texts, size_t count, size_t max, struct hp_error *e)
{
    int rc = count > HP_AGENT_LIST_MAX
                 ? hp_fail(e, HP_EINVAL, "%s: %zu of them (at most %d)", field, count, HP_AGENT_LIST_MAX)
                 : 0;
    for (size_t i = 0; !rc && i < count; i++)
        rc = hp_agent_text_check(field, texts[i], max, e);
    return rc;
}

static int check_status(const Harpoon__V1__ContainerStatus *s, struct hp_error *e)
{
    if (!s)
        return 0;
    int rc = hp_agent_generation_check("status.observed_generation", s->observed_generation, e);
    if (!rc)
        rc = hp_agent_text_check("status.host", s->host, HP_AGENT_NAME_MAX, e);
    if (!rc)
        rc = check_list("status.addresses", s->addresses, s->n_addresses, HP_AGENT_SHORT_MAX, e);
    if (!rc)
        rc = hp_agent_text_check("status.message", s->message, HP_AGENT_TEXT_MAX, e);
    return rc ? rc : hp_agent_text_check("status.image_digest", s->image_digest, HP_AGENT_SHORT_MAX, e);
}

static int check_journalled(const Harpoon__Internal__V1__CommandJournalled *m, struct hp_error *e)
{
    int rc = check_id("journalled.report_id", m->report_id, e);
    if (!rc)
        rc = hp_agent_text_check("journalled.operation_id", m->operation_id, HP_AGENT_ID_MAX, e);
    if (!rc)
        rc = hp_agent_text_check("journalled.uid", m->uid, HP_AGENT_ID_MAX, e);
    return rc ? rc : hp_agent_generation_check("journalled.generation", m->generation, e);
}

static int check_error(const Google__Rpc__Status *s, struct hp_error *e)
{
    if (!s)
        return 0;
    if (s->n_details > HP_AGENT_LIST_MAX)
        return hp_fail(e, HP_EINVAL, "result.error.details: %zu of them (at most %d)", s->n_details, HP_AGENT_LIST_MAX);
    return hp_agent_text_check("result.error.message", s->message, HP_AGENT_TEXT_MAX, e);
}

static int check_result(const Harpoon__Internal__V1__CommandResult *m, struct hp_error *e)
{
    int rc = check_id("result.report_id", m->report_id, e);
    if (!rc)
        rc = hp_agent_text_check("result.operation_id", m->operation_id, HP_AGENT_ID_MAX, e);
    if (!rc)
        rc = hp_agent_text_check("result.uid", m->uid, HP_AGENT_ID_MAX, e);
    if (!rc)
        rc = hp_agent_generation_check("result.generation", m->generation, e);
    if (!rc)
        rc = check_error(m->error, e);
    if (!rc)
        rc = check_list("result.overloaded", m->overloaded, m->n_overloaded, HP_AGENT_ID_MAX, e);
    return rc ? rc : check_status(m->status, e);
}

static int check_observation(const Harpoon__Internal__V1__Observation *m, struct hp_error *e)
{
    int rc = check_id("observation.report_id", m->report_id, e);
    if (!rc)
        rc = hp_agent_text_check("observation.container", m->container, HP_AGENT_NAME_MAX, e);
    if (!rc)
        rc = hp_agent_text_check("observation.uid", m->uid, HP_AGENT_ID_MAX, e);
    if (!rc)
        rc = hp_agent_generation_check("observation.generation", m->generation, e);
    if (!rc)
        rc = hp_agent_text_check("observation.kind", m->kind, HP_AGENT_ID_MAX, e);
    return rc ? rc : check_status(m->status, e);
}

static int check_inventory(const Harpoon__Internal__V1__Inventory *m, struct hp_error *e)
{
    int rc = m->n_items > HP_INVENTORY_ITEMS_MAX ? hp_fail(e, HP_EINVAL, "inventory.items: %zu of them (at most %d)",
                                                           m->n_items, HP_INVENTORY_ITEMS_MAX)
                                                 : 0;
    for (size_t i = 0; !rc && i < m->n_items; i++) {
        const Harpoon__Internal__V1__InventoryItem *x = m->items[i];
        rc = hp_agent_text_check("inventory.items.container", x->container, HP_AGENT_NAME_MAX, e);
        if (!rc)
            rc = hp_agent_text_check("inventory.items.uid", x->uid, HP_AGENT_ID_MAX, e);
        if (!rc)
            rc = hp_agent_generation_check("inventory.items.generation", x->generation, e);
        if (!rc)
            rc = check_status(x->status, e);
    }
    return rc;
}

static int check_metrics(const Harpoon__Internal__V1__AgentMetrics *m, struct hp_error *e)
{
    if (m->n_images > HP_AGENT_IMAGES_MAX)
        return hp_fail(e, HP_EINVAL, "metrics.images: %zu of them (at most %d)", m->n_images, HP_AGENT_IMAGES_MAX);
    for (size_t i = 0; i < m->n_images; i++) {
        int rc = hp_agent_text_check("metrics.images", m->images[i], HP_AGENT_SHORT_MAX, e);
        if (rc)
            return rc;
    }
    return 0;
}

int hp_agent_message_check(const Harpoon__Internal__V1__AgentMessage *m, struct hp_error *e)
{
    switch (m->body_case) {
    case HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_JOURNALLED:
        return check_journalled(m->journalled, e);
    case HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_RESULT:
        return check_result(m->result, e);
    case HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_OBSERVATION:
        return check_observation(m->observation, e);
    case HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_INVENTORY:
        return check_inventory(m->inventory, e);
    case HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_METRICS: /* figures are dropped where they make no sense */
        return check_metrics(m->metrics, e);
    default: /* the rest has nothing to limit */
        return 0;
    }
}
