/*
 * Every function of PKCS#11 2.40, for calls.c: CALL(name, session, length, parameters, arguments), where session is the
 * one that the call is made in, or 0, and length is where the module tells how much it gave, or NULL.
 */
CALL(C_Initialize, 0, NULL, (void *args), (args))
CALL(C_Finalize, 0, NULL, (void *reserved), (reserved))
CALL(C_GetInfo, 0, NULL, (CK_INFO * info), (info))
CALL(C_GetSlotList, 0, n, (CK_BBOOL present, CK_SLOT_ID *list, CK_ULONG *n), (present, list, n))
CALL(C_GetSlotInfo, 0, NULL, (CK_SLOT_ID slot, CK_SLOT_INFO *info), (slot, info))
CALL(C_GetTokenInfo, 0, NULL, (CK_SLOT_ID slot, CK_TOKEN_INFO *info), (slot, info))
CALL(C_GetMechanismList, 0, n, (CK_SLOT_ID slot, CK_MECHANISM_TYPE *list, CK_ULONG *n), (slot, list, n))
CALL(C_GetMechanismInfo, 0, NULL, (CK_SLOT_ID slot, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO *info),
     (slot, type, info))
CALL(C_InitToken, 0, NULL, (CK_SLOT_ID slot, CK_BYTE *pin, CK_ULONG len, CK_BYTE *label), (slot, pin, len, label))
CALL(C_InitPIN, s, NULL, (CK_SESSION_HANDLE s, CK_BYTE *pin, CK_ULONG len), (s, pin, len))
CALL(C_SetPIN, s, NULL, (CK_SESSION_HANDLE s, CK_BYTE *old, CK_ULONG old_len, CK_BYTE *new, CK_ULONG new_len),
     (s, old, old_len, new, new_len))
CALL(C_OpenSession, 0, NULL, (CK_SLOT_ID slot, CK_FLAGS flags, void *app, CK_NOTIFY notify, CK_SESSION_HANDLE *out),
     (slot, flags, app, notify, out))
CALL(C_CloseSession, s, NULL, (CK_SESSION_HANDLE s), (s))
CALL(C_CloseAllSessions, 0, NULL, (CK_SLOT_ID slot), (slot))
CALL(C_GetSessionInfo, s, NULL, (CK_SESSION_HANDLE s, CK_SESSION_INFO *info), (s, info))
CALL(C_GetOperationState, s, n, (CK_SESSION_HANDLE s, CK_BYTE *out, CK_ULONG *n), (s, out, n))
CALL(C_SetOperationState, s, NULL,
     (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG len, CK_OBJECT_HANDLE enc, CK_OBJECT_HANDLE auth),
     (s, in, len, enc, auth))
CALL(C_Login, s, NULL, (CK_SESSION_HANDLE s, CK_USER_TYPE user, CK_BYTE *pin, CK_ULONG len), (s, user, pin, len))
CALL(C_Logout, s, NULL, (CK_SESSION_HANDLE s), (s))
CALL(C_CreateObject, s, NULL, (CK_SESSION_HANDLE s, CK_ATTRIBUTE *at, CK_ULONG count, CK_OBJECT_HANDLE *out),
     (s, at, count, out))
CALL(C_CopyObject, s, NULL,
     (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *at, CK_ULONG count, CK_OBJECT_HANDLE *out),
     (s, object, at, count, out))
CALL(C_DestroyObject, s, NULL, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE object), (s, object))
CALL(C_GetObjectSize, s, n, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE object, CK_ULONG *n), (s, object, n))
CALL(C_GetAttributeValue, s, count > 0 ? &at->ulValueLen : NULL,
     (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *at, CK_ULONG count), (s, object, at, count))
CALL(C_SetAttributeValue, s, NULL, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *at, CK_ULONG count),
     (s, object, at, count))
CALL(C_FindObjectsInit, s, NULL, (CK_SESSION_HANDLE s, CK_ATTRIBUTE *at, CK_ULONG count), (s, at, count))
CALL(C_FindObjects, s, n, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE *out, CK_ULONG room, CK_ULONG *n), (s, out, room, n))
CALL(C_FindObjectsFinal, s, NULL, (CK_SESSION_HANDLE s), (s))
CALL(C_EncryptInit, s, NULL, (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE key), (s, m, key))
CALL(C_Encrypt, s, n, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG len, CK_BYTE *out, CK_ULONG *n), (s, in, len, out, n))
CALL(C_EncryptUpdate, s, n, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG len, CK_BYTE *out, CK_ULONG *n),
     (s, in, len, out, n))
CALL(C_EncryptFinal, s, n, (CK_SESSION_HANDLE s, CK_BYTE *out, CK_ULONG *n), (s, out, n))
CALL(C_DecryptInit, s, NULL, (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE key), (s, m, key))
CALL(C_Decrypt, s, n, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG len, CK_BYTE *out, CK_ULONG *n), (s, in, len, out, n))
CALL(C_DecryptUpdate, s, n, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG len, CK_BYTE *out, CK_ULONG *n),
     (s, in, len, out, n))
