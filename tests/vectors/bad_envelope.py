"""Defects of the key envelope (section 11) and of the key package in it (section 12), with DER's own (section 9)."""

import der
import keys
import rules
import writer
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from good import elements_beside, nested, unknown_of
from world import (
    body,
    drop,
    edit,
    flip,
    followed_by,
    high_tag,
    in_pieces,
    indefinite,
    long_length,
    longer,
    put,
    retag,
    shorter,
    split,
    swapped,
    wide_integer,
)

# in AuthEnvelopedData
VERSION, RECIPIENTS, CONTENT, MAC = (1, 0, 0), (1, 0, 1), (1, 0, 2), (1, 0, 3)
PKCS1_V15 = bytes.fromhex("300d06092a864886f70d0101010500")
OAEP_WITH_NULLS = bytes.fromhex(
    "303c06092a864886f70d010107302fa00f300d06096086480165030402010500"
    "a11c301a06092a864886f70d010108300d06096086480165030402010500"
)
OAEP_WITH_LABEL = der.seq(
    bytes.fromhex("06092a864886f70d010107"),
    der.seq(
        bytes.fromhex("a00d300b0609608648016503040201a11a301806092a864886f70d010108300b0609608648016503040201"),
        der.tlv(0xA2, der.seq(bytes.fromhex("06092a864886f70d010109"), der.octets(b"label"))),
    ),
)
OAEP_WITHOUT_PARAMETERS = bytes.fromhex("300b06092a864886f70d010107")
SHA1_KDF = bytes.fromhex("301806092b81051086483f0002300b060960864801650304012d")
COFACTOR_SHA1_KDF = bytes.fromhex("301806092b81051086483f0003300b060960864801650304012d")
ECDH_P256_AES128 = bytes.fromhex("301506062b8104010b01300b0609608648016503040105")
ENVELOPED_DATA = bytes.fromhex("06092a864886f70d010703")
AES256_CBC = bytes.fromhex("060960864801650304012a")
AES128_GCM = bytes.fromhex("0609608648016503040106")


def add(c, w):
    _frame(c, w)
    _der(c, w)
    _content(c, w)
    _recipients(c, w)
    _transport(c, w)
    _agreement(c, w)
    _secret(c, w)
    _token_only(c, w)
    _package(c, w)
    _package_signers(c, w)


def _maker(c, w, prefix, layer="envelope"):
    def one(name, what, hooks, layer=layer, kind="refused", keys=("kek-p256",), **spec):
        c.bad(f"{prefix}-{name}", layer, what, writer.write(w.spec(hooks=hooks, **spec)), kind, keys=keys)

    return one


