#!/usr/bin/python3
"""
Edits bk archives as an attacker would: with every checksum right, and with signatures of keys that it has as PEM files.
Written from docs/FORMAT.md, for the tests beside it. Archives are small: they are held in memory.

    archive_edit.py COMMAND ARG...        each command's function below says what it takes
"""
import argparse
import base64
import hashlib
import hmac
import random
import sys
from datetime import datetime, timezone

from cryptography import x509
from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF

OWN = bytes.fromhex("06156983dfbbb4fdda93aaa1ebaad0c199dbacd9b24f")
MANIFEST, RECORD = OWN + b"\x01", OWN + b"\x02"
SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")
CONTENT_TYPE = bytes.fromhex("06092a864886f70d010903")
MESSAGE_DIGEST = bytes.fromhex("06092a864886f70d010904")
SIGNING_TIME = bytes.fromhex("06092a864886f70d010905")
SIGNING_CERT = bytes.fromhex("060b2a864886f70d010910022f")
SHA256 = bytes.fromhex("300b0609608648016503040201")
ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
ECDSA_SHA1 = bytes.fromhex("300906072a8648ce3d0401")
RSA_PSS = bytes.fromhex("304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108"
                        "300d06096086480165030402010500a203020120")
RSA_V15_SHA256 = bytes.fromhex("300d06092a864886f70d01010b0500")
AES_WRAP = bytes.fromhex("300b060960864801650304012d")
SHARED_INFO = bytes.fromhex("3015") + AES_WRAP + bytes.fromhex("a206040400000100")


def sha256(data):
    return hashlib.sha256(data).digest()


def tlv(tag, *parts):
    body = b"".join(parts)
    if len(body) < 128:
        return bytes([tag, len(body)]) + body
    size = (len(body).bit_length() + 7) // 8
    return bytes([tag, 128 | size]) + len(body).to_bytes(size, "big") + body


