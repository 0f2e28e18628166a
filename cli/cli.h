/* cli.h — what the commands of `harpoon` share: settings, calls that block, output, exit codes. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <jansson.h>
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <uv.h>

#include "base/error.h"
#include "google/rpc/status.pb-c.h"
#include "harpoon/v1/container_service.pb-c.h"
#include "harpoon/v1/operation.pb-c.h"
#include "io/rpc_client.h"

/* Documented in `harpoon help exit-codes`; scripts depend on them. */
enum cli_exit {
    CLI_OK = 0,
    CLI_INTERNAL = 1,
    CLI_USAGE = 2,
    CLI_NOT_FOUND = 3,
    CLI_CONFLICT = 4,    /* exists, aborted by etag, request_id conflict */
    CLI_INVALID = 5,     /* invalid argument, failed precondition, out of range */
    CLI_UNAVAILABLE = 6, /* unavailable, deadline exceeded */
    CLI_DENIED = 7,
    CLI_EXHAUSTED = 8,
    CLI_OPERATION_FAILED = 9, /* accepted, and ended other than SUCCEEDED */
    CLI_INTERRUPTED = 130,
};

enum cli_format { CLI_TABLE, CLI_WIDE, CLI_JSON, CLI_JSONL };

/* Settings: options, else the environment. Strings are borrowed. */
struct cli {
    uv_loop_t loop;
    struct hp_rpc_client *client; /* made by the first call */
    const char *endpoint, *ca, *cert, *key, *token, *project, *region, *amqp_url;
    const char *mysql_socket, *mysql_database;
    enum cli_format format;
    uint64_t timeout_ms; /* of one call, retries included */
    bool interactive;    /* standard error is a terminal: progress is shown */
    volatile bool interrupted;
    uv_signal_t sigint;
    const char *resume_hint;                         /* printed on Ctrl-C */
    void (*on_interrupt)(struct cli *c, void *user); /* ends a stream */
    void *on_interrupt_user;
};

/* ---- Options of a command: a table that ends with {0}. ---- */
enum cli_option_kind { CLI_FLAG, CLI_STRING, CLI_REPEATED };
enum { CLI_REPEAT_MAX = 128, CLI_ARGS_MAX = 64 };
struct cli_list {
    const char *items[CLI_REPEAT_MAX];
    int count;
};
struct cli_option {
    const char *name; /* without dashes */
    char letter;      /* 0 none */
    enum cli_option_kind kind;
    void *target; /* bool *, const char **, struct cli_list * */
    const char *value_name, *help;
};
struct cli_args {
    const char *items[CLI_ARGS_MAX];
    int count;
};
/* Reads options of the table and the global ones, in any order; "--" ends options. HP_EINVAL names what is wrong. */
int cli_parse(struct cli *c, const struct cli_option *table, int argc, char **argv, struct cli_args *ret,
              struct hp_error *e) HP_MUST_CHECK;
void cli_print_options(FILE *f, const struct cli_option *table);
void cli_print_global_options(FILE *f);

/* "0.5", "500m", "2" → thousandths of a core. */
int cli_parse_cpu(const char *text, int64_t *ret, struct hp_error *e) HP_MUST_CHECK;
/* "64Mi", "1.5G", "1024" → bytes; Ki Mi Gi Ti are powers of 1024, k M G T of 1000. */
int cli_parse_bytes(const char *text, int64_t *ret, struct hp_error *e) HP_MUST_CHECK;
/* "90s", "5m", "2h", "1d", "250ms" → milliseconds. */
int cli_parse_duration(const char *text, int64_t *ret_ms, struct hp_error *e) HP_MUST_CHECK;
int cli_parse_int(const char *text, int64_t min, int64_t max, int64_t *ret, struct hp_error *e) HP_MUST_CHECK;

/* Zeroed memory, and a copy of a text, that live until the program ends: requests are built of them. Never NULL. */
void *cli_keep(size_t size);
char *cli_keep_text(const char *text, size_t len);
void cli_keep_free(void);

/* ---- Calls ---- */

/* Runs the loop until the call has ended. On success returns CLI_OK and *ret (free with protobuf_c_message_free_unpacked); else prints the error and returns the exit
 * code. UNAVAILABLE is tried again within the timeout when `retry`: only for reads and for changes that carry a request_id. */
int cli_call(struct cli *c, const char *path, const ProtobufCMessage *request,
             const ProtobufCMessageDescriptor *response, bool retry, ProtobufCMessage **ret);
/* A server stream: message_cb for each message, false ends it in order. Returns CLI_OK when the stream ended in order or by message_cb; otherwise the exit code, and *ret_status (may be NULL; free with
 * google__rpc__status__free_unpacked) — nothing is printed then. */
int cli_stream(struct cli *c, const char *path, const ProtobufCMessage *request,
               const ProtobufCMessageDescriptor *response, bool (*message_cb)(const ProtobufCMessage *m, void *user),
               void *user, Google__Rpc__Status **ret_status);
