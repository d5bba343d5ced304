/*
 * The doctor over servers and proxies that the test describes: what it finds, in no time.
 */
#define CURL_LOADS
#include "cli/curl.h"

#include "base/clock.h"
#include "cli/doctor.h"
#include "cli/exchange.h"
#include "cli/screen.h"
#include "need.h"

#include <inttypes.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#define ERROR(status) "{\"ok\":false,\"error_code\":" #status ",\"error_description\":\"no\"}"
#define PAGE "{\"ok\":true,\"ts\":5,\"updates\":[]}"
#define MARK "{\"doctor\":\"stream\"}"

enum { OWN_MAX = 512 << 10 };

/* A reply to one kind of request; all that is 0 is as with a server that is well. */
struct told {
    enum exchange_end end;
    int status;
    const char *body, *error;
    int64_t waited_ms; /* it comes so much later */
};

static struct world {
    struct told health, view, now, after, poll, stream, purge;
    struct told push; /* number `pushes_fine` + 1 and those behind it */
    int pushes_fine;  /* 0: all */
    const char *from, *peer;
    int64_t ahead_ms;
    int days; /* of the certificate; 0: there is none */
    bool is_tls_error;
    size_t body_max; /* 0: the server's own, OWN_MAX */
    /* Of open streams: how long after the push was answered the update comes, < 0: never. */
    int64_t late_ms[3];
    int late_pushes;        /* only after so many; 0: always */
    struct told streams[3]; /* one that has an end comes to it */
    const char *stop_at;    /* the command must end when that is asked for */
    bool has_colours;
} world;

static int64_t now_ms, answered_ms;
static int pushes, stream_pushes;
static bool is_asked_to_stop, ignores_stop;
static struct buf out;
static char first_url[64]; /* that was asked for */

/* --- What stands in for the rest -------------------------------------------------------------- */

int64_t __wrap_clock_steady_ms(void);
int64_t __wrap_clock_steady_ms(void) {
    return now_ms;
}

int64_t __wrap_clock_wall_ms(void);
int64_t __wrap_clock_wall_ms(void) {
    return 1795506304321 + now_ms;
}

bool __wrap_stop_is_asked(void);
bool __wrap_stop_is_asked(void) {
    return is_asked_to_stop;
}

bool __wrap_screen_has_colours(FILE *stream);
bool __wrap_screen_has_colours(FILE *stream) {
    assert_ptr_equal(stream, stdout);
    return world.has_colours;
}

bool __wrap_screen_write(FILE *stream, const struct buf *text);
bool __wrap_screen_write(FILE *stream, const struct buf *text) {
    (void)stream;
    bool was_counting = is_counting;
    is_counting = false;
    buf_append(&out, text->data, text->failed ? 0 : text->len);
    is_counting = was_counting;
    return true;
}

enum { HAD_LESS = 99 }; /* the exit code of one that went on without memory */

/* --- The server ------------------------------------------------------------------------------- */

struct exchange {
    struct exchange_transfer *transfers;
};

struct exchange_transfer {
    struct exchange_transfer *next;
    struct exchange *owner;
    struct exchange_request request;
    struct exchange_reply *reply;
    int64_t began_ms;
    int stream; /* which of the open ones; -1: none */
    bool is_over;
};

static void put(struct exchange_reply *reply, const char *text) {
    bool was_counting = is_counting;
    is_counting = false;
    buf_puts(&reply->body, text);
    is_counting = was_counting;
}

static void end(struct exchange_transfer *one, const struct told *told, const char *body) {
    struct exchange_reply *reply = one->reply;
    int64_t waited_ms = now_ms - one->began_ms;
    one->is_over = true;
    reply->end = told->end;
    reply->status = told->end == EXCHANGE_REPLIED ? told->status ? told->status : 200 : 0;
    reply->waited_ms = waited_ms ? waited_ms : 1;
    reply->all_us = 1000;
    reply->certificate_days = world.days ? world.days : -1;
    reply->is_tls_error = world.is_tls_error;
    snprintf(reply->peer, sizeof reply->peer, "%s", world.peer ? world.peer : "127.0.0.1");
    snprintf(reply->error, sizeof reply->error, "%s", told->error ? told->error : "cut");
    put(reply, told->body ? told->body : told->status ? "<html>" : body);
}