def _frame(c, w):
    one = _maker(c, w, "envelope")

    def whole(name, what, path, change):
        one(name, what, {"envelope": edit(path, change)})

    whole("content-type", "another content type", (0,), put(rules.ID_SIGNED_DATA))
    whole("version-1", "AuthEnvelopedData of version 1", VERSION, put(der.integer(1)))
    whole("originator-info", "an originatorInfo", VERSION, followed_by(der.tlv(0xA0, der.tlv(0xA0))))
    whole("authenticated-attributes", "authenticated attributes", CONTENT,
          followed_by(der.tlv(0xA1, writer.attribute(rules.ID_CONTENT_TYPE, rules.ID_DATA))))
    whole("attributes", "unauthenticated attributes", MAC,
          followed_by(der.tlv(0xA2, writer.attribute(rules.ID_CONTENT_TYPE, rules.ID_DATA))))
    whole("mac-missing", "no mac", MAC, drop)
    whole("content-missing", "no authEncryptedContentInfo", CONTENT, drop)
    whole("second-element", "an element more in the ContentInfo", (1,), followed_by(der.tlv(der.NULL)))
    whole("trailing-byte", "a byte after the envelope", (), followed_by(b"\x00"))
    whole("trailing-element", "an element after the envelope", (), followed_by(der.tlv(der.NULL)))
    whole("cut", "the last byte is missing", (), shorter)
    whole("empty-sequence", "an empty SEQUENCE", (), put(der.seq()))
    whole("no-der", "no DER at all", (), put(b"\xff" * 64))
    whole("one-byte", "one byte", (), put(b"\x30"))

    def repackaged(data, *_):
        """The same data key and key package as EnvelopedData with AES-256-CBC."""
        iv = bytes(16)
        cipher = Cipher(algorithms.AES(bytes(32)), modes.CBC(iv)).encryptor()
        pad = padding.PKCS7(128).padder()
        sealed = cipher.update(pad.update(b"key package") + pad.finalize()) + cipher.finalize()
        infos = der.parse(data).children[1].children[0].children[1].raw
        content = der.seq(rules.ID_DATA, der.seq(AES256_CBC, der.octets(iv)), der.octets(sealed, 0x80))
        return der.seq(ENVELOPED_DATA, der.tlv(0xA0, der.seq(der.integer(2), infos, content)))

    one("enveloped-data", "EnvelopedData with AES-256-CBC", {"envelope": repackaged})
    other = writer.write(w.spec(entropy=keys.Entropy("another data key"), archive_id=writer.write(w.spec()).archive_id))
    first = writer.write(w.spec())
    c.bad("envelope-transplanted", "envelope", "an envelope and record of another archive with the same id",
          first.data[:4096] + other.data[4096:12288] + first.data[12288:])


def _der(c, w):
    """BER that is not DER, in a place where OpenSSL takes it."""
    one = _maker(c, w, "der")

    def whole(name, what, path, change):
        one(name, what, {"envelope": edit(path, change)})

    whole("indefinite", "an indefinite length outside", (), indefinite)
    whole("indefinite-inside", "an indefinite length inside", (1, 0), indefinite)
    whole("long-length", "a length that is not minimal, outside", (), long_length)
    whole("long-length-inside", "a length that is not minimal, of the mac", MAC, long_length)
    whole("wide-integer", "an INTEGER that is not minimal", VERSION, wide_integer)
    whole("negative", "a negative version", VERSION, put(der.integer(-1)))
    whole("huge-integer", "an INTEGER of 9 bytes", VERSION, put(der.integer(1 << 64)))
    whole("empty-integer", "an INTEGER without content", VERSION, put(b"\x02\x00"))
    whole("high-tag", "a tag of the high form", MAC, high_tag)
    whole("constructed-octets", "an OCTET STRING in pieces", MAC, in_pieces)
    whole("primitive-sequence", "a SEQUENCE that claims to be primitive", CONTENT, retag(0x10))
    whole("primitive-set", "a SET that claims to be primitive", RECIPIENTS, retag(0x11))
    whole("tag-class", "an application tag in place of SEQUENCE", CONTENT, retag(0x70))
    whole("oid-cut", "an object identifier that is cut off", (0,), put(bytes.fromhex("060b2a864886f70d0109100197")))
    whole("oid-padded", "an object identifier that is not minimal", (0,),
        put(bytes.fromhex("060c2a80864886f70d0109100117")))
    whole("oid-empty", "an empty object identifier", (0,), put(b"\x06\x00"))
    whole("end-of-contents", "an end-of-contents element", MAC, followed_by(b"\x00\x00"))
    one("set-order", "recipientInfos not in order", {"recipients": edit((), swapped)},
        recipients=w.to("kek-p256", "kek-next"))
    one("bit-string-unused", "unused bits in the ephemeral key",
        {"recipients": edit((0, 1, 0, 1), body(lambda b: b"\x01" + b[1:]))})
    one("bit-string-unused-8", "8 unused bits", {"recipients": edit((0, 1, 0, 1), body(lambda b: b"\x08" + b[1:]))})
    one("bit-string-empty", "a BIT STRING without content", {"recipients": edit((0, 1, 0, 1), put(b"\x03\x00"))})

    # the bounds of section 9 meet only what is skipped
    def unknown(value):
        return w.to("kek-p256") + [writer.Recipient(raw=der.tlv(0xA4, rules.ARC + b"\x03", value))]

    deep = der.tlv(der.NULL)
    for _ in range(30):
        deep = der.seq(deep)
    one("depth", "nested too deep, within a recipient that is skipped", {}, recipients=unknown(deep))
    one("elements", "too many elements, within a recipient that is skipped", {}, slot_size=12288,
        recipients=unknown(der.seq(der.tlv(der.NULL) * 4100)))
    one("depth-21", "nested 21 deep", {}, recipients=w.to("kek-p256") + [unknown_of(nested(21 - 5))])
    one("elements-4097", "4097 elements in an envelope", {}, slot_size=12288,
        recipients=unknown(der.seq(der.tlv(der.NULL) * (4097 - elements_beside(w)))))
    one("unknown-not-der", "a length that is not minimal, within a recipient that is skipped", {},
        recipients=unknown(long_length(der.octets(b"x"))))
    one("unknown-boolean", "a BOOLEAN of 01, within a recipient that is skipped", {},
        recipients=unknown(b"\x01\x01\x01"))


