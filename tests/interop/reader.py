"""A reader of bk archives, written from docs/FORMAT.md alone; what it refuses, it refuses by the layer's name."""

import contextlib
import datetime
import hmac
import os
import re
import struct
import time
import unicodedata

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import der
import keys
import rules
from der import DerError, Fields

MANIFEST_ROLES = {"backup"}
RECORD_ROLES = {"rotate", "officer"}


class Refused(Exception):
    """layer: which part; kind: refused, newer, incomplete, untrusted, no-trust or no-key; see exit_code."""

    def __init__(self, layer, message, kind="refused"):
        super().__init__(message)
        self.layer = layer
        self.kind = kind

    @property
    def exit_code(self):
        return {"no-trust": 2, "no-key": 3}.get(self.kind, 1)


class Newer(DerError):
    """A version or suite above what this reader knows."""


@contextlib.contextmanager
def at(layer):
    try:
        yield
    except Newer as error:
        raise Refused(layer, str(error), "newer") from error
    except DerError as error:
        raise Refused(layer, str(error)) from error


def require(holds, message):
    if not holds:
        raise DerError(message)


# --- values (section 9) ----------------------------------------------------------


def number(element):
    require(not element.body[0] & 0x80, "INTEGER is negative")
    value = int.from_bytes(element.body, "big")
    require(value < 1 << 63, "INTEGER of 63 bits or more")
    return value


def octets(element, low, high=None):
    require(low <= len(element.body) <= (low if high is None else high), f"OCTET STRING of {len(element.body)} bytes")
    return element.body


def text(element, low=1, high=rules.TEXT_MAX):
    require(low <= len(element.body) <= high, f"text of {len(element.body)} bytes")
    try:
        value = element.body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DerError("text is not UTF-8") from error
    require(all(unicodedata.category(c) != "Cc" for c in value), "text with control characters")
    return value


def moment(body, century=""):
    """YYYYMMDDHHMMSSZ; for UTCTime the century is given."""
    digits = century.encode() + body[:-1]
    require(len(digits) == 14 and digits.isdigit() and body[-1:] == b"Z", "time is not YYYYMMDDHHMMSSZ")
    try:
        value = datetime.datetime.strptime(digits.decode(), "%Y%m%d%H%M%S")
    except ValueError as error:
        raise DerError("no such time") from error
    require(value.second < 60 and value.year >= 1970, "time out of range")
    return value


def uuid7(element):
    value = octets(element, 16)
    require(rules.is_uuid7(value), "not a UUID of version 7")
    return value


def version_1(fields):
    version = number(fields.take(der.INTEGER, "version"))
    if version > 1:
        raise Newer(f"{fields.what}: version {version} is newer than this reader")
    require(version == 1, f"{fields.what}: version {version}")


def suite_1(fields):
    if fields.take(der.OID, "suite").raw != rules.SUITE_1:
        raise Newer(f"{fields.what}: a suite that this reader does not know")


def key_ids(element, low, high=None, size=(rules.KEY_ID_MIN, rules.KEY_ID_MAX)):
    """high None: as many as there are, and any of them twice."""
    fields = Fields(element, "key ids")
    found = []
    while fields.left:
        found.append(octets(fields.take(der.OCTET_STRING, "key id"), *size))
    require(low <= len(found), f"{len(found)} key ids")
    require(high is None or len(found) <= high, f"{len(found)} key ids")
    require(high is None or len(set(found)) == len(found), "a key id twice")
    return found


# --- preamble (section 3) --------------------------------------------------------


class Preamble:
    def __init__(self, data):
        if len(data) < rules.PREAMBLE_LENGTH:
            raise Refused("preamble", "the file ends within the preamble", "incomplete")
        self.raw = data = data[: rules.PREAMBLE_LENGTH]
        with at("preamble"):
            require(data[:8] == rules.PREAMBLE_MAGIC, "no bk archive: magic")
            version, flags, self.slot_size, self.segment_size = struct.unpack(">HHII", data[8:20])
            if version > 1:
                raise Newer(f"archive version {version}")
            require(version == 1, f"archive version {version}")
            if flags & ~rules.FLAG_DETACHED:
                raise Newer(f"flags {flags:#06x}")
            require(rules.sha256(data[:4064]) == data[4064:], "checksum")
            self.detached = bool(flags & rules.FLAG_DETACHED)
            require(self.detached == (self.slot_size == 0), "slot size and flag disagree")
            require(self.slot_size % rules.SLOT_STEP == 0 and self.slot_size <= rules.SLOT_MAX, "slot size")
            require(
                rules.SEGMENT_MIN <= self.segment_size <= rules.SEGMENT_MAX
                and self.segment_size & (self.segment_size - 1) == 0,
                "segment size",
            )
            self.archive_id = data[20:36]
            require(rules.is_uuid7(self.archive_id), "archive id is no UUID of version 7")
            self.key_commit = data[36:68]
            require(not any(data[68:4064]), "bytes that must be zero")
        self.head_length = rules.PREAMBLE_LENGTH + 2 * self.slot_size


