#include "http/sender.h"
#include "base/log.h"
#include "base/turn.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

struct send {
    void *owner;
    struct reply *reply; /* NULL: cancelled */
    int fd;
    int sent;
};

struct sender {
    struct io_uring ring;
    sender_done *done;
    struct turn_task flush;
    bool is_broken;   /* the ring is closed */
    bool is_last;     /* all else that waited for the turn's end has had its turn */
    bool is_flushing; /* done() is being called */
    unsigned count;
    struct send sends[SENDER_MAX_REPLIES];
};

static void break_ring(struct sender *sender, int error) {
    log_warn("io_uring failed", "error", strerror(-error), "meaning", "replies are sent one by one",
             NULL);
    io_uring_queue_exit(&sender->ring);
    sender->is_broken = true;
}

/* Puts the sends into the ring, each with its number from 1 for a result; returns how many. Those
 * queued last go first: they are the polls that a turn's pushes wake. */
static unsigned prepare(struct sender *sender) {
    unsigned prepared = 0;
    for (unsigned i = sender->count; i-- > 0;) {
        struct send *send = &sender->sends[i];
        if (!send->reply)
            continue;
        struct io_uring_sqe *sqe = io_uring_get_sqe(&sender->ring);
        io_uring_prep_send(sqe, send->fd, send->reply->data, send->reply->len,
                           MSG_DONTWAIT | MSG_NOSIGNAL);
        io_uring_sqe_set_data64(sqe, i);
        send->sent = ++prepared;
    }
    return prepared;
}

/* With MSG_DONTWAIT the kernel does all of them at once, before the call returns. */
static void submit(struct sender *sender) {
    unsigned prepared = prepare(sender);
    if (!prepared)
        return;
    int submitted = io_uring_submit_and_wait(&sender->ring, prepared);
    for (unsigned i = 0; i < sender->count; i++) /* of those without an answer, nobody knows */
        sender->sends[i].sent = sender->sends[i].sent > submitted ? -EAGAIN : -EIO;
    struct io_uring_cqe *cqe;
    unsigned head, seen = 0;
    io_uring_for_each_cqe(&sender->ring, head, cqe) {
        sender->sends[io_uring_cqe_get_data64(cqe)].sent = cqe->res;
        seen++;
    }
    io_uring_cq_advance(&sender->ring, seen);
    if (seen != prepared)
        break_ring(sender, submitted < 0 ? submitted : -EIO);
}

static void send_queued(struct sender *sender) {
    submit(sender);
    sender->is_flushing = true;
    for (unsigned i = 0; i < sender->count; i++) {
        struct send send = sender->sends[i];
        if (send.reply)
            sender->done(send.owner, send.reply, send.sent);
    }
    sender->count = 0;
    sender->is_flushing = false;
}

static void on_flush(struct turn_task *task) {
    struct sender *sender = container_of(task, struct sender, flush);
    sender->is_last = !sender->is_last;
    if (sender->is_last) /* whoever starts work elsewhere goes first */
        turn_end(task);
    else
        send_queued(sender);
}

void sender_flush(struct sender *sender) {
    if (sender && sender->count && !sender->is_flushing)
        send_queued(sender);
}

/* Debian 12's liburing has not all of it. */
static int register_with(const struct io_uring *ring, unsigned what, void *argument,
                         unsigned count) {
    return syscall(SYS_io_uring_register, ring->ring_fd, what, argument, count) < 0 ? -errno : 0;
}

/* Whoever gets into the process finds a ring that only sends. */
static int restrict_ring(struct io_uring *ring) {
    struct io_uring_restriction only = {.opcode = IORING_RESTRICTION_SQE_OP,
                                        .sqe_op = IORING_OP_SEND};
    int error = register_with(ring, IORING_REGISTER_RESTRICTIONS, &only, 1);
    error = error ? error : register_with(ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    if (error)
        io_uring_queue_exit(ring);
    return error;
}

/* Linux 6.1 and later spare us what several threads at one ring would need. */
static int open_ring(struct io_uring *ring) {
    unsigned alone = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
    int error = io_uring_queue_init(SENDER_MAX_REPLIES, ring, IORING_SETUP_R_DISABLED | alone);
    if (error == -EINVAL)
        error = io_uring_queue_init(SENDER_MAX_REPLIES, ring, IORING_SETUP_R_DISABLED);
    return error ? error : restrict_ring(ring);
}

struct sender *sender_new(sender_done *done) {
    struct sender *sender = malloc(sizeof *sender);
    if (!sender)
        return NULL;
    int error = open_ring(&sender->ring);
    if (error) {
        log_debug("io_uring cannot be used", "error", strerror(-error), NULL);
        free(sender);
        return NULL;
    }
    sender->done = done;
    sender->count = 0;
    sender->is_broken = sender->is_last = sender->is_flushing = false;
    turn_task_init(&sender->flush, on_flush);
    return sender;
}

void sender_free(struct sender *sender) {
    if (sender)
        turn_cancel(&sender->flush);
    if (sender && !sender->is_broken)
        io_uring_queue_exit(&sender->ring);
    free(sender);
}

unsigned sender_queue(struct sender *sender, void *owner, int fd, struct reply *reply) {
    if (!sender || sender->is_broken || sender->is_flushing ||
        sender->count == SENDER_MAX_REPLIES || reply->len > SENDER_MAX_BYTES)
        return 0;
    sender->sends[sender->count++] = (struct send){.owner = owner, .reply = reply, .fd = fd};
    turn_end(&sender->flush);
    return sender->count;
}

void sender_cancel(struct sender *sender, unsigned handle) {
    struct send *send = &sender->sends[handle - 1];
    reply_unref(send->reply);
    send->reply = NULL;
}
