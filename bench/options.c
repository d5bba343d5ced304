#include "options.h"

#include "client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char options_help[] =
    "options:\n"
    "  --server HOST:PORT          an IPv4 address\n"
    "  --publish-server HOST:PORT  where pushes go: default --server\n"
    "  --dialect longline|nchan    default longline\n"
    "  --pids 1,2,3                the server's processes, for CPU and memory\n"
    "  --polls N                   default 15000\n"
    "  --channels N                park: default as many as polls; write: default 1000000\n"
    "  --rounds N                  default 10\n"
    "  --window N                  publishes out at once in spread: default 1\n"
    "  --connections N             that write uses: default 64\n"
    "  --names short|secret        ch7, or 22 random characters: default short\n"
    "  --body-size N               default 200\n"
    "  --seed N                    default 1\n"
    "  --deadline SECONDS          give up after it: default 300\n"
    "  --parameters TEXT           more of longline's polls, as &name=value\n"
    "  --path FILE                 that fsync writes\n";

enum kind { COUNT, SERVER, DIALECT, PIDS, NAMES, TEXT };

static const struct rule {
    const char *name;
    enum kind kind;
    size_t offset;
    size_t max; // of a COUNT
} rules[] = {
    {"server", SERVER, offsetof(struct options, server), 0},
    {"publish-server", SERVER, offsetof(struct options, publish_server), 0},
    {"dialect", DIALECT, offsetof(struct options, dialect), 0},
    {"pids", PIDS, offsetof(struct options, processes), 0},
    {"polls", COUNT, offsetof(struct options, polls), 1000000},
    {"channels", COUNT, offsetof(struct options, channels), 100000000},
    {"rounds", COUNT, offsetof(struct options, rounds), 1000000},
    {"window", COUNT, offsetof(struct options, window), WINDOW_MAX},
    {"connections", COUNT, offsetof(struct options, connections), 10000},
    {"body-size", COUNT, offsetof(struct options, body_size), BODY_MAX},
    {"seed", COUNT, offsetof(struct options, seed), SIZE_MAX},
    {"deadline", COUNT, offsetof(struct options, deadline_seconds), 86400},
    {"names", NAMES, offsetof(struct options, secret_names), 0},
    {"parameters", TEXT, offsetof(struct options, parameters), 0},
    {"path", TEXT, offsetof(struct options, path), 0},
};

enum { RULES = sizeof rules / sizeof *rules };

static size_t parse_count(const char *text, const struct rule *rule) {
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno || end == text || *end || value < 1 || value > rule->max)
        die("--%s wants a number from 1 to %zu", rule->name, rule->max);
    return (size_t)value;
}

static struct sockaddr_in parse_server(const char *text, const struct rule *rule) {
    char host[64];
    unsigned port;
    struct sockaddr_in server = {.sin_family = AF_INET};
    if (sscanf(text, "%63[0-9.]:%5u", host, &port) != 2 || port > 65535 ||
        inet_pton(AF_INET, host, &server.sin_addr) != 1)
        die("--%s wants HOST:PORT with an IPv4 address", rule->name);
    server.sin_port = htons((uint16_t)port);
    return server;
}

static const struct dialect *parse_dialect(const char *text) {
    const struct dialect *dialect = dialect_find(text);
    if (!dialect)
        die("--dialect is longline or nchan");
    return dialect;
}

static bool parse_names(const char *text) {
    bool secret = !strcmp(text, "secret");
    if (!secret && strcmp(text, "short"))
        die("--names is short or secret");
    return secret;
}

static void parse_option(struct options *options, const struct rule *rule, const char *text) {
    void *field = (char *)options + rule->offset;
    switch (rule->kind) {
    case COUNT: *(size_t *)field = parse_count(text, rule); break;
    case SERVER: *(struct sockaddr_in *)field = parse_server(text, rule); break;
    case DIALECT: *(const struct dialect **)field = parse_dialect(text); break;
    case PIDS: processes_parse(field, text); break;
    case NAMES: *(bool *)field = parse_names(text); break;
    case TEXT: *(const char **)field = text; break;
    }
}

struct options options_parse(int argc, char **argv) {
    struct option known[RULES + 1] = {0};
    for (size_t i = 0; i < RULES; i++)
        known[i] = (struct option){rules[i].name, required_argument, NULL, 0};
    struct options options = {
        .dialect = dialect_find("longline"),
        .polls = 15000,
        .rounds = 10,
        .window = 1,
        .connections = 64,
        .body_size = 200,
        .seed = 1,
        .deadline_seconds = 300,
    };
    for (int index; getopt_long(argc, argv, "", known, &index) == 0;)
        parse_option(&options, &rules[index], optarg);
    if (optind != argc - 1)
        die("one mode, please; `polls --help` lists them");
    options.mode = argv[optind];
    if (options.body_size < 64)
        die("--body-size: at least 64");
    if (!options.publish_server.sin_port)
        options.publish_server = options.server;
    return options;
}
