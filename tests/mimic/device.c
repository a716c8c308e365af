/* The device: the real module's functions, and in place of some of them what the profile changes. */
#define OPENSSL_SUPPRESS_DEPRECATED /* the padding alone is only to be had from the old interface */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/rsa.h>

#include "tests/mimic/mimic.h"

/* The real module, without the name that its headers give to the call. */
#define REAL (mimic.real)

/* Between an Init and its operation, which a thread makes in one go. */
static _Thread_local CK_MECHANISM_TYPE under_way;
static _Thread_local int oaep_sha256, has_logged_in;

/* Of the login, for those that follow before each use. */
static unsigned char pin_known[256];
static size_t pin_known_len;

static int
has(enum mimic_quirk quirk)
{
    return (mimic.config.profile.quirks & (unsigned)quirk) != 0;
}

static int
contains(const CK_MECHANISM_TYPE *list, size_t count, CK_MECHANISM_TYPE type)
{
    /* 0 is CKM_RSA_PKCS_KEY_PAIR_GEN, and ends a list */
    for (size_t i = 0; i < count && list[i] != 0; i++)
        if (list[i] == type)
            return 1;
    return 0;
}

static int
is_missing(CK_MECHANISM_TYPE type)
{
    const struct mimic_profile *p = &mimic.config.profile;

    return contains(p->hidden, 8, type) || contains(p->listed, 2, type);
}

/* --- time ----------------------------------------------------------------------------------------------------------
 */

void
mimic_sleep_us(unsigned long us)
{
    us = us * mimic.config.latency_percent / 100;
    if (us > 0)
        (void)usleep((useconds_t)us);
}

static enum mimic_work
work_of(CK_MECHANISM_TYPE type)
{
    switch (type) {
    case CKM_ECDSA:
    case CKM_ECDH1_DERIVE:
        return WORK_EC;
    case CKM_AES_KEY_WRAP:
    case CKM_AES_GCM:
        return WORK_SECRET;
    default:
        return WORK_RSA;
    }
}

static CK_RV
work(enum mimic_work what)
{
    static atomic_uint nth;
    const struct mimic_profile *p = &mimic.config.profile;
    CK_RV rv = mimic_work_begin();

    if (rv == CKR_OK)
        mimic_sleep_us(p->rare_us > 0 && atomic_fetch_add(&nth, 1) % 100 == 50 ? p->rare_us : p->latency_us[what]);
    return rv;
}

/* What came of it, in the device's words. */
static CK_RV
worked(CK_RV rv, int data)
{
    mimic_work_end();
    if (data && (rv == CKR_GENERAL_ERROR || rv == CKR_ENCRYPTED_DATA_INVALID || rv == CKR_WRAPPED_KEY_INVALID) &&
        mimic.config.profile.bad_data != CKR_OK)
        return mimic.config.profile.bad_data;
    return rv;
}

/* --- what the device says of itself --------------------------------------------------------------------------------
 */

/* SoftHSM rewrites a token's file at each login, and who reads it meanwhile finds it broken (docs/TOKENS.md). That is
 * no property of the device, so those that write and read it take turns. */
static CK_RV
initialize(void *args)
{
    CK_RV rv;

    mimic_lock();
    rv = REAL->C_Initialize(args);
    mimic_unlock();
    return rv;
}

static CK_RV
get_slot_list(CK_BBOOL present, CK_SLOT_ID *list, CK_ULONG *count)
{
    CK_RV rv;

    mimic_lock();
    rv = REAL->C_GetSlotList(present, list, count);
    mimic_unlock();
    return rv;
}

static CK_RV
get_token_info(CK_SLOT_ID slot, CK_TOKEN_INFO *info)
{
    CK_RV rv;

    mimic_lock();
    rv = REAL->C_GetTokenInfo(slot, info);
    mimic_unlock();
    if (rv == CKR_OK && has(QUIRK_WRONG_PIN_LENGTH))
        info->ulMaxPinLen = info->ulMinPinLen = 4;
    return rv;
}