def _content(c, w):
    one = _maker(c, w, "content")

    def info(name, what, path, change):
        one(name, what, {"content": lambda pair: (edit(path, change)(pair[0]), pair[1])})

    def mac(name, what, change):
        one(name, what, {"content": lambda pair: (pair[0], change(pair[1]))})

    info("type", "id-signedData inside", (0,), put(rules.ID_SIGNED_DATA))
    info("aes128-gcm", "AES-128-GCM", (1, 0), put(AES128_GCM))
    info("aes256-cbc", "AES-256-CBC", (1,), put(der.seq(AES256_CBC, der.octets(bytes(16)))))
    info("no-parameters", "AES-256-GCM without parameters", (1, 1), drop)
    info("nonce-11", "a nonce of 11 bytes", (1, 1, 0), body(shorter))
    info("nonce-13", "a nonce of 13 bytes", (1, 1, 0), body(longer))
    info("nonce-empty", "an empty nonce", (1, 1, 0), body(lambda b: b""))
    info("icv-missing", "no icvLen, which would be 12", (1, 1, 1), drop)
    info("icv-12", "icvLen 12", (1, 1, 1), put(der.integer(12)))
    info("icv-15", "icvLen 15", (1, 1, 1), put(der.integer(15)))
    info("parameters-more", "an element more in the parameters", (1, 1, 1), followed_by(der.tlv(der.NULL)))
    info("algorithm-more", "an element more in the algorithm", (1, 1), followed_by(der.tlv(der.NULL)))
    info("missing", "no encryptedContent", (2,), drop)
    info("empty", "an empty encryptedContent", (2,), body(lambda b: b""))
    info("in-pieces", "encryptedContent in pieces", (2,), in_pieces)
    info("explicit", "encryptedContent with an explicit tag", (2,),
        lambda data: der.tlv(0xA0, der.octets(split(data)[1])))
    info("more", "an element after encryptedContent", (2,), followed_by(der.tlv(der.NULL)))
    one("too-long", "encryptedContent of 66,561 bytes", {
        "content": lambda pair: (edit((2,), put(der.octets(bytes(66561), 0x80)))(pair[0]), pair[1])}, slot_size=69632)
    mac("mac-12", "a mac of 12 bytes", body(lambda b: b[:12]))
    mac("mac-15", "a mac of 15 bytes", body(shorter))
    mac("mac-17", "a mac of 17 bytes", body(longer))
    one("mac-bit", "a bit of the mac, signed so", {"content": lambda pair: (pair[0], flip(3)(pair[1]))},
        layer="package")
    one("nonce-bit", "a bit of the nonce, signed so",
        {"content": lambda pair: (edit((1, 1, 0), flip(3))(pair[0]), pair[1])},
        layer="package")
    one("bit", "a bit of the encrypted key package, signed so",
        {"content": lambda pair: (edit((2,), flip(3))(pair[0]), pair[1])},
        layer="package")
    one("bit-unsigned", "a bit of the encrypted key package", {"envelope": edit((*CONTENT, 2), flip(3))})
    one("mac-bit-unsigned", "a bit of the mac", {"envelope": edit(MAC, flip(3))})


