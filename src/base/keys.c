#include "base/keys.h"

#include <sodium.h>
#include <string.h>

enum { PREFIX_BYTES = 2, BITS_A_LETTER = 5 };

static const char letters[] = "abcdefghijklmnopqrstuvwxyz234567";

static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= '2' && c <= '7');
}

static enum key_kind kind_of_prefix(char c) {
    return c == 'r' ? KEY_ALL : c == 'v' ? KEY_READ : c == 'w' ? KEY_SEND : KEY_PLAIN;
}

enum key_kind key_kind(struct slice name) {
    if (name.len != KEY_BYTES || name.data[1] != '_')
        return KEY_PLAIN;
    enum key_kind kind = kind_of_prefix(name.data[0]);
    if (kind != KEY_PLAIN)
        for (size_t i = PREFIX_BYTES; i < KEY_BYTES; i++)
            if (!is_letter(name.data[i]))
                return KEY_PLAIN;
    return kind;
}

/* Writes a key: its prefix, and as much of the bytes in base32 as there is room for. */
static void write_key(char key[KEY_BYTES], char prefix, const unsigned char *bytes) {
    unsigned bits = 0, count = 0;
    key[0] = prefix;
    key[1] = '_';
    for (size_t i = PREFIX_BYTES; i < KEY_BYTES; i++) {
        if (count < BITS_A_LETTER) {
            bits = bits << 8 | *bytes++;
            count += 8;
        }
        count -= BITS_A_LETTER;
        key[i] = letters[bits >> count & 31];
    }
}

void key_next(char key[KEY_BYTES]) {
    static const char salt[] = "longline:";
    enum { SALT_BYTES = sizeof salt - 1 };
    char text[SALT_BYTES + KEY_BYTES];
    unsigned char hash[crypto_hash_sha256_BYTES];
    if (key[0] == 'w')
        return;
    memcpy(text, salt, SALT_BYTES);
    memcpy(text + SALT_BYTES, key, KEY_BYTES);
    crypto_hash_sha256(hash, (const unsigned char *)text, sizeof text);
    write_key(key, key[0] == 'r' ? 'v' : 'w', hash);
}

enum key_kind key_to_channel(char *name, size_t len) {
    enum key_kind kind = key_kind((struct slice){name, len});
    if (kind == KEY_ALL)
        key_next(name);
    if (kind == KEY_ALL || kind == KEY_READ)
        key_next(name);
    return kind;
}

void key_new(char key[KEY_BYTES]) {
    unsigned char bytes[17]; /* 26 letters of 5 bits, rounded up */
    randombytes_buf(bytes, sizeof bytes);
    write_key(key, 'r', bytes);
}
