#include "redis/fate.h"

#include <string.h>

enum store_error redis_fate_error(const char *text) {
    static const struct {
        const char *code;
        enum store_error error;
    } codes[] = {
        {"READONLY", STORE_READ_ONLY},
        {"NOREPLICAS", STORE_TOO_FEW_REPLICAS},
        {"LOADING", STORE_LOADING},
        {"OOM", STORE_OUT_OF_MEMORY},
        {"DAMAGED", STORE_DAMAGED},
        {"WRONGTYPE", STORE_DAMAGED},
        {"CLUSTERDOWN", STORE_CLUSTER_DOWN},
        {"TRYAGAIN", STORE_CLUSTER_DOWN},
        {"MASTERDOWN", STORE_READ_ONLY},
        {"NOAUTH", STORE_REFUSED},
        {"WRONGPASS", STORE_REFUSED},
        {"NOPERM", STORE_REFUSED},
        {"invalid password", STORE_REFUSED},
        {"can't run this command", STORE_REFUSED},
        {"can't access", STORE_REFUSED},
        {"ACL failure in script", STORE_REFUSED}, /* from Redis 8 on */
        {"invalid username", STORE_REFUSED},
        {"without any password configured", STORE_REFUSED},
    };
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (strstr(text, codes[i].code))
            return codes[i].error;
    return STORE_FAILED;
}

/* Whether another try may help: another master may be about to be named. */
static bool may_pass(enum store_error error, bool may_fail_over) {
    bool is_role = error == STORE_READ_ONLY || error == STORE_TOO_FEW_REPLICAS;
    return error == STORE_CLUSTER_DOWN || (is_role && may_fail_over);
}

static struct redis_fate fate_of_error(const char *text, bool may_fail_over) {
    if (strstr(text, "NOSCRIPT"))
        return (struct redis_fate){FATE_SCRIPT, STORE_AWAY};
    if (strncmp(text, "MOVED ", 6) == 0)
        return (struct redis_fate){FATE_MOVED, STORE_CLUSTER_DOWN};
    if (strncmp(text, "ASK ", 4) == 0)
        return (struct redis_fate){FATE_ASK, STORE_CLUSTER_DOWN};
    enum store_error error = redis_fate_error(text);
    return (struct redis_fate){may_pass(error, may_fail_over) ? FATE_LATER : FATE_ANSWER, error};
}

struct redis_fate redis_fate_of(const redisReply *reply, bool is_append, bool is_believed,
                                bool may_fail_over) {
    /* An error is believed of anyone: nothing was done. */
    if (reply && reply->type == REDIS_REPLY_ERROR)
        return fate_of_error(reply->str, may_fail_over);
    if (reply && is_believed)
        return (struct redis_fate){FATE_DONE, STORE_OK};
    /* An append may have been done, and may be lost; what was read may be old. */
    if (is_append)
        return (struct redis_fate){FATE_ANSWER, STORE_UNSURE};
    return (struct redis_fate){FATE_AGAIN, STORE_AWAY};
}