def integer(n, tag=2):
    return tlv(tag, n.to_bytes(n.bit_length() // 8 + 1, "big"))


def set_of(*items):
    return b"".join(sorted(items))


def elements(data):
    """[(tag, raw, content)] of the DER elements that fill data."""
    out, pos = [], 0
    while pos < len(data):
        start, length, at = pos, data[pos + 1], pos + 2
        if length >= 128:
            at = pos + 2 + (length & 127)
            length = int.from_bytes(data[pos + 2:at], "big")
        pos = at + length
        out.append((data[start], data[start:pos], data[at:pos]))
    return out


def content(data):
    return elements(data)[0][2]


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)


class Archive:
    """The parts of an archive, each a bytearray; bytes() puts them together again with the tail that they need."""

    def __init__(self, path):
        data = read(path)
        self.preamble = bytearray(data[:4096])
        self.slot_size, self.segment_size = (int.from_bytes(data[i:i + 4], "big") for i in (12, 16))
        self.head = 4096 + 2 * self.slot_size
        tail = data[-64:]
        self.index_at = int.from_bytes(tail[8:16], "big")
        manifest_len = int.from_bytes(tail[16:20], "big")
        self.manifest_at = len(data) - 64 - manifest_len - 4
        self.slots = [bytearray(data[4096 + i * self.slot_size:4096 + (i + 1) * self.slot_size]) for i in (0, 1)]
        frame = self.segment_size + 20
        self.frames = [bytearray(data[i:min(i + frame, self.index_at)]) for i in range(self.head, self.index_at, frame)]
        self.index = bytearray(data[self.index_at:self.manifest_at])
        self.manifest = bytearray(data[self.manifest_at + 4:-64])
        self.size = len(data)

    @property
    def archive_id(self):
        return bytes(self.preamble[20:36])

    def generation(self, which=0):
        return int.from_bytes(self.slots[which][8:16], "big")

    def envelope(self, which=0):
        s = self.slots[which]
        return bytes(s[64:64 + int.from_bytes(s[16:20], "big")])

    def record(self, which=0):
        s = self.slots[which]
        start = 64 + int.from_bytes(s[16:20], "big")
        return bytes(s[start:start + int.from_bytes(s[20:24], "big")])

    def put_slot(self, which, generation, envelope, record):
        head = b"BKSLOT\x00\x01" + generation.to_bytes(8, "big") + len(envelope).to_bytes(4, "big") + \
            len(record).to_bytes(4, "big") + bytes(8)
        data = head + sha256(head + envelope + record) + envelope + record
        assert len(data) <= self.slot_size
        self.slots[which] = bytearray(data.ljust(self.slot_size, b"\0"))

    def put_slots(self, generation, envelope, record):
        for which in (0, 1):
            self.put_slot(which, generation, envelope, record)

    def seal_preamble(self):
        self.preamble[4064:] = sha256(self.preamble[:4064])

    def bytes(self):
        body = b"".join(self.slots) + b"".join(self.frames)
        at = 4096 + len(body)
        end = bytes(self.index) + len(self.manifest).to_bytes(4, "big") + bytes(self.manifest)
        tail = b"BKTAIL\r\n" + at.to_bytes(8, "big") + len(self.manifest).to_bytes(4, "big") + bytes(4) + \
            (at + len(end) + 64).to_bytes(8, "big")
        return bytes(self.preamble) + body + end + tail + sha256(tail)

    def write(self, path):
        write(path, self.bytes())


def inner_manifest(archive):
    """The DER of the BkManifest in its SignedData."""
    return inner_of(bytes(archive.manifest))


def inner_of(signed):
    encapsulated = elements(content(elements(content(signed))[1][2]))[2][2]
    return content(elements(encapsulated)[1][2])


def inner_record(archive):
    return archive.record() if archive.generation() == 1 else inner_of(archive.record())


# --- signatures (section 13) --------------------------------------------------------------------------------------

class Signer:
    def __init__(self, key_path, cert_path):
        self.key = serialization.load_pem_private_key(read(key_path), None)
        cert = x509.load_pem_x509_certificate(read(cert_path))
        self.cert = cert.public_bytes(serialization.Encoding.DER)
        self.ski = cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest

    def signature(self, data, how):
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            sha1 = how == "sha1"
            algorithm = hashes.SHA1() if sha1 else hashes.SHA256()
            return ECDSA_SHA1 if sha1 else ECDSA_SHA256, self.key.sign(data, ec.ECDSA(algorithm))
        if how == "v15":
            return RSA_V15_SHA256, self.key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
        return RSA_PSS, self.key.sign(data, pss, hashes.SHA256())


def signed_attributes(signer, data, kind, how):
    now = datetime.now(timezone.utc).strftime("%y%m%d%H%M%SZ").encode()
    ess = tlv(0x30, tlv(0x30, tlv(0x30, tlv(4, sha256(signer.cert)))))
    pairs = [(CONTENT_TYPE, kind), (MESSAGE_DIGEST, tlv(4, sha256(data))), (SIGNING_TIME, tlv(0x17, now)),
             (SIGNING_CERT, ess)]
    if how == "no-signing-cert":
        pairs.pop()
    elif how == "wrong-digest":
        pairs[1] = (MESSAGE_DIGEST, tlv(4, sha256(data + b"\0")))
    elif how == "wrong-content-type":
        pairs[0] = (CONTENT_TYPE, MANIFEST if kind == RECORD else RECORD)
    return set_of(*(tlv(0x30, oid, tlv(0x31, value)) for oid, value in pairs))


def signer_info(signer, data, kind, how):
    attributes = signed_attributes(signer, data, kind, how)
    algorithm, signature = signer.signature(tlv(0x31, attributes), how)
    if how == "bad-signature":
        signature = signer.signature(b"another text", how)[1]
    unsigned = tlv(0xA1, tlv(0x30, SIGNING_TIME, tlv(0x31, tlv(0x17, b"260101000000Z")))) if how == "unsigned" else b""
    return tlv(0x30, integer(3), tlv(0x80, signer.ski), SHA256, tlv(0xA0, attributes), algorithm, tlv(4, signature),
               unsigned)


def signed_data(signers, data, kind, how="", stray=()):
    """SignedData by all of the signers; stray: certificates that nobody's signature names."""
    infos = [signer_info(s, data, kind, how) for s in signers]
    certs = [s.cert for s in signers] + [s.cert for s in stray]
    if how == "twice":
        infos.append(signer_info(signers[0], data, kind, ""))
    body = tlv(0x30, integer(3), tlv(0x31, SHA256), tlv(0x30, kind, tlv(0xA0, tlv(4, data))),
               tlv(0xA0, set_of(*certs)), tlv(0x31, set_of(*infos)))
    return tlv(0x30, SIGNED_DATA, tlv(0xA0, body))


# --- envelope and record (sections 11 and 15) ---------------------------------------------------------------------

def envelope_parts(envelope):
    """[version, recipientInfos, authEncryptedContentInfo, mac], raw."""
    return [raw for _, raw, _ in elements(content(elements(content(envelope))[1][2]))]


def with_recipients(envelope, recipients):
    version, _, info, mac = envelope_parts(envelope)
    oid = elements(content(envelope))[0][1]
    return tlv(0x30, oid, tlv(0xA0, tlv(0x30, version, tlv(0x31, set_of(*recipients)), info, mac)))


def recipients_of(envelope):
    return [raw for _, raw, _ in elements(content(envelope_parts(envelope)[1]))]


def key_id_of(recipient):
    tag, _, body = elements(recipient)[0]
    parts = elements(body)
    if tag == 0x30:
        return parts[1][2]
    if tag == 0xA1:
        return content(elements(content(parts[3][2]))[0][2])
    return content(parts[1][1])


def key_ids(envelope):
    return tlv(0x30, *(tlv(4, key_id_of(r)) for r in recipients_of(envelope)))


def next_record(archive, envelope, hints=(), generation=None, manifest_digest=None, previous=None, first=None,
                proven=()):
    """The record that follows the archive's own; hints are (key id, uri) pairs."""
    old = inner_record(archive)
    fields = elements(content(old))
    history = b"" if archive.generation() == 1 else [c for tag, _, c in fields if tag == 0xA2][0]
    entry = tlv(0x30, tlv(4, sha256(old)), key_ids(archive.envelope()))
    if first is not None:
        entry = tlv(0x30, tlv(4, first), key_ids(archive.envelope()))
    now = datetime.now(timezone.utc).strftime("%Y%m%d%H%M%SZ").encode()
    return tlv(0x30, integer(1), tlv(4, archive.archive_id), integer(generation or archive.generation() + 1),
               tlv(0x80, previous or sha256(old)), tlv(0x81, manifest_digest or sha256(inner_manifest(archive))),
               tlv(0xA2, history, entry), tlv(4, sha256(envelope)), tlv(0x18, now), integer(0, 0x0A),
               tlv(0x30, *(tlv(4, p) for p in proven)),
               tlv(0x30, *(tlv(0x30, tlv(4, i), tlv(0x0C, uri.encode())) for i, uri in hints)))


def software_cek(envelope, key_path):
    """The data key, by a recipient's private key in a file."""
    key = serialization.load_pem_private_key(read(key_path), None)
    for recipient in recipients_of(envelope):
        tag, _, body = elements(recipient)[0]
        parts = elements(body)
        if tag == 0x30 and isinstance(key, rsa.RSAPrivateKey):
            oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
            return key.decrypt(parts[3][2], oaep)
        if tag == 0xA1 and isinstance(key, ec.EllipticCurvePrivateKey):
            point = content(parts[1][2])
            ephemeral = ec.EllipticCurvePublicKey.from_encoded_point(key.curve, elements(point)[1][2][1:])
            wrapped = elements(content(parts[3][2]))[1][2]
            kek = X963KDF(hashes.SHA256(), 32, SHARED_INFO).derive(key.exchange(ec.ECDH(), ephemeral))
            return keywrap.aes_key_unwrap(kek, wrapped)
    raise SystemExit("no recipient of this kind of key")


# --- commands -----------------------------------------------------------------------------------------------------

def layout(path):
    """ARCHIVE : where its parts are, as shell assignments"""
    a = Archive(path)
    print(f"slot_size={a.slot_size} segment_size={a.segment_size} head={a.head} segments={len(a.frames)} "
          f"index_at={a.index_at} manifest_at={a.manifest_at} size={a.size} generation={a.generation()}")


def parts(path_a, path_b):
    """ARCHIVE ARCHIVE : names the parts in which two archives of one layout differ, or nothing"""
    a, b = Archive(path_a), Archive(path_b)
    pairs = [("preamble", a.preamble, b.preamble), ("slotA", a.slots[0], b.slots[0]), ("slotB", a.slots[1], b.slots[1]),
             ("frames", a.frames, b.frames), ("index", a.index, b.index), ("manifest", a.manifest, b.manifest),
             ("tail", read(path_a)[-64:], read(path_b)[-64:])]
    print(" ".join(name for name, x, y in pairs if x != y))


def bits(path, folder, count, seed):
    """ARCHIVE FOLDER COUNT SEED : that many copies, each with one bit turned over, named PART.OFFSET.BIT; each part of
    the archive gets its share, and so does what is used of a slot"""
    a, data = Archive(path), read(path)
    used = 64 + len(a.envelope()) + len(a.record())
    spans = [("preamble", 0, 68), ("preamble", 68, 4096), ("slotA", 4096, 4096 + used),
             ("slotA", 4096 + used, 4096 + a.slot_size), ("slotB", 4096 + a.slot_size, 4096 + a.slot_size + used),
             ("slotB", 4096 + a.slot_size + used, a.head)]
    spans += 6 * [("frames", a.head, a.index_at)] + 2 * [("index", a.index_at, a.manifest_at)]
    spans += 4 * [("manifest", a.manifest_at, a.size - 64)] + 2 * [("tail", a.size - 64, a.size)]
    rng, done = random.Random(int(seed)), set()
    while len(done) < int(count):
        name, start, end = spans[len(done) % len(spans)]
        offset, bit = rng.randrange(start, end), rng.randrange(8)
        if (offset, bit) not in done:
            done.add((offset, bit))
            copy = bytearray(data)
            copy[offset] ^= 1 << bit
            write(f"{folder}/{name}.{offset}.{bit}", copy)


def cuts(path, folder, count, seed):
    """ARCHIVE FOLDER COUNT SEED : that many copies cut short, at the parts' borders and anywhere else, named LENGTH"""
    a, data, rng = Archive(path), read(path), random.Random(int(seed))
    lengths = {0, 1, 4095, 4096, 4096 + a.slot_size, a.head, a.head + 3, a.index_at, a.manifest_at, a.size - 64,
               a.size - 1}
    while len(lengths) < int(count):
        lengths.add(rng.randrange(a.size))
    for length in lengths:
        write(f"{folder}/{length}", data[:length])


def flip(path, out, *at):
    """ARCHIVE OUT OFFSET:BIT... : turns bits over"""
    data = bytearray(read(path))
    for place in at:
        offset, bit = (int(x) for x in place.split(":"))
        data[offset] ^= 1 << bit
    write(out, data)


def swap(path, out, i, j):
    """ARCHIVE OUT I J : frames I and J change places"""
    a = Archive(path)
    i, j = int(i), int(j)
    a.frames[i], a.frames[j] = a.frames[j], a.frames[i]
    a.write(out)


def exchange(path, other, out, i, reindex="no"):
    """ARCHIVE OTHER OUT I [yes] : frame I of OTHER in its place; yes: and the index that goes with it"""
    a, b = Archive(path), Archive(other)
    a.frames[int(i)] = b.frames[int(i)]
    if reindex == "yes":
        level = [sha256(f) for f in a.frames[:32]]
        while len(level) > 1:
            level = [sha256(b"\x01" + x + y) for x, y in zip(level[::2], level[1::2])] + level[len(level) & ~1:]
        a.index[:32] = level[0]
    a.write(out)


def preamble(path, out, offset, value):
    """ARCHIVE OUT OFFSET HEX : other bytes in the preamble, with its checksum right"""
    a, data = Archive(path), bytes.fromhex(value)
    a.preamble[int(offset):int(offset) + len(data)] = data
    a.seal_preamble()
    a.write(out)


def detach(path, out):
    """ARCHIVE OUT : the flag of a detached envelope and no slots, checksums right"""
    a = Archive(path)
    a.preamble[10:16] = bytes([0, 1, 0, 0, 0, 0])
    a.seal_preamble()
    a.slots = []
    a.write(out)


def sidecar(path, out):
    """ARCHIVE OUT : its slot A as a sidecar file"""
    a = Archive(path)
    write(out, a.slots[0][:64 + len(a.envelope()) + len(a.record())])


def slots_of(path, other, out, which="ab"):
    """ARCHIVE OTHER OUT [a|b|ab] : OTHER's slots in the place of the archive's own"""
    a, b = Archive(path), Archive(other)
    for i, name in enumerate("ab"):
        if name in which:
            a.put_slot(i, b.generation(i), b.envelope(i), b.record(i))
    a.write(out)


def envelope_of(path, other, out):
    """ARCHIVE OTHER OUT : OTHER's envelope beside the archive's own record"""
    a, b = Archive(path), Archive(other)
    a.put_slots(a.generation(), b.envelope(), a.record())
    a.write(out)


def manifest_of(path, other, out):
    """ARCHIVE OTHER OUT : OTHER's manifest in the place of the archive's own"""
    a, b = Archive(path), Archive(other)
    a.manifest = b.manifest
    a.write(out)


def resign(path, out, how, *pairs):
    """ARCHIVE OUT HOW KEY CERT... : the same manifest, signed by these; HOW is plain, or what is wrong with it; with
    HOW stray the last pair only leaves its certificate"""
    a = Archive(path)
    signers = [Signer(k, c) for k, c in zip(pairs[::2], pairs[1::2])]
    stray = [signers.pop()] if how == "stray" else []
    a.manifest = bytearray(signed_data(signers, inner_manifest(a), MANIFEST, "" if how == "plain" else how, stray))
    a.write(out)


def as_record(path, out, key, cert):
    """ARCHIVE OUT KEY CERT : a manifest's SignedData where a record's belongs"""
    a = Archive(path)
    a.put_slots(a.generation() + 1, a.envelope(), signed_data([Signer(key, cert)], inner_manifest(a), MANIFEST))
    a.write(out)


def rotate(path, out, key, cert, what="plain", *args):
    """ARCHIVE OUT KEY CERT [WHAT ARG...] : one generation more, its record signed by KEY. WHAT:
    plain; hint URI; generation N; manifest-digest; previous; first; proven; hint-stranger; empty-record;
    recipient DER (another recipientInfo); envelope DER (the whole envelope); cek OTHER (OTHER's recipientInfos)"""
    a = Archive(path)
    envelope, kinds = a.envelope(), {}
    generation = a.generation() + 1
    if what == "hint":
        kinds["hints"] = [(key_id_of(recipients_of(envelope)[0]), args[0])]
    elif what == "generation":
        kinds["generation"] = int(args[0])
    elif what == "manifest-digest":
        kinds["manifest_digest"] = sha256(b"another")
    elif what == "previous":
        kinds["previous"] = sha256(b"another")
    elif what == "first":
        kinds["first"], kinds["previous"] = sha256(b"another"), sha256(b"another")
    elif what == "proven":
        kinds["proven"] = [sha256(b"stranger")[:20]]
    elif what == "hint-stranger":
        kinds["hints"] = [(sha256(b"stranger")[:20], "pkcs11:token=stranger;object=kek")]
    elif what == "recipient":
        envelope = with_recipients(envelope, recipients_of(envelope) + [read(args[0])])
    elif what == "envelope":
        envelope = read(args[0])
    elif what == "cek":
        envelope = with_recipients(envelope, recipients_of(Archive(args[0]).envelope()))
    record = next_record(a, envelope, **kinds)
    a.put_slots(generation, envelope, signed_data([Signer(key, cert)], record, RECORD))
    a.write(out)


def one_more(path, out, der):
    """ARCHIVE OUT DER : another recipientInfo in the envelope, the record as it was"""
    a = Archive(path)
    a.put_slots(a.generation(), with_recipients(a.envelope(), recipients_of(a.envelope()) + [read(der)]), a.record())
    a.write(out)


def twins(path, out, key, cert):
    """ARCHIVE OUT KEY CERT : two valid slots of one generation that differ, each with a genuine record"""
    a = Archive(path)
    hint = (key_id_of(recipients_of(a.envelope())[0]), "pkcs11:token=a;object=b")
    records = [signed_data([Signer(key, cert)], next_record(a, a.envelope(), hints), RECORD) for hints in ([], [hint])]
    generation, envelope = a.generation() + 1, a.envelope()
    for which, record in enumerate(records):
        a.put_slot(which, generation, envelope, record)
    a.write(out)


def recipient(path, out):
    """CMS OUT : the first recipientInfo of an (Auth)EnvelopedData"""
    for tag, _, body in elements(content(elements(content(read(path)))[1][2])):
        if tag == 0x31:
            write(out, elements(body)[0][1])
            return
    raise SystemExit("no recipientInfos")


def extract_envelope(path, out):
    """ARCHIVE OUT : the envelope's DER"""
    write(out, Archive(path).envelope())


def extract_recipient(path, out, which):
    """ARCHIVE OUT N : recipientInfo N of its envelope"""
    write(out, recipients_of(Archive(path).envelope())[int(which)])


def keys(path):
    """ARCHIVE : the key ids of its recipients, in hex, one a line, in the envelope's order"""
    for r in recipients_of(Archive(path).envelope()):
        print(key_id_of(r).hex())


def secrets(path, key, folder):
    """ARCHIVE KEY FOLDER : its data key, file key and PRK as files there: raw, in hex and in base64, named NAME.FORM"""
    a = Archive(path)
    cek = software_cek(a.envelope(), key)
    info, mac = envelope_parts(a.envelope())[2:]
    _, algorithm, sealed = elements(content(info))
    nonce = elements(elements(algorithm[2])[1][2])[0][2]
    package = AESGCM(cek).decrypt(nonce, sealed[2] + content(mac), None)
    file_key = elements(content(package))[3][2]
    prk = hmac.digest(a.archive_id, file_key, "sha256")
    for name, value in (("cek", cek), ("file-key", file_key), ("prk", prk)):
        write(f"{folder}/{name}.raw", value)
        write(f"{folder}/{name}.hex", value.hex().encode())
        write(f"{folder}/{name}.base64", base64.b64encode(value))


def holds(*paths):
    """NEEDLE FILE... : exits 0 if a file holds the needle's bytes (hex in either case), 1 if none does"""
    needle, files = read(paths[0]).rstrip(b"\n"), paths[1:]
    if len(needle) < 8:
        raise SystemExit("the needle is too short to mean anything")
    for path in files:
        data = read(path)
        if needle in data or needle.upper() in data:
            print(path)
            return
    sys.exit(1)


COMMANDS = [layout, parts, bits, cuts, flip, swap, exchange, preamble, detach, sidecar, slots_of, envelope_of,
            manifest_of, resign, as_record, rotate, one_more, twins, recipient, extract_envelope, extract_recipient, keys, secrets,
            holds]


def main():
    p = argparse.ArgumentParser(description="Edit bk archives as an attacker would.")
    sub = p.add_subparsers(dest="command", required=True)
    for f in COMMANDS:
        c = sub.add_parser(f.__name__.replace("_", "-"), help=f.__doc__.split("\n")[0])
        c.add_argument("args", nargs="*")
        c.set_defaults(run=f)
    args = p.parse_args()
    args.run(*args.args)


if __name__ == "__main__":
    main()
