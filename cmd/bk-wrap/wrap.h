/* A run of bk-wrap: keys that were opened once, for one archive or for many. */
#ifndef BK_CMD_WRAP_WRAP_H
#define BK_CMD_WRAP_WRAP_H

#include "cmd/bk-wrap/args.h"

/* Zero-initialise but for cmd. */
struct wrap {
    struct cmd cmd;
    struct ops_token_profiles profiles;
    struct ops_recipients recipients;
    struct ops_signer signer;
    struct bk_signing_key signing;
    struct ops_wrap_result result; /* of the archive that is told */
};

/* What became of one archive, for people if it was made, and as JSON. input is NULL unless it is one of many. */
BK_MUST_USE enum bk_code wrap_tell(struct wrap *w, const char *output, const char *input, enum bk_code rc,
                                   const struct bk_err *result, struct bk_err *err);

/* batch.c: an archive for each item of a->batch; req holds what they have in common. Each failure was printed; *err
 * sums up if the batch did not come to its end. */
BK_MUST_USE enum bk_code wrap_batch(struct wrap *w, const struct wrap_args *a, const struct ops_wrap *req,
                                    struct bk_err *err);

#endif
