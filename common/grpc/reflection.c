#include "grpc/reflection.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "grpc/reflection/v1/reflection.pb-c.h"

typedef Grpc__Reflection__V1__ServerReflectionRequest Request;
typedef Grpc__Reflection__V1__ServerReflectionResponse Response;

enum { FILES_MAX = 128 /* in one answer; the table has fewer */ };

static const struct hp_reflection_file *find_file(const struct hp_reflection_data *d, const char *name)
{
    for (size_t i = 0; i < d->file_count; i++)
        if (strcmp(d->files[i].name, name) == 0)
            return &d->files[i];
    return NULL;
}

static int compare_symbol(const void *key, const void *entry)
{
    return strcmp(key, ((const struct hp_reflection_symbol *)entry)->name);
}

static const struct hp_reflection_symbol *find_symbol(const struct hp_reflection_data *d, const char *name)
{
    return bsearch(name, d->symbols, d->symbol_count, sizeof d->symbols[0], compare_symbol);
}

static void send_answer(struct hp_rpc_call *call, const Request *q, Response *r)
{
    r->valid_host = q->host;
    r->original_request = (Request *)q;
    int rc = hp_rpc_send(call, &r->base);
    if (rc && rc != HP_EAGAIN) /* EAGAIN: the transport holds further requests back by itself */
        hp_rpc_finish(call, hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY", "no room for the answer"));
}

static void send_error(struct hp_rpc_call *call, const Request *q, int code, const char *message)
{
    Grpc__Reflection__V1__ErrorResponse error = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;
    error.error_code = code;
    error.error_message = (char *)message;
    Response r = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    r.message_response_case = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
    r.error_response = &error;
    send_answer(call, q, &r);
}

/* The file, then all that it imports, each once. */
static void send_file(struct hp_rpc_call *call, const Request *q, const struct hp_reflection_data *d,
                      const struct hp_reflection_file *file)
{
    if (!file) {
        send_error(call, q, HP_CODE_NOT_FOUND, "not found");
        return;
    }
    unsigned short order[FILES_MAX];
    ProtobufCBinaryData data[FILES_MAX];
    bool seen[FILES_MAX] = {false};
    size_t count = 0;
    assert(d->file_count <= FILES_MAX);
    order[count++] = (unsigned short)(file - d->files);
    seen[order[0]] = true;
    for (size_t i = 0; i < count; i++) {
        const struct hp_reflection_file *f = &d->files[order[i]];
        data[i] = (ProtobufCBinaryData){.len = f->len, .data = (uint8_t *)f->data};
        for (size_t n = 0; n < f->need_count; n++) {
            if (!seen[f->needs[n]]) {
                seen[f->needs[n]] = true;
                order[count++] = f->needs[n];
            }
        }
    }
    Grpc__Reflection__V1__FileDescriptorResponse files = GRPC__REFLECTION__V1__FILE_DESCRIPTOR_RESPONSE__INIT;
    files.n_file_descriptor_proto = count;
    files.file_descriptor_proto = data;
    Response r = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    r.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
    r.file_descriptor_response = &files;
    send_answer(call, q, &r);
}

static void send_services(struct hp_rpc_call *call, const Request *q, const struct hp_rpc_table *t)
{
    Grpc__Reflection__V1__ServiceResponse *services = calloc(t->count, sizeof *services);
    Grpc__Reflection__V1__ServiceResponse **list = calloc(t->count, sizeof *list);
    Grpc__Reflection__V1__ListServiceResponse all = GRPC__REFLECTION__V1__LIST_SERVICE_RESPONSE__INIT;
    for (size_t i = 0; services && list && i < t->count; i++) {
        const char *name = t->entries[i].method->service;
        if (i > 0 && strcmp(name, t->entries[i - 1].method->service) == 0)
            continue; /* the table is sorted by path */
        grpc__reflection__v1__service_response__init(&services[all.n_service]);
        services[all.n_service].name = (char *)name;
        list[all.n_service] = &services[all.n_service];
        all.n_service++;
    }
    all.service = list;
    Response r = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    r.message_response_case = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
    r.list_services_response = &all;
    if (services && list)
        send_answer(call, q, &r);
    else
        send_error(call, q, HP_CODE_RESOURCE_EXHAUSTED, "out of memory");
    free(services);
    free(list);
}

/* There are no extensions (proto3): known types have none, others are not found. */
static void send_extensions(struct hp_rpc_call *call, const Request *q, const struct hp_reflection_data *d,
                            const char *type)
{
    if (!find_symbol(d, type)) {
        send_error(call, q, HP_CODE_NOT_FOUND, "not found");
        return;
    }
    Grpc__Reflection__V1__ExtensionNumberResponse none = GRPC__REFLECTION__V1__EXTENSION_NUMBER_RESPONSE__INIT;
    none.base_type_name = (char *)type;
    Response r = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    r.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ALL_EXTENSION_NUMBERS_RESPONSE;
    r.all_extension_numbers_response = &none;
    send_answer(call, q, &r);
}

static void on_request(struct hp_rpc_call *call, const ProtobufCMessage *m)
{
    const struct hp_rpc_reflection *reflection = hp_rpc_context(call);
    const struct hp_reflection_data *d = reflection->data;
    const Request *q = (const Request *)m;
    switch (q->message_request_case) {
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
        send_file(call, q, d, find_file(d, q->file_by_filename));
        return;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL: {
        const struct hp_reflection_symbol *s = find_symbol(d, q->file_containing_symbol);
        send_file(call, q, d, s ? &d->files[s->file] : NULL);
        return;
    }
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION:
        send_error(call, q, HP_CODE_NOT_FOUND, "not found");
        return;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_ALL_EXTENSION_NUMBERS_OF_TYPE:
        send_extensions(call, q, d, q->all_extension_numbers_of_type);
        return;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
        send_services(call, q, reflection->table);
        return;
    default:
        send_error(call, q, HP_CODE_INVALID_ARGUMENT, "message_request is not set");
        return;
    }
}

static void on_half_close(struct hp_rpc_call *call)
{
    hp_rpc_finish(call, NULL);
}

static const struct hp_rpc_method v1_method = {
    .service = "grpc.reflection.v1.ServerReflection",
    .name = "ServerReflectionInfo",
    .request = &grpc__reflection__v1__server_reflection_request__descriptor,
    .response = &grpc__reflection__v1__server_reflection_response__descriptor,
    .client_streaming = true,
    .server_streaming = true,
    .on_message = on_request,
    .on_half_close = on_half_close,
    .anonymous = true,
};
/* The same messages, field by field, under their older name. */
static const struct hp_rpc_method v1alpha_method = {
    .service = "grpc.reflection.v1alpha.ServerReflection",
    .name = "ServerReflectionInfo",
    .request = &grpc__reflection__v1__server_reflection_request__descriptor,
    .response = &grpc__reflection__v1__server_reflection_response__descriptor,
    .client_streaming = true,
    .server_streaming = true,
    .on_message = on_request,
    .on_half_close = on_half_close,
    .anonymous = true,
};
const struct hp_rpc_method *const hp_rpc_reflection_methods[] = {&v1_method, &v1alpha_method, NULL};
