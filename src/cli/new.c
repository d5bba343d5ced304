#include "cli/new.h"
#include "base/buf.h"
#include "base/json.h"
#include "base/keys.h"

#include <sodium.h>
#include <stdio.h>

static const char help[] =
    "Usage: longline new [BASE_URL]\n"
    "       longline new --keys [--json] [BASE_URL]\n"
    "\n"
    "Prints a new secret address below BASE_URL, for example https://example.com. Who has it\n"
    "may send, read and delete.\n"
    "\n"
    "With --keys it prints the three addresses of a new channel: one that may do everything,\n"
    "one that only reads, and one that only sends; with --json as one line of JSON. If BASE_URL\n"
    "ends in such an address, it prints what follows from that.\n";

struct new_options {
    bool wants_keys, wants_json, wants_help;
    const char *base; /* NULL: none */
};

static bool parse(struct new_options *options, int argc, char **argv) {
    *options = (struct new_options){0};
    for (int i = 0; i < argc; i++) {
        struct slice word = slice_of(argv[i]);
        if (slice_equal(word, SLICE("--help")))
            options->wants_help = true;
        else if (slice_equal(word, SLICE("--keys")))
            options->wants_keys = true;
        else if (slice_equal(word, SLICE("--json")))
            options->wants_json = true;
        else if (slice_starts_with(word, SLICE("-")) || options->base)
            return false;
        else
            options->base = argv[i];
    }
    return options->wants_help || options->wants_keys || !options->wants_json;
}

static struct slice without_slashes(struct slice base) {
    while (base.len && base.data[base.len - 1] == '/')
        base.len--;
    return base;
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

bool new_print(int argc, char **argv) {
    struct new_options options;
    if (!parse(&options, argc, argv))
        return false;
    if (options.wants_help) {
        fputs(help, stdout);
        return true;
    }
    struct slice base =
        without_slashes(slice_of(options.base ? options.base : "http://localhost:3000"));
    if (!options.wants_keys) {
        print_secret(base);
        return true;
    }
    char key[KEY_BYTES];
    enum key_kind kind = take_key(&base, key);
    struct buf below = {0};
    buf_append(&below, base.data, base.len);
    if (kind == KEY_PLAIN) {
        buf_putc(&below, '/');
        key_new(key);
        kind = KEY_ALL;
    }
    print_keys((struct slice){below.data, below.len}, key, kind, options.wants_json);
    buf_deinit(&below);
    return true;
}
