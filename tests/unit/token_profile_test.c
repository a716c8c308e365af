/* Profiles of tokens: written and read back, refused when they are not what is written, and held against the present.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "cmd/common/token_profile.h"

#define TOKEN "pkcs11:token=a;serial=1"

static char folder[] = "/tmp/bk-profile-XXXXXX";
static char path[64];
static struct bk_err err;

static const struct p11_probe_item probed[] = {
    {.kind = P11_AES256,
     .works = 1,
     .scheme = BK_SCHEME_AES_KW,
     .refuses_damage = 1,
     .blind = 1,
     .facts = {1, 0, 1, -1, 1, 0}},
    {.kind = P11_RSA3072,
     .works = 1,
     .scheme = BK_SCHEME_RSA_OAEP_SHA256,
     .refuses_damage = -1,
     .facts = {-1, -1, -1, -1, -1, -1}},
    {.kind = P11_P384,
     .signing = 1,
     .works = 0,
     .refuses_damage = -1,
     .why = "no such curve",
     .facts = {-1, -1, -1, -1, -1, -1}},
};

static int
setup(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL)
        return -1;
    (void)snprintf(path, sizeof path, "%s/p.json", folder);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    (void)unlink(path);
    return rmdir(folder);
}

static void
put(const void *data, size_t len, mode_t mode)
{
    int fd;

    (void)unlink(path);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), len);
    assert_int_equal(fchmod(fd, mode), 0);
    assert_int_equal(close(fd), 0);
}

/* As text; the caller frees. */
static struct bk_buf
written(void)
{
    struct bk_buf text = {0};
    json_t *lines = json_array();

    for (size_t i = 0; i < sizeof probed / sizeof probed[0]; i++)
        assert_int_equal(json_array_append_new(lines, cmd_probe_json(&probed[i])), 0);
    assert_int_equal(cmd_token_profile_write(TOKEN, 0, lines, &text, &err), BK_OK);
    return text;
}

static void
comes_back(void **state)
{
    struct bk_buf text = written();
    struct ops_token_profile p = {0};

    (void)state;
    put(text.data, text.len, 0600);
    assert_int_equal(cmd_token_profile_read(path, NULL, &p, &err), BK_OK);
    assert_string_equal(p.token, TOKEN);
    assert_string_equal(p.file, path);
    assert_int_equal(p.count, 3);
    for (size_t i = 0; i < p.count; i++) {
        assert_int_equal(p.kinds[i].kind, probed[i].kind);
        assert_int_equal(p.kinds[i].signing, probed[i].signing);
        assert_int_equal(p.kinds[i].works, probed[i].works);
        assert_int_equal(p.kinds[i].scheme, probed[i].scheme);
        assert_int_equal(p.kinds[i].blind, probed[i].blind);
        assert_int_equal(p.kinds[i].refuses_damage, probed[i].refuses_damage);
        assert_memory_equal(p.kinds[i].facts, probed[i].facts, sizeof probed[i].facts);
    }
    ops_token_profile_free(&p);
    bk_buf_free(&text);
}

static void
what_is_cut_or_others_can_write_is_refused(void **state)
{
    struct bk_buf text = written();
    struct ops_token_profile p = {0};

    (void)state;
    for (size_t len = 0; len + 3 < text.len; len++) {
        put(text.data, len, 0600);
        assert_int_equal(cmd_token_profile_read(path, NULL, &p, &err), BK_E_USAGE);
        assert_non_null(strstr(err.message, path));
        assert_null(p.token);
    }
    put(text.data, text.len, 0620);
    assert_int_equal(cmd_token_profile_read(path, NULL, &p, &err), BK_E_USAGE);
    assert_non_null(strstr(err.message, "others can write it"));
    put("0nonsense", 9, 0600); /* begins as a signed one does */
    assert_int_equal(cmd_token_profile_read(path, NULL, &p, &err), BK_E_FORMAT);
    bk_buf_free(&text);
}

/* Each replacement, of text that is in it once or more, makes it unreadable. */
static void
what_was_edited_is_refused(void **state)
{
    static const char *const edits[][3] = {
        {"\"bkTokenProfile\": 1", "\"bkTokenProfile\": 2", "not a token's profile"},
        {"\"token\": \"pkcs11", "\"token\": \"pkcs12", "PKCS#11 URI"},
        {"\"token\"", "\"tokem\"", "no \"token\" in it"},
        {"\"probed\"", "\"probes\"", "no \"probed\" in it"},
        {"\"kinds\"", "\"kindS\"", "no list"},
        {"\"aes256\"", "\"aes257\"", "number 1"},
        {"\"kek\"", "\"key\"", "number 1"},
        {"\"sign\"", "\"sing\"", "number 3"},
        {"\"aes-kw\"", "\"aes-kv\"", "number 1"},
        {"\"rsa-oaep-sha256\"", "null             ", "number 2"},
        {"\"works\": true", "\"works\": 1   ", "number 1"},
        {"\"blind\": true", "\"blimd\": true", "number 1"},
        {"\"keepsValues\": true", "\"keepsValues\": \"no\"", "number 1"},
        {"\"drawsNonce\": false", "\"drawsNonce\": 0    ", "number 1"},
        {"\"facts\": null", "\"facts\": true", "number 2"},
    };
    struct bk_buf text = written();

    (void)state;
    for (size_t i = 0; i < sizeof edits / sizeof edits[0]; i++) {
        struct ops_token_profile p = {0};
        char *copy = malloc(text.len + 1);
        char *at;

        assert_non_null(copy);
        memcpy(copy, text.data, text.len);
        copy[text.len] = '\0';
        at = strstr(copy, edits[i][0]);
        if (at == NULL || strlen(edits[i][0]) != strlen(edits[i][1]))
            fail_msg("%s", edits[i][0]);
        memcpy(at, edits[i][1], strlen(edits[i][1]));
        put(copy, text.len, 0600);
        if (cmd_token_profile_read(path, NULL, &p, &err) != BK_E_USAGE || strstr(err.message, edits[i][2]) == NULL)
            fail_msg("%s: %s", edits[i][1], err.message);
        free(copy);
    }
    bk_buf_free(&text);
}

