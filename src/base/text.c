#include "base/text.h"

static int hex_digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* The byte of the %XX at the start of `text`, -1 when there is none. */
static int percent_byte(struct slice text) {
    if (text.len < 3 || text.data[0] != '%')
        return -1;
    int high = hex_digit(text.data[1]), low = hex_digit(text.data[2]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

long text_decode_percent(struct slice text, char *out) {
    long len = 0;
    while (text.len) {
        size_t used = 1;
        char c = *text.data;
        if (c == '%') {
            int byte = percent_byte(text);
            if (byte < 0)
                return -1;
            c = (char)byte;
            used = 3;
        }
        out[len++] = c;
        text = slice_after(text, used);
    }
    return len;
}

bool text_next_pair(struct slice *text, struct text_pair *pair) {
    struct slice rest;
    do {
        if (!slice_cut(text, '&', &rest))
            return false;
    } while (!rest.len);
    slice_cut(&rest, '=', &pair->name);
    pair->value = rest.data ? rest : SLICE("");
    return true;
}

void text_decode_form(struct buf *out, struct slice text) {
    while (text.len) {
        int byte = percent_byte(text);
        size_t used = byte < 0 ? 1 : 3;
        buf_putc(out, byte >= 0 ? (char)byte : *text.data == '+' ? ' ' : *text.data);
        text = slice_after(text, used);
    }
}

bool text_find_pair(struct slice text, struct slice name, struct buf *value) {
    for (struct text_pair pair; text_next_pair(&text, &pair);) {
        if (!slice_equal(pair.name, name))
            continue;
        buf_reset(value, SIZE_MAX);
        text_decode_form(value, pair.value);
        return true;
    }
    return false;
}