# --- slots (section 4) -----------------------------------------------------------


class Slot:
    """DerError if it is not valid."""

    def __init__(self, data, padded=True):
        require(len(data) >= rules.SLOT_HEADER_LENGTH and data[:8] == rules.SLOT_MAGIC, "slot: magic")
        self.generation, envelope_length, record_length, zero = struct.unpack(">QIIQ", data[8:32])
        require(self.generation >= 1 and envelope_length >= 1 and record_length >= 1, "slot: an empty field")
        require(zero == 0, "slot: bytes that must be zero")
        end = rules.SLOT_HEADER_LENGTH + envelope_length + record_length
        require(end <= len(data) if padded else end == len(data), "slot: lengths")
        require(not any(data[end:]), "slot: padding")
        require(rules.sha256(data[:32], data[64:end]) == data[32:64], "slot: checksum")
        self.contents = data[:end]
        self.envelope = data[64 : 64 + envelope_length]
        self.record = data[64 + envelope_length : end]


class Slots:
    """The envelope that is taken: the valid one of the highest generation, of both slots and the sidecar; and what
    bk-verify reports of the others."""

    def __init__(self, file, slot_size, sidecar):
        self.file, self.slot_size, self.sidecar = file, slot_size, sidecar
        valid = self._read()
        if len(valid) < 2 and slot_size:  # a rotation may be passing
            time.sleep(0.05)
            valid = self._read()
        if not valid:
            missing = not slot_size and not os.path.exists(sidecar)
            raise Refused("slots", "no valid envelope: " + "; ".join(self.damage),
                "incomplete" if missing else "refused")
        self.taken = max(valid, key=lambda slot: slot.generation)
        for slot in valid:
            if slot.generation == self.taken.generation and slot.contents != self.taken.contents:
                raise Refused("slots", "two valid envelopes of one generation that differ")

    def _read(self):
        self.damage = []
        valid = []
        for i in range(2 if self.slot_size else 0):
            data = self.file.at(rules.PREAMBLE_LENGTH + i * self.slot_size, self.slot_size)
            self._take(valid, "slot " + "AB"[i], data, True)
        try:
            with open(self.sidecar, "rb") as file:
                self._take(valid, "sidecar", file.read(rules.SIDECAR_MAX + 1), False)
        except FileNotFoundError:
            pass
        return valid

    def _take(self, valid, name, data, padded):
        try:
            require(padded or len(data) <= rules.SIDECAR_MAX, "longer than 1 MiB")
            valid.append(Slot(data, padded))
        except DerError as error:
            self.damage.append(f"{name}: {error}")


# --- tail and layout (section 7) ---------------------------------------------------


