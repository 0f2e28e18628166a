/* Validation of a container's spec. */
#include <stdio.h>
#include <string.h>

#include "core/validate.h"
#include "wire/image_ref.h"
#include "wire/mount_path.h"
#include "wire/names.h"
#include "wire/signal_name.h"
#include "wire/storage.h"

static void join(char out[GW_FIELD_MAX], const char *field, const char *name)
{
    snprintf(out, GW_FIELD_MAX, "%.100s.%.80s", field, name);
}

static void join_index(char out[GW_FIELD_MAX], const char *field, const char *name, size_t i)
{
    snprintf(out, GW_FIELD_MAX, "%.90s.%.70s[%zu]", field, name, i);
}

static void check_enum(struct gw_check *c, const char *field, const char *name, const ProtobufCEnumDescriptor *d,
                       int value)
{
    char path[GW_FIELD_MAX];
    if (protobuf_c_enum_descriptor_get_value(d, value))
        return;
    join(path, field, name);
    gw_violation(c, path, "%d is not a value of %s", value, d->short_name);
}

static void check_field_range(struct gw_check *c, const char *field, const char *name, int64_t value, int64_t min,
                              int64_t max)
{
    char path[GW_FIELD_MAX];
    join(path, field, name);
    gw_check_range(c, path, value, min, max);
}

static void check_strings(struct gw_check *c, const char *field, const char *name, char **items, size_t count)
{
    char path[GW_FIELD_MAX];
    join(path, field, name);
    if (!gw_check_count(c, path, count, GW_ARGS_MAX))
        return;
    for (size_t i = 0; i < count; i++) {
        join_index(path, field, name, i);
        gw_check_length(c, path, items[i], 0, GW_ARG_BYTES_MAX);
    }
}

/* Absolute, without "." and ".." parts, so that it means what it says. */
static void check_path(struct gw_check *c, const char *path, const char *text)
{
    gw_check_length(c, path, text, 1, GW_PATH_BYTES_MAX);
    if (!*text)
        return;
    if (*text != '/')
        gw_violation(c, path, "\"%.64s\" is not an absolute path", text);
    for (const char *p = text; *p; p += strcspn(p, "/")) {
        p += strspn(p, "/");
        size_t len = strcspn(p, "/");
        if ((len == 1 && p[0] == '.') || (len == 2 && p[0] == '.' && p[1] == '.')) {
            gw_violation(c, path, "\"%.64s\" has a \".\" or \"..\" in it", text);
            return;
        }
    }
}

static bool is_word(char ch)
{
    return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') || ch == '_';
}

void gw_validate_image(struct gw_check *c, const char *field, const char *image)
{
    struct hp_image_ref ref;
    struct hp_error e = {0};
    gw_check_length(c, field, image, 1, GW_IMAGE_BYTES_MAX);
    if (*image && strlen(image) <= GW_IMAGE_BYTES_MAX && hp_image_ref_parse(image, &ref, &e))
        gw_violation(c, field, "%s", e.message);
}

/* ---- Process ---- */

static void check_env(struct gw_check *c, const char *field, const Harpoon__V1__ContainerSpec *spec)
{
    char path[GW_FIELD_MAX];
    join(path, field, "env");
    if (!gw_check_count(c, path, spec->n_env, GW_ENV_MAX))
        return;
    for (size_t i = 0; i < spec->n_env; i++) {
        const char *name = spec->env[i]->name;
        bool valid = is_word(*name) && !(*name >= '0' && *name <= '9');
        for (const char *p = name; valid && *p; p++)
            valid = is_word(*p);
        char element[GW_FIELD_MAX];
        join_index(element, field, "env", i);
        join(path, element, "name");
        if (!valid)
            gw_violation(c, path, "\"%.64s\" is not of the form [A-Za-z_][A-Za-z0-9_]*", name);
        gw_check_length(c, path, name, 1, GW_ENV_NAME_BYTES_MAX);
        join(path, element, "value");
        gw_check_length(c, path, spec->env[i]->value, 0, GW_ENV_VALUE_BYTES_MAX);
    }
}

