#include "api/poll_query.h"
#include "base/hash.h"
#include "base/text.h"
#include "inbox/filter.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { VALUE_MAX_BYTES = 64 }; /* of all but `where` and `as` */

/* --- Values ----------------------------------------------------------------------------------- */

bool parse_position(const char *text, int64_t *position) {
    if (*text == 'n' && strcmp(text, "now") == 0) {
        *position = POSITION_NOW;
        return true;
    }
    bool is_negative = *text == '-';
    struct slice rest = slice_of(text + is_negative), whole;
    slice_cut(&rest, '.', &whole);
    uint64_t number;
    if (whole.len > 18 || !slice_number(whole, INT64_MAX, &number))
        return false;
    for (size_t i = 0; i < rest.len; i++)
        if (rest.data[i] != '0')
            return false;
    *position = (int64_t)number * (is_negative ? -1 : 1);
    return true;
}

/* Reads seconds with a fraction, as milliseconds rounded up. */
static bool parse_seconds(const char *text, int64_t max_ms, int64_t *ms) {
    size_t whole = strspn(text, "0123456789");
    size_t fraction = text[whole] == '.' ? strspn(text + whole + 1, "0123456789") : 0;
    const char *end = text + whole + (text[whole] == '.') + fraction;
    if (*end || (!whole && !fraction))
        return false;
    double number = strtod(text, NULL) * 1000;
    *ms = number < (double)max_ms ? (int64_t)ceil(number) : max_ms;
    return true;
}

/* Reads `90s`, `10m`, `36h`, `7d`. */
static bool parse_ago(const char *text, int64_t *ms) {
    static const char units[] = "smhd";
    static const int64_t unit_ms[] = {1000, 60000, 3600000, 86400000};
    size_t len = strlen(text);
    const char *unit = len > 1 ? strchr(units, text[len - 1]) : NULL;
    uint64_t number;
    if (!unit || !slice_number((struct slice){text, len - 1}, INT64_MAX / 86400000, &number))
        return false;
    *ms = (int64_t)number * unit_ms[unit - units];
    return true;
}

/* Takes what looks like `shape`, where a 0 stands for any digit, off the front. */
static bool take_shape(const char **text, const char *shape) {
    size_t i = 0;
    for (; shape[i]; i++) {
        char c = (*text)[i];
        if (shape[i] == '0' ? c < '0' || c > '9' : c != shape[i])
            return false;
    }
    *text += i;
    return true;
}

/* The number that these two digits are. */
static int two_digits(const char *text) {
    return (text[0] - '0') * 10 + text[1] - '0';
}

/* Reads `Z`, `+02:00`, `+0200` or nothing, as seconds east of UTC. */
static bool parse_zone(const char *text, int *seconds) {
    *seconds = 0;
    if (!*text || strcmp(text, "Z") == 0 || strcmp(text, "z") == 0)
        return true;
    const char *digits = text + 1, *end = digits;
    if ((*text != '+' && *text != '-') || (!take_shape(&end, "00:00") && !take_shape(&end, "0000")))
        return false;
    int hours = two_digits(digits), minutes = two_digits(end - 2);
    *seconds = (hours * 60 + minutes) * (*text == '-' ? -60 : 60);
    return !*end && hours < 24 && minutes < 60;
}

/* Takes the digits of a fraction, whose first was taken. */
static int take_thousandths(const char **text) {
    int thousandths = 0, unit = 100;
    for (--*text; **text >= '0' && **text <= '9'; ++*text, unit /= 10)
        thousandths += (**text - '0') * unit;
    return thousandths;
}

/* Takes a time of day, as milliseconds. */
static bool parse_time(const char **text, int64_t *ms) {
    const char *at = *text;
    if (!take_shape(text, "00:00"))
        return false;
    int hours = two_digits(at), minutes = two_digits(at + 3), seconds = 0, fraction = 0;
    if (take_shape(text, ":00")) {
        seconds = two_digits(*text - 2);
        if (take_shape(text, ".0"))
            fraction = take_thousandths(text);
    }
    *ms = ((hours * 60 + minutes) * 60 + seconds) * 1000 + fraction;
    return hours < 24 && minutes < 60 && seconds <= 60; /* 60: a leap second */
}

