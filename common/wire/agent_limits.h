/* agent_limits.h — what of an agent is taken beyond well-formed protobuf: the router holds each message against it, and the agent its journal, so that it never says what would be refused. */
#ifndef HP_WIRE_AGENT_LIMITS_H
#define HP_WIRE_AGENT_LIMITS_H

#include "base/error.h"
#include "harpoon/internal/v1/agent.pb-c.h"

enum {
    HP_GENERATION_MAX = 1 << 30, /* what a host may claim to know: every change raises it by one */
    HP_AGENT_ID_MAX = 63,        /* bytes of a uid, an operation id, a kind */
    HP_AGENT_NAME_MAX = 255,     /* bytes of a container's or host's full name */
    HP_AGENT_SHORT_MAX = 128,    /* bytes of an address or a digest */
    HP_AGENT_TEXT_MAX = 1024,    /* bytes of a text for people */
    HP_AGENT_LIST_MAX = 16,      /* addresses, overloaded resources, details of an error */
    HP_AGENT_IMAGES_MAX = 256,   /* digests that a host tells */
    HP_INVENTORY_ITEMS_MAX = 1000,
};

/* A text from the journal or of a message: UTF-8 of at most `max` bytes. NULL passes. HP_EINVAL names field, value and limit. */
int hp_agent_text_check(const char *field, const char *text, size_t max, struct hp_error *e) HP_MUST_CHECK;
int hp_agent_generation_check(const char *field, int64_t generation, struct hp_error *e) HP_MUST_CHECK;
/* Of an attached agent: everything but the hello. HP_EINVAL names field, value and limit. */
int hp_agent_message_check(const Harpoon__Internal__V1__AgentMessage *m, struct hp_error *e) HP_MUST_CHECK;

#endif