def _recipients(c, w):
    one = _maker(c, w, "recipients")
    mine = w.to("kek-p256")[0].wrap(bytes(32), keys.Entropy("again"))

    one("empty", "no recipient at all", {"recipients": lambda data, generation: der.set_of([])})
    one("33", "33 recipients", {}, recipients=w.to("kek-p256", "kek-next", *(f"kek-many{i:02d}" for i in range(1, 32))),
        slot_size=8192)
    one("twice", "two recipients with one key id", {}, recipients=w.to("kek-p256") + [writer.Recipient(raw=mine)])
    one("same-twice", "the same recipient twice", {
        "recipients": edit((), lambda data: der.tlv(der.SET, split(data)[1] * 2))})
    one("twice-secret", "two secret keys with one identifier", {}, recipients=w.to("kek-p256", 16) + [
        writer.Recipient(secret=bytes(32), identifier=w.aes[16].identifier)])
    password = der.tlv(0xA3, der.integer(0), rules.AES_WRAP, der.octets(bytes(40)))
    one("password", "a PasswordRecipientInfo", {}, recipients=w.to("kek-p256") + [writer.Recipient(raw=password)])
    for tag in (0xA0, 0xA5, 0xBE):
        one(f"tag-{tag:02x}", f"a recipient with tag {tag:02x}", {}, recipients=w.to("kek-p256") + [
            writer.Recipient(raw=der.tlv(tag, der.integer(0)))])
    one("octets", "an OCTET STRING as recipient", {},
        recipients=w.to("kek-p256") + [writer.Recipient(raw=der.octets(b"x"))])
    one("other-empty", "an OtherRecipientInfo without content", {}, recipients=w.to("kek-p256") + [
        writer.Recipient(raw=der.tlv(0xA4))])
    one("other-without-value", "an OtherRecipientInfo without a value", {}, recipients=w.to("kek-p256") + [
        writer.Recipient(raw=der.tlv(0xA4, rules.ARC + b"\x03"))])
    one("other-two-values", "an OtherRecipientInfo with two values", {}, recipients=w.to("kek-p256") + [
        writer.Recipient(raw=der.tlv(0xA4, rules.ARC + b"\x03", der.integer(1), der.integer(2)))])
    same = der.tlv(0xA2, der.integer(4), der.seq(der.octets(w.to("kek-p256")[0].id)), der.seq(rules.ARC + b"\x61"),
        der.octets(bytes(45)))
    one("twice-unknown", "an unknown recipient with the key id of a known one", {}, recipients=w.to("kek-p256") + [
        writer.Recipient(raw=same)])
    shape = der.seq(der.integer(0), der.seq(der.seq(), der.integer(1)), der.seq(rules.ARC + b"\x63"),
        der.octets(bytes(9)))
    one("unknown-shape", "an unknown KeyTransRecipientInfo, named by issuer and serial number", {},
        recipients=w.to("kek-p256") + [
        writer.Recipient(raw=shape)])
    one("as-sequence", "recipientInfos as a SEQUENCE", {"recipients": edit((), retag(der.SEQUENCE))})
    # nobody can open it, but it is well formed
    one("all-unknown", "every recipient is of an unknown kind", {}, layer="key", kind="no-key", recipients=[
        writer.Recipient(raw=der.tlv(0xA4, rules.ARC + b"\x03", der.integer(1)))])


