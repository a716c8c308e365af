"""The fixed world of the vectors: keys from seeds, certificates, and the archive that every defect starts from."""

import dataclasses
import datetime
import hashlib
import math
import os
import sys

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "interop"))

import der  # noqa: E402
import keys  # noqa: E402
import writer  # noqa: E402

CREATED = datetime.datetime(2026, 3, 1, 2, 3, 4)
ROTATED = datetime.datetime(2026, 9, 1, 12, 0, 0)
SEGMENT, SLOT = 4096, 4096
SMALL_PRIMES = [p for p in range(3, 2000, 2) if all(p % q for q in range(3, math.isqrt(p) + 1, 2))]


def entropy_of(seed):
    return keys.Entropy("bk vectors: " + seed)


def ec_key(seed, curve):
    return ec.derive_private_key(entropy_of(seed).below(keys.CURVES[curve.name][1]), curve)


def p256(seed):
    return ec_key(seed, ec.SECP256R1())


def p384(seed):
    return ec_key(seed, ec.SECP384R1())


def _is_prime(n, entropy):
    if any(n % p == 0 for p in SMALL_PRIMES):
        return False
    d, twos = n - 1, 0
    while d % 2 == 0:
        d, twos = d // 2, twos + 1
    for _ in range(12):
        x = pow(entropy.below(n - 2) + 1, d, n)
        for _ in range(twos):
            if x in (1, n - 1):
                break
            x = x * x % n
        if x != n - 1 and not (x == 1):
            return False
    return True