/* "uid[:gid]" or "user[:group]". */
static void check_user(struct gw_check *c, const char *field, const char *user)
{
    char path[GW_FIELD_MAX];
    int colons = 0;
    bool valid = true;
    for (const char *p = user; *p; p++) {
        if (*p == ':')
            colons++;
        else if (!is_word(*p) && *p != '.' && *p != '-')
            valid = false;
    }
    size_t len = strlen(user);
    if (len == 0 || (valid && colons <= 1 && len <= 128 && user[0] != ':' && user[len - 1] != ':'))
        return;
    join(path, field, "user");
    gw_violation(c, path, "\"%.64s\" is not of the form uid[:gid] or a name", user);
}

static void check_signal(struct gw_check *c, const char *field, const char *name)
{
    char path[GW_FIELD_MAX];
    int number;
    if (!*name || (strncmp(name, "SIG", 3) == 0 && hp_signal_number(name, &number, NULL) == 0))
        return;
    join(path, field, "stop_signal");
    gw_violation(c, path, "\"%.32s\" is not a signal's name, such as SIGTERM", name);
}

void gw_validate_runtime(struct gw_check *c, const char *field, const Harpoon__V1__ContainerSpec *spec)
{
    char path[GW_FIELD_MAX];
    check_strings(c, field, "command", spec->command, spec->n_command);
    check_strings(c, field, "args", spec->args, spec->n_args);
    if (spec->n_command > 0 && !*spec->command[0]) {
        join(path, field, "command[0]");
        gw_violation(c, path, "must not be empty: it is the program");
    }
    check_env(c, field, spec);
    if (*spec->working_dir) {
        join(path, field, "working_dir");
        check_path(c, path, spec->working_dir);
    }
    check_user(c, field, spec->user);
    check_signal(c, field, spec->stop_signal);
    check_field_range(c, field, "stop_grace_seconds", spec->stop_grace_seconds, 0, 3600);
    check_enum(c, field, "desired_state", &harpoon__v1__desired_state__descriptor, (int)spec->desired_state);
}

/* ---- Network, restarts, health, placement, volumes ---- */

static void check_port(struct gw_check *c, const char *field, const Harpoon__V1__NetworkSpec *n, size_t i)
{
    char path[GW_FIELD_MAX], part[GW_FIELD_MAX];
    const Harpoon__V1__PortMapping *port = n->ports[i];
    join_index(path, field, "network.ports", i);
    check_field_range(c, path, "container_port", port->container_port, 1, 65535);
    check_field_range(c, path, "host_port", port->host_port, 1, 65535);
    if (*port->protocol && strcmp(port->protocol, "tcp") != 0 && strcmp(port->protocol, "udp") != 0) {
        join(part, path, "protocol");
        gw_violation(c, part, "\"%.16s\" is not tcp or udp", port->protocol);
    }
    join(part, path, "host_port");
    bool udp = strcmp(port->protocol, "udp") == 0;
    for (size_t j = 0; j < i; j++)
        if (n->ports[j]->host_port == port->host_port && (strcmp(n->ports[j]->protocol, "udp") == 0) == udp)
            gw_violation(c, part, "%d is published twice", port->host_port);
}

static void check_network(struct gw_check *c, const char *field, const Harpoon__V1__NetworkSpec *n)
{
    char path[GW_FIELD_MAX];
    if (!n)
        return;
    check_enum(c, field, "network.mode", &harpoon__v1__network_mode__descriptor, (int)n->mode);
    join(path, field, "network.ports");
    if (!gw_check_count(c, path, n->n_ports, GW_PORTS_MAX))
        return;
    if (n->n_ports > 0 && n->mode != HARPOON__V1__NETWORK_MODE__NETWORK_MODE_UNSPECIFIED &&
        n->mode != HARPOON__V1__NETWORK_MODE__NETWORK_MODE_BRIDGE)
        gw_violation(c, path, "ports need the network mode BRIDGE");
    for (size_t i = 0; i < n->n_ports; i++)
        check_port(c, field, n, i);
}