static void answer_push(struct exchange_transfer *one) {
    static const struct told fine = {0}, too_large = {.status = 413},
                             refused = {.status = 413, .body = ERROR(413)};
    bool is_fine = !world.pushes_fine || ++pushes <= world.pushes_fine;
    bool fits = one->request.body.len <= (world.body_max ? world.body_max : OWN_MAX);
    end(one, !fits ? world.body_max ? &too_large : &refused : is_fine ? &fine : &world.push, "{}");
    one->reply->has_total = one->reply->status == 200;
    if (one->request.body.len != strlen(MARK))
        return;
    answered_ms = now_ms;
    stream_pushes++;
}

static void answer_view(struct exchange_transfer *one) {
    char item[512];
    snprintf(item, sizeof item,
             "{\"ok\":true,\"ts\":5,\"updates\":[{\"ts\":5,\"from\":\"%s\",\"at\":%" PRId64 "}]}",
             world.from ? world.from : "10.1.1.1", clock_wall_ms() + world.ahead_ms);
    end(one, &world.view, item);
}

/* One that is open says at once where it begins, and stays. */
static void answer_stream(struct exchange_transfer *one) {
    const struct told *told = &world.streams[one->stream];
    bool is_late = !world.late_pushes || stream_pushes <= world.late_pushes;
    int64_t late_ms = is_late ? world.late_ms[one->stream] : 0;
    if (told->status || told->end || told->body)
        end(one, told, "");
    else if (!one->reply->body.len && late_ms >= 0)
        put(one->reply, "\n");
    else if (answered_ms > one->began_ms && late_ms >= 0 && now_ms >= answered_ms + late_ms)
        put(one->reply, MARK);
}

/* A poll or a stream to which nothing comes. */
static void answer_idle(struct exchange_transfer *one, const struct told *told, int64_t whole_ms,
                        const struct told *fine, const char *body) {
    bool is_cut = told->end || told->status || told->body;
    if (now_ms - one->began_ms >= (is_cut ? told->waited_ms : whole_ms))
        end(one, is_cut ? told : fine, body);
}

static void answer(struct exchange_transfer *one) {
    static const struct told fine = {0}, silent = {.end = EXCHANGE_SILENT};
    const char *method = one->request.method, *url = one->request.url, *query = strchr(url, '?');
    query = query ? query : "";
    if (world.stop_at && strstr(strcmp(method, "GET") == 0 ? url : method, world.stop_at))
        is_asked_to_stop = true;
    if (is_asked_to_stop && !ignores_stop && !one->request.outlasts_stop)
        end(one, &(struct told){.end = EXCHANGE_STOPPED}, "");
    else if (strcmp(method, "POST") == 0)
        answer_push(one);
    else if (strcmp(method, "DELETE") == 0)
        end(one, &world.purge, "{}");
    else if (strstr(url, "/-/health"))
        end(one, &world.health, "{\"version\":\"1\",\"status\":\"fine\"}");
    else if (strcmp(query, "?ts=-1&view=full") == 0)
        answer_view(one);
    else if (strcmp(query, "?ts=now") == 0)
        end(one, &world.now, PAGE);
    else if (strcmp(query, "?ts=5") == 0)
        end(one, &world.after, "{\"ok\":true,\"ts\":6,\"updates\":[" MARK "]}");
    else if (one->stream >= 0)
        answer_stream(one);
    else if (strstr(query, "&sleep="))
        answer_idle(one, &world.poll, 60000, &fine, PAGE);
    else
        answer_idle(one, &world.stream, 60000, &silent, "{}\n\n\n\n");
}

struct exchange *__wrap_exchange_new(void);
struct exchange *__wrap_exchange_new(void) {
    return calloc(1, sizeof(struct exchange));
}

void __wrap_exchange_free(struct exchange *exchange);
void __wrap_exchange_free(struct exchange *exchange) {
    assert_null(exchange->transfers);
    free(exchange);
}

void __wrap_exchange_ignore_stop(struct exchange *exchange);
void __wrap_exchange_ignore_stop(struct exchange *exchange) {
    assert_non_null(exchange);
    ignores_stop = true;
}

struct exchange_transfer *__wrap_exchange_start(struct exchange *exchange,
                                                const struct exchange_request *request,
                                                struct exchange_reply *reply);
struct exchange_transfer *__wrap_exchange_start(struct exchange *exchange,
                                                const struct exchange_request *request,
                                                struct exchange_reply *reply) {
    struct exchange_transfer *one = calloc(1, sizeof *one);
    if (!one)
        return NULL;
    if (!*first_url)
        snprintf(first_url, sizeof first_url, "%s", request->url);
    bool is_open = strstr(request->url, "?feed=") && !strstr(request->url, "ts=now");
    *reply = (struct exchange_reply){.retry_after_s = -1, .certificate_days = -1};
    *one = (struct exchange_transfer){
        .next = exchange->transfers,
        .owner = exchange,
        .request = *request,
        .reply = reply,
        .began_ms = now_ms,
        .stream = !is_open                              ? -1
                  : strstr(request->url, "?feed=lines") ? 0
                  : request->takes_gzip                 ? 2
                                                        : 1,
    };
    exchange->transfers = one;
    return one;
}

