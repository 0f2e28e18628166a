/* core.h — what an event-router decides: sessions of hosts, windows of commands, reports to the broker, metrics, draining. No I/O, no clock.
 *
 * Each function takes an event with the time in it (milliseconds, monotonic) and appends effects; the shell carries them out in order, then calls er_core_effects_done. Once in a
 * turn of its loop, after the events of that turn, it calls er_core_end_turn, which publishes and confirms in batches. All on one thread. */
#ifndef ER_CORE_CORE_H
#define ER_CORE_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct er_core;
struct er_session; /* one connection, from er_core_connected to er_core_disconnected */
struct er_report;  /* a message on its way to reports.<region> */

enum {
    ER_PROTOCOL_VERSION = 1,
    ER_HELLO_MAX_BYTES = 64 * 1024,         /* a larger hello is refused */
    ER_HELLO_MS = 10000,                    /* a connection without a hello is closed then */
    ER_HELD_MAX = 256,                      /* commands held back per host; more come back as buffer_full */
    ER_HELD_MAX_BYTES = 1024 * 1024,        /* per host */
    ER_HELD_TOTAL_MAX_BYTES = 256 << 20,    /* all hosts */
    ER_REPORTS_MAX = 128,                   /* unconfirmed reports per host: then it is paused */
    ER_REPORTS_MAX_BYTES = 2 << 20,         /* per host */
    ER_REPORTS_TOTAL_MAX_BYTES = 256 << 20, /* all hosts */
    ER_OWN_REPORTS_MAX = 40000,             /* detach and undelivered waiting: then the oldest is dropped */
    ER_PUBLISH_MAX = 4096,                  /* reports under way to the broker */
    ER_METRICS_CHUNK_BYTES = 256 * 1024,    /* of one MetricsBatch */
    ER_METRICS_PER_BATCH_MAX = 4,           /* samples of one host between two batches; more are dropped */
    ER_METRICS_BATCH_MS = 1000,             /* between two batches */
    ER_COMMAND_DEFAULT_MS = 60000,          /* a command without deadline keeps its place in the window so long */
    ER_COMMAND_MAX_MS = 600000,             /* and with one, at most so long */
    ER_RETRY_MS = 100,
    ER_RETRY_MAX_MS = 5000 /* between attempts to publish what the broker refused */
};

struct er_options {
    const char *router;    /* queue suffix, copied */
    const char *region;    /* copied */
    uint32_t heartbeat_ms; /* the agent is to be heard from this often, and is lost after three times that */
    uint32_t metrics_ms;   /* told to agents */
    uint32_t window;       /* commands without a result per host */
    uint32_t sessions_max; /* connections */
    uint32_t attaches_max; /* attachments that the broker has not confirmed; further hellos are told to come back */
    uint32_t drain_ms;     /* from er_core_drain until the remaining agents are cut off */
    bool check_identity;   /* the certificate must name the host; false only without TLS */
    uint64_t seed;         /* of hashing and jitter */
};

enum er_effect_kind {
    ER_SEND,            /* bytes to link: one whole frame */
    ER_CLOSE,           /* link, after what was sent, within linger_ms; er_core_disconnected follows */
    ER_PAUSE,           /* stop reading from link */
    ER_RESUME,          /* read from link again */
    ER_PUBLISH,         /* report, persistent and mandatory; er_core_published follows */
    ER_PUBLISH_METRICS, /* bytes, transient, no answer wanted */
    ER_NOTE,            /* a fact for the log: text, host, session */
    ER_DRAINED,         /* the orderly end is done */
};

struct er_effect {
    enum er_effect_kind kind;
    void *link;               /* SEND, CLOSE, PAUSE, RESUME: what er_core_connected was given */
    struct er_report *report; /* PUBLISH */
    size_t offset, len;       /* SEND, PUBLISH_METRICS: see er_core_bytes */
    size_t host;              /* NOTE: offset of the name */
    int64_t session;          /* NOTE */
    const char *text;         /* NOTE: static */
    const char *reason;       /* NOTE: static, or NULL */
    uint32_t linger_ms;       /* CLOSE */
};

