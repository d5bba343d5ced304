#include "base/utf8.h"

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

void utf8_put(struct buf *out, uint32_t point) {
    if (point < 0x80) {
        buf_putc(out, (char)point);
        return;
    }
    size_t len = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    char bytes[4];
    for (size_t i = len - 1; i > 0; i--, point >>= 6)
        bytes[i] = (char)(0x80 | (point & 0x3F));
    bytes[0] = (char)(0xF00 >> len | point);
    buf_append(out, bytes, len);
}

void utf8_append(struct buf *out, struct slice text) {
    while (text.len) {
        size_t len = utf8_sequence(text), used = len ? len : 1;
        buf_append(out, len ? text.data : "\xEF\xBF\xBD", len ? len : 3);
        text.data += used;
        text.len -= used;
    }
}
