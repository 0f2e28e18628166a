/* harpoon-fleet-sim — many agents in one process: the real core and link, a simulated runtime. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "fleet_sim/mint.h"
#include "fleet_sim/sim_host.h"
#include "io/loop.h"
#include "io/tls.h"

enum {
    HOSTS_MAX = 100000,
    ROUTERS_MAX = 64,
    ZONES_MAX = 16,
    SPARE_FILES = 64,
    FILES_PER_JOURNAL = 6,
    HOSTS_PER_SOURCE = 10000,
    GROW_MS = 10,
    GROW_MAX = 100
};

static const char usage[] =
    "harpoon-fleet-sim --routers HOST:PORT,… --region R --hosts N [options]\n"
    "  --prefix P           names of the hosts: P followed by a number from 1 (sim-)\n"
    "  --ca FILE            CA certificate (PEM)\n"
    "  --ca-key FILE        the CA's key (PEM): signs a certificate for each host, in memory\n"
    "  --no-tls             plain TCP, for routers that take it in tests\n"
    "  --create-ms N        how long a create takes (5); other jobs take a quarter of it\n"
    "  --fail-percent N     of creates and starts that fail (0)\n"
    "  --exit-mean-s N      processes end by themselves after so long on average (0: never)\n"
    "  --cpu-millis N       allocatable of each host (16000)\n"
    "  --memory-mib N       allocatable of each host (65536)\n"
    "  --zones N            zones z1 … zN, in turn (3)\n"
    "  --attach-per-s N     attach so many hosts a second (1000; 0: all at once)\n"
    "  --report-s N         print a line of JSON on standard output so often (0: never)\n"
    "  --seed N             of failures and jitter (1)\n"
    "  --journals DIR       the agents' journals, as real ones keep them (in memory, and lost)\n"
    "  --journal-file FILE  one file for all journals, durable, but never read: where there are too many hosts for "
    "--journals\n"
    "  --runtime-log FILE   what the simulated machines did and have, apart from the agents: read at the start, so "
    "that\n"
    "                       containers outlive this program; JSON lines, see tests/lib/truth.py\n"
    "  --runtime-state FILE all containers as JSON, written on SIGUSR1 and at the end\n"
    "  --ready-file FILE    written when all hosts are attached\n"
    "  --log-level L        debug, info, warn (default), error\n";

struct options {
    char *routers[ROUTERS_MAX];
    size_t router_count;
    const char *region, *prefix, *ca, *ca_key, *ready_file, *journals, *journal_file, *runtime_log, *runtime_state;
    bool no_tls;
    int64_t hosts, create_ms, fail_percent, exit_mean_s, cpu_millis, memory_mib, zones, attach_per_s, report_s, seed;
    enum hp_log_level level;
};

struct program {
    struct options o;
    struct sim_fleet fleet;
    struct sim_host **hosts;
    char (*sources)[16];
    size_t source_count;
    uv_signal_t sigterm, sigint, sigusr1;
    uv_timer_t report, grow;
    struct mint *mint; /* until all hosts are there; NULL without TLS */
    int64_t added;
    bool ready, stopping, failed;
    uint64_t started_ms;
    /* One hello for each zone. */
    Harpoon__Internal__V1__AgentHello hellos[ZONES_MAX];
    char zones[ZONES_MAX][8];
    Harpoon__V1__Resources allocatable;
    Harpoon__V1__HostFacts facts;
};

static struct program prog;

/* ---- options ---- */

static int parse_number(const char *name, const char *text, int64_t min, int64_t max, int64_t *ret)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (errno || end == text || *end || v < min || v > max) {
        fprintf(stderr, "harpoon-fleet-sim: --%s \"%s\": a number from %" PRId64 " to %" PRId64 "\n", name, text, min,
                max);
        return HP_EINVAL;
    }
    *ret = v;
    return 0;
}

static int parse_routers(struct options *o, char *text)
{
    char *save, *one;
    for (one = strtok_r(text, ",", &save); one; one = strtok_r(NULL, ",", &save)) {
        if (o->router_count == ROUTERS_MAX)
            return HP_ELIMIT;
        o->routers[o->router_count++] = one;
    }
    return 0;
}

