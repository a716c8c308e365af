#!/usr/bin/python3
"""
Restores one whole bk archive without bk, from docs/FORMAT.md alone: a second implementation, for the day when the first
one is gone. It needs Python 3, python3-cryptography and the openssl command (3.0 or later).

    recover.py --signer CERT.pem --keys KEYPACKAGE.der ARCHIVE OUT

docs/BREAK-GLASS.md says how stock tools get the key package. Nothing appears as OUT until all of the archive has been
verified: its signature by the pinned signer, the lineage of its key envelope, the key commitment, and every frame.
"""
import argparse, hashlib, hmac, os, re, subprocess, sys, tempfile
from collections import namedtuple
from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

SHA256_ALG = bytes.fromhex("300b0609608648016503040201")
SIGNATURE_ALGS = [bytes.fromhex("300a06082a8648ce3d040302"), bytes.fromhex(
    "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d0609608648016503"
    "0402010500a203020120")]
CONTENT_TYPE = bytes.fromhex("06092a864886f70d010903")
ATTRIBUTES = {CONTENT_TYPE, bytes.fromhex("06092a864886f70d010904"), bytes.fromhex("06092a864886f70d010905"),
              bytes.fromhex("060b2a864886f70d010910022f")}
DATA, SIGNED_DATA = bytes.fromhex("06092a864886f70d010701"), bytes.fromhex("06092a864886f70d010702")
AUTH_ENVELOPED = bytes.fromhex("060b2a864886f70d0109100117")
AES256_GCM = bytes.fromhex("060960864801650304012e")
OWN = bytes.fromhex("06156983dfbbb4fdda93aaa1ebaad0c199dbacd9b24f")
MANIFEST, KEY_RECORD, SUITE_1 = OWN + b"\x01", OWN + b"\x02", OWN + b"\x05"
MIB = 1 << 20
Item = namedtuple("Item", "tag raw content")
Slot = namedtuple("Slot", "generation envelope record")
Layout = namedtuple("Layout", "head index_at groups segments manifest_len plain_len")

class Refused(Exception):
    """The archive, or what was given with it, is not what FORMAT.md says."""

def need(holds, why):
    if not holds:
        raise Refused(why)

def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()

def number(data):
    return int.from_bytes(data, "big")

def elements(data, what):
    """The DER elements that fill data; definite, minimal lengths only."""
    out, pos = [], 0
    while pos < len(data):
        start, bad = pos, f"{what}: bad DER"
        need(len(data) - pos >= 2 and data[pos] & 31 != 31, bad)
        length, pos = data[pos + 1], pos + 2
        if length >= 128:
            octets = data[pos:pos + (length & 127)]
            need(1 <= len(octets) <= 4 and len(octets) == length & 127, bad)
            length, pos = number(octets), pos + len(octets)
            need(octets[0] != 0 and length >= 128, bad)
        need(length <= len(data) - pos, bad)
        out.append(Item(data[start], data[start:pos + length], data[pos:pos + length]))
        pos += length
    return out

def take(data, tags, what):
    """The elements that fill data, with these tags in this order; None for one marked '?' that is absent."""
    items, out = elements(data, what), []
    for word in tags.split():
        here = bool(items) and items[0].tag == int(word[:2], 16)
        need(here or word.endswith("?"), f"{what}: expected an element with tag {word[:2]}")
        out.append(items.pop(0) if here else None)
    need(not items, f"{what}: unexpected elements at the end")
    return out

def sequence(data, tags, what):
    return take(take(data, "30", what)[0].content, tags, what)

def integer(item, what):
    c = item.content
    need(1 <= len(c) <= 8 and c[0] < 128 and not (len(c) > 1 and c[0] == 0 and c[1] < 128), f"{what}: bad integer")
    return number(c)

def read_at(f, offset, length, what):
    f.seek(offset)
    data = f.read(length)
    need(len(data) == length, f"{what}: the file ends early: incomplete archive")
    return data

def parse_preamble(p):
    need(p[:8] == b"\x89BKA\r\n\x1a\n", "preamble: not a bk archive")
    need(number(p[8:10]) == 1, f"preamble: version {number(p[8:10])} is not known here")
    need(number(p[10:12]) == 0, "preamble: envelope detached, or unknown flags: not for this script")
    need(sha256(p[:4064]) == p[4064:], "preamble: checksum does not hold: damaged")
    slot_size, segment_size = number(p[12:16]), number(p[16:20])
    need(0 < slot_size <= MIB and slot_size % 4096 == 0, "preamble: bad slot size")
    need(4096 <= segment_size <= MIB and segment_size & (segment_size - 1) == 0, "preamble: bad segment size")
    need(p[26] >> 4 == 7 and p[28] >> 6 == 2 and not any(p[68:4064]), "preamble: bad archive id or reserved bytes")
    return slot_size, segment_size

