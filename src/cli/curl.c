#define CURL_LOADS
#include "cli/curl.h"

#include <dlfcn.h>
#include <string.h>

struct curl_library curl_library;

/* The name has the version of its interface, which has been the same since 2006. */
#define LIBRARY "libcurl.so.4"

bool curl_load(const char **error) {
    static const struct {
        const char *name;
        void *pointer; /* where its address goes */
    } functions[] = {
#define CURL_PLACE(name) {#name, &curl_library.name},
        CURL_FUNCTIONS(CURL_PLACE)
#undef CURL_PLACE
    };
    static bool is_loaded;
    void *library = is_loaded ? NULL : dlopen(LIBRARY, RTLD_NOW);
    if (!is_loaded && !library) {
        *error = "this command needs libcurl: install libcurl (Debian and Ubuntu: libcurl4)";
        return false;
    }
    for (size_t i = 0; !is_loaded && i < sizeof functions / sizeof *functions; i++) {
        void *address = dlsym(library, functions[i].name);
        if (!address) {
            *error = "this command needs libcurl 7.87 or later";
            return false;
        }
        memcpy(functions[i].pointer, &address, sizeof address);
    }
    is_loaded = true;
    return true;
}
