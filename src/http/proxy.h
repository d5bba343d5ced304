/* Which peers' X-Forwarded-For we trust, and so the address of a client behind proxies. */
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
 * Walks `forwarded_for` from its right end, and replaces `ip` by each address in turn as long as
 * `ip` is a trusted proxy. `ip` is an IPv4 as ::ffff:a.b.c.d, or all zero for a unix socket, which
 * is trusted. Returns whether all addresses were trusted: then an earlier header may tell more.
 */
bool proxy_client_ip(const struct proxy_trust *trust, struct slice forwarded_for, uint8_t ip[16]);
