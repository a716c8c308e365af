"""Defects of a SignedData (section 13), around the manifest and around a key record; and of the manifest
(section 14)."""

import dataclasses
import datetime
import hashlib

import der
import keys
import rules
import writer
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from world import (
    CREATED,
    body,
    drop,
    edit,
    flip,
    followed_by,
    in_pieces,
    indefinite,
    long_length,
    longer,
    put,
    retag,
    rsa_key,
    shorter,
    signer,
    split,
    swapped,
    wide_integer,
)

ID_DIGESTED_DATA = bytes.fromhex("06092a864886f70d010705")
SHA256_NULL = bytes.fromhex("300d06096086480165030402010500")
SHA1 = bytes.fromhex("300706052b0e03021a")
SHA384 = bytes.fromhex("300b0609608648016503040202")
ECDSA_SHA1 = bytes.fromhex("300906072a8648ce3d0401")
ECDSA_SHA384 = bytes.fromhex("300a06082a8648ce3d040303")
RSA_V15_SHA256 = bytes.fromhex("300d06092a864886f70d01010b0500")
PSS_BARE = bytes.fromhex("300d06092a864886f70d01010a3000")
PSS_SALT_20 = rules.PSS_SHA256[:-1] + b"\x14"
ED25519 = bytes.fromhex("300506032b6570")
COUNTERSIGNATURE = bytes.fromhex("06092a864886f70d010906")


def add(c, w):
    manifest = Place(c, w, "manifest", {})
    record = Place(c, w, "record", {"rotations": (w.rotation(),)}, keys=("kek-next",))
    for place in (manifest, record):
        _outside(place)
        _signer_info(place)
        _attributes(place)
        _certificates(place, w)
    _keys_of_signers(manifest, w)
    _signers(manifest, record, w)
    _manifest(c, w)
    _optional(c, w)


class Place:
    """Where a SignedData stands: vectors for the manifest and for the record are made alike."""

    def __init__(self, c, w, what, spec, keys=("kek-p256",)):
        self.c, self.w, self.what, self.spec, self.keys = c, w, what, spec, keys
        self.signer = w.signers["backup" if what == "manifest" else "rotator"]
        self.certificate = keys_certificate(self.signer)

    def one(self, name, what, stage, hook, layer=None, kind="refused", **spec):
        made = writer.write(self.w.spec(hooks={f"{self.what}.{stage}": hook}, **{**self.spec, **spec}))
        self.c.bad(f"signed-{self.what}-{name}", layer or self.what, what, made, kind, keys=self.keys)

    def edit(self, name, what, stage, path, change):
        self.one(name, what, stage, edit(path, change))

    def signed_by(self, name, what, signers, **more):
        """The signers of this place are others."""
        if self.what == "manifest":
            made = writer.write(self.w.spec(signers=signers, **more))
        else:
            rotation = dataclasses.replace(self.w.rotation(), signers=signers)
            made = writer.write(self.w.spec(rotations=(rotation,), **more))
        self.c.bad(f"signed-{self.what}-{name}", self.what, what, made, keys=self.keys)


def keys_certificate(one):
    return keys.Certificate(one.certificate)


