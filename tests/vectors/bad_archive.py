"""Defects outside DER: preamble, slots, frames, index, tail, files cut short; sections 3 to 8. And trust and keys."""

import struct

import der
import keys
import rules
import writer
from good import trimmed
from world import body, content, edit, flip, put

GROUP = 32 * 4096


def add(c, w):
    _preamble(c, w)
    _slots(c, w)
    _cut(c, w)
    _tail(c, w)
    _frames(c, w)
    _index(c, w)
    _keys(c, w)
    _trust(c, w)
    _sidecar(c, w)


def patch(offset, data):
    """A hook: these bytes at that offset."""

    def hook(old, *_):
        at = offset if offset >= 0 else len(old) + offset
        return old[:at] + data + old[at + len(data) :]

    return hook


def turn(offset):
    """A hook: one bit turned over."""
    return lambda old, *_: patch(offset, bytes([old[offset] ^ 1]))(old)


def _preamble(c, w):
    def one(name, what, stage, hook, kind="refused", layer="preamble", **more):
        c.bad(f"preamble-{name}", layer, what, writer.write(w.spec(hooks={stage: hook})), kind, **more)

    def sized(offset, value):
        return patch(offset, struct.pack(">I", value))

    one("magic", "magic", "head", patch(0, b"\x88"))
    one("magic-crlf", "magic as a text transfer leaves it", "head", patch(4, b"\x0a\x1a\x0a\x00"))
    for version, kind in ((0, "refused"), (2, "newer"), (256, "newer"), (65535, "newer")):
        one(f"version-{version}", f"version {version}", "head", patch(8, struct.pack(">H", version)), kind)
    for bit in (1, 8, 15):
        one(f"flag-{bit}", f"flag bit {bit}", "head", patch(10, struct.pack(">H", 1 << bit)), "newer")
    one("flag-detached-with-slots", "the envelope is detached, yet there are slots", "head", patch(10, b"\x00\x01"))
    for size in (0, 1, 2048, 4095, 4097, 6144, (1 << 20) + 4096, 0xFFFFF000):
        one(f"slot-size-{size}", f"slot size {size}", "head", sized(12, size))
    for size in (0, 1, 2048, 5000, 4095, 1 << 21, 0x80000000, 12288):
        one(f"segment-size-{size}", f"segment size {size}", "head", sized(16, size))
    one("uuid-version", "the archive id is a UUID of version 4", "head",
        lambda old: patch(26, bytes([0x40 | old[26] & 15]))(old))
    one("uuid-variant", "the archive id is of another variant", "head",
        lambda old: patch(28, bytes([0xC0 | old[28] & 63]))(old))
    one("uuid-nil", "the archive id is all zero", "head", patch(20, bytes(16)))
    for offset in (68, 2000, 4063):
        one(f"zero-{offset}", f"byte {offset} is not zero", "preamble", patch(offset, b"\x01"))
    one("checksum", "checksum", "file", turn(4070))
    one("checksum-of-field", "the commitment is damaged", "file", turn(40))

    def resealed(offset):
        def hook(old):
            new = turn(offset)(old)
            return new[:4064] + rules.sha256(new[:4064]) + new[4096:]

        return hook

    one("commit-after-signing", "another keyCommit, put in after the manifest was signed", "file", resealed(40),
        layer="manifest")
    one("id-after-signing", "another archive id, put in after the manifest was signed", "file", resealed(35),
        layer="manifest")


