/* fake_io.h — broker, record and daemon frame made up: what common/io has for them, linked in its place, so that a whole shell can be driven by a fuzz input without a server. */
#ifndef HP_TESTS_FUZZ_FAKE_IO_H
#define HP_TESTS_FUZZ_FAKE_IO_H

#include "io/amqp.h"
#include "io/daemon.h"

/* How the broker takes what is published from now on. */
void fake_outcome(enum hp_publish_outcome outcome);
/* A message for the consumer whose first subscription begins with `queue`; texts may be NULL. */
void fake_deliver(const char *queue, const void *body, size_t len, const char *type, const char *correlation_id);
/* The correlation of what was published last; "" when none. */
const char *fake_correlation(void);
/* Tells publishers, consumers and database jobs what they wait for; true when there was something. */
bool fake_turn(void);
/* What hp_daemon_loop gives; and the address told for `name`. */
uv_loop_t *fake_loop(void);
const char *fake_address(void);

#endif