static CK_RV
get_mechanism_list(CK_SLOT_ID slot, CK_MECHANISM_TYPE *out, CK_ULONG *count)
{
    const struct mimic_profile *p = &mimic.config.profile;
    CK_MECHANISM_TYPE list[512];
    CK_ULONG n = sizeof list / sizeof list[0] - 2;
    CK_ULONG kept = 0;
    CK_RV rv = REAL->C_GetMechanismList(slot, list, &n);

    if (rv != CKR_OK)
        return rv;
    for (CK_ULONG i = 0; i < n; i++)
        if (!is_missing(list[i]))
            list[kept++] = list[i];
    for (size_t i = 0; i < 2 && p->listed[i] != 0; i++)
        list[kept++] = p->listed[i];
    if (out != NULL && *count < kept)
        rv = CKR_BUFFER_TOO_SMALL;
    else if (out != NULL)
        memcpy(out, list, kept * sizeof *out);
    *count = kept;
    return rv;
}

static CK_RV
get_mechanism_info(CK_SLOT_ID slot, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO *info)
{
    if (contains(mimic.config.profile.listed, 2, type)) {
        *info = (CK_MECHANISM_INFO){.flags = CKF_WRAP | CKF_UNWRAP};
        return CKR_OK;
    }
    return is_missing(type) ? CKR_MECHANISM_INVALID : REAL->C_GetMechanismInfo(slot, type, info);
}

/* --- sessions and logins -------------------------------------------------------------------------------------------
 */

static CK_RV
open_session(CK_SLOT_ID slot, CK_FLAGS flags, void *app, CK_NOTIFY notify, CK_SESSION_HANDLE *out)
{
    CK_RV rv;

    if (has(QUIRK_NO_READ_ONLY) && (flags & CKF_RW_SESSION) == 0)
        return CKR_ARGUMENTS_BAD;
    if ((rv = mimic_session_admit()) != CKR_OK)
        return rv;
    if ((rv = REAL->C_OpenSession(slot, flags, app, notify, out)) == CKR_OK) {
        atomic_fetch_add(&mimic.open, 1);
        mimic_session_add(*out);
    } else {
        mimic_session_add(CK_UNAVAILABLE_INFORMATION);
        mimic_session_drop(CK_UNAVAILABLE_INFORMATION);
    }
    return rv;
}

static CK_RV
close_session(CK_SESSION_HANDLE s)
{
    CK_RV rv = REAL->C_CloseSession(s);

    if (rv == CKR_OK) {
        atomic_fetch_sub(&mimic.open, 1);
        mimic_session_drop(s);
    }
    return rv;
}

static CK_RV
close_all_sessions(CK_SLOT_ID slot)
{
    CK_RV rv = REAL->C_CloseAllSessions(slot);

    if (rv == CKR_OK) {
        atomic_store(&mimic.open, 0);
        mimic_session_drop(0);
    }
    return rv;
}

/* How much of the PIN is for the device and not for the real token below, or more than there is. */
static CK_ULONG
pin_prefix(const CK_BYTE *pin, CK_ULONG len)
{
    const CK_BYTE *colon;

    if (pin == NULL)
        return 0;
    if (has(QUIRK_PIN_OF_KEY))
        return len > 4 && strspn((const char *)pin, "0123456789abcdef") >= 4 ? 4 : len + 1;
    if (!has(QUIRK_PIN_OF_USER))
        return 0;
    colon = memchr(pin, ':', len);
    return colon == NULL ? len + 1 : (CK_ULONG)(colon - pin) + 1;
}

static CK_RV
login(CK_SESSION_HANDLE s, CK_USER_TYPE user, CK_BYTE *pin, CK_ULONG len)
{
    CK_ULONG skip = pin_prefix(pin, len);
    CK_RV rv;

    mimic_sleep_us(mimic.config.profile.latency_us[WORK_LOGIN]);
    if (skip > len)
        return CKR_PIN_INCORRECT;
    if (user == CKU_CONTEXT_SPECIFIC && has(QUIRK_ALWAYS_AUTHENTICATE)) {
        if (pin == NULL || len != pin_known_len || memcmp(pin, pin_known, len) != 0)
            return CKR_PIN_INCORRECT;
        has_logged_in = 1;
        return CKR_OK;
    }
    mimic_lock();
    rv = REAL->C_Login(s, user, pin == NULL ? NULL : pin + skip, len - skip);
    mimic_unlock();
    if (rv == CKR_OK && pin != NULL && len <= sizeof pin_known) {
        memcpy(pin_known, pin, len);
        pin_known_len = len;
    }
    return rv;
}

