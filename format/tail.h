/* The tail: the last 64 bytes of a complete archive. docs/FORMAT.md, Tail. */
#ifndef BK_FORMAT_TAIL_H
#define BK_FORMAT_TAIL_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "format/preamble.h"

#define BK_TAIL_LEN     64
#define BK_MANIFEST_MAX (1024 * 1024)

struct bk_tail {
    uint64_t index_offset;
    uint32_t manifest_length; /* of the SignedData, its u32 not counted */
    uint64_t total_length;
};

void bk_tail_write(const struct bk_tail *t, uint8_t out[BK_TAIL_LEN]);

/* buf is exactly the 64 bytes. BK_E_INCOMPLETE when the magic is not there, BK_E_FORMAT for everything else. */
BK_MUST_USE enum bk_code bk_tail_parse(const uint8_t *buf, size_t len, struct bk_tail *out, struct bk_err *err);

/* Where everything is, worked out from the preamble, the tail and the file's size; all of it must agree. */
struct bk_layout {
    uint64_t frames_offset;
    uint64_t frames_length;
    uint64_t index_offset;
    uint64_t groups;
    uint64_t segments;        /* counted from the lengths */
    uint64_t manifest_offset; /* of the DER, after its u32 */
    uint32_t manifest_length;
    uint64_t plaintext_length;
};

/*
 * Works out the one layout that the lengths allow: index offset + 32 * groups + 4 + manifest + 64 = total = file size,
 * with frames that are all full but the last. BK_E_FORMAT if there is none, BK_E_INCOMPLETE if the file is shorter than
 * the tail says.
 */
BK_MUST_USE enum bk_code bk_layout_find(const struct bk_preamble *p, const struct bk_tail *t, uint64_t file_size,
                                        struct bk_layout *out, struct bk_err *err);

/* The layout of an archive that is being written, from what was sealed. */
void bk_layout_make(const struct bk_preamble *p, uint64_t plaintext_length, uint32_t manifest_length,
                    struct bk_layout *out);

#endif
