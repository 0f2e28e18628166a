/* grpc_echo.h — a client and a server session joined in memory (grpc_pipe.h), with an echo service that answers at once, or keeps the call for the test. */
#ifndef HP_TESTS_GRPC_ECHO_H
#define HP_TESTS_GRPC_ECHO_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "echo.pb-c.h"
#include "grpc/status.h"
#include "lib/grpc_pipe.h"

/* What the service has seen since the setup. */
struct echo_server {
    struct hp_rpc_call *kept; /* of the last request with `hang` */
    int cancels, writables, messages, half_closes;
    uint64_t deadline_ms;
    char texts[256];
};
extern struct echo_server server;
extern struct grpc_pipe pipe_;

/* What a call has brought. Static in each test: calls that go on are ended by the teardown, which still reports to it. */
struct result {
    int messages, finishes, writables;
    int code;
    char text[256], message[256], reason[64];
    size_t data_len;
    int32_t count;
    bool cancel_at_first;
};

/* cmocka's: without a pipe yet, so that a test may set limits; and with it open. */
int setup(void **state);
int setup_open(void **state);
int teardown(void **state);
#define T(name) cmocka_unit_test_setup_teardown(name, setup_open, teardown)
#define T_OWN(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* A call of one of the service's methods: Echo, Collect, Repeat, Chat. timeout_ms 0: none. */
struct hp_client_call *start(const char *method, uint64_t timeout_ms, struct result *r);
int send_text(struct hp_client_call *call, const char *text);
/* A whole call of Echo. */
void unary(const Harpoon__Test__V1__EchoRequest *q, struct result *r);
/* A call that the server keeps. */
struct hp_client_call *hanging(const char *method, uint64_t timeout_ms, struct result *r);

#endif
