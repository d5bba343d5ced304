#include "http/inbuf.h"
#include "http/budget.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { START_BYTES = 512 };

void inbuf_free(struct inbuf *in) {
    free(in->data);
    budget_give(in->cap);
    *in = (struct inbuf){0};
}

bool inbuf_reserve(struct inbuf *in, size_t cap) {
    if (cap <= in->cap)
        return true;
    if (!budget_has(cap - in->cap))
        return false;
    char *data = realloc(in->data, cap);
    if (!data)
        return false;
    budget_take(cap - in->cap);
    in->data = data;
    in->cap = (uint32_t)cap;
    return true;
}

bool inbuf_keep(struct inbuf *in, const char *data, size_t len) {
    if (!len) {
        inbuf_free(in);
        return true;
    }
    if (!in->data && !inbuf_reserve(in, len))
        return false;
    assert(in->data && data);
    memmove(in->data, data, len);
    in->len = (uint32_t)len;
    return true;
}

bool inbuf_restore(struct inbuf *in, const char *data, size_t len) {
    assert(!in->data);
    in->data = malloc(len);
    if (!in->data)
        return false;
    budget_take(len);
    memcpy(in->data, data, len);
    in->cap = in->len = (uint32_t)len;
    return true;
}

bool inbuf_append(struct inbuf *in, const char *data, size_t len) {
    size_t cap = in->cap ? in->cap : START_BYTES;
    while (cap < in->len + len)
        cap *= 2;
    if (!inbuf_reserve(in, cap))
        return false;
    memcpy(in->data + in->len, data, len);
    in->len += (uint32_t)len;
    return true;
}
