#include "http/limiter.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/table.h"

#include <stdlib.h>
#include <string.h>

struct client {
    struct table_node node;
    struct list link; /* in limiter->clients */
    uint64_t window_start_ms, used;
    uint8_t ip[16];
};

struct limiter {
    uint64_t limit, frame_ms;
    struct table table;
    struct list clients; /* the window that began first is first */
};

static bool client_equal(const struct table_node *node, const void *ip, size_t len) {
    return memcmp(container_of(node, struct client, node)->ip, ip, len) == 0;
}

struct limiter *limiter_new(uint64_t limit, uint64_t frame_ms) {
    struct limiter *limiter = calloc(1, sizeof *limiter);
    if (!limiter || !table_init(&limiter->table)) {
        free(limiter);
        return NULL;
    }
    limiter->limit = limit;
    limiter->frame_ms = frame_ms;
    list_init(&limiter->clients);
    return limiter;
}

static void forget(struct limiter *limiter, struct client *client) {
    table_remove(&limiter->table, &client->node);
    list_remove(&client->link);
    free(client);
}

void limiter_free(struct limiter *limiter) {
    if (!limiter)
        return;
    while (!list_empty(&limiter->clients))
        forget(limiter, container_of(limiter->clients.next, struct client, link));
    table_deinit(&limiter->table);
    free(limiter);
}

/* Forgets clients whose windows are over, and the oldest one when there are too many. */
static void make_room(struct limiter *limiter, uint64_t now_ms) {
    while (!list_empty(&limiter->clients)) {
        struct client *oldest = container_of(limiter->clients.next, struct client, link);
        bool is_over = now_ms - oldest->window_start_ms >= limiter->frame_ms;
        if (!is_over && limiter->table.count < LIMITER_MAX_CLIENTS)
            return;
        forget(limiter, oldest);
    }
}

/* NULL when memory is out. */
static struct client *add(struct limiter *limiter, const uint8_t key[16], uint64_t now_ms) {
    struct client *client = malloc(sizeof *client);
    if (!client)
        return NULL;
    uint64_t hash = hash_of((struct slice){(const char *)key, 16});
    *client = (struct client){.node.hash = hash, .window_start_ms = now_ms};
    memcpy(client->ip, key, sizeof client->ip);
    table_insert(&limiter->table, &client->node);
    list_append(&limiter->clients, &client->link);
    return client;
}

static struct client *find(struct limiter *limiter, const uint8_t ip[16], uint64_t now_ms) {
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    uint8_t key[16];
    memcpy(key, ip, 16);
    if (memcmp(ip, mapped, sizeof mapped) != 0)
        memset(key + 8, 0, 8);
    make_room(limiter, now_ms);
    uint64_t hash = hash_of((struct slice){(const char *)key, sizeof key});
    struct table_node *node = table_find(&limiter->table, hash, client_equal, key, sizeof key);
    return node ? container_of(node, struct client, node) : add(limiter, key, now_ms);
}

void limiter_save(const struct limiter *limiter, struct pack *out) {
    const struct list *clients = limiter ? &limiter->clients : NULL;
    pack_number(out, limiter ? limiter->table.count : 0);
    for (const struct list *link = clients ? clients->next : NULL; link != clients;
         link = link->next) {
        const struct client *client = container_of(link, struct client, link);
        pack_raw(out, client->ip, sizeof client->ip);
        pack_number(out, client->window_start_ms);
        pack_number(out, client->used);
    }
}

void limiter_restore(struct limiter *limiter, struct unpack *in) {
    for (uint64_t left = unpack_up_to(in, LIMITER_MAX_CLIENTS); left && !in->failed; left--) {
        struct slice ip = unpack_raw(in, 16);
        uint64_t start_ms = unpack_number(in), used = unpack_number(in);
        struct client *client =
            limiter && !in->failed ? add(limiter, (const uint8_t *)ip.data, start_ms) : NULL;
        if (client)
            client->used = used < limiter->limit ? used : limiter->limit;
    }
}

uint64_t limiter_limit(const struct limiter *limiter) {
    return limiter->limit;
}

struct limiter_verdict limiter_take(struct limiter *limiter, const uint8_t ip[16],
                                    uint64_t now_ms) {
    struct client *client = find(limiter, ip, now_ms);
    struct limiter_verdict verdict = {.allowed = true, .remaining = limiter->limit};
    if (!client)
        return verdict;
    if (client->used < limiter->limit) {
        client->used++;
    } else {
        verdict.allowed = false;
        uint64_t left_ms = limiter->frame_ms - (now_ms - client->window_start_ms);
        verdict.retry_after_s = (left_ms + 999) / 1000;
    }
    verdict.remaining = limiter->limit - client->used;
    return verdict;
}
