#!/usr/bin/python3
"""Makes the vectors: archives with exactly one property or one defect each, and the index that says what must become of
each. Keys, times and randomness come from seeds, so that a run always makes the same bytes.

    make.py FOLDER      into a new folder: archives, keys/ and index.tsv
    make.py --pack      tests/vectors/vectors.tar.xz and index.tsv, which is also in it

index.tsv, a line for each archive:

    name       the file; a detached archive has NAME.keys beside it
    trust      what -t is given, as in docs/CLI.md
    keys       decryption keys, each of which alone must meet this fate: PEM files, or aes:KEY:ID in hexadecimal
    exit       the exit status of docs/CLI.md
    kind       ok, refused, newer, incomplete, untrusted, no-trust, no-key
    layer      which part refuses, as docs/CLI.md and docs/FORMAT.md section 17 name it
    released   bytes of plaintext that may go to standard output before, each group after it was checked
    sha256     of these bytes
    decrypt    STATUS:LAYER of bk-verify --level decrypt
    integrity  STATUS:LAYER of bk-verify --level integrity, without a key
    defect     in words
"""

import hashlib
import io
import os
import shutil
import sys
import tarfile
import tempfile

import world  # first: it finds tests/interop for the others

import bad_archive
import bad_envelope
import bad_record
import bad_signed
import good

COLUMNS = ("name", "trust", "keys", "exit", "kind", "layer", "released", "sha256", "decrypt", "integrity", "defect")
HERE = os.path.dirname(os.path.abspath(__file__))
TRUST = (
    "keys/backups.pem rotate:keys/rotators.pem officer:keys/officer.pem custodian:keys/custodian.pem "
    "verify:keys/auditor.pem"
)
# layers at which an archive is refused only by somebody who has a key
WITH_KEY = ("key", "package", "signers", "commitment")


class Collection:
    """Writes archives into a folder and collects their lines of the index."""

    def __init__(self, folder, the_world):
        self.folder = folder
        self.world = the_world
        self.rows = []

    def _save(self, name, made):
        data, sidecar = (made, None) if isinstance(made, bytes) else (made.data, made.sidecar)
        for suffix, content in (("", data), (".keys", sidecar)):
            if content is not None:
                with open(os.path.join(self.folder, name + suffix), "xb") as file:
                    file.write(content)

    def _row(self, name, released, keys, trust, **columns):
        columns.update(
            name=name,
            trust=TRUST if trust is None else trust,
            keys=" ".join(self.world.key_name(key) for key in keys),
            released=str(len(released)),
            sha256=hashlib.sha256(released).hexdigest(),
        )
        self.rows.append(columns)

    def good(self, name, what, made, plaintext, keys=("kek-p256",), trust=None, verify="0:-"):
        self._save(name + ".bk", made)
        self._row(
            name + ".bk", plaintext, keys, trust, exit="0", kind="ok", layer="-", decrypt=verify, integrity=verify,
            defect=what,
        )

    def bad(self, name, layer, what, made, kind="refused", released=b"", keys=("kek-p256",), trust=None, keyless=None):
        """keyless: what bk-verify says without a key; "0:-" where only a key shows the defect."""
        status = {"no-trust": "2", "no-key": "3"}.get(kind, "1")
        result = f"{status}:{layer}"
        if keyless is None:
            keyless = "0:-" if layer in WITH_KEY else result
        self._save(name + ".bk", made)
        self._row(
            name + ".bk", released, keys, trust, exit=status, kind=kind, layer=layer, decrypt=result, integrity=keyless,
            defect=what,
        )

    def index(self):
        lines = ["\t".join(COLUMNS)] + ["\t".join(row[column] for column in COLUMNS) for row in self.rows]
        return "".join(line + "\n" for line in lines).encode()


def make(folder):
    os.makedirs(folder)
    the_world = world.World()
    the_world.save_keys(os.path.join(folder, "keys"))
    collection = Collection(folder, the_world)
    for module in (good, bad_archive, bad_envelope, bad_signed, bad_record):
        module.add(collection, the_world)
    with open(os.path.join(folder, "index.tsv"), "wb") as file:
        file.write(collection.index())
    return collection


def pack(folder, archive):
    """The same bytes in, the same tar out. Names are sorted, and what is alike stands together."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz", preset=9, format=tarfile.USTAR_FORMAT) as tar:
        for base, folders, names in os.walk(folder):
            folders.sort()
            for name in sorted(names):
                path = os.path.join(base, name)
                info = tarfile.TarInfo(os.path.relpath(path, folder))
                info.size = os.stat(path).st_size
                info.mode = 0o644
                with open(path, "rb") as file:
                    tar.addfile(info, file)
    with open(archive, "wb") as file:
        file.write(packed.getvalue())


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if sys.argv[1] != "--pack":
        make(sys.argv[1])
        return
    with tempfile.TemporaryDirectory() as folder:
        made = os.path.join(folder, "vectors")
        collection = make(made)
        pack(made, os.path.join(HERE, "vectors.tar.xz"))
        shutil.copyfile(os.path.join(made, "index.tsv"), os.path.join(HERE, "index.tsv"))
        print(f"{len(collection.rows)} vectors, {os.stat(os.path.join(HERE, 'vectors.tar.xz')).st_size} bytes")


if __name__ == "__main__":
    main()
