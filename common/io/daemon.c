/*
 * The frame of a daemon's main.
 *
 * Happy path: options → configuration → logs → loop, signals, metrics endpoint → spec.start → (hp_daemon_ready) → the loop runs → a signal → spec.stop →
 * hp_daemon_stopped → the loop ends, what is still open is closed → exit 0.
 * Failures: a bad option or configuration exits 2 before anything is started; a failed start, or hp_daemon_fail, exits 1; a second signal exits at once.
 */
#include "io/daemon.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "io/metrics.h"
#include "io/notify.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, SETS_MAX = 64, LAST_TURNS_MAX = 1000 };

struct common_config {
    char *log_level, *log_format, *metrics_listen;
};

static const struct hp_config_key common_keys[] = {
    {"log", "level", HP_CONFIG_STRING, offsetof(struct common_config, log_level), "info", false, 0, 0,
     "what is logged: debug, info, warn or error"},
    {"log", "format", HP_CONFIG_STRING, offsetof(struct common_config, log_format), "logfmt", false, 0, 0,
     "form of a line: logfmt or json"},
    {"metrics", "listen", HP_CONFIG_ADDRESS, offsetof(struct common_config, metrics_listen), "", false, 0, 0,
     "address:port of the Prometheus endpoint; empty: none"},
    {0},
};
enum { COMMON_KEYS = sizeof common_keys / sizeof *common_keys - 1 };

struct options {
    const char *file, *ready_file;
    const char *sets[SETS_MAX + 1];
    size_t set_count;
    bool check_only;
};

struct hp_daemon {
    const struct hp_daemon_spec *spec;
    struct options options;
    struct hp_config_key *keys; /* the daemon's and the common ones */
    void *config;               /* the daemon's structure, then struct common_config */
    struct common_config *common;
    uv_loop_t loop;
    uv_signal_t on_term, on_int;
    uv_timer_t stop_soon, watchdog;
    struct hp_metrics_server *metrics;
    json_t *ready; /* what the ready file will hold */
    void *state;   /* the daemon's, from start */
    bool ready_written, stopping, stopped;
    bool unheard; /* systemd could not be told something */
    int exit_code;
};

/* ---- Options ---- */

static void print_help(const struct hp_daemon_spec *spec)
{
    printf("%s: %s\n\n"
           "Usage: %s [--config FILE] [--set SECTION.KEY=VALUE]...\n\n"
           "  --config FILE              configuration; then FILE.d/*.conf in name order\n"
           "  --set SECTION.KEY=VALUE    overrides the files; may be repeated\n"
           "  --check-config             reads and checks the configuration, and ends\n"
           "  --help-config              prints all keys with their defaults, and ends\n"
           "  --ready-file FILE          written when the daemon is ready: JSON with pid and addresses\n"
           "  --version                  prints the version, and ends\n"
           "  --help                     prints this text, and ends\n",
           spec->program, spec->summary, spec->program);
}

static int print_config_help(const struct hp_config_key *keys)
{
    char *text = hp_config_help(keys);
    if (!text)
        return EXIT_FAILED;
    fputs(text, stdout);
    free(text);
    return EXIT_OK;
}

/* -1: go on; otherwise the exit code. */
static int parse_options(const struct hp_daemon_spec *spec, const struct hp_config_key *keys, int argc, char **argv,
                         struct options *o)
{
    enum { CONFIG = 1, SET, CHECK, HELP_CONFIG, READY_FILE, VERSION, HELP };
    static const struct option table[] = {
        {"config", required_argument, NULL, CONFIG},
        {"set", required_argument, NULL, SET},
        {"check-config", no_argument, NULL, CHECK},
        {"help-config", no_argument, NULL, HELP_CONFIG},
        {"ready-file", required_argument, NULL, READY_FILE},
        {"version", no_argument, NULL, VERSION},
        {"help", no_argument, NULL, HELP},
        {0},
    };
    int c;
    optind = 0; /* main may be called again by tests */
    while ((c = getopt_long(argc, argv, "", table, NULL)) != -1) {
        switch (c) {
        case CONFIG:
            o->file = optarg;
            break;
        case SET:
            if (o->set_count == SETS_MAX) {
                fprintf(stderr, "%s: more than %d --set\n", spec->program, SETS_MAX);
                return EXIT_USAGE;
            }
            o->sets[o->set_count++] = optarg;
            break;
        case CHECK:
            o->check_only = true;
            break;
        case READY_FILE:
            o->ready_file = optarg;
            break;
        case HELP_CONFIG:
            return print_config_help(keys);
        case VERSION:
            printf("%s %s\n", spec->program, HP_VERSION);
            return EXIT_OK;
        case HELP:
            print_help(spec);
            return EXIT_OK;
        default:
            fprintf(stderr, "Try '%s --help'.\n", spec->program);
            return EXIT_USAGE;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "%s: unexpected argument \"%s\"\n", spec->program, argv[optind]);
        return EXIT_USAGE;
    }
    return -1;
}

/* ---- Configuration ---- */