def _outside(p):
    sd = (1, 0)

    def one(name, what, path, change):
        p.edit(name, what, "signed", path, change)

    one("content-type", "another content type", (0,), put(ID_DIGESTED_DATA))
    one("version-1", "SignedData of version 1", (*sd, 0), put(der.integer(1)))
    one("version-4", "SignedData of version 4", (*sd, 0), put(der.integer(4)))
    one("digests-empty", "no digest algorithm", (*sd, 1), put(der.set_of([])))
    one("digests-sha1", "SHA-1 beside SHA-256", (*sd, 1), put(der.set_of([SHA1, rules.SHA256])))
    one("digests-null", "SHA-256 with NULL parameters", (*sd, 1), put(der.set_of([SHA256_NULL])))
    one("digests-sha384", "SHA-384", (*sd, 1), put(der.set_of([SHA384])))
    one("type-swapped", "the content type of the other place", (*sd, 2, 0),
        put(rules.KEY_RECORD if p.what == "manifest" else rules.MANIFEST))
    one("type-data", "id-data as content type", (*sd, 2, 0), put(rules.ID_DATA))
    one("content-missing", "no content: a detached signature", (*sd, 2, 1), drop)
    one("content-in-pieces", "the content in pieces", (*sd, 2, 1, 0), in_pieces)
    one("content-bit", "a bit of the content", (*sd, 2, 1, 0), flip(-1))
    one("content-longer", "a byte more in the content", (*sd, 2, 1, 0), body(longer))
    one("crls", "crls", (*sd, 3), followed_by(der.tlv(0xA1)))
    one("certificates-missing", "no certificates", (*sd, 3), drop)
    one("more", "an element more", (*sd, 4), followed_by(der.tlv(der.NULL)))
    one("second-element", "an element more in the ContentInfo", (1,), followed_by(der.tlv(der.NULL)))
    one("trailing-byte", "a byte after it", (), followed_by(b"\x00"))
    one("cut", "the last byte is missing", (), shorter)
    one("indefinite", "an indefinite length", (), indefinite)
    one("long-length", "a length that is not minimal", (*sd, 0), long_length)
    one("wide-integer", "an INTEGER that is not minimal", (*sd, 0), wide_integer)
    one("no-der", "no DER at all", (), put(b"\xff" * 300))
    one("bare", "the content alone, without a SignedData", (),
        lambda d: der.parse(d).children[1].children[0].children[2]
        .children[1].children[0].body)
    p.one("no-signers", "no signer", "infos", lambda data: der.set_of([]))


def _signer_info(p):
    def one(name, what, path, change):
        p.one(name, what, "info", lambda data, _: edit(path, change)(data))

    one("info-version-1", "SignerInfo of version 1", (0,), put(der.integer(1)))
    one("sid-issuer", "a signer named by issuer and serial number", (1,), put(der.seq(der.seq(), der.integer(1))))
    one("sid-other", "another sid than the certificate's identifier", (1,), flip(0))
    one("sid-empty", "an empty sid", (1,), put(der.octets(b"", 0x80)))
    one("info-digest-sha1", "SHA-1 as digest algorithm", (2,), put(SHA1))
    one("info-digest-null", "SHA-256 with NULL parameters", (2,), put(SHA256_NULL))
    one("attributes-missing", "no signed attributes", (3,), drop)
    one("algorithm-sha1", "ECDSA with SHA-1 by name", (4,), put(ECDSA_SHA1))
    one("algorithm-sha384", "ECDSA with SHA-384 by name", (4,), put(ECDSA_SHA384))
    one("algorithm-pss", "RSASSA-PSS by name, with an ECDSA key", (4,), put(rules.PSS_SHA256))
    one("algorithm-null", "ECDSA with NULL parameters", (4,), put(bytes.fromhex("300c06082a8648ce3d0403020500")))
    one("signature-bit", "a bit of the signature", (5,), flip(-1))
    one("signature-empty", "an empty signature", (5,), put(der.octets(b"")))
    one("signature-trailing", "a byte after the ECDSA signature", (5,), body(longer))
    one("signature-zero", "an ECDSA signature of zeros", (5,), put(der.octets(der.seq(der.integer(0), der.integer(0)))))
    one("unsigned-attributes", "unsigned attributes", (5,),
        followed_by(der.tlv(0xA1, writer.attribute(COUNTERSIGNATURE, der.seq()))))

    def with_sha1(data, one_signer):
        """A real signature with SHA-1."""
        attributes = der.parse(data).children[3].raw
        signature = keys.sign(one_signer.private, b"\x31" + attributes[1:], keys.Entropy("sha1"), hashlib.sha1)
        return edit((5,), put(der.octets(signature)))(edit((4,), put(ECDSA_SHA1))(data))

    p.one("really-sha1", "a real ECDSA signature with SHA-1", "info", with_sha1)

    def over_tag_a0(data, one_signer):
        attributes = der.parse(data).children[3].raw
        return edit((5,), put(der.octets(keys.sign(one_signer.private, attributes, keys.Entropy("a0")))))(data)

    p.one("over-implicit-tag", "signed with the tag A0 in place of 31", "info", over_tag_a0)


