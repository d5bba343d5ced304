#include "base/pack.h"

#include <errno.h>
#include <unistd.h>

static void write_all(struct pack *pack, const char *bytes, size_t len) {
    while (len && !pack->failed) {
        ssize_t written = write(pack->fd, bytes, len);
        if (written < 0 && errno == EINTR)
            continue;
        pack->failed = written <= 0;
        pack->written += written > 0 ? (uint64_t)written : 0;
        bytes += written > 0 ? written : 0;
        len -= written > 0 ? (size_t)written : 0;
    }
}

static void flush(struct pack *pack) {
    write_all(pack, pack->buffer, pack->len);
    pack->len = 0;
}

void pack_raw(struct pack *pack, const void *bytes, size_t len) {
    if (len > sizeof pack->buffer - pack->len)
        flush(pack);
    if (len > sizeof pack->buffer) {
        write_all(pack, bytes, len);
        return;
    }
    if (len)
        memcpy(pack->buffer + pack->len, bytes, len);
    pack->len += len;
}

void pack_number(struct pack *pack, uint64_t number) {
    unsigned char bytes[10];
    size_t len = 0;
    for (; number > 0x7f; number >>= 7)
        bytes[len++] = (unsigned char)(number | 0x80);
    bytes[len++] = (unsigned char)number;
    pack_raw(pack, bytes, len);
}

void pack_bytes(struct pack *pack, struct slice bytes) {
    pack_number(pack, bytes.len);
    pack_raw(pack, bytes.data, bytes.len);
}

uint64_t pack_at(const struct pack *pack) {
    return pack->written + pack->len;
}

bool pack_finish(struct pack *pack) {
    flush(pack);
    return !pack->failed;
}

uint64_t unpack_number(struct unpack *in) {
    uint64_t number = 0;
    for (int shift = 0; shift < 64 && !in->failed && in->at < in->end; shift += 7) {
        unsigned char byte = (unsigned char)*in->at++;
        number |= (uint64_t)(byte & 0x7f) << shift;
        if (byte <= 0x7f)
            return number;
    }
    in->failed = true;
    return 0;
}

uint64_t unpack_up_to(struct unpack *in, uint64_t max) {
    uint64_t number = unpack_number(in);
    in->failed |= number > max;
    return in->failed ? 0 : number;
}

struct slice unpack_raw(struct unpack *in, size_t len) {
    if (in->failed || len > (size_t)(in->end - in->at)) {
        in->failed = true;
        return SLICE("");
    }
    struct slice bytes = {in->at, len};
    in->at += len;
    return bytes;
}

struct slice unpack_bytes(struct unpack *in) {
    return unpack_raw(in, unpack_number(in));
}
