"""What docs/FORMAT.md fixes: magics, bounds, whole encodings, and the formulas over hashes (sections 1 to 10)."""

import hashlib
import hmac
import struct

PREAMBLE_MAGIC = bytes.fromhex("89424B410D0A1A0A")
SLOT_MAGIC = bytes.fromhex("424B534C4F540001")
TAIL_MAGIC = bytes.fromhex("424B5441494C0D0A")

PREAMBLE_LENGTH = 4096
SLOT_HEADER_LENGTH = 64
TAIL_LENGTH = 64
FRAME_OVERHEAD = 20
GROUP = 32
FLAG_DETACHED = 1
SLOT_STEP, SLOT_MAX = 4096, 1 << 20
SEGMENT_MIN, SEGMENT_MAX = 4096, 1 << 20
SEGMENTS_MAX = 1 << 32
MANIFEST_MAX = 1 << 20
SIDECAR_MAX = 1 << 20
RECIPIENTS_MAX = 32
SIGNERS_MAX = 4
KEY_ID_MIN, KEY_ID_MAX, SKI_LENGTH = 4, 32, 20
PACKAGE_MAX, METADATA_MAX = 66560, 65536
TEXT_MAX = 1024
HISTORY_MAX = 4095

ARC = bytes.fromhex("06156983DFBBB4FDDA93AAA1EBAAD0C199DBACD9B24F")
MANIFEST, KEY_RECORD, SUITE_1 = ARC + b"\x01", ARC + b"\x02", ARC + b"\x05"

SHA256 = bytes.fromhex("300b0609608648016503040201")
OAEP_SHA256 = bytes.fromhex(
    "303806092a864886f70d010107302ba00d300b0609608648016503040201"
    "a11a301806092a864886f70d010108300b0609608648016503040201"
)
OAEP_SHA1 = bytes.fromhex("300d06092a864886f70d0101073000")
ECDH_P256 = bytes.fromhex("301506062b8104010b01300b060960864801650304012d")
ECDH_P384 = bytes.fromhex("301506062b8104010b02300b060960864801650304012d")
AES_WRAP = bytes.fromhex("300b060960864801650304012d")
YUBIHSM_CCM = b"\x30\x17" + ARC + b"\x08"
ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
PSS_SHA256 = bytes.fromhex(
    "304106092a864886f70d01010a3034a00f300d06096086480165030402010500"
    "a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120"
)

ID_DATA = bytes.fromhex("06092a864886f70d010701")
ID_SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")
ID_AUTH_ENVELOPED_DATA = bytes.fromhex("060b2a864886f70d0109100117")
ID_AES256_GCM = bytes.fromhex("060960864801650304012e")
ID_EC_PUBLIC_KEY = bytes.fromhex("06072a8648ce3d0201")
ID_CONTENT_TYPE = bytes.fromhex("06092a864886f70d010903")
ID_MESSAGE_DIGEST = bytes.fromhex("06092a864886f70d010904")
ID_SIGNING_TIME = bytes.fromhex("06092a864886f70d010905")
ID_SIGNING_CERTIFICATE_V2 = bytes.fromhex("060b2a864886f70d010910022f")



def aes_gcm(nonce):
    """The whole encoding of AES-256-GCM, of the content and of a token's own scheme (section 10)."""
    return bytes.fromhex("301e060960864801650304012e3011040c") + nonce + bytes.fromhex("020110")


# RFC 5753 section 7.2, as section 11 has it: id-aes256-wrap, no ukm, 256 bits
SHARED_INFO = bytes.fromhex("3015300b060960864801650304012da206040400000100")


def sha256(*parts):
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()


def expand(prk, info):
    return hmac.new(prk, info + b"\x01", hashlib.sha256).digest()


def extract(archive_id, file_key):
    return hmac.new(archive_id, file_key, hashlib.sha256).digest()


def key_commit(file_key, preamble):
    prk = extract(preamble[20:36], file_key)
    return expand(prk, b"bk1 commit\x00" + sha256(preamble[:36]))


def payload_key(file_key, preamble, envelope_digest, epoch):
    prk = extract(preamble[20:36], file_key)
    return expand(prk, b"bk1 payload\x00" + sha256(preamble[:36]) + envelope_digest + struct.pack(">I", epoch))


def epoch_of(segment, segment_size):
    return (segment * segment_size) >> 40


def nonce_of(segment):
    return bytes(4) + struct.pack(">Q", segment)


def tree_root(hashes):
    """RFC 9162 section 2.1.1: the left subtree takes the largest power of two below n."""
    if len(hashes) == 1:
        return hashes[0]
    split = 1 << ((len(hashes) - 1).bit_length() - 1)
    return sha256(b"\x01", tree_root(hashes[:split]), tree_root(hashes[split:]))


def groups_of(items):
    return [items[i : i + GROUP] for i in range(0, len(items), GROUP)]


def is_uuid7(value):
    return len(value) == 16 and value[6] >> 4 == 7 and value[8] >> 6 == 2
