/* trust.c — hosts on which something has failed of late: each failure counts one, and half as much with each half-life that passes; a host's trust is 1 / (1 + count). It is not
 * recorded: the next reign begins with trust in all. */
#include "core/hosts.h"
#include "core/state.h"

enum { COUNT_MAX = 1000 };

/* A count as it is after so many milliseconds: between two halvings along a straight line, which lies a little above the curve. */
static float decayed(float count, uint64_t after_ms, uint64_t half_ms)
{
    uint64_t halvings = after_ms / half_ms;
    if (halvings >= 20)
        return 0;
    count /= (float)(1U << halvings);
    return count * (1 - 0.5F * (float)(after_ms % half_ms) / (float)half_ms);
}

static void set(struct sc_region *r, struct sc_host *h, float more)
{
    struct sc_slot_info *i = &h->info;
    uint32_t now_s = (uint32_t)(r->time.now_ms / 1000);
    float count = decayed(1 / i->trust - 1, 1000ULL * (now_s - i->failed_s), r->config.failure_half_ms) + more;
    i->failed_s = now_s;
    i->trust = count < 0.01F ? 1 : 1 / (1 + (count < COUNT_MAX ? count : COUNT_MAX));
}

void sc_host_forgive(struct sc_region *r, struct sc_host *h)
{
    if (h->info.trust < 1)
        set(r, h, 0);
}

void sc_host_failed(struct sc_region *r, struct sc_host *h)
{
    if (h->info.trust == 1)
        h->info.failed_s = (uint32_t)(r->time.now_ms / 1000);
    set(r, h, 1);
    sc_host_touch(r, h);
}