def _transport(c, w):
    make = _maker(c, w, "transport")

    def one(name, what, path, change, **more):
        make(name, what, {"recipients": edit((0, *path), change)}, recipients=w.to("kek-rsa2048"),
            keys=("kek-rsa2048",), **more)

    one("version-0", "version 0", (0,), put(der.integer(0)))
    one("version-3", "version 3", (0,), put(der.integer(3)))
    one("issuer", "named by issuer and serial number", (1,), put(der.seq(der.seq(), der.integer(1))))
    one("id-19", "a key id of 19 bytes", (1,), body(shorter))
    one("id-21", "a key id of 21 bytes", (1,), body(longer))
    one("pkcs1-v15", "PKCS#1 v1.5", (2,), put(PKCS1_V15))
    one("pkcs1-v15-bare", "PKCS#1 v1.5 without parameters", (2,), put(der.seq(PKCS1_V15[2:13])))
    one("oaep-nulls", "OAEP with SHA-256 in the encoding with NULLs", (2,), put(OAEP_WITH_NULLS))
    one("oaep-bare", "OAEP without parameters", (2,), put(OAEP_WITHOUT_PARAMETERS))
    one("oaep-label", "OAEP with SHA-256 and a label", (2,), put(OAEP_WITH_LABEL))
    one("agreement-scheme", "ECDH as algorithm", (2,), put(rules.ECDH_P256))
    one("key-255", "an encryptedKey of 255 bytes", (3,), body(shorter))
    one("key-513", "an encryptedKey of 513 bytes", (3,), body(lambda b: bytes(513)))
    one("key-empty", "an empty encryptedKey", (3,), body(lambda b: b""))
    one("more", "an element more", (3,), followed_by(der.tlv(der.NULL)))
    one("less", "no encryptedKey", (3,), drop)
    one("id-missing", "no key id", (1,), drop)


def _agreement(c, w):
    make = _maker(c, w, "agreement")

    def one(name, what, path, change, name_of_key="kek-p256", **more):
        make(name, what, {"recipients": edit((0, *path), change)}, recipients=w.to(name_of_key), keys=(name_of_key,),
            **more)

    point = (1, 0, 1)

    def compressed(data):
        raw = split(data)[1]
        half = (len(raw) - 2) // 2
        return der.bits(bytes([2 + raw[-1] % 2]) + raw[2 : 2 + half])

    def hybrid(data):
        raw = split(data)[1]
        return der.bits(bytes([6 + raw[-1] % 2]) + raw[2:])

    one("version-2", "version 2", (0,), put(der.integer(2)))
    one("originator-issuer", "an originator named by issuer and serial number", (1, 0),
        put(der.seq(der.seq(), der.integer(1))))
    one("originator-id", "an originator named by a key id", (1, 0), put(der.octets(bytes(20), 0x80)))
    one("originator-parameters", "the curve named in the originator's key", (1, 0, 0),
        put(der.seq(rules.ID_EC_PUBLIC_KEY, bytes.fromhex("06082a8648ce3d030107"))))
    one("originator-null", "NULL parameters in the originator's key", (1, 0, 0),
        put(der.seq(rules.ID_EC_PUBLIC_KEY, der.tlv(der.NULL))))
    one("originator-algorithm", "another algorithm of the originator's key", (1, 0, 0), put(der.seq(rules.ID_DATA)))
    one("point-off-curve", "a point that is not on P-256", point, flip(-1))
    one("point-off-curve-p384", "a point that is not on P-384", point, flip(-1), "kek-p384")
    one("point-zero", "a point of zeros", point, put(der.bits(b"\x04" + bytes(64))))
    one("point-infinity", "the point at infinity", point, put(der.bits(b"\x00")))
    one("point-above-p", "coordinates above the field's prime", point, put(der.bits(b"\x04" + b"\xff" * 64)))
    one("point-compressed", "a compressed point", point, compressed)
    one("point-hybrid", "a point of the hybrid form", point, hybrid)
    one("point-64", "a point one byte too short", point, body(shorter))
    one("point-66", "a point one byte too long", point, body(longer))
    other = keys.point_of(w.keks["kek-p384"].public_key())
    one("point-p384", "a point of P-384 with the scheme of P-256", point, put(der.bits(other)))
    one("ukm", "a ukm", (1,), followed_by(der.tlv(0xA1, der.octets(bytes(16)))))
    one("sha1-kdf", "the KDF of SHA-1", (2,), put(SHA1_KDF))
    one("cofactor-sha1-kdf", "cofactor ECDH with the KDF of SHA-1", (2,), put(COFACTOR_SHA1_KDF))
    one("aes128-wrap", "AES-128 key wrap, which is unknown", (2,), put(ECDH_P256_AES128), layer="key", kind="no-key")
    one("transport-scheme", "RSAES-OAEP as algorithm", (2,), put(rules.OAEP_SHA256))
    one("secret-scheme", "AES key wrap alone as algorithm", (2,), put(rules.AES_WRAP))
    one("scheme-of-p384", "the scheme of P-384 with a point of P-256", (2,), put(rules.ECDH_P384))
    one("wrap-null", "key wrap with NULL parameters", (2,),
        put(bytes.fromhex("301706062b8104010b01300d060960864801650304012d0500")))
    one("two", "two recipients in one KeyAgree", (3,), body(lambda b: b * 2))
    one("none", "no recipient in a KeyAgree", (3,), body(lambda b: b""))
    one("recipient-issuer", "named by issuer and serial number", (3, 0, 0), put(der.seq(der.seq(), der.integer(1))))
    one("id-19", "a key id of 19 bytes", (3, 0, 0, 0), body(shorter))
    one("id-date", "a date beside the key id", (3, 0, 0, 0),
        followed_by(der.tlv(der.GENERALIZED_TIME, b"20260101000000Z")))
    one("key-39", "an encryptedKey of 39 bytes", (3, 0, 1), body(shorter))
    one("key-48", "an encryptedKey of 48 bytes", (3, 0, 1), body(lambda b: b + bytes(8)))
    one("key-more", "an element after encryptedKey", (3, 0, 1), followed_by(der.tlv(der.NULL)))
    one("more", "an element more", (3,), followed_by(der.tlv(der.NULL)))