def _attributes(p):
    def change(name, what, **values):
        """None takes an attribute away."""
        def hook(attributes):
            merged = {**attributes, **values}
            return {k: v for k, v in merged.items() if v is not None}

        p.one("attribute-" + name, what, "attributes", hook)

    content_type, digest = rules.ID_CONTENT_TYPE, rules.ID_MESSAGE_DIGEST
    mine = rules.MANIFEST if p.what == "manifest" else rules.KEY_RECORD
    certificate = p.signer.certificate
    cert_hash = der.octets(rules.sha256(certificate))
    attr = writer.attribute
    ess = rules.ID_SIGNING_CERTIFICATE_V2

    for key, name in (("type", "content-type"), ("digest", "message-digest"), ("time", "signing-time"),
                      ("certificate", "signing-certificate-v2")):
        change(f"without-{name}", f"no {name}", **{key: None})
        p.one(f"attribute-twice-{name}", f"{name} twice", "attribute-set",
              lambda data, key=key: _with_twin(data, {"type": 0, "digest": 1, "time": 2, "certificate": 3}[key]))
        p.one(f"attribute-two-values-{name}", f"{name} with two values", "attributes",
              lambda attributes, key=key: {**attributes,
              key: edit((1,), lambda v: der.tlv(der.SET, split(v)[1] * 2))(attributes[key])})
        p.one(f"attribute-no-value-{name}", f"{name} without a value", "attributes",
              lambda attributes, key=key: {**attributes, key: edit((1,), put(der.set_of([])))(attributes[key])})
    change("extra", "a fifth attribute", extra=attr(bytes.fromhex("06092a864886f70d01090f"), der.seq()))
    change("type-other", "content-type is not eContentType", type=attr(content_type, rules.ID_DATA))
    change("type-octets", "content-type as OCTET STRING", type=attr(content_type, der.octets(mine)))
    change("digest-other", "another message-digest", digest=attr(digest, der.octets(bytes(32))))
    change("digest-sha1", "a message-digest of 20 bytes", digest=attr(digest, der.octets(bytes(20))))
    times = {
        "1969": (der.UTC_TIME, b"691231235959Z"),
        "fraction": (der.UTC_TIME, b"260301020304.5Z"),
        "offset": (der.UTC_TIME, b"260301020304+0000"),
        "no-seconds": (der.UTC_TIME, b"2603010203Z"),
        "month-13": (der.UTC_TIME, b"261301020304Z"),
        "february-30": (der.UTC_TIME, b"260230020304Z"),
        "second-60": (der.UTC_TIME, b"260301020360Z"),
        "generalized-before-2050": (der.GENERALIZED_TIME, b"20260301020304Z"),
        "generalized-fraction": (der.GENERALIZED_TIME, b"20510301020304.0Z"),
        "text": (der.UTF8, b"260301020304Z"),
        "letters": (der.UTC_TIME, b"2603010203 4Z"),
    }
    for name, (tag, value) in times.items():
        change(f"time-{name}", f"signing-time {value.decode()}", time=attr(rules.ID_SIGNING_TIME, der.tlv(tag, value)))
    change("ess-other", "a certHash of another certificate",
        certificate=attr(ess, der.seq(der.seq(der.seq(der.octets(bytes(32)))))))
    change("ess-sha1", "a certHash of 20 bytes",
           certificate=attr(ess, der.seq(der.seq(der.seq(der.octets(hashlib.sha1(certificate).digest()))))))
    change("ess-hash-algorithm", "the default hashAlgorithm is written",
        certificate=attr(ess, der.seq(der.seq(der.seq(rules.SHA256, cert_hash)))))
    change("ess-two", "two ESSCertIDv2", certificate=attr(ess,
        der.seq(der.seq(der.seq(cert_hash), der.seq(cert_hash)))))
    change("ess-none", "no ESSCertIDv2", certificate=attr(ess, der.seq(der.seq())))
    change("ess-policies", "policies", certificate=attr(ess,
        der.seq(der.seq(der.seq(cert_hash)), der.seq(der.seq(rules.ID_DATA)))))
    change("ess-issuer-shape", "an issuerSerial that is none",
        certificate=attr(ess, der.seq(der.seq(der.seq(cert_hash, der.integer(1))))))
    p.one("attributes-unsorted", "the attributes are not in order", "attribute-set", edit((), swapped))
    p.one("attributes-empty", "no attribute at all", "attribute-set", put(der.tlv(0xA0)))