static int
is_logged_in(CK_SESSION_HANDLE s)
{
    CK_SESSION_INFO info = {0};

    return REAL->C_GetSessionInfo(s, &info) == CKR_OK &&
           (info.state == CKS_RO_USER_FUNCTIONS || info.state == CKS_RW_USER_FUNCTIONS);
}

/* --- objects -------------------------------------------------------------------------------------------------------
 */

static CK_RV
find_objects_init(CK_SESSION_HANDLE s, CK_ATTRIBUTE *at, CK_ULONG count)
{
    char nobody[] = "\001no object has this label";
    CK_ATTRIBUTE none = {CKA_LABEL, nobody, sizeof nobody};

    if (has(QUIRK_FIND_NEEDS_LOGIN) && !is_logged_in(s))
        return REAL->C_FindObjectsInit(s, &none, 1);
    return REAL->C_FindObjectsInit(s, at, count);
}

static int
is_private(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE object)
{
    CK_OBJECT_CLASS class = 0;
    CK_ATTRIBUTE a = {CKA_CLASS, &class, sizeof class};

    return REAL->C_GetAttributeValue(s, object, &a, 1) == CKR_OK && class == CKO_PRIVATE_KEY;
}

static int
is_made_up(CK_ATTRIBUTE_TYPE type)
{
    switch (type) {
    case CKA_ALWAYS_AUTHENTICATE:
        return has(QUIRK_ALWAYS_AUTHENTICATE);
    case CKA_DECRYPT:
    case CKA_UNWRAP:
    case CKA_SIGN:
    case CKA_DERIVE:
    case CKA_MODIFIABLE:
        return has(QUIRK_FIXED_ATTRIBUTES);
    default:
        return 0;
    }
}

static CK_RV
get_attribute_value(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *at, CK_ULONG count)
{
    CK_RV rv = REAL->C_GetAttributeValue(s, object, at, count);

    for (CK_ULONG i = 0; rv == CKR_OK && i < count; i++)
        if (is_made_up(at[i].type) && at[i].pValue != NULL && at[i].ulValueLen == sizeof(CK_BBOOL) &&
            is_private(s, object))
            *(CK_BBOOL *)at[i].pValue = CK_TRUE;
    return rv;
}

/* 1 or 0 if the template says so, else -1. */
static int
says(const CK_ATTRIBUTE *at, CK_ULONG count, CK_ATTRIBUTE_TYPE type)
{
    for (CK_ULONG i = 0; i < count; i++)
        if (at[i].type == type && at[i].ulValueLen == sizeof(CK_BBOOL))
            return *(const CK_BBOOL *)at[i].pValue != CK_FALSE;
    return -1;
}

static int
has_length(const CK_ATTRIBUTE *at, CK_ULONG count)
{
    while (count > 0)
        if (at[--count].type == CKA_VALUE_LEN)
            return 1;
    return 0;
}

#define TEMPLATE_MAX 32

/* The template as the device takes it; SoftHSM refuses the length that some devices insist on. */
static CK_ULONG
as_taken(const CK_ATTRIBUTE *at, CK_ULONG count, CK_ATTRIBUTE out[TEMPLATE_MAX])
{
    static CK_BBOOL yes = CK_TRUE;

    CK_ULONG taken = 0;

    for (CK_ULONG i = 0; i < count && taken < TEMPLATE_MAX; i++) {
        if (at[i].type == CKA_VALUE_LEN && has(QUIRK_NEEDS_VALUE_LEN))
            continue;
        out[taken] = at[i];
        if (at[i].type == CKA_SENSITIVE && has(QUIRK_FORCES_SENSITIVE))
            out[taken].pValue = &yes;
        taken++;
    }
    return taken;
}

