/* private.h — the inside of the router's core. */
#ifndef ER_CORE_PRIVATE_H
#define ER_CORE_PRIVATE_H

#include "base/map.h"
#include "base/rng.h"
#include "core/core.h"
#include "harpoon/internal/v1/agent.pb-c.h"
#include "harpoon/internal/v1/report.pb-c.h"

#define ER_V1(name) HARPOON__INTERNAL__V1__##name

enum { ER_WHEEL_SLOTS = 256, ER_WHEEL_STEP_MS = 100 };

/*
 * A session's life; er_session_move() is the only one that changes it.
 *
 *   GREETING ──hello──▶ ATTACHED ──▶ CLOSING ──▶ (freed by er_core_disconnected)
 *       └──────────refused or late──────▲
 *
 * Invariants: in the map of hosts exactly while ATTACHED; one Detach is reported when ATTACHED ends, if its Attach was ever sent.
 */
enum er_session_state { ER_GREETING, ER_ATTACHED, ER_CLOSING };

enum er_report_kind {
    ER_REPORT_AGENT,  /* what the agent said: sent again by the agent when it is lost with its session */
    ER_REPORT_ATTACH, /* built when it is published, not before */
    ER_REPORT_OWN,    /* detach, undelivered: ours alone */
};

enum er_report_state { ER_QUEUED, ER_INFLIGHT, ER_DONE };

struct er_report {
    struct er_report *next, *prev; /* in the session's list or the core's */
    struct er_session *session;    /* NULL: ours, or its session has gone */
    int64_t report_id;             /* of the agent; 0: nothing to confirm */
    uint32_t len;
    uint8_t kind, state;
    uint8_t body[];
};

struct er_report_list {
    struct er_report *first, *last;
};

/* A command with its place in the window. */
struct er_slot {
    uint64_t key; /* hash of uid and generation */
    uint64_t expires_ms;
};

/* A command that waits for a place in the window. */
struct er_held {
    struct er_held *next;
    struct er_slot slot;
    uint32_t len;
    uint8_t frame[]; /* with its header */
};

struct er_session {
    void *link;                                 /* the shell's connection */
    char *peer_uri;                             /* from the certificate, until the hello; NULL */
    char *host;                                 /* short name; NULL before the hello */
    int64_t number;                             /* the session number */
    uint8_t *hello;                             /* packed AgentHello, for announcing again */
    struct er_session *wheel_next, *wheel_prev; /* list of a wheel's slot */
    struct er_session *ready_next, *ready_prev; /* sessions with something to publish */
    struct er_session *told_next;               /* sessions with confirms to pass on */
    struct er_session *all_next, *all_prev;     /* every session */
    struct er_report_list reports;              /* unconfirmed, oldest first: DONE or INFLIGHT ones, then QUEUED ones */
    struct er_report *next_out;                 /* first QUEUED of them; NULL none */
    struct er_slot *slots;                      /* commands at the host; NULL when none */
    struct er_held *held_first, *held_last;     /* commands held back */
    uint64_t heard_ms, sent_ms;                 /* last frame from and to the host */
    uint64_t digest;                            /* the newest digest of the agent */
    uint32_t hello_len, digest_count;           /* bytes of hello; count of the digest */
    uint32_t report_bytes;                      /* of reports */
    uint32_t held_bytes;                        /* of held frames */
    uint32_t batch;                             /* the metrics batch that it was last sampled for */
    uint16_t report_count, report_inflight;     /* of reports */
    uint16_t slot_count, slot_cap, held_count;  /* of slots and held */
    uint16_t wheel_slot;                        /* where it hangs */
    uint8_t samples;                            /* in that batch */
    uint8_t state;                              /* enum er_session_state */
    bool on_wheel : 1, on_ready : 1, on_told : 1;
    bool owes_attach : 1;     /* an Attach is to be published before anything else */
    bool attach_inflight : 1; /* and is under way */
    bool attach_sent : 1;     /* at least once */
    bool attach_counted : 1;  /* counts in core->attaching */
    bool rewind : 1;          /* a publish failed: wait for the outcomes of the rest, then send all again in order */
    bool paused : 1;
    bool beaten : 1; /* sampled for a heartbeat in this batch */
    bool goodbye : 1;
};

struct er_bytes {
    uint8_t *data;
    size_t len, cap;
};

