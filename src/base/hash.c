#include "base/hash.h"

#include <sodium.h>

static unsigned char key[crypto_shorthash_KEYBYTES];

void hash_init(void) {
    randombytes_buf(key, sizeof key);
}

uint64_t hash_of(struct slice bytes) {
    uint64_t hash;
    _Static_assert(sizeof hash == crypto_shorthash_BYTES, "a hash is 64 bits");
    crypto_shorthash((unsigned char *)&hash, (const unsigned char *)bytes.data, bytes.len, key);
    return hash;
}
