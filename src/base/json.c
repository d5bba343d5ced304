#include "base/json.h"
#include "base/utf8.h"

#include <assert.h>
#include <sodium.h>
#include <stdlib.h>
#include <yajl/yajl_parse.h>

/*
 * yajl allocates a handful of small blocks for each text and keeps nothing between two. They come from
 * this block, which is forgotten as a whole; what does not fit comes from the heap.
 */
struct arena {
    size_t used;
    _Alignas(max_align_t) char bytes[4096];
};

struct check {
    yajl_handle parser;
    struct slice text;
    json_member *on_member;
    void *context;
    int depth;
    size_t end; /* of the outermost object or array */
    bool too_deep;
    struct slice key;
    size_t after_key;
    size_t value_at;
    struct buf key_copy;
};

static void *arena_alloc(void *context, size_t size) {
    struct arena *arena = context;
    size_t aligned = (size + 15) & ~(size_t)15;
    if (aligned > sizeof arena->bytes - arena->used)
        return malloc(size);
    void *block = arena->bytes + arena->used;
    arena->used += aligned;
    return block;
}

static bool is_in_arena(const struct arena *arena, const void *block) {
    return (const char *)block >= arena->bytes &&
           (const char *)block < arena->bytes + sizeof arena->bytes;
}

static void arena_free(void *context, void *block) {
    if (block && !is_in_arena(context, block))
        free(block);
}

static void *arena_realloc(void *context, void *block, size_t size) {
    struct arena *arena = context;
    if (!block)
        return arena_alloc(context, size);
    if (!is_in_arena(arena, block))
        return realloc(block, size);
    void *moved = arena_alloc(context, size);
    if (moved) {
        /* The old size is not known; whatever lies behind the block in the arena is harmless to copy. */
        size_t behind = (size_t)(arena->bytes + sizeof arena->bytes - (char *)block);
        memmove(moved, block, size < behind ? size : behind);
    }
    return moved;
}

static int value_ends(struct check *check) {
    if (check->depth == 1 && check->key.data) {
        size_t end = yajl_get_bytes_consumed(check->parser);
        check->on_member(check->context, check->key,
                         (struct json_span){check->value_at, end - check->value_at});
        check->key.data = NULL;
    }
    return 1;
}

static int value_opens(void *context) {
    struct check *check = context;
    if (++check->depth > JSON_DEPTH_MAX) {
        check->too_deep = true;
        return 0;
    }
    return 1;
}

static int value_closes(void *context) {
    struct check *check = context;
    if (--check->depth == 0)
        check->end = yajl_get_bytes_consumed(check->parser);
    return value_ends(check);
}

static int on_null(void *context) {
    return value_ends(context);
}

static int on_boolean(void *context, int value) {
    (void)value;
    return value_ends(context);
}

static int on_number(void *context, const char *text, size_t len) {
    (void)text, (void)len;
    return value_ends(context);
}

static int on_string(void *context, const unsigned char *text, size_t len) {
    (void)text, (void)len;
    return value_ends(context);
}

/* Notes where the value behind a top-level key begins: after the colon and the white space around it. */
static int on_key(void *context, const unsigned char *key, size_t len) {
    struct check *check = context;
    if (check->depth != 1)
        return 1;
    buf_reset(&check->key_copy, SIZE_MAX);
    buf_append(&check->key_copy, key, len);
    if (check->key_copy.failed)
        return 0;
    check->key = (struct slice){len ? check->key_copy.data : "", len};
    size_t at = yajl_get_bytes_consumed(check->parser);
    while (at < check->text.len && strchr(" \t\r\n:", check->text.data[at]) && check->text.data[at])
        at++;
    check->value_at = at;
    return 1;
}

static const yajl_callbacks member_callbacks = {
    .yajl_null = on_null,
    .yajl_boolean = on_boolean,
    .yajl_number = on_number,
    .yajl_string = on_string,
    .yajl_start_map = value_opens,
    .yajl_map_key = on_key,
    .yajl_end_map = value_closes,
    .yajl_start_array = value_opens,
    .yajl_end_array = value_closes,
};

