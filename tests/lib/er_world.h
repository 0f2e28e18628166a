/* er_world.h — a router's core between agents and a broker made of memory, and a trace of what leaves it: one effect a line. */
#ifndef TESTS_LIB_ER_WORLD_H
#define TESTS_LIB_ER_WORLD_H

#include "core/core.h"
#include "harpoon/internal/v1/agent.pb-c.h"
#include "harpoon/internal/v1/report.pb-c.h"

enum { ERW_LINKS = 8, ERW_PENDING_MAX = 6000 };

struct erw {
    struct er_core *core;
    uint64_t now;
    struct er_session *session[ERW_LINKS];      /* by link number; NULL: disconnected */
    bool closed[ERW_LINKS];                     /* ER_CLOSE was seen */
    struct er_report *pending[ERW_PENDING_MAX]; /* published, no outcome yet; oldest first */
    size_t pending_count;
    char *trace; /* what has happened since the last expect() */
    size_t trace_len;
    bool quiet; /* no trace of sends and publishes */
};

/* Router er-1-abc of region r1, window 2. */
extern const struct er_options erw_defaults;

void erw_init(struct erw *w, const struct er_options *o);
/* Disconnects all, and lets everything that is under way end. */
void erw_done(struct erw *w);
/* One attached host h1 with session 5 on link 1, its Attach confirmed. */
void erw_one_host(struct erw *w, const struct er_options *o);

/* Ends the turn; compares, and forgets, what has happened. */
void erw_expect(struct erw *w, const char *trace);
void erw_forget(struct erw *w);
void erw_end_turn(struct erw *w);
/* Takes the effects of a call of the core that a test made itself. */
void erw_apply(struct erw *w);
/* Lets time pass, deadline by deadline. */
void erw_pass(struct erw *w, uint64_t ms);

/* ---- Agents ---- */
void erw_connect(struct erw *w, size_t link, const char *uri);
void erw_disconnect(struct erw *w, size_t link);
/* Connects with the host's certificate, and says hello. */
void erw_attach(struct erw *w, size_t link, const char *host, int64_t session);
/* A message of an agent; what the core makes of it. */
int erw_feed(struct erw *w, size_t link, const Harpoon__Internal__V1__AgentMessage *m);
int erw_hello(struct erw *w, size_t link, const char *host, int64_t session);
int erw_hello_as(struct erw *w, size_t link, const char *region, const char *host, int64_t session, int version);
/* A heartbeat, metrics or a goodbye, with nothing in it. */
int erw_send_empty(struct erw *w, size_t link, int body_case);
int erw_observe(struct erw *w, size_t link, int64_t report_id);
int erw_result(struct erw *w, size_t link, int64_t report_id, const char *uid, int64_t generation);

/* ---- The broker and the scheduler ---- */
void erw_broker(struct erw *w, bool ready);
/* Of the index-th report that is published and has none. */
void erw_outcome(struct erw *w, size_t index, enum er_outcome o);
void erw_confirm_all(struct erw *w);
void erw_route(struct erw *w, const Harpoon__Internal__V1__RouterCommand *m);
void erw_command(struct erw *w, const char *host, int64_t session, const char *uid, int64_t generation,
                 int64_t deadline_ms);
void erw_announce(struct erw *w);

/* ---- Messages as bytes, to be freed; for tests with a world of their own ---- */
uint8_t *erw_pack_hello(const char *region, const char *host, int64_t session, int version, size_t *ret_len);
uint8_t *erw_pack_result(int64_t report_id, const char *uid, int64_t generation, size_t *ret_len);
uint8_t *erw_pack_metrics(size_t *ret_len);
uint8_t *erw_pack_command(const char *host, int64_t session, const char *uid, int64_t generation, int64_t deadline_ms,
                          size_t *ret_len);

#endif
