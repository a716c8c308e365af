"""Strict DER for docs/FORMAT.md, section 9: bytes in, a tree of elements out, or DerError; and the way back.

Written from the specification alone, so that it and the C code can be held against each other.
"""

MAX_LENGTH = 1 << 20
MAX_DEPTH = 20
MAX_ELEMENTS = 4096

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, NULL, OID, ENUMERATED, UTF8 = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0A, 0x0C
UTC_TIME, GENERALIZED_TIME, SEQUENCE, SET = 0x17, 0x18, 0x30, 0x31


class DerError(ValueError):
    """These bytes are not the DER that the format demands."""


# --- writing -----------------------------------------------------------------


def length(n):
    if n < 0x80:
        return bytes([n])
    body = n.to_bytes((n.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(body)]) + body


def tlv(tag, *parts):
    body = b"".join(parts)
    return bytes([tag]) + length(len(body)) + body


def integer(n, tag=INTEGER):
    size = max(1, n.bit_length() // 8 + 1) if n >= 0 else (n + 1).bit_length() // 8 + 1
    return tlv(tag, n.to_bytes(size, "big", signed=True))


def octets(data, tag=OCTET_STRING):
    return tlv(tag, bytes(data))


def text(value, tag=UTF8):
    return tlv(tag, value if isinstance(value, bytes) else value.encode())


def seq(*parts):
    return tlv(SEQUENCE, *parts)


def set_of(items, tag=SET):
    return tlv(tag, *sorted(items))


def bits(data, unused=0):
    return tlv(BIT_STRING, bytes([unused]), data)


# --- reading -----------------------------------------------------------------


class Element:
    """One element: its tag, its content and, if it is constructed, the elements in it."""

    __slots__ = ("tag", "body", "children")

    def __init__(self, tag, body=b"", children=None):
        self.tag = tag
        self.body = body
        self.children = children

    @property
    def raw(self):
        return self.encode()

    def encode(self):
        if self.children is None:
            return tlv(self.tag, self.body)
        return tlv(self.tag, *(child.encode() for child in self.children))


def parse(data, max_elements=MAX_ELEMENTS):
    """The one element that data is, checked by rules 1 and 2 of section 9."""
    if len(data) > MAX_LENGTH:
        raise DerError("longer than 1 MiB")
    budget = [max_elements]
    element, end = _element(data, 0, len(data), 1, budget)
    if end != len(data):
        raise DerError(f"{len(data) - end} bytes after the end")
    if element.encode() != data:
        raise DerError("it is not its own re-encoding")
    return element


def _length(data, at, end):
    if at >= end:
        raise DerError("cut off within a length")
    first = data[at]
    at += 1
    if first < 0x80:
        return first, at
    if first == 0x80:
        raise DerError("indefinite length")
    count = first & 0x7F
    if count > 4 or at + count > end:
        raise DerError("length of a length")
    value = int.from_bytes(data[at : at + count], "big")
    if value < 0x80 or data[at] == 0:
        raise DerError("length is not minimal")
    return value, at + count


def _element(data, at, end, depth, budget):
    if depth > MAX_DEPTH:
        raise DerError("nested too deep")
    budget[0] -= 1
    if budget[0] < 0:
        raise DerError("too many elements")
    if at >= end:
        raise DerError("an element is missing")
    tag = data[at]
    if tag & 0x1F == 0x1F:
        raise DerError("tag of the high form")
    if tag == 0:
        raise DerError("tag 0")
    size, start = _length(data, at + 1, end)
    stop = start + size
    if stop > end:
        raise DerError("an element is longer than what holds it")
    body = data[start:stop]
    if not tag & 0x20:
        if tag & 0xC0 == 0:
            _primitive(tag, body)
        return Element(tag, body), stop
    if tag & 0xC0 == 0 and tag not in (SEQUENCE, SET):
        raise DerError(f"tag {tag:02x} must be primitive")
    children = []
    while start < stop:
        child, start = _element(data, start, stop, depth + 1, budget)
        children.append(child)
    if tag == SET:
        require_set_order(children)
    return Element(tag, body, children), stop


def require_set_order(children):
    encoded = [child.encode() for child in children]
    if encoded != sorted(encoded):
        raise DerError("SET OF is not in order")


def _primitive(tag, body):
    if tag in (SEQUENCE & 0x1F, SET & 0x1F):
        raise DerError(f"tag {tag:02x} must be constructed")
    if tag == BOOLEAN and body not in (b"\x00", b"\xff"):
        raise DerError("BOOLEAN")
    if tag in (INTEGER, ENUMERATED):
        if not body:
            raise DerError("empty INTEGER")
        if len(body) > 1 and (body[0] == 0 and body[1] < 0x80 or body[0] == 0xFF and body[1] >= 0x80):
            raise DerError("INTEGER is not minimal")
    if tag == BIT_STRING:
        if not body or body[0] > 7 or (len(body) == 1 and body[0]):
            raise DerError("BIT STRING: unused bits")
        if body[0] and body[-1] & ((1 << body[0]) - 1):
            raise DerError("BIT STRING: unused bits are not zero")
    if tag == NULL and body:
        raise DerError("NULL with content")
    if tag == OID:
        _identifier(body)


def _identifier(body):
    if not body or body[-1] & 0x80:
        raise DerError("object identifier is cut off")
    fresh = True
    for byte in body:
        if fresh and byte == 0x80:
            raise DerError("object identifier is not minimal")
        fresh = not byte & 0x80


class Fields:
    """The elements within a constructed one, taken in order; close() refuses what is left."""

    def __init__(self, element, what):
        if element.children is None:
            raise DerError(f"{what}: not constructed")
        self.left = list(element.children)
        self.what = what

    def take(self, tag, name):
        if not self.left or self.left[0].tag != tag:
            found = f"tag {self.left[0].tag:02x}" if self.left else "nothing"
            raise DerError(f"{self.what}: {name}: {found} where tag {tag:02x} must be")
        return self.left.pop(0)

    def maybe(self, tag):
        return self.left.pop(0) if self.left and self.left[0].tag == tag else None

    def close(self):
        if self.left:
            raise DerError(f"{self.what}: tag {self.left[0].tag:02x} more than there may be")
