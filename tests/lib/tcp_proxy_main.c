/* tcp-proxy: the program. See tcp_proxy.h. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "lib/tcp_proxy.h"

static const char usage[] =
    "tcp-proxy --control SOCKET [--ready-file FILE]\n"
    "A TCP proxy for tests; links and their faults come over the control socket: tests/lib/tcp_proxy.h\n";

static const struct option options[] = {
    {"control", 1, NULL, 'c'}, {"ready-file", 1, NULL, 'r'}, {"help", 0, NULL, 'h'}, {NULL, 0, NULL, 0}};

static void stop(uv_signal_t *s, int number)
{
    tp_proxy_close(s->data);
    uv_close((uv_handle_t *)s, NULL);
}

int main(int argc, char **argv)
{
    const char *control = NULL, *ready = NULL;
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (o == 'c')
            control = optarg;
        else if (o == 'r')
            ready = optarg;
        else {
            fputs(usage, o == 'h' ? stdout : stderr);
            return o == 'h' ? 0 : 2;
        }
    }
    struct rlimit files;
    if (!getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max;
        (void)!setrlimit(RLIMIT_NOFILE, &files);
    }
    signal(SIGPIPE, SIG_IGN);
    struct tp_proxy *p;
    struct hp_error e = {0};
    uv_loop_t *loop = uv_default_loop();
    if (!control || tp_proxy_new(loop, control, &p, &e)) {
        fprintf(stderr, "tcp-proxy: %s\n", control ? e.message : usage);
        return control ? 1 : 2;
    }
    uv_signal_t term;
    uv_signal_init(loop, &term);
    term.data = p;
    uv_signal_start(&term, stop, SIGTERM);
    FILE *f = ready ? fopen(ready, "we") : NULL;
    if (ready && (!f || fprintf(f, "{\"pid\":%d}\n", (int)getpid()) < 0 || fclose(f))) {
        perror(ready);
        return 1;
    }
    uv_run(loop, UV_RUN_DEFAULT);
    return uv_loop_close(loop) ? 1 : 0;
}
