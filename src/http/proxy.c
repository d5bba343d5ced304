#include "http/proxy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NETWORKS_MAX = 64 };

struct network {
    uint8_t ip[16];
    int bits;
};

struct proxy_trust {
    int count;
    struct network networks[NETWORKS_MAX];
};

/* IPv4 or IPv6 text; false when it is neither. */
static bool parse_ip(struct slice text, uint8_t ip[16], bool *is_v4) {
    char copy[INET6_ADDRSTRLEN + 8];
    if (text.len >= sizeof copy)
        return false;
    memcpy(copy, text.data, text.len);
    copy[text.len] = '\0';
    memset(ip, 0, 16);
    *is_v4 = inet_pton(AF_INET, copy, ip + 12) == 1;
    if (*is_v4)
        memset(ip + 10, 0xff, 2);
    return *is_v4 || inet_pton(AF_INET6, copy, ip) == 1;
}

static bool add_network(struct proxy_trust *trust, struct slice text) {
    if (trust->count == NETWORKS_MAX)
        return false;
    struct network *network = &trust->networks[trust->count];
    struct slice ip;
    bool is_v4;
    if (!slice_cut(&text, '/', &ip) || !parse_ip(ip, network->ip, &is_v4))
        return false;
    uint64_t max_bits = is_v4 ? 32 : 128, bits = max_bits;
    if (text.data && (text.len > 3 || !slice_number(text, max_bits, &bits)))
        return false;
    network->bits = (int)(bits + 128 - max_bits);
    trust->count++;
    return true;
}

static bool add_word(struct proxy_trust *trust, struct slice word) {
    static const struct {
        struct slice name;
        const char *networks[5];
    } names[] = {
        {SLICE("none"), {NULL}},
        {SLICE("all"), {"0.0.0.0/0", "::/0"}},
        {SLICE("loopback"), {"127.0.0.0/8", "::1"}},
        {SLICE("private"),
         {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fe80::/10"}},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!slice_equal_nocase(word, names[i].name))
            continue;
        for (int j = 0; j < 5 && names[i].networks[j]; j++)
            if (!add_network(trust, slice_of(names[i].networks[j])))
                return false;
        return true;
    }
    return add_network(trust, word);
}

struct proxy_trust *proxy_trust_new(const char *list, char *error, size_t error_size) {
    struct proxy_trust *trust = calloc(1, sizeof *trust);
    struct slice rest = slice_of(list), word;
    while (trust && slice_cut(&rest, ',', &word)) {
        word = slice_trim(word);
        if (word.len && !add_word(trust, word)) {
            snprintf(
                error, error_size,
                "TRUST_PROXY takes none, all, loopback, private or up to %d networks; not \"%.*s\"",
                NETWORKS_MAX, (int)word.len, word.data);
            free(trust);
            return NULL;
        }
    }
    if (!trust)
        snprintf(error, error_size, "out of memory");
    return trust;
}

void proxy_trust_free(struct proxy_trust *trust) {
    free(trust);
}

static bool is_within(const uint8_t ip[16], const struct network *network) {
    int bytes = network->bits / 8, bits = network->bits % 8;
    if (memcmp(ip, network->ip, (size_t)bytes) != 0)
        return false;
    return !bits || (ip[bytes] ^ network->ip[bytes]) >> (8 - bits) == 0;
}

static bool is_trusted(const struct proxy_trust *trust, const uint8_t ip[16]) {
    static const uint8_t unix_socket[16];
    if (memcmp(ip, unix_socket, 16) == 0)
        return true;
    for (int i = 0; i < trust->count; i++)
        if (is_within(ip, &trust->networks[i]))
            return true;
    return false;
}

/* The last of a list separated by commas, taken off its end; false when there is none. */
static bool last_item(struct slice *list, struct slice *item) {
    if (!list->len)
        return false;
    size_t start = list->len;
    while (start && list->data[start - 1] != ',')
        start--;
    *item = slice_trim((struct slice){list->data + start, list->len - start});
    list->len = start ? start - 1 : 0;
    return true;
}

bool proxy_client_ip(const struct proxy_trust *trust, struct slice forwarded_for, uint8_t ip[16]) {
    struct slice item;
    while (is_trusted(trust, ip) && last_item(&forwarded_for, &item)) {
        uint8_t next[16];
        bool is_v4;
        if (!parse_ip(item, next, &is_v4))
            return false;
        memcpy(ip, next, 16);
    }
    return is_trusted(trust, ip);
}