/* Waits on the loop, or until Ctrl-C. */
void cli_sleep(struct cli *c, uint64_t ms);
int cli_print_status(const Google__Rpc__Status *s);
int cli_exit_of_code(int code);
/* Prints "harpoon: message" and returns the exit code. */
int cli_usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int cli_error(int exit_code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int cli_connect(struct cli *c);

/* ---- Names ---- */
/* "web" → projects/P/regions/R/containers/web by settings; full names pass. Exit code. */
int cli_container_name(struct cli *c, const char *text, char out[256]);
int cli_host_name(struct cli *c, const char *text, char out[256]);
int cli_operation_name(struct cli *c, const char *text, char out[256]);
/* projects/P/regions/R; unset ones become "-" when wildcards are allowed. */
int cli_parent_name(struct cli *c, bool wildcards, char out[256]);
int cli_region_parent(struct cli *c, bool wildcards, char out[256]);
void cli_new_request_id(char out[37]);

/* ---- Output ---- */
enum { CLI_COLUMNS_MAX = 20 };
struct cli_table;                                            /* rows are gathered, then printed with widths that fit */
struct cli_table *cli_table_new(const char *const *headers); /* NULL-terminated; NULL when out of memory */
/* As many strings as headers; copied. */
void cli_table_row(struct cli_table *t, const char *const *cells);
void cli_table_print(struct cli_table *t, FILE *f);
void cli_table_free(struct cli_table *t);
/* JSON to standard output: indented for -o json, one line for jsonl. Exit code. */
int cli_print_json(struct cli *c, const ProtobufCMessage *m);
/* As text for people: one field a line, what is not set left out. */
void cli_describe(FILE *f, const ProtobufCMessage *m);
/* For -o json of a list: adds a page's array, by its JSON name, to *doc (NULL before the first page), so that all pages are one document {"containers": […]}. Exit code. */
int cli_add_page(json_t **doc, const char *array, const ProtobufCMessage *page);
/* Prints it to standard output and frees it; NULL is nothing. */
int cli_print_document(json_t *doc);
void cli_format_bytes(char out[32], int64_t bytes);
void cli_format_cpu(char out[32], int64_t millis);
void cli_format_age(char out[32], const Google__Protobuf__Timestamp *t);
void cli_format_time(char out[40], const Google__Protobuf__Timestamp *t);
/* "harpoon.v1.ContainerState" value 3 → "RUNNING": the name without its type's prefix. */
const char *cli_enum_name(const ProtobufCEnumDescriptor *d, int value);
const char *cli_last_segment(const char *name);

/* ---- Operations ---- */
bool cli_stage_ended(Harpoon__V1__Stage s);
/* Follows an operation to its end (timeout_ms 0: for ever). Prints progress when interactive; prints the failure. Exit code. *ret may be NULL. */
int cli_wait_operation(struct cli *c, const char *name, uint64_t timeout_ms, Harpoon__V1__Operation **ret);
/* What all changes do: prints request_id and operation name at once, calls, waits when asked, prints the result. `project` "" for hosts. */
struct cli_change {
    const char *path;
    const ProtobufCMessage *request;
    const char *project, *region, *request_id;
    bool wait, validate_only;
    uint64_t wait_ms;
};
int cli_change(struct cli *c, const struct cli_change *ch);

/* ---- Commands: argv[0] is the command's own name. Each returns an exit code. ---- */
struct cli_command {
    const char *name, *usage, *summary;
    int (*run)(struct cli *c, int argc, char **argv);
    const char *group;
};
int cli_cmd_get(struct cli *c, int argc, char **argv);
int cli_cmd_describe(struct cli *c, int argc, char **argv);
int cli_cmd_create(struct cli *c, int argc, char **argv);
int cli_cmd_update(struct cli *c, int argc, char **argv);
int cli_cmd_resize(struct cli *c, int argc, char **argv);
int cli_cmd_reserve(struct cli *c, int argc, char **argv);
int cli_cmd_rebalance(struct cli *c, int argc, char **argv);
int cli_cmd_move(struct cli *c, int argc, char **argv);
int cli_cmd_lifecycle(struct cli *c, int argc, char **argv); /* start, stop, restart, delete */
int cli_cmd_hosts(struct cli *c, int argc, char **argv);
int cli_cmd_ops(struct cli *c, int argc, char **argv);
int cli_cmd_events(struct cli *c, int argc, char **argv);
int cli_cmd_explain(struct cli *c, int argc, char **argv);
int cli_cmd_dead(struct cli *c, int argc, char **argv);
int cli_cmd_admin(struct cli *c, int argc, char **argv);

/* Lists used by get and by the commands' own list verbs. */
int cli_list_containers(struct cli *c);
int cli_list_hosts(struct cli *c);
int cli_list_operations(struct cli *c, const char *target, bool active_only, int limit);
/* Asks the scheduler to rank the hosts for a create, and prints the ranking. Exit code. */
int cli_print_explain(struct cli *c, Harpoon__V1__CreateContainerRequest *create);
/* Reads a whole file ("-": standard input) of at most 1 MiB as JSON of the given type. Exit code. */
int cli_read_message(const char *file, const ProtobufCMessageDescriptor *d, ProtobufCMessage **ret);

#endif
