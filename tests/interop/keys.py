"""Keys in software: names, wrapping, signatures, certificates. Everything that is random comes from an Entropy, so that
archives can be made that are the same in every run, signatures included; readers verify with python3-cryptography.
"""

import base64
import hashlib
import os
import struct

from cryptography import x509
from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

import der
import rules

CURVES = {  # coordinate bytes, order
    "secp256r1": (32, 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551),
    "secp384r1": (48,
    0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973),
}
CURVE_OIDS = {
    bytes.fromhex("06082a8648ce3d030107"): ec.SECP256R1(),
    bytes.fromhex("06052b81040022"): ec.SECP384R1(),
}
RSA_SPKI_ALGORITHM = bytes.fromhex("300d06092a864886f70d0101010500")
ID_SUBJECT_KEY_IDENTIFIER = bytes.fromhex("0603551d0e")
ID_COMMON_NAME = bytes.fromhex("0603550403")


class Entropy:
    """Random bytes; with a seed, the same ones every time."""

    def __init__(self, seed=None):
        self.state = None if seed is None else hashlib.sha256(seed.encode()).digest()
        self.count = 0

    def bytes(self, size):
        if self.state is None:
            return os.urandom(size)
        out = b""
        while len(out) < size:
            out += hashlib.sha256(self.state + struct.pack(">Q", self.count)).digest()
            self.count += 1
        return out[:size]

    def below(self, bound):
        """1 to bound - 1."""
        return int.from_bytes(self.bytes((bound.bit_length() + 7) // 8 + 16), "big") % (bound - 1) + 1


# --- public keys ---------------------------------------------------------------


def spki_of(public):
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def point_of(public):
    return public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def fingerprint(spki):
    return rules.sha256(spki)


def key_id(spki):
    """RFC 7093 section 2, method 1: over the contents of the BIT STRING without its unused-bits byte."""
    return rules.sha256(der.parse(spki).children[1].body[1:])[: rules.SKI_LENGTH]


def load_spki(spki):
    """The public key in a SubjectPublicKeyInfo that this format takes, or DerError."""
    fields = der.Fields(der.parse(spki), "public key")
    algorithm = fields.take(der.SEQUENCE, "algorithm")
    key = fields.take(der.BIT_STRING, "key")
    fields.close()
    if algorithm.raw != RSA_SPKI_ALGORITHM:
        parts = der.Fields(algorithm, "public key algorithm")
        if parts.take(der.OID, "identifier").raw != rules.ID_EC_PUBLIC_KEY:
            raise der.DerError("public key: neither RSA nor elliptic-curve")
        if parts.take(der.OID, "curve").raw not in CURVE_OIDS:
            raise der.DerError("public key: neither P-256 nor P-384")
        parts.close()
        if key.body[1:2] != b"\x04":
            raise der.DerError("public key: not an uncompressed point")
    try:
        public = serialization.load_der_public_key(spki)
    except ValueError as error:
        raise der.DerError(f"public key: {error}") from error
    if isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
        if not 2048 <= public.key_size <= 4096 or not 65537 <= numbers.e < 2**64 or numbers.e % 2 == 0:
            raise der.DerError("public key: RSA of a size or exponent that is not taken")
    return public


def load_point(data, curve):
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, data)
    except ValueError as error:
        raise der.DerError("the point is not on its curve") from error


# --- wrapping ------------------------------------------------------------------


def _mgf1(seed, size, algorithm):
    out = b""
    for counter in range((size + algorithm().digest_size - 1) // algorithm().digest_size):
        out += algorithm(seed + struct.pack(">I", counter)).digest()
    return out[:size]


def _xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


def oaep_wrap(public, data, algorithm, entropy):
    """RFC 8017 section 7.1.1, empty label."""
    numbers = public.public_numbers()
    size = (numbers.n.bit_length() + 7) // 8
    hash_length = algorithm().digest_size
    block = algorithm(b"").digest() + bytes(size - len(data) - 2 * hash_length - 2) + b"\x01" + data
    seed = entropy.bytes(hash_length)
    masked = _xor(block, _mgf1(seed, len(block), algorithm))
    encoded = b"\x00" + _xor(seed, _mgf1(masked, hash_length, algorithm)) + masked
    return pow(int.from_bytes(encoded, "big"), numbers.e, numbers.n).to_bytes(size, "big")


def oaep_unwrap(private, data, algorithm):
    chosen = hashes.SHA1() if algorithm == "sha1" else hashes.SHA256()
    return private.decrypt(data, padding.OAEP(padding.MGF1(chosen), chosen, None))


def _agreed_kek(private, public):
    shared = private.exchange(ec.ECDH(), public)
    digest = hashlib.sha256 if len(shared) == 32 else hashlib.sha384
    return digest(shared + bytes([0, 0, 0, 1]) + rules.SHARED_INFO).digest()[:32]


def ecdh_wrap(public, data, entropy):
    """Gives the ephemeral point and the wrapped key."""
    _, order = CURVES[public.curve.name]
    ephemeral = ec.derive_private_key(entropy.below(order), public.curve)
    return point_of(ephemeral.public_key()), keywrap.aes_key_wrap(_agreed_kek(ephemeral, public), data)


def ecdh_unwrap(private, point, wrapped):
    peer = load_point(point, private.curve)
    return keywrap.aes_key_unwrap(_agreed_kek(private, peer), wrapped)


# --- signatures ----------------------------------------------------------------


def sign(private, data, entropy, algorithm=hashlib.sha256):
    """ECDSA or RSASSA-PSS (salt of 32 bytes), by the key's type, over the digest of data."""
    digest = algorithm(data).digest()
    if isinstance(private, rsa.RSAPrivateKey):
        return _sign_pss(private, digest, entropy)
    size, order = CURVES[private.curve.name]
    secret = private.private_numbers().private_value
    z = int.from_bytes(digest, "big")
    while True:
        k = entropy.below(order)
        point = ec.derive_private_key(k, private.curve).public_key().public_numbers()
        r = point.x % order
        s = pow(k, -1, order) * (z + r * secret) % order
        if r and s:
            return utils.encode_dss_signature(r, s)


def _sign_pss(private, digest, entropy):
    """RFC 8017 section 9.1.1, SHA-256."""
    numbers = private.private_numbers()
    modulus = numbers.public_numbers.n
    em_bits = modulus.bit_length() - 1
    em_length = (em_bits + 7) // 8
    salt = entropy.bytes(32)
    hashed = rules.sha256(bytes(8), digest, salt)
    block = bytes(em_length - 32 - 32 - 2) + b"\x01" + salt
    masked = bytearray(_xor(block, _mgf1(hashed, len(block), hashlib.sha256)))
    masked[0] &= 0xFF >> (8 * em_length - em_bits)
    encoded = int.from_bytes(bytes(masked) + hashed + b"\xbc", "big")
    return pow(encoded, numbers.d, modulus).to_bytes((modulus.bit_length() + 7) // 8, "big")


def verify(public, algorithm, signature, data):
    """algorithm is the whole encoding; raises an exception if the signature does not hold."""
    if algorithm == rules.ECDSA_SHA256 and isinstance(public, ec.EllipticCurvePublicKey):
        public.verify(signature, data, ec.ECDSA(hashes.SHA256()))
    elif algorithm == rules.PSS_SHA256 and isinstance(public, rsa.RSAPublicKey):
        public.verify(signature, data, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    else:
        raise der.DerError("signature algorithm and key do not fit")


# --- certificates --------------------------------------------------------------


def make_certificate(public, issuer, name, entropy, ski=None, serial=None, years=(2020, 2040)):
    """An X.509 certificate that is a container for a key; signed by issuer, which nobody checks. ski None: the key id;
    b"": no extension at all."""
    spki = public if isinstance(public, bytes) else spki_of(public)
    ski = key_id(spki) if ski is None else ski
    algorithm = rules.PSS_SHA256 if isinstance(issuer, rsa.RSAPrivateKey) else rules.ECDSA_SHA256
    subject = der.seq(der.set_of([der.seq(ID_COMMON_NAME, der.text(name))]))
    validity = der.seq(*(der.tlv(der.UTC_TIME, f"{year % 100:02d}0101000000Z".encode()) for year in years))
    extension = der.seq(ID_SUBJECT_KEY_IDENTIFIER, der.octets(der.octets(ski)))
    number = int.from_bytes(b"\x01" + entropy.bytes(15), "big") if serial is None else serial
    tbs = der.seq(
        der.tlv(0xA0, der.integer(2)),
        der.integer(number),
        algorithm,
        subject,
        validity,
        subject,
        spki,
        der.tlv(0xA3, der.seq(extension)) if ski else b"",
    )
    return der.seq(tbs, algorithm, der.bits(sign(issuer, tbs, entropy)))


class Certificate:
    """What the format needs of a certificate: its key, and its subjectKeyIdentifier."""

    def __init__(self, data):
        self.der = data
        fields = der.Fields(der.parse(data), "certificate")
        tbs = der.Fields(fields.take(der.SEQUENCE, "tbsCertificate"), "certificate")
        fields.take(der.SEQUENCE, "signatureAlgorithm")
        fields.take(der.BIT_STRING, "signature")
        fields.close()
        tbs.take(0xA0, "version")
        tbs.take(der.INTEGER, "serialNumber")
        for name in ("signature", "issuer", "validity", "subject"):
            tbs.take(der.SEQUENCE, name)
        self.spki = tbs.take(der.SEQUENCE, "subjectPublicKeyInfo").raw
        self.public = load_spki(self.spki)
        self.key_id = key_id(self.spki)
        self.ski = self._ski(tbs.maybe(0xA3))

    @staticmethod
    def _ski(extensions):
        found = []
        for extension in extensions.children[0].children if extensions else []:
            if extension.children[0].raw == ID_SUBJECT_KEY_IDENTIFIER:
                value = der.parse(extension.children[-1].body)
                if value.tag != der.OCTET_STRING or not 1 <= len(value.body) <= 64:
                    raise der.DerError("certificate: subjectKeyIdentifier")
                found.append(value.body)
        if len(found) != 1:
            raise der.DerError("certificate: without a subjectKeyIdentifier")
        return found[0]


def to_pem(certificate):
    text = base64.b64encode(certificate).decode()
    lines = [text[i : i + 64] for i in range(0, len(text), 64)]
    return ("-----BEGIN CERTIFICATE-----\n" + "\n".join(lines) + "\n-----END CERTIFICATE-----\n").encode()


# --- files ---------------------------------------------------------------------


def load_pem(path):
    """Every public key or certificate of a file: [(SubjectPublicKeyInfo, certificate or None)]."""
    with open(path, "rb") as file:
        data = file.read()
    found = []
    for block in data.split(b"-----BEGIN ")[1:]:
        pem = b"-----BEGIN " + block
        if block.startswith(b"CERTIFICATE-----"):
            certificate = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
            found.append((Certificate(certificate).spki, certificate))
        elif block.startswith(b"PUBLIC KEY-----"):
            found.append((spki_of(serialization.load_pem_public_key(pem)), None))
    if not found:
        raise ValueError(f"{path}: no certificate and no public key")
    return found


class Key:
    """A decryption key in software: PATH.pem, or aes:HEX:IDHEX."""

    def __init__(self, name):
        self.name = name
        if name.startswith("aes:"):
            _, secret, identifier = name.split(":")
            self.private, self.id = bytes.fromhex(secret), bytes.fromhex(identifier)
        else:
            with open(name, "rb") as file:
                self.private = serialization.load_pem_private_key(file.read(), None)
            self.id = key_id(spki_of(self.private.public_key()))

    def unwrap(self, recipient):
        if recipient.scheme == "aes":
            return keywrap.aes_key_unwrap(self.private, recipient.wrapped)
        if recipient.scheme in ("oaep-sha1", "oaep-sha256"):
            return oaep_unwrap(self.private, recipient.wrapped, recipient.scheme[5:])
        return ecdh_unwrap(self.private, recipient.point, recipient.wrapped)
