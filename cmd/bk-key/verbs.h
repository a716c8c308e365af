/* What each verb of bk-key does. */
#ifndef BK_CMD_KEY_VERBS_H
#define BK_CMD_KEY_VERBS_H

#include "cmd/bk-key/args.h"

/* Runs the verb and prints its result. */
BK_MUST_USE enum bk_code key_run(struct cmd *c, const struct key_args *a, struct bk_err *err);

/* audit.c */
BK_MUST_USE enum bk_code key_audit(struct cmd *c, struct p11 *p11, const struct key_args *a, struct bk_err *err);

/* list.c: list and show. */
BK_MUST_USE enum bk_code key_list(struct cmd *c, struct p11 *p11, const struct key_args *a, struct bk_err *err);

/* An object as one member set of JSON, for list and audit. */
json_t *key_item_json(const struct p11_item *i);

/* What a URI names, for export. */
enum key_named { KEY_NAMED_NOTHING, KEY_NAMED_SIGNER, KEY_NAMED_KEK };
BK_MUST_USE enum bk_code key_what_is(struct p11 *p11, const char *uri, enum key_named *out, struct bk_err *err);

/* probe.c */
BK_MUST_USE enum bk_code key_probe(struct cmd *c, struct p11 *p11, const struct key_args *a, struct bk_err *err);

#endif