def _secret(c, w):
    make = _maker(c, w, "secret")

    def one(name, what, path, change, **more):
        make(name, what, {"recipients": edit((0, *path), change)}, recipients=w.to(16), keys=(16,), **more)

    one("version-3", "version 3", (0,), put(der.integer(3)))
    one("id-3", "an identifier of 3 bytes", (1, 0), put(der.octets(b"abc")))
    one("id-33", "an identifier of 33 bytes", (1, 0), put(der.octets(bytes(33))))
    one("id-empty", "an empty identifier", (1, 0), put(der.octets(b"")))
    one("date", "a date", (1, 0), followed_by(der.tlv(der.GENERALIZED_TIME, b"20260101000000Z")))
    one("other", "an OtherKeyAttribute", (1, 0), followed_by(der.seq(rules.ID_DATA)))
    one("key-39", "an encryptedKey of 39 bytes", (3,), body(shorter))
    one("key-48", "an encryptedKey of 48 bytes", (3,), body(lambda b: b + bytes(8)))
    one("more", "an element more", (3,), followed_by(der.tlv(der.NULL)))
    one("wrap-null", "key wrap with NULL parameters", (2,), put(bytes.fromhex("300d060960864801650304012d0500")))
    one("aes128-wrap", "AES-128 key wrap, which is unknown", (2,), put(bytes.fromhex("300b0609608648016503040105")),
        layer="key",
        kind="no-key")


