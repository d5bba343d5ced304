/*
 * Keys: names of channels that split what their holder may do. A key is a prefix and 26 characters
 * of lower-case base32; whatever else a channel is called is a plain secret, which may do all.
 *
 *     r_…  sends, reads and deletes
 *     v_…  reads    v_ + base32(SHA-256("longline:r_…")), its first 26 characters
 *     w_…  sends    w_ + base32(SHA-256("longline:v_…")), the same
 *
 * The channel's own name is its w_ key: nothing that is stored tells a key that reads.
 */
#pragma once

#include "base/slice.h"

enum { KEY_BYTES = 28 };

enum key_kind { KEY_PLAIN, KEY_ALL, KEY_READ, KEY_SEND, KEY_KINDS };

/* KEY_PLAIN is no key. */
enum key_kind key_kind(struct slice name);

/* Makes the key that follows, in place: r_ → v_ → w_. A w_ has none, and stays. */
void key_next(char key[KEY_BYTES]);

/* Makes the name of the channel of what a client calls it, in place and of the same length. Returns
 * what kind of name it was. */
enum key_kind key_to_channel(char *name, size_t len);

/* A new r_ key, of 130 random bits. */
void key_new(char key[KEY_BYTES]);