static const yajl_callbacks depth_callbacks = {
    .yajl_start_map = value_opens,
    .yajl_end_map = value_closes,
    .yajl_start_array = value_opens,
    .yajl_end_array = value_closes,
};

static bool is_blank(struct slice text) {
    size_t at = 0;
    while (at < text.len && memchr(" \t\r\n", text.data[at], 4))
        at++;
    return at == text.len;
}

enum json_kind json_check(struct slice text, json_member *on_member, void *context) {
    /* yajl takes form feed and vertical tab between tokens for white space; JSON allows them nowhere. */
    if (memchr(text.data, '\f', text.len) || memchr(text.data, '\v', text.len) ||
        !utf8_is_valid(text))
        return JSON_INVALID;

    struct arena arena;
    arena.used = 0;
    yajl_alloc_funcs funcs = {arena_alloc, arena_realloc, arena_free, &arena};
    struct check check = {.text = text, .on_member = on_member, .context = context};
    check.parser = yajl_alloc(on_member ? &member_callbacks : &depth_callbacks, &funcs, &check);
    if (!check.parser)
        return JSON_NO_MEMORY;
    yajl_config(check.parser, yajl_dont_validate_strings, 1);
    yajl_status status = yajl_parse(check.parser, (const unsigned char *)text.data, text.len);
    if (status == yajl_status_ok)
        status = yajl_complete_parse(check.parser);
    yajl_free(check.parser);

    enum json_kind kind = JSON_INVALID;
    if (check.key_copy.failed)
        kind = JSON_NO_MEMORY;
    else if (check.too_deep)
        kind = JSON_TOO_DEEP;
    else if (status == yajl_status_ok) {
        size_t at = 0;
        while (at < text.len && strchr(" \t\r\n", text.data[at]))
            at++;
        kind = at == text.len         ? JSON_INVALID
               : text.data[at] == '{' ? JSON_OBJECT
               : text.data[at] == '[' ? JSON_ARRAY
                                      : JSON_SCALAR;
        /* yajl does not see a string that begins behind the text and never ends. */
        if (kind != JSON_SCALAR &&
            !is_blank((struct slice){text.data + check.end, text.len - check.end}))
            kind = JSON_INVALID;
    }
    buf_deinit(&check.key_copy);
    return kind;
}

/* A quote, a backslash or a control character. */
static void write_escape(struct buf *out, unsigned char c) {
    static const char hex[] = "0123456789abcdef";
    if (c == '"' || c == '\\' || c == '\n')
        buf_append(out, (char[]){'\\', c == '\n' ? 'n' : (char)c}, 2);
    else
        buf_append(out, (char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
}

void json_write_string(struct buf *out, struct slice text) {
    buf_reserve(out, text.len + 2);
    buf_putc(out, '"');
    size_t plain = 0; /* bytes at the start of `text` that need no change */
    while (plain < text.len) {
        unsigned char c = (unsigned char)text.data[plain];
        size_t len =
            c < 0x80 ? 1 : utf8_sequence((struct slice){text.data + plain, text.len - plain});
        if (len && c >= 0x20 && c != '"' && c != '\\' && c != 0x7f) {
            plain += len;
            continue;
        }
        buf_append(out, text.data, plain);
        if (!len)
            buf_puts(out, "\xEF\xBF\xBD");
        else
            write_escape(out, c);
        text.data += plain + 1;
        text.len -= plain + 1;
        plain = 0;
    }
    buf_append(out, text.data, plain);
    buf_putc(out, '"');
}

void json_write_base64(struct buf *out, struct slice bytes) {
    size_t size = sodium_base64_ENCODED_LEN(bytes.len, sodium_base64_VARIANT_ORIGINAL);
    buf_putc(out, '"');
    if (!buf_reserve(out, size))
        return;
    sodium_bin2base64(out->data + out->len, size, (const unsigned char *)bytes.data, bytes.len,
                      sodium_base64_VARIANT_ORIGINAL);
    out->len += size - 1;
    buf_putc(out, '"');
}
