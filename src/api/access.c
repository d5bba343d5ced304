#include "api/access.h"

/* Whatever is not named is allowed. */
static const enum http_error errors[RIGHTS][KEY_KINDS] = {
    [RIGHT_SEND] = {[KEY_READ] = ERROR_KEY_READS},
    [RIGHT_READ] = {[KEY_SEND] = ERROR_KEY_SENDS},
    [RIGHT_DELETE] = {[KEY_READ] = ERROR_KEY_DELETE, [KEY_SEND] = ERROR_KEY_DELETE},
};

enum http_error access_check(enum key_kind kind, enum right right) {
    return errors[right][kind];
}
