/* The control socket: lines in, lines out, links by name. */
#include "lib/tcp_proxy.h"

#include <errno.h>
#include <fnmatch.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/tcp_proxy_link.h"

enum { DELAY_MS_MAX = 600000 };

static const char *const mode_names[TP_MODES] = {"pass", "drop", "refuse", "reset", "half-open"};
static const char *const direction_names[] = {"", "up", "down", "both"};

struct control {
    struct tp_proxy *proxy;
    struct control *next, **at;
    uv_pipe_t pipe;
    uv_write_t write;
    char *answer; /* being written */
    size_t have;
    char line[TP_COMMAND_MAX + 1];
};

struct tp_proxy {
    uv_loop_t *loop;
    uv_pipe_t listener;
    struct tp_link *links;
    struct control *controls;
    size_t link_count, control_count, connections;
};

/* ---- commands ---- */

static struct tp_link *find(struct tp_proxy *p, const char *name)
{
    struct tp_link *l = p->links;
    while (l && strcmp(l->name, name) != 0)
        l = l->next;
    return l;
}

static int add(struct tp_proxy *p, json_t *request, json_t *answer, struct hp_error *e)
{
    const char *name = NULL, *listen = NULL, *target = NULL;
    if (json_unpack(request, "{s:s,s:s,s:s}", "link", &name, "listen", &listen, "target", &target))
        return hp_fail(e, HP_EINVAL, "add: needs the texts link, listen and target");
    struct tp_link *l = find(p, name);
    if (l && strcmp(l->target, target) != 0)
        return hp_fail(e, HP_EEXISTS, "link %s exists, and leads to %s", name, l->target);
    if (!l && p->link_count == TP_LINKS_MAX)
        return hp_fail(e, HP_ELIMIT, "more than %d links", TP_LINKS_MAX);
    if (!l) {
        int rc = tp_link_new(p->loop, name, listen, target, &p->connections, &l, e);
        if (rc)
            return rc;
        struct tp_link **end = &p->links;
        while (*end)
            end = &(*end)->next;
        *end = l;
        p->link_count++;
    }
    json_object_set_new(answer, "listen", json_string(l->listen));
    return 0;
}

static int find_word(const char *const *words, int count, const char *what, const char *text, struct hp_error *e)
{
    for (int i = 0; i < count; i++)
        if (*words[i] && strcmp(words[i], text) == 0)
            return i;
    return hp_fail(e, HP_EINVAL, "%s \"%.40s\" is unknown", what, text);
}

static int parse_state(json_t *request, struct tp_state *ret, struct hp_error *e)
{
    const char *mode = "pass", *direction = "both";
    json_int_t delay = 0, rate = 0;
    json_error_t je;
    if (json_unpack_ex(request, &je, JSON_STRICT, "{s:s,s:s,s?s,s?s,s?I,s?I}", "cmd", &(const char *){NULL}, "link",
                       &(const char *){NULL}, "mode", &mode, "direction", &direction, "delay_ms", &delay, "bytes_per_s",
                       &rate))
        return hp_fail(e, HP_EINVAL, "set: %s", je.text);
    int m = find_word(mode_names, TP_MODES, "mode", mode, e);
    int d = m < 0 ? m : find_word(direction_names, 4, "direction", direction, e);
    if (d < 0)
        return d;
    if (delay < 0 || delay > DELAY_MS_MAX || rate < 0)
        return hp_fail(e, HP_EINVAL, "set: delay_ms is 0 to %d, bytes_per_s is not negative", DELAY_MS_MAX);
    *ret = (struct tp_state){
        .mode = (enum tp_mode)m, .directions = (unsigned)d, .delay_ms = (uint64_t)delay, .bytes_per_s = (uint64_t)rate};
    return 0;
}

static json_t *describe(const struct tp_link *l)
{
    const struct tp_counters *n = &l->counters;
    return json_pack("{s:s,s:s,s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "link", l->name, "listen",
                     l->listen, "target", l->target, "mode", mode_names[l->state.mode], "direction",
                     direction_names[l->state.directions], "delay_ms", (json_int_t)l->state.delay_ms, "bytes_per_s",
                     (json_int_t)l->state.bytes_per_s, "open", (json_int_t)l->open, "accepted", (json_int_t)n->accepted,
                     "refused", (json_int_t)n->refused, "failed", (json_int_t)n->failed, "cut", (json_int_t)n->cut,
                     "bytes_up", (json_int_t)n->bytes_up, "bytes_down", (json_int_t)n->bytes_down, "faulted",
                     (json_int_t)n->faulted);
}

