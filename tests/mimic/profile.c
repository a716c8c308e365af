/*
 * The devices. Each is imitated from its documentation, as its vendor and others wrote it down; none was seen. Times
 * are orders of magnitude.
 */
#include <string.h>

#include "tests/mimic/mimic.h"

#define MS 1000
/* CKM_AES_KEY_WRAP_KWP of PKCS#11 3.0 */
#define KEY_WRAP_KWP 0x210bUL

static const struct {
    const char *name;
    unsigned quirk;
} quirks[] = {
    {"find-needs-login", QUIRK_FIND_NEEDS_LOGIN},
    {"no-read-only", QUIRK_NO_READ_ONLY},
    {"derives-to-host", QUIRK_DERIVES_TO_HOST},
    {"unwraps-lasting", QUIRK_UNWRAPS_LASTING},
    {"needs-value-len", QUIRK_NEEDS_VALUE_LEN},
    {"forces-sensitive", QUIRK_FORCES_SENSITIVE},
    {"wrong-pin-length", QUIRK_WRONG_PIN_LENGTH},
    {"fixed-attributes", QUIRK_FIXED_ATTRIBUTES},
    {"always-authenticate", QUIRK_ALWAYS_AUTHENTICATE},
    {"throttles", QUIRK_THROTTLES},
    {"lost-as-a-whole", QUIRK_LOST_AS_A_WHOLE},
    {"only-wanted-uses", QUIRK_ONLY_WANTED_USES},
    {"oaep-sha256", QUIRK_OAEP_SHA256},
    {"pin-of-user", QUIRK_PIN_OF_USER},
    {"pin-of-key", QUIRK_PIN_OF_KEY},
};

static const struct mimic_profile profiles[] = {
    {.name = "plain"},
    /* YubiHSM 2, imitated from its documentation: a small USB device with 16 sessions, which die after 30 seconds; it
     * signs one thing at a time. Wrapping is by a vendor's mechanism, and what is unwrapped lasts. */
    {.name = "yubihsm2",
     .quirks = QUIRK_FIND_NEEDS_LOGIN | QUIRK_DERIVES_TO_HOST | QUIRK_UNWRAPS_LASTING | QUIRK_WRONG_PIN_LENGTH |
               QUIRK_OAEP_SHA256 | QUIRK_PIN_OF_KEY,
     .hidden = {CKM_AES_KEY_WRAP, CKM_AES_KEY_WRAP_PAD, CKM_AES_KEY_GEN},
     .listed = {KEY_WRAP_KWP},
     .bad_data = CKR_DEVICE_ERROR,
     .sessions = 16,
     .parallel = 1,
     .idle_ms = 30 * MS,
     .latency_us = {1 * MS, 50 * MS, 75 * MS, 500 * MS, 20 * MS, 3000 * MS}},
    /* A cloud HSM like AWS CloudHSM, imitated from its documentation: quick, far away, with many callers, of whom it
     * turns some away by CKR_FUNCTION_FAILED. No key wrap that it would undo again, no ECDH. */
    {.name = "cloudhsm",
     .quirks = QUIRK_NO_READ_ONLY | QUIRK_THROTTLES | QUIRK_OAEP_SHA256 | QUIRK_PIN_OF_USER,
     .hidden = {CKM_AES_KEY_WRAP, CKM_AES_KEY_WRAP_PAD, CKM_ECDH1_DERIVE},
     .refused = {MIMIC_C_DeriveKey},
     .bad_data = CKR_GENERAL_ERROR,
     .sessions = 1024,
     .parallel = 100,
     .latency_us = {1 * MS, 30 * MS, 3 * MS, 3 * MS, 3 * MS, 200 * MS},
     .rare_us = 50 * MS},
    /* An HSM in the house's own network, imitated from its documentation: everything works, until the network does
     * not; then nothing does before C_Finalize. */
    {.name = "lanhsm",
     .quirks = QUIRK_LOST_AS_A_WHOLE | QUIRK_NEEDS_VALUE_LEN | QUIRK_OAEP_SHA256,
     .bad_data = CKR_WRAPPED_KEY_INVALID,
     .parallel = 50,
     .latency_us = {200, 10 * MS, 2 * MS, 2 * MS, 2 * MS, 100 * MS}},
    /* A smart card (SC-HSM, YubiKey PIV), imitated from its documentation: slow, one thing at a time, a PIN for every
     * use, and a driver that makes attributes up. */
    {.name = "smartcard",
     .quirks = QUIRK_ALWAYS_AUTHENTICATE | QUIRK_FIXED_ATTRIBUTES | QUIRK_OAEP_SHA256,
     .hidden = {CKM_AES_KEY_WRAP, CKM_AES_KEY_WRAP_PAD, CKM_AES_KEY_GEN},
     .refused = {MIMIC_C_WrapKey, MIMIC_C_UnwrapKey, MIMIC_C_GenerateKey},
     .bad_data = CKR_DEVICE_ERROR,
     .sessions = 16,
     .parallel = 1,
     .latency_us = {1 * MS, 300 * MS, 300 * MS, 300 * MS, 300 * MS, 5000 * MS}},
    /* A TPM 2.0 behind tpm2-pkcs11, imitated from its documentation: RSA by C_Decrypt alone, no derivation, and
     * CKR_GENERAL_ERROR for whatever it did not expect. */
    {.name = "tpm",
     .quirks = QUIRK_ONLY_WANTED_USES | QUIRK_OAEP_SHA256,
     .hidden = {CKM_AES_KEY_WRAP, CKM_AES_KEY_WRAP_PAD, CKM_AES_KEY_GEN, CKM_ECDH1_DERIVE},
     .refused = {MIMIC_C_WrapKey, MIMIC_C_UnwrapKey, MIMIC_C_DeriveKey, MIMIC_C_GenerateKey},
     .bad_data = CKR_GENERAL_ERROR,
     .sessions = 1023,
     .parallel = 1,
     .latency_us = {2 * MS, 200 * MS, 200 * MS, 200 * MS, 200 * MS, 2000 * MS}},
};

const struct mimic_profile *
mimic_profile_named(const char *name)
{
    for (size_t i = 0; i < sizeof profiles / sizeof profiles[0]; i++)
        if (strcmp(profiles[i].name, name) == 0)
            return &profiles[i];
    return NULL;
}

unsigned
mimic_quirk_named(const char *name)
{
    for (size_t i = 0; i < sizeof quirks / sizeof quirks[0]; i++)
        if (strcmp(quirks[i].name, name) == 0)
            return quirks[i].quirk;
    return 0;
}