def _slots(c, w):
    def both(name, what, change, layer="slots", **spec):
        hooks = {"slots": lambda pair, slot: [change(s) for s in pair]}
        c.bad(f"slots-{name}", layer, what, writer.write(w.spec(hooks=hooks, **spec)))

    def sealed(change):
        """The header is changed, and the checksum made right again; lengths are read as they then stand."""

        def run(old):
            new = change(old)
            envelope, record = struct.unpack(">II", new[16:24])
            return new[:32] + rules.sha256(new[:32], new[64 : 64 + envelope + record]) + new[64:]

        return run

    def grown(at, by):
        return sealed(lambda old: patch(at, struct.pack(">I", struct.unpack(">I", old[at : at + 4])[0] + by))(old))

    both("magic", "magic", sealed(patch(0, b"\x43")))
    both("magic-version", "the last byte of the magic", sealed(patch(7, b"\x02")))
    both("generation-0", "generation 0", sealed(patch(8, bytes(8))))
    both("envelope-length-0", "envelopeLength 0", sealed(patch(16, bytes(4))))
    both("record-length-0", "recordLength 0", sealed(patch(20, bytes(4))))
    both("length-over", "lengths that reach beyond the slot", grown(20, 4096))
    both("length-wraps", "lengths whose sum does not fit 32 bits",
        sealed(patch(16, b"\xff\xff\xff\xff\xff\xff\xff\xff")))
    both("zero-24", "a byte that must be zero", sealed(patch(24, b"\x01")))
    both("zero-31", "the last byte that must be zero", sealed(patch(31, b"\x01")))
    both("checksum", "checksum", turn(32))
    both("envelope-bit", "a bit of the envelope", turn(200))
    both("record-last-bit", "the last bit of the record",
        lambda old: turn(63 + sum(struct.unpack(">II", old[16:24])))(old))
    both("padding-first", "the first byte of the padding",
        lambda old: patch(64 + sum(struct.unpack(">II", old[16:24])), b"\x01")(old))
    both("padding-last", "the last byte of the padding", patch(-1, b"\x01"))
    both("zero", "all zero", lambda old: bytes(len(old)))

    first = writer.write(w.spec())
    second = writer.write(w.spec(recipients=w.to("kek-next")))
    at = slice(4096, 8192)
    c.bad("slots-equal-generation", "slots", "two valid slots of generation 1 that differ",
        patch(8192, second.data[at])(first.data))

    rotated = (w.rotation(),)
    c.bad("slots-generation-record-older", "record", "header of generation 3 over a record of generation 2",
        writer.write(
        w.spec(rotations=rotated, hooks={"slots": lambda pair, slot: [sealed(patch(15, b"\x03"))(s) for s in pair]})),
        keys=("kek-next",))
    c.bad("slots-generation-bare-record", "record", "header of generation 2 over the bare record of generation 1",
        writer.write(
        w.spec(hooks={"slots": lambda pair, slot: [sealed(patch(15, b"\x02"))(s) for s in pair]})))
    c.bad("slots-generation-signed-record", "record", "header of generation 1 over the signed record of generation 2",
        writer.write(
        w.spec(rotations=rotated, hooks={"slots": lambda pair, slot: [sealed(patch(15, b"\x01"))(s) for s in pair]})))

    # there is no falling back to the older slot
    broken = writer.write(w.spec(rotations=rotated, hooks={
        "record.infos": edit((0, 5), flip(-1)), "slots": lambda pair, slot: [slot(0), pair[1]]}))
    c.bad("slots-no-fallback-signature", "record", "the newer slot's signature does not hold; the older slot is whole",
        broken, keys=("kek-next",))
    c.bad("slots-no-fallback-trust", "trust", "the newer slot's signer is not trusted; the older slot is whole",
        writer.write(
        w.spec(rotations=(w.rotation(by=("stranger",)),), hooks={"slots": lambda pair, slot: [slot(0), pair[1]]})),
        "untrusted", keys=("kek-next",))
    other = writer.write(w.spec(entropy=keys.Entropy("another archive"), rotations=rotated))
    c.bad("slots-of-another-archive", "envelope", "both slots of another archive of the same signer",
          patch(4096, other.data[4096:12288])(first.data), keys=("kek-next",))
    c.bad("slots-newer-of-another-archive", "envelope", "slot B of another archive, of a higher generation",
          patch(8192, other.data[8192:12288])(first.data), keys=("kek-next",))


