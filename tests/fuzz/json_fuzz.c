/* JSON from strangers: what is read prints, and what is printed reads. */
#include <stdlib.h>
#include <string.h>

#include "echo.pb-c.h"
#include "fuzz.h"
#include "harpoon/v1/container_service.pb-c.h"
#include "wire/json.h"

static const ProtobufCMessageDescriptor *const types[] = {
    &harpoon__test__v1__echo_request__descriptor,
    &harpoon__v1__create_container_request__descriptor,
    &harpoon__v1__list_containers_response__descriptor,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len < 1)
        return 0;
    const ProtobufCMessageDescriptor *d = types[data[0] % 3];
    struct hp_error e = {0};
    ProtobufCMessage *m, *again;
    if (hp_json_parse_message((const char *)data + 1, len - 1, d, &m, &e))
        return 0;
    char *text = hp_json_print_message(m, JSON_COMPACT, &e);
    if (!text || hp_json_parse_message(text, strlen(text), d, &again, &e))
        abort();
    protobuf_c_message_free_unpacked(again, NULL);
    free(text);
    protobuf_c_message_free_unpacked(m, NULL);
    return 0;
}
