#include "wire/signal_name.h"

#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* One or two digits; -1 for anything else. */
static int small_number(const char *text)
{
    size_t len = strlen(text);
    return len >= 1 && len <= 2 && strspn(text, "0123456789") == len ? atoi(text) : -1;
}

static int named(const char *name)
{
    static const struct {
        const char *name;
        int number;
    } others[] = {{"IO", SIGIO}, {"IOT", SIGIOT}, {"CLD", SIGCHLD}}; /* the C library knows one name of each signal */
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (strcmp(name, others[i].name) == 0)
            return others[i].number;
    for (int number = 1; number < 32; number++) {
        const char *known = sigabbrev_np(number);
        if (known && strcmp(name, known) == 0)
            return number;
    }
    if (strncmp(name, "RTMIN", 5) != 0)
        return -1;
    int above = name[5] == '+' ? small_number(name + 6) : name[5] == '\0' ? 0 : -1;
    return above < 0 ? -1 : SIGRTMIN + above;
}

int hp_signal_number(const char *text, int *ret, struct hp_error *e)
{
    int number = SIGTERM;
    if (*text)
        number = small_number(text);
    if (number < 0)
        number = named(strncmp(text, "SIG", 3) == 0 ? text + 3 : text);
    if (number < 1 || number > SIGRTMAX)
        return hp_fail(e, HP_EINVAL, "stop signal '%.32s' is unknown", text);
    *ret = number;
    return 0;
}