static int parse_level(const char *text, enum hp_log_level *ret)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    for (int i = 0; i < 4; i++)
        if (strcmp(text, names[i]) == 0) {
            *ret = (enum hp_log_level)i;
            return 0;
        }
    fprintf(stderr, "harpoon-fleet-sim: --log-level \"%s\": debug, info, warn or error\n", text);
    return HP_EINVAL;
}

enum option_id {
    OPT_ROUTERS = 256,
    OPT_REGION,
    OPT_HOSTS,
    OPT_PREFIX,
    OPT_CA,
    OPT_CA_KEY,
    OPT_NO_TLS,
    OPT_CREATE_MS,
    OPT_FAIL,
    OPT_EXIT,
    OPT_CPU,
    OPT_MEMORY,
    OPT_ZONES,
    OPT_ATTACH,
    OPT_REPORT,
    OPT_SEED,
    OPT_READY,
    OPT_LEVEL,
    OPT_JOURNALS,
    OPT_JOURNAL_FILE,
    OPT_RUNTIME_LOG,
    OPT_RUNTIME_STATE,
    OPT_HELP,
    OPT_VERSION
};

static const struct option long_options[] = {{"routers", 1, NULL, OPT_ROUTERS},
                                             {"region", 1, NULL, OPT_REGION},
                                             {"hosts", 1, NULL, OPT_HOSTS},
                                             {"prefix", 1, NULL, OPT_PREFIX},
                                             {"ca", 1, NULL, OPT_CA},
                                             {"ca-key", 1, NULL, OPT_CA_KEY},
                                             {"no-tls", 0, NULL, OPT_NO_TLS},
                                             {"create-ms", 1, NULL, OPT_CREATE_MS},
                                             {"fail-percent", 1, NULL, OPT_FAIL},
                                             {"exit-mean-s", 1, NULL, OPT_EXIT},
                                             {"cpu-millis", 1, NULL, OPT_CPU},
                                             {"memory-mib", 1, NULL, OPT_MEMORY},
                                             {"zones", 1, NULL, OPT_ZONES},
                                             {"attach-per-s", 1, NULL, OPT_ATTACH},
                                             {"report-s", 1, NULL, OPT_REPORT},
                                             {"seed", 1, NULL, OPT_SEED},
                                             {"ready-file", 1, NULL, OPT_READY},
                                             {"log-level", 1, NULL, OPT_LEVEL},
                                             {"journals", 1, NULL, OPT_JOURNALS},
                                             {"journal-file", 1, NULL, OPT_JOURNAL_FILE},
                                             {"runtime-log", 1, NULL, OPT_RUNTIME_LOG},
                                             {"runtime-state", 1, NULL, OPT_RUNTIME_STATE},
                                             {"help", 0, NULL, OPT_HELP},
                                             {"version", 0, NULL, OPT_VERSION},
                                             {NULL, 0, NULL, 0}};

static int take_option(struct options *o, int id)
{
    switch (id) {
    case OPT_ROUTERS:
        return parse_routers(o, optarg);
    case OPT_REGION:
        o->region = optarg;
        return 0;
    case OPT_HOSTS:
        return parse_number("hosts", optarg, 1, HOSTS_MAX, &o->hosts);
    case OPT_PREFIX:
        o->prefix = optarg;
        return 0;
    case OPT_CA:
        o->ca = optarg;
        return 0;
    case OPT_CA_KEY:
        o->ca_key = optarg;
        return 0;
    case OPT_NO_TLS:
        o->no_tls = true;
        return 0;
    case OPT_CREATE_MS:
        return parse_number("create-ms", optarg, 0, 3600000, &o->create_ms);
    case OPT_FAIL:
        return parse_number("fail-percent", optarg, 0, 100, &o->fail_percent);
    case OPT_EXIT:
        return parse_number("exit-mean-s", optarg, 0, 1000000, &o->exit_mean_s);
    case OPT_CPU:
        return parse_number("cpu-millis", optarg, 10, 10000000, &o->cpu_millis);
    case OPT_MEMORY:
        return parse_number("memory-mib", optarg, 4, 100000000, &o->memory_mib);
    case OPT_ZONES:
        return parse_number("zones", optarg, 1, ZONES_MAX, &o->zones);
    case OPT_ATTACH:
        return parse_number("attach-per-s", optarg, 0, 1000000, &o->attach_per_s);
    case OPT_REPORT:
        return parse_number("report-s", optarg, 0, 3600, &o->report_s);
    case OPT_SEED:
        return parse_number("seed", optarg, 0, INT64_MAX, &o->seed);
    case OPT_READY:
        o->ready_file = optarg;
        return 0;
    case OPT_JOURNALS:
        o->journals = optarg;
        return 0;
    case OPT_JOURNAL_FILE:
        o->journal_file = optarg;
        return 0;
    case OPT_RUNTIME_LOG:
        o->runtime_log = optarg;
        return 0;
    case OPT_RUNTIME_STATE:
        o->runtime_state = optarg;
        return 0;
    case OPT_LEVEL:
        return parse_level(optarg, &o->level);
    default:
        return HP_EINVAL;
    }
}