void __wrap_exchange_go_on(struct exchange *exchange, int64_t ms);
void __wrap_exchange_go_on(struct exchange *exchange, int64_t ms) {
    now_ms += ms < 100 ? ms : 100;
    for (struct exchange_transfer *one = exchange->transfers; one; one = one->next)
        if (!one->is_over)
            answer(one);
}

bool __wrap_exchange_is_over(const struct exchange_transfer *transfer);
bool __wrap_exchange_is_over(const struct exchange_transfer *transfer) {
    return transfer->is_over;
}

void __wrap_exchange_drop(struct exchange_transfer *transfer);
void __wrap_exchange_drop(struct exchange_transfer *transfer) {
    if (!transfer)
        return;
    struct exchange_transfer **at = &transfer->owner->transfers;
    while (*at != transfer)
        at = &(*at)->next;
    *at = transfer->next;
    free(transfer);
}

/* --- What is found ---------------------------------------------------------------------------- */

static int examine(const struct world *that, bool is_json) {
    char url[] = "http://h/a/x", json[] = "--json";
    char *words[] = {url, json};
    world = *that;
    now_ms = 1000;
    answered_ms = pushes = stream_pushes = 0;
    is_asked_to_stop = ignores_stop = false;
    buf_reset(&out, SIZE_MAX);
    return doctor_run(is_json ? 2 : 1, words);
}

static bool says(const char *text) {
    return out.len && memmem(out.data, out.len, text, strlen(text));
}

/* The only finding that is not well is of that topic, and says that. */
static void check_bad(const struct world *that, const char *topic, const char *text) {
    char wanted[64];
    int code = examine(that, true);
    snprintf(wanted, sizeof wanted, "{\"topic\":\"%s\",\"ok\":false,", topic);
    if (code == EX_OK || !says(wanted) || !says(text))
        fail_msg("wanted %s: %s; got %.*s", topic, text, (int)out.len, out.data);
}

static void check_well(const struct world *that, const char *text) {
    int code = examine(that, true);
    if (code != EX_OK || says("\"ok\":false") || !says(text))
        fail_msg("wanted: %s; got %.*s", text, (int)out.len, out.data);
}

static void test_all_is_well(void **state) {
    (void)state;
    check_well(&(struct world){.body_max = SIZE_MAX},
               "\"topic\":\"idle stream\",\"ok\":true,\"text\":\"not cut for 60.0 s, with 3 "
               "heartbeats\"");
    assert_true(says("longline, fine") && says("32.0 MiB pass"));
    check_well(&(struct world){0}, "0.5 MiB pass; more is beyond the server's own MAX_BODY");
    check_well(&(struct world){.days = 14}, "14 days left");
    check_well(&(struct world){.purge = {.status = 403, .body = ERROR(403)}},
               "stays until it is too old: no");
    check_well(&(struct world){.health = {.status = 404}}, "whose /-/health is not shown");
    examine(&(struct world){.has_colours = true}, false);
    assert_true(says("\x1b[32mok   \x1b[0mbody"));
    examine(&(struct world){.has_colours = true, .push = {.status = 500}, .pushes_fine = 1}, false);
    assert_true(says("\x1b[31mBAD  \x1b[0mpush"));
}