struct er_core {
    struct er_options o;
    char *router, *region;
    struct hp_map hosts; /* name → ATTACHED session */
    struct hp_rng rng;
    struct er_session *all;                   /* every session */
    struct er_session *wheel[ER_WHEEL_SLOTS]; /* by the time of the next look at a session */
    uint64_t wheel_ms;                        /* everything due before this has been looked at */
    size_t on_wheel;                          /* sessions there */
    struct er_session *ready_first, *ready_last;
    struct er_session *told;
    struct er_report_list own; /* detach, undelivered: QUEUED ones */
    size_t own_count;
    size_t publishing;     /* reports INFLIGHT */
    uint64_t report_bytes; /* of all sessions and our own */
    uint64_t held_bytes;
    uint32_t attaching; /* sessions whose first Attach is not confirmed */
    uint32_t session_count, paused_count;
    bool broker_ready;
    uint64_t retry_at_ms;                     /* publish nothing before; 0: at once */
    uint32_t retry_ms;                        /* the next pause */
    struct er_bytes batch;                    /* MetricsBatch under construction */
    uint32_t batch_number;                    /* above 0 */
    uint64_t batch_due_ms;                    /* UINT64_MAX while it is empty */
    bool draining, drain_cut, drained;        /* drain_cut: the agents that stayed have been cut off */
    uint64_t drain_deadline_ms, drain_end_ms; /* agents are cut off; we no longer wait */
    struct er_session *drain_next;            /* not told yet */
    uint64_t drain_step_ms;                   /* when the next ones are told */
    struct er_effect *effects;
    size_t effect_count, effect_cap;
    struct er_bytes out; /* bytes of effects */
    bool effects_failed; /* out of memory */
    struct er_stats stats;
};

/* effects.c */
void er_bytes_done(struct er_bytes *b);
int er_bytes_add(struct er_bytes *b, const void *data, size_t len) HP_MUST_CHECK;
struct er_effect *er_emit(struct er_core *c, enum er_effect_kind kind); /* NULL: out of memory, noted */
void er_emit_link(struct er_core *c, enum er_effect_kind kind, struct er_session *s);
void er_note(struct er_core *c, const struct er_session *s, const char *text, const char *reason);
void er_send(struct er_core *c, uint64_t now_ms, struct er_session *s, const Harpoon__Internal__V1__RouterMessage *m);
void er_send_frame(struct er_core *c, uint64_t now_ms, struct er_session *s, const uint8_t *frame, size_t len);

/* session.c */
void er_session_end(struct er_core *c, uint64_t now_ms, struct er_session *s, enum er_detach reason,
                    uint32_t linger_ms);
void er_session_hello(struct er_core *c, uint64_t now_ms, struct er_session *s,
                      const Harpoon__Internal__V1__AgentHello *h, size_t len);
/* An attached agent says what is beyond the limits: it is told why, and goes. */
void er_session_refuse_message(struct er_core *c, uint64_t now_ms, struct er_session *s, const char *why);
void er_session_look(struct er_core *c, uint64_t now_ms, struct er_session *s); /* its time on the wheel has come */

/* dispatch.c */
uint64_t er_command_key(const struct er_core *c, const char *uid, int64_t generation);
void er_window_release(struct er_core *c, uint64_t now_ms, struct er_session *s, uint64_t key);
void er_window_expire(struct er_core *c, uint64_t now_ms, struct er_session *s);
void er_window_drop(struct er_core *c, struct er_session *s); /* the session ends */

/* reports.c */
int er_report_agent(struct er_core *c, struct er_session *s, Harpoon__Internal__V1__Report *r,
                    int64_t report_id) HP_MUST_CHECK;
void er_report_own(struct er_core *c, Harpoon__Internal__V1__Report *r);
void er_report_init(const struct er_core *c, Harpoon__Internal__V1__Report *r, const char *host, int64_t session);
void er_reports_announce(struct er_core *c, struct er_session *s);
void er_reports_abandon(struct er_core *c, struct er_session *s); /* the session ends */
void er_reports_unpause(struct er_core *c, struct er_session *s);
void er_reports_turn(struct er_core *c, uint64_t now_ms);

/* metrics.c */
void er_metrics_sample(struct er_core *c, uint64_t now_ms, struct er_session *s,
                       Harpoon__Internal__V1__AgentMetrics *m);
void er_metrics_flush(struct er_core *c, uint64_t now_ms);

/* wheel.c */
void er_wheel_put(struct er_core *c, struct er_session *s, uint64_t due_ms);
void er_wheel_remove(struct er_core *c, struct er_session *s);
void er_wheel_turn(struct er_core *c, uint64_t now_ms);

/* drain.c */
void er_drain_step(struct er_core *c, uint64_t now_ms);
void er_drain_check(struct er_core *c, uint64_t now_ms);
void er_drain_forget(struct er_core *c, struct er_session *s);

#endif
