/*
 * libcurl, loaded when a command needs it: a server that never asks anybody pays nothing for it and
 * the twenty libraries behind it. Include this instead of <curl/curl.h>.
 *
 * The functions have their own names. Before the first of them, curl_load().
 */
#pragma once

#include <curl/curl.h>
#include <stdbool.h>

#define CURL_FUNCTIONS(F)                                                                          \
    F(curl_easy_cleanup)                                                                           \
    F(curl_easy_escape)                                                                            \
    F(curl_easy_getinfo)                                                                           \
    F(curl_easy_header)                                                                            \
    F(curl_easy_init)                                                                              \
    F(curl_easy_reset)                                                                             \
    F(curl_easy_setopt)                                                                            \
    F(curl_easy_strerror)                                                                          \
    F(curl_free)                                                                                   \
    F(curl_multi_add_handle)                                                                       \
    F(curl_multi_cleanup)                                                                          \
    F(curl_multi_info_read)                                                                        \
    F(curl_multi_init)                                                                             \
    F(curl_multi_perform)                                                                          \
    F(curl_multi_poll)                                                                             \
    F(curl_multi_remove_handle)                                                                    \
    F(curl_slist_append)                                                                           \
    F(curl_slist_free_all)                                                                         \
    F(curl_url)                                                                                    \
    F(curl_url_cleanup)                                                                            \
    F(curl_url_get)                                                                                \
    F(curl_url_set)

/* curl's own macros, which check types, would hide the names. */
#undef curl_easy_getinfo
#undef curl_easy_setopt

#define CURL_POINTER(name) __typeof__(&name) name;
extern struct curl_library {
    CURL_FUNCTIONS(CURL_POINTER)
} curl_library;
#undef CURL_POINTER

/* Loads it, once. False when it is not there: `*error` says in one line what to install. */
bool curl_load(const char **error);

#ifndef CURL_LOADS
#define curl_easy_cleanup curl_library.curl_easy_cleanup
#define curl_easy_escape curl_library.curl_easy_escape
#define curl_easy_getinfo curl_library.curl_easy_getinfo
#define curl_easy_header curl_library.curl_easy_header
#define curl_easy_init curl_library.curl_easy_init
#define curl_easy_reset curl_library.curl_easy_reset
#define curl_easy_setopt curl_library.curl_easy_setopt
#define curl_easy_strerror curl_library.curl_easy_strerror
#define curl_free curl_library.curl_free
#define curl_multi_add_handle curl_library.curl_multi_add_handle
#define curl_multi_cleanup curl_library.curl_multi_cleanup
#define curl_multi_info_read curl_library.curl_multi_info_read
#define curl_multi_init curl_library.curl_multi_init
#define curl_multi_perform curl_library.curl_multi_perform
#define curl_multi_poll curl_library.curl_multi_poll
#define curl_multi_remove_handle curl_library.curl_multi_remove_handle
#define curl_slist_append curl_library.curl_slist_append
#define curl_slist_free_all curl_library.curl_slist_free_all
#define curl_url curl_library.curl_url
#define curl_url_cleanup curl_library.curl_url_cleanup
#define curl_url_get curl_library.curl_url_get
#define curl_url_set curl_library.curl_url_set
#endif
