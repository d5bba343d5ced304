/*
 * Sends the replies of a turn of the loop with one system call: io_uring(7). That saves a tenth of
 * what a request costs the kernel.
 *
 * Where the kernel has no io_uring, or forbids it, as in many containers, there is no sender, and
 * connections write by themselves. So they do for large replies: what is queued is held until the
 * turn ends. Loop thread only.
 */
#pragma once

#include "http/reply.h"
#include <stdbool.h>

enum {
    SENDER_MAX_REPLIES = 512,     /* in one turn */
    SENDER_MAX_BYTES = 16 * 1024, /* of one of them */
};

struct sender;

/*
 * The socket took `sent` bytes of the reply, perhaps not all, or failed: a negative errno, -EAGAIN
 * when it has no room. The reference to the reply passes over. Must not queue.
 */
typedef void sender_done(void *owner, struct reply *reply, int sent);

/* NULL when io_uring cannot be used, or memory is out. */
struct sender *sender_new(sender_done *done);
/* Nothing may be queued. Harmless with NULL. */
void sender_free(struct sender *sender);

/*
 * Sends the reply, whose reference passes over, to the socket `fd` when this turn of the loop ends,
 * and then calls done(). Returns a handle for sender_cancel(); 0, with the reference left to the
 * caller, when there is no sender (NULL), the reply is too large, or this turn has too many.
 */
unsigned sender_queue(struct sender *sender, void *owner, int fd, struct reply *reply);

/* Sends what is queued so far, before work that can wait. Harmless with NULL. */
void sender_flush(struct sender *sender);

/* Does not send it; done() is not called. Before the socket is closed. */
void sender_cancel(struct sender *sender, unsigned handle);
