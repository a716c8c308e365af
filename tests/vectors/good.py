"""Archives that must open. Some of them bk-verify still reports."""

import datetime

import der
import keys
import rules
import writer
from world import CREATED, content, signer

GROUP = 32 * 4096
OAEP_SHA384 = bytes.fromhex(
    "303806092a864886f70d010107302ba00d300b0609608648016503040202"
    "a11a301806092a864886f70d010108300b0609608648016503040202"
)


def add(c, w):
    _lengths(c, w)
    _recipients(c, w)
    _unknown_recipients(c, w)
    _edges(c, w)
    _signers(c, w)
    _options(c, w)
    _rotated(c, w)
    _slots(c, w)
    _sidecars(c, w)
    _trust(c, w)


def _plain(c, w, name, what, keys_=("kek-p256",), trust=None, verify="0:-", **changes):
    spec = w.spec(**changes)
    c.good(name, what, writer.write(spec), spec.plaintext, keys_, trust, verify)


def _lengths(c, w):
    for size in (0, 1, 15, 4095, 4096, 4097, 5 * 4096 + 7, GROUP - 1, GROUP, GROUP + 1):
        _plain(c, w, f"good-length-{size:06d}", f"{size} bytes of plaintext", plaintext=content(size))
    _plain(c, w, "good-segment-8192", "segments of 8192 bytes", plaintext=content(8193), segment_size=8192)
    _plain(c, w, "good-segment-1048576", "segments of 1 MiB", plaintext=content(300), segment_size=1 << 20)
    _plain(c, w, "good-slot-8192", "slots of 8192 bytes", slot_size=8192)
    _plain(c, w, "good-slot-1048576", "slots of 1 MiB", slot_size=1 << 20)
    _plain(c, w, "good-default-sizes", "slot and segment of the writer's defaults", slot_size=None, segment_size=32768)


def _recipients(c, w):
    for name in ("kek-p256", "kek-p384", "kek-rsa2048", "kek-rsa3072", 4, 16, 32):
        label = f"aes-id{name}" if isinstance(name, int) else name[4:]
        _plain(c, w, f"good-recipient-{label}", "one recipient", (name,), recipients=w.to(name))
    _plain(c, w, "good-recipient-oaep-sha1", "RSAES-OAEP with SHA-1", ("kek-rsa2048",),
           recipients=w.to("kek-rsa2048", oaep="sha1"))
    mixed = ("kek-p256", "kek-p384", "kek-rsa2048", 16)
    _plain(c, w, "good-recipients-mixed", "one of each kind", mixed, recipients=w.to(*mixed))
    many = ["kek-p256"] + [f"kek-many{i:02d}" for i in range(1, 32)]
    _plain(c, w, "good-recipients-32", "as many as there may be", ("kek-p256", "kek-many31"), slot_size=8192,
           recipients=w.to(*many))