static void
loses(const struct p11_probe_item *now, const char *says)
{
    char text[200] = "";

    assert_int_equal(ops_token_profile_lost(&probed[0], now, text, sizeof text), says != NULL);
    if (says != NULL && strstr(text, says) == NULL)
        fail_msg("%s", text);
}

static void
what_is_lost_is_told(void **state)
{
    struct p11_probe_item now = probed[0];

    (void)state;
    loses(&now, NULL);
    now.facts[P11_FACT_UNWRAPS_WITHOUT_LENGTH] = 0; /* bk tries both: nothing is lost by that */
    now.facts[P11_FACT_DRAWS_NONCE] = 1;
    loses(&now, NULL);
    now.facts[P11_FACT_TEMPLATE_BINDS] = 0;
    loses(&now, "holds to a CKA_UNWRAP_TEMPLATE");
    now.refuses_damage = 0;
    loses(&now, "takes it now");
    now.blind = 0;
    loses(&now, "rotated blind");
    now.scheme = BK_SCHEME_AES_GCM;
    loses(&now, "proved aes-kw, and only aes-gcm-token now");
    now.works = 0;
    now.why = "CKR_DEVICE_ERROR";
    loses(&now, "does not now: CKR_DEVICE_ERROR");
    assert_int_equal(ops_token_profile_lost(&probed[2], &now, NULL, 0), 0); /* what did not work has nothing to lose */
}

static void
kept(struct ops_token_profiles *all)
{
    struct ops_token_profile p = {.file = strdup("kept"), .token = strdup(TOKEN), .probed = strdup("then"), .count = 3};

    memcpy(p.kinds, probed, sizeof probed);
    assert_int_equal(ops_token_profiles_add(all, &p, &err), BK_OK);
    p = (struct ops_token_profile){.file = strdup("twice"), .token = strdup(TOKEN)};
    assert_int_equal(ops_token_profiles_add(all, &p, &err), BK_E_USAGE);
    assert_non_null(strstr(err.message, "kept and twice are profiles of one token"));
}

static void
weaker_schemes_are_refused(void **state)
{
    char here[] = TOKEN ";object=x", elsewhere[] = "pkcs11:token=a;serial=2;object=x";
    struct ops_token_profiles all = {0};
    struct bk_public rsa = {.type = BK_KEY_RSA, .scheme = BK_SCHEME_RSA_OAEP_SHA256, .uri = here};
    struct bk_public aes = {.type = BK_KEY_AES256, .scheme = BK_SCHEME_AES_KW, .uri = here};

    (void)state;
    kept(&all);
    assert_int_equal(ops_token_profiles_check(&all, &rsa, &err), BK_OK);
    assert_int_equal(ops_token_profiles_check(&all, &aes, &err), BK_OK);
    rsa.scheme = BK_SCHEME_RSA_OAEP_SHA1;
    aes.scheme = BK_SCHEME_AES_GCM;
    assert_int_equal(ops_token_profiles_check(&all, &rsa, &err), BK_E_POLICY);
    assert_non_null(strstr(err.message, "no more than rsa-oaep-sha1 now, and rsa-oaep-sha256 when it was probed"));
    assert_int_equal(ops_token_profiles_check(&all, &aes, &err), BK_E_POLICY);
    assert_int_equal(ops_token_profiles_check(NULL, &aes, &err), BK_OK);
    rsa.uri = elsewhere;
    assert_int_equal(ops_token_profiles_check(&all, &rsa, &err), BK_OK);
    rsa.uri = NULL;
    assert_int_equal(ops_token_profiles_check(&all, &rsa, &err), BK_OK);
    ops_token_profiles_free(&all);
}

static void
blindness_is_of_two_keys_on_the_token(void **state)
{
    char here[] = TOKEN ";object=x", there[] = TOKEN ";object=y", elsewhere[] = "pkcs11:token=b;serial=1";
    struct ops_token_profiles all = {0};
    struct bk_public from = {.type = BK_KEY_AES256, .uri = here};
    struct bk_public to = {.type = BK_KEY_AES256, .uri = there};

    (void)state;
    kept(&all);
    assert_ptr_equal(ops_token_profiles_blind(&all, &from, &to), all.items);
    assert_null(ops_token_profiles_blind(NULL, &from, &to));
    from.uri = elsewhere;
    assert_null(ops_token_profiles_blind(&all, &from, &to));
    from.uri = here;
    from.type = BK_KEY_RSA;
    assert_null(ops_token_profiles_blind(&all, &from, &to));
    from.type = BK_KEY_AES256;
    all.items[0].kinds[0].blind = 0;
    assert_null(ops_token_profiles_blind(&all, &from, &to));
    ops_token_profiles_free(&all);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back),
        cmocka_unit_test(what_is_cut_or_others_can_write_is_refused),
        cmocka_unit_test(what_was_edited_is_refused),
        cmocka_unit_test(what_is_lost_is_told),
        cmocka_unit_test(weaker_schemes_are_refused),
        cmocka_unit_test(blindness_is_of_two_keys_on_the_token),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