/* Reads `2026-11-29`, `2026-11-29T10:00`, `2026-11-29 10:00:00.5+02:00`. */
static bool parse_iso(const char *text, int64_t *ms) {
    const char *rest = text;
    if (!take_shape(&rest, "0000-00-00"))
        return false;
    struct tm day = {.tm_year = two_digits(text) * 100 + two_digits(text + 2) - 1900,
                     .tm_mon = two_digits(text + 5) - 1,
                     .tm_mday = two_digits(text + 8)},
              same = day;
    int64_t seconds = timegm(&same), time_ms = 0; /* makes a March of the 30th of February */
    if (day.tm_mon != same.tm_mon || day.tm_mday != same.tm_mday)
        return false;
    int zone;
    bool has_time = *rest == 'T' || *rest == 't' || *rest == ' ';
    rest += has_time;
    if (has_time && !parse_time(&rest, &time_ms))
        return false;
    if (!parse_zone(rest, &zone))
        return false;
    *ms = (seconds - zone) * 1000 + time_ms;
    return true;
}

bool parse_since(const char *text, int64_t now_ms, int64_t *ms) {
    int64_t ago_ms;
    if (parse_ago(text, &ago_ms))
        *ms = now_ms - ago_ms;
    else if (!parse_seconds(text, POSITION_SINCE_MAX_MS, ms) && !parse_iso(text, ms))
        return false;
    if (*ms < 0)
        *ms = 0;
    return *ms <= POSITION_SINCE_MAX_MS;
}

uint64_t parse_epoch(struct slice text) {
    uint64_t epoch = 0;
    for (size_t i = 0; i < text.len; i++) {
        const char *digits = "0123456789abcdef", *digit = strchr(digits, text.data[i]);
        if (text.len > 16 || !text.data[i] || !digit)
            return hash_of(text) | 1; /* none of ours */
        epoch = epoch << 4 | (uint64_t)(digit - digits);
    }
    return epoch;
}

static bool parse_limit(const char *text, uint32_t *limit) {
    size_t digits = strspn(text, "0123456789");
    if (!digits || text[digits])
        return false;
    unsigned long long number = strtoull(text, NULL, 10); /* ULLONG_MAX when it is larger still */
    *limit = number < READ_MAX_UPDATES ? (uint32_t)number : READ_MAX_UPDATES;
    return number > 0;
}

static bool parse_feed(const char *text, enum feed *feed) {
    *feed = strcmp(text, "sse") == 0     ? FEED_EVENTS
            : strcmp(text, "lines") == 0 ? FEED_LINES
                                         : FEED_NONE;
    return *feed;
}

/* --- Parameters ------------------------------------------------------------------------------- */

enum parameter { TS, SLEEP, LIMIT, VIEW, EPOCH, SINCE, WHERE, AS, CONFIRM, FEED, PARAMETERS };

static enum parameter parameter_of(struct slice name) {
    static const struct slice names[] = {
        [TS] = SLICE("ts"),       [SLEEP] = SLICE("sleep"), [LIMIT] = SLICE("limit"),
        [VIEW] = SLICE("view"),   [EPOCH] = SLICE("epoch"), [SINCE] = SLICE("since"),
        [WHERE] = SLICE("where"), [AS] = SLICE("as"),       [CONFIRM] = SLICE("confirm"),
        [FEED] = SLICE("feed"),
    };
    enum parameter parameter = TS;
    while (parameter < PARAMETERS && !slice_equal(name, names[parameter]))
        parameter++;
    return parameter;
}

/* Decodes a value into `out`; false when it is longer, or has a NUL. */
static bool decode(struct slice value, char out[VALUE_MAX_BYTES]) {
    long len = value.len < VALUE_MAX_BYTES ? text_decode_percent(value, out) : -1;
    if (len < 0)
        return false;
    out[len] = '\0';
    return strlen(out) == (size_t)len;
}

