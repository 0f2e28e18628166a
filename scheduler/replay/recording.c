#include "replay/recording.h"

#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "wire/json.h"

static int add(struct sc_recording *x, struct sc_recorded item, struct hp_error *e)
{
    if (x->count == SC_RECORDING_MAX)
        return hp_fail(e, HP_ELIMIT, "more than %d lines", SC_RECORDING_MAX);
    if (x->count == x->room) {
        size_t room = x->room ? 2 * x->room : 64;
        struct sc_recorded *items = realloc(x->items, room * sizeof *items);
        if (!items)
            return hp_fail(e, HP_ENOMEM, "%s", hp_strerror(HP_ENOMEM));
        x->items = items;
        x->room = room;
    }
    x->items[x->count++] = item;
    return 0;
}

static int take_object(struct sc_recording *x, const json_t *object, struct hp_error *e)
{
    struct sc_recorded item = {0};
    ProtobufCMessage *m = NULL;
    const ProtobufCMessageDescriptor *d = json_object_get(object, "sequence")      ? &harpoon__v1__event__descriptor
                                          : json_object_get(object, "spec")        ? &harpoon__v1__container__descriptor
                                          : json_object_get(object, "allocatable") ? &harpoon__v1__host__descriptor
                                                                                   : NULL;
    if (!d)
        return hp_fail(e, HP_EINVAL, "is neither a host, nor a container, nor an event");
    int code = hp_json_to_message(object, d, &m, e);
    if (code)
        return code;
    if (d == &harpoon__v1__event__descriptor)
        item.event = (Harpoon__V1__Event *)(void *)m;
    else if (d == &harpoon__v1__container__descriptor)
        item.container = (Harpoon__V1__Container *)(void *)m;
    else
        item.host = (Harpoon__V1__Host *)(void *)m;
    code = add(x, item, e);
    if (code)
        protobuf_c_message_free_unpacked(m, NULL);
    return code;
}

static int take_line(struct sc_recording *x, const char *line, size_t len, struct hp_error *e)
{
    json_t *object = NULL;
    if (len > SC_RECORDING_LINE_MAX)
        return hp_fail(e, HP_EINVAL, "is longer than %d bytes", SC_RECORDING_LINE_MAX);
    int code = hp_json_load(line, len, JSON_REJECT_DUPLICATES, &object, e);
    if (!code)
        code = take_object(x, object, e);
    json_decref(object);
    return code;
}

int sc_recording_read(FILE *f, struct sc_recording *ret, struct hp_error *e)
{
    char *line = NULL;
    size_t room = 0, number = 0;
    ssize_t len;
    int code = 0;
    *ret = (struct sc_recording){0};
    while (!code && (len = getline(&line, &room, f)) >= 0) {
        number++;
        if (len && line[len - 1] == '\n')
            len--;
        if (len && take_line(ret, line, (size_t)len, e))
            code = hp_wrap(e, "line %zu", number);
    }
    free(line);
    if (!code && ferror(f))
        return hp_fail(e, HP_EIO, "reading after line %zu", number);
    return code;
}

void sc_recording_done(struct sc_recording *x)
{
    for (size_t i = 0; i < x->count; i++) {
        struct sc_recorded *r = &x->items[i];
        if (r->host)
            harpoon__v1__host__free_unpacked(r->host, NULL);
        if (r->container)
            harpoon__v1__container__free_unpacked(r->container, NULL);
        if (r->event)
            harpoon__v1__event__free_unpacked(r->event, NULL);
    }
    free(x->items);
}
