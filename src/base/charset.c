#include "base/charset.h"
#include "base/utf8.h"

#include <errno.h>
#include <iconv.h>
#include <stdint.h>

enum { SLACK_BYTES = 64 };

/* Names in lower case (WHATWG Encoding, 4.2), and what iconv calls them. */
static const struct {
    struct slice name;
    const char *iconv; /* NULL: windows-1252, which is decoded here */
    bool is_unlike_ascii;
} charsets[] = {
    {SLICE("windows-1252"), NULL, false},
    {SLICE("cp1252"), NULL, false},
    {SLICE("iso-8859-1"), NULL, false}, /* said where windows-1252 is meant */
    {SLICE("latin1"), NULL, false},
    {SLICE("us-ascii"), NULL, false},
    {SLICE("ascii"), NULL, false},
    {SLICE("utf-16"), "UTF-16LE", true}, /* without a mark */
    {SLICE("utf-16le"), "UTF-16LE", true},
    {SLICE("utf-16be"), "UTF-16BE", true},
    {SLICE("utf-32"), "UTF-32LE", true},
    {SLICE("utf-32le"), "UTF-32LE", true},
    {SLICE("utf-32be"), "UTF-32BE", true},
    {SLICE("iso-2022-jp"), "ISO-2022-JP", true},
    {SLICE("iso-8859-2"), "ISO-8859-2", false},
    {SLICE("iso-8859-3"), "ISO-8859-3", false},
    {SLICE("iso-8859-4"), "ISO-8859-4", false},
    {SLICE("iso-8859-5"), "ISO-8859-5", false},
    {SLICE("iso-8859-6"), "ISO-8859-6", false},
    {SLICE("iso-8859-7"), "ISO-8859-7", false},
    {SLICE("iso-8859-8"), "ISO-8859-8", false},
    {SLICE("iso-8859-9"), "CP1254", false},
    {SLICE("iso-8859-10"), "ISO-8859-10", false},
    {SLICE("iso-8859-13"), "ISO-8859-13", false},
    {SLICE("iso-8859-14"), "ISO-8859-14", false},
    {SLICE("iso-8859-15"), "ISO-8859-15", false},
    {SLICE("iso-8859-16"), "ISO-8859-16", false},
    {SLICE("windows-874"), "CP874", false},
    {SLICE("windows-1250"), "CP1250", false},
    {SLICE("windows-1251"), "CP1251", false},
    {SLICE("cp1251"), "CP1251", false},
    {SLICE("windows-1253"), "CP1253", false},
    {SLICE("windows-1254"), "CP1254", false},
    {SLICE("windows-1255"), "CP1255", false},
    {SLICE("windows-1256"), "CP1256", false},
    {SLICE("windows-1257"), "CP1257", false},
    {SLICE("windows-1258"), "CP1258", false},
    {SLICE("koi8-r"), "KOI8-R", false},
    {SLICE("koi8-u"), "KOI8-U", false},
    {SLICE("ibm866"), "IBM866", false},
    {SLICE("macintosh"), "MACINTOSH", false},
    {SLICE("shift_jis"), "CP932", false},
    {SLICE("sjis"), "CP932", false},
    {SLICE("windows-31j"), "CP932", false},
    {SLICE("euc-jp"), "EUC-JP", false},
    {SLICE("gb2312"), "GB18030", false},
    {SLICE("gbk"), "GB18030", false},
    {SLICE("gb18030"), "GB18030", false},
    {SLICE("big5"), "BIG5-HKSCS", false},
    {SLICE("euc-kr"), "CP949", false},
    {SLICE("ks_c_5601-1987"), "CP949", false},
};

enum { CHARSET_COUNT = sizeof charsets / sizeof *charsets };

/* The position in the table, CHARSET_COUNT when the name is not known. */
static size_t find(struct slice name) {
    size_t at = 0;
    while (at < CHARSET_COUNT && !slice_equal_nocase(charsets[at].name, name))
        at++;
    return at;
}

bool charset_is_unlike_ascii(struct slice charset) {
    size_t at = charset.len ? find(charset) : CHARSET_COUNT;
    return at < CHARSET_COUNT && charsets[at].is_unlike_ascii;
}