static int make_keys(struct hp_daemon *d)
{
    const struct hp_daemon_spec *spec = d->spec;
    size_t own = 0, common_at = (spec->config_size + 15) / 16 * 16;
    while (spec->keys && spec->keys[own].section)
        own++;
    d->keys = calloc(own + COMMON_KEYS + 1, sizeof *d->keys);
    d->config = calloc(1, common_at + sizeof *d->common);
    if (!d->keys || !d->config)
        return HP_ENOMEM;
    d->common = (struct common_config *)((char *)d->config + common_at);
    for (size_t i = 0; i < own; i++)
        d->keys[i] = spec->keys[i];
    for (size_t i = 0; i < COMMON_KEYS; i++) {
        d->keys[own + i] = common_keys[i];
        d->keys[own + i].offset += common_at;
    }
    return 0;
}

static int log_settings(const struct common_config *c, enum hp_log_level *level, enum hp_log_format *format,
                        struct hp_error *e)
{
    static const char *const levels[] = {"debug", "info", "warn", "error"}, *const formats[] = {"logfmt", "json"};
    for (int i = 0; i < 4; i++)
        if (strcmp(c->log_level, levels[i]) == 0)
            *level = (enum hp_log_level)i;
    if (*level == (enum hp_log_level) - 1)
        return hp_fail(e, HP_EINVAL, "level in [log]: \"%s\" is none of debug, info, warn, error", c->log_level);
    for (int i = 0; i < 2; i++)
        if (strcmp(c->log_format, formats[i]) == 0)
            *format = (enum hp_log_format)i;
    if (*format == (enum hp_log_format) - 1)
        return hp_fail(e, HP_EINVAL, "format in [log]: \"%s\" is neither logfmt nor json", c->log_format);
    return 0;
}

static int load(struct hp_daemon *d, struct hp_error *e)
{
    enum hp_log_level level = (enum hp_log_level) - 1;
    enum hp_log_format format = (enum hp_log_format) - 1;
    int rc = hp_config_load(d->keys, d->options.file, d->options.sets, d->config, e);
    if (!rc)
        rc = log_settings(d->common, &level, &format, e);
    if (!rc && d->spec->check)
        rc = d->spec->check(d->config, e);
    if (!rc)
        hp_log_init(d->spec->program, level, format);
    return rc;
}

/* ---- Readiness ---- */

/* The work goes on when nobody hears: systemd draws its own conclusion from silence. */
static void tell_systemd(struct hp_daemon *d, const char *state)
{
    struct hp_error e = {0};
    if (hp_notify(state, &e) && !d->unheard) {
        hp_warn("systemd cannot be told, which is said once", HP_S("state", state), HP_S("error", e.message));
        d->unheard = true;
    }
}

/* Whole or not at all: a reader never sees half a file, and a crash leaves none of an earlier life behind. */
static int write_ready_file(const char *file, const json_t *content, struct hp_error *e)
{
    char temporary[4096];
    if (snprintf(temporary, sizeof temporary, "%s.%ld.tmp", file, (long)getpid()) >= (int)sizeof temporary)
        return hp_fail(e, HP_EINVAL, "ready file name of %zu bytes is too long", strlen(file));
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return hp_fail_errno(e, HP_EIO, errno, "ready file %s", temporary);
    int bad = json_dumpfd(content, fd, JSON_COMPACT) || write(fd, "\n", 1) != 1 ? EIO : 0;
    if (close(fd) && !bad)
        bad = errno;
    if (!bad && rename(temporary, file))
        bad = errno;
    if (bad)
        unlink(temporary);
    return bad ? hp_fail_errno(e, HP_EIO, bad, "ready file %s", file) : 0;
}

void hp_daemon_address(struct hp_daemon *d, const char *name, const char *address)
{
    assert(!d->ready_written);
    json_object_set_new(d->ready, name, json_string(address));
}

void hp_daemon_ready(struct hp_daemon *d)
{
    struct hp_error e = {0};
    if (d->ready_written || d->stopping)
        return;
    if (d->options.ready_file && write_ready_file(d->options.ready_file, d->ready, &e)) {
        hp_daemon_fail(d, &e);
        return;
    }
    d->ready_written = true;
    tell_systemd(d, "READY=1");
    hp_info("ready", HP_S("version", HP_VERSION), HP_I("pid", getpid()));
}

static void feed_watchdog(uv_timer_t *t)
{
    struct hp_daemon *d = t->data;
    if (d->stopping || !d->spec->alive || d->spec->alive(d, d->state))
        tell_systemd(d, "WATCHDOG=1");
}

static void start_watchdog(struct hp_daemon *d)
{
    uint64_t usec = 0;
    if (hp_notify_watchdog(&usec) && usec >= 4000) {
        uv_timer_start(&d->watchdog, feed_watchdog, 0, usec / 4000);
        uv_unref((uv_handle_t *)&d->watchdog);
    }
}

/* ---- The end ---- */

static void begin_stop(struct hp_daemon *d)
{
    if (d->stopping)
        return;
    d->stopping = true;
    tell_systemd(d, "STOPPING=1");
    if (d->options.ready_file && d->ready_written)
        unlink(d->options.ready_file);
    if (d->spec->stop)
        d->spec->stop(d, d->state);
    else
        hp_daemon_stopped(d);
}

