/*
 * A token's profile as a file: what bk-key probe found, as JSON, plain or signed (CMS SignedData, docs/FORMAT.md). What
 * is wrong in one is BK_E_USAGE, since it configures, like bk.conf.
 */
#ifndef BK_CMD_TOKEN_PROFILE_H
#define BK_CMD_TOKEN_PROFILE_H

#include "base/buf.h"
#include "cmd/common/cmd.h"
#include "ops/token_profile.h"

/* As --type and --use call them. */
const char *cmd_kind_text(enum p11_key_kind kind);
/* 1 and *out if there is such a kind. */
int cmd_kind_from_text(const char *text, enum p11_key_kind *out);

/* One line of a probe. The caller owns it; NULL without memory. */
json_t *cmd_probe_json(const struct p11_probe_item *item);

/* The whole profile, without signature, appended to *out. kinds is an array of cmd_probe_json and is taken over. */
BK_MUST_USE enum bk_code cmd_token_profile_write(const char *token, int lasting, json_t *kinds, struct bk_buf *out,
                                                 struct bk_err *err);

/*
 * Reads one. BK_E_USAGE if others could have written it, or it is none. The signature of a signed one must hold, and
 * with trust be of somebody who is trusted in any role (BK_E_UNTRUSTED); trust may be NULL.
 */
BK_MUST_USE enum bk_code cmd_token_profile_read(const char *path, const struct ops_trust *trust,
                                                struct ops_token_profile *out, struct bk_err *err);
/* All that --token-profile names. */
BK_MUST_USE enum bk_code cmd_token_profiles_read(const struct cmd_list *paths, struct ops_token_profiles *out,
                                                 struct bk_err *err);

#endif