CALL(C_DecryptFinal, s, n, (CK_SESSION_HANDLE s, CK_BYTE *out, CK_ULONG *n), (s, out, n))
CALL(C_DigestInit, s, NULL, (CK_SESSION_HANDLE s, CK_MECHANISM *m), (s, m))
CALL(C_Digest, s, n, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG len, CK_BYTE *out, CK_ULONG *n), (s, in, len, out, n))
CALL(C_DigestUpdate, s, NULL, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG len), (s, in, len))
CALL(C_DigestKey, s, NULL, (CK_SESSION_HANDLE s, CK_OBJECT_HANDLE key), (s, key))
CALL(C_DigestFinal, s, n, (CK_SESSION_HANDLE s, CK_BYTE *out, CK_ULONG *n), (s, out, n))
CALL(C_SignInit, s, NULL, (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE key), (s, m, key))
CALL(C_Sign, s, n, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG len, CK_BYTE *out, CK_ULONG *n), (s, in, len, out, n))
CALL(C_SignUpdate, s, NULL, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG len), (s, in, len))
CALL(C_SignFinal, s, n, (CK_SESSION_HANDLE s, CK_BYTE *out, CK_ULONG *n), (s, out, n))
CALL(C_SignRecoverInit, s, NULL, (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE key), (s, m, key))
CALL(C_SignRecover, s, n, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG len, CK_BYTE *out, CK_ULONG *n),
     (s, in, len, out, n))
CALL(C_VerifyInit, s, NULL, (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE key), (s, m, key))
CALL(C_Verify, s, NULL, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG len, CK_BYTE *sig, CK_ULONG sig_len),
     (s, in, len, sig, sig_len))
CALL(C_VerifyUpdate, s, NULL, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG len), (s, in, len))
CALL(C_VerifyFinal, s, NULL, (CK_SESSION_HANDLE s, CK_BYTE *sig, CK_ULONG sig_len), (s, sig, sig_len))
CALL(C_VerifyRecoverInit, s, NULL, (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE key), (s, m, key))
CALL(C_VerifyRecover, s, n, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG len, CK_BYTE *out, CK_ULONG *n),
     (s, in, len, out, n))
CALL(C_DigestEncryptUpdate, s, n, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG len, CK_BYTE *out, CK_ULONG *n),
     (s, in, len, out, n))
CALL(C_DecryptDigestUpdate, s, n, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG len, CK_BYTE *out, CK_ULONG *n),
     (s, in, len, out, n))
CALL(C_SignEncryptUpdate, s, n, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG len, CK_BYTE *out, CK_ULONG *n),
     (s, in, len, out, n))
CALL(C_DecryptVerifyUpdate, s, n, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG len, CK_BYTE *out, CK_ULONG *n),
     (s, in, len, out, n))
CALL(C_GenerateKey, s, NULL,
     (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_ATTRIBUTE *at, CK_ULONG count, CK_OBJECT_HANDLE *out),
     (s, m, at, count, out))
CALL(C_GenerateKeyPair, s, NULL,
     (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_ATTRIBUTE *pub, CK_ULONG pub_count, CK_ATTRIBUTE *priv,
      CK_ULONG priv_count, CK_OBJECT_HANDLE *pub_out, CK_OBJECT_HANDLE *priv_out),
     (s, m, pub, pub_count, priv, priv_count, pub_out, priv_out))
CALL(C_WrapKey, s, n,
     (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE under, CK_OBJECT_HANDLE key, CK_BYTE *out, CK_ULONG *n),
     (s, m, under, key, out, n))
CALL(C_UnwrapKey, s, NULL,
     (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE under, CK_BYTE *in, CK_ULONG len, CK_ATTRIBUTE *at,
      CK_ULONG count, CK_OBJECT_HANDLE *out),
     (s, m, under, in, len, at, count, out))
CALL(C_DeriveKey, s, NULL,
     (CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE base, CK_ATTRIBUTE *at, CK_ULONG count,
      CK_OBJECT_HANDLE *out),
     (s, m, base, at, count, out))
CALL(C_SeedRandom, s, NULL, (CK_SESSION_HANDLE s, CK_BYTE *in, CK_ULONG len), (s, in, len))
CALL(C_GenerateRandom, s, NULL, (CK_SESSION_HANDLE s, CK_BYTE *out, CK_ULONG len), (s, out, len))
CALL(C_GetFunctionStatus, s, NULL, (CK_SESSION_HANDLE s), (s))
CALL(C_CancelFunction, s, NULL, (CK_SESSION_HANDLE s), (s))
CALL(C_WaitForSlotEvent, 0, NULL, (CK_FLAGS flags, CK_SLOT_ID *slot, void *reserved), (flags, slot, reserved))
