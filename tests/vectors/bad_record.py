"""Defects of key records and of their lineage (section 15)."""

import der
import writer
from world import body, drop, edit, flip, followed_by, indefinite, long_length, longer, put, shorter, wide_integer

# fields of a record of generation 2 or later
(VERSION, ARCHIVE, GENERATION, PREVIOUS, MANIFEST, HISTORY, ENVELOPE, CREATED, BLINDNESS, PROVEN, HINTS) = range(11)


def add(c, w):
    _fields(c, w)
    _hints(c, w)
    _lineage(c, w)
    _splices(c, w)


def _maker(c, w, prefix, rotations, keys_):
    last = len(rotations) + 1

    def one(name, what, path, change, kind="refused", layer="record", **spec):
        def hook(data, generation):
            return edit(path, change)(data) if generation == last else data

        made = writer.write(w.spec(hooks={"record": hook}, rotations=rotations, **spec))
        c.bad(f"{prefix}-{name}", layer, what, made, kind, keys=keys_)

    return one


def _fields(c, w):
    """The fields that the first record has as well as later ones."""
    first = _maker(c, w, "record1", (), ("kek-p256",))
    later = _maker(c, w, "record2", (w.rotation(),), ("kek-next",))
    for one, shift, mine, stranger in ((first, 3, w.to("kek-p256")[0].id, w.to("kek-next")[0].id),
                                       (later, 0, w.to("kek-next")[0].id, w.to("kek-p256")[0].id)):
        def at(field, shift=shift):
            return (field - (shift if field > GENERATION else 0),)

        one("version-0", "version 0", (VERSION,), put(der.integer(0)))
        one("version-2", "version 2", (VERSION,), put(der.integer(2)), "newer")
        one("archive-id", "another archive's id", (ARCHIVE,), flip(15))
        one("archive-id-17", "an id of 17 bytes", (ARCHIVE,), body(longer))
        one("generation-0", "generation 0", (GENERATION,), put(der.integer(0)))
        one("generation-3", "generation 3", (GENERATION,), put(der.integer(3)))
        one("generation-negative", "generation -1", (GENERATION,), put(der.integer(-1)))
        one("generation-64-bits", "generation 2^63", (GENERATION,), put(der.integer(1 << 63)))
        one("envelope-hash", "envelopeHash of another envelope", at(ENVELOPE), flip(0))
        one("envelope-hash-31", "envelopeHash of 31 bytes", at(ENVELOPE), body(shorter))
        one("created-no-time", "createdAt is no time", at(CREATED),
            put(der.tlv(der.GENERALIZED_TIME, b"20261301000000Z")))
        one("created-utc", "createdAt as UTCTime", at(CREATED), put(der.tlv(der.UTC_TIME, b"260301020304Z")))
        one("created-fraction", "createdAt with a fraction", at(CREATED),
            put(der.tlv(der.GENERALIZED_TIME, b"20260301020304.5Z")))
        one("blindness-3", "blindness 3", at(BLINDNESS), put(der.integer(3, der.ENUMERATED)))
        one("blindness-negative", "blindness -1", at(BLINDNESS), put(der.integer(-1, der.ENUMERATED)))
        one("blindness-integer", "blindness as INTEGER", at(BLINDNESS), put(der.integer(0)))
        one("proven-stranger", "proven names somebody who is no recipient", at(PROVEN),
            put(der.seq(der.octets(stranger))))
        one("proven-twice", "proven names a recipient twice", at(PROVEN), put(der.seq(der.octets(mine) * 2)))
        one("proven-id-3", "a key id of 3 bytes in proven", at(PROVEN), put(der.seq(der.octets(b"abc"))))
        one("proven-id-33", "a key id of 33 bytes in proven", at(PROVEN), put(der.seq(der.octets(bytes(33)))))
        one("proven-missing", "no proven", at(PROVEN), drop)
        one("hints-missing", "no hints", at(HINTS), drop)
        one("reason-control", "a control character in reason", at(PROVEN), followed_by(der.text("a\x1bb", 0x83)))
        one("reason-empty", "an empty reason", at(PROVEN), followed_by(der.text("", 0x83)))
        one("reason-long", "a reason of 1025 bytes", at(PROVEN), followed_by(der.text("x" * 1025, 0x83)))
        one("order-empty", "an empty orderId", at(PROVEN), followed_by(der.octets(b"", 0x84)))
        one("order-33", "an orderId of 33 bytes", at(PROVEN), followed_by(der.octets(bytes(33), 0x84)))
        one("order-before-reason", "orderId before reason", at(PROVEN),
            followed_by(der.octets(b"x", 0x84) + der.text("x", 0x83)))
        one("more", "an element more", at(HINTS), followed_by(der.tlv(der.NULL)))
        one("trailing", "a byte after it", (), followed_by(b"\x00"))
        one("long-length", "a length that is not minimal", (ARCHIVE,), long_length)
        one("indefinite", "an indefinite length", (), indefinite)
        one("wide-integer", "an INTEGER that is not minimal", (VERSION,), wide_integer)


