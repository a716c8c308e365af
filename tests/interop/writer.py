"""A writer of bk archives, written from docs/FORMAT.md alone. Each stage passes its result through Spec.at(), so that a
test can put one defect in and have everything after it made consistent with the defect.
"""

import dataclasses
import datetime
import hashlib
import struct
import time

from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.asymmetric import ec, rsa

import der
import keys
import rules

KINDS = ("full", "incremental", "wal", "snapshot", "other")


@dataclasses.dataclass
class Recipient:
    """public: a public key and oaep "sha256" or "sha1"; or secret and identifier of an AES key. raw: RecipientInfo as
    it is, with the key id that stands for it in history."""

    public: object = None
    oaep: str = "sha256"
    secret: bytes = b""
    identifier: bytes = b""
    raw: bytes = b""

    @property
    def id(self):
        if self.raw or self.secret:
            return self.identifier
        return keys.key_id(keys.spki_of(self.public))

    def wrap(self, cek, entropy):
        if self.raw:
            return self.raw
        if self.secret:
            return der.tlv(
                0xA2,
                der.integer(4),
                der.seq(der.octets(self.identifier)),
                rules.AES_WRAP,
                der.octets(keywrap.aes_key_wrap(self.secret, cek)),
            )
        if isinstance(self.public, rsa.RSAPublicKey):
            sha1 = self.oaep == "sha1"
            wrapped = keys.oaep_wrap(self.public, cek, hashlib.sha1 if sha1 else hashlib.sha256, entropy)
            return der.seq(
                der.integer(2),
                der.octets(self.id, 0x80),
                rules.OAEP_SHA1 if sha1 else rules.OAEP_SHA256,
                der.octets(wrapped),
            )
        point, wrapped = keys.ecdh_wrap(self.public, cek, entropy)
        originator = der.tlv(0xA1, der.seq(rules.ID_EC_PUBLIC_KEY), der.bits(point))
        return der.tlv(
            0xA1,
            der.integer(3),
            der.tlv(0xA0, originator),
            rules.ECDH_P256 if isinstance(self.public.curve, ec.SECP256R1) else rules.ECDH_P384,
            der.seq(der.seq(der.tlv(0xA0, der.octets(self.id)), der.octets(wrapped))),
        )


@dataclasses.dataclass
class Signer:
    private: object
    certificate: bytes

    @property
    def algorithm(self):
        return rules.PSS_SHA256 if isinstance(self.private, rsa.RSAPrivateKey) else rules.ECDSA_SHA256


@dataclasses.dataclass
class RecordInfo:
    """What the writer of a key record chooses; ids of proven and hints are those of recipients."""

    created_at: datetime.datetime
    blindness: int = 0
    proven: tuple = ()
    reason: str = None
    order_id: bytes = None
    hints: tuple = ()


@dataclasses.dataclass
class Rotation:
    recipients: list
    signers: list
    info: RecordInfo


@dataclasses.dataclass
class Spec:
    plaintext: bytes
    recipients: list
    signers: list
    entropy: keys.Entropy
    info: RecordInfo
    created_at: datetime.datetime
    segment_size: int = 32768
    slot_size: int = None  # None: as small as twice the contents, and never below the default
    detached: bool = False
    metadata: tuple = ()
    kind: int = 0
    parent: tuple = None
    sequence: str = None
    retain_until: datetime.datetime = None
    label: str = None
    policy_digest: bytes = None
    producer: str = None
    supersedes: tuple = None
    rotations: tuple = ()
    archive_id: bytes = None
    hooks: dict = dataclasses.field(default_factory=dict)

    def at(self, stage, value, *context):
        hook = self.hooks.get(stage)
        return value if hook is None else hook(value, *context)


@dataclasses.dataclass
class Made:
    """An archive as it was written, and its parts."""

    data: bytes = b""
    sidecar: bytes = None
    manifest: bytes = b""
    archive_id: bytes = b""
    manifest_digest: bytes = b""