static void check_bandwidth(struct gw_check *c, const char *field, const Harpoon__V1__ContainerSpec *spec)
{
    char path[GW_FIELD_MAX];
    if (!spec->resources || !spec->resources->network_bps || !spec->network ||
        spec->network->mode != HARPOON__V1__NETWORK_MODE__NETWORK_MODE_NONE)
        return;
    join(path, field, "resources.network_bps");
    gw_violation(c, path, "%lld needs another network mode than NONE", (long long)spec->resources->network_bps);
}

static void check_restart(struct gw_check *c, const char *field, const Harpoon__V1__RestartPolicy *r)
{
    if (!r)
        return;
    check_enum(c, field, "restart_policy.mode", &harpoon__v1__restart_mode__descriptor, (int)r->mode);
    check_field_range(c, field, "restart_policy.max_restarts", r->max_restarts, 0, INT32_MAX);
    check_field_range(c, field, "restart_policy.backoff_initial_ms", r->backoff_initial_ms, 0, 86400000);
    check_field_range(c, field, "restart_policy.backoff_max_ms", r->backoff_max_ms, 0, 86400000);
}

static void check_health(struct gw_check *c, const char *field, const Harpoon__V1__HealthCheck *h)
{
    char path[GW_FIELD_MAX];
    if (!h)
        return;
    join(path, field, "health_check");
    if (h->probe_case == HARPOON__V1__HEALTH_CHECK__PROBE_EXEC) {
        check_strings(c, path, "exec.command", h->exec->command, h->exec->n_command);
        if (h->exec->n_command == 0) {
            char command[GW_FIELD_MAX];
            join(command, path, "exec.command");
            gw_violation(c, command, "must have at least one element");
        }
    } else if (h->probe_case == HARPOON__V1__HEALTH_CHECK__PROBE_TCP) {
        check_field_range(c, path, "tcp.port", h->tcp->port, 1, 65535);
    } else {
        gw_violation(c, path, "needs exec or tcp");
    }
    if (h->interval_ms != 0)
        check_field_range(c, path, "interval_ms", h->interval_ms, 100, 86400000);
    check_field_range(c, path, "timeout_ms", h->timeout_ms, 0, 86400000);
    check_field_range(c, path, "failure_threshold", h->failure_threshold, 0, 1000000);
    check_field_range(c, path, "start_period_ms", h->start_period_ms, 0, 86400000);
}

static void check_expression(struct gw_check *c, const char *field, const Harpoon__V1__LabelExpression *x)
{
    char path[GW_FIELD_MAX];
    join(path, field, "key");
    gw_check_length(c, path, x->key, 1, GW_LABEL_BYTES_MAX);
    join(path, field, "operator");
    bool values = x->operator_ == HARPOON__V1__LABEL_OPERATOR__LABEL_OPERATOR_IN ||
                  x->operator_ == HARPOON__V1__LABEL_OPERATOR__LABEL_OPERATOR_NOT_IN;
    if (x->operator_ < HARPOON__V1__LABEL_OPERATOR__LABEL_OPERATOR_IN ||
        x->operator_ > HARPOON__V1__LABEL_OPERATOR__LABEL_OPERATOR_NOT_EXISTS)
        gw_violation(c, path, "%d is not IN, NOT_IN, EXISTS or NOT_EXISTS", (int)x->operator_);
    join(path, field, "values");
    if (values && !x->n_values)
        gw_violation(c, path, "must have at least one value");
    if (!values && x->n_values)
        gw_violation(c, path, "%zu values; this operator takes none", x->n_values);
    if (gw_check_count(c, path, x->n_values, GW_CONDITIONS_MAX))
        for (size_t i = 0; i < x->n_values; i++) {
            join_index(path, field, "values", i);
            gw_check_length(c, path, x->values[i], 0, GW_LABEL_BYTES_MAX);
        }
}

