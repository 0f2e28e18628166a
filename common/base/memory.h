/* memory.h — what a process gives back when it has nothing to do. */
#ifndef HP_BASE_MEMORY_H
#define HP_BASE_MEMORY_H

/* Gives back the heap's free pages, and unmaps from this process the pages of program and libraries that nobody writes. These stay in the page cache, and each comes back
 * by itself, without I/O, when it is next used: what was used at the start only does not stay. The heap's gain is memory; the other is pages that the kernel can
 * take first when it is short. Costs about a millisecond, and some hundred soft page faults when work comes. Any thread; the others may run meanwhile. */
void hp_memory_settle(void);

#endif
