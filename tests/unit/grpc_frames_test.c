/* Sessions that are fed single frames, as a peer of another make or a hostile one would send them; what they answer is read frame by frame. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <nghttp2/nghttp2.h>

#include "echo.pb-c.h"
#include "grpc/message.h"
#include "grpc/status.h"
#include "lib/grpc_pipe.h"

/* ---- writing frames ---- */

struct out {
    uint8_t data[300000];
    size_t len;
};

static void put(struct out *o, const void *data, size_t len)
{
    assert_true(o->len + len <= sizeof o->data);
    if (len > 0)
        memcpy(o->data + o->len, data, len);
    o->len += len;
}

static void put_frame(struct out *o, int type, int flags, uint32_t stream, const void *data, size_t len)
{
    const uint8_t head[9] = {(uint8_t)(len >> 16),    (uint8_t)(len >> 8),    (uint8_t)len,
                             (uint8_t)type,           (uint8_t)flags,         (uint8_t)(stream >> 24),
                             (uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream};
    put(o, head, sizeof head);
    put(o, data, len);
}

/* A literal field without indexing (RFC 7541, 6.2.2); both texts shorter than 127 bytes. */
static void put_field(struct out *o, const char *name, const char *value)
{
    const uint8_t begin[2] = {0, (uint8_t)strlen(name)}, middle = (uint8_t)strlen(value);
    put(o, begin, 2);
    put(o, name, strlen(name));
    put(o, &middle, 1);
    put(o, value, strlen(value));
}

/* ---- reading frames ---- */

struct seen {
    int headers, resets, goaways, pings;
    uint32_t reset_code;
    bool ended;
    char fields[2048]; /* "name=value;" … of all header blocks */
};

static void read_block(struct seen *s, nghttp2_hd_inflater *inflater, const uint8_t *data, size_t len)
{
    for (;;) {
        nghttp2_nv nv;
        int flags = 0;
        ssize_t n = nghttp2_hd_inflate_hd2(inflater, &nv, &flags, data, len, 1);
        assert_true(n >= 0);
        data += n;
        len -= (size_t)n;
        size_t at = strlen(s->fields);
        if (flags & NGHTTP2_HD_INFLATE_EMIT)
            snprintf(s->fields + at, sizeof s->fields - at, "%.*s=%.*s;", (int)nv.namelen, nv.name, (int)nv.valuelen,
                     nv.value);
        if (flags & NGHTTP2_HD_INFLATE_FINAL)
            break;
    }
    nghttp2_hd_inflate_end_headers(inflater);
}

static void read_frames(struct seen *s, nghttp2_hd_inflater *inflater, const uint8_t *data, size_t len)
{
    while (len >= 9) {
        size_t n = (size_t)data[0] << 16 | (size_t)data[1] << 8 | data[2];
        const uint8_t *body = data + 9;
        assert_true(len >= 9 + n);
        if (data[3] == NGHTTP2_HEADERS) {
            s->headers++;
            read_block(s, inflater, body, n);
            s->ended = data[4] & NGHTTP2_FLAG_END_STREAM;
        } else if (data[3] == NGHTTP2_RST_STREAM) {
            s->resets++;
            s->reset_code = (uint32_t)body[2] << 8 | body[3];
        } else if (data[3] == NGHTTP2_GOAWAY) {
            s->goaways++;
        } else if (data[3] == NGHTTP2_PING && !(data[4] & NGHTTP2_FLAG_ACK)) {
            s->pings++;
        }
        data += 9 + n;
        len -= 9 + n;
    }
}

/* ---- the server ---- */

static struct {
    struct grpc_pipe pipe;
    struct out out;
    struct seen seen;
    nghttp2_hd_inflater *inflater;
    int messages, cancels, starts;
} t;

static void on_message(struct hp_rpc_call *call, const ProtobufCMessage *m)
{
    t.messages++;
}

static void on_start(struct hp_rpc_call *call)
{
    t.starts++;
}

static void on_cancel(struct hp_rpc_call *call)
{
    t.cancels++;
}

static const struct hp_rpc_method unary = {.service = "t",
                                           .name = "Unary",
                                           .request = &harpoon__test__v1__echo_request__descriptor,
                                           .response = &harpoon__test__v1__echo_response__descriptor,
                                           .on_message = on_message,
                                           .on_cancel = on_cancel};
static const struct hp_rpc_method stream = {.service = "t",
                                            .name = "Stream",
                                            .request = &harpoon__test__v1__echo_request__descriptor,
                                            .response = &harpoon__test__v1__echo_response__descriptor,
                                            .client_streaming = true,
                                            .on_start = on_start,
                                            .on_message = on_message,
                                            .on_cancel = on_cancel};
static const struct hp_rpc_method *const methods[] = {&unary, &stream, NULL};

static int setup(void **state)
{
    memset(&t, 0, sizeof t);
    t.pipe.service.methods = methods;
    t.pipe.service.message_max = 100;
    grpc_pipe_open(&t.pipe, false);
    nghttp2_hd_inflate_new(&t.inflater);
    put(&t.out, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    put_frame(&t.out, NGHTTP2_SETTINGS, 0, 0, NULL, 0);
    return 0;
}

static int teardown(void **state)
{
    grpc_pipe_close(&t.pipe);
    nghttp2_hd_inflate_del(t.inflater);
    return 0;
}

/* Hands over what was put, and reads what comes back. */
static int feed(void)
{
    struct hp_error e = {0};
    int rc = t.out.len ? hp_grpc_server_receive(t.pipe.server, t.pipe.now_ms, t.out.data, t.out.len, &e) : 0;
    t.out.len = 0;
    for (;;) {
        const uint8_t *data;
        size_t len;
        if (hp_grpc_server_pull(t.pipe.server, t.pipe.now_ms, &data, &len, &e) || len == 0)
            return rc;
        read_frames(&t.seen, t.inflater, data, len);
    }
}

static int pass(uint64_t ms)
{
    struct hp_error e = {0};
    t.pipe.now_ms += ms;
    int rc = hp_grpc_server_tick(t.pipe.server, t.pipe.now_ms, &e);
    return rc ? rc : feed();
}

struct head {
    const char *method, *path, *type, *te, *name, *value;
    int more; /* fields of no meaning */
};

static void put_request(const struct head *h, int flags)
{
    static struct out block;
    block.len = 0;
    put_field(&block, ":method", h->method ? h->method : "POST");
    put_field(&block, ":scheme", "http");
    put_field(&block, ":path", h->path ? h->path : "/t/Unary");
    put_field(&block, ":authority", "x");
    if (!h->type || h->type[0])
        put_field(&block, "content-type", h->type ? h->type : "application/grpc");
    if (!h->te || h->te[0])
        put_field(&block, "te", h->te ? h->te : "trailers");
    if (h->name)
        put_field(&block, h->name, h->value);
    for (int i = 0; i < h->more; i++)
        put_field(&block, "x", "y");
    put_frame(&t.out, NGHTTP2_HEADERS, flags, 1, block.data, block.len);
}

/* Refusals come at once, before the client has half-closed; the stream is then reset with NO_ERROR and forgotten. */
static void test_refusals(void **state)
{
    static const struct {
        struct head head;
        const char *expected[2];
    } rows[] = {
        {{.path = "/t/Nothing"}, {":status=200;", "grpc-status=12;"}},
        {{.path = "/"}, {":status=200;", "grpc-status=12;"}},
        {{.type = "application/json"}, {":status=415;", "content-length=0;"}},
        {{.type = "application/grpc+json"}, {":status=415;", "content-length=0;"}},
        {{.type = "application/grpcx"}, {":status=415;", "content-length=0;"}},
        {{.type = ""}, {":status=415;", "content-length=0;"}},
        {{.method = "GET"}, {":status=405;", "content-length=0;"}},
        {{.te = ""}, {":status=400;", "grpc-status=13;"}},
        {{.name = "grpc-encoding", .value = "gzip"}, {"grpc-status=12;", "grpc-accept-encoding=identity;"}},
        {{.name = "grpc-timeout", .value = "100"}, {":status=200;", "grpc-status=3;"}},
        {{.name = "grpc-timeout", .value = "123456789m"}, {":status=200;", "grpc-status=3;"}},
        {{.more = HP_GRPC_HEADERS_MAX}, {":status=431;", "grpc-status=8;"}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (i > 0)
            setup(state);
        put_request(&rows[i].head, NGHTTP2_FLAG_END_HEADERS);
        assert_int_equal(feed(), 0);
        for (int n = 0; n < 2; n++)
            if (!strstr(t.seen.fields, rows[i].expected[n]))
                fail_msg("row %zu: no %s in %s", i, rows[i].expected[n], t.seen.fields);
        assert_true(t.seen.ended);
        assert_int_equal(t.seen.headers, 1);
        assert_int_equal(t.seen.resets, 1);
        assert_int_equal(t.seen.reset_code, NGHTTP2_NO_ERROR);
        assert_int_equal(hp_grpc_server_calls(t.pipe.server), 0);
        assert_int_equal(t.messages + t.starts + t.cancels, 0);
        if (i + 1 < sizeof rows / sizeof rows[0])
            teardown(state);
    }
}

static void test_accepted_spellings(void **state)
{
    static const struct head rows[] = {
        {.type = "application/grpc+proto"},
        {.type = "application/grpc; charset=utf-8"},
        {.type = "Application/gRPC"},
        {.te = "Trailers"},
        {.name = "grpc-encoding", .value = "identity"},
        {.name = "grpc-timeout", .value = "99999999H"},
        {.more = HP_GRPC_HEADERS_MAX - 6},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (i > 0)
            setup(state);
        put_request(&rows[i], NGHTTP2_FLAG_END_HEADERS);
        put_frame(&t.out, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, 1, "\0\0\0\0\0", 5);
        assert_int_equal(feed(), 0);
        assert_string_equal(t.seen.fields, "");
        assert_int_equal(t.messages, 1);
        if (i + 1 < sizeof rows / sizeof rows[0])
            teardown(state);
    }
}

static void test_thousands_of_fields_reset_the_stream(void **state)
{
    static struct out block;
    const struct head h = {0};
    block.len = 0;
    put_request(&h, 0);
    for (int part = 0; part < 4; part++) {
        block.len = 0;
        for (int i = 0; i < 1000; i++)
            put_field(&block, "x", "y");
        put_frame(&t.out, NGHTTP2_CONTINUATION, part == 3 ? NGHTTP2_FLAG_END_HEADERS : 0, 1, block.data, block.len);
    }
    assert_int_equal(feed(), 0);
    assert_int_equal(t.seen.resets, 1);
    assert_int_equal(hp_grpc_server_calls(t.pipe.server), 0);
}

/* A length that is too large is refused before a byte of the message has come. */
static void test_announced_size(void **state)
{
    const struct head h = {.path = "/t/Stream"};
    put_request(&h, NGHTTP2_FLAG_END_HEADERS);
    put_frame(&t.out, NGHTTP2_DATA, 0, 1, "\0\0\0\0\x65", 5); /* 101 bytes */
    assert_int_equal(feed(), 0);
    assert_non_null(strstr(t.seen.fields, "grpc-status=8;"));
    assert_non_null(strstr(t.seen.fields, "limit of 100 bytes"));
    assert_int_equal(t.starts, 1);
    assert_int_equal(t.cancels, 1);
}

static void test_bad_messages(void **state)
{
    static const struct {
        const char *data;
        size_t len;
        const char *expected;
    } rows[] = {
        {"", 0, "grpc-status=3;"},                      /* none */
        {"\0\0", 2, "grpc-status=3;"},                  /* half a prefix */
        {"\0\0\0\0\5abc", 8, "grpc-status=3;"},         /* half a body */
        {"\0\0\0\0\0\0\0\0\0\0", 10, "grpc-status=3;"}, /* two */
        {"\1\0\0\0\0", 5, "grpc-status=13;"},           /* compressed */
        {"\0\0\0\0\2\xff\xff", 7, "grpc-status=3;"},    /* not protobuf */
        {"\0\0\0\0\3\x0a\1\xff", 8, "grpc-status=3;"},  /* text: not UTF-8 */
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (i > 0)
            setup(state);
        const struct head h = {0};
        put_request(&h, NGHTTP2_FLAG_END_HEADERS);
        put_frame(&t.out, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, 1, rows[i].data, rows[i].len);
        assert_int_equal(feed(), 0);
        if (!strstr(t.seen.fields, rows[i].expected))
            fail_msg("row %zu: no %s in %s", i, rows[i].expected, t.seen.fields);
        assert_int_equal(t.messages + t.cancels, 0);
        if (i + 1 < sizeof rows / sizeof rows[0])
            teardown(state);
    }
}

/* Header blocks and requests must come to an end. */
static void test_slow_header_block(void **state)
{
    const struct head h = {0};
    put_request(&h, 0);
    assert_int_equal(feed(), 0);
    for (int i = 0; i < 5; i++) { /* dripping on does not help */
        assert_int_equal(pass(5000), 0);
        put_frame(&t.out, NGHTTP2_CONTINUATION, 0, 1, "", 0);
        assert_int_equal(feed(), 0);
    }
    assert_int_equal(pass(4999), 0);
    assert_true(pass(1) < 0);
}

static void test_slow_request(void **state)
{
    const struct head h = {0};
    put_request(&h, NGHTTP2_FLAG_END_HEADERS);
    put_frame(&t.out, NGHTTP2_DATA, 0, 1, "\0\0\0", 3);
    assert_int_equal(feed(), 0);
    assert_int_equal(pass(HP_GRPC_REQUEST_MS - 1), 0);
    assert_string_equal(t.seen.fields, "");
    assert_int_equal(pass(1), 0);
    assert_non_null(strstr(t.seen.fields, "grpc-status=4;"));
    assert_int_equal(t.cancels, 0);
}

/* A streaming request may take its time. */
static void test_slow_stream_is_fine(void **state)
{
    const struct head h = {.path = "/t/Stream"};
    put_request(&h, NGHTTP2_FLAG_END_HEADERS);
    assert_int_equal(feed(), 0);
    assert_int_equal(pass(HP_GRPC_REQUEST_MS + 1), 0);
    assert_string_equal(t.seen.fields, "");
    assert_int_equal(t.starts, 1);
}

/* A ping that is not answered does not matter while other bytes come. */
static void test_any_byte_proves_life(void **state)
{
    assert_int_equal(feed(), 0);
    assert_int_equal(pass(60000), 0);
    assert_int_equal(t.seen.pings, 1);
    put_frame(&t.out, NGHTTP2_WINDOW_UPDATE, 0, 0, "\0\0\0\1", 4);
    assert_int_equal(feed(), 0);
    assert_int_equal(pass(HP_GRPC_PING_MS), 0);
    assert_int_equal(pass(40000), 0);
    assert_int_equal(t.seen.pings, 2);
    assert_int_equal(pass(HP_GRPC_PING_MS), HP_ETIMEDOUT);
}

static void test_rapid_reset(void **state)
{
    assert_int_equal(feed(), 0);
    const struct head h = {.path = "/t/Stream"};
    for (int i = 0; i < 2000 && !hp_grpc_server_finished(t.pipe.server); i++) {
        put_request(&h, NGHTTP2_FLAG_END_HEADERS);
        uint32_t id = 2 * (uint32_t)i + 1;
        const uint8_t bytes[4] = {(uint8_t)(id >> 24), (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id};
        memcpy(t.out.data + 5, bytes, 4); /* the request's stream */
        put_frame(&t.out, NGHTTP2_RST_STREAM, 0, id, "\0\0\0\x8", 4);
        int rc = feed();
        (void)rc;
    }
    assert_true(hp_grpc_server_finished(t.pipe.server));
    assert_true(t.seen.goaways > 0);
    assert_int_equal(t.starts, t.cancels);
}

/* ---- the client ---- */

struct result {
    int messages, finishes, code;
    char message[256];
};

static void got_message(struct hp_client_call *call, const ProtobufCMessage *m, void *user)
{
    ((struct result *)user)->messages++;
}

static void got_finish(struct hp_client_call *call, const Google__Rpc__Status *s, void *user)
{
    struct result *r = user;
    r->finishes++;
    r->code = s->code;
    snprintf(r->message, sizeof r->message, "%s", s->message);
}

static void on_wake(void *user)
{
}

/* One open call, and a server's answer to it: fields are "name=value" up to NULL. */
static void answer_client(struct result *r, struct seen *seen, const char *const *fields, int flags, bool goaway)
{
    static const struct hp_client_call_events events = {.on_message = got_message, .on_finish = got_finish};
    static struct out out, block;
    const struct hp_grpc_client_config config = {.scheme = "http", .authority = "x", .wake_cb = on_wake};
    const struct hp_grpc_call_options o = {.path = "/t/Unary",
                                           .response = &harpoon__test__v1__echo_response__descriptor,
                                           .deadline_ms = UINT64_MAX,
                                           .message_max = 100,
                                           .events = &events,
                                           .user = r,
                                           .wake_cb = on_wake};
    struct hp_grpc_client *s;
    struct hp_client_call *call;
    struct hp_error e = {0};
    const uint8_t *data;
    size_t len;
    memset(r, 0, sizeof *r);
    memset(seen, 0, sizeof *seen);
    out.len = block.len = 0;
    assert_int_equal(hp_grpc_client_new(&config, 1000, &s, &e), 0);
    assert_int_equal(hp_grpc_call_new(&o, &call, &e), 0);
    assert_int_equal(hp_grpc_client_attach(s, 1000, call), 0);
    while (hp_grpc_client_pull(s, 1000, &data, &len, &e) == 0 && len > 0)
        continue;
    put_frame(&out, NGHTTP2_SETTINGS, 0, 0, NULL, 0);
    if (goaway)
        put_frame(&out, NGHTTP2_GOAWAY, 0, 0, "\0\0\0\0\0\0\0\0", 8);
    for (; *fields; fields++) {
        char name[64];
        const char *value = strchr(*fields, '=') + 1;
        snprintf(name, sizeof name, "%.*s", (int)(value - 1 - *fields), *fields);
        put_field(&block, name, value);
    }
    if (block.len > 0)
        put_frame(&out, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS | flags, 1, block.data, block.len);
    assert_int_equal(hp_grpc_client_receive(s, 1000, out.data, out.len, &e), 0);
    nghttp2_hd_inflater *inflater;
    nghttp2_hd_inflate_new(&inflater);
    while (hp_grpc_client_pull(s, 1000, &data, &len, &e) == 0 && len > 0)
        if (data[3] != NGHTTP2_HEADERS)
            read_frames(seen, inflater, data, len);
    nghttp2_hd_inflate_del(inflater);
    assert_int_equal(hp_grpc_client_usable(s), !goaway);
    hp_grpc_client_free(s, HP_CODE_UNAVAILABLE, "the connection was closed");
    assert_int_equal(r->finishes, 1);
}

static void test_client_conclusions(void **state)
{
    static const struct {
        const char *fields[8];
        bool goaway;
        int code;
        const char *message;
    } rows[] = {
        {{":status=200", "content-type=application/grpc", "grpc-status=5", "grpc-message=not%20here"},
         false,
         HP_CODE_NOT_FOUND,
         "not here"},
        {{":status=200", "content-type=application/grpc", "grpc-status=0"}, false, HP_CODE_OK, ""},
        {{":status=200", "content-type=application/grpc", "grpc-status=x"}, false, HP_CODE_UNKNOWN, ""},
        {{":status=200", "content-type=application/grpc", "grpc-status=9", "grpc-status-details-bin=!"},
         false,
         HP_CODE_FAILED_PRECONDITION,
         ""},
        {{":status=503", "content-type=text/html"}, false, HP_CODE_UNAVAILABLE, "HTTP status 503"},
        {{":status=404"}, false, HP_CODE_UNIMPLEMENTED, "HTTP status 404"},
        {{":status=200", "content-type=application/grpc"}, false, HP_CODE_INTERNAL, "without grpc-status"},
        {{NULL}, true, HP_CODE_UNAVAILABLE, "reset"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct result r;
        struct seen seen;
        answer_client(&r, &seen, rows[i].fields, NGHTTP2_FLAG_END_STREAM, rows[i].goaway);
        if (r.code != rows[i].code || !strstr(r.message, rows[i].message))
            fail_msg("row %zu: %d \"%s\"", i, r.code, r.message);
        if (!rows[i].goaway) /* our half is open: nobody will want the rest of it */
            assert_int_equal(seen.resets, 1);
    }
}

static void test_client_waits_for_the_end(void **state)
{
    static const char *const fields[] = {":status=200", "content-type=application/grpc", NULL};
    struct result r;
    struct seen seen;
    answer_client(&r, &seen, fields, 0, false);
    assert_int_equal(seen.resets, 0);
    assert_string_equal(r.message, "the connection was closed");
}

/* ---- the reader ---- */

static void test_reader_in_pieces(void **state)
{
    static const uint8_t input[] = "\0\0\0\0\3abc\2\0\0\0\0\0\0\0\0\1z";
    for (size_t piece = 1; piece <= sizeof input - 1; piece++) {
        struct hp_rpc_budget budget = {.max_bytes = 10000};
        struct hp_message_reader r;
        char log[64] = "";
        hp_message_reader_init(&r, 3, &budget);
        for (size_t at = 0; at < sizeof input - 1; at += piece) {
            const uint8_t *p = input + at;
            size_t left = sizeof input - 1 - at < piece ? sizeof input - 1 - at : piece;
            while (left > 0) {
                struct hp_message m;
                struct hp_error e = {0};
                size_t used;
                int rc = hp_message_read(&r, p, left, &used, &m, &e);
                assert_true(rc >= 0);
                if (rc > 0)
                    snprintf(log + strlen(log), sizeof log - strlen(log), "%d:%.*s ", m.flags, (int)m.len, m.body);
                p += used;
                left -= used;
            }
        }
        assert_string_equal(log, "0:abc 2: 0:z ");
        assert_false(hp_message_reader_partial(&r));
        hp_message_reader_done(&r);
        assert_int_equal(budget.used_bytes, 0);
    }
}

static void test_reader_budget(void **state)
{
    struct hp_rpc_budget budget = {.max_bytes = 1000};
    struct hp_message_reader r;
    struct hp_message m;
    struct hp_error e = {0};
    size_t used;
    static const uint8_t part[600];
    hp_message_reader_init(&r, 100000, &budget);
    assert_int_equal(hp_message_read(&r, (const uint8_t *)"\0\0\0\x80\0", 5, &used, &m, &e), 0);
    assert_int_equal(budget.used_bytes, 0); /* an announcement costs nothing */
    assert_int_equal(hp_message_read(&r, part, sizeof part, &used, &m, &e), 0);
    assert_true(budget.used_bytes >= 600);
    assert_int_equal(hp_message_read(&r, part, sizeof part, &used, &m, &e), HP_ENOMEM);
    hp_message_reader_done(&r);
    assert_int_equal(budget.used_bytes, 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_refusals),
        T(test_accepted_spellings),
        T(test_thousands_of_fields_reset_the_stream),
        T(test_announced_size),
        T(test_bad_messages),
        T(test_slow_header_block),
        T(test_slow_request),
        T(test_slow_stream_is_fine),
        T(test_any_byte_proves_life),
        T(test_rapid_reset),
        cmocka_unit_test(test_client_conclusions),
        cmocka_unit_test(test_client_waits_for_the_end),
        cmocka_unit_test(test_reader_in_pieces),
        cmocka_unit_test(test_reader_budget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
