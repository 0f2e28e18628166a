/* json_common.h — what the two directions of the JSON codec share; private to common/wire. */
#ifndef HP_WIRE_JSON_COMMON_H
#define HP_WIRE_JSON_COMMON_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

#include "wire/json.h"

enum { HP_JSON_NAME_MAX = 128 };

/* How a message type is mapped. */
enum hp_json_kind { HP_JSON_PLAIN, HP_JSON_TIMESTAMP, HP_JSON_DURATION, HP_JSON_ANY };
enum hp_json_kind hp_json_kind_of(const ProtobufCMessageDescriptor *d);

/* "cpu_millis" to "cpuMillis"; the result is at most as long. */
void hp_json_camel(char out[HP_JSON_NAME_MAX], const char *snake);

/* True when `f` of message `d` is a map: repeated, of a nested message "<FieldName>Entry" with key = 1 and value = 2. */
bool hp_json_is_map(const ProtobufCMessageDescriptor *d, const ProtobufCFieldDescriptor *f);

/* The type behind "type.googleapis.com/<name>"; NULL when unknown. */
const ProtobufCMessageDescriptor *hp_json_any_type(const char *type_url);

static inline void *hp_json_member(const ProtobufCMessage *m, unsigned offset)
{
    return (char *)(uintptr_t)m + offset;
}

#endif