def _with_twin(data, which):
    """One of the attributes twice, in order: a SET OF may hold equal elements."""
    children = [child.raw for child in der.parse(data).children]
    wanted = (rules.ID_CONTENT_TYPE, rules.ID_MESSAGE_DIGEST, rules.ID_SIGNING_TIME,
        rules.ID_SIGNING_CERTIFICATE_V2)[which]
    twin = next(child for child in children if der.parse(child).children[0].raw == wanted)
    return der.set_of([*children, twin], 0xA0)


def _certificates(p, w):
    other = w.signers["stranger"].certificate
    mine = p.signer.certificate

    def one(name, what, certificates):
        p.one(f"certificate-{name}", what, "certificates", lambda _: certificates)

    one("extra", "a certificate that no signer names", der.set_of([mine, other], 0xA0))
    one("other", "another certificate than the signer's", der.set_of([other], 0xA0))
    one("none", "an empty set of certificates", der.set_of([], 0xA0))
    one("twice", "the certificate twice", der.set_of([mine, mine], 0xA0))
    one("unsorted", "certificates not in order", der.tlv(0xA0, *sorted([mine, other], reverse=True)))
    one("broken", "no certificate but an empty SEQUENCE", der.set_of([der.seq()], 0xA0))
    one("attribute", "an attribute certificate", der.set_of([der.tlv(0xA2, split(mine)[1])], 0xA0))
    if p.what != "manifest":
        return
    again = signer("backup again", p.signer.private, ski=keys.Certificate(mine).ski)
    one("same-key-other", "another certificate of the same key", der.set_of([again.certificate], 0xA0))
    entropy = keys.Entropy("certificate defects")
    make = keys.make_certificate
    public = p.signer.private.public_key()

    def with_certificate(name, what, certificate, sid=None):
        """The signer is named and its signature made as if the certificate were a good one."""
        def attributes(values):
            ess = writer.attribute(rules.ID_SIGNING_CERTIFICATE_V2,
                der.seq(der.seq(der.seq(der.octets(rules.sha256(certificate))))))
            return {**values, "certificate": ess}

        hooks = {
            "manifest.attributes": attributes,
            "manifest.certificates": lambda _: der.set_of([certificate], 0xA0),
        }
        if sid:
            hooks["manifest.info"] = lambda data, _: edit((1,), put(der.octets(sid, 0x80)))(data)
        p.c.bad(f"signed-manifest-certificate-{name}", "manifest", what, writer.write(w.spec(hooks=hooks)))

    with_certificate("without-ski", "a certificate without a subjectKeyIdentifier",
        make(public, p.signer.private, "x", entropy, ski=b""))
    with_certificate("other-ski", "a certificate with another subjectKeyIdentifier than sid",
                     make(public, p.signer.private, "x", entropy, ski=b"\x01" * 20))
    with_certificate("other-key", "a certificate of another key under the same identifier",
                     make(w.signers["stranger"].private.public_key(), p.signer.private, "x", entropy,
                     ski=keys.Certificate(mine).ski))
    with_certificate("long-ski", "a subjectKeyIdentifier of 65 bytes",
        make(public, p.signer.private, "x", entropy, ski=b"\x07" * 65), b"\x07" * 65)
    with_certificate("not-der", "a certificate with a length that is not minimal",
        der.seq(*(long_length(part.raw) if i == 2 else part.raw
                     for i, part in enumerate(der.parse(mine).children))), keys.Certificate(mine).ski)
    with_certificate("trailing", "a byte after the certificate's parts", der.seq(split(mine)[1], der.tlv(der.NULL)))


