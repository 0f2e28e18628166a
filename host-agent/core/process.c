/* Processes: found at start, ended by themselves, restarted with a back-off, probed. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/agent_private.h"

#define STATE(s) HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_##s
#define HEALTH(s) HARPOON__V1__HEALTH_STATE__HEALTH_STATE_##s

static uint64_t backoff_ms(const struct ha_container *c)
{
    uint64_t ms = c->a.backoff_initial_ms;
    for (int32_t i = 0; i < c->backoff_count && ms < c->a.backoff_max_ms; i++)
        ms *= 2;
    return ms < c->a.backoff_max_ms ? ms : c->a.backoff_max_ms;
}

static bool policy_restarts(const struct ha_container *c)
{
    if (c->a.restart_mode == HARPOON__V1__RESTART_MODE__RESTART_MODE_NEVER)
        return false;
    if (c->a.restart_mode == HARPOON__V1__RESTART_MODE__RESTART_MODE_ON_FAILURE && c->r.exit_code == 0)
        return false;
    return c->a.restarts_max == 0 || c->backoff_count < c->a.restarts_max;
}

/* The process is not there although its owner wants it: restart, or give up. */
static void settle_ended(struct ha_core *core, struct ha_container *c)
{
    char text[160];
    if (policy_restarts(c)) {
        uint64_t delay = backoff_ms(c);
        snprintf(text, sizeof text, "ended with exit code %d; starts again after %llu ms", c->r.exit_code,
                 (unsigned long long)delay);
        ha_set_text(core, &c->r.message, text);
        c->r.state = STATE(BACKOFF);
        c->timer_ms = core->now_ms + delay;
        ha_move(core, c, HA_S_BACKOFF);
        return;
    }
    bool gave_up = c->a.restarts_max > 0 && c->backoff_count >= c->a.restarts_max;
    bool failed = c->r.exit_code != 0 || gave_up;
    if (gave_up)
        snprintf(text, sizeof text, "ended with exit code %d; given up after %d restarts", c->r.exit_code,
                 c->backoff_count);
    else
        snprintf(text, sizeof text, "ended with exit code %d", c->r.exit_code);
    ha_set_text(core, &c->r.message, text);
    c->r.state = failed ? STATE(FAILED) : STATE(STOPPED);
    ha_move(core, c, failed ? HA_S_FAILED : HA_S_STOPPED);
}

static void settle_running(struct ha_core *core, struct ha_container *c)
{
    bool same = c->seen_pid == c->r.pid && c->seen_ticks == c->r.pid_start_ticks;
    c->r.state = STATE(RUNNING);
    if (!same) {
        c->seen_pid = c->r.pid;
        c->seen_ticks = c->r.pid_start_ticks;
        c->running_since_ms = core->now_ms;
        c->probe_failures = 0;
    }
    if (!c->a.probed)
        c->r.health = HEALTH(UNSPECIFIED);
    else if (!same || c->r.health == HEALTH(UNSPECIFIED))
        c->r.health = HEALTH(STARTING);
    c->timer_ms = c->a.probed ? core->now_ms + c->a.probe_interval_ms : UINT64_MAX;
    ha_move(core, c, HA_S_RUNNING);
}

void ha_process_settle(struct ha_core *core, struct ha_container *c)
{
    assert(c->job < 0 && c->r.intent.generation == 0);
    if (c->r.pid > 0) {
        settle_running(core, c);
        return;
    }
    c->r.health = HEALTH(UNSPECIFIED);
    if (!c->exists) {
        ha_set_text(core, &c->r.message, "there is nothing of it on the host any more");
        c->r.state = STATE(FAILED);
        ha_move(core, c, HA_S_FAILED);
    } else if (!c->a.wants_run) {
        c->r.state = STATE(STOPPED);
        ha_move(core, c, HA_S_STOPPED);
    } else {
        settle_ended(core, c);
    }
}

/* Takes over how the process ended. */
static void note_exit(struct ha_core *core, struct ha_container *c, const struct ha_rt_state *s)
{
    c->exists = true;
    c->r.pid = c->r.pid_start_ticks = 0;
    c->r.exit_code = s->exit_code;
    c->r.oom_killed = s->oom_killed;
    c->r.finish_wall_ns = s->finish_wall_ns ? s->finish_wall_ns : core->wall_ns;
}