def stamp(moment):
    return moment.strftime("%Y%m%d%H%M%SZ").encode()


def signing_time(moment):
    if moment.year < 2050:
        return der.tlv(der.UTC_TIME, stamp(moment)[2:])
    return der.tlv(der.GENERALIZED_TIME, stamp(moment))


def new_uuid7(entropy, moment=None):
    milliseconds = int((moment.timestamp() if moment else time.time()) * 1000)
    value = bytearray(milliseconds.to_bytes(6, "big") + entropy.bytes(10))
    value[6] = 0x70 | value[6] & 0x0F
    value[8] = 0x80 | value[8] & 0x3F
    return bytes(value)


# --- key package and envelope (sections 11, 12) ----------------------------------


def key_package(spec, archive_id, file_key):
    signers = sorted(keys.Certificate(s.certificate).key_id for s in spec.signers)
    metadata = b""
    if spec.metadata:
        metadata = der.tlv(0xA0, *(der.seq(der.text(key), der.text(value)) for key, value in spec.metadata))
    return spec.at(
        "package",
        der.seq(
            der.integer(1),
            der.octets(archive_id),
            rules.SUITE_1,
            der.octets(file_key),
            der.seq(*(der.octets(signer) for signer in signers)),
            metadata,
        ),
    )


def encrypted_content(spec, cek, package):
    """authEncryptedContentInfo and mac."""
    nonce = spec.entropy.bytes(12)
    sealed = AESGCM(cek).encrypt(nonce, package, None)
    algorithm = der.seq(rules.ID_AES256_GCM, der.seq(der.octets(nonce), der.integer(16)))
    info = der.seq(rules.ID_DATA, algorithm, der.octets(sealed[:-16], 0x80))
    return spec.at("content", (info, der.octets(sealed[-16:])))


def envelope(spec, generation, recipients, cek, content):
    """The DER of the ContentInfo, and the recipients' key ids in the order of the recipientInfos."""
    pairs = sorted((r.wrap(cek, spec.entropy), r.id) for r in recipients)
    infos = spec.at("recipients", der.set_of([info for info, _ in pairs]), generation)
    body = der.seq(der.integer(0), infos, *content)
    made = der.seq(rules.ID_AUTH_ENVELOPED_DATA, der.tlv(0xA0, body))
    return spec.at("envelope", made, generation), [identifier for _, identifier in pairs if identifier]


# --- SignedData (section 13) -------------------------------------------------------


def signed_data(spec, what, content_type, content, signers, moment):
    algorithms = der.set_of([rules.SHA256])
    encapsulated = der.seq(content_type, der.tlv(0xA0, der.octets(content)))
    certificates = spec.at(what + ".certificates", der.set_of([s.certificate for s in signers], 0xA0))
    infos = spec.at(
        what + ".infos",
        der.set_of([signer_info(spec, what, content_type, content, signer, moment) for signer in signers]),
    )
    body = der.seq(der.integer(3), algorithms, encapsulated, certificates, infos)
    return spec.at(what + ".signed", der.seq(rules.ID_SIGNED_DATA, der.tlv(0xA0, body)))


def attribute(identifier, *values):
    return der.seq(identifier, der.tlv(der.SET, *values))


def signer_info(spec, what, content_type, content, signer, moment):
    certificate = keys.Certificate(signer.certificate)
    ess = der.seq(der.seq(der.seq(der.octets(rules.sha256(signer.certificate)))))
    attributes = {
        "type": attribute(rules.ID_CONTENT_TYPE, content_type),
        "digest": attribute(rules.ID_MESSAGE_DIGEST, der.octets(rules.sha256(content))),
        "time": attribute(rules.ID_SIGNING_TIME, signing_time(moment)),
        "certificate": attribute(rules.ID_SIGNING_CERTIFICATE_V2, ess),
    }
    attributes = spec.at(what + ".attributes", attributes)
    encoded = spec.at(what + ".attribute-set", der.set_of(attributes.values(), 0xA0))
    signature = keys.sign(signer.private, b"\x31" + encoded[1:], spec.entropy)
    return spec.at(
        what + ".info",
        der.seq(
            der.integer(3),
            der.octets(certificate.ski, 0x80),
            rules.SHA256,
            encoded,
            signer.algorithm,
            der.octets(signature),
        ),
        signer,
    )