/* Where the poll is to begin; ERROR_SINCE_TS if it says so twice. */
static enum http_error set_position(struct poll_query *poll, bool is_since, int64_t position) {
    bool was_since = position_is_since(poll->position);
    if (poll->has_position && is_since != was_since)
        return ERROR_SINCE_TS;
    poll->has_position = true;
    poll->position = position;
    return HTTP_NO_ERROR;
}

static enum http_error parse_simple(struct poll_query *poll, enum parameter parameter,
                                    struct slice value, int64_t (*now_ms)(void)) {
    static const enum http_error errors[] = {
        [TS] = ERROR_TS,     [SLEEP] = ERROR_SLEEP, [LIMIT] = ERROR_LIMIT,
        [VIEW] = ERROR_VIEW, [SINCE] = ERROR_SINCE, [CONFIRM] = ERROR_CONFIRM,
        [FEED] = ERROR_FEED,
    };
    char text[VALUE_MAX_BYTES];
    bool ok = decode(value, text);
    int64_t number = 0;
    switch (parameter) {
    case TS: ok = ok && parse_position(text, &number); break;
    case SLEEP: ok = ok && parse_seconds(text, POLL_MAX_MAX_S * 1000, &number); break;
    case LIMIT: ok = ok && parse_limit(text, &poll->limit); break;
    case VIEW: ok = poll->is_full = ok && strcmp(text, "full") == 0; break;
    case SINCE: ok = ok && parse_since(text, now_ms(), &number); break;
    case CONFIRM: ok = poll->confirms_now = ok && strcmp(text, "now") == 0; break;
    case FEED: ok = ok && parse_feed(text, &poll->feed); break;
    default: break;
    }
    if (!ok)
        return errors[parameter];
    if (parameter == SLEEP)
        poll->sleep_ms = (uint64_t)number;
    if (parameter == TS)
        return set_position(poll, false, number);
    if (parameter == SINCE)
        return set_position(poll, true, position_since(number));
    return HTTP_NO_ERROR;
}

/* Takes one more condition. */
static enum http_error parse_where(struct poll_query *poll, struct slice value) {
    size_t at = poll->where.len;
    text_decode_form(&poll->where, value);
    if (poll->where.failed)
        return ERROR_BUSY;
    if (memchr(poll->where.data + at, '\0', poll->where.len - at))
        return ERROR_WHERE;
    buf_putc(&poll->where, '\0');
    return HTTP_NO_ERROR;
}

static enum http_error parse_name(struct poll_query *poll, struct slice value) {
    struct buf name = {0};
    text_decode_form(&name, value);
    bool has_memory = !name.failed;
    bool ok = has_memory && is_consumer_name((struct slice){name.data, name.len});
    if (ok) {
        memcpy(poll->name, name.data, name.len);
        poll->name_len = (uint8_t)name.len;
    }
    buf_deinit(&name);
    return ok ? HTTP_NO_ERROR : has_memory ? ERROR_AS : ERROR_BUSY;
}

static enum http_error parse_one(struct poll_query *poll, const struct text_pair *pair,
                                 int64_t (*now_ms)(void)) {
    enum parameter parameter = parameter_of(pair->name);
    if (parameter == EPOCH)
        poll->has_epoch = true;
    if (parameter == PARAMETERS || !pair->value.len)
        return HTTP_NO_ERROR;
    if (parameter == EPOCH) {
        poll->epoch = parse_epoch(pair->value);
        return HTTP_NO_ERROR;
    }
    if (parameter == WHERE)
        return parse_where(poll, pair->value);
    if (parameter == AS)
        return parse_name(poll, pair->value);
    return parse_simple(poll, parameter, pair->value, now_ms);
}

enum http_error poll_query_parse(struct poll_query *poll, struct slice query,
                                 int64_t (*now_ms)(void)) {
    *poll = (struct poll_query){.limit = READ_MAX_UPDATES};
    enum http_error error = HTTP_NO_ERROR;
    for (struct text_pair pair; !error && text_next_pair(&query, &pair);)
        error = parse_one(poll, &pair, now_ms);
    if (!error && poll->confirms_now && !poll->name_len)
        error = ERROR_CONFIRM;
    return error;
}

void poll_query_deinit(struct poll_query *poll) {
    buf_deinit(&poll->where);
}
