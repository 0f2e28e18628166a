/* json.h — protobuf messages to and from JSON by descriptor (proto3 JSON mapping, https://protobuf.dev/programming-guides/json). */
#ifndef HP_WIRE_JSON_H
#define HP_WIRE_JSON_H

#include <jansson.h>
#include <protobuf-c/protobuf-c.h>

#include "base/error.h"

enum { HP_JSON_DEPTH_MAX = 32 };

/* A new reference; NULL with *e when out of memory or a string is not UTF-8. Field names in lowerCamelCase; int64 as strings; bytes as base64; enums by name; default values left
 * out; Timestamp and Duration as strings; Any with "@type" when its type is known (google.rpc details), else with base64 "value"; maps as objects. */
json_t *hp_json_from_message(const ProtobufCMessage *m, struct hp_error *e);

/* A heap message, freed with protobuf_c_message_free_unpacked(m, NULL). lowerCamelCase and snake_case names are read; unknown fields, wrong types, numbers out of
 * range and bad base64 are HP_EINVAL with the path of the field ("container.spec.resources.cpuMillis"). */
int hp_json_to_message(const json_t *json, const ProtobufCMessageDescriptor *d, ProtobufCMessage **ret,
                       struct hp_error *e) HP_MUST_CHECK;

/* Text forms. `len` bytes of JSON in (duplicate keys refused); heap text out, freed by the caller. */
int hp_json_parse_message(const char *text, size_t len, const ProtobufCMessageDescriptor *d, ProtobufCMessage **ret,
                          struct hp_error *e) HP_MUST_CHECK;
char *hp_json_print_message(const ProtobufCMessage *m, size_t jansson_flags, struct hp_error *e);

#endif
