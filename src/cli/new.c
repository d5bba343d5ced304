#include "cli/new.h"
#include "base/address.h"
#include "base/buf.h"
#include "base/json.h"
#include "base/keys.h"
#include "cli/options.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

enum { USAGE = 2 }; /* as for the server */

static struct slice without_slashes(struct slice base) {
    while (base.len && base.data[base.len - 1] == '/')
        base.len--;
    return base;
}

/* The length of http:// or https:// in front of it; 0 without. */
static size_t scheme_bytes(struct slice text) {
    static const struct slice schemes[] = {SLICE("http://"), SLICE("https://")};
    for (size_t i = 0; i < 2; i++)
        if (text.len >= schemes[i].len &&
            slice_equal_nocase((struct slice){text.data, schemes[i].len}, schemes[i]))
            return schemes[i].len;
    return 0;
}

/* Writes the address that the secrets are below, with http:// where the user has left it out; false
 * if it is of no web server. Nothing at all, and a path without a server, stay as they are. */
static bool write_base(struct slice text, struct buf *base) {
    struct slice host = slice_after(text, scheme_bytes(text));
    if (host.len == text.len && text.len && text.data[0] != '/' && key_kind(text) == KEY_PLAIN)
        buf_append(base, "http://", 7);
    buf_append(base, text.data, text.len);
    const char *slash = memchr(host.data, '/', host.len);
    size_t rest = host.len;
    host.len = slash ? (size_t)(slash - host.data) : rest;
    if (!host.len)
        return host.data == text.data;
    for (size_t i = 0; i < text.len; i++)
        if ((unsigned char)text.data[i] <= ' ' || strchr("?#\x7f", text.data[i]))
            return false; /* the secret would not be part of the path */
    if (host.data[0] == ':')
        return false;
    const char *colon = memrchr(host.data, ':', host.len);
    return !colon || host.data[host.len - 1] == ']' || address_is_sound(host);
}

/* 128 random bits as 22 characters that need no escape in an address. */
static void print_secret(struct slice base) {
    unsigned char bytes[16];
    char text[sodium_base64_ENCODED_LEN(sizeof bytes, sodium_base64_VARIANT_URLSAFE_NO_PADDING)];
    randombytes_buf(bytes, sizeof bytes);
    sodium_bin2base64(text, sizeof text, bytes, sizeof bytes,
                      sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    printf("%.*s/%s\n", (int)base.len, base.data, text);
}

/* Takes the key off the end of `*base`, with the slash in front of it; KEY_PLAIN when none is
 * there. */
static enum key_kind take_key(struct slice *base, char key[KEY_BYTES]) {
    if (base->len < KEY_BYTES)
        return KEY_PLAIN;
    size_t rest = base->len - KEY_BYTES;
    struct slice end = slice_after(*base, rest);
    if (rest && base->data[rest - 1] != '/')
        return KEY_PLAIN;
    enum key_kind kind = key_kind(end);
    if (kind == KEY_PLAIN)
        return KEY_PLAIN;
    memcpy(key, end.data, KEY_BYTES);
    base->len = rest;
    return kind;
}

static void print_line(struct slice base, const char *key, const char *label) {
    printf("%s  %.*s%.*s\n", label, (int)base.len, base.data, KEY_BYTES, key);
}

static void write_json(struct buf *out, struct slice base, const char *key, const char *name) {
    struct buf address = {0};
    buf_append(&address, base.data, base.len);
    buf_append(&address, key, KEY_BYTES);
    buf_printf(out, "%s\"%s\":", out->len ? "," : "{", name);
    json_write_string(out, (struct slice){address.data, address.len});
    out->failed |= address.failed;
    buf_deinit(&address);
}

/* Prints the key, which is of that kind, and what follows from it. `base` ends with a slash, unless
 * it is empty. */
static void print_keys(struct slice base, char key[KEY_BYTES], enum key_kind kind, bool is_json) {
    static const struct {
        const char *name, *label;
    } told[] = {
        {"all", "keep to yourself, may do everything:"},
        {"read", "give to those who read:             "},
        {"send", "paste where services send:          "},
    };
    struct buf json = {0};
    for (size_t i = kind - KEY_ALL; i < sizeof told / sizeof *told; i++, key_next(key)) {
        if (is_json)
            write_json(&json, base, key, told[i].name);
        else
            print_line(base, key, told[i].label);
    }
    if (is_json)
        printf("%.*s}\n", (int)json.len, json.data);
    buf_deinit(&json);
}

static void print_three(struct slice base, bool is_json) {
    char key[KEY_BYTES];
    enum key_kind kind = take_key(&base, key);
    struct buf below = {0};
    buf_append(&below, base.data, base.len);
    if (kind == KEY_PLAIN) {
        buf_putc(&below, '/');
        key_new(key);
        kind = KEY_ALL;
    }
    print_keys((struct slice){below.data, below.len}, key, kind, is_json);
    buf_deinit(&below);
}

int new_run(int argc, char **argv) {
    struct options options;
    char error[256];
    if (!options_parse(&options, COMMAND_NEW, argc, argv, error, sizeof error))
        return options_complain(USAGE, "%s", error);
    if (options.help) {
        options_help(COMMAND_NEW);
        return EXIT_SUCCESS;
    }
    if (options.word_count > 1 || (options.json && !options.keys))
        return options_complain(USAGE, "usage: longline new [--keys [--json]] [BASE_URL]");
    struct buf base = {0};
    struct slice word = slice_of(options.word_count ? options.words[0] : "localhost:3000");
    bool is_sound = write_base(without_slashes(word), &base);
    struct slice address = {base.data, base.len};
    if (!is_sound)
        options_complain(USAGE, "BASE_URL is the address of a web server: http://localhost:3000");
    else if (options.keys)
        print_three(address, options.json);
    else
        print_secret(address);
    buf_deinit(&base);
    return is_sound ? EXIT_SUCCESS : USAGE;
}