static void exit_now(struct ha_core *core, struct ha_container *c, const struct ha_rt_state *s)
{
    assert(c->state == HA_S_RUNNING && c->job < 0);
    if (core->now_ms - c->running_since_ms >= c->a.backoff_max_ms)
        c->backoff_count = 0;
    note_exit(core, c, s);
    ha_process_settle(core, c);
    ha_fx_container(core, c);
    ha_report_observation(core, c, s->oom_killed ? "oom_killed" : "exited");
}

/* The event speaks of the process that we know to be running, as far as it says. */
static bool same_process(const struct ha_container *c, const struct ha_rt_state *s)
{
    if (c->r.pid == 0)
        return false;
    return s->pid == 0 || (s->pid == c->r.pid && s->pid_start_ticks == c->r.pid_start_ticks);
}

static void keep_exit(struct ha_core *core, struct ha_container *c, const struct ha_rt_state *s)
{
    if (!c->exit)
        c->exit = malloc(sizeof *c->exit);
    if (!c->exit) {
        core->out_of_memory = true;
        return;
    }
    *c->exit = *s;
    c->exit_pending = true;
}

void ha_process_exited(struct ha_core *core, struct ha_container *c, const struct ha_rt_state *s)
{
    switch (c->state) {
    case HA_S_RUNNING:
        if (!same_process(c, s))
            return;
        if (c->job >= 0)
            keep_exit(core, c, s);
        else
            exit_now(core, c, s);
        return;
    case HA_S_INTENT: /* the plan is made later, from what is observed then */
        if (same_process(c, s))
            note_exit(core, c, s);
        return;
    case HA_S_QUARANTINED:
        note_exit(core, c, s);
        c->r.state = STATE(STOPPED);
        ha_fx_container(core, c);
        ha_report_observation(core, c, "exited");
        return;
    case HA_S_INSPECTING:
    case HA_S_ACTING:
    case HA_S_RESTARTING:
        /* Perhaps of a process that the job has just started, and that we do not know yet. */
        if (s->pid > 0 || (c->job != HA_JOB_STOP && c->job != HA_JOB_REMOVE && c->job != HA_JOB_RESTART))
            keep_exit(core, c, s);
        return;
    default:
        return;
    }
}

void ha_process_late_exit(struct ha_core *core, struct ha_container *c)
{
    if (!c->exit_pending || c->job >= 0)
        return;
    if (c->state == HA_S_ACTING || c->state == HA_S_RESTARTING || c->state == HA_S_INSPECTING)
        return;
    struct ha_rt_state s = *c->exit;
    free(c->exit);
    c->exit = NULL;
    c->exit_pending = false;
    if (c->state == HA_S_RUNNING && same_process(c, &s))
        exit_now(core, c, &s);
    else if (c->state == HA_S_INTENT && same_process(c, &s))
        note_exit(core, c, &s);
}

void ha_process_start(struct ha_core *core, struct ha_container *c)
{
    if (c->state != HA_S_NEW)
        return;
    ha_move(core, c, HA_S_INSPECTING);
    ha_fx_job(core, c, HA_JOB_INSPECT, NULL, c->r.generation);
}

/* After a restart of the agent, nothing under way: what became of the container meanwhile? */
static void resume(struct ha_core *core, struct ha_container *c, int64_t old_pid, int64_t old_ticks)
{
    int32_t was = c->r.state;
    bool is_running = c->r.pid > 0, same = old_pid == c->r.pid && old_ticks == c->r.pid_start_ticks;
    if (is_running) {
        ha_process_settle(core, c);
        if (was == STATE(RUNNING) && same)
            return;
        if (was == STATE(BACKOFF) || was == STATE(RUNNING)) /* a restart that was cut off after it took effect */
            c->r.restart_count++;
        ha_set_text(core, &c->r.message, NULL);
        ha_fx_container(core, c);
        ha_report_observation(core, c, "restarted");
    } else if (was == STATE(STOPPED) || was == STATE(FAILED)) {
        ha_move(core, c, was == STATE(STOPPED) ? HA_S_STOPPED : HA_S_FAILED);
    } else {
        if (was == STATE(BACKOFF))
            c->backoff_count = c->r.restart_count;
        if (c->exists && !c->r.finish_wall_ns)
            c->r.finish_wall_ns = core->wall_ns;
        ha_process_settle(core, c);
        ha_fx_container(core, c);
        if (was != c->r.state)
            ha_report_observation(core, c, c->r.oom_killed ? "oom_killed" : "exited");
    }
}