# --- manifest and records (sections 14, 15) ------------------------------------------


def record(spec, archive_id, generation, envelope_der, info, lineage=None):
    """lineage from generation 2 on: (previous, manifestDigest, [(digest, key ids)])."""
    past = b""
    if lineage:
        previous, manifest_digest, history = lineage
        past = der.octets(previous, 0x80) + der.octets(manifest_digest, 0x81)
        past += der.tlv(
            0xA2, *(der.seq(der.octets(d), der.seq(*(der.octets(i) for i in ids))) for d, ids in history)
        )
    made = der.seq(
        der.integer(1),
        der.octets(archive_id),
        der.integer(generation),
        past,
        der.octets(rules.sha256(envelope_der)),
        der.tlv(der.GENERALIZED_TIME, stamp(info.created_at)),
        der.integer(info.blindness, der.ENUMERATED),
        der.seq(*(der.octets(identifier) for identifier in info.proven)),
        b"" if info.reason is None else der.text(info.reason, 0x83),
        b"" if info.order_id is None else der.octets(info.order_id, 0x84),
        der.seq(*(der.seq(der.octets(identifier), der.text(uri)) for identifier, uri in info.hints)),
    )
    return spec.at("record", made, generation)


def manifest(spec, archive_id, preamble, envelope_digest, record_digest, segments, payload_digest):
    def other(tag, pair):
        return b"" if pair is None else der.tlv(tag, der.octets(pair[0]), der.octets(pair[1]))

    def optional(tag, value):
        return b"" if value is None else der.text(value, tag)

    made = der.seq(
        der.integer(1),
        der.octets(archive_id),
        der.octets(rules.sha256(preamble)),
        der.octets(envelope_digest),
        der.octets(record_digest),
        rules.SUITE_1,
        der.integer(segments),
        der.integer(len(spec.plaintext)),
        der.octets(payload_digest),
        der.tlv(der.GENERALIZED_TIME, stamp(spec.created_at)),
        der.integer(spec.kind, der.ENUMERATED),
        other(0xA0, spec.parent),
        optional(0x81, spec.sequence),
        optional(0x82, spec.retain_until and stamp(spec.retain_until)),
        optional(0x83, spec.label),
        b"" if spec.policy_digest is None else der.octets(spec.policy_digest, 0x84),
        optional(0x85, spec.producer),
        other(0xA6, spec.supersedes),
    )
    return spec.at("manifest", made)


# --- the parts outside DER (sections 3 to 7) ---------------------------------------------


def slot(spec, generation, envelope_der, record_der, size=None):
    head = rules.SLOT_MAGIC + struct.pack(">QII", generation, len(envelope_der), len(record_der)) + bytes(8)
    head, body = spec.at("slot", (head, envelope_der + record_der))
    made = head + rules.sha256(head, body) + body
    if size is None:
        return made
    if len(made) > size:
        raise ValueError(f"a slot of {size} bytes is too small for {len(made)}")
    return made + bytes(size - len(made))


def preamble_of(spec, archive_id, slot_size, file_key):
    head = rules.PREAMBLE_MAGIC + struct.pack(
        ">HHII", 1, rules.FLAG_DETACHED if spec.detached else 0, slot_size, spec.segment_size
    )
    head = spec.at("head", head + archive_id)
    commit = spec.at("commit", rules.key_commit(file_key, head))
    body = spec.at("preamble", head + commit + bytes(4064 - 36 - 32))
    return body + rules.sha256(body)