def _keys_of_signers(p, w):
    """Keys that may not sign, in certificates that are otherwise good."""
    issuer = w.signers["backup"].private
    entropy = keys.Entropy("odd signers")
    ed = ed25519.Ed25519PrivateKey.from_private_bytes(b"\x11" * 32)
    ed_spki = der.seq(ED25519, der.bits(ed.public_key().public_bytes(serialization.Encoding.Raw,
        serialization.PublicFormat.Raw)))
    point = split(der.parse(keys.spki_of(issuer.public_key())).children[1].raw)[1][1:]
    curve = bytes.fromhex("06082a8648ce3d030107")

    def spki(algorithm, data):
        return der.seq(algorithm, der.bits(data))

    ec_algorithm = der.seq(rules.ID_EC_PUBLIC_KEY, curve)
    p521 = ec.derive_private_key(12345678901234567890, ec.SECP521R1())
    k256 = ec.derive_private_key(12345678901234567890, ec.SECP256K1())
    small = rsa_key("small", 1024)
    odd = rsa_key("exponent 3", 2048, 17)
    cases = {
        "ed25519": (ed_spki, "an Ed25519 key", None, ED25519),
        "p521": (keys.spki_of(p521.public_key()), "a key on P-521", None, rules.ECDSA_SHA256),
        "secp256k1": (keys.spki_of(k256.public_key()), "a key on secp256k1", None, rules.ECDSA_SHA256),
        "compressed": (spki(ec_algorithm, bytes([2 + point[-1] % 2]) + point[1:33]), "a compressed point", issuer,
        rules.ECDSA_SHA256),
        "off-curve": (spki(ec_algorithm, point[:-1] + bytes([point[-1] ^ 1])), "a point off its curve", issuer,
        rules.ECDSA_SHA256),
        "rsa1024": (keys.spki_of(small.public_key()), "an RSA key of 1024 bits", small, rules.PSS_SHA256),
        "rsa-e17": (keys.spki_of(odd.public_key()), "an RSA key with the exponent 17", odd, rules.PSS_SHA256),
    }
    for name, (key, what, private, algorithm) in cases.items():
        certificate = keys.make_certificate(key, issuer, name, entropy, ski=b"\x55" * 20)
        ess = writer.attribute(rules.ID_SIGNING_CERTIFICATE_V2,
            der.seq(der.seq(der.seq(der.octets(rules.sha256(certificate))))))

        def info(data, _, private=private, algorithm=algorithm):
            signed = b"\x31" + der.parse(data).children[3].raw[1:]
            signature = keys.sign(private, signed, keys.Entropy("odd")) if private else ed.sign(signed)
            made = edit((5,), put(der.octets(signature)))(edit((4,), put(algorithm))(data))
            return edit((1,), put(der.octets(b"\x55" * 20, 0x80)))(made)

        hooks = {
            "manifest.attributes": lambda values, ess=ess: {**values, "certificate": ess},
            "manifest.certificates": lambda _, certificate=certificate: der.set_of([certificate], 0xA0),
            "manifest.info": info,
        }
        p.c.bad(f"signed-manifest-key-{name}", "manifest", f"the signer has {what}", writer.write(w.spec(hooks=hooks)))


def _signers(manifest, record, w):
    backup = w.signers["backup"]
    again = signer("backup again", backup.private, serial=7)
    manifest.signed_by("key-twice", "one key signs twice, with two certificates", [backup, again],
                       hooks={"package": edit((4,), put(der.seq(der.octets(keys_certificate(backup).key_id))))})
    rotator = w.signers["rotator"]
    record.signed_by("key-twice", "one key signs twice, with two certificates",
        [rotator, signer("rotator again", rotator.private)])
    manifest.one("info-twice", "one SignerInfo twice", "infos", lambda data: der.tlv(der.SET, split(data)[1] * 2))
    five = [w.signers[n] for n in ("backup", "backup2", "backup-p384", "backup-rsa", "stranger")]
    manifest.signed_by("five", "five signers", five, slot_size=8192,
                       hooks={"package": edit((4,),
                       lambda d: der.seq(*(child.raw for child in der.parse(d).children[:4])))})
    manifest.one("infos-unsorted", "signerInfos not in order", "infos", edit((), swapped),
        signers=w.by("backup", "backup2"))
    manifest.one("one-of-two-bad", "one of two signatures does not hold", "infos", edit((1, 5), flip(-1)),
                 signers=w.by("backup", "backup2"))

    rsa_signers = {"signers": w.by("backup-rsa")}

    def rsa(name, what, change):
        manifest.one("rsa-" + name, what, "info", change, **rsa_signers)

    def resigned(algorithm, sign):
        def hook(data, one_signer):
            attributes = b"\x31" + der.parse(data).children[3].raw[1:]
            return edit((5,), put(der.octets(sign(one_signer.private, attributes))))(edit((4,), put(algorithm))(data))

        return hook

    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    rsa("v15", "a real PKCS#1 v1.5 signature",
        resigned(RSA_V15_SHA256, lambda key, data: key.sign(data, padding.PKCS1v15(), hashes.SHA256())))
    rsa("v15-as-pss", "a PKCS#1 v1.5 signature under the name of PSS",
        resigned(rules.PSS_SHA256, lambda key, data: key.sign(data, padding.PKCS1v15(), hashes.SHA256())))
    # no salt at all is the one deterministic form that the library makes
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 0)
    rsa("salt-0", "RSASSA-PSS without salt under the name of 32 bytes",
        resigned(rules.PSS_SHA256, lambda key, data: key.sign(data, pss, hashes.SHA256())))
    rsa("salt-20-named", "RSASSA-PSS with 20 bytes of salt by name", lambda data, _: edit((4,), put(PSS_SALT_20))(data))
    rsa("pss-bare", "RSASSA-PSS with default parameters, of SHA-1", lambda data, _: edit((4,), put(PSS_BARE))(data))
    rsa("as-ecdsa", "ECDSA by name, with an RSA key", lambda data, _: edit((4,), put(rules.ECDSA_SHA256))(data))