/* How a publish ended, as far as the core cares. */
enum er_outcome { ER_CONFIRMED, ER_FAILED };

/* Why sessions end, as in Detach.reason. */
enum er_detach {
    ER_DETACH_GOODBYE,
    ER_DETACH_CONNECTION_LOST,
    ER_DETACH_HEARTBEAT_MISSED,
    ER_DETACH_REPLACED,
    ER_DETACH_ROUTER_DRAINING,
    ER_DETACH_PROTOCOL_ERROR,
    ER_DETACH_TOO_SLOW,
    ER_DETACH_REASONS
};
const char *er_detach_name(enum er_detach reason);

/* Counters since the start, and a few levels. */
struct er_stats {
    uint64_t attached, refused, detached[ER_DETACH_REASONS];
    uint64_t commands, commands_sent, commands_held, commands_expired, undelivered, commands_bad;
    uint64_t reports, reports_confirmed, reports_failed, reports_dropped;
    uint64_t metrics_batches, samples, samples_dropped, protocol_errors;
    uint64_t sessions_now, attached_now, reports_waiting_now, publishing_now, held_bytes_now, report_bytes_now,
        paused_now;
};

int er_core_new(const struct er_options *o, uint64_t now_ms, struct er_core **ret, struct hp_error *e) HP_MUST_CHECK;
/* Frees everything, reports under way included: their publishes must be over. */
void er_core_free(struct er_core *c);

/* ---- Events ---- */

/* A connection is open; `peer_uri` is its certificate's URI or NULL. NULL: no room or memory; close it. `link` comes back in effects. */
struct er_session *er_core_connected(struct er_core *c, uint64_t now_ms, void *link, const char *peer_uri);
/* One AgentMessage. Not 0: the session is being closed (an ER_CLOSE is among the effects): read no more. */
int er_core_frame(struct er_core *c, uint64_t now_ms, struct er_session *s, const uint8_t *body,
                  size_t len) HP_MUST_CHECK;
/* The framing itself was broken. */
void er_core_frame_error(struct er_core *c, uint64_t now_ms, struct er_session *s, const struct hp_error *e);
/* ER_SEND found the write queue full: the host does not keep up. */
void er_core_too_slow(struct er_core *c, uint64_t now_ms, struct er_session *s);
/* The connection is gone, for whatever reason; s is freed. */
void er_core_disconnected(struct er_core *c, uint64_t now_ms, struct er_session *s);
/* A message on router.<id>: one RouterCommand. */
void er_core_command(struct er_core *c, uint64_t now_ms, const uint8_t *body, size_t len);
/* Ready: publishing works and router.<id> is consumed. Each time that it becomes so, all sessions are announced. */
void er_core_broker(struct er_core *c, uint64_t now_ms, bool ready);
/* The outcome of an ER_PUBLISH; `r` is the core's again. */
void er_core_published(struct er_core *c, uint64_t now_ms, struct er_report *r, enum er_outcome outcome);
/* The time of er_core_deadline has come. */
void er_core_tick(struct er_core *c, uint64_t now_ms);
/* Orderly end: no new sessions, agents are told to go, ER_DRAINED when all is done or the time is up. */
void er_core_drain(struct er_core *c, uint64_t now_ms);
/* After the events of one turn of the loop. */
void er_core_end_turn(struct er_core *c, uint64_t now_ms);

/* When er_core_tick is due next; UINT64_MAX: not at all. */
uint64_t er_core_deadline(const struct er_core *c);

/* ---- Effects ---- */

const struct er_effect *er_core_effects(const struct er_core *c, size_t *ret_count);
/* Valid until er_core_effects_done. */
const uint8_t *er_core_bytes(const struct er_core *c, size_t offset);
void er_core_effects_done(struct er_core *c);
/* The packed Report; valid until its outcome is told. */
const uint8_t *er_report_body(const struct er_report *r, size_t *ret_len);
void *er_session_link(const struct er_session *s);
void er_core_stats(const struct er_core *c, struct er_stats *ret);

#endif
