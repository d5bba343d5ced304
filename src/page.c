#include "page.h"

struct slice page_html(void) {
    static const char html[] =
        "<!doctype html>\n"
        "<html lang=\"en\">\n"
        "<meta charset=\"utf-8\">\n"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
        "<meta name=\"robots\" content=\"noindex\">\n"
        "<title>longline</title>\n"
        "<style>\n"
        ":root { color-scheme: light dark; }\n"
        "body { font: 1rem/1.6 system-ui, sans-serif; max-width: 42rem; margin: 4rem auto; padding: 0 "
        "1.25rem; }\n"
        "h1 { font-size: 1.6rem; } pre { overflow-x: auto; padding: 1rem; border-radius: .5rem;\n"
        "  background: color-mix(in srgb, currentColor 8%, transparent); }\n"
        "</style>\n"
        "<h1>longline is running</h1>\n"
        "<p>A webhook inbox. A service posts to a secret path; any number of programs long-poll it, and each "
        "of\n"
        "them gets every update. The path is the key: choose one that nobody can guess.</p>\n"
        "<p>Push an update:</p>\n"
        "<pre>curl -d '{\"hello\":\"world\"}' http://localhost:3000/SECRET</pre>\n"
        "<p>Wait for the updates after the first, for up to a minute:</p>\n"
        "<pre>curl 'http://localhost:3000/SECRET?ts=1&amp;sleep=60'</pre>\n"
        "<p>A fresh secret: <code>longline new</code>. The state of this server: <a "
        "href=\"/-/health\">health</a>,\n"
        "<a href=\"/-/metrics\">metrics</a>.</p>\n"
        "</html>\n";
    return (struct slice){html, sizeof html - 1};
}