/* What is private is a proxy's, if the server's is not. */
static void test_addresses(void **state) {
    (void)state;
    static const struct {
        const char *from, *peer;
        bool is_well;
    } cases[] = {
        {"10.1.1.1", "8.8.8.8", false},    {"172.31.0.1", "8.8.8.8", false},
        {"192.168.1.1", "8.8.8.8", false}, {"169.254.1.1", "8.8.8.8", false},
        {"127.0.0.1", "8.8.8.8", false},   {"::1", "8.8.8.8", false},
        {"fe80::1", "8.8.8.8", false},     {"fd12::1", "2001:db8::1", false},
        {"unix:", "8.8.8.8", false},       {"", "8.8.8.8", false},
        {"", "10.1.1.1", false},           {"10.1.1.1", "10.1.1.2", true},
        {"172.32.0.1", "8.8.8.8", true},   {"2001:db8::1", "2001:db8::2", true},
        {"9.9.9.9", "10.1.1.1", true},     {"9.9.9.9", "8.8.8.8", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct world that = {.from = cases[i].from, .peer = cases[i].peer};
        if (cases[i].is_well)
            check_well(&that, cases[i].from);
        else
            check_bad(&that, "address", "proxy_set_header X-Forwarded-For");
    }
}

static void test_servers(void **state) {
    (void)state;
    check_bad(&(struct world){.health = {.end = EXCHANGE_NOT_CONNECTED, .error = "refused"}},
              "connection", "refused");
    check_bad(&(struct world){.health = {.end = EXCHANGE_NOT_CONNECTED, .error = "unknown issuer"},
                              .is_tls_error = true},
              "certificate", "fullchain.pem");
    check_bad(&(struct world){.health = {.end = EXCHANGE_NOT_CONNECTED, .error = "it has expired"},
                              .is_tls_error = true},
              "certificate", "Renew it");
    check_bad(&(struct world){.days = 13}, "certificate", "13 days left");
    check_bad(
        &(struct world){.health = {.status = 200, .body = "{\"a\":1}"}, .now = {.status = 404}},
        "server", "neither /-/health nor a poll: status 404, and not from longline");
    check_bad(&(struct world){.health = {.status = 503,
                                         .body = "{\"version\":\"1\",\"status\":\"full\"}"}},
              "server", "longline, full");
    check_bad(&(struct world){.pushes_fine = 2, .push = {.status = 503, .body = ERROR(503)}},
              "push", "\"no\"");
    check_bad(&(struct world){.view = {.status = 500}}, "poll",
              "status 500, and not from longline");
    check_bad(&(struct world){.view = {.body = "{\"ok\":true}"}}, "poll", "status 200");
    check_bad(&(struct world){.view = {.body = PAGE}}, "poll", "status 200");
    check_bad(&(struct world){.ahead_ms = 60000}, "clock", " s ahead");
    check_bad(&(struct world){.ahead_ms = -60000}, "clock", " s behind");
    check_bad(&(struct world){.body_max = 1 << 20}, "body", "1.0 MiB pass, 2.0 MiB do not");
}

/* A machine that is busy for a moment. */
static void test_late_once(void **state) {
    (void)state;
    check_well(&(struct world){.late_ms = {2000, 2000, 2000}, .late_pushes = 2},
               "an update comes ");
    assert_int_equal(stream_pushes, 3);
    check_bad(&(struct world){.late_ms = {0, 0, 2000}, .late_pushes = 3}, "stream",
              "buffers compressed streams, as browsers ask for");
    assert_int_equal(stream_pushes, 3);
}

static void test_streams(void **state) {
    (void)state;
    check_bad(
        &(struct world){.late_ms = {-1, -1, -1}}, "stream",
        "buffers streams: an update has not come after 5 s, nor the head of the reply; a poll "
        "sees it at once");
    check_bad(&(struct world){.late_ms = {2000}}, "stream",
              "buffers feed=lines: an update comes 2.");
    check_bad(&(struct world){.late_ms = {0, 2000}}, "stream", "buffers feed=sse");
    check_bad(&(struct world){.late_ms = {0, 0, 9000}}, "stream",
              "buffers compressed streams, as browsers ask for");
    check_bad(&(struct world){.late_ms = {-1}, .after = {.status = 502}}, "stream",
              "nor does a poll see it");
    check_bad(&(struct world){.late_ms = {-1}, .after = {.body = PAGE}}, "stream",
              "nor does a poll see it");
    check_bad(&(struct world){.streams = {{.body = "{}"}}}, "stream", "it ends at once");
    check_bad(&(struct world){.streams = {{0}, {.status = 502}}}, "stream",
              "it ends before its update comes: status 502");
    check_bad(&(struct world){.streams = {{.end = EXCHANGE_CUT}}}, "stream",
              "it ends before its update comes: cut");
    check_bad(&(struct world){.pushes_fine = 8, .push = {.status = 502}}, "stream",
              "no push while one is open: status 502");
    examine(&(struct world){.now = {.end = EXCHANGE_CUT}}, true);
    assert_false(says("\"stream\""));
    examine(&(struct world){.now = {.body = "{}"}}, true);
    assert_false(says("\"stream\""));
}

static void test_silence(void **state) {
    (void)state;
    check_bad(&(struct world){.poll = {.end = EXCHANGE_CUT, .waited_ms = 20000}}, "idle poll",
              "cut after 20.0 s: cut");
    check_bad(&(struct world){.poll = {.status = 504, .waited_ms = 30000}}, "idle poll",
              "cut after 30.0 s, which is enough for polls of 25 s: status 504");
    check_bad(&(struct world){.poll = {.body = "{}", .waited_ms = 100}}, "idle poll", "status 200");
    check_bad(&(struct world){.stream = {.end = EXCHANGE_CUT, .waited_ms = 10000}}, "idle stream",
              "cut after 10.0 s; it has a heartbeat every 15 s: cut");
    check_bad(&(struct world){.stream = {.body = "\n", .waited_ms = 30000}}, "idle stream",
              "cut after 30.0 s: a clean end");
    check_bad(&(struct world){.stream = {.status = 502, .waited_ms = 30000}}, "idle stream",
              "status 502");
}

/* Whoever has seen enough: what was pushed is purged all the same. */
static void test_stopped(void **state) {
    (void)state;
    static const char *const moments[] = {"/-/health", "POST",   "view=full",    "?ts=now",
                                          "?feed=sse", "DELETE", "?ts=now&sleep"};
    for (size_t i = 0; i < sizeof moments / sizeof *moments; i++) {
        int code = examine(&(struct world){.stop_at = moments[i]}, true);
        assert_int_equal(code, EXIT_FAILURE);
        assert_int_equal(ignores_stop, i > 0 && i < 5);
        assert_false(says("\"topic\":\"idle"));
    }
}

/* The channel's name is left out, whatever stands behind it. */
static void test_whom_it_asks(void **state) {
    (void)state;
    static const struct {
        const char *url, *wanted;
    } cases[] = {{"http://h/x", "http://h/-/health"},
                 {"http://h:1/x//", "http://h:1/-/health"},
                 {"https://h/a/b?c/d#e/f", "https://h/a/-/health"},
                 {"https://h/a/#b/c", "https://h/a/-/health"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char url[64];
        snprintf(url, sizeof url, "%s", cases[i].url);
        *first_url = '\0';
        is_asked_to_stop = false;
        world = (struct world){.health = {.end = EXCHANGE_NOT_CONNECTED}};
        assert_int_equal(doctor_run(1, (char *[]){url}), EX_UNAVAILABLE);
        assert_string_equal(first_url, cases[i].wanted);
    }
}

/* --- Options, and memory ---------------------------------------------------------------------- */

static void test_options(void **state) {
    (void)state;
    char bad_url[] = "nowhere", url[] = "http://h/x", sleeps[] = "--sleep=61", other[] = "--what";
    world = (struct world){0};
    assert_int_equal(doctor_run(1, (char *[]){bad_url}), EX_USAGE);
    assert_int_equal(doctor_run(2, (char *[]){url, sleeps}), EX_USAGE);
    assert_int_equal(doctor_run(2, (char *[]){url, bad_url}), EX_USAGE);
    assert_int_equal(doctor_run(2, (char *[]){url, other}), EX_USAGE);
}

/* A process that ends has no other one to go on with: each is one of its own. */
static void without_one(void) {
    is_counting = true;
    int code = examine(&(struct world){0}, true);
    is_counting = false;
    _exit(allocations >= failing_allocation ? HAD_LESS : code);
}

static struct curl_slist *no_list(struct curl_slist *list, const char *text) {
    (void)list;
    (void)text;
    return NULL;
}

static void check_without_headers(void) {
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        curl_library.curl_slist_append = no_list;
        _exit(examine(&(struct world){0}, true) == EX_OK);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == EX_OSERR);
}

/* It says so and ends, or finds out what it can without. */
static void test_without_memory(void **state) {
    (void)state;
    int exits = 0, status = 0;
    check_without_headers();
    for (failing_allocation = 1; status != EX_OK || failing_allocation == 1;
         failing_allocation += failing_allocation < 16 ? 1 : 4) {
        allocations = 0;
        pid_t pid = fork();
        if (pid == 0)
            without_one();
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        status = WEXITSTATUS(status);
        assert_true(status == EX_OK || status == EX_OSERR || status == HAD_LESS);
        exits += status == EX_OSERR;
    }
    assert_true(exits > 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_is_well), cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_servers),     cmocka_unit_test(test_late_once),
        cmocka_unit_test(test_streams),     cmocka_unit_test(test_silence),
        cmocka_unit_test(test_stopped),     cmocka_unit_test(test_whom_it_asks),
        cmocka_unit_test(test_options),     cmocka_unit_test(test_without_memory),
    };
    const char *error;
    if (!curl_load(&error))
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    buf_deinit(&out);
    return failed;
}
