#include "tests/fuzz/der_mutate.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "format/tlv.h"
#include "tests/fuzz/fuzz.h"

#define DEPTH_MAX    24
#define CHILDREN_MAX 256
#define GROWTH       256 /* room for what a mutation adds to one element */

struct fuzz_random
fuzz_random_from(unsigned seed)
{
    return (struct fuzz_random){seed * 0x9e3779b97f4a7c15ull + 88172645463325252ull};
}

size_t
fuzz_below(struct fuzz_random *r, size_t below)
{
    r->state ^= r->state << 13;
    r->state ^= r->state >> 7;
    r->state ^= r->state << 17;
    return below == 0 ? 0 : (size_t)((r->state >> 11) % below);
}

/* An element of the input: with identifier and length, and its contents alone. */
struct element {
    struct bk_tlv whole;
    struct bk_tlv contents;
    size_t skip; /* bytes of the contents before the elements in them: the unused-bits byte of a BIT STRING */
};

struct mutation {
    struct fuzz_random *random;
    size_t at;                   /* elements seen so far */
    size_t target;               /* the one to change */
    const struct element *donor; /* what may stand in its place */
};

static int
take(struct bk_tlv *in, struct element *out)
{
    out->whole.data = in->data;
    if (in->len < 2 || !bk_tlv_take(in, in->data[0], &out->contents))
        return 0;
    out->whole.len = (size_t)(in->data - out->whole.data);
    out->skip = 0;
    return 1;
}

static int
all_elements(struct bk_tlv in)
{
    struct element e;

    if (in.len == 0)
        return 0;
    while (in.len > 0)
        if (!take(&in, &e))
            return 0;
    return 1;
}

/* 1 if there are elements inside: of a constructed one, or encoded in a string. */
static int
holds_elements(struct element *e)
{
    uint8_t tag = e->whole.data[0];
    struct bk_tlv inner = e->contents;

    if ((tag & 0x20) != 0)
        return all_elements(inner);
    if (tag == BK_TAG_BIT_STRING && inner.len > 0 && inner.data[0] == 0) {
        inner = (struct bk_tlv){inner.data + 1, inner.len - 1};
        e->skip = 1;
    }
    return (tag == BK_TAG_OCTET_STRING || tag == BK_TAG_BIT_STRING) && inner.len > 2 &&
           inner.data[0] == BK_TAG_SEQUENCE && all_elements(inner);
}

static struct bk_tlv
inside(const struct element *e)
{
    return (struct bk_tlv){e->contents.data + e->skip, e->contents.len - e->skip};
}

/* How many elements there are; the one of that number, from 0, is copied to *out if that is not NULL. */
static size_t
count(struct bk_tlv in, size_t depth, size_t seen, size_t wanted, struct element *out)
{
    struct element e;

    while (in.len > 0 && take(&in, &e)) {
        if (seen++ == wanted && out != NULL)
            *out = e;
        if (depth < DEPTH_MAX && holds_elements(&e))
            seen = count(inside(&e), depth + 1, seen, wanted, out);
    }
    return seen;
}

static void
append(struct bk_buf *out, const void *data, size_t len)
{
    struct bk_err err;

    if (len > 0)
        fuzz_must(bk_buf_append(out, data, len, &err), &err);
}

static void
put(struct bk_buf *out, uint8_t tag, const struct bk_buf *contents)
{
    struct bk_err err;

    fuzz_must(bk_tlv_put(out, tag, contents->data == NULL ? (const uint8_t *)"" : contents->data, contents->len, &err),
              &err);
}

static void
put_new_contents(struct mutation *m, const struct element *e, struct bk_buf *out)
{
    size_t max = e->contents.len + 1 + fuzz_below(m->random, GROWTH);
    uint8_t *bytes = calloc(1, max);
    struct bk_buf contents = {0};

    fuzz_hold(bytes != NULL);
    if (e->contents.len > 0)
        memcpy(bytes, e->contents.data, e->contents.len);
    append(&contents, bytes, LLVMFuzzerMutate(bytes, e->contents.len, max));
    put(out, e->whole.data[0], &contents);
    bk_buf_free(&contents);
    free(bytes);
}

/* Contents of a length at which something begins or ends: key ids, digests, points, texts. */
static void
put_sized_contents(struct mutation *m, const struct element *e, struct bk_buf *out)
{
    static const size_t sizes[] = {0, 1, 3, 4, 12, 15, 16, 17, 19, 20, 21, 31, 32, 33, 40, 64, 65, 97, 256};
    size_t len = sizes[fuzz_below(m->random, sizeof sizes / sizeof sizes[0])];
    struct bk_buf contents = {0};

    for (size_t i = 0; i < len; i++)
        append(&contents, i < e->contents.len ? e->contents.data + i : (const uint8_t *)"A", 1);
    put(out, e->whole.data[0], &contents);
    bk_buf_free(&contents);
}

