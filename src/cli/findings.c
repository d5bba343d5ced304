#include "cli/findings.h"
#include "base/json.h"
#include "cli/screen.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#define WIPE "\r%-70s\r" /* over what stood there, for any terminal */

void findings_init(struct findings *findings, bool is_json) {
    *findings = (struct findings){.is_json = is_json,
                                  .has_colours = screen_has_colours(stdout),
                                  .shows_progress = !is_json && screen_is_terminal(stderr)};
}

static void wipe(const struct findings *findings) {
    if (findings->shows_progress)
        fprintf(stderr, WIPE, "");
}

void findings_deinit(struct findings *findings) {
    wipe(findings);
    buf_deinit(&findings->line);
}

static void write_json(struct buf *out, bool is_well, const char *topic, const char *advice,
                       const char *text) {
    buf_printf(out, "{\"topic\":\"%s\",\"ok\":%s,\"text\":", topic, is_well ? "true" : "false");
    json_write_string(out, slice_of(text));
    if (advice) {
        buf_puts(out, ",\"advice\":");
        json_write_string(out, slice_of(advice));
    }
    buf_puts(out, "}\n");
}

static void write_lines(struct buf *out, bool is_well, const char *topic, const char *advice,
                        const char *text, bool has_colours) {
    if (has_colours)
        screen_set_colour(out, is_well ? SCREEN_GREEN : SCREEN_RED);
    buf_puts(out, is_well ? "ok   " : "BAD  ");
    if (has_colours)
        screen_set_colour(out, SCREEN_PLAIN);
    buf_printf(out, "%-12s ", topic);
    screen_put_text(out, slice_of(text));
    buf_putc(out, '\n');
    struct slice rest = slice_of(advice ? advice : ""), line;
    while (advice && slice_cut(&rest, '\n', &line))
        buf_printf(out, "     %-12s %.*s\n", "", (int)line.len, line.data);
}

void findings_tell(struct findings *findings, bool is_well, const char *topic, const char *advice,
                   const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    wipe(findings);
    buf_reset(&findings->line, SIZE_MAX);
    findings->problems += !is_well;
    if (findings->is_json)
        write_json(&findings->line, is_well, topic, advice, text);
    else
        write_lines(&findings->line, is_well, topic, advice, text, findings->has_colours);
    screen_write(stdout, &findings->line);
}

void findings_wait(struct findings *findings, const char *format, ...) {
    va_list args;
    if (!findings->shows_progress)
        return;
    wipe(findings);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
}
