/* echo_service.h — the service of echo.proto on a loop: answers, answers late, fails, floods, and never answers, as each request asks. */
#ifndef HP_TESTS_ECHO_SERVICE_H
#define HP_TESTS_ECHO_SERVICE_H

#include <uv.h>

#include "grpc/rpc.h"

struct echo_service {
    uv_loop_t *loop;
    int calls;   /* under way */
    int cancels; /* calls that ended by on_cancel */
    struct hp_rpc_service rpc;
};
/* The token "secret" is asked for when `with_token`. */
void echo_service_init(struct echo_service *s, uv_loop_t *loop, bool with_token);

#endif
