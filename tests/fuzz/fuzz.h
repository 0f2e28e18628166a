/* fuzz.h — one fuzz target a program: libFuzzer's entry point, also run over the committed corpus, and mutations of it, by driver.c. */
#ifndef HP_TESTS_FUZZ_FUZZ_H
#define HP_TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* Any bytes: must return 0, and neither crash, leak nor hang. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
