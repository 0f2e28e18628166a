/* oci-runtime-log --log FILE --host NAME -- RUNTIME ARGUMENT… — an OCI runtime that writes down every call before and after it makes it: what was really done to containers, whatever the
 * agent says. RUNTIME: a path, crun, runc, or auto (the first of them that there is). The form of the lines is in tests/lib/truth.py. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct call {
    const char *host, *root, *verb, *id;
    char name[64]; /* of the call */
    int log;
};

static volatile pid_t child;

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "oci-runtime-log: %s: %s\n", what, strerror(errno));
    exit(125);
}

static json_int_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (json_int_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Whole lines by one write each, so that calls side by side do not mix. `line` is taken. */
static void append(const struct call *c, json_t *line)
{
    char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
    size_t n = text ? strlen(text) : 0;
    if (!text)
        die("a line cannot be made");
    text[n] = '\n';
    if (write(c->log, text, n + 1) != (ssize_t)n + 1)
        die("the log cannot be written");
    free(text);
    json_decref(line);
}

/* ---- what the call is ---- */

static bool takes_value(const char *option)
{
    static const char *const names[] = {
        "--root",         "--log",     "--log-format", "--log-level", "--criu",
        "--rootless",     "--bundle",  "-b",           "--pid-file",  "--console-socket",
        "--preserve-fds", "--process", "-p",           "--user",      "-u",
        "--cwd",          "--env",     "-e",           "--resources", "-r",
        "--config",       "-f",        "--cap"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(option, names[i]) == 0)
            return true;
    return false;
}

/* The verb is the first word that is no option, the id the second: so for create, start, kill, delete, state, update, exec. */
static void parse(struct call *c, char **argv)
{
    for (char **a = argv; *a && !c->id; a++) {
        if (**a == '-') {
            if (strcmp(*a, "--root") == 0 && a[1])
                c->root = a[1];
            a += takes_value(*a) && a[1];
        } else if (!c->verb) {
            c->verb = *a;
        } else {
            c->id = *a;
        }
    }
}

static const char *find_runtime(const char *wanted)
{
    static char path[256];
    static const char *const names[] = {"crun", "runc"}, *const dirs[] = {"/usr/bin", "/usr/sbin", "/usr/local/bin",
                                                                          "/usr/local/sbin"};
    for (size_t n = 0; n < 2 && *wanted != '/'; n++)
        for (size_t d = 0; (strcmp(wanted, "auto") == 0 || strcmp(wanted, names[n]) == 0) && d < 4; d++) {
            snprintf(path, sizeof path, "%s/%s", dirs[d], names[n]);
            if (access(path, X_OK) == 0)
                return path;
        }
    return wanted;
}

/* ---- the container's first process ---- */

static json_int_t pid_in(const char *root, const char *id, const char *file, const char *key)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s/%s", root, id, file);
    json_t *state = json_load_file(path, 0, NULL);
    json_int_t pid = json_integer_value(json_object_get(state, key));
    json_decref(state);
    return pid;
}

/* From the state that the runtime keeps; 0: unknown. */
static json_int_t container_pid(const struct call *c)
{
    if (!c->root || !c->id)
        return 0;
    json_int_t pid = pid_in(c->root, c->id, "status", "pid"); /* crun */
    return pid ? pid : pid_in(c->root, c->id, "state.json", "init_process_pid");
}

/* Field 22 of /proc/PID/stat; 0 when there is no such process. */
static json_int_t start_ticks(json_int_t pid)
{
    char path[64], text[1024];
    unsigned long long ticks = 0;
    snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f)
        fclose(f);
    text[n] = '\0';
    const char *after = strrchr(text, ')');
    if (!after || sscanf(after, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
                         &ticks) != 1)
        return 0;
    return (json_int_t)ticks;
}

/* ---- the call ---- */

static void pass_on(int number)
{
    if (child > 0)
        kill(child, number);
}

/* The runtime dies with this program, as it would if it had been called itself. */
static int run(char **argv)
{
    static const int passed[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};
    for (size_t i = 0; i < sizeof passed / sizeof *passed; i++)
        signal(passed[i], pass_on);
    child = fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        for (size_t i = 0; i < sizeof passed / sizeof *passed; i++)
            signal(passed[i], SIG_DFL);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execv(argv[0], argv);
        die(argv[0]);
    }
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            die("waitpid");
    return status;
}

static void begin(struct call *c, char **argv)
{
    json_t *words = json_array();
    json_int_t t = now_ns();
    snprintf(c->name, sizeof c->name, "%d-%lld", (int)getpid(), (long long)t);
    for (; *argv; argv++)
        json_array_append_new(words, json_string(*argv));
    append(c, json_pack("{s:I,s:s,s:s,s:s,s:s,s:s,s:i,s:o}", "t", t, "op", "begin", "call", c->name, "host", c->host,
                        "id", c->id ? c->id : "", "verb", c->verb, "pid", (int)getpid(), "argv", words));
}

static void end(const struct call *c, int status)
{
    bool makes = strcmp(c->verb, "create") == 0 || strcmp(c->verb, "start") == 0 || strcmp(c->verb, "run") == 0;
    json_int_t pid = makes ? container_pid(c) : 0;
    append(c,
           json_pack("{s:I,s:s,s:s,s:s,s:s,s:s,s:i,s:i,s:I,s:I}", "t", now_ns(), "op", "end", "call", c->name, "host",
                     c->host, "id", c->id ? c->id : "", "verb", c->verb, "status",
                     WIFEXITED(status) ? WEXITSTATUS(status) : -1, "signal", WIFSIGNALED(status) ? WTERMSIG(status) : 0,
                     "container_pid", pid, "container_start_ticks", pid ? start_ticks(pid) : 0));
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"log", 1, NULL, 'l'}, {"host", 1, NULL, 'h'}, {NULL, 0, NULL, 0}};
    struct call c = {.log = -1, .host = ""};
    const char *log = NULL;
    for (int o; (o = getopt_long(argc, argv, "+", options, NULL)) != -1;) {
        if (o == 'l')
            log = optarg;
        else if (o == 'h')
            c.host = optarg;
        else
            return 125;
    }
    argv += optind;
    if (!log || !*argv) {
        fprintf(stderr, "oci-runtime-log --log FILE --host NAME -- RUNTIME ARGUMENT…\n");
        return 125;
    }
    argv[0] = (char *)find_runtime(argv[0]);
    parse(&c, argv + 1);
    if (!c.verb) { /* --version */
        execv(argv[0], argv);
        die(argv[0]);
    }
    c.log = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (c.log < 0)
        die(log);
    begin(&c, argv + 1);
    int status = run(argv);
    end(&c, status);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
