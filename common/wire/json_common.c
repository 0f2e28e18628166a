#include "wire/json_common.h"

#include <string.h>

#include "google/protobuf/any.pb-c.h"
#include "google/protobuf/duration.pb-c.h"
#include "google/protobuf/timestamp.pb-c.h"
#include "google/rpc/error_details.pb-c.h"

enum hp_json_kind hp_json_kind_of(const ProtobufCMessageDescriptor *d)
{
    if (d == &google__protobuf__timestamp__descriptor)
        return HP_JSON_TIMESTAMP;
    if (d == &google__protobuf__duration__descriptor)
        return HP_JSON_DURATION;
    return d == &google__protobuf__any__descriptor ? HP_JSON_ANY : HP_JSON_PLAIN;
}

void hp_json_camel(char out[HP_JSON_NAME_MAX], const char *snake)
{
    size_t n = 0;
    bool upper = false;
    for (; *snake && n + 1 < HP_JSON_NAME_MAX; snake++) {
        if (*snake == '_') {
            upper = true;
            continue;
        }
        out[n++] = (char)(upper && *snake >= 'a' && *snake <= 'z' ? *snake - 'a' + 'A' : *snake);
        upper = false;
    }
    out[n] = '\0';
}

bool hp_json_is_map(const ProtobufCMessageDescriptor *d, const ProtobufCFieldDescriptor *f)
{
    if (f->type != PROTOBUF_C_TYPE_MESSAGE || f->label != PROTOBUF_C_LABEL_REPEATED)
        return false;
    const ProtobufCMessageDescriptor *entry = f->descriptor;
    size_t outer = strlen(d->name);
    if (strncmp(entry->name, d->name, outer) != 0 || entry->name[outer] != '.')
        return false;
    char wanted[HP_JSON_NAME_MAX];
    hp_json_camel(wanted, f->name);
    if (wanted[0] >= 'a' && wanted[0] <= 'z')
        wanted[0] = (char)(wanted[0] - 'a' + 'A');
    const char *name = entry->name + outer + 1;
    size_t len = strlen(wanted);
    return strncmp(name, wanted, len) == 0 && strcmp(name + len, "Entry") == 0 && entry->n_fields == 2 &&
           entry->fields[0].id == 1 && strcmp(entry->fields[0].name, "key") == 0 && entry->fields[1].id == 2 &&
           strcmp(entry->fields[1].name, "value") == 0;
}

const ProtobufCMessageDescriptor *hp_json_any_type(const char *type_url)
{
    static const ProtobufCMessageDescriptor *const known[] = {
        &google__rpc__error_info__descriptor,    &google__rpc__retry_info__descriptor,
        &google__rpc__quota_failure__descriptor, &google__rpc__precondition_failure__descriptor,
        &google__rpc__bad_request__descriptor,   &google__rpc__resource_info__descriptor,
        &google__protobuf__duration__descriptor, &google__protobuf__timestamp__descriptor,
    };
    const char *slash = strrchr(type_url, '/');
    const char *name = slash ? slash + 1 : type_url;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(known[i]->name, name) == 0)
            return known[i];
    return NULL;
}

size_t hp_json_element_size(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_ENUM:
        return 4;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    }
    return 0;
}