def _cut(c, w):
    whole = writer.write(w.spec(plaintext=content(9000))).data

    def one(name, what, data, layer="tail", kind="incomplete"):
        c.bad(f"cut-{name}", layer, what, data, kind)

    for size in (0, 1, 63, 64, 4095):
        one(f"at-{size}", f"only {size} bytes are left", whole[:size], "preamble")
    one("after-preamble", "only the preamble is left", whole[:4096], "slots")
    one("in-slot-a", "cut within slot A", whole[:6000], "slots")
    one("in-slot-b", "cut within slot B", whole[:10000], "slots")
    one("after-slots", "no frame is left", whole[:12288])
    one("in-frames", "cut within the frames", whole[: 12288 + 5000])
    one("after-frames", "cut after the frames", whole[: 12288 + 9060])
    one("before-tail", "the tail is missing", whole[:-64])
    one("in-tail", "cut within the tail", whole[:-10])
    one("last-byte", "the last byte is missing", whole[:-1])
    one("one-byte-more", "a byte after the tail", whole + b"\x00")
    one("zeros-after", "4096 zeros after the tail", whole + bytes(4096))
    one("zero-tail", "the tail is all zero, as a sparse copy leaves it", whole[:-64] + bytes(64))
    one("two-joined", "two archives joined", whole + writer.write(w.spec(plaintext=content(9000))).data, kind="refused")


def _tail(c, w):
    def one(name, what, hook, stage="tail", kind="refused", layer="tail"):
        c.bad(f"tail-{name}", layer, what, writer.write(w.spec(plaintext=content(5000), hooks={stage: hook})), kind)

    def moved(at, code, by):
        size = struct.calcsize(code)

        def hook(old):
            return patch(at, struct.pack(code, struct.unpack(code, old[at : at + size])[0] + by))(old)

        return hook

    one("magic", "magic", turn(0), kind="incomplete")
    one("magic-crlf", "the end of the magic", patch(6, b"\x0a\x0a"), kind="incomplete")
    for by in (1, -1, 32, -32, -5000 - 40):
        one(f"index-offset{by:+d}", f"offset of the index, {by:+d}", moved(8, ">Q", by))
    one("index-offset-0", "offset of the index: 0", patch(8, bytes(8)))
    one("index-offset-max", "offset of the index: as large as it can be", patch(8, b"\xff" * 8))
    one("index-offset-head", "offset of the index: that of the frames, as if there were none",
        patch(8, struct.pack(">Q", 12288)))
    for by in (1, -1):
        one(f"manifest-length{by:+d}", f"manifestLength, {by:+d}", moved(16, ">I", by))
    one("manifest-length-0", "manifestLength 0", patch(16, bytes(4)))
    one("zero-20", "a byte that must be zero", patch(20, b"\x01"))
    one("zero-23", "the last byte that must be zero", patch(23, b"\x01"))
    for by in (1, -1):
        one(f"total{by:+d}", f"total length, {by:+d}", moved(24, ">Q", by), kind="incomplete" if by > 0 else "refused")
    one("total-max", "total length: as large as it can be", patch(24, b"\xff" * 8), kind="incomplete")
    one("checksum", "checksum", turn(40), "stored-tail")
    one("checksum-of-field", "a damaged field", turn(31), "stored-tail")
    one("stored-length", "the length before the manifest is not the tail's", patch(3, b"\x00"), "stored-length",
        layer="manifest")
    one("manifest-too-long", "a manifest of more than 1 MiB", lambda old: bytes((1 << 20) + 1), "manifest.signed")
    one("manifest-of-1-mib", "a manifest of exactly 1 MiB, which is none", lambda old: bytes(1 << 20),
        "manifest.signed",
        layer="manifest")