def _manifest(c, w):
    def one(name, what, path, change, kind="refused", **spec):
        made = writer.write(w.spec(hooks={"manifest": edit(path, change)}, **spec))
        c.bad(f"manifest-{name}", "manifest", what, made, kind)

    one("version-0", "version 0", (0,), put(der.integer(0)))
    one("version-2", "version 2", (0,), put(der.integer(2)), "newer")
    one("version-negative", "version -1", (0,), put(der.integer(-1)))
    one("archive-id", "another archive's id", (1,), flip(15))
    one("archive-id-v4", "an id that is no UUID of version 7", (1,), body(lambda b: b[:6] + b"\x40" + b[7:]))
    one("archive-id-15", "an id of 15 bytes", (1,), body(shorter))
    for i, name in ((2, "preamble-digest"), (4, "record-digest"), (8, "payload-digest"), (3, "envelope-digest")):
        one(f"{name}-31", f"{name} of 31 bytes", (i,), body(shorter))
        one(f"{name}-33", f"{name} of 33 bytes", (i,), body(longer))
    one("preamble-digest", "another preambleDigest", (2,), flip(0))
    for i, name, layer in ((3, "envelope-digest", "envelope"), (4, "record-digest", "record"),
            (8, "payload-digest", "index")):
        c.bad(f"manifest-{name}", layer, f"another {name}, signed so",
            writer.write(w.spec(hooks={"manifest": edit((i,), flip(0))})))
    one("suite", "a suite of a later version", (5,), put(rules.ARC + b"\x0a"), "newer")
    one("segments-0", "segmentCount 0", (6,), put(der.integer(0)))
    one("segments-2", "segmentCount one too large", (6,), put(der.integer(2)))
    one("segments-negative", "a negative segmentCount", (6,), put(der.integer(-1)))
    one("segments-many", "segmentCount above 2^32", (6,), put(der.integer((1 << 32) + 1)))
    one("segments-63-bits", "segmentCount of 2^63", (6,), put(der.integer(1 << 63)))
    one("plaintext-length", "plaintextLength one too large", (7,), put(der.integer(101)))
    one("plaintext-negative", "a negative plaintextLength", (7,), put(der.integer(-100)))
    times = ("20261301020304Z", "20260230020304Z", "20260301240000Z", "20260301020360Z", "20260301020304",
        "20260301020304.5Z",
             "202603010203Z", "20260301020304+0000", "19691231235959Z", "2026-3-01020304Z", "20270229000000Z",
             "00000301020304Z")
    for value in times:
        label = value.replace("+", "p").replace(".", "d")
        one(f"created-{label}", f"createdAt {value}", (9,), put(der.tlv(der.GENERALIZED_TIME, value.encode())))
    one("created-utc-time", "createdAt as UTCTime", (9,), put(der.tlv(der.UTC_TIME, b"260301020304Z")))
    one("kind-5", "kind 5", (10,), put(der.integer(5, der.ENUMERATED)))
    one("kind-negative", "kind -1", (10,), put(der.integer(-1, der.ENUMERATED)))
    one("kind-integer", "kind as INTEGER", (10,), put(der.integer(0)))
    one("kind-wal-bare", "kind wal without a sequence", (10,), put(der.integer(2, der.ENUMERATED)))
    one("more", "an element more", (10,), followed_by(der.tlv(der.NULL)))
    one("unknown-option", "an optional field of a later version", (10,), followed_by(der.octets(b"x", 0x87)))
    one("less", "no kind", (10,), drop)
    one("set", "a SET in place of the SEQUENCE", (), retag(der.SET))
    one("trailing", "a byte after it", (), followed_by(b"\x00"))
    one("long-length", "a length that is not minimal", (2,), long_length)
    one("wide-integer", "an INTEGER that is not minimal", (6,), wide_integer)
    one("indefinite", "an indefinite length", (), indefinite)


