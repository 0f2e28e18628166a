/* Protobuf from strangers: what is accepted is within its limits, and is what protobuf-c makes of it; it packs to the bytes that protobuf-c writes, which are accepted again. */
#include <stdlib.h>
#include <string.h>

#include "echo.pb-c.h"
#include "fuzz.h"
#include "harpoon/v1/container_service.pb-c.h"
#include "wire/codec.h"

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
    const struct hp_unpack_limits limits = {.bytes_max = 1 << 16, .memory_max = 1 << 20};
    struct hp_error e = {0};
    ProtobufCMessage *m, *again;
    if (hp_unpack(d, data + 1, len - 1, &limits, &m, &e))
        return 0;
    uint8_t *packed, *theirs;
    size_t n;
    ProtobufCMessage *other = protobuf_c_message_unpack(d, NULL, len - 1, data + 1);
    if (!other || hp_pack(m, &packed, &n, &e) || protobuf_c_message_get_packed_size(other) != n ||
        !(theirs = malloc(n + 1)) || protobuf_c_message_pack(other, theirs) != n || memcmp(packed, theirs, n) != 0 ||
        hp_unpack(d, packed, n, NULL, &again, &e))
        abort();
    free(theirs);
    protobuf_c_message_free_unpacked(other, NULL);
    hp_unpacked_free(again);
    free(packed);
    hp_unpacked_free(m);
    return 0;
}
