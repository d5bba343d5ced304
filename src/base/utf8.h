/* UTF-8 as RFC 3629 defines it: no overlong forms, no surrogates, nothing above U+10FFFF. */
#pragma once

#include "base/buf.h"
#include "base/slice.h"

/* The length of the valid sequence at the start of `text` (1 to 4), 0 if there is none. */
static inline size_t utf8_sequence(struct slice text) {
    if (!text.len)
        return 0;
    const unsigned char *s = (const unsigned char *)text.data;
    if (s[0] < 0x80)
        return 1;
    if (s[0] < 0xC2 || s[0] > 0xF4)
        return 0;
    size_t len = s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
    if (text.len < len)
        return 0;
    /* Outside of these the second byte makes an overlong form, a surrogate, or more than U+10FFFF.
     * */
    unsigned char lowest = s[0] == 0xE0 ? 0xA0 : s[0] == 0xF0 ? 0x90 : 0x80;
    unsigned char highest = s[0] == 0xED ? 0x9F : s[0] == 0xF4 ? 0x8F : 0xBF;
    if (s[1] < lowest || s[1] > highest)
        return 0;
    for (size_t i = 2; i < len; i++)
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    return len;
}

bool utf8_is_valid(struct slice text);

/* Appends the UTF-8 of a code point. */
void utf8_put(struct buf *out, uint32_t point);

/* Appends `text` to `out`, with U+FFFD for every byte that is not part of a valid sequence. */
void utf8_append(struct buf *out, struct slice text);
