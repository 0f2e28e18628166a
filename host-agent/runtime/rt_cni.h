/* rt_cni.h — container networks by CNI plugins (CNI spec 1.0.0): network namespaces that we own and pin, chains of plugins (rt_modes.h) run by us with prevResult, results kept for the way back. */
#ifndef HA_RT_CNI_H
#define HA_RT_CNI_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "harpoon/v1/container.pb-c.h"
#include "rt_modes.h"

#define HA_ADDRESS_SIZE 64

struct ha_cni {
    char plugins[256]; /* directory of the plugins */
    struct ha_modes modes;
    char data_dir[512];  /* addresses that are taken: survives a reboot */
    char netns_dir[512]; /* pinned network namespaces */
    bool masquerade;     /* containers reach other networks under the host's address */
    int lock_fd;         /* locked by us and by every plugin that runs, with what it has started; -1: not open */
};

/* Checks the options, makes the directories and the mount in which network namespaces are pinned. Plugins that an agent which died had begun end first: what they take back
 * in the end would be what is attached now. */
int ha_cni_init(struct ha_cni *cni, const char *state_dir, const char *run_dir, struct hp_error *e) HP_MUST_CHECK;
/* Takes that mount away when nothing is pinned there. */
void ha_cni_close(struct ha_cni *cni);

int ha_cni_netns_path(const struct ha_cni *cni, const char *uid, char *buf, size_t size,
                      struct hp_error *e) HP_MUST_CHECK;
/* Makes and pins the container's network namespace with loopback up, or finds it. *ret_new: it was made now and has no network yet. */
int ha_cni_netns_ensure(const struct ha_cni *cni, const char *uid, int *ret_fd, bool *ret_new,
                        struct hp_error *e) HP_MUST_CHECK;

/* Attaches the namespace to the network that the specification names, and publishes ports. `record` is the file that keeps what was done; an address found there is asked for again.
 * Blocks for as long as the plugins take. After a failure everything is taken back. HP_EUNSUPPORTED: this host does not offer the mode; HP_ELIMIT: it has no function left. */
int ha_cni_attach(const struct ha_cni *cni, const char *uid, const Harpoon__V1__ContainerSpec *spec, const char *record,
                  int timeout_ms, char ret_address[HA_ADDRESS_SIZE], struct hp_error *e) HP_MUST_CHECK;
/* Undoes an attachment, whole, half or never made, releases the address and unpins the namespace. */
int ha_cni_detach(const struct ha_cni *cni, const char *uid, const char *record, int timeout_ms,
                  struct hp_error *e) HP_MUST_CHECK;
/* The address in a record; "" none. */
void ha_cni_address(const char *record, char ret_address[HA_ADDRESS_SIZE]);
/* True when a record says that exactly this network was made, so that a namespace that is still pinned needs nothing. */
bool ha_cni_same(const struct ha_cni *cni, const char *uid, const Harpoon__V1__ContainerSpec *spec, const char *record);
/* Gives an attached container the bandwidth that the specification says, in place; nothing to do when it has it, or its network has no limit. */
int ha_cni_resize(const struct ha_cni *cni, const char *uid, const Harpoon__V1__ContainerSpec *spec, const char *record,
                  int timeout_ms, struct hp_error *e) HP_MUST_CHECK;

#endif