def _hints(c, w):
    one = _maker(c, w, "hint", (), ("kek-p256",))
    mine, stranger = w.to("kek-p256")[0].id, w.to("kek-next")[0].id

    def hint(name, what, *pairs):
        one(name, what, (HINTS - 3,), put(der.seq(*(der.seq(der.octets(i), der.text(uri)) for i, uri in pairs))))

    good = "pkcs11:token=kek;object=archive"
    hint("stranger", "for somebody who is no recipient", (stranger, good))
    hint("twice", "two for one recipient", (mine, good), (mine, good))
    for name, what, uri in (
        ("pin-value", "with a PIN", good + "?pin-value=1234"),
        ("pin-source", "with a PIN's source", good + "?pin-source=file:/etc/pin"),
        ("module-path", "with a module's path", good + "?module-path=/usr/lib/evil.so"),
        ("module-name", "with a module's name", good + "?module-name=evil"),
        ("pin-upper-case", "with a PIN, in capitals", good + "?Pin-Value=1234"),
        ("pin-second", "with a PIN after another attribute", good + "?x-a=b&pin-value=1234"),
        ("module-in-path", "with a module among the path's attributes", good + ";module-name=evil"),
        ("pin-in-path", "with a PIN among the path's attributes", good + ";pin-value=1234"),
        ("https", "of another scheme", "https://example.org/"),
        ("empty", "without text", ""),
        ("not-ascii", "that is not ASCII", "pkcs11:token=schlüssel"),
        ("space", "with a space", "pkcs11:token=my key"),
        ("newline", "with a newline", good + "\n"),
        ("control", "with a control character", good + "\x1b[31m"),
        ("long", "of 1025 bytes", "pkcs11:token=" + "x" * 1012),
    ):
        hint(name, what, (mine, uri))
    one("id-3", "a key id of 3 bytes", (HINTS - 3,), put(der.seq(der.seq(der.octets(b"abc"), der.text(good)))))
    one("more", "an element more in a hint", (HINTS - 3,),
        put(der.seq(der.seq(der.octets(mine), der.text(good), der.tlv(der.NULL)))))
    one("without-uri", "a hint without its URI", (HINTS - 3,), put(der.seq(der.seq(der.octets(mine)))))


