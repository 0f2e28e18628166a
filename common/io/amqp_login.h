/* amqp_login.h — where the broker is, who we are, and what we answer to connection.start and connection.tune. No I/O. */
#ifndef HP_IO_AMQP_LOGIN_H
#define HP_IO_AMQP_LOGIN_H

#include "io/amqp.h"
#include "io/amqp_wire.h"

enum { HP_AMQP_NODES_MAX = 16 };

/* Where one node of the broker's cluster is. */
struct hp_amqp_node {
    char *host;    /* also the name that the node's certificate must have */
    char *address; /* "host:port", "[v6]:port" */
};

struct hp_amqp_login {
    struct hp_amqp_node nodes[HP_AMQP_NODES_MAX];
    size_t node_count, node; /* node: the one in use */
    char *user, *password, *vhost;
    char *name;         /* of the connection */
    bool tls, external; /* external: the certificate says who we are */
    int heartbeat_s;
    uint64_t connect_ms, rpc_ms;
    amqp_table_entry_t capabilities[8]; /* what start-ok points to */
    amqp_table_entry_t properties[8];
    uint8_t *response; /* SASL PLAIN */
};

/* HP_EINVAL for a URL that cannot be used, and for several that differ in more than host and port; HP_ELIMIT for more than HP_AMQP_NODES_MAX. */
int hp_amqp_login_init(struct hp_amqp_login *l, const struct hp_amqp_options *o, struct hp_error *e) HP_MUST_CHECK;
void hp_amqp_login_done(struct hp_amqp_login *l);
/* The node in use. */
const struct hp_amqp_node *hp_amqp_login_node(const struct hp_amqp_login *l);
/* On to the next node, round and round. */
void hp_amqp_login_turn(struct hp_amqp_login *l);
/* *ok points into *l. HP_EUNSUPPORTED when the broker does not offer our way to log in. */
int hp_amqp_login_start(struct hp_amqp_login *l, const amqp_connection_start_t *start, amqp_connection_start_ok_t *ok,
                        struct hp_error *e) HP_MUST_CHECK;
int hp_amqp_login_tune(const struct hp_amqp_login *l, const amqp_connection_tune_t *tune, uint16_t channels,
                       amqp_connection_tune_ok_t *ok, struct hp_error *e) HP_MUST_CHECK;

#endif
