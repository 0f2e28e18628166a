/* later.c — linked into a daemon, makes it speak as a later version would: the messages that daemons exchange, record and journal carry a field that today's version does not know, and
 * so do some enums and the type of an event; the agent link is offered in two versions; heartbeats become messages of an unknown kind. What clients sign with a digest stays as it is: a
 * later version, too, packs a field that nobody has set not at all. HARPOON_LATER=only: no version of the link that today's router speaks. */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <protobuf-c/protobuf-c.h>

enum { MESSAGE_MAX = 2048, UNKNOWN_MAX = 16, TAG = 1900 };

struct copy {
    union {
        ProtobufCMessage base;
        uint8_t bytes[MESSAGE_MAX];
        uint64_t aligned;
    };
    ProtobufCMessageUnknownField unknown[UNKNOWN_MAX];
};

static const char *const names[] = {
    "harpoon.internal.v1.AgentHello",
    "harpoon.internal.v1.AgentMessage",
    "harpoon.internal.v1.Command",
    "harpoon.internal.v1.CommandResult",
    "harpoon.internal.v1.ContainerRecord",
    "harpoon.internal.v1.HostSample",
    "harpoon.internal.v1.InventoryItem",
    "harpoon.internal.v1.MetricsBatch",
    "harpoon.internal.v1.Observation",
    "harpoon.internal.v1.OperationRecord",
    "harpoon.internal.v1.Report",
    "harpoon.internal.v1.Request",
    "harpoon.internal.v1.RouterCommand",
    "harpoon.internal.v1.RouterMessage",
    "harpoon.internal.v1.Verdict",
    "harpoon.internal.v1.Welcome",
    "harpoon.v1.ContainerStatus",
    "harpoon.v1.Event",
    "harpoon.v1.Host",
    "harpoon.v1.Operation",
};

static void *field(struct copy *c, const char *name)
{
    const ProtobufCFieldDescriptor *f = protobuf_c_message_descriptor_get_field_by_name(c->base.descriptor, name);
    return f ? c->bytes + f->offset : NULL;
}

static void set_int(struct copy *c, const char *name, int32_t value)
{
    int32_t *at = field(c, name);
    if (at)
        *at = value;
}

static void change(struct copy *c)
{
    const char *name = c->base.descriptor->name;
    const char *mode = getenv("HARPOON_LATER");
    if (!strcmp(name, "harpoon.internal.v1.AgentHello")) {
        set_int(c, "version_max", 2);
        if (mode && !strcmp(mode, "only"))
            set_int(c, "version_min", 2);
    }
    if (!strcmp(name, "harpoon.v1.ContainerStatus"))
        set_int(c, "health", 77);
    if (!strcmp(name, "harpoon.v1.Event")) {
        char **type = field(c, "type");
        set_int(c, "severity", 9);
        if (type && !strcmp(*type, "harpoon.host.attached"))
            *type = (char *)"harpoon.host.attached_in_a_later_way";
    }
    if (strstr(name, ".AgentMessage") || strstr(name, ".RouterMessage")) {
        const ProtobufCFieldDescriptor *f =
            protobuf_c_message_descriptor_get_field_by_name(c->base.descriptor, "heartbeat");
        uint32_t *body_case = f ? (uint32_t *)(void *)(c->bytes + f->quantifier_offset) : NULL;
        if (body_case && *body_case == f->id)
            *body_case = 0;
    }
}

/* The message as a later version would have it: in `c`, or itself. */
static const ProtobufCMessage *later(const ProtobufCMessage *m, struct copy *c)
{
    static uint8_t data[] = {3, 'n', 'e', 'w'};
    bool wanted = false;
    for (size_t i = 0; i < sizeof names / sizeof *names && !wanted; i++)
        wanted = !strcmp(m->descriptor->name, names[i]);
    if (!wanted || m->descriptor->sizeof_message > MESSAGE_MAX || m->n_unknown_fields >= UNKNOWN_MAX)
        return m;
    memcpy(c->bytes, m, m->descriptor->sizeof_message);
    change(c);
    for (unsigned i = 0; i < m->n_unknown_fields; i++) {
        if (m->unknown_fields[i].tag == TAG)
            return &c->base; /* it came from a record that has it */
        c->unknown[i] = m->unknown_fields[i];
    }
    c->unknown[m->n_unknown_fields] =
        (ProtobufCMessageUnknownField){TAG, PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED, sizeof data, data};
    c->base.unknown_fields = c->unknown;
    c->base.n_unknown_fields = m->n_unknown_fields + 1;
    return &c->base;
}

/* The short way (--wrap): never taken. */
size_t __wrap_hp_plain_pack(const ProtobufCMessage *m, uint8_t *buf, size_t size);
size_t __wrap_hp_plain_pack(const ProtobufCMessage *m, uint8_t *buf, size_t size)
{
    return SIZE_MAX;
}

size_t protobuf_c_message_get_packed_size(const ProtobufCMessage *m)
{
    static size_t (*real)(const ProtobufCMessage *);
    struct copy c;
    if (!real)
        real = (size_t(*)(const ProtobufCMessage *))dlsym(RTLD_NEXT, "protobuf_c_message_get_packed_size");
    return real(later(m, &c));
}

size_t protobuf_c_message_pack(const ProtobufCMessage *m, uint8_t *out)
{
    static size_t (*real)(const ProtobufCMessage *, uint8_t *);
    struct copy c;
    if (!real)
        real = (size_t(*)(const ProtobufCMessage *, uint8_t *))dlsym(RTLD_NEXT, "protobuf_c_message_pack");
    return real(later(m, &c), out);
}