struct slice charset_of_mark(struct slice text) {
    if (slice_starts_with(text, SLICE("\xFF\xFE\0\0")))
        return SLICE("utf-32le");
    if (slice_starts_with(text, SLICE("\0\0\xFE\xFF")))
        return SLICE("utf-32be");
    if (slice_starts_with(text, SLICE("\xFF\xFE")))
        return SLICE("utf-16le");
    return slice_starts_with(text, SLICE("\xFE\xFF")) ? SLICE("utf-16be") : SLICE("");
}

/* --- windows-1252 ----------------------------------------------------------------------------- */

/* False when it would grow beyond `max` bytes. */
static bool append_windows_1252(struct buf *out, struct slice text, size_t max) {
    /* 0x80 to 0x9F; the five that mean nothing are themselves, as with browsers. */
    static const uint16_t points[32] = {
        0x20AC, 0x81,   0x201A, 0x192,  0x201E, 0x2026, 0x2020, 0x2021, 0x2C6,  0x2030, 0x160,
        0x2039, 0x152,  0x8D,   0x17D,  0x8F,   0x90,   0x2018, 0x2019, 0x201C, 0x201D, 0x2022,
        0x2013, 0x2014, 0x2DC,  0x2122, 0x161,  0x203A, 0x153,  0x9D,   0x17E,  0x178,
    };
    buf_reserve(out, text.len);
    for (size_t i = 0; i < text.len && out->len <= max && !out->failed; i++) {
        unsigned char c = (unsigned char)text.data[i];
        utf8_put(out, c >= 0x80 && c < 0xA0 ? points[c - 0x80] : c);
    }
    return out->len <= max && !out->failed;
}

/* --- iconv ------------------------------------------------------------------------------------ */

/* False when it is no text in that charset, or grows beyond `max` bytes. */
static bool convert(struct buf *out, struct slice text, iconv_t converter, size_t max) {
    char *from = (char *)text.data; /* iconv() only reads it */
    for (bool is_flushed = false; !is_flushed;) {
        char piece[4096], *to = piece;
        size_t room = sizeof piece;
        is_flushed = !text.len;
        size_t status = iconv(converter, is_flushed ? NULL : &from, &text.len, &to, &room);
        if (status == (size_t)-1 && errno != E2BIG)
            return false;
        buf_append(out, piece, sizeof piece - room);
        if (out->len > max || out->failed)
            return false;
    }
    return true;
}

void charset_deinit(struct charset *charset) {
    if (charset->opened)
        iconv_close(charset->converter);
    charset->opened = NULL;
}

/* Opens the converter for `name`, or sets back the one that is open. */
static bool open_converter(struct charset *charset, const char *name) {
    if (charset->opened == name) {
        iconv(charset->converter, NULL, NULL, NULL, NULL);
        return true;
    }
    charset_deinit(charset);
    charset->converter = iconv_open("UTF-8", name);
    bool is_open = (intptr_t)charset->converter != -1;
    charset->opened = is_open ? name : NULL;
    return is_open;
}

bool charset_decode(struct buf *out, struct slice text, struct charset *charset) {
    size_t at = find(charset->name), before = out->len, max = before + 2 * text.len + SLACK_BYTES;
    if (at == CHARSET_COUNT)
        return false;
    struct slice mark = charset_of_mark(text);
    if (charsets[at].is_unlike_ascii && mark.len)
        text = slice_after(text, slice_starts_with(mark, SLICE("utf-32")) ? 4 : 2);
    if (mark.len && slice_starts_with(charsets[at].name, SLICE("utf-")))
        at = find(mark);
    const char *name = charsets[at].iconv;
    bool is_text =
        name ? open_converter(charset, name) && convert(out, text, charset->converter, max)
             : append_windows_1252(out, text, max);
    if (!is_text && !out->failed)
        out->len = before;
    return is_text;
}

void charset_decode_text(struct buf *out, struct slice text, struct charset *charset) {
    if (!charset_decode(out, text, charset) && !out->failed)
        append_windows_1252(out, text, SIZE_MAX);
}