static int parse(struct options *o, int argc, char **argv)
{
    *o = (struct options){.prefix = "sim-",
                          .create_ms = 5,
                          .cpu_millis = 16000,
                          .memory_mib = 65536,
                          .zones = 3,
                          .attach_per_s = 1000,
                          .seed = 1,
                          .level = HP_LOG_WARN};
    for (int id; (id = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
        if (id == OPT_HELP || id == OPT_VERSION) {
            fputs(id == OPT_HELP ? usage : "harpoon-fleet-sim " HP_VERSION "\n", stdout);
            exit(0);
        }
        if (take_option(o, id))
            return HP_EINVAL;
    }
    if (optind < argc || !o->router_count || !o->region || !o->hosts || (!o->no_tls && (!o->ca || !o->ca_key))) {
        fprintf(stderr, "harpoon-fleet-sim: needs --routers, --region, --hosts, and --ca with --ca-key or --no-tls\n%s",
                usage);
        return HP_EINVAL;
    }
    return 0;
}

/* ---- life ---- */

static void write_ready_file(const struct program *p)
{
    char tmp[4096];
    if (!p->o.ready_file)
        return;
    snprintf(tmp, sizeof tmp, "%s.tmp", p->o.ready_file);
    FILE *f = fopen(tmp, "we");
    if (!f || fprintf(f, "{\"pid\":%d,\"hosts\":%" PRId64 ",\"attach_ms\":%" PRIu64 "}\n", (int)getpid(), p->o.hosts,
                      hp_now_ms() - p->started_ms) < 0) {
        hp_err("ready file cannot be written", HP_S("file", tmp), HP_S("error", strerror(errno)));
        if (f)
            fclose(f);
        return;
    }
    fclose(f);
    if (rename(tmp, p->o.ready_file))
        hp_err("ready file cannot be written", HP_S("file", p->o.ready_file), HP_S("error", strerror(errno)));
}

static void maybe_end(struct program *p);

static void changed(struct sim_fleet *f)
{
    struct program *p = &prog;
    if (!p->ready && f->attached == p->o.hosts) {
        p->ready = true;
        hp_warn("all hosts are attached", HP_I("hosts", f->attached), HP_I("took_ms", hp_now_ms() - p->started_ms));
        write_ready_file(p);
    }
    maybe_end(p);
}

static void write_state(const struct program *p)
{
    struct hp_error e = {0};
    if (p->o.runtime_state && sim_ground_dump(p->fleet.ground, p->o.runtime_state, &e))
        hp_err("the runtimes' state cannot be written", HP_S("error", e.message));
}

static void on_state_wanted(uv_signal_t *s, int signum)
{
    write_state(&prog);
}

static void maybe_end(struct program *p)
{
    if (!p->stopping || p->fleet.closed < p->added)
        return;
    uv_close((uv_handle_t *)&p->sigterm, NULL);
    uv_close((uv_handle_t *)&p->sigint, NULL);
    uv_close((uv_handle_t *)&p->sigusr1, NULL);
    uv_close((uv_handle_t *)&p->report, NULL);
    uv_close((uv_handle_t *)&p->grow, NULL);
    write_state(p);
    sim_fleet_close(&p->fleet);
}

static void stop(uv_signal_t *s, int signum)
{
    struct program *p = &prog;
    if (p->stopping)
        _exit(1);
    p->stopping = true;
    mint_free(p->mint);
    p->mint = NULL;
    uv_timer_stop(&p->grow);
    for (int64_t i = 0; i < p->added; i++)
        sim_host_close(p->hosts[i]);
    if (!p->added)
        maybe_end(p);
}

static void report(uv_timer_t *t)
{
    const struct sim_fleet *f = &prog.fleet;
    size_t rss = 0;
    uv_resident_set_memory(&rss);
    printf("{\"attached\":%d,\"creates\":%" PRIu64 ",\"removes\":%" PRIu64 ",\"exits\":%" PRIu64
           ",\"failed\":%d,\"rss_bytes\":%zu,\"journal_syncs\":%" PRIu64 ",\"journal_bytes\":%" PRIu64 "}\n",
           f->attached, f->creates, f->removes, f->exits, f->failed, rss,
           f->journal ? sim_journal_syncs(f->journal) : 0, f->journal ? sim_journal_bytes(f->journal) : 0);
    fflush(stdout);
}

static void fill_hellos(struct program *p)
{
    harpoon__v1__resources__init(&p->allocatable);
    p->allocatable.cpu_millis = p->o.cpu_millis;
    p->allocatable.memory_bytes = p->o.memory_mib << 20;
    p->allocatable.disk_bytes = (int64_t)1 << 40;
    harpoon__v1__host_facts__init(&p->facts);
    p->facts.agent_version = (char *)HP_VERSION;
    p->facts.kernel = (char *)"simulated";
    p->facts.runtime = (char *)"simulated";
    p->facts.cgroup_mode = (char *)"v2";
    p->facts.boot_id = (char *)"simulated";
    p->facts.cpu_millis = p->o.cpu_millis;
    p->facts.memory_bytes = p->allocatable.memory_bytes;
    p->facts.disk_bytes = p->allocatable.disk_bytes;
    for (int64_t i = 0; i < p->o.zones; i++) {
        snprintf(p->zones[i], sizeof p->zones[i], "z%d", (int)i + 1);
        harpoon__internal__v1__agent_hello__init(&p->hellos[i]);
        p->hellos[i].zone = p->zones[i];
        p->hellos[i].allocatable = &p->allocatable;
        p->hellos[i].facts = &p->facts;
    }
}

/* A pair of addresses has 28,000 ports; so large fleets on loopback come from several addresses. */
static int make_sources(struct program *p)
{
    for (size_t i = 0; i < p->o.router_count; i++)
        if (strncmp(p->o.routers[i], "127.", 4) != 0)
            return 0;
    p->source_count = 1 + (size_t)p->o.hosts / HOSTS_PER_SOURCE;
    p->sources = calloc(p->source_count, sizeof *p->sources);
    if (!p->sources)
        return HP_ENOMEM;
    for (size_t i = 0; i < p->source_count; i++)
        snprintf(p->sources[i], sizeof p->sources[i], "127.0.0.%d", (int)(i % 250) + 1);
    return 0;
}

static int add_host(struct program *p, int64_t i, struct hp_error *e)
{
    char name[64], *pem = NULL;
    struct hp_tls_context *tls = NULL;
    snprintf(name, sizeof name, "%s%" PRId64, p->o.prefix, i + 1);
    if (p->mint) {
        struct hp_tls_options to = {.role = HP_TLS_CLIENT};
        int rc = mint_host(p->mint, p->o.region, name, &pem, e);
        if (rc)
            return rc;
        rc = hp_tls_context_new_pem(&to, mint_ca_pem(p->mint), pem, mint_key_pem(p->mint), &tls, e);
        free(pem);
        if (rc)
            return rc;
    }
    struct ha_link_options link = {.routers = (const char *const *)p->o.routers,
                                   .router_count = p->o.router_count,
                                   .tls = tls,
                                   .source_ip = p->source_count ? p->sources[(size_t)i % p->source_count] : NULL};
    int rc = sim_host_new(&p->fleet, p->o.region, name, &p->hellos[i % p->o.zones], &link, &p->hosts[i], e);
    if (tls)
        hp_tls_context_unref(tls);
    return rc;
}

/* Adds hosts at the pace that was asked for; a little at a time, for each costs a signature and a handshake. */
static void grow(uv_timer_t *t)
{
    struct program *p = &prog;
    struct hp_error e = {0};
    uint64_t spent_ms = hp_now_ms() - p->started_ms;
    int64_t due = p->o.attach_per_s ? (int64_t)(spent_ms + GROW_MS) * p->o.attach_per_s / 1000 : p->o.hosts;
    if (due > p->o.hosts)
        due = p->o.hosts;
    if (due > p->added + GROW_MAX)
        due = p->added + GROW_MAX;
    for (; p->added < due; p->added++)
        if (add_host(p, p->added, &e)) {
            hp_err("cannot add a host", HP_S("error", e.message));
            p->failed = true;
            stop(NULL, 0);
            return;
        }
    if (p->added < p->o.hosts)
        return;
    uv_timer_stop(t);
    mint_free(p->mint);
    p->mint = NULL;
}

static int raise_files(int64_t hosts, struct hp_error *e)
{
    struct rlimit r;
    rlim_t need = (rlim_t)hosts * (prog.o.journals ? FILES_PER_JOURNAL : 1) + SPARE_FILES;
    if (getrlimit(RLIMIT_NOFILE, &r))
        return hp_fail_errno(e, HP_EIO, errno, "limit of open files");
    if (r.rlim_cur >= need)
        return 0;
    r.rlim_cur = r.rlim_max;
    if (r.rlim_max < need)
        return hp_fail(e, HP_ELIMIT, "--hosts %" PRId64 ": the limit of open files is %llu", hosts,
                       (unsigned long long)r.rlim_max);
    return setrlimit(RLIMIT_NOFILE, &r) ? hp_fail_errno(e, HP_EIO, errno, "limit of open files") : 0;
}

static int start(struct program *p, uv_loop_t *loop, struct hp_error *e)
{
    int rc = raise_files(p->o.hosts, e);
    if (rc)
        return rc;
    p->hosts = calloc((size_t)p->o.hosts, sizeof(struct sim_host *));
    if (!p->hosts || make_sources(p))
        return hp_fail(e, HP_ENOMEM, "hosts");
    fill_hellos(p);
    rc = sim_fleet_init(&p->fleet, loop, (uint64_t)p->o.seed, p->o.runtime_log, e);
    if (rc)
        return rc;
    p->fleet.create_ms = (uint64_t)p->o.create_ms;
    p->fleet.fail_percent = (unsigned)p->o.fail_percent;
    p->fleet.exit_mean_ms = (uint64_t)p->o.exit_mean_s * 1000;
    p->fleet.cpu_millis = p->o.cpu_millis;
    p->fleet.memory_bytes = p->o.memory_mib << 20;
    p->fleet.journals = p->o.journals;
    if (p->o.journals && mkdir(p->o.journals, 0700) && errno != EEXIST)
        return hp_fail_errno(e, HP_EIO, errno, "--journals %s", p->o.journals);
    if (p->o.journal_file && sim_journal_open(loop, p->o.journal_file, &p->fleet.journal, e))
        return e->code;
    sim_ground_boot(p->fleet.ground, p->o.hosts);
    p->fleet.changed_cb = changed;
    p->started_ms = hp_now_ms();
    if (!p->o.no_tls)
        rc = mint_new(p->o.ca, p->o.ca_key, &p->mint, e);
    if (rc)
        return rc;
    uv_signal_init(loop, &p->sigterm);
    uv_signal_init(loop, &p->sigint);
    uv_signal_start(&p->sigterm, stop, SIGTERM);
    uv_signal_start(&p->sigint, stop, SIGINT);
    uv_signal_init(loop, &p->sigusr1);
    uv_signal_start(&p->sigusr1, on_state_wanted, SIGUSR1);
    uv_timer_init(loop, &p->grow);
    uv_timer_start(&p->grow, grow, 0, GROW_MS);
    uv_timer_init(loop, &p->report);
    if (p->o.report_s)
        uv_timer_start(&p->report, report, (uint64_t)p->o.report_s * 1000, (uint64_t)p->o.report_s * 1000);
    return 0;
}

int main(int argc, char **argv)
{
    struct hp_error e = {0};
    if (parse(&prog.o, argc, argv))
        return 2;
    hp_log_init("harpoon-fleet-sim", prog.o.level, HP_LOG_LOGFMT);
    signal(SIGPIPE, SIG_IGN);
    uv_loop_t *loop = uv_default_loop();
    if (start(&prog, loop, &e)) {
        hp_err("cannot start", HP_S("error", e.message));
        return 1;
    }
    uv_run(loop, UV_RUN_DEFAULT);
    uv_loop_close(loop);
    free(prog.hosts);
    free(prog.sources);
    return prog.fleet.failed || prog.failed ? 1 : 0;
}