def _unknown_recipients(c, w):
    """Section 11: a recipient of a kind that this version does not know is skipped."""
    secret = der.seq(der.octets(b"\x0a" * 8))
    unknown = {
        "other": (der.tlv(0xA4, rules.ARC + b"\x03", der.seq(der.integer(1))), "an OtherRecipientInfo"),
        "other-foreign": (der.tlv(0xA4, rules.ID_DATA, der.tlv(der.NULL)), "an OtherRecipientInfo of a foreign type"),
        "secret": (
            der.tlv(0xA2, der.integer(4), secret, der.seq(rules.ARC + b"\x61"), der.octets(bytes(45))),
            "a KEKRecipientInfo with an algorithm of a later version",
        ),
        "secret-gcm-tag15": (
            der.tlv(0xA2, der.integer(4), secret,
                    der.seq(rules.ID_AES256_GCM, der.seq(der.octets(bytes(12)), der.integer(15))),
                    der.octets(bytes(47))),
            "a KEKRecipientInfo with AES-256-GCM and a tag of 15 bytes",
        ),
        "transport": (
            der.seq(der.integer(2), der.octets(b"\x0b" * 20, 0x80), der.seq(rules.ARC + b"\x63"),
                    der.octets(bytes(384))),
            "a KeyTransRecipientInfo with an algorithm of a later version",
        ),
        "agreement": (
            der.tlv(0xA1, der.integer(3),
                    der.tlv(0xA0, der.tlv(0xA1, der.seq(bytes.fromhex("06032b656e")), der.bits(bytes(32)))),
                    der.seq(rules.ARC + b"\x62", rules.AES_WRAP),
                    der.seq(der.seq(der.tlv(0xA0, der.octets(b"\x0c" * 20)), der.octets(bytes(40))))),
            "a KeyAgreeRecipientInfo of a later version, with a key of another kind",
        ),
        "oaep-sha384": (
            der.seq(der.integer(2), der.octets(b"\x0d" * 20, 0x80), OAEP_SHA384, der.octets(bytes(256))),
            "a KeyTransRecipientInfo with RSAES-OAEP of SHA-384",
        ),
        "ecdh-aes128": (
            der.tlv(0xA1, der.integer(3),
                    der.tlv(0xA0, der.tlv(0xA1, der.seq(rules.ID_EC_PUBLIC_KEY), der.bits(b"\x04" + bytes(64)))),
                    bytes.fromhex("301506062b8104010b01300b0609608648016503040105"),
                    der.seq(der.seq(der.tlv(0xA0, der.octets(b"\x0e" * 20)), der.octets(bytes(40))))),
            "a KeyAgreeRecipientInfo with AES-128 key wrap, its point not looked at",
        ),
    }
    for name, (raw, what) in unknown.items():
        _plain(c, w, f"good-unknown-{name}", what + " beside a recipient that is known",
               recipients=w.to("kek-p256") + [writer.Recipient(raw=raw, identifier=b"")])
    # what the first version of bk knew as assigned to later ones, and skipped
    _plain(c, w, "good-recipient-token-gcm-zero", "AES-256-GCM in the token, with a nonce of zeros, beside another",
           recipients=w.to("kek-p256") + [token_only(rules.aes_gcm(bytes(12)), bytes(48), secret)])
    _plain(c, w, "good-recipient-token-gcm", "AES-256-GCM in the token, beside another",
           recipients=w.to("kek-p256") + [token_only(rules.aes_gcm(bytes(range(12))), bytes(range(48)), secret)])
    for length in (45, 61, 128):
        _plain(c, w, f"good-recipient-token-ccm-{length}", f"AES-CCM wrap of YubiHSM 2, {length} bytes, beside another",
               recipients=w.to("kek-p256") + [token_only(rules.YUBIHSM_CCM, bytes(length), secret)])
    mine = w.to("kek-p256")[0].id
    _plain(c, w, "good-recipient-token-proven", "proven and hints name a recipient that only a token opens",
           recipients=w.to("kek-p256") + [token_only(rules.YUBIHSM_CCM, bytes(45), secret)],
           info=writer.RecordInfo(CREATED, proven=(mine, b"\x0a" * 8), hints=((b"\x0a" * 8, "pkcs11:token=kek"),)))
    _plain(c, w, "good-unknown-proven", "proven and hints name a recipient that is unknown",
           recipients=w.to("kek-p256") + [writer.Recipient(raw=unknown["secret"][0])],
           info=writer.RecordInfo(CREATED, proven=(mine, b"\x0a" * 8), hints=((b"\x0a" * 8, "pkcs11:token=kek"),)))


def token_only(algorithm, wrapped, kekid):
    raw = der.tlv(0xA2, der.integer(4), kekid, algorithm, der.octets(wrapped))
    return writer.Recipient(raw=raw, identifier=der.parse(kekid).children[0].body)


def _edges(c, w):
    """As large as section 19 lets things be; bad_envelope.py has what is one larger."""
    largest = 65536 - 4 - 4 - 3 - 4  # the headers of metadata, item, key "k" and value
    _plain(c, w, "good-metadata-65536", "metadata of 65,536 bytes", metadata=(("k", "v" * largest),), slot_size=69632)
    _plain(c, w, "good-depth-20", "nested 20 deep", recipients=w.to("kek-p256") + [unknown_of(nested(20 - 5))])
    many = der.seq(der.tlv(der.NULL) * (4096 - elements_beside(w)))
    _plain(c, w, "good-elements-4096", "4096 elements in an envelope", slot_size=12288,
           recipients=w.to("kek-p256") + [unknown_of(many)])
    items = (4096 - 9) // 3
    _plain(c, w, "good-metadata-4096-elements", "key package of nearly 4096 elements", slot_size=12288,
           metadata=tuple((f"k{i % 10}", "") for i in range(items)))


def nested(levels):
    deep = der.tlv(der.NULL)
    for _ in range(levels - 1):
        deep = der.seq(deep)
    return deep


def unknown_of(value):
    return writer.Recipient(raw=der.tlv(0xA4, rules.ARC + b"\x03", value))


def count(element):
    return 1 + sum(count(child) for child in element.children or [])


def elements_beside(w):
    """Elements of an envelope whose unknown recipient has an empty SEQUENCE."""
    made = writer.write(w.spec(recipients=w.to("kek-p256") + [unknown_of(der.seq())]))
    return count(der.parse(made.data[4096 + 64 : 4096 + 64 + int.from_bytes(made.data[4112:4116], "big")]))