class Layout:
    def __init__(self, file, preamble):
        size = file.size
        if size < preamble.head_length:
            raise Refused("slots", "the file ends within the slots", "incomplete")
        if size < rules.PREAMBLE_LENGTH + rules.TAIL_LENGTH:
            raise Refused("tail", "the file ends before a tail", "incomplete")
        data = file.at(size - rules.TAIL_LENGTH, rules.TAIL_LENGTH)
        if data[:8] != rules.TAIL_MAGIC:
            raise Refused("tail", "incomplete: no tail", "incomplete")
        with at("tail"):
            self.index_offset, self.manifest_length, zero, total = struct.unpack(">QIIQ", data[8:32])
            require(rules.sha256(data[:32]) == data[32:], "tail: checksum")
            require(zero == 0, "tail: bytes that must be zero")
            if total > size:
                raise Refused("tail", "incomplete: the tail tells of more bytes", "incomplete")
            require(total == size, "tail: total length")
            require(1 <= self.manifest_length <= rules.MANIFEST_MAX, "tail: manifest length")
            require(self.index_offset >= preamble.head_length, "tail: index before the frames")
            frame = preamble.segment_size + rules.FRAME_OVERHEAD
            space = self.index_offset - preamble.head_length
            self.segments = -(-space // frame)
            require(1 <= self.segments <= rules.SEGMENTS_MAX, "tail: number of segments")
            last = space - (self.segments - 1) * frame
            require(last > 20 or (last == 20 and self.segments == 1), "tail: last segment")
            self.groups = -(-self.segments // rules.GROUP)
            self.manifest_offset = self.index_offset + 32 * self.groups + 4
            require(self.manifest_offset + self.manifest_length + rules.TAIL_LENGTH == total, "tail: lengths")
        self.plaintext_length = (self.segments - 1) * preamble.segment_size + last - 20
        self.frame, self.last = frame, last
        self.frames_offset = preamble.head_length

    def frame_at(self, i):
        return self.frames_offset + i * self.frame, self.last if i == self.segments - 1 else self.frame


# --- envelope (section 11) -----------------------------------------------------------


def oid_of(algorithm):
    return algorithm.children[0].raw if algorithm.children else b""


KNOWN = {
    0x30: {rules.OAEP_SHA256: "oaep-sha256", rules.OAEP_SHA1: "oaep-sha1"},
    0xA1: {rules.ECDH_P256: "ecdh-p256", rules.ECDH_P384: "ecdh-p384"},
    0xA2: {rules.AES_WRAP: "aes", rules.YUBIHSM_CCM: "yubihsm-ccm"},
}
NEVER = {
    bytes.fromhex("06092a864886f70d010101"),  # rsaEncryption: PKCS#1 v1.5
    bytes.fromhex("06092b81051086483f0002"),  # dhSinglePass-stdDH-sha1kdf
    bytes.fromhex("06092b81051086483f0003"),  # dhSinglePass-cofactorDH-sha1kdf
    bytes.fromhex("06092b81051086483f0010"),  # mqvSinglePass-sha1kdf
}


TOKEN_ONLY = {"aes-gcm-token": (48, 48), "yubihsm-ccm": (45, 128)}  # schemes of secret keys that no software opens, and encryptedKey's length
ALL_KNOWN = {encoding for table in KNOWN.values() for encoding in table}
ID_AES256_WRAP = der.parse(rules.AES_WRAP).children[0].raw
ID_OAEP = der.parse(rules.OAEP_SHA1).children[0].raw
ECDH = {der.parse(encoding).children[0].raw for encoding in (rules.ECDH_P256, rules.ECDH_P384)}
ID_SHA1, ID_SHA256 = bytes.fromhex("06052b0e03021a"), der.parse(rules.SHA256).children[0].raw


def is_reencoded(identifier, parameters):
    """Whether it is an algorithm of the table after all, written in another way (section 11)."""
    inside = parameters[0].children if parameters else None
    if identifier == ID_OAEP:
        if not inside or inside[0].tag != 0xA0:
            return True  # without a hash it is the default, SHA-1
        hash_name = oid_of(inside[0].children[0]) if inside[0].children else b""
        return hash_name in (ID_SHA1, ID_SHA256, b"")
    if identifier in ECDH:
        return not inside or inside[0].raw == ID_AES256_WRAP
    return identifier in (ID_AES256_WRAP, rules.ARC + b"\x08")


def is_aes_gcm(encoding):
    return len(encoding) == 32 and encoding == rules.aes_gcm(encoding[17:29])


class Recipient:
    """scheme None: of a kind that this reader does not know; then id may be None too."""

    def __init__(self, element):
        self.scheme = self.id = self.point = self.wrapped = None
        if element.tag == 0x30:
            self._key_transport(Fields(element, "KeyTransRecipientInfo"))
        elif element.tag == 0xA1:
            self._key_agreement(Fields(element, "KeyAgreeRecipientInfo"))
        elif element.tag == 0xA2:
            self._secret_key(Fields(element, "KEKRecipientInfo"))
        elif element.tag == 0xA4:
            fields = Fields(element, "OtherRecipientInfo")
            fields.take(der.OID, "oriType")
            require(len(fields.left) == 1, "OtherRecipientInfo: one value")
        else:
            raise DerError(f"recipient with tag {element.tag:02x}")

    def _scheme(self, algorithm, tag):
        parts = Fields(algorithm, "key encryption algorithm")
        identifier = parts.take(der.OID, "identifier").raw
        require(len(parts.left) <= 1, "key encryption algorithm: more than parameters")
        require(identifier not in NEVER, "an algorithm that is never accepted")
        self.scheme = KNOWN[tag].get(algorithm.raw)
        if tag == 0xA2 and is_aes_gcm(algorithm.raw):
            self.scheme = "aes-gcm-token"
        if self.scheme is None:
            require(algorithm.raw not in ALL_KNOWN and not is_aes_gcm(algorithm.raw),
                    "an algorithm of another kind of recipient")
            require(not is_reencoded(identifier, parts.left), "another encoding of a known algorithm")

    def _wrapped(self, element, low, high=None):
        self.wrapped = octets(element, low, high) if self.scheme else octets(element, 1, rules.SLOT_MAX)

    def _key_transport(self, fields):
        require(number(fields.take(der.INTEGER, "version")) == 2, "KeyTransRecipientInfo: version")
        self.id = octets(fields.take(0x80, "subjectKeyIdentifier"), rules.SKI_LENGTH)
        self._scheme(fields.take(der.SEQUENCE, "algorithm"), 0x30)
        self._wrapped(fields.take(der.OCTET_STRING, "encryptedKey"), 256, 512)
        fields.close()

    def _key_agreement(self, fields):
        require(number(fields.take(der.INTEGER, "version")) == 3, "KeyAgreeRecipientInfo: version")
        originator = Fields(fields.take(0xA0, "originator"), "originator")
        key = Fields(originator.take(0xA1, "originatorKey"), "originatorKey")
        originator.close()
        algorithm = key.take(der.SEQUENCE, "algorithm")
        self.point = key.take(der.BIT_STRING, "publicKey").body
        key.close()
        self._scheme(fields.take(der.SEQUENCE, "algorithm"), 0xA1)
        agreed = Fields(fields.take(der.SEQUENCE, "recipientEncryptedKeys"), "recipientEncryptedKeys")
        fields.close()
        one = Fields(agreed.take(der.SEQUENCE, "recipientEncryptedKey"), "recipientEncryptedKey")
        agreed.close()
        rid = Fields(one.take(0xA0, "rid"), "rid")
        self.id = octets(rid.take(der.OCTET_STRING, "subjectKeyIdentifier"), rules.SKI_LENGTH)
        rid.close()
        self._wrapped(one.take(der.OCTET_STRING, "encryptedKey"), 40)
        one.close()
        if self.scheme is None:
            return
        require(algorithm.raw == der.seq(rules.ID_EC_PUBLIC_KEY), "originator: algorithm")
        size = 65 if self.scheme == "ecdh-p256" else 97
        require(len(self.point) == 1 + size and self.point[:2] == b"\x00\x04", "originator: not an uncompressed point")
        self.point = self.point[1:]
        curve = list(keys.CURVE_OIDS.values())[0 if self.scheme == "ecdh-p256" else 1]
        keys.load_point(self.point, curve)

    def _secret_key(self, fields):
        require(number(fields.take(der.INTEGER, "version")) == 4, "KEKRecipientInfo: version")
        name = Fields(fields.take(der.SEQUENCE, "kekid"), "kekid")
        self.id = octets(name.take(der.OCTET_STRING, "keyIdentifier"), rules.KEY_ID_MIN, rules.KEY_ID_MAX)
        name.close()
        self._scheme(fields.take(der.SEQUENCE, "algorithm"), 0xA2)
        self._wrapped(fields.take(der.OCTET_STRING, "encryptedKey"), *TOKEN_ONLY.get(self.scheme, (40,)))
        fields.close()


class Envelope:
    def __init__(self, data):
        outer = Fields(der.parse(data), "envelope")
        require(outer.take(der.OID, "contentType").raw == rules.ID_AUTH_ENVELOPED_DATA, "envelope: content type")
        explicit = Fields(outer.take(0xA0, "content"), "envelope")
        outer.close()
        fields = Fields(explicit.take(der.SEQUENCE, "AuthEnvelopedData"), "AuthEnvelopedData")
        explicit.close()
        require(number(fields.take(der.INTEGER, "version")) == 0, "AuthEnvelopedData: version")
        recipients = fields.take(der.SET, "recipientInfos")
        content = fields.take(der.SEQUENCE, "authEncryptedContentInfo")
        mac = fields.take(der.OCTET_STRING, "mac")
        fields.close()
        self.mac = octets(mac, 16)
        self.digest = rules.sha256(content.raw, mac.raw)
        self.hash = rules.sha256(data)
        require(1 <= len(recipients.children) <= rules.RECIPIENTS_MAX, "number of recipients")
        self.recipients = [Recipient(child) for child in recipients.children]
        named = [r.id for r in self.recipients if r.id is not None]
        require(len(set(named)) == len(named), "two recipients with one key id")
        self._content(Fields(content, "authEncryptedContentInfo"))

    def _content(self, fields):
        require(fields.take(der.OID, "contentType").raw == rules.ID_DATA, "content type is not id-data")
        algorithm = Fields(fields.take(der.SEQUENCE, "algorithm"), "content encryption")
        require(algorithm.take(der.OID, "identifier").raw == rules.ID_AES256_GCM, "content encryption: not AES-256-GCM")
        parameters = Fields(algorithm.take(der.SEQUENCE, "parameters"), "content encryption")
        algorithm.close()
        self.nonce = octets(parameters.take(der.OCTET_STRING, "nonce"), 12)
        require(number(parameters.take(der.INTEGER, "icvLen")) == 16, "icvLen")
        parameters.close()
        self.encrypted = octets(fields.take(0x80, "encryptedContent"), 1, rules.PACKAGE_MAX)
        fields.close()


# --- key package (section 12) ----------------------------------------------------------


class Package:
    def __init__(self, data):
        self.der = data
        fields = Fields(der.parse(data), "key package")
        version_1(fields)
        self.archive_id = octets(fields.take(der.OCTET_STRING, "archiveId"), 16)
        suite_1(fields)
        self.file_key = octets(fields.take(der.OCTET_STRING, "fileKey"), 32)
        self.signers = key_ids(fields.take(der.SEQUENCE, "signers"), 1, rules.SIGNERS_MAX, (rules.SKI_LENGTH,))
        require(self.signers == sorted(self.signers), "key package: signers are not in order")
        metadata = fields.maybe(0xA0)
        fields.close()
        self.metadata = self._metadata(metadata) if metadata else []

    @staticmethod
    def _metadata(element):
        require(len(element.raw) <= rules.METADATA_MAX, "metadata is too long")
        require(element.children, "metadata is empty")
        found = []
        for item in element.children:
            require(item.tag == der.SEQUENCE, "metadata: not a SEQUENCE")
            fields = Fields(item, "metadata")
            key = text(fields.take(der.UTF8, "key"))
            found.append((key, text(fields.take(der.UTF8, "value"), 0, rules.METADATA_MAX)))
            fields.close()
        return found


# --- signatures (section 13) --------------------------------------------------------------


class Signed:
    """A SignedData of the closed profile, all of its signatures verified."""

    def __init__(self, data, content_type):
        outer = Fields(der.parse(data), "SignedData")
        require(outer.take(der.OID, "contentType").raw == rules.ID_SIGNED_DATA, "not a SignedData")
        explicit = Fields(outer.take(0xA0, "content"), "SignedData")
        outer.close()
        fields = Fields(explicit.take(der.SEQUENCE, "SignedData"), "SignedData")
        explicit.close()
        require(number(fields.take(der.INTEGER, "version")) == 3, "SignedData: version")
        algorithms = fields.take(der.SET, "digestAlgorithms").children
        require([a.raw for a in algorithms] == [rules.SHA256], "digestAlgorithms: not SHA-256 alone")
        content = Fields(fields.take(der.SEQUENCE, "encapContentInfo"), "encapContentInfo")
        self.content_type = content.take(der.OID, "eContentType").raw
        require(self.content_type == content_type, "eContentType is not that of this place")
        explicit = Fields(content.take(0xA0, "eContent"), "eContent")
        content.close()
        self.content = explicit.take(der.OCTET_STRING, "eContent").body
        explicit.close()
        certificates = fields.take(0xA0, "certificates")
        infos = fields.take(der.SET, "signerInfos").children
        fields.close()
        der.require_set_order(certificates.children)
        self.certificates = [keys.Certificate(child.raw) for child in certificates.children]
        require(1 <= len(infos) <= rules.SIGNERS_MAX, "number of signers")
        require(len(self.certificates) == len(infos), "not exactly one certificate for each signer")
        named = [self._signer(info) for info in infos]
        require(len({id(c) for c in named}) == len(named), "a certificate that no signer names")
        require(len({c.spki for c in named}) == len(named), "a key signs twice")
        self.signers = named

    def _signer(self, info):
        require(info.tag == der.SEQUENCE, "SignerInfo")
        fields = Fields(info, "SignerInfo")
        require(number(fields.take(der.INTEGER, "version")) == 3, "SignerInfo: version")
        sid = fields.take(0x80, "sid").body
        require(fields.take(der.SEQUENCE, "digestAlgorithm").raw == rules.SHA256, "SignerInfo: digest algorithm")
        attributes = fields.take(0xA0, "signedAttrs")
        algorithm = fields.take(der.SEQUENCE, "signatureAlgorithm").raw
        signature = fields.take(der.OCTET_STRING, "signature").body
        fields.close()
        cert_hash = self._attributes(attributes)
        found = [c for c in self.certificates if rules.sha256(c.der) == cert_hash]
        require(len(found) == 1, "no certificate is the one that the signer names")
        require(found[0].ski == sid, "sid is not the certificate's subjectKeyIdentifier")
        try:
            keys.verify(found[0].public, algorithm, signature, b"\x31" + attributes.raw[1:])
        except InvalidSignature as error:
            raise DerError("the signature does not hold") from error
        return found[0]

    def _attributes(self, element):
        der.require_set_order(element.children)
        values = {}
        for child in element.children:
            require(child.tag == der.SEQUENCE, "attribute")
            fields = Fields(child, "attribute")
            name = fields.take(der.OID, "attrType").raw
            value = fields.take(der.SET, "attrValues").children
            fields.close()
            require(name not in values, "an attribute twice")
            require(len(value) == 1, "an attribute with more or less than one value")
            values[name] = value[0]
        wanted = {rules.ID_CONTENT_TYPE, rules.ID_MESSAGE_DIGEST, rules.ID_SIGNING_TIME,
            rules.ID_SIGNING_CERTIFICATE_V2}
        require(set(values) == wanted, "not exactly the four signed attributes")
        require(values[rules.ID_CONTENT_TYPE].raw == self.content_type, "attribute content-type")
        digest = rules.sha256(self.content)
        require(values[rules.ID_MESSAGE_DIGEST].raw == der.octets(digest), "attribute message-digest")
        self._signing_time(values[rules.ID_SIGNING_TIME])
        return self._certificate_hash(values[rules.ID_SIGNING_CERTIFICATE_V2])

    @staticmethod
    def _signing_time(value):
        if value.tag == der.UTC_TIME:
            require(len(value.body) == 13, "signing-time")
            moment(value.body, "20" if value.body[:2] < b"50" else "19")
        else:
            require(value.tag == der.GENERALIZED_TIME, "signing-time: no time")
            require(moment(value.body).year >= 2050, "signing-time before 2050 as GeneralizedTime")

    @staticmethod
    def _certificate_hash(value):
        require(value.tag == der.SEQUENCE, "signing-certificate-v2")
        outer = Fields(value, "signing-certificate-v2")
        certs = Fields(outer.take(der.SEQUENCE, "certs"), "signing-certificate-v2")
        outer.close()
        one = Fields(certs.take(der.SEQUENCE, "ESSCertIDv2"), "ESSCertIDv2")
        certs.close()
        cert_hash = octets(one.take(der.OCTET_STRING, "certHash"), 32)
        issuer_serial = one.maybe(der.SEQUENCE)
        one.close()
        if issuer_serial:
            fields = Fields(issuer_serial, "issuerSerial")
            fields.take(der.SEQUENCE, "issuer")
            fields.take(der.INTEGER, "serialNumber")
            fields.close()
        return cert_hash


# --- manifest (section 14) ------------------------------------------------------------------


def parse_sequence(value):
    words = {}
    for word in value.split(" "):
        name, equals, rest = word.partition("=")
        require(equals and rest, "sequence: not key=value")
        require(name and all("a" <= c <= "z" for c in name), "sequence: key")
        require(all("!" <= c <= "~" for c in rest), "sequence: not printable ASCII")
        require(name not in words, "sequence: a key twice")
        words[name] = rest
    return words


class Manifest:
    def __init__(self, data):
        self.digest = rules.sha256(data)
        fields = Fields(der.parse(data), "manifest")
        version_1(fields)
        self.archive_id = uuid7(fields.take(der.OCTET_STRING, "archiveId"))
        self.preamble_digest = octets(fields.take(der.OCTET_STRING, "preambleDigest"), 32)
        self.envelope_digest = octets(fields.take(der.OCTET_STRING, "envelopeDigest"), 32)
        self.record_digest = octets(fields.take(der.OCTET_STRING, "recordDigest"), 32)
        suite_1(fields)
        self.segments = number(fields.take(der.INTEGER, "segmentCount"))
        require(1 <= self.segments <= rules.SEGMENTS_MAX, "segmentCount")
        self.plaintext_length = number(fields.take(der.INTEGER, "plaintextLength"))
        self.payload_digest = octets(fields.take(der.OCTET_STRING, "payloadDigest"), 32)
        created = moment(fields.take(der.GENERALIZED_TIME, "createdAt").body)
        self.kind = number(fields.take(der.ENUMERATED, "kind"))
        require(self.kind <= 4, "kind")
        self._other_archive(fields.maybe(0xA0), "parent")
        sequence = fields.maybe(0x81)
        words = parse_sequence(text(sequence)) if sequence else {}
        require(self.kind != 2 or {"system", "timeline", "segment"} <= set(words), "wal without its sequence")
        retain = fields.maybe(0x82)
        require(retain is None or moment(retain.body) >= created, "retainUntil before createdAt")
        label = fields.maybe(0x83)
        self.label = text(label) if label else None
        policy = fields.maybe(0x84)
        if policy:
            octets(policy, 32)
        producer = fields.maybe(0x85)
        if producer:
            text(producer)
        self._other_archive(fields.maybe(0xA6), "supersedes")
        fields.close()

    def _other_archive(self, element, name):
        if element is None:
            return
        fields = Fields(element, name)
        other = uuid7(fields.take(der.OCTET_STRING, "archiveId"))
        octets(fields.take(der.OCTET_STRING, "manifestDigest"), 32)
        fields.close()
        require(other != self.archive_id, f"{name} is the archive itself")


# --- key record (section 15) ------------------------------------------------------------------


def check_hint(uri):
    require(uri.startswith("pkcs11:") and all("!" <= c <= "~" for c in uri), "hint: no PKCS#11 URI")
    names = {part.partition("=")[0].lower() for part in re.split("[;?&]", uri[7:])}
    require(not names & {"pin-value", "pin-source", "module-path", "module-name"}, "hint: a PIN or a module")


class Record:
    def __init__(self, data):
        self.digest = rules.sha256(data)
        fields = Fields(der.parse(data), "record")
        version_1(fields)
        self.archive_id = octets(fields.take(der.OCTET_STRING, "archiveId"), 16)
        self.generation = number(fields.take(der.INTEGER, "generation"))
        require(self.generation >= 1, "generation")
        previous, manifest, history = fields.maybe(0x80), fields.maybe(0x81), fields.maybe(0xA2)
        present = {bool(previous), bool(manifest), bool(history)}
        require(present == {self.generation > 1}, "previous, manifestDigest and history do not fit the generation")
        self.history = []
        if history:
            self.previous, self.manifest_digest = octets(previous, 32), octets(manifest, 32)
            self._history(history)
        require(self.generation == len(self.history) + 1, "generation is not that of the history")
        self.envelope_hash = octets(fields.take(der.OCTET_STRING, "envelopeHash"), 32)
        moment(fields.take(der.GENERALIZED_TIME, "createdAt").body)
        require(number(fields.take(der.ENUMERATED, "blindness")) <= 2, "blindness")
        self.proven = key_ids(fields.take(der.SEQUENCE, "proven"), 0, rules.RECIPIENTS_MAX)
        reason = fields.maybe(0x83)
        if reason:
            text(reason)
        order = fields.maybe(0x84)
        if order:
            octets(order, 1, 32)
        self._hints(fields.take(der.SEQUENCE, "hints"))
        fields.close()

    def _history(self, element):
        require(len(element.children) <= rules.HISTORY_MAX, "history is too long")
        for child in element.children:
            require(child.tag == der.SEQUENCE, "history: not a SEQUENCE")
            fields = Fields(child, "history")
            digest = octets(fields.take(der.OCTET_STRING, "recordDigest"), 32)
            named = key_ids(fields.take(der.SEQUENCE, "keyIds"), 1)
            fields.close()
            self.history.append((digest, named))

    def _hints(self, element):
        self.hints = []
        for child in element.children:
            require(child.tag == der.SEQUENCE, "hints: not a SEQUENCE")
            fields = Fields(child, "hint")
            self.hints.append(octets(fields.take(der.OCTET_STRING, "keyId"), rules.KEY_ID_MIN, rules.KEY_ID_MAX))
            check_hint(text(fields.take(der.UTF8, "uri")))
            fields.close()
        require(len(set(self.hints)) == len(self.hints), "a hint for one key twice")

    def check(self, preamble, slot, envelope, manifest):
        require(self.archive_id == preamble.archive_id, "record of another archive")
        require(self.generation == slot.generation, "record and slot are not of one generation")
        require(self.envelope_hash == envelope.hash, "envelopeHash is not that of the envelope")
        if self.generation == 1:
            require(self.digest == manifest.record_digest, "the first record is not the one that was signed")
        else:
            require(self.history[0][0] == manifest.record_digest, "history does not begin at the manifest's record")
            require(self.history[-1][0] == self.previous, "history does not end at previous")
            require(self.manifest_digest == manifest.digest, "manifestDigest is not this archive's")
        recipients = {r.id for r in envelope.recipients}
        require(set(self.proven) <= recipients, "proven names somebody who is no recipient")
        require(set(self.hints) <= recipients, "hints name somebody who is no recipient")


# --- the archive (section 17) --------------------------------------------------------------------


class File:
    def __init__(self, path):
        self.file = open(path, "rb")
        self.size = os.fstat(self.file.fileno()).st_size

    def at(self, offset, size):
        self.file.seek(offset)
        return self.file.read(size)


class Trust:
    """Fingerprints of public keys, each in a role."""

    def __init__(self):
        self.pins = set()

    def add(self, spec, folder="."):
        """[ROLE:]FILE or [ROLE:]sha256:HEX"""
        role = "backup"
        for name in ("backup", "rotate", "officer", "custodian", "verify"):
            if spec.startswith(name + ":"):
                role, spec = name, spec[len(name) + 1 :]
                break
        if spec.startswith("sha256:"):
            self.pins.add((role, bytes.fromhex(spec[7:])))
        else:
            for spki, _ in keys.load_pem(os.path.join(folder, spec)):
                self.pins.add((role, keys.fingerprint(spki)))
        return self

    def check(self, signed, roles):
        if not self.pins:
            raise Refused("trust", "whom to trust was not said", "no-trust")
        for signer in signed.signers:
            if not any((role, keys.fingerprint(signer.spki)) in self.pins for role in roles):
                raise Refused("trust", f"sha256:{keys.fingerprint(signer.spki).hex()} is not trusted here", "untrusted")


class Archive:
    """Steps 1 to 7 of section 17: everything that needs neither a decryption key nor the payload."""

    def __init__(self, path, trust, sidecar=None):
        self.file = file = File(path)
        self.preamble = Preamble(file.at(0, rules.PREAMBLE_LENGTH))
        self.layout = Layout(file, self.preamble)
        self._manifest(trust)
        self.slots = Slots(file, self.preamble.slot_size, sidecar or path + ".keys")
        self.slot = self.slots.taken
        self._keys(trust)
        self._index()

    def _manifest(self, trust):
        der_bytes = self.file.at(self.layout.manifest_offset, self.layout.manifest_length)
        with at("manifest"):
            stored = struct.unpack(">I", self.file.at(self.layout.manifest_offset - 4, 4))[0]
            require(stored == self.layout.manifest_length, "manifest: its length is not the tail's")
            self.signed = Signed(der_bytes, rules.MANIFEST)
            self.manifest = manifest = Manifest(self.signed.content)
        trust.check(self.signed, MANIFEST_ROLES)
        with at("manifest"):
            require(manifest.archive_id == self.preamble.archive_id, "manifest of another archive")
            require(manifest.preamble_digest == rules.sha256(self.preamble.raw), "preambleDigest")
            require(manifest.segments == self.layout.segments, "segmentCount")
            require(manifest.plaintext_length == self.layout.plaintext_length, "plaintextLength")

    def _keys(self, trust):
        with at("envelope"):
            self.envelope = Envelope(self.slot.envelope)
            require(self.envelope.digest == self.manifest.envelope_digest,
                "envelopeDigest is not the one that was signed")
        with at("record"):
            if self.slot.generation == 1:
                signed = None
                self.record = Record(self.slot.record)
            else:
                signed = Signed(self.slot.record, rules.KEY_RECORD)
                self.record = Record(signed.content)
            self.record.check(self.preamble, self.slot, self.envelope, self.manifest)
        if signed:
            trust.check(signed, RECORD_ROLES)

    def _index(self):
        data = self.file.at(self.layout.index_offset, 32 * self.layout.groups)
        self.index = [data[i : i + 32] for i in range(0, len(data), 32)]
        if rules.tree_root(self.index) != self.manifest.payload_digest:
            raise Refused("index", "it does not add up to the payloadDigest")

    def open(self, keyring):
        """Step 8."""
        key, recipient = self._match(keyring)
        try:
            cek = key.unwrap(recipient)
        except (ValueError, keywrap.InvalidUnwrap) as error:
            raise Refused("key", "the wrapped key does not open") from error
        if len(cek) != 32:
            raise Refused("key", f"a data key of {len(cek)} bytes")
        try:
            plain = AESGCM(cek).decrypt(self.envelope.nonce, self.envelope.encrypted + self.envelope.mac, None)
        except InvalidTag as error:
            raise Refused("package", "the data key does not open the key package") from error
        with at("package"):
            self.package = Package(plain)
            require(self.package.archive_id == self.preamble.archive_id, "key package of another archive")
        if self.package.signers != sorted(signer.key_id for signer in self.signed.signers):
            raise Refused("signers", "the manifest is not signed by those whom the key package names")
        commit = rules.key_commit(self.package.file_key, self.preamble.raw)
        if not hmac.compare_digest(commit, self.preamble.key_commit):
            raise Refused("commitment", "keyCommit is not that of the file key")

    def _match(self, keyring):
        for key in keyring:
            for recipient in self.envelope.recipients:
                if recipient.scheme and recipient.scheme not in TOKEN_ONLY and recipient.id == key.id:
                    return key, recipient
        raise Refused("key", "no key of a recipient is at hand", "no-key")

    def groups(self, decrypt):
        """Step 9: plaintext, a group at a time, each checked before it is given out; b"" if there is no key."""
        for group, root in enumerate(self.index):
            first = group * rules.GROUP
            frames = []
            for i in range(first, min(first + rules.GROUP, self.layout.segments)):
                frame = self.file.at(*self.layout.frame_at(i))
                self._word(i, frame)
                frames.append(frame)
            if rules.tree_root([rules.sha256(frame) for frame in frames]) != root:
                raise Refused("frames", f"group {group} is damaged")
            yield b"".join(self._decrypt(first + i, frame) for i, frame in enumerate(frames)) if decrypt else b""

    def _word(self, i, frame):
        last = i == self.layout.segments - 1
        if struct.unpack(">I", frame[:4])[0] != (last << 31 | len(frame) - rules.FRAME_OVERHEAD):
            raise Refused("frames", f"segment {i}: word")

    def _decrypt(self, i, frame):
        epoch = rules.epoch_of(i, self.preamble.segment_size)
        key = rules.payload_key(self.package.file_key, self.preamble.raw, self.envelope.digest, epoch)
        try:
            return AESGCM(key).decrypt(rules.nonce_of(i), frame[4:], frame[:4])
        except InvalidTag as error:
            raise Refused("frames", f"segment {i}: tag") from error

    def check_slots(self):
        """A damaged slot is reported although the other one opens the archive (section 4)."""
        if self.slots.damage:
            raise Refused("slots", "; ".join(self.slots.damage))
