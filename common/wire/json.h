/* json.h — protobuf messages to and from JSON by descriptor (proto3 JSON mapping, https://protobuf.dev/programming-guides/json). */
#ifndef HP_WIRE_JSON_H
#define HP_WIRE_JSON_H

#include <jansson.h>
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>

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

/* jansson does not notice every allocation that fails: a text that it reads may lose bytes, a tree that is built may lack members, and what it does notice it calls malformed. So its
 * allocations are watched. After a watch, `failed` is true when one on this thread has failed since: then nothing that was made meanwhile is to be used. */
void hp_json_memory_watch(void);
bool hp_json_memory_failed(void);
/* As json_loadb, and what it gives is what the text says. HP_EINVAL (line, column, cause) or HP_ENOMEM. A watch goes on. */
int hp_json_load(const char *text, size_t len, size_t jansson_flags, json_t **ret, struct hp_error *e) HP_MUST_CHECK;

/* As json_dumps; NULL (HP_ENOMEM) also when memory has failed since the watch began, while the tree was built or now. */
char *hp_json_dump(const json_t *json, size_t jansson_flags);

/* Bytes of one element of a field; 0 for a type that does not exist. */
size_t hp_json_element_size(ProtobufCType type);

#endif
