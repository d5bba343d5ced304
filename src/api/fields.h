/*
 * The fields of a query or a form, decoded: each name once, with all its values, in the order in
 * which the names first appear.
 */
#pragma once

#include "base/buf.h"
#include "base/slice.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How many pairs a text may have. A query has fewer by its length. */
enum { FIELDS_MAX = 65536 };

struct field_value {
    uint32_t at, len; /* in fields.text, as UTF-8 */
    uint32_t next;    /* of the same name: 1 + position in values, 0 for none */
};

struct field {
    uint32_t name_at, name_len;
    uint32_t first, last; /* 1 + position in values */
    bool is_placed;       /* a member stands for it already: write_members() leaves it out */
};

struct fields {
    struct buf text;
    struct field *list;
    size_t count;
    struct field_value *values;
    size_t value_count, cap; /* there is room for `cap` fields and as many values */
    uint32_t *index;         /* open addressing by name: 1 + position in list, 0 for none */
    size_t index_size;
    bool failed;      /* memory is out */
    bool is_too_many; /* pairs: there are no fields then */
};

/*
 * Decodes `text` (application/x-www-form-urlencoded). What is not UTF-8 is read by `charset`, a
 * name as charset_decode() takes it, which may be empty. Check `failed`; always fields_deinit() it.
 */
void fields_init(struct fields *fields, struct slice text, struct slice charset);
void fields_deinit(struct fields *fields);

/* Memory they take. */
size_t fields_size(const struct fields *fields);

/* The field called `name`, NULL when there is none. */
struct field *fields_find(const struct fields *fields, struct slice name);

static inline struct slice fields_name(const struct fields *fields, const struct field *field) {
    return (struct slice){fields->text.data + field->name_at, field->name_len};
}

/* Its last value. */
static inline struct slice fields_value(const struct fields *fields, const struct field *field) {
    const struct field_value *value = &fields->values[field->last - 1];
    return (struct slice){fields->text.data + value->at, value->len};
}

/* None is placed any more. */
void fields_unplace(struct fields *fields);

/* Writes the field's value as a JSON string; an array of strings when there are several. */
void fields_write_value(const struct fields *fields, struct buf *out, const struct field *field);

/* Writes those that are not placed as members of a JSON object, with a comma before each; before
 * the first of them only unless `is_first`. */
void fields_write_members(const struct fields *fields, struct buf *out, bool is_first);
