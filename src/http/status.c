#include "http/status.h"

int http_status_code(enum http_status status) {
#define STATUS_CODE(name, code, reason) [name] = (code),
    static const int codes[] = {HTTP_STATUSES(STATUS_CODE)};
    return status < HTTP_STATUS_COUNT ? codes[status] : 200 + (int)(status - HTTP_STATUS_COUNT);
}

const char *http_status_reason(enum http_status status) {
#define STATUS_REASON(name, code, reason) [name] = (reason),
    static const char *const reasons[] = {HTTP_STATUSES(STATUS_REASON)};
    return status < HTTP_STATUS_COUNT ? reasons[status] : "";
}

enum http_status http_error_status(enum http_error error) {
#define ERROR_STATUS(name, status, text) [name] = (status),
    static const enum http_status statuses[] = {HTTP_ERRORS(ERROR_STATUS)};
    return statuses[error];
}

const char *http_error_description(enum http_error error) {
#define ERROR_TEXT(name, status, text) [name] = (text),
    static const char *const texts[] = {HTTP_ERRORS(ERROR_TEXT)};
    return texts[error];
}
