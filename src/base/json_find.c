#include "base/json_find.h"
#include "base/json.h"

/* The member of this name, of the same names the last; or the item at this place. */
static bool find_inside(struct slice json, struct slice name, struct buf *scratch,
                        struct slice *value) {
    bool found = false;
    uint64_t place, at = 0;
    bool is_array = json.len && *json.data == '[';
    if (is_array && !slice_number(name, UINT32_MAX, &place))
        return false;
    for (struct json_member member;
         is_array ? json_next_item(&json, &member.value) : json_next_member(&json, &member);) {
        bool is_it =
            is_array ? at++ == place : slice_equal(json_unescape(member.key, scratch), name);
        if (scratch->failed)
            return false;
        if (is_it)
            *value = member.value;
        found |= is_it;
        if (is_array && is_it)
            break;
    }
    return found;
}

static bool find(struct slice json, struct slice path, struct buf *scratch, struct buf *out) {
    struct slice value = skip_blank(json), name;
    for (int depth = 0; slice_cut(&path, '.', &name); depth++)
        if (depth == JSON_FIND_MAX_NAMES || !value.len || !strchr("{[", *value.data) ||
            !find_inside(value, name, scratch, &value))
            return false;
    if (!value.len || strchr("{[n", *value.data))
        return false;
    if (*value.data == '"')
        value = json_unescape((struct slice){value.data + 1, value.len - 2}, scratch);
    buf_append(out, value.data, value.len);
    return true;
}

bool json_find(struct slice json, struct slice path, struct buf *out) {
    struct buf scratch = {0};
    bool found = find(json, path, &scratch, out);
    out->failed |= scratch.failed;
    buf_deinit(&scratch);
    return found;
}
