/* fail_alloc.h — every allocation of a scenario fails once, in turn. Whoever links fail_alloc.c has the allocator of the whole process replaced, libraries
 * included, with sanitizers or without.
 *
 * A scenario is run once to count, then once for each allocation that it made. It must clean up behind itself, also when it was cut short: memory that it
 * allocated and did not free fails the test. Only what is allocated by the thread that runs the scenario, between fa_enter and fa_leave, is counted and may fail, so
 * that models, assertions and other threads are left alone. */
#ifndef TESTS_FAIL_ALLOC_H
#define TESTS_FAIL_ALLOC_H

#include <stdbool.h>
#include <stddef.h>

/* Runs `scenario` with no failure, then with the 1st, 2nd, … allocation failing, until all have failed once; gives how many there were. Fails the test, with
 * the place of the allocation, when memory is left over; the scenario asserts everything else. */
long fa_each(void (*scenario)(void *user), void *user);

/* Around the code under test; may be nested. Outside of fa_each they do nothing. */
void fa_enter(void);
void fa_leave(void);
/* True when this run's allocation has failed by now. */
bool fa_failed(void);
/* The number of the allocation that fails in this run; 0 in the run that counts. */
long fa_failing(void);

#endif