static void on_signal(uv_signal_t *handle, int signum)
{
    struct hp_daemon *d = handle->data;
    if (d->stopping) {
        hp_warn("second signal: leaving at once", HP_I("signal", signum));
        _exit(EXIT_FAILED);
    }
    hp_info("stopping", HP_I("signal", signum));
    begin_stop(d);
}

static void stop_now(uv_timer_t *t)
{
    begin_stop(t->data);
}

void hp_daemon_fail(struct hp_daemon *d, const struct hp_error *e)
{
    hp_err("cannot go on", HP_S("error", e->message));
    d->exit_code = EXIT_FAILED;
    if (!d->stopping) /* not from inside the caller */
        uv_timer_start(&d->stop_soon, stop_now, 0, 0);
}

void hp_daemon_stopped(struct hp_daemon *d)
{
    d->stopped = true;
    uv_stop(&d->loop);
}

uv_loop_t *hp_daemon_loop(struct hp_daemon *d)
{
    return &d->loop;
}

/* ---- Main ---- */

/* A connection is a descriptor: take as many as the hard limit allows. */
static void raise_descriptor_limit(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max;
        setrlimit(RLIMIT_NOFILE, &r);
    }
}

static void open_frame(struct hp_daemon *d)
{
    uv_loop_init(&d->loop);
    uv_timer_init(&d->loop, &d->stop_soon);
    uv_timer_init(&d->loop, &d->watchdog);
    uv_signal_init(&d->loop, &d->on_term);
    uv_signal_init(&d->loop, &d->on_int);
    d->watchdog.data = d->stop_soon.data = d->on_term.data = d->on_int.data = d;
    uv_signal_start(&d->on_term, on_signal, SIGTERM);
    uv_signal_start(&d->on_int, on_signal, SIGINT);
}

static int start(struct hp_daemon *d, struct hp_error *e)
{
    d->ready = json_pack("{s:i}", "pid", (int)getpid());
    if (!d->ready)
        return hp_fail(e, HP_ENOMEM, "out of memory");
    if (d->options.ready_file && unlink(d->options.ready_file) && errno != ENOENT)
        return hp_fail_errno(e, HP_EIO, errno, "ready file %s", d->options.ready_file);
    if (*d->common->metrics_listen) {
        int rc = hp_metrics_serve(&d->loop, d->common->metrics_listen, &d->metrics, e);
        if (rc)
            return rc;
        hp_daemon_address(d, "metrics", hp_metrics_server_address(d->metrics));
    }
    start_watchdog(d);
    return d->spec->start(d, d->config, &d->state, e);
}

static void name_open_handle(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (!uv_is_closing(handle))
        hp_debug("left open at the end", HP_S("handle", uv_handle_type_name(handle->type)));
}

static void close_frame(struct hp_daemon *d)
{
    hp_metrics_server_close(d->metrics);
    uv_close((uv_handle_t *)&d->on_term, NULL);
    uv_close((uv_handle_t *)&d->on_int, NULL);
    uv_close((uv_handle_t *)&d->stop_soon, NULL);
    uv_close((uv_handle_t *)&d->watchdog, NULL);
    for (int i = 0; i < LAST_TURNS_MAX && uv_loop_close(&d->loop) == UV_EBUSY; i++)
        if (!uv_run(&d->loop, UV_RUN_NOWAIT))
            break;
    if (uv_loop_close(&d->loop) == UV_EBUSY)
        uv_walk(&d->loop, name_open_handle, NULL);
    json_decref(d->ready);
}

static int run(struct hp_daemon *d)
{
    struct hp_error e = {0};
    raise_descriptor_limit();
    signal(SIGPIPE, SIG_IGN);
    open_frame(d);
    if (start(d, &e)) {
        hp_err("cannot start", HP_S("error", e.message));
        d->exit_code = EXIT_FAILED;
    } else if (!d->stopped) {
        uv_run(&d->loop, UV_RUN_DEFAULT);
        hp_info("ended", HP_I("exit_code", d->exit_code));
    }
    close_frame(d);
    return d->exit_code;
}

int hp_daemon_main(const struct hp_daemon_spec *spec, int argc, char **argv)
{
    struct hp_daemon d = {.spec = spec};
    struct hp_error e = {0};
    int code = EXIT_FAILED;
    if (make_keys(&d)) {
        fprintf(stderr, "%s: out of memory\n", spec->program);
    } else {
        code = parse_options(spec, d.keys, argc, argv, &d.options);
        if (code < 0 && load(&d, &e)) {
            fprintf(stderr, "%s: %s\n", spec->program, e.message);
            code = EXIT_USAGE;
        }
        if (code < 0 && d.options.check_only) {
            puts("configuration is valid");
            code = EXIT_OK;
        }
        if (code < 0)
            code = run(&d);
        hp_config_free(d.keys, d.config);
    }
    free(d.keys);
    free(d.config);
    return code;
}