def _token_only(c, w):
    """Schemes that only a token opens: no vector's key does, but a reader knows their form."""
    make = _maker(c, w, "token-only")
    kekid = der.seq(der.octets(b"\x0a" * 8))

    def beside(name, what, algorithm, length, **more):
        raw = der.tlv(0xA2, der.integer(4), kekid, algorithm, der.octets(bytes(length)))
        make(name, what, {}, recipients=w.to("kek-p256") + [writer.Recipient(raw=raw, identifier=b"\x0a" * 8)], **more)

    def alone(name, what, algorithm, length):
        raw = der.tlv(0xA2, der.integer(4), kekid, algorithm, der.octets(bytes(length)))
        make(name, what, {}, layer="key", kind="no-key", recipients=[writer.Recipient(raw=raw, identifier=b"\x0a" * 8)])

    gcm = rules.aes_gcm(bytes(range(12)))
    alone("gcm-alone", "AES-256-GCM in the token, and no other recipient", gcm, 48)
    for length in (0, 32, 40, 47, 49, 60):
        beside(f"gcm-key-{length}", f"AES-256-GCM in the token with an encryptedKey of {length} bytes", gcm, length)
    version = der.tlv(0xA2, der.integer(3), kekid, gcm, der.octets(bytes(48)))
    make("gcm-version-3", "AES-256-GCM in the token, version 3", {}, recipients=w.to("kek-p256") + [
        writer.Recipient(raw=version, identifier=b"\x0a" * 8)])
    ccm = rules.YUBIHSM_CCM
    alone("ccm-alone", "AES-CCM wrap of YubiHSM 2, and no other recipient", ccm, 61)
    for length in (0, 32, 44, 129):
        beside(f"ccm-key-{length}", f"AES-CCM wrap of YubiHSM 2 with an encryptedKey of {length} bytes", ccm, length)
    beside("ccm-null", "AES-CCM wrap of YubiHSM 2 with NULL parameters", der.seq(rules.ARC + b"\x08", der.tlv(der.NULL)),
        45)
    for name, what, algorithm, length in (("gcm", "AES-256-GCM", gcm, 48), ("ccm", "AES-CCM wrap", ccm, 61)):
        transport = der.seq(der.integer(2), der.octets(b"\x0a" * 20, 0x80), algorithm, der.octets(bytes(256)))
        make(f"{name}-transport", f"{what} in a KeyTransRecipientInfo", {}, recipients=w.to("kek-p256") + [
            writer.Recipient(raw=transport, identifier=b"\x0a" * 20)])
        twice = der.tlv(0xA2, der.integer(4), der.seq(der.octets(w.to("kek-p256")[0].id)), algorithm,
            der.octets(bytes(length)))
        make(f"{name}-twice", f"{what} in the token with the key id of another", {}, recipients=w.to("kek-p256") + [
            writer.Recipient(raw=twice)])