def seal_frames(spec, preamble, file_key, envelope_digest):
    size = spec.segment_size
    segments = [spec.plaintext[i : i + size] for i in range(0, len(spec.plaintext), size)] or [b""]
    segments = spec.at("segments", segments)
    frames = []
    for i, segment in enumerate(segments):
        word = spec.at("word", len(segment) | (1 << 31 if i == len(segments) - 1 else 0), i)
        epoch = spec.at("epoch", rules.epoch_of(i, size), i)
        cipher = AESGCM(rules.payload_key(file_key, preamble, envelope_digest, epoch))
        head = struct.pack(">I", word)
        frames.append(head + cipher.encrypt(spec.at("nonce", rules.nonce_of(i), i), segment, head))
    return spec.at("frames", frames)


def write(spec):
    entropy = spec.entropy
    archive_id = spec.archive_id or new_uuid7(entropy, spec.created_at)
    cek, file_key = entropy.bytes(32), entropy.bytes(32)
    content = encrypted_content(spec, cek, key_package(spec, archive_id, file_key))
    envelope_digest = rules.sha256(*content)

    first, first_ids = envelope(spec, 1, spec.recipients, cek, content)
    first_record = record(spec, archive_id, 1, first, spec.info)
    slot_size = 0 if spec.detached else spec.slot_size or default_slot_size(len(first) + len(first_record))

    preamble = preamble_of(spec, archive_id, slot_size, file_key)
    frames = seal_frames(spec, preamble, file_key, envelope_digest)
    leaves = [rules.sha256(frame) for frame in frames]
    index = spec.at("index", [rules.tree_root(group) for group in rules.groups_of(leaves)])
    inner = manifest(
        spec,
        archive_id,
        preamble,
        envelope_digest,
        rules.sha256(first_record),
        len(frames),
        spec.at("payload-digest", rules.tree_root(index)),
    )
    signed = signed_data(spec, "manifest", rules.MANIFEST, inner, spec.signers, spec.created_at)

    slots = [(1, first, first_record)]
    history = [(rules.sha256(first_record), first_ids)]
    for generation, rotation in enumerate(spec.rotations, 2):
        made, ids = envelope(spec, generation, rotation.recipients, cek, content)
        lineage = (history[-1][0], rules.sha256(inner), list(history))
        inner_record = record(spec, archive_id, generation, made, rotation.info, lineage)
        signed_record = signed_data(
            spec, "record", rules.KEY_RECORD, inner_record, rotation.signers, rotation.info.created_at
        )
        slots.append((generation, made, signed_record))
        history.append((rules.sha256(inner_record), ids))

    made = Made(manifest=signed, archive_id=archive_id, manifest_digest=rules.sha256(inner))
    if spec.detached:
        made.sidecar = spec.at("sidecar", slot(spec, *slots[-1]))
        pair = []
    else:
        pair = spec.at("slots", [slot(spec, *slots[-1], slot_size)] * 2, lambda i: slot(spec, *slots[i], slot_size))
    head_and_frames = preamble + b"".join(pair) + b"".join(spec.at("stored-frames", frames))
    stored_index = b"".join(spec.at("stored-index", index))
    stored_length = spec.at("stored-length", struct.pack(">I", len(signed)))
    total = len(head_and_frames) + len(stored_index) + 4 + len(signed) + rules.TAIL_LENGTH
    tail = rules.TAIL_MAGIC + struct.pack(">QIIQ", len(head_and_frames), len(signed), 0, total)
    tail = spec.at("tail", tail)
    tail = spec.at("stored-tail", tail + rules.sha256(tail))
    made.data = spec.at("file", head_and_frames + stored_index + stored_length + signed + tail)
    return made


def default_slot_size(contents):
    size = max(32768, 2 * (rules.SLOT_HEADER_LENGTH + contents))
    return -(-size // rules.SLOT_STEP) * rules.SLOT_STEP
