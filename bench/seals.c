// seals: what the checksums of a row cost. The updates differ, and do not fit into the cache.
#include "sqlite/seal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { UPDATES = 20000, ROUNDS = 20, BODY = 200, HEADERS = 200 };

static double now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static struct update *make_update(int number) {
    char body[BODY], headers[HEADERS];
    memset(body, 'a' + number % 26, sizeof body);
    memset(headers, 'A' + number % 26, sizeof headers);
    struct update_parts parts = {
        .body = {body, sizeof body}, .headers = {headers, sizeof headers}, .method = SLICE("POST")};
    struct update *update = update_new(&parts);
    if (!update)
        abort();
    return update;
}

int main(void) {
    static struct update *updates[UPDATES];
    for (int i = 0; i < UPDATES; i++)
        updates[i] = make_update(i);
    int64_t sum = 0;
    double began = now_ns();
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < UPDATES; i++) {
            struct update_row row = {.seq = i, .channel = i % 100, .ts = round, .size = BODY};
            sum += seal_update(&row, NULL, updates[i]);
        }
    double made = now_ns();
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < UPDATES; i++) {
            struct update_row row = {.seq = i, .channel = i % 100, .ts = round, .seal = sum};
            sum += seal_has_numbers(&row);
        }
    double checked = now_ns();
    for (int i = 0; i < UPDATES; i++)
        update_unref(updates[i]);
    printf("{\"mode\": \"seals\", \"seal_ns\": %.1f, \"numbers_ns\": %.1f, \"sum\": %lld}\n",
           (made - began) / ROUNDS / UPDATES, (checked - made) / ROUNDS / UPDATES, (long long)sum);
    return 0;
}
