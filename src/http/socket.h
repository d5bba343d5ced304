/*
 * What we ask of a client's socket, and libuv does not offer.
 */
#pragma once

#include <stdint.h>
#include <uv.h>

/* The address of a client, IPv4 as ::ffff:a.b.c.d; all zero for a unix socket. */
struct peer {
    uint8_t ip[16];
};

/* The descriptor of a client that waits at `listener`. One that is gone already does not count. -1
 * on failure, with errno. */
int socket_accept(int listener);

/* Makes `handle` the connection on `fd`, which passes over to it. To libuv a connected unix socket
 * is like one of TCP, and its uv_pipe_t is larger. 0, or libuv's error; then `fd` is closed, or
 * will be with the handle. */
int socket_open(uv_loop_t *loop, uv_tcp_t *handle, int fd);
/* Sends small replies at once. For one that was accepted. */
void socket_set_up(uv_tcp_t *handle);

struct peer socket_peer(const uv_tcp_t *handle);

/* What the peer does not have yet: the kernel holds up to megabytes, and asks for more in large
 * steps. */
uint32_t socket_unsent_bytes(const uv_stream_t *stream);