/* Everything that takes a pattern. */
static int for_links(struct tp_proxy *p, const char *cmd, json_t *request, json_t *answer, struct hp_error *e)
{
    const char *pattern = strcmp(cmd, "list") == 0 ? "*" : NULL;
    struct tp_state state;
    size_t connections = 0;
    if (json_unpack(request, "{s?s}", "link", &pattern) || !pattern)
        return hp_fail(e, HP_EINVAL, "%s: needs the text link", cmd);
    int rc = strcmp(cmd, "set") == 0 ? parse_state(request, &state, e) : 0;
    if (rc)
        return rc;
    json_t *names = json_array();
    json_object_set_new(answer, "links", names);
    for (struct tp_link **at = &p->links, *l; (l = *at);) {
        bool removed = false;
        if (fnmatch(pattern, l->name, 0) == 0) {
            json_array_append_new(names, strcmp(cmd, "list") == 0 ? describe(l) : json_string(l->name));
            if (strcmp(cmd, "set") == 0)
                tp_link_set(l, &state);
            else if (strcmp(cmd, "cut") == 0)
                connections += tp_link_cut(l);
            else if (strcmp(cmd, "remove") == 0) {
                removed = true;
                *at = l->next;
                p->link_count--;
                tp_link_close(l);
            }
        }
        if (!removed)
            at = &l->next;
    }
    if (strcmp(cmd, "cut") == 0)
        json_object_set_new(answer, "connections", json_integer((json_int_t)connections));
    if (!json_array_size(names) && strcmp(cmd, "list") != 0)
        return hp_fail(e, HP_ENOTFOUND, "no link matches %s", pattern);
    return 0;
}

static int command(struct tp_proxy *p, const char *line, size_t len, json_t *answer, struct hp_error *e)
{
    json_error_t je;
    const char *cmd = NULL;
    json_t *request = json_loadb(line, len, JSON_REJECT_DUPLICATES, &je);
    int rc;
    if (!request)
        rc = hp_fail(e, HP_EINVAL, "not JSON: %s", je.text);
    else if (json_unpack(request, "{s:s}", "cmd", &cmd))
        rc = hp_fail(e, HP_EINVAL, "needs the text cmd");
    else if (strcmp(cmd, "add") == 0)
        rc = add(p, request, answer, e);
    else if (strcmp(cmd, "set") == 0 || strcmp(cmd, "cut") == 0 || strcmp(cmd, "list") == 0 ||
             strcmp(cmd, "remove") == 0)
        rc = for_links(p, cmd, request, answer, e);
    else
        rc = hp_fail(e, HP_EINVAL, "cmd \"%.40s\" is unknown", cmd);
    json_decref(request);
    return rc;
}

/* ---- connections of the control socket ---- */

static void serve(struct control *c);

static void on_control_closed(uv_handle_t *h)
{
    struct control *c = h->data;
    *c->at = c->next;
    if (c->next)
        c->next->at = c->at;
    c->proxy->control_count--;
    free(c->answer);
    free(c);
}

static void control_close(struct control *c)
{
    if (!uv_is_closing((uv_handle_t *)&c->pipe))
        uv_close((uv_handle_t *)&c->pipe, on_control_closed);
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
    struct control *c = h->data;
    *buf = uv_buf_init(c->line + c->have, (unsigned)(TP_COMMAND_MAX - c->have));
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
    struct control *c = s->data;
    if (n < 0) {
        control_close(c);
        return;
    }
    c->have += (size_t)n;
    serve(c);
}

static void on_written(uv_write_t *w, int status)
{
    struct control *c = w->data;
    free(c->answer);
    c->answer = NULL;
    if (status)
        control_close(c);
    else
        serve(c);
}