def _signers(c, w):
    for names in (("backup-p384",), ("backup-rsa",), ("backup", "backup2"),
                  ("backup", "backup2", "backup-p384", "backup-rsa")):
        _plain(c, w, "good-signed-by-" + "-and-".join(names) if len(names) < 3 else f"good-signed-by-{len(names)}",
               f"{len(names)} signers", signers=w.by(*names))
    private = w.signers["backup"].private
    for name, what, options in (
        ("ski-sha1", "a subjectKeyIdentifier that is not the key id", {"ski": b"\x5a" * 20}),
        ("ski-short", "a subjectKeyIdentifier of one byte", {"ski": b"\x07"}),
        ("ski-64", "a subjectKeyIdentifier of 64 bytes", {"ski": b"\x07" * 64}),
        ("expired", "a certificate that was not valid at signing-time", {"years": (2001, 2002)}),
    ):
        _plain(c, w, f"good-certificate-{name}", what, signers=[signer("backup", private, **options)])

    def with_issuer(attributes):
        certificate = keys.Certificate(w.signers["backup"].certificate)
        tbs = der.parse(certificate.der).children[0]
        issuer = der.seq(der.tlv(0xA4, tbs.children[3].raw))
        one = der.seq(der.octets(rules.sha256(certificate.der)), der.seq(issuer, tbs.children[1].raw))
        ess = writer.attribute(rules.ID_SIGNING_CERTIFICATE_V2, der.seq(der.seq(one)))
        return {**attributes, "certificate": ess}

    _plain(c, w, "good-issuer-serial", "an issuerSerial beside the certHash", hooks={
        "manifest.attributes": lambda attributes: with_issuer(attributes)})
    _plain(c, w, "good-signing-time-2050", "signing-time as GeneralizedTime", created_at=datetime.datetime(2050, 1, 1))


def _options(c, w):
    other, other2 = (writer.new_uuid7(keys.Entropy(seed), CREATED) for seed in ("parent", "superseded"))
    everything = dict(
        metadata=(("database", "orders"), ("host", "db1.example"), ("empty", ""), ("host", "twice"),
                  ("Größe", "x" * 2000 + "ß")),
        kind=1,
        parent=(other, bytes(range(32))),
        sequence="system=7123456789012345678 timeline=1 start=0/2000028 stop=0/2000138 note=a=b",
        retain_until=datetime.datetime(2099, 12, 31, 23, 59, 59),
        label="nightly, Zürich, 完全備份",
        policy_digest=bytes(32),
        producer="pg_dump",
        supersedes=(other2, bytes(32)),
        slot_size=8192,
        info=writer.RecordInfo(
            CREATED, 1, tuple(r.id for r in w.to("kek-p256")), "first", b"\x01\x02",
            tuple((r.id, "pkcs11:token=kek;serial=0123;object=archive%20key") for r in w.to("kek-p256")),
        ),
    )
    _plain(c, w, "good-all-options", "every optional field of manifest, record and key package", **everything)
    for kind, name in enumerate(writer.KINDS):
        sequence = "system=7 timeline=1 segment=000000010000000000000002" if name == "wal" else None
        _plain(c, w, f"good-kind-{name}", f"kind {name}", kind=kind, sequence=sequence)
    mine = w.to("kek-p256")[0].id
    for name, uri in (("other-attributes", "pkcs11:token=kek;slot-id=1;x-vendor=pin-value?x-query=module-path"),
            ("bare", "pkcs11:")):
        _plain(c, w, f"good-hint-{name}", "a hint with what bk does not write",
            info=writer.RecordInfo(CREATED, hints=((mine, uri),)))
    _plain(c, w, "good-label-1024", "a label of 1024 bytes", label="ä" * 512)
    _plain(c, w, "good-retain-until-now", "retainUntil equal to createdAt", retain_until=CREATED)
    _plain(c, w, "good-created-1970", "createdAt at the earliest time", created_at=datetime.datetime(1970, 1, 1))
    _plain(c, w, "good-created-9999", "createdAt at the latest time",
           created_at=datetime.datetime(9999, 12, 31, 23, 59, 59),
           archive_id=writer.new_uuid7(keys.Entropy("9"), CREATED))
    _plain(c, w, "good-leap-day", "createdAt on a leap day", created_at=datetime.datetime(2028, 2, 29))


