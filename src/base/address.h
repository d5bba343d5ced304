/* Where to listen or connect: host:port, [v6]:port, or unix:/path. */
#pragma once

#include "base/slice.h"
#include <sys/socket.h>

/* Whether `text` is well-formed. An empty host is 0.0.0.0: every IPv4 address of this machine. */
bool address_is_sound(struct slice text);

/* The path of unix:/path as the rest of `text`; empty for any other address. */
struct slice address_unix_path(struct slice text);

/*
 * Resolves a well-formed address; a name may take as long as the system's resolver does. NULL on
 * success, else one line that says why not.
 */
const char *address_resolve(struct slice text, struct sockaddr_storage *address, socklen_t *len);