def _frames(c, w):
    """stage frames: the index and the signature fit the defect; stored-frames: they do not."""

    def one(name, what, hooks, plaintext=content(9000), keyless="0:-", **more):
        c.bad(f"frames-{name}", "frames", what, writer.write(w.spec(plaintext=plaintext, hooks=hooks)), keyless=keyless,
            **more)

    def frame(i, change):
        return lambda frames: [change(f) if k == i else f for k, f in enumerate(frames)]

    loud = {"keyless": "1:frames"}  # anybody can see it, without a key
    one("ciphertext", "a bit of the ciphertext", {"stored-frames": frame(1, turn(100))}, **loud)
    one("tag", "a bit of a tag", {"stored-frames": frame(2, turn(-1))}, **loud)
    one("word", "a bit of a length", {"stored-frames": frame(0, turn(3))}, **loud)
    one("swapped", "two frames in the other order", {"stored-frames": lambda f: [f[1], f[0], f[2]]}, **loud)
    one("repeated", "a frame twice, in place of the next", {"stored-frames": lambda f: [f[0], f[0], f[2]]}, **loud)
    one("last-bit-missing", "the last frame without its bit", {"stored-frames": frame(2, patch(0, b"\x00"))}, **loud)

    one("signed-ciphertext", "a bit of the ciphertext, signed so", {"frames": frame(1, turn(100))})
    one("signed-tag", "a bit of a tag, signed so", {"frames": frame(2, turn(-1))})
    one("signed-swapped", "two frames in the other order, signed so", {"frames": lambda f: [f[1], f[0], f[2]]})
    one("signed-repeated", "a frame twice, signed so", {"frames": lambda f: [f[0], f[0], f[2]]})
    one("signed-nonce-1", "segments counted from 1", {"nonce": lambda nonce, i: rules.nonce_of(i + 1)})
    one("signed-nonce-le", "the nonce's number is little-endian", {"nonce": lambda nonce, i: nonce[:4] + nonce[:3:-1]})
    one("signed-nonce-front", "the nonce's number stands first", {"nonce": lambda nonce, i: nonce[4:] + nonce[:4]})
    one("signed-epoch", "the key of epoch 1", {"epoch": lambda epoch, i: 1})
    one("signed-epoch-second", "the key of epoch 1 from the second segment on", {"epoch": lambda epoch, i: min(i, 1)})
    one("signed-aad", "the word is not what was authenticated", {"frames": frame(0, patch(0, b"\x00"))},
        plaintext=content(80),
        **loud)

    # words that do not fit the layout, authenticated and signed so
    one("word-last-missing", "no frame has the last bit", {"word": lambda word, i: word & 0x7FFFFFFF}, **loud)
    one("word-last-twice", "the last bit in two frames", {"word": lambda word, i: word | (1 << 31 if i > 0 else 0)},
        **loud)
    one("word-last-early", "the last bit in the first frame alone",
        {"word": lambda word, i: word & 0x7FFFFFFF | (1 << 31 if i == 0 else 0)},
        **loud)
    one("word-short", "a length one too small", {"word": lambda word, i: word - (i == 1)}, **loud)
    one("word-long", "a length one too large", {"word": lambda word, i: word + (i == 2)}, **loud)
    one("word-zero", "a length of 0 before a full segment", {"word": lambda word, i: word if i else 0}, **loud)
    one("word-bit-30", "bit 30 of a word", {"word": lambda word, i: word | 1 << 30}, plaintext=content(80), **loud)
    one("short-segment", "a short segment that is not the last", {
        "segments": lambda s: [b"".join(s)[:4000], b"".join(s)[4000:8096], b"".join(s)[8096:]]}, **loud)
    one("empty-with-length", "an empty archive whose word says 1", {"word": lambda word, i: word + 1}, plaintext=b"",
        **loud)
    one("empty-without-last", "an empty archive whose frame is not the last", {"word": lambda word, i: 0},
        plaintext=b"", **loud)

    empty_last = writer.write(w.spec(plaintext=content(4096), hooks={"segments": lambda s: s + [b""]}))
    c.bad("frames-empty-last", "tail", "an empty segment after a full one", empty_last)

    long = content(GROUP + 5000)
    first = {"plaintext": long, "released": long[:GROUP]}
    one("second-group", "a bit in the second group", {"stored-frames": frame(33, turn(50))}, **first, **loud)
    one("second-group-signed", "a bit in the second group, signed so", {"frames": frame(33, turn(50))}, **first)
    one("second-group-swapped", "frames 0 and 32 change places",
        {"stored-frames": lambda f: [f[32]] + f[1:32] + [f[0]] + f[33:]},
        plaintext=long, **loud)
    one("second-group-last-missing", "no frame of two groups has the last bit",
        {"word": lambda word, i: word & 0x7FFFFFFF}, **first,
        **loud)


