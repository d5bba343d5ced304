#include "http/socket.h"

#include <errno.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

int socket_accept(int listener) {
    int fd;
    do
        fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
    return fd;
}

int socket_open(uv_loop_t *loop, uv_tcp_t *handle, int fd) {
    uv_os_fd_t taken;
    uv_tcp_init(loop, handle);
    int error = uv_tcp_open(handle, fd);
    if (error && uv_fileno((uv_handle_t *)handle, &taken) != 0)
        close(fd);
    return error;
}

void socket_set_up(uv_tcp_t *handle) {
    uv_tcp_nodelay(handle, 1); /* a unix socket has no such thing */
}

struct peer socket_peer(const uv_tcp_t *handle) {
    struct peer peer = {{0}};
    struct sockaddr_storage address;
    int len = sizeof address;
    if (uv_tcp_getpeername(handle, (struct sockaddr *)&address, &len) != 0)
        return peer;
    if (address.ss_family == AF_INET6) {
        memcpy(peer.ip, &((struct sockaddr_in6 *)&address)->sin6_addr, 16);
    } else if (address.ss_family == AF_INET) {
        memset(peer.ip + 10, 0xff, 2);
        memcpy(peer.ip + 12, &((struct sockaddr_in *)&address)->sin_addr, 4);
    }
    return peer;
}

uint32_t socket_unsent_bytes(const uv_stream_t *stream) {
    uv_os_fd_t fd;
    int in_kernel = 0;
    if (uv_fileno((const uv_handle_t *)stream, &fd) != 0 || ioctl(fd, SIOCOUTQ, &in_kernel) != 0)
        in_kernel = 0;
    return (uint32_t)(uv_stream_get_write_queue_size(stream) + (size_t)in_kernel);
}
