/* pages.h — opaque page tokens: where a list goes on, bound to the question that was asked. */
#ifndef GW_PAGES_H
#define GW_PAGES_H

#include <stdint.h>

#include "base/error.h"

enum { GW_PAGE_KEY_MAX = 320, GW_PAGE_TOKEN_MAX = 512 };

/* The hash of everything in a list request but page_size and page_token: a token of another question is refused. Texts end at NULL. */
uint64_t gw_page_question(const char *method, ...) __attribute__((sentinel));
/* `key` is the place: the last name listed, or a number. */
void gw_page_token(char out[GW_PAGE_TOKEN_MAX], uint64_t question, const char *key);
/* An empty token gives an empty key. HP_EINVAL when it is not one of ours, or of another question. */
int gw_page_key(char out[GW_PAGE_KEY_MAX], uint64_t question, const char *token) HP_MUST_CHECK;

#endif