void ha_process_inspected(struct ha_core *core, struct ha_container *c, const struct ha_job *job)
{
    assert(c->state == HA_S_INSPECTING);
    if (job->status) {
        c->timer_ms = core->now_ms + HA_INSPECT_RETRY_MS;
        return;
    }
    int64_t pid = c->r.pid, ticks = c->r.pid_start_ticks;
    ha_container_observe(core, c, &job->result);
    if (c->r.quarantined && c->r.intent.generation == 0) {
        c->r.state = c->r.pid > 0 ? STATE(RUNNING) : STATE(STOPPED);
        ha_move(core, c, HA_S_QUARANTINED);
    } else if (c->r.intent.generation > 0 && pid > 0 && c->r.pid == 0) {
        /* What ran is gone. That is durable before anything is started: after a reboot the next process may have the same numbers. */
        ha_fx_container(core, c);
        c->intent_seq = core->write_seq;
        ha_move(core, c, HA_S_INTENT);
    } else if (c->r.intent.generation > 0) {
        /* Whatever runs, and is not what ran when the intent was recorded, was started by it. */
        ha_change_act(core, c, c->r.pid > 0 && (pid != c->r.pid || ticks != c->r.pid_start_ticks));
    } else {
        resume(core, c, pid, ticks);
    }
}

static void restart(struct ha_core *core, struct ha_container *c, enum ha_job_kind kind)
{
    ha_move(core, c, HA_S_RESTARTING);
    c->backoff_count++;
    c->r.restart_count++;
    c->probe_failures = 0;
    c->failing = false;
    core->stats.restarts++;
    ha_fx_job(core, c, kind, &c->r.spec, c->r.generation);
}

void ha_process_restarted(struct ha_core *core, struct ha_container *c, const struct ha_job *job)
{
    assert(c->state == HA_S_RESTARTING);
    if (job->status && !c->failing) {
        c->failing = true;
        ha_set_text(core, &c->fail_message, job->error.message[0] ? job->error.message : hp_strerror(job->status));
        ha_fx_job(core, c, HA_JOB_INSPECT, NULL, c->r.generation);
        return;
    }
    if (job->status == 0)
        ha_container_observe(core, c, &job->result);
    ha_process_settle(core, c);
    if (c->failing)
        ha_set_text(core, &c->r.message, c->fail_message);
    else if (c->state == HA_S_RUNNING)
        ha_set_text(core, &c->r.message, NULL);
    ha_fx_container(core, c);
    ha_report_observation(core, c, c->failing ? "restart_failed" : "restarted");
    c->failing = false;
}

void ha_process_probed(struct ha_core *core, struct ha_container *c, const struct ha_job *job)
{
    assert(c->state == HA_S_RUNNING);
    bool healthy = job->status == 0 && job->result.healthy;
    c->timer_ms = core->now_ms + c->a.probe_interval_ms;
    if (c->exit_pending)
        return;
    if (healthy) {
        c->probe_failures = 0;
        if (c->r.health == HEALTH(HEALTHY))
            return;
        c->r.health = HEALTH(HEALTHY);
        ha_set_text(core, &c->r.message, NULL);
        ha_fx_container(core, c);
        ha_report_observation(core, c, "healthy");
        return;
    }
    bool starting = c->r.health == HEALTH(STARTING) && core->now_ms - c->running_since_ms < c->a.probe_start_ms;
    if (starting || ++c->probe_failures < c->a.probe_failures_max)
        return;
    if (c->r.health != HEALTH(UNHEALTHY)) {
        c->r.health = HEALTH(UNHEALTHY);
        ha_set_text(core, &c->r.message, job->error.message[0] ? job->error.message : "the health check fails");
        ha_fx_container(core, c);
        ha_report_observation(core, c, "unhealthy");
    }
    bool may = c->a.restarts_max == 0 || c->backoff_count < c->a.restarts_max;
    if (c->a.restart_when_unhealthy && may && !c->queued)
        restart(core, c, HA_JOB_RESTART);
}

void ha_process_timer(struct ha_core *core, struct ha_container *c)
{
    if (c->timer_ms > core->now_ms || c->job >= 0)
        return;
    c->timer_ms = UINT64_MAX;
    switch (c->state) {
    case HA_S_INSPECTING:
        ha_fx_job(core, c, HA_JOB_INSPECT, NULL, c->r.generation);
        return;
    case HA_S_BACKOFF:
        restart(core, c, HA_JOB_START);
        return;
    case HA_S_RUNNING:
        ha_fx_job(core, c, HA_JOB_PROBE, &c->r.spec, c->r.generation);
        return;
    default:
        assert(!"a timer in a state without one");
    }
}
