/* brake.c — when many hosts fall silent at once it is hardly the hosts: a network, a router, a power feed, or this scheduler that was asleep. Then none of them is given up.
 *
 * The brake is on while more than brake_percent of the hosts that were not given up before are SUSPECT, and at least brake_hosts are: SUSPECT hosts stay SUSPECT, and
 * their containers as they are. It follows from the states in the record, so a new reign finds it as the last one left it, and its event is raised once.
 * It is released when enough of them are back (or were declared lost); the others then have the whole time to UNKNOWN again. */
#include "core/hosts.h"
#include "core/state.h"

#define STATE(x) HARPOON__V1__HOST_STATE__HOST_STATE_##x

void sc_brake_count(struct sc_region *r, struct sc_host *h)
{
    int state = h->pb->state;
    enum sc_voice now = state == STATE(SUSPECT)                             ? SC_VOICE_SILENT
                        : state == STATE(READY) || state == STATE(DRAINING) ? SC_VOICE_HEARD
                                                                            : SC_VOICE_NONE;
    assert(h->voice == SC_VOICE_NONE || r->voices[h->voice] > 0);
    if (h->voice != SC_VOICE_NONE)
        r->voices[h->voice]--;
    if (now != SC_VOICE_NONE)
        r->voices[now]++;
    h->voice = now;
}

static bool wanted(const struct sc_region *r)
{
    uint64_t silent = r->voices[SC_VOICE_SILENT], all = silent + r->voices[SC_VOICE_HEARD];
    return r->config.brake_percent > 0 && silent >= r->config.brake_hosts && silent > 0 &&
           silent * 100 > all * (uint64_t)r->config.brake_percent;
}

static void tell(struct sc_region *r, const char *type, Harpoon__V1__Severity severity, const char *what)
{
    char text[256];
    snprintf(text, sizeof text, "%zu of %zu hosts are silent (brake_percent %d): %s", r->voices[SC_VOICE_SILENT],
             r->voices[SC_VOICE_SILENT] + r->voices[SC_VOICE_HEARD], r->config.brake_percent, what);
    sc_event_region(r, type, severity, text);
}

bool sc_brake_check(struct sc_region *r)
{
    bool on = wanted(r);
    if (on == r->braked)
        return on;
    r->braked = on;
    if (on) {
        tell(r, "region.braked", HARPOON__V1__SEVERITY__SEVERITY_CRITICAL,
             "none of them is given up until they are back or declared lost");
        return true;
    }
    tell(r, "region.released", HARPOON__V1__SEVERITY__SEVERITY_INFO, "the others are given up in time");
    for (size_t i = 0; i < r->slot_count; i++) {
        struct sc_host *h = r->slots[i].info->host;
        if (h->voice == SC_VOICE_SILENT)
            sc_timer_set(r, &h->silence, sc_host_grace(r, h).unknown_ms);
    }
    return false;
}

void sc_brake_lead(struct sc_region *r)
{
    r->braked = wanted(r); /* the last reign has told */
}
