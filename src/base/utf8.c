#include "base/utf8.h"

#include <stdint.h>

static bool is_continuation(unsigned char byte) {
    return (byte & 0xC0) == 0x80;
}

size_t utf8_sequence(struct slice text) {
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
    for (size_t i = 1; i < len; i++)
        if (!is_continuation(s[i]))
            return 0;
    bool overlong = (s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xF0 && s[1] < 0x90);
    bool surrogate = s[0] == 0xED && s[1] > 0x9F;
    bool too_large = s[0] == 0xF4 && s[1] > 0x8F;
    return overlong || surrogate || too_large ? 0 : len;
}

bool utf8_is_valid(struct slice text) {
    while (text.len) {
        uint64_t word;
        if (text.len >= sizeof word) {
            memcpy(&word, text.data, sizeof word);
            if (!(word & 0x8080808080808080)) {
                text.data += sizeof word;
                text.len -= sizeof word;
                continue;
            }
        }
        size_t len = utf8_sequence(text);
        if (!len)
            return false;
        text.data += len;
        text.len -= len;
    }
    return true;
}

void utf8_append(struct buf *out, struct slice text) {
    while (text.len) {
        size_t len = utf8_sequence(text), used = len ? len : 1;
        buf_append(out, len ? text.data : "\xEF\xBF\xBD", len ? len : 3);
        text.data += used;
        text.len -= used;
    }
}
