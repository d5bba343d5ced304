#include "base/address.h"

#include <netdb.h>
#include <stdio.h>
#include <sys/un.h>

enum { HOST_MAX_BYTES = 255, PORT_MAX_DIGITS = 5 };

/* Splits host:port at its last colon; false when it is not well-formed. */
static bool split(struct slice text, struct slice *host, struct slice *port) {
    const char *colon = text.len ? memrchr(text.data, ':', text.len) : NULL;
    if (!colon)
        return false;
    *host = (struct slice){text.data, (size_t)(colon - text.data)};
    *port = slice_after(text, host->len + 1);
    uint64_t number;
    if (host->len > HOST_MAX_BYTES || port->len > PORT_MAX_DIGITS ||
        !slice_number(*port, 65535, &number))
        return false;
    bool is_bracketed = host->len > 2 && host->data[0] == '[' && host->data[host->len - 1] == ']';
    if (is_bracketed)
        *host = (struct slice){host->data + 1, host->len - 2};
    for (size_t i = 0; i < host->len && !is_bracketed; i++)
        if (strchr(":[]", host->data[i]))
            return false;
    return true;
}

struct slice address_unix_path(struct slice text) {
    struct slice scheme = SLICE("unix:");
    return slice_starts_with(text, scheme) ? slice_after(text, scheme.len) : SLICE("");
}

bool address_is_sound(struct slice text) {
    if (slice_starts_with(text, SLICE("unix:"))) {
        size_t len = address_unix_path(text).len;
        return len && len < sizeof((struct sockaddr_un *)0)->sun_path;
    }
    struct slice host, port;
    return split(text, &host, &port);
}

static void set_path(struct slice path, struct sockaddr_storage *address, socklen_t *len) {
    struct sockaddr_un *un = (struct sockaddr_un *)address;
    *un = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(un->sun_path, path.data, path.len);
    *len = sizeof *un;
}

const char *address_resolve(struct slice text, struct sockaddr_storage *address, socklen_t *len) {
    struct slice path = address_unix_path(text), host, port;
    if (path.len) {
        set_path(path, address, len);
        return NULL;
    }
    if (!split(text, &host, &port))
        return "it is not host:port";
    char name[HOST_MAX_BYTES + 1], service[PORT_MAX_DIGITS + 1];
    snprintf(name, sizeof name, "%.*s", (int)host.len, host.data);
    snprintf(service, sizeof service, "%.*s", (int)port.len, port.data);
    struct addrinfo hints = {.ai_family = *name ? AF_UNSPEC : AF_INET,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found;
    int status = getaddrinfo(*name ? name : NULL, service, &hints, &found);
    if (status != 0)
        return status == EAI_MEMORY ? "out of memory" : gai_strerror(status);
    memcpy(address, found->ai_addr, found->ai_addrlen);
    *len = found->ai_addrlen;
    freeaddrinfo(found);
    return NULL;
}
