#include "base/memory.h"

#include <link.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Code that the loader had to change has pages of its own, which must stay. */
static bool is_relocated(const struct dl_phdr_info *info, const ElfW(Phdr) * dynamic)
{
    for (const ElfW(Dyn) *d = (const void *)(info->dlpi_addr + dynamic->p_vaddr); d->d_tag != DT_NULL; d++)
        if (d->d_tag == DT_TEXTREL || (d->d_tag == DT_FLAGS && d->d_un.d_val & DF_TEXTREL))
            return true;
    return false;
}

/* Only whole pages of a segment that was never writable: what the loader protects after relocation is in a writable one. */
static void drop_segment(const struct dl_phdr_info *info, const ElfW(Phdr) * p, uintptr_t page)
{
    uintptr_t start = info->dlpi_addr + p->p_vaddr, end = start + p->p_filesz;
    start = (start + page - 1) & ~(page - 1);
    end &= ~(page - 1);
    if (start < end)
        (void)madvise((void *)start, end - start, MADV_DONTNEED);
}

static int drop_pages(struct dl_phdr_info *info, size_t size, void *user)
{
    const uintptr_t *page = user;
    (void)size;
    if (strncmp(info->dlpi_name, "linux-vdso", 10) == 0) /* the kernel's, no file */
        return 0;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_DYNAMIC && is_relocated(info, &info->dlpi_phdr[i]))
            return 0;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_LOAD && !(info->dlpi_phdr[i].p_flags & PF_W))
            drop_segment(info, &info->dlpi_phdr[i], *page);
    return 0;
}

void hp_memory_settle(void)
{
    long size = sysconf(_SC_PAGESIZE);
    uintptr_t page = size > 0 ? (uintptr_t)size : 4096;
    malloc_trim(0);
    dl_iterate_phdr(drop_pages, &page);
}