def _prime(size, entropy):
    while True:
        n = int.from_bytes(entropy.bytes(size // 8), "big") | 3 << (size - 2) | 1
        if math.gcd(n - 1, 65537) == 1 and _is_prime(n, entropy):
            return n


def rsa_key(seed, size=2048, e=65537):
    entropy = entropy_of(seed)
    while True:
        p, q = _prime(size // 2, entropy), _prime(size // 2, entropy)
        if p == q or math.gcd(e, (p - 1) * (q - 1)) != 1:
            continue
        d = pow(e, -1, (p - 1) * (q - 1))
        public = rsa.RSAPublicNumbers(e, p * q)
        return rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public).private_key()


def signer(seed, private, **certificate):
    public = certificate.pop("public", None) or private.public_key()
    made = keys.make_certificate(public, private, seed, entropy_of("certificate " + seed), **certificate)
    return writer.Signer(private, made)


def to(private, **options):
    return writer.Recipient(public=private.public_key(), **options)


def aes(seed, size=16):
    entropy = entropy_of(seed)
    return writer.Recipient(secret=entropy.bytes(32), identifier=entropy.bytes(size))


def content(size):
    """Plaintext: looks random, the same in every run, each length another one."""
    return hashlib.shake_256(f"plaintext {size}".encode()).digest(size)


class World:
    """Keys by the names of their files."""

    def __init__(self):
        self.keks = {
            "kek-p256": p256("kek-p256"),
            "kek-p384": p384("kek-p384"),
            "kek-rsa2048": rsa_key("kek-rsa2048"),
            "kek-rsa3072": rsa_key("kek-rsa3072", 3072),
            "kek-next": p256("kek-next"),
        }
        for i in range(1, 32):
            self.keks[f"kek-many{i:02d}"] = p256(f"kek-many{i:02d}")
        self.aes = {size: aes(f"kek-aes{size}", size) for size in (4, 16, 32)}
        self.signers = {
            "backup": signer("backup", p256("backup")),
            "backup2": signer("backup2", p256("backup2")),
            "backup-p384": signer("backup-p384", p384("backup-p384")),
            "backup-rsa": signer("backup-rsa", rsa_key("backup-rsa")),
            "rotator": signer("rotator", p256("rotator")),
            "rotator-rsa": signer("rotator-rsa", rsa_key("rotator-rsa")),
            "officer": signer("officer", p384("officer")),
            "custodian": signer("custodian", p256("custodian")),
            "auditor": signer("auditor", p256("auditor")),
            "stranger": signer("stranger", p256("stranger")),
        }

    def to(self, *names, **options):
        """Recipients by name; a number is the AES key with an identifier of that length."""
        return [self.aes[n] if isinstance(n, int) else to(self.keks[n], **options) for n in names]

    def by(self, *names):
        return [self.signers[n] for n in names]

    def key_name(self, name):
        if isinstance(name, int):
            return f"aes:{self.aes[name].secret.hex()}:{self.aes[name].identifier.hex()}"
        return f"keys/{name}.pem"

    def spec(self, **changes):
        spec = writer.Spec(
            plaintext=content(100),
            recipients=self.to("kek-p256"),
            signers=self.by("backup"),
            entropy=entropy_of("archive"),
            info=writer.RecordInfo(CREATED),
            created_at=CREATED,
            segment_size=SEGMENT,
            slot_size=SLOT,
        )
        return dataclasses.replace(spec, **changes)

    def rotation(self, names=("kek-next",), by=("rotator",), generation=2, **info):
        moment = ROTATED + datetime.timedelta(days=generation)
        return writer.Rotation(self.to(*names), self.by(*by), writer.RecordInfo(moment, **info))

    def save_keys(self, folder):
        os.makedirs(folder, exist_ok=True)
        for name, private in self.keks.items():
            pem = private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            with open(os.path.join(folder, name + ".pem"), "wb") as file:
                file.write(pem)
        files = {name: [one] for name, one in self.signers.items()}
        files["backups"] = self.by("backup", "backup2", "backup-p384", "backup-rsa")
        files["rotators"] = self.by("rotator", "rotator-rsa")
        for name, some in files.items():
            with open(os.path.join(folder, name + ".pem"), "wb") as file:
                file.write(b"".join(keys.to_pem(one.certificate) for one in some))


# --- changes to DER ----------------------------------------------------------------


class Raw:
    """Bytes in place of an element, whatever they are."""

    def __init__(self, data):
        self.data = data

    def encode(self):
        return self.data


def edit(path, change):
    """A hook that replaces the element at path (numbers of children from the root) by what change makes of it."""

    def hook(data, *_):
        if not path:
            return change(data)
        root = node = der.parse(data, 1 << 20)
        for i in path[:-1]:
            node = node.children[i]
        at = path[-1]
        node.children[at] = Raw(change(node.children[at].encode()))
        return root.encode()

    return hook


def split(data):
    """tag, content"""
    element = der.parse(data, 1 << 20)
    return element.tag, element.body


def put(*parts):
    return lambda data: b"".join(parts)


def drop(data):
    return b""


def followed_by(extra):
    return lambda data: data + extra


def preceded_by(extra):
    return lambda data: extra + data


def retag(tag):
    return lambda data: der.tlv(tag, split(data)[1])


def body(change):
    def run(data):
        tag, old = split(data)
        return der.tlv(tag, change(old))

    return run


def flip(at=0):
    """One bit of the content."""

    def change(old):
        new = bytearray(old)
        new[at] ^= 1
        return bytes(new)

    return body(change)


def shorter(old):
    return old[:-1]


def longer(old):
    return old + b"\x00"


def long_length(data):
    """A length in one byte more than it needs."""
    tag, old = split(data)
    size = len(old).to_bytes(max(1, (len(old).bit_length() + 7) // 8), "big")
    if len(old) >= 0x80:
        size = b"\x00" + size
    return bytes([tag, 0x80 | len(size)]) + size + old


def indefinite(data):
    tag, old = split(data)
    return bytes([tag, 0x80]) + old + b"\x00\x00"


def high_tag(data):
    """The same tag number in the form for numbers above 30."""
    tag, old = split(data)
    return bytes([tag & 0xE0 | 0x1F, tag & 0x1F]) + der.length(len(old)) + old


def in_pieces(data):
    """An OCTET STRING as BER has it, constructed."""
    tag, old = split(data)
    return der.tlv(tag | 0x20, der.octets(old[:5]), der.octets(old[5:]))


def wide_integer(data):
    tag, old = split(data)
    return der.tlv(tag, b"\x00" + old)


def swapped(data):
    """The first two elements within, in the other order."""
    tag, _ = split(data)
    first, second, *rest = der.parse(data).children
    return der.tlv(tag, second.raw, first.raw, *(child.raw for child in rest))