def _lineage(c, w):
    rotations = tuple(w.rotation(names=("kek-next",) if g == 3 else ("kek-many01",), generation=g) for g in (2, 3))
    two = _maker(c, w, "lineage2", rotations[:1], ("kek-many01",))
    three = _maker(c, w, "lineage3", rotations, ("kek-next",))

    three("previous", "previous is not the last of history", (PREVIOUS,), flip(0))
    three("previous-31", "previous of 31 bytes", (PREVIOUS,), body(shorter))
    three("manifest", "manifestDigest of another manifest", (MANIFEST,), flip(0))
    three("manifest-31", "manifestDigest of 31 bytes", (MANIFEST,), body(shorter))
    three("history-first", "history does not begin at the manifest's record", (HISTORY, 0, 0), flip(0))
    three("history-last", "the last of history is not previous", (HISTORY, 1, 0), flip(0))
    three("history-short", "an entry of history is missing", (HISTORY, 1), drop)
    three("history-long", "an entry of history too many", (HISTORY, 0), lambda d: d + d)
    three("history-empty", "an empty history", (HISTORY,), put(der.tlv(0xA2)))
    three("history-swapped", "history in the other order", (HISTORY,),
        lambda d: der.tlv(0xA2, *(e.raw for e in der.parse(d).children[::-1])))
    three("history-digest-31", "a digest of 31 bytes in history", (HISTORY, 0, 0), body(shorter))
    three("history-id-3", "a key id of 3 bytes in history", (HISTORY, 0, 1), put(der.seq(der.octets(b"abc"))))
    three("history-id-33", "a key id of 33 bytes in history", (HISTORY, 0, 1), put(der.seq(der.octets(bytes(33)))))
    three("history-no-ids", "an entry of history that names nobody", (HISTORY, 0, 1), put(der.seq()))
    three("history-more", "an element more in an entry of history", (HISTORY, 0, 1), followed_by(der.tlv(der.NULL)))
    two("without-previous", "no previous", (PREVIOUS,), drop)
    two("without-manifest", "no manifestDigest", (MANIFEST,), drop)
    two("without-history", "no history", (HISTORY,), drop)
    two("without-all", "a record of generation 2 as if it were the first", (), lambda d: der.seq(
        *(e.raw for e in der.parse(d).children if e.tag not in (0x80, 0x81, 0xA2))))
    one = _maker(c, w, "lineage1", (), ("kek-p256",))
    entry = der.tlv(0xA2, der.seq(der.octets(bytes(32)), der.seq(der.octets(bytes(20)))))
    one("previous", "previous in the first record", (GENERATION,), followed_by(der.octets(bytes(32), 0x80)))
    one("manifest", "manifestDigest in the first record", (GENERATION,), followed_by(der.octets(bytes(32), 0x81)))
    one("history", "history in the first record", (GENERATION,), followed_by(entry))
    one("all", "all three in the first record", (GENERATION,),
        followed_by(der.octets(bytes(32), 0x80) + der.octets(bytes(32), 0x81) + entry))
    one("empty-history", "an empty history in the first record", (GENERATION,), followed_by(der.tlv(0xA2)))


def _splices(c, w):
    """Genuine parts in places where they do not belong."""
    def slot_of(spec, pieces):
        envelope, record, generation = pieces
        return writer.slot(spec, generation, envelope, record, spec.slot_size)

    def parts(made):
        from reader import Slot

        taken = Slot(made.data[4096:8192])
        return taken.envelope, taken.record, taken.generation

    spec = w.spec()
    first = writer.write(spec)
    rotated = writer.write(w.spec(rotations=(w.rotation(),)))
    longer_line = writer.write(w.spec(rotations=(w.rotation(names=("kek-many01",)), w.rotation(generation=3))))
    e1, r1, _ = parts(first)
    e2, r2, _ = parts(rotated)
    e3, r3, _ = parts(longer_line)

    def splice(name, what, base, envelope, record, generation, key):
        slot = slot_of(w.spec(), (envelope, record, generation))
        c.bad(f"splice-{name}", "record", what, base.data[:4096] + slot * 2 + base.data[12288:], keys=(key,))

    splice("old-envelope-new-record", "the first envelope with the second record", rotated, e1, r2, 2, "kek-p256")
    splice("new-envelope-old-record", "the second envelope with the first record", rotated, e2, r1, 1, "kek-next")
    splice("third-envelope-second-record", "the third envelope with the second record", rotated, e3, r2, 2, "kek-next")
    splice("third-record-as-second", "the third record under generation 2", rotated, e3, r3, 2, "kek-next")

    added = w.spec(recipients=w.to("kek-p256", "kek-next"))
    added_made = writer.write(added)
    envelope_added = parts(added_made)[0]
    splice("recipient-added", "a recipient was added to the envelope without a record", first, envelope_added, r1, 1,
        "kek-next")

    # the same archive, but its signer signed two manifests of it
    base = w.spec(archive_id=first.archive_id)
    one = writer.write(base)
    other = writer.write(w.spec(archive_id=first.archive_id, label="the other manifest", rotations=(w.rotation(),)))
    c.bad("splice-record-of-other-manifest", "record",
        "a genuine record for another manifest of the same archive and keys",
          one.data[:4096] + other.data[4096:12288] + one.data[12288:], keys=("kek-next",))