static void check_spread(struct gw_check *c, const char *field, const Harpoon__V1__PlacementSpec *p)
{
    char path[GW_FIELD_MAX], part[GW_FIELD_MAX];
    unsigned seen = 0;
    join(path, field, "placement.spread_group");
    gw_check_length(c, path, p->spread_group, 0, GW_LABEL_BYTES_MAX);
    join(path, field, "placement.spread_constraints");
    if (p->n_spread_constraints && !*p->spread_group)
        gw_violation(c, path, "need a spread_group");
    if (!gw_check_count(c, path, p->n_spread_constraints, 3))
        return;
    for (size_t i = 0; i < p->n_spread_constraints; i++) {
        const Harpoon__V1__SpreadConstraint *x = p->spread_constraints[i];
        join_index(path, field, "placement.spread_constraints", i);
        join(part, path, "topology");
        bool known =
            x->topology >= HARPOON__V1__TOPOLOGY__TOPOLOGY_ZONE && x->topology <= HARPOON__V1__TOPOLOGY__TOPOLOGY_HOST;
        if (!known)
            gw_violation(c, part, "%d is not ZONE, RACK or HOST", (int)x->topology);
        else if (seen & 1U << x->topology)
            gw_violation(c, part, "is given twice");
        seen |= known ? 1U << x->topology : 0;
        check_field_range(c, path, "max_skew", x->max_skew, 1, 1000);
    }
    check_enum(c, field, "placement.role", &harpoon__v1__container_role__descriptor, (int)p->role);
}

static void check_gang(struct gw_check *c, const char *field, const Harpoon__V1__PlacementSpec *p)
{
    char path[GW_FIELD_MAX], part[GW_FIELD_MAX];
    join(path, field, "placement.workload_class");
    gw_check_length(c, path, p->workload_class, 0, GW_LABEL_BYTES_MAX);
    join(path, field, "placement");
    check_field_range(c, path, "priority", p->priority, -GW_PRIORITY_MAX, GW_PRIORITY_MAX);
    if (!p->gang)
        return;
    join(path, field, "placement.gang");
    join(part, path, "name");
    gw_check_length(c, part, p->gang->name, 1, GW_LABEL_BYTES_MAX);
    check_field_range(c, path, "size", p->gang->size, 2, GW_GANG_MAX);
}

static void check_preferences(struct gw_check *c, const char *field, const Harpoon__V1__PlacementSpec *p)
{
    char path[GW_FIELD_MAX], part[GW_FIELD_MAX];
    join(path, field, "placement.preferences");
    if (!gw_check_count(c, path, p->n_preferences, GW_CONDITIONS_MAX))
        return;
    for (size_t i = 0; i < p->n_preferences; i++) {
        join_index(path, field, "placement.preferences", i);
        check_field_range(c, path, "weight", p->preferences[i]->weight, 1, 100);
        join(part, path, "expression");
        if (p->preferences[i]->expression)
            check_expression(c, part, p->preferences[i]->expression);
        else
            gw_violation(c, part, "is missing");
    }
}