def _rotated(c, w):
    def rotations(generations, by=("rotator",)):
        made = []
        for generation in range(2, generations + 1):
            names = ("kek-next",) if generation == generations else (f"kek-many{generation:02d}", 16)
            made.append(w.rotation(names, by, generation, proven=tuple(r.id for r in w.to(*names)),
                blindness=generation % 3,
                                   reason=f"rotation {generation}"))
        return tuple(made)

    for generations in (2, 3, 5):
        _plain(c, w, f"good-generation-{generations}", f"rotated to generation {generations}", ("kek-next",),
               rotations=rotations(generations))
    for name, by in (("officer", ("officer",)), ("rsa", ("rotator-rsa",)), ("two", ("officer", "rotator"))):
        _plain(c, w, f"good-rotated-by-{name}", "a record signed by " + " and ".join(by), ("kek-next",),
               rotations=rotations(2, by))
    _plain(c, w, "good-detached", "the envelope in a sidecar", detached=True)
    _plain(c, w, "good-detached-generation-3", "a sidecar of generation 3", ("kek-next",), detached=True,
           rotations=rotations(3))


def _sidecars(c, w):
    """Section 4: beside an archive with slots the valid envelope of the highest generation counts, wherever it is."""
    rotation = (w.rotation(),)
    plaintext = w.spec().plaintext
    inline = writer.write(w.spec())
    rotated = writer.write(w.spec(rotations=rotation))
    # what a rotation beside the slots writes: the same archive, generation 2 in a file of its own
    newer = trimmed(rotated.data[4096:8192])
    older = trimmed(inline.data[4096:8192])
    for name, what, made, sidecar, key, verify in (
        ("newer", "a sidecar that is newer than the slots", inline, newer, "kek-next", "0:-"),
        ("older", "a sidecar that is older than the slots", rotated, older, "kek-next", "0:-"),
        ("same", "a sidecar that is the same as the slots", inline, older, "kek-p256", "0:-"),
    ):
        made = writer.Made(made.data, sidecar)
        c.good(f"good-sidecar-{name}", what, made, plaintext, (key,), verify=verify)


def trimmed(slot):
    """A slot as a sidecar: without padding."""
    envelope, record = (int.from_bytes(slot[at : at + 4], "big") for at in (16, 20))
    return slot[: 64 + envelope + record]


def _slots(c, w):
    """Section 4: one whole slot is enough, and the higher of two is taken; bk-verify still names a damaged one."""
    rotated = (w.rotation(),)

    def with_slots(hook):
        return {"slots": hook}

    def damaged(old):
        return old[:100] + bytes([old[100] ^ 1]) + old[101:]

    _plain(c, w, "good-slot-a-damaged", "slot A is damaged", verify="1:slots",
           hooks=with_slots(lambda pair, slot: [damaged(pair[0]), pair[1]]))
    _plain(c, w, "good-slot-b-damaged", "slot B is damaged", verify="1:slots",
           hooks=with_slots(lambda pair, slot: [pair[0], damaged(pair[1])]))
    _plain(c, w, "good-slot-b-empty", "slot B is all zero", verify="1:slots",
           hooks=with_slots(lambda pair, slot: [pair[0], bytes(len(pair[1]))]))
    _plain(c, w, "good-slot-a-older", "a rotation was interrupted after slot B", ("kek-next",), rotations=rotated,
           hooks=with_slots(lambda pair, slot: [slot(0), pair[1]]))
    _plain(c, w, "good-slot-b-older", "a rotation was interrupted after slot A", ("kek-next",), rotations=rotated,
           hooks=with_slots(lambda pair, slot: [pair[0], slot(0)]))
    _plain(c, w, "good-slot-b-newer-damaged", "a rotation was interrupted within slot B", verify="1:slots",
           rotations=rotated, hooks=with_slots(lambda pair, slot: [slot(0), damaged(pair[1])]))


def _trust(c, w):
    pin = keys.fingerprint(keys.Certificate(w.signers["backup"].certificate).spki).hex()
    rotator = keys.fingerprint(keys.Certificate(w.signers["rotator"].certificate).spki).hex()
    _plain(c, w, "good-pinned-by-fingerprint", "trust by the digest of the SubjectPublicKeyInfo",
           trust=f"sha256:{pin}")
    _plain(c, w, "good-pinned-record", "trust of a rotator by its digest", ("kek-next",), rotations=(w.rotation(),),
           trust=f"backup:sha256:{pin} rotate:sha256:{rotator}")
    both = w.rotation(by=("backup",))
    _plain(c, w, "good-one-key-two-roles", "one key trusted for manifests and records", ("kek-next",),
        rotations=(both,),
           trust="keys/backup.pem rotate:keys/backup.pem")