static void
put_other_tag(struct mutation *m, const struct element *e, struct bk_buf *out)
{
    static const uint8_t tags[] = {0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0a, 0x0c, 0x13, 0x17, 0x18, 0x30, 0x31,
                                   0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa6};
    struct bk_buf contents = {0};

    append(&contents, e->contents.data, e->contents.len);
    put(out, tags[fuzz_below(m->random, sizeof tags)], &contents);
    bk_buf_free(&contents);
}

static void
change(struct mutation *m, const struct element *e, struct bk_buf *out)
{
    static const uint8_t long_form[] = {0x83, 0x00};

    switch (fuzz_below(m->random, 12)) {
    case 0: /* left out */
        break;
    case 1:
        append(out, e->whole.data, e->whole.len);
        append(out, e->whole.data, e->whole.len);
        break;
    case 2:
        append(out, m->donor->whole.data, m->donor->whole.len);
        break;
    case 3:
        append(out, m->donor->whole.data, m->donor->whole.len);
        append(out, e->whole.data, e->whole.len);
        break;
    case 4:
        put_other_tag(m, e, out);
        break;
    case 5:
    case 6:
        put_sized_contents(m, e, out);
        break;
    case 7: /* a length that is not minimal */
        append(out, e->whole.data, 1);
        append(out, long_form, sizeof long_form);
        append(out, (const uint8_t[]){(uint8_t)(e->contents.len >> 8), (uint8_t)e->contents.len}, 2);
        append(out, e->contents.data, e->contents.len);
        break;
    default:
        put_new_contents(m, e, out);
    }
}

/* X.690 11.6. */
static int
set_order(const void *a, const void *b)
{
    const struct bk_tlv *x = a, *y = b;
    int order = memcmp(x->data, y->data, x->len < y->len ? x->len : y->len);

    return order != 0 ? order : (x->len > y->len) - (x->len < y->len);
}

static void
sort_set(struct bk_buf *contents)
{
    struct bk_tlv in = {contents->data, contents->len}, members[CHILDREN_MAX];
    struct bk_buf sorted = {0};
    struct element e;
    size_t n = 0;

    while (in.len > 0 && n < CHILDREN_MAX && take(&in, &e))
        members[n++] = e.whole;
    if (in.len == 0 && n > 1) {
        qsort(members, n, sizeof members[0], set_order);
        for (size_t i = 0; i < n; i++)
            append(&sorted, members[i].data, members[i].len);
        memcpy(contents->data, sorted.data, sorted.len);
    }
    bk_buf_free(&sorted);
}

static void
rebuild(struct mutation *m, struct bk_tlv in, size_t depth, struct bk_buf *out)
{
    struct element e;

    while (in.len > 0) {
        struct bk_buf contents = {0};

        if (!take(&in, &e)) {
            append(out, in.data, in.len);
            return;
        }
        if (m->at++ == m->target) {
            m->at += count(e.contents, depth + 1, 0, SIZE_MAX, NULL);
            change(m, &e, out);
        } else if (depth < DEPTH_MAX && holds_elements(&e)) {
            append(&contents, e.contents.data, e.skip);
            rebuild(m, inside(&e), depth + 1, &contents);
            if (e.whole.data[0] == BK_TAG_SET && fuzz_below(m->random, 8) != 0)
                sort_set(&contents);
            put(out, e.whole.data[0], &contents);
        } else {
            append(out, e.whole.data, e.whole.len);
        }
        bk_buf_free(&contents);
    }
}

size_t
fuzz_der_mutate(uint8_t *data, size_t size, size_t max_size, struct fuzz_random *r)
{
    uint8_t *copy = fuzz_copy(data, size);
    struct bk_tlv in = {copy, size};
    size_t elements = count(in, 0, 0, SIZE_MAX, NULL);
    struct element donor;
    struct mutation m = {.random = r, .target = fuzz_below(r, elements), .donor = &donor};
    struct bk_buf out = {0};
    size_t len = 0;

    if (elements > 0) {
        (void)count(in, 0, 0, fuzz_below(r, elements), &donor);
        rebuild(&m, in, 0, &out);
    }
    if (out.len > 0 && out.len <= max_size) {
        memcpy(data, out.data, out.len);
        len = out.len;
    }
    bk_buf_free(&out);
    free(copy);
    return len;
}
