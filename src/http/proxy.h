/*
 * Whose X-Forwarded-For is believed: the client's address behind trusted proxies.
 */
#pragma once

#include "base/slice.h"
#include <stdbool.h>
#include <stdint.h>

struct proxy_trust;

/*
 * Reads TRUST_PROXY: `none`, `all`, `loopback`, `private`, or networks (203.0.113.0/24,
 * 2001:db8::/32, an address alone), separated by commas. NULL on a mistake, and `error` holds one
 * line.
 */
struct proxy_trust *proxy_trust_new(const char *list, char *error, size_t error_size);
void proxy_trust_free(struct proxy_trust *trust);

/*
 * Replaces `ip` (IPv4 as ::ffff:a.b.c.d; all zero, a unix socket, is trusted) by the client's: the
 * rightmost address in `forwarded_for` that is not a trusted proxy's, as long as the one before is.
 * Returns whether all were: then the header before this one, if there is one, tells more.
 */
bool proxy_client_ip(const struct proxy_trust *trust, struct slice forwarded_for, uint8_t ip[16]);
