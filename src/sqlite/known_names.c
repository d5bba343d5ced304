#include "sqlite/known_names.h"

#include <stdlib.h>

enum { NAMES_A_BLOCK = sizeof(struct known_names_block) / 2 };

static size_t capacity_of(int layer) {
    return (size_t)KNOWN_NAMES_FIRST << 2 * layer;
}

static struct known_names_block *block_of(const struct known_names *names, int layer,
                                          uint64_t hash) {
    uint64_t blocks = capacity_of(layer) / NAMES_A_BLOCK;
    return &names->layers[layer][((hash >> 32) * blocks) >> 32];
}

/* One bit of each word of a block, by the salts of the specification. */
static struct known_names_block bits_of(uint64_t hash) {
    static const uint32_t salts[] = {0x47b6137b, 0x44974d91, 0x8824ad5b, 0xa2b7289d,
                                     0x705495c7, 0x2df1424b, 0x9efc4947, 0x5c6bfb31};
    struct known_names_block bits;
    for (size_t i = 0; i < sizeof salts / sizeof *salts; i++)
        bits.words[i] = 1U << (((uint32_t)hash * salts[i]) >> 27);
    return bits;
}

static bool has_bits(const struct known_names_block *block, const struct known_names_block *bits) {
    uint32_t missing = 0;
    for (size_t i = 0; i < sizeof bits->words / sizeof *bits->words; i++)
        missing |= bits->words[i] & ~block->words[i];
    return !missing;
}

void known_names_deinit(struct known_names *names) {
    for (int i = 0; i < names->layer_count; i++)
        free(names->layers[i]);
}

static void grow(struct known_names *names) {
    size_t capacity = capacity_of(names->layer_count);
    struct known_names_block *layer = calloc(capacity / NAMES_A_BLOCK, sizeof *layer);
    if (!layer)
        return;
    names->layers[names->layer_count++] = layer;
    names->room = capacity;
}

static bool has(const struct known_names *names, uint64_t hash) {
    struct known_names_block bits = bits_of(hash);
    for (int i = names->layer_count; i-- > 0;)
        if (has_bits(block_of(names, i, hash), &bits))
            return true;
    return false;
}

void known_names_add(struct known_names *names, uint64_t hash) {
    if (has(names, hash))
        return;
    if (!names->room && names->layer_count < KNOWN_NAMES_LAYERS)
        grow(names);
    if (!names->layer_count) {
        names->lacks_memory = true;
        return;
    }
    struct known_names_block *block = block_of(names, names->layer_count - 1, hash);
    struct known_names_block bits = bits_of(hash);
    for (size_t i = 0; i < sizeof bits.words / sizeof *bits.words; i++)
        block->words[i] |= bits.words[i];
    names->room -= names->room > 0;
}

void known_names_complete(struct known_names *names) {
    names->is_complete = true;
}

bool known_names_may_have(const struct known_names *names, uint64_t hash) {
    return !names->is_complete || names->lacks_memory || has(names, hash);
}