def _index(c, w):
    long = content(GROUP + 5000)

    def one(name, what, hooks, plaintext=content(9000), layer="index", **more):
        c.bad(f"index-{name}", layer, what, writer.write(w.spec(plaintext=plaintext, hooks=hooks)), **more)

    def first(change):
        return lambda index: [change(index[0])] + index[1:]

    one("bit", "a bit of the only root", {"stored-index": first(turn(31))})
    one("zero", "all zero", {"stored-index": first(lambda root: bytes(32))})
    one("swapped", "two roots in the other order", {"stored-index": lambda index: index[::-1]}, plaintext=long)
    one("second-bit", "a bit of the second root", {"stored-index": lambda index: [index[0], turn(0)(index[1])]},
        plaintext=long)
    one("payload-digest", "the signed payloadDigest is another", {"payload-digest": turn(0)})

    def signed(name, what, hooks, **more):
        one(f"signed-{name}", what, hooks, layer="frames", **more)

    leaves = []

    def keep(frames):
        leaves[:] = [rules.sha256(f) for f in frames]
        return frames

    def tree(name, what, root, plaintext=content(9000)):
        """Another tree than section 6 has, with a signature over it."""
        signed(f"tree-{name}", what, {"frames": keep, "index": lambda index: [root(leaves)]}, plaintext=plaintext)

    def node(left, right, prefix=b"\x01"):
        return rules.sha256(prefix, left, right)

    signed("bit", "a bit of the root, signed so", {"index": first(turn(31))})
    tree("doubled", "the odd leaf is paired with itself", lambda h: node(node(h[0], h[1]), node(h[2], h[2])))
    tree("right-heavy", "the larger subtree is the right one", lambda h: node(h[0], node(h[1], h[2])))
    tree("flat", "one hash over all leaves", lambda h: rules.sha256(b"\x01", *h))
    tree("no-prefix", "nodes without their prefix", lambda h: node(node(h[0], h[1], b""), h[2], b""))
    tree("leaf-prefix", "a leaf with a prefix", lambda h: rules.sha256(b"\x00", h[0]), content(80))
    tree("single-node", "a single leaf is hashed again", lambda h: rules.sha256(b"\x01", h[0]), content(80))
    signed("leaf-without-word", "a leaf over the ciphertext without its word", {
        "frames": lambda f: leaves.__setitem__(slice(None), [rules.sha256(f[0][4:])]) or f,
        "index": lambda index: [leaves[0]]},
        plaintext=content(80))
    signed("second-group", "the root of the second group is another, signed so",
        {"index": lambda index: [index[0], turn(0)(index[1])]},
           plaintext=long, released=long[:GROUP])