static int
forbids_a_use(const CK_ATTRIBUTE *at, CK_ULONG count)
{
    static const CK_ATTRIBUTE_TYPE uses[] = {CKA_ENCRYPT, CKA_DECRYPT, CKA_WRAP,  CKA_UNWRAP,
                                             CKA_DERIVE,  CKA_SIGN,    CKA_VERIFY};

    for (size_t i = 0; i < sizeof uses / sizeof uses[0]; i++)
        if (says(at, count, uses[i]) == 0)
            return 1;
    return 0;
}

static CK_RV
generate_key(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_ATTRIBUTE *at, CK_ULONG count, CK_OBJECT_HANDLE *out)
{
    CK_RV rv = is_missing(m->mechanism) ? CKR_MECHANISM_INVALID : work(WORK_GENERATE);

    return rv != CKR_OK ? rv : worked(REAL->C_GenerateKey(s, m, at, count, out), 0);
}

static CK_RV
generate_key_pair(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_ATTRIBUTE *pub, CK_ULONG pub_count, CK_ATTRIBUTE *priv,
                  CK_ULONG priv_count, CK_OBJECT_HANDLE *pub_out, CK_OBJECT_HANDLE *priv_out)
{
    CK_RV rv;

    if (has(QUIRK_ONLY_WANTED_USES) && (forbids_a_use(pub, pub_count) || forbids_a_use(priv, priv_count)))
        return CKR_GENERAL_ERROR;
    if ((rv = work(WORK_GENERATE)) != CKR_OK)
        return rv;
    return worked(REAL->C_GenerateKeyPair(s, m, pub, pub_count, priv, priv_count, pub_out, priv_out), 0);
}

/* --- private keys at work ------------------------------------------------------------------------------------------
 */

static CK_RV
sign_init(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE key)
{
    under_way = m->mechanism;
    has_logged_in = 0;
    return is_missing(m->mechanism) ? CKR_MECHANISM_INVALID : REAL->C_SignInit(s, m, key);
}

static CK_RV
sign(CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG len, CK_BYTE *out, CK_ULONG *n)
{
    CK_RV rv;

    if (has(QUIRK_ALWAYS_AUTHENTICATE) && !has_logged_in)
        return CKR_USER_NOT_LOGGED_IN;
    has_logged_in = 0;
    rv = work(work_of(under_way));
    return rv != CKR_OK ? rv : worked(REAL->C_Sign(s, in, len, out, n), 0);
}

static int
is_oaep_sha256(const CK_MECHANISM *m)
{
    const CK_RSA_PKCS_OAEP_PARAMS *oaep = m->pParameter;

    return has(QUIRK_OAEP_SHA256) && m->mechanism == CKM_RSA_PKCS_OAEP && m->ulParameterLen == sizeof *oaep &&
           oaep->hashAlg == CKM_SHA256 && oaep->mgf == CKG_MGF1_SHA256 && oaep->source == CKZ_DATA_SPECIFIED &&
           oaep->ulSourceDataLen == 0;
}

static CK_RV
decrypt_init(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE key)
{
    CK_MECHANISM raw = {.mechanism = CKM_RSA_X_509};

    under_way = m->mechanism;
    has_logged_in = 0;
    oaep_sha256 = is_oaep_sha256(m);
    if (is_missing(m->mechanism))
        return CKR_MECHANISM_INVALID;
    return REAL->C_DecryptInit(s, oaep_sha256 ? &raw : m, key);
}

/* SoftHSM has no OAEP but with SHA-1: the key's work is its own, the padding ours. */
static CK_RV
decrypt_oaep_sha256(CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG len, CK_BYTE *out, CK_ULONG *n)
{
    CK_BYTE padded[1024];
    CK_ULONG padded_len = sizeof padded;
    CK_RV rv = REAL->C_Decrypt(s, in, len, padded, &padded_len);
    int got;

    if (rv != CKR_OK)
        return rv;
    got = RSA_padding_check_PKCS1_OAEP_mgf1(out, (int)*n, padded, (int)padded_len, (int)padded_len, NULL, 0,
                                            EVP_sha256(), EVP_sha256());
    if (got < 0)
        return CKR_ENCRYPTED_DATA_INVALID;
    *n = (CK_ULONG)got;
    return CKR_OK;
}