def _optional(c, w):
    other = writer.new_uuid7(keys.Entropy("parent"), CREATED)
    mine = writer.write(w.spec()).archive_id

    def one(name, what, change=None, path=(11,), **spec):
        hooks = {"manifest": edit(path, change)} if change else {}
        c.bad(f"manifest-{name}", "manifest", what, writer.write(w.spec(hooks=hooks, **spec)))

    for name in ("parent", "supersedes"):
        one(f"{name}-itself", f"{name} is the archive itself", **{name: (mine, bytes(32))})
        one(f"{name}-v4", f"{name} is no UUID of version 7", **{name: (other[:6] + b"\x41" + other[7:], bytes(32))})
        one(f"{name}-id-15", f"{name} of 15 bytes", **{name: (other[:15], bytes(32))})
        one(f"{name}-digest-31", f"{name} with a digest of 31 bytes", **{name: (other, bytes(31))})
        one(f"{name}-more", f"an element more in {name}", body(lambda b: b + der.tlv(der.NULL)),
            **{name: (other, bytes(32))})
        one(f"{name}-less", f"no digest in {name}", body(lambda b: b[:18]), **{name: (other, bytes(32))})
    texts = {"control": "a\tb", "newline": "a\n", "nul": "a\0b", "delete": "a\x7f", "c1": "a\x9bb", "empty": "",
        "long": "x" * 1025,
             "long-utf8": "ä" * 512 + "x"}
    raws = {"utf8": b"a\xff", "utf8-cut": b"a\xc3", "overlong": b"\xc0\x80", "surrogate": b"\xed\xa0\x80",
        "above-unicode": b"\xf4\x90\x80\x80"}
    for field, tag in (("label", 0x83), ("producer", 0x85)):
        for name, value in texts.items():
            one(f"{field}-{name}", f"{field}: {name}", **{field: value})
        for name, value in raws.items():
            one(f"{field}-{name}", f"{field}: {name}", put(der.tlv(tag, value)), **{field: "x"})
    one("label-constructed", "a label in pieces", lambda d: der.tlv(0xA3, der.text("a"), der.text("b")), label="ab")
    sequences = {"no-equals": "system", "empty-value": "system= timeline=1", "empty-key": "=7", "upper-key": "System=7",
        "digit-key": "a1=7",
                 "two-spaces": "a=1  b=2", "leading-space": " a=1", "trailing-space": "a=1 ", "key-twice": "a=1 a=2",
                 "not-ascii": "a=ä",
                 "tab": "a=1\tb=2", "empty": "", "long": "a=" + "x" * 1023, "space": " "}
    for name, value in sequences.items():
        one(f"sequence-{name}", f"sequence: {name}", sequence=value)
    for missing in ("system", "timeline", "segment"):
        words = " ".join(f"{k}=1" for k in ("system", "timeline", "segment") if k != missing)
        one(f"wal-without-{missing}", f"kind wal whose sequence has no {missing}", kind=2, sequence=words)
    one("retain-until-earlier", "retainUntil before createdAt", retain_until=CREATED - datetime.timedelta(seconds=1))
    one("retain-until-no-time", "retainUntil is no time", put(der.tlv(0x82, b"20261301000000Z")), retain_until=CREATED)
    one("retain-until-fraction", "retainUntil with a fraction", put(der.tlv(0x82, b"20990101000000.0Z")),
        retain_until=CREATED)
    one("policy-digest-31", "policyDigest of 31 bytes", policy_digest=bytes(31))
    one("policy-digest-33", "policyDigest of 33 bytes", policy_digest=bytes(33))
    one("label-before-sequence", "optional fields not in order", lambda d: der.text("label", 0x83) + d, sequence="a=1")
    one("label-twice", "a label twice", lambda d: d + d, label="x")
