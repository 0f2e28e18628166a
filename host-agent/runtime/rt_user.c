/* rt_user.c — users and groups of an image, read from its own files inside its own root: a link in the image cannot point out of it. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "rt_fs.h"
#include "rt_spec.h"

#define ACCOUNTS_MAX (4 << 20)

/* "" when the file is missing, is no plain file, or is too long. */
static char *accounts(int rootfs_fd, const char *path)
{
    HA_CLOSE int fd = ha_fs_open_in_root(rootfs_fd, path, O_RDONLY | O_NOCTTY | O_NONBLOCK);
    struct stat st;
    char *text = NULL;
    size_t size;
    struct hp_error ignored = {0};
    if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) ||
        ha_fs_read_fd(fd, path, ACCOUNTS_MAX, &text, &size, &ignored))
        return strdup("");
    return text;
}

static bool number(const char *text, uint32_t *ret)
{
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno || end == text || *end || n > UINT32_MAX - 1 || text[0] == '-' || text[0] == '+' || text[0] == ' ')
        return false;
    *ret = (uint32_t)n;
    return true;
}

/* Splits the next line of an accounts file at its colons; false at the end. */
static bool next_line(char **text, char *fields[8])
{
    char *line = *text;
    if (!line || !*line)
        return false;
    char *end = strchr(line, '\n');
    if (end)
        *end = '\0';
    *text = end ? end + 1 : NULL;
    for (int i = 0; i < 8; i++) {
        fields[i] = line;
        char *colon = i < 7 ? strchr(line, ':') : NULL;
        if (colon)
            *colon = '\0';
        line = colon ? colon + 1 : line + strlen(line);
    }
    return true;
}

static bool find_user(int rootfs_fd, const char *name, struct ha_user *user, char *login, size_t login_size)
{
    HA_FREE char *text = accounts(rootfs_fd, "etc/passwd");
    char *p = text, *f[8];
    uint32_t wanted = 0, uid, gid;
    bool numeric = number(name, &wanted);
    while (next_line(&p, f)) {
        if (!number(f[2], &uid) || !number(f[3], &gid))
            continue;
        if (numeric ? uid != wanted : strcmp(f[0], name) != 0)
            continue;
        user->uid = uid;
        user->gid = gid;
        if (f[5][0] == '/' && strlen(f[5]) < sizeof user->home)
            strcpy(user->home, f[5]);
        if (strlen(f[0]) < login_size)
            strcpy(login, f[0]);
        return true;
    }
    if (numeric)
        user->uid = wanted;
    return numeric;
}

static bool listed(const char *members, const char *login)
{
    size_t n = strlen(login);
    for (const char *p = members; p && *p; p = strchr(p, ','), p = p ? p + 1 : NULL)
        if (n && strncmp(p, login, n) == 0 && (p[n] == ',' || p[n] == '\0'))
            return true;
    return false;
}

static bool find_group(int rootfs_fd, const char *name, uint32_t *ret)
{
    if (number(name, ret))
        return true;
    HA_FREE char *text = accounts(rootfs_fd, "etc/group");
    char *p = text, *f[8];
    while (next_line(&p, f))
        if (strcmp(f[0], name) == 0 && number(f[2], ret))
            return true;
    return false;
}

static void add_groups(int rootfs_fd, const char *login, struct ha_user *user)
{
    HA_FREE char *text = accounts(rootfs_fd, "etc/group");
    char *p = text, *f[8];
    uint32_t gid;
    while (next_line(&p, f) && user->group_count < HA_GROUPS_MAX)
        if (number(f[2], &gid) && gid != user->gid && listed(f[3], login))
            user->groups[user->group_count++] = gid;
}

int ha_user_resolve(int rootfs_fd, const char *text, struct ha_user *ret, struct hp_error *e)
{
    struct ha_user user = {.home = "/"};
    char name[256], login[256] = "";
    if (strlen(text) >= sizeof name)
        return hp_fail(e, HP_EINVAL, "user has more than %zu characters", sizeof name - 1);
    strcpy(name, text[0] ? text : "0");
    char *group = strchr(name, ':');
    if (group)
        *group++ = '\0';
    if (!find_user(rootfs_fd, name, &user, login, sizeof login))
        return hp_fail(e, HP_EINVAL, "user '%s' is neither a number nor in the image's /etc/passwd", name);
    if (group && *group && !find_group(rootfs_fd, group, &user.gid))
        return hp_fail(e, HP_EINVAL, "group '%s' is neither a number nor in the image's /etc/group", group);
    if (!group && login[0])
        add_groups(rootfs_fd, login, &user);
    if (user.uid == 0 && strcmp(user.home, "/") == 0)
        strcpy(user.home, "/root");
    *ret = user;
    return 0;
}