def _keys(c, w):
    def one(name, what, layer="key", keys=("kek-p256",), kind="refused", **spec):
        c.bad(f"key-{name}", layer, what, writer.write(w.spec(**spec)), kind, keys=keys)

    def wrapped(data):
        """The recipients wrap this in place of the CEK."""
        return lambda recipient: writer.Recipient(
            raw=recipient.wrap(data, keys.Entropy("wrapped")), identifier=recipient.id)

    def named(path, tag, identifier):
        return {"recipients": edit(path, put(der.octets(identifier, tag)))}

    strangers = {
        "kek-p256": w.signers["stranger"],
        "kek-p384": w.signers["backup-p384"],
        "kek-rsa2048": w.signers["backup-rsa"],
    }
    for name, stranger in strangers.items():
        path, tag = ((0, 1), 0x80) if name == "kek-rsa2048" else ((0, 3, 0, 0, 0), der.OCTET_STRING)
        one(f"other-{name[4:]}", "the data key is wrapped to another key than it says", keys=(name,),
            recipients=[writer.Recipient(public=stranger.private.public_key())],
            hooks=named(path, tag, w.to(name)[0].id))
    twin = writer.Recipient(secret=bytes(32), identifier=w.aes[16].identifier)
    one("other-aes", "the data key is wrapped by another secret key of that name", keys=(16,), recipients=[twin])
    one("wrapped-bit-p256", "a bit of the wrapped key", hooks={"recipients": edit((0, 3, 0, 1), flip(20))})
    one("wrapped-bit-aes", "a bit of the wrapped key", keys=(16,), recipients=w.to(16),
        hooks={"recipients": edit((0, 3), flip(0))})
    one("wrapped-bit-rsa", "a bit of the wrapped key", keys=("kek-rsa2048",), recipients=w.to("kek-rsa2048"),
        hooks={"recipients": edit((0, 3), flip(100))})
    one("oaep-sha1-as-sha256", "OAEP with SHA-1 under the name of SHA-256", keys=("kek-rsa2048",),
        recipients=w.to("kek-rsa2048", oaep="sha1"), hooks={"recipients": edit((0, 2), put(rules.OAEP_SHA256))})
    one("oaep-sha256-as-sha1", "OAEP with SHA-256 under the name of SHA-1", keys=("kek-rsa2048",),
        recipients=w.to("kek-rsa2048"), hooks={"recipients": edit((0, 2), put(rules.OAEP_SHA1))})
    one("cek-31", "a data key of 31 bytes", keys=("kek-rsa2048",),
        recipients=[wrapped(bytes(31))(w.to("kek-rsa2048")[0])])
    one("cek-33", "a data key of 33 bytes", keys=("kek-rsa2048",),
        recipients=[wrapped(bytes(33))(w.to("kek-rsa2048")[0])])
    one("cek-empty", "a data key of no bytes", keys=("kek-rsa2048",), recipients=[wrapped(b"")(w.to("kek-rsa2048")[0])])
    for name in ("kek-p256", "kek-p384", "kek-rsa2048", 16):
        label = "aes" if name == 16 else name[4:]
        one(f"other-cek-{label}", "the recipient wraps the data key of another archive", "package", keys=(name,),
            recipients=[wrapped(bytes(32))(w.to(name)[0])])
    one("wrapped-384-bytes", "384 bytes for a key of 2048 bits", keys=("kek-rsa2048",), recipients=w.to("kek-rsa2048"),
        hooks={"recipients": edit((0, 3), body(lambda old: bytes(128) + old))})
    one("not-a-recipient", "the key is none of the recipients", keys=("kek-next",), kind="no-key")
    one("old-recipient", "the key that a rotation removed", kind="no-key", rotations=(w.rotation(),))