def parse_slot(s):
    """None for a slot that is damaged."""
    generation, envelope, record = number(s[8:16]), number(s[16:20]), number(s[20:24])
    end = 64 + envelope + record
    good = (s[:8] == b"BKSLOT\x00\x01" and generation > 0 and envelope > 0 and record > 0 and end <= len(s) and
            not any(s[24:32]) and not any(s[end:]) and sha256(s[:32], s[64:end]) == s[32:64])
    return Slot(generation, s[64:64 + envelope], s[64 + envelope:end]) if good else None

def choose_slot(a, b):
    need(a or b, "slots: both are damaged (or a rekey is passing: try once more)")
    need(not (a and b) or a.generation != b.generation or a == b, "slots: two that differ, of the same generation")
    return max((s for s in (a, b) if s), key=lambda s: s.generation)

def find_layout(f, size, head, segment_size):
    need(size >= head + 64, "the file is shorter than its head: incomplete archive")
    t = read_at(f, size - 64, 64, "tail")
    need(t[:8] == b"BKTAIL\r\n", "tail: none there: incomplete archive")
    need(sha256(t[:32]) == t[32:] and not any(t[20:24]), "tail: damaged")
    index_at, manifest_len, frame = number(t[8:16]), number(t[16:20]), segment_size + 20
    need(number(t[24:32]) == size, f"tail: the archive has {number(t[24:32])} bytes, the file {size}")
    need(index_at >= head + 20 and 0 < manifest_len <= MIB, "tail: impossible offsets")
    segments = -(-(index_at - head) // frame)
    last = index_at - head - (segments - 1) * frame
    need(last > 20 or (last == 20 and segments == 1), "tail: no number of segments gives this length")
    groups = -(-segments // 32)
    need(segments <= 1 << 32 and index_at + 32 * groups + 4 + manifest_len + 64 == size, "tail: lengths do not add up")
    return Layout(head, index_at, groups, segments, manifest_len, (segments - 1) * segment_size + last - 20)

def spki_of(key):
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

def pinned_keys(files):
    """The public keys in PEM files of certificates or public keys."""
    keys = set()
    for name in files:
        with open(name, "rb") as f:
            blocks = re.findall(rb"(-----BEGIN (CERTIFICATE|PUBLIC KEY)-----.*?-----END \2-----)", f.read(), re.S)
        need(blocks, f"{name}: no certificate or public key in it")
        keys.update(spki_of(x509.load_pem_x509_certificate(pem).public_key() if kind == b"CERTIFICATE" else
                            load_pem_public_key(pem)) for pem, kind in blocks)
    return keys

def certificate(der, what):
    """PEM, subjectKeyIdentifier and SubjectPublicKeyInfo."""
    try:
        c = x509.load_der_x509_certificate(der)
        ski = c.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        return c.public_bytes(Encoding.PEM), ski, spki_of(c.public_key())
    except Exception as e:  # the library raises many kinds for bytes that are no certificate
        raise Refused(f"{what}: bad certificate: {e}") from None

def openssl_verify(der, pems, what):
    """The content, once openssl has found every signature to be made with these very certificates."""
    with tempfile.NamedTemporaryFile(suffix=".pem") as certs:
        certs.write(b"".join(pems))
        certs.flush()
        run = subprocess.run(["openssl", "cms", "-verify", "-cades", "-binary", "-inform", "DER", "-nointern",
                              "-certfile", certs.name, "-CAfile", certs.name, "-no-CApath", "-no-CAstore",
                              "-partial_chain", "-no_check_time", "-purpose", "any"],
                             input=der, capture_output=True, check=False)
    errors = run.stderr.decode(errors="replace").splitlines() or ["?"]
    need(run.returncode == 0, f"{what}: signature does not hold: {errors[-1]}")
    return run.stdout

def open_signed(der, content_type, trusted, what):
    """The inner DER and the signers' key ids (RFC 7093 section 2 method 1), sorted."""
    oid, outer = sequence(der, "06 a0", what)
    version, digests, encap, certs, infos = sequence(outer.content, "02 31 30 a0 31", what)
    kind, wrapped = take(encap.content, "06 a0", what)
    need(oid.raw == SIGNED_DATA and integer(version, what) == 3 and digests.content == SHA256_ALG and
         kind.raw == content_type, f"{what}: not SignedData of the expected version, digest and content type")
    content = take(wrapped.content, "04", what)[0].content
    pems, skis, keys = zip(*[certificate(c.raw, what) for c in elements(certs.content, what)] or [((), (), ())])
    for key in keys:
        need(key in trusted, f"{what}: signed by a key that was not given, sha256:{sha256(key).hex() if key else '-'}")
    sids = []
    for info in elements(infos.content, what):
        version, sid, digest, attrs, alg, _ = take(info.content, "02 80 30 a0 30 04", what)
        pairs = [take(a.content, "06 31", what) for a in elements(attrs.content, what)]
        need(integer(version, what) == 3 and digest.raw == SHA256_ALG and alg.raw in SIGNATURE_ALGS and
             len(pairs) == 4 and {t.raw for t, _ in pairs} == ATTRIBUTES,
             f"{what}: signature algorithm or attributes outside the profile")
        need(all(t.raw != CONTENT_TYPE or v.content == content_type for t, v in pairs), f"{what}: content-type differs")
        sids.append(sid.content)
    need(1 <= len(sids) <= 4 and len(set(sids)) == len(sids) == len(set(keys)) and sorted(sids) == sorted(skis),
         f"{what}: certificates and signers do not match one to one")
    need(openssl_verify(der, pems, what) == content, f"{what}: openssl reads another content")
    return content, sorted(sha256(sequence(k, "30 03", what)[1].content[1:])[:20] for k in keys)

def check_manifest(m, preamble, record_1, envelope_digest, layout):
    """Returns the payload digest."""
    what = "manifest"
    f = sequence(m, "02 04 04 04 04 06 02 02 04 18 0a a0? 81? 82? 83? 84? 85? a6?", what)
    need(integer(f[0], what) == 1 and f[5].raw == SUITE_1, "manifest: version or suite is not known here")
    need(f[1].content == preamble[20:36], "manifest: of another archive")
    need(f[2].content == sha256(preamble), "manifest: the preamble is not the one that was signed")
    need(f[3].content == envelope_digest, "manifest: the key envelope is not the one that was signed")
    need(f[4].content == record_1, "manifest: the key records do not begin with the one that was signed")
    need((integer(f[6], what), integer(f[7], what)) == (layout.segments, layout.plain_len), "manifest: lengths differ")
    return f[8].content

def open_envelope(der):
    """envelopeDigest, and the nonce and sealed bytes that AES-GCM opens under the CEK."""
    what = "envelope"
    oid, outer = sequence(der, "06 a0", what)
    version, _, info, mac = sequence(outer.content, "02 31 30 04", what)
    kind, alg, sealed = take(info.content, "06 30 80", what)
    cipher, params = take(alg.content, "06 30", what)
    nonce, icv_len = take(params.content, "04 02", what)
    need((oid.raw, integer(version, what), kind.raw, cipher.raw, len(nonce.content), integer(icv_len, what),
          len(mac.content)) == (AUTH_ENVELOPED, 0, DATA, AES256_GCM, 12, 16, 16), "envelope: outside the profile")
    return sha256(info.raw, mac.raw), nonce.content, sealed.content + mac.content

def check_lineage(slot, archive_id, manifest, rotators):
    """Returns the digest of the first record, for the manifest to confirm."""
    der, what = slot.record, "key record"
    if slot.generation > 1:
        need(rotators, "key record: this archive was rotated: give the rotator's certificate with --rotator")
        der, _ = open_signed(der, KEY_RECORD, rotators, what)
    version, archive, generation, previous, of_manifest, history, envelope_hash, *_ = sequence(
        der, "02 04 02 80? 81? a2? 04 18 0a 30 83? 84? 30", what)
    need(integer(version, what) == 1 and archive.content == archive_id, f"{what}: of another archive or version")
    need(integer(generation, what) == slot.generation, f"{what}: its generation is not the slot's")
    need(envelope_hash.content == sha256(slot.envelope), f"{what}: the recipients are not those that it vouches for")
    if slot.generation == 1:
        need(not (previous or of_manifest or history), f"{what}: the first one cannot have a past")
        return sha256(der)
    need(previous and of_manifest and history, f"{what}: its past is missing")
    past = [take(p.content, "04 30", what)[0].content for p in elements(history.content, what)]
    need(len(past) == slot.generation - 1 and past[-1] == previous.content, f"{what}: broken history")
    need(of_manifest.content == sha256(manifest), f"{what}: of another manifest")
    return past[0]

def open_package(package, preamble, signer_ids):
    """Returns the PRK of the file key, once the preamble is seen to be committed to it."""
    what, archive_id = "key package", preamble[20:36]
    version, archive, suite, file_key, signers, _ = sequence(package, "02 04 06 04 30 a0?", what)
    need(integer(version, what) == 1 and suite.raw == SUITE_1, f"{what}: version or suite is not known here")
    need(archive.content == archive_id and len(file_key.content) == 32, f"{what}: of another archive")
    need([s.content for s in elements(signers.content, what)] == signer_ids, f"{what}: it names other signers")
    prk = hmac.digest(archive_id, file_key.content, "sha256")
    commit = hmac.digest(prk, b"bk1 commit\0" + sha256(preamble[:36]) + b"\x01", "sha256")
    need(hmac.compare_digest(commit, preamble[36:68]), f"{what}: key commitment does not hold")
    return prk

def root(hashes):
    """RFC 9162 section 2.1.1: pairs, level by level; an odd one out goes up as it is."""
    while len(hashes) > 1:
        hashes = [sha256(b"\x01", a, b) for a, b in zip(hashes[::2], hashes[1::2])] + hashes[len(hashes) & ~1:]
    return hashes[0]

def restore(f, out, layout, segment_size, index, prk, binding):
    frame, epoch, gcm = segment_size + 20, None, None
    for group in range(layout.groups):
        first = group * 32
        start = layout.head + first * frame
        data = read_at(f, start, min(32 * frame, layout.index_at - start), "frames")
        frames = [data[i:i + frame] for i in range(0, len(data), frame)]
        need(root([sha256(x) for x in frames]) == index[group], f"frames: group {group} is damaged")
        for i, x in enumerate(frames, first):
            need(number(x[:4]) == (i == layout.segments - 1) << 31 | len(x) - 20, f"frames: bad word in segment {i}")
            if epoch != i * segment_size >> 40:
                epoch = i * segment_size >> 40
                info = b"bk1 payload\0" + binding + epoch.to_bytes(4, "big") + b"\x01"
                gcm = AESGCM(hmac.digest(prk, info, "sha256"))
            try:
                out.write(gcm.decrypt(bytes(4) + i.to_bytes(8, "big"), x[4:], x[:4]))
            except InvalidTag:
                raise Refused(f"frames: segment {i} does not authenticate") from None

def recover(args):
    with open(args.archive, "rb") as f, open(args.keys or args.cek, "rb") as k:
        package = k.read(MIB)
        preamble = read_at(f, 0, 4096, "preamble")
        slot_size, segment_size = parse_preamble(preamble)
        layout = find_layout(f, os.fstat(f.fileno()).st_size, 4096 + 2 * slot_size, segment_size)
        end = read_at(f, layout.index_at, 32 * layout.groups + 4 + layout.manifest_len, "index and manifest")
        index, signed = [end[32 * i:32 * i + 32] for i in range(layout.groups)], end[32 * layout.groups:]
        need(number(signed[:4]) == layout.manifest_len, "manifest: its length is not the tail's")
        manifest, signer_ids = open_signed(signed[4:], MANIFEST, pinned_keys(args.signer), "manifest")
        slot = choose_slot(*(parse_slot(read_at(f, 4096 + i * slot_size, slot_size, "slot")) for i in (0, 1)))
        envelope_digest, nonce, sealed = open_envelope(slot.envelope)
        record_1 = check_lineage(slot, preamble[20:36], manifest, pinned_keys(args.rotator))
        payload_digest = check_manifest(manifest, preamble, record_1, envelope_digest, layout)
        need(root(index) == payload_digest, "index: damaged, or not the one that was signed")
        if args.cek:
            try:
                package = AESGCM(package).decrypt(nonce, sealed, None)
            except (InvalidTag, ValueError):
                raise Refused("key package: this data key does not open it") from None
        prk = open_package(package, preamble, signer_ids)
        need(not os.path.lexists(args.out), f"{args.out} exists already")
        out = tempfile.NamedTemporaryFile(dir=os.path.dirname(args.out) or ".", prefix=".recover.", delete=False)
        try:
            with out:
                restore(f, out, layout, segment_size, index, prk, sha256(preamble[:36]) + envelope_digest)
                out.flush()
                os.fsync(out.fileno())
            need(not os.path.lexists(args.out), f"{args.out} exists already")
            os.rename(out.name, args.out)
        except BaseException:
            os.unlink(out.name)
            raise
    print(f"{args.out}: {layout.plain_len} bytes, all verified; generation {slot.generation}; "
          f"manifest sha256 {sha256(manifest).hex()}; freshness not checked")

def main():
    p = argparse.ArgumentParser(description="Restore one bk archive without bk; see docs/BREAK-GLASS.md.")
    p.add_argument("--signer", action="append", required=True, metavar="PEM", help="trusted backup signer; repeatable")
    p.add_argument("--rotator", action="append", default=[], metavar="PEM", help="trusted rotator; repeatable")
    key = p.add_mutually_exclusive_group(required=True)
    key.add_argument("--keys", metavar="FILE", help="the key package, as openssl cms -decrypt wrote it")
    key.add_argument("--cek", metavar="FILE", help="or the 32-byte data key, unwrapped by other means")
    p.add_argument("archive")
    p.add_argument("out")
    try:
        recover(p.parse_args())
    except (Refused, OSError, ValueError) as e:
        sys.exit(f"recover.py: {e}")

if __name__ == "__main__":
    main()