def _package(c, w):
    make = _maker(c, w, "package", "package")

    def one(name, what, path, change, kind="refused", **spec):
        make(name, what, {"package": edit(path, change)}, kind=kind, **spec)

    meta = (("database", "orders"), ("host", "db1"))
    one("version-0", "version 0", (0,), put(der.integer(0)))
    one("version-2", "version 2", (0,), put(der.integer(2)), "newer")
    one("archive-id", "another archive's id", (1,), flip(15))
    one("archive-id-15", "an archive id of 15 bytes", (1,), body(shorter))
    one("suite", "a suite of a later version", (2,), put(rules.ARC + b"\x0a"), "newer")
    one("suite-record", "the identifier of a key record as suite", (2,), put(rules.KEY_RECORD), "newer")
    one("file-key-31", "a fileKey of 31 bytes", (3,), body(shorter))
    one("file-key-33", "a fileKey of 33 bytes", (3,), body(longer))
    one("more", "an element more", (4,), followed_by(der.tlv(der.NULL)))
    one("trailing", "a byte after it", (), followed_by(b"\x00"))
    one("empty", "an empty SEQUENCE", (), put(der.seq()))
    one("no-der", "no DER at all", (), put(b"\xff" * 120))
    one("long-length", "a length that is not minimal", (3,), long_length)
    one("indefinite", "an indefinite length", (), indefinite)
    one("wide-integer", "an INTEGER that is not minimal", (0,), wide_integer)
    one("set", "a SET in place of the SEQUENCE", (), retag(der.SET))
    one("metadata-empty", "metadata without items", (4,), followed_by(der.tlv(0xA0)))
    one("metadata-twice", "metadata twice", (5,), followed_by(der.tlv(0xA0, der.seq(der.text("a"), der.text("b")))),
        metadata=meta)
    one("metadata-explicit", "metadata with an explicit tag", (5,), lambda d: der.tlv(0xA0, der.seq(split(d)[1])),
        metadata=meta)
    one("metadata-key-empty", "an empty key", (5, 0, 0), put(der.text("")), metadata=meta)
    one("metadata-key-1025", "a key of 1025 bytes", (5, 0, 0), put(der.text("k" * 1025)), metadata=meta)
    one("metadata-key-control", "a control character in a key", (5, 0, 0), put(der.text("a\nb")), metadata=meta)
    one("metadata-value-control", "a control character in a value", (5, 0, 1), put(der.text("a\x1b[2J")), metadata=meta)
    one("metadata-value-nul", "a NUL in a value", (5, 0, 1), put(der.text("a\0b")), metadata=meta)
    one("metadata-value-c1", "a control character above ASCII in a value", (5, 0, 1), put(der.text("a\x85b")),
        metadata=meta)
    one("metadata-value-utf8", "a value that is not UTF-8", (5, 0, 1), put(der.text(b"\xc3\x28")), metadata=meta)
    one("metadata-value-overlong", "an overlong form in a value", (5, 0, 1), put(der.text(b"\xc0\xaf")), metadata=meta)
    one("metadata-value-surrogate", "a surrogate in a value", (5, 0, 1), put(der.text(b"\xed\xa0\x80")), metadata=meta)
    one("metadata-value-missing", "an item without a value", (5, 0, 1), drop, metadata=meta)
    one("metadata-item-more", "an item of three", (5, 0, 1), followed_by(der.text("x")), metadata=meta)
    one("metadata-value-octets", "an OCTET STRING as value", (5, 0, 1), retag(der.OCTET_STRING), metadata=meta)
    longest = 65536 - 4 - 4 - 3 - 4  # beside the headers of metadata, item, key and value
    one("metadata-65537", "metadata of 65,537 bytes", (), lambda d: d, metadata=(("k", "v" * (longest + 1)),),
        slot_size=69632)
    one("elements-4097", "a key package of more than 4096 elements", (), lambda d: d, slot_size=12288,
        metadata=tuple((f"k{i % 10}", "") for i in range((4096 - 9) // 3 + 1)))


def _package_signers(c, w):
    make = _maker(c, w, "signers", "package")

    def listed(name, what, ids, layer="package", **spec):
        make(name, what, {"package": edit((4,), put(der.seq(*(der.octets(i) for i in ids))))}, layer=layer, **spec)

    me, other = (keys.Certificate(s.certificate).key_id for s in w.by("backup", "backup2"))
    low, high = sorted((me, other))
    listed("none", "no signers", [])
    listed("five", "five signers", sorted([me] + [bytes([i]) * 20 for i in range(1, 5)]))
    listed("unsorted", "signers not in order", [high, low], signers=w.by("backup", "backup2"))
    listed("twice", "a signer twice", [me, me])
    listed("id-19", "a signer's key id of 19 bytes", [me[:19]])
    listed("id-21", "a signer's key id of 21 bytes", [me + b"\x00"])
    listed("other", "another signer than the manifest's", [other], "signers")
    listed("more", "a signer more than the manifest has", [low, high], "signers")
    listed("less", "a signer fewer than the manifest has", [me], "signers", signers=w.by("backup", "backup2"))
    make("file-key", "a fileKey that is not the one of keyCommit", {"package": edit((3,), flip(0))}, layer="commitment")

    def one(name, what, stage, hook):
        c.bad(f"commitment-{name}", "commitment", what, writer.write(w.spec(hooks={stage: hook})))

    one("bit", "a bit of keyCommit, signed so", "commit", lambda commit: bytes([commit[0] ^ 1]) + commit[1:])
    one("last-bit", "the last bit of keyCommit, signed so", "commit",
        lambda commit: commit[:-1] + bytes([commit[-1] ^ 1]))
    one("zero", "a keyCommit of zeros", "commit", lambda commit: bytes(32))
