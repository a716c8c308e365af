#include "ops/verify.h"

#include <string.h>

#include "base/hash.h"
#include "format/payload.h"
#include "ops/payload.h"
#include "store/read_all.h"

static enum bk_code
compare_kept_manifest(const struct ops_verify *v, const struct ops_archive *a, struct bk_err *err)
{
    struct bk_buf der = {0};
    struct bk_signed kept = {0};
    uint8_t digest[32];
    enum bk_code rc;

    if ((rc = store_read_all(v->manifest_path, BK_MANIFEST_MAX, &der, err)) != BK_OK)
        goto done;
    if ((rc = bk_signed_parse(der.data, der.len, BK_CONTENT_MANIFEST, &kept, err)) != BK_OK) {
        bk_err_prefix(err, "%s", v->manifest_path);
        goto done;
    }
    bk_sha256(kept.content.data, kept.content.len, digest);
    if (memcmp(digest, a->manifest_digest, 32) != 0)
        rc = bk_fail(err, BK_E_UNEXPECTED, "the archive's manifest is not the one that was kept in %s",
                     v->manifest_path);
done:
    if (rc != BK_OK)
        err->layer = "manifest"; /* as docs/CLI.md names it, over format's own word */
    bk_signed_free(&kept);
    bk_buf_free(&der);
    return rc;
}

static enum bk_code
check_payload(const struct ops_verify *v, const struct ops_archive *a, const struct bk_payload *keys,
              struct bk_err *err)
{
    struct ops_payload p = {
        .keys = keys, .workers = v->workers, .engine = v->engine, .log = v->log, .length = a->layout.plaintext_length};

    return ops_payload_run_file(&p, a, err);
}

static enum bk_code
check_with_key(const struct ops_verify *v, const struct ops_archive *a, struct bk_err *err)
{
    struct bk_secret cek = {0};
    struct bk_key_package package = {0};
    struct bk_key_id opened_by;
    struct bk_payload keys = {0};
    enum bk_code rc = ops_keyring_open(v->ring, a, &cek, &package, &opened_by, err);

    bk_secret_wipe(&cek);
    if (rc == BK_OK)
        rc = bk_payload_init(&keys, a->head, &package.file_key, a->envelope.digest, err);
    bk_key_package_free(&package);
    if (rc == BK_OK)
        rc = check_payload(v, a, &keys, err);
    bk_payload_wipe(&keys);
    return rc;
}

static enum bk_code
damaged(const struct ops_archive *a, const char *what, const struct bk_err *damage, struct bk_err *err)
{
    enum bk_code rc = bk_fail(err, BK_E_FORMAT, "%s: %s", what, damage->message);

    bk_err_hint(err, "the archive still opens by the %s; bk-rekey mends it", ops_taken_name(a->taken));
    err->layer = "slots";
    return rc;
}

static enum bk_code
check_slots(const struct ops_archive *a, struct bk_err *err)
{
    for (int i = 0; i < 2; i++)
        if (a->slots.state[i] != BK_SLOT_VALID)
            return damaged(a, i == 0 ? "slot A" : "slot B", &a->slots.damage[i], err);
    if (a->sidecar_state == OPS_SIDECAR_DAMAGED)
        return damaged(a, "sidecar", &a->sidecar_damage, err);
    return BK_OK;
}

enum bk_code
ops_verify_run(const struct ops_verify *v, struct ops_archive *a, struct store_source **src, struct bk_err *err)
{
    enum bk_code rc;

    if ((rc = store_source_open(v->archive, v->cancel, src, err)) != BK_OK) {
        bk_err_layer(err, "file");
        return rc;
    }
    if (v->direct)
        store_source_direct(*src);
    if (!store_source_seekable(*src))
        return bk_fail(err, BK_E_USAGE, "only a file can be verified, not a stream");
    if ((rc = ops_archive_open(a, *src, v->trust, v->log, err)) != BK_OK)
        return rc;
    if (v->manifest_path != NULL && (rc = compare_kept_manifest(v, a, err)) != BK_OK)
        return rc;
    if ((rc = ops_expect_check(v->expect, a, err)) != BK_OK)
        return rc;
    if ((rc = ops_archive_read_index(a, err)) != BK_OK)
        return rc;
    if (v->level == OPS_LEVEL_INTEGRITY)
        rc = check_payload(v, a, NULL, err);
    else if (v->level == OPS_LEVEL_DECRYPT)
        rc = check_with_key(v, a, err);
    return rc == BK_OK ? check_slots(a, err) : rc;
}