static void answer_line(struct control *c, const char *line, size_t len)
{
    struct hp_error e = {0};
    json_t *answer = json_object();
    json_object_set_new(answer, "ok", json_true());
    if (command(c->proxy, line, len, answer, &e)) {
        json_decref(answer);
        answer = json_pack("{s:b,s:s}", "ok", 0, "error", e.message);
    }
    char *text = json_dumps(answer, JSON_COMPACT);
    json_decref(answer);
    size_t n = text ? strlen(text) : 0;
    if (!text || !(c->answer = malloc(n + 1))) {
        free(text);
        control_close(c);
        return;
    }
    memcpy(c->answer, text, n);
    c->answer[n] = '\n';
    free(text);
    uv_buf_t b = uv_buf_init(c->answer, (unsigned)n + 1);
    if (uv_write(&c->write, (uv_stream_t *)&c->pipe, &b, 1, on_written))
        control_close(c);
}

/* The first whole line, if there is one; the next when its answer is written. Nothing is read meanwhile. */
static void serve(struct control *c)
{
    char *end = memchr(c->line, '\n', c->have);
    if (uv_is_closing((uv_handle_t *)&c->pipe))
        return;
    if (!end && c->have == TP_COMMAND_MAX) {
        control_close(c);
        return;
    }
    if (!end) {
        uv_read_start((uv_stream_t *)&c->pipe, on_alloc, on_read);
        return;
    }
    uv_read_stop((uv_stream_t *)&c->pipe);
    answer_line(c, c->line, (size_t)(end - c->line));
    c->have -= (size_t)(end + 1 - c->line);
    memmove(c->line, end + 1, c->have);
}

static void on_control(uv_stream_t *listener, int status)
{
    struct tp_proxy *p = listener->data;
    struct control *c = status ? NULL : calloc(1, sizeof *c);
    if (!c)
        return;
    c->proxy = p;
    uv_pipe_init(p->loop, &c->pipe, 0);
    c->pipe.data = c->write.data = c;
    c->next = p->controls;
    c->at = &p->controls;
    if (c->next)
        c->next->at = &c->next;
    p->controls = c;
    p->control_count++;
    if (uv_accept(listener, (uv_stream_t *)&c->pipe) || p->control_count > TP_CONTROLS_MAX)
        control_close(c);
    else
        serve(c);
}

/* ---- life ---- */

int tp_proxy_new(uv_loop_t *loop, const char *control, struct tp_proxy **ret, struct hp_error *e)
{
    struct tp_proxy *p = calloc(1, sizeof *p);
    if (!p)
        return hp_fail(e, HP_ENOMEM, "proxy");
    p->loop = loop;
    uv_pipe_init(loop, &p->listener, 0);
    p->listener.data = p;
    unlink(control);
    int rc = uv_pipe_bind(&p->listener, control);
    if (!rc && chmod(control, 0600))
        rc = -errno;
    if (!rc)
        rc = uv_listen((uv_stream_t *)&p->listener, TP_CONTROLS_MAX, on_control);
    if (rc) {
        hp_fail(e, HP_EUNAVAILABLE, "control socket %s: %s", control, uv_strerror(rc));
        tp_proxy_close(p);
        return HP_EUNAVAILABLE;
    }
    *ret = p;
    return 0;
}

static void on_listener_closed(uv_handle_t *h)
{
    free(h->data); /* closed last: see tp_proxy_close */
}

/* The listener's callback must come after those that use the proxy: controls and connections are closing before it is, and libuv calls back in any order; so it is closed
 * in a later turn. */
static void on_last_turn(uv_timer_t *t)
{
    struct tp_proxy *p = t->data;
    if (p->controls || p->connections)
        return;
    uv_close((uv_handle_t *)t, (uv_close_cb)free);
    uv_close((uv_handle_t *)&p->listener, on_listener_closed);
}

void tp_proxy_close(struct tp_proxy *p)
{
    uv_timer_t *t = calloc(1, sizeof *t);
    if (!t)
        abort();
    for (struct tp_link *l; (l = p->links);) {
        p->links = l->next;
        tp_link_close(l);
    }
    for (struct control *c = p->controls; c; c = c->next)
        control_close(c);
    uv_timer_init(p->loop, t);
    t->data = p;
    uv_timer_start(t, on_last_turn, 0, 1);
}