static void check_placement(struct gw_check *c, const char *field, const Harpoon__V1__PlacementSpec *p)
{
    char path[GW_FIELD_MAX], part[GW_FIELD_MAX];
    if (!p)
        return;
    join(path, field, "placement.zones");
    if (gw_check_count(c, path, p->n_zones, GW_ZONES_MAX))
        for (size_t i = 0; i < p->n_zones; i++) {
            join_index(path, field, "placement.zones", i);
            gw_check_length(c, path, p->zones[i], 1, GW_LABEL_BYTES_MAX);
        }
    join(path, field, "placement.host_labels");
    if (gw_check_count(c, path, p->n_host_labels, GW_LABELS_MAX))
        for (size_t i = 0; i < p->n_host_labels; i++) {
            gw_check_length(c, path, p->host_labels[i]->key, 1, GW_LABEL_BYTES_MAX);
            gw_check_length(c, path, p->host_labels[i]->value, 0, GW_LABEL_BYTES_MAX);
            for (size_t k = 0; k < i; k++)
                if (strcmp(p->host_labels[k]->key, p->host_labels[i]->key) == 0)
                    gw_violation(c, path, "\"%.64s\" is given twice", p->host_labels[i]->key);
        }
    join(path, field, "placement.anti_affinity_group");
    gw_check_length(c, path, p->anti_affinity_group, 0, GW_LABEL_BYTES_MAX);
    join(path, field, "placement.affinity_group");
    gw_check_length(c, path, p->affinity_group, 0, GW_LABEL_BYTES_MAX);
    if (*p->affinity_group && *p->anti_affinity_group && strcmp(p->affinity_group, p->anti_affinity_group) == 0)
        gw_violation(c, path, "\"%.64s\" is the anti_affinity_group, too", p->affinity_group);
    join(path, field, "placement.label_expressions");
    if (gw_check_count(c, path, p->n_label_expressions, GW_CONDITIONS_MAX))
        for (size_t i = 0; i < p->n_label_expressions; i++) {
            join_index(path, field, "placement.label_expressions", i);
            check_expression(c, path, p->label_expressions[i]);
        }
    join(path, field, "placement.tolerations");
    if (gw_check_count(c, path, p->n_tolerations, GW_CONDITIONS_MAX))
        for (size_t i = 0; i < p->n_tolerations; i++) {
            join_index(path, field, "placement.tolerations", i);
            join(part, path, "key");
            gw_check_length(c, part, p->tolerations[i]->key, 1, GW_LABEL_BYTES_MAX);
            join(part, path, "value");
            gw_check_length(c, part, p->tolerations[i]->value, 0, GW_LABEL_BYTES_MAX);
        }
    check_spread(c, field, p);
    check_preferences(c, field, p);
    check_gang(c, field, p);
    join(path, field, "placement.host");
    if (*p->host && !hp_segment_valid(p->host))
        gw_violation(c, path, "\"%.64s\" is not a host's short name", p->host);
}

static void check_volumes(struct gw_check *c, const char *field, const Harpoon__V1__ContainerSpec *spec)
{
    char path[GW_FIELD_MAX], part[GW_FIELD_MAX];
    join(path, field, "volumes");
    if (!gw_check_count(c, path, spec->n_volumes, GW_VOLUMES_MAX))
        return;
    for (size_t i = 0; i < spec->n_volumes; i++) {
        const Harpoon__V1__VolumeMount *v = spec->volumes[i];
        struct hp_error e = {0};
        join_index(path, field, "volumes", i);
        join(part, path, "volume");
        if (!hp_segment_valid(v->volume))
            gw_violation(c, part, "\"%.64s\" is not of the form [a-z]([-a-z0-9]{0,61}[a-z0-9])?", v->volume);
        join(part, path, "path");
        if (hp_mount_path_check(v->path, &e))
            gw_violation(c, part, "%s", e.message);
        const char *member;
        if (hp_volume_storage_check(v, &member, &e)) {
            join(part, path, member);
            gw_violation(c, part, "%s", e.message);
            join(part, path, "path");
        }
        for (size_t j = 0; j < i; j++)
            if (strcmp(spec->volumes[j]->path, v->path) == 0)
                gw_violation(c, part, "\"%.64s\" is used twice", v->path);
    }
}

void gw_validate_spec(struct gw_check *c, const char *field, const Harpoon__V1__ContainerSpec *spec)
{
    char path[GW_FIELD_MAX];
    if (!spec) {
        gw_violation(c, field, "must be set");
        return;
    }
    join(path, field, "image");
    gw_validate_image(c, path, spec->image);
    gw_validate_runtime(c, field, spec);
    join(path, field, "resources");
    gw_validate_resources(c, path, spec->resources, true);
    check_network(c, field, spec->network);
    check_bandwidth(c, field, spec);
    check_restart(c, field, spec->restart_policy);
    check_health(c, field, spec->health_check);
    check_placement(c, field, spec->placement);
    check_volumes(c, field, spec);
}