def _trust(c, w):
    def one(name, what, by=("backup",), trust=None, kind="untrusted", **spec):
        c.bad(f"trust-{name}", "trust", what, writer.write(w.spec(signers=w.by(*by), **spec)), kind, trust=trust,
              keys=("kek-next",) if "rotations" in spec else ("kek-p256",))

    one("none", "nobody is trusted", trust="", kind="no-trust")
    one("stranger", "signed by somebody who is not trusted", by=("stranger",))
    one("other-pin", "another signer is trusted", trust="keys/backup2.pem")
    one("other-fingerprint", "another fingerprint is trusted", trust="sha256:" + "00" * 32)
    one("one-of-two", "one of two signers is not trusted", by=("backup", "stranger"))
    one("one-of-four", "one of four signers is not trusted", by=("backup", "backup2", "backup-rsa", "stranger"))
    for name in ("rotator", "officer", "custodian", "auditor"):
        one(f"manifest-by-{name}", f"a manifest signed by the {name}", by=(name,))
    for name in ("backup", "custodian", "auditor", "stranger"):
        one(f"record-by-{name}", f"a record signed by the {name}", rotations=(w.rotation(by=(name,)),))
    one("record-one-of-two", "a record signed by a rotator and a backup signer",
        rotations=(w.rotation(by=("rotator", "backup")),))
    one("record-rotator-not-pinned", "no rotator is trusted", rotations=(w.rotation(),), trust="keys/backup.pem")
    one("record-rotator-as-backup", "the rotator is trusted for manifests alone", rotations=(w.rotation(),),
        trust="keys/backup.pem keys/rotator.pem")
    # a certificate is a container: its name and issuer prove nothing
    fake = keys.make_certificate(w.signers["stranger"].private.public_key(), w.signers["backup"].private, "backup",
                                 keys.Entropy("fake"), ski=keys.Certificate(w.signers["backup"].certificate).ski)
    c.bad("trust-issued-by-signer", "trust",
        "a stranger's certificate with the signer's name and identifier, issued by the signer",
          writer.write(w.spec(signers=[writer.Signer(w.signers["stranger"].private, fake)])), "untrusted")


def _sidecar(c, w):
    def one(name, what, hook, layer="slots", **spec):
        c.bad(f"sidecar-{name}", layer, what, writer.write(w.spec(detached=True, hooks={"sidecar": hook}, **spec)))

    one("cut", "the last byte is missing", lambda old: old[:-1])
    one("padded", "a byte after the record", lambda old: old + b"\x00")
    one("padded-as-slot", "padded like a slot", lambda old: old + bytes(4096 - len(old)))
    one("empty", "an empty file", lambda old: b"")
    one("magic", "magic", turn(0))
    one("checksum", "checksum", turn(33))
    one("zero", "a byte that must be zero", turn(25))
    one("of-another-archive", "that of another archive", lambda old: writer.write(
        w.spec(detached=True, entropy=keys.Entropy("another archive"))).sidecar, layer="envelope")
    inline = writer.write(w.spec())
    other_spec = w.spec(recipients=w.to("kek-p256", "kek-p384"))
    stranger = writer.write(w.spec(entropy=keys.Entropy("another archive"), rotations=(w.rotation(),)))
    rotated_by_stranger = writer.write(w.spec(rotations=(w.rotation(by=("stranger",)),)))
    for name, what, sidecar, layer, kind, key in (
        ("differs", "a sidecar of the slots' generation that differs from them",
        trimmed(writer.write(other_spec).data[4096:8192]),
         "slots", "refused", "kek-p256"),
        ("newer-of-another", "a newer sidecar of another archive beside whole slots", trimmed(stranger.data[4096:8192]),
        "envelope",
         "refused", "kek-next"),
        ("newer-by-stranger", "a newer sidecar by a stranger beside whole slots",
        trimmed(rotated_by_stranger.data[4096:8192]),
         "trust", "untrusted", "kek-next"),
    ):
        c.bad(f"sidecar-{name}", layer, what, writer.Made(inline.data, sidecar), kind, keys=(key,))
    c.good("good-sidecar-damaged", "a damaged sidecar beside whole slots",
           writer.Made(inline.data, patch(40, b"damage")(trimmed(inline.data[4096:8192]))), w.spec().plaintext,
           verify="1:slots")
    missing = writer.write(w.spec(detached=True))
    missing.sidecar = None
    c.bad("sidecar-missing", "slots", "it is not there", missing, "incomplete")