static CK_RV
decrypt(CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG len, CK_BYTE *out, CK_ULONG *n)
{
    CK_RV rv;

    if (has(QUIRK_ALWAYS_AUTHENTICATE) && !has_logged_in)
        return CKR_USER_NOT_LOGGED_IN;
    has_logged_in = 0;
    if ((rv = work(work_of(under_way))) != CKR_OK)
        return rv;
    return worked(oaep_sha256 ? decrypt_oaep_sha256(s, in, len, out, n) : REAL->C_Decrypt(s, in, len, out, n), 1);
}

static CK_RV
wrap_key(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE under, CK_OBJECT_HANDLE key, CK_BYTE *out, CK_ULONG *n)
{
    CK_RV rv = is_missing(m->mechanism) ? CKR_MECHANISM_INVALID : work(work_of(m->mechanism));

    return rv != CKR_OK ? rv : worked(REAL->C_WrapKey(s, m, under, key, out, n), 0);
}

static CK_RV
unwrap_key(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE under, CK_BYTE *in, CK_ULONG len, CK_ATTRIBUTE *at,
           CK_ULONG count, CK_OBJECT_HANDLE *out)
{
    CK_ATTRIBUTE taken[TEMPLATE_MAX];
    CK_RV rv;

    if (is_missing(m->mechanism))
        return CKR_MECHANISM_INVALID;
    if (has(QUIRK_UNWRAPS_LASTING) && says(at, count, CKA_TOKEN) != 1)
        return CKR_ATTRIBUTE_VALUE_INVALID;
    if (has(QUIRK_NEEDS_VALUE_LEN) && !has_length(at, count))
        return CKR_TEMPLATE_INCOMPLETE;
    if ((rv = work(work_of(m->mechanism))) != CKR_OK)
        return rv;
    count = as_taken(at, count, taken);
    return worked(REAL->C_UnwrapKey(s, m, under, in, len, taken, count, out), 1);
}

/* A derivation has no Init after which somebody could log in, so no login is wanted for it. */
static CK_RV
derive_key(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE base, CK_ATTRIBUTE *at, CK_ULONG count,
           CK_OBJECT_HANDLE *out)
{
    CK_ATTRIBUTE taken[TEMPLATE_MAX];
    CK_RV rv;

    if (is_missing(m->mechanism))
        return CKR_MECHANISM_INVALID;
    if (has(QUIRK_DERIVES_TO_HOST) && says(at, count, CKA_EXTRACTABLE) == 0)
        return CKR_ATTRIBUTE_VALUE_INVALID;
    if ((rv = work(work_of(m->mechanism))) != CKR_OK)
        return rv;
    count = as_taken(at, count, taken);
    return worked(REAL->C_DeriveKey(s, m, base, taken, count, out), 1);
}

void
mimic_device_build(void)
{
    mimic.device = *REAL;
    mimic.device.C_Initialize = initialize;
    mimic.device.C_GetSlotList = get_slot_list;
    mimic.device.C_GetTokenInfo = get_token_info;
    mimic.device.C_GetMechanismList = get_mechanism_list;
    mimic.device.C_GetMechanismInfo = get_mechanism_info;
    mimic.device.C_OpenSession = open_session;
    mimic.device.C_CloseSession = close_session;
    mimic.device.C_CloseAllSessions = close_all_sessions;
    mimic.device.C_Login = login;
    mimic.device.C_FindObjectsInit = find_objects_init;
    mimic.device.C_GetAttributeValue = get_attribute_value;
    mimic.device.C_GenerateKey = generate_key;
    mimic.device.C_GenerateKeyPair = generate_key_pair;
    mimic.device.C_SignInit = sign_init;
    mimic.device.C_Sign = sign;
    mimic.device.C_DecryptInit = decrypt_init;
    mimic.device.C_Decrypt = decrypt;
    mimic.device.C_WrapKey = wrap_key;
    mimic.device.C_UnwrapKey = unwrap_key;
    mimic.device.C_DeriveKey = derive_key;
}
