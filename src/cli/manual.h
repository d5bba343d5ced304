/*
 * The man page, longline(1), in mdoc. Commands, options, settings and exit codes come from their
 * tables; only what --help does not say is written here.
 */
#pragma once

#define MANUAL_BRIEF "webhook inbox: services push, any number of programs long-poll"
#define MANUAL_EXAMPLE                                                                             \
    "  $ longline serve &\n"                                                                       \
    "  $ URL=$(longline new)\n"                                                                    \
    "  $ curl -d '{\"hello\":\"world\"}' \"$URL\"\n"                                               \
    "  OK\n"                                                                                       \
    "  $ curl \"$URL?ts=0&sleep=25\"\n"                                                            \
    "  {\"ok\":true,\"ts\":1,\"updates\":[{\"hello\":\"world\"}]}\n"

void manual_print(void);
