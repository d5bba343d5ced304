/*
 * Which names channels have, roughly: a name is unknown, or it may be known. The first push to a
 * channel asks here, and need not look through the index on names, of which most pages are on the
 * disk only. It is a Bloom filter in blocks, as
 * https://github.com/apache/parquet-format/blob/master/BloomFilter.md describes them.
 *
 * It takes 2 bytes a name, in layers of which each has room for four times as many as the one
 * before: 5.6 million names and 11 MB in all. Then fewer than 1 in 100 unknown names may be known.
 * With more, or without memory, it is wrong more often, but never about a name that is known. Names
 * do not leave it: those of forgotten channels stay until the next start.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    KNOWN_NAMES_LAYERS = 6,
    KNOWN_NAMES_FIRST = 4096, /* in the first layer */
};

struct known_names_block {
    uint32_t words[8];
};

struct known_names {
    struct known_names_block *layers[KNOWN_NAMES_LAYERS];
    int layer_count;
    size_t room; /* names that the last layer has room for */
    bool is_complete, lacks_memory;
};

/* All zeros: it does not know yet, so any name may be known. */
void known_names_deinit(struct known_names *names);

/* `hash`: hash_of() a name that a channel has, or is about to get. */
void known_names_add(struct known_names *names, uint64_t hash);

/* All names are in it. Not so if memory was out for the first layer. */
void known_names_complete(struct known_names *names);

/* False: no channel has the name. */
bool known_names_may_have(const struct known_names *names, uint64_t hash);
