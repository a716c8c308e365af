#!/usr/bin/python3
"""A second implementation of bk archives, written from docs/FORMAT.md alone, for tests and for people who want to know
whether that page is enough. Keys are in software.

    bk_interop.py read   --trust [ROLE:]PEM... --key KEY... ARCHIVE OUT      OUT: a file, or - (group by group)
    bk_interop.py verify --trust [ROLE:]PEM... [--key KEY...] ARCHIVE        without a key: all but the tags
    bk_interop.py write  --recipient PEM|aes:HEX:IDHEX... --sign KEY,CERT... [options] INPUT ARCHIVE
    bk_interop.py check  FOLDER                                              the vectors that FOLDER/index.tsv lists
    bk_interop.py parts  FOLDER OUT      of those that open: OUT/NAME.envelope, .manifest, .record (if it is signed),
                                         .package (the key package, in the clear) and .signers (certificates);
                                         on standard output NAME and its keys

KEY is the PEM file of a private key, or aes:HEX:IDHEX. --rotate PEM is --trust rotate:PEM. What is refused is named as
"refused: LAYER: why", and the exit status is that of docs/CLI.md.
"""

import argparse
import csv
import datetime
import hashlib
import itertools
import multiprocessing
import os
import sys

from cryptography import x509
from cryptography.hazmat.primitives import serialization

import keys
import reader
import rules
import writer


def read(path, trust, keyring, sidecar=None, take=lambda data: None, decrypt=True):
    """All checks of section 17; take gets the plaintext, each group after it was checked."""
    archive = reader.Archive(path, trust, sidecar)
    if decrypt:
        archive.open(keyring)
    for plaintext in archive.groups(decrypt):
        take(plaintext)
    return archive


# --- read and verify -------------------------------------------------------------


def trust_of(args):
    trust = reader.Trust()
    for spec in args.trust:
        trust.add(spec)
    for spec in args.rotate:
        trust.add("rotate:" + spec)
    return trust


def read_command(args):
    keyring = [keys.Key(name) for name in args.key]
    if args.output == "-":
        read(args.archive, trust_of(args), keyring, args.sidecar, sys.stdout.buffer.write)
        return
    staged = args.output + ".part"
    try:
        with open(staged, "xb") as file:
            read(args.archive, trust_of(args), keyring, args.sidecar, file.write)
        os.replace(staged, args.output)
    except BaseException:
        os.unlink(staged)
        raise


def verify_command(args):
    keyring = [keys.Key(name) for name in args.key]
    read(args.archive, trust_of(args), keyring, args.sidecar, decrypt=bool(keyring)).check_slots()


# --- write ------------------------------------------------------------------------


def load_signer(spec):
    key_path, certificate_path = spec.split(",")
    with open(key_path, "rb") as file:
        private = serialization.load_pem_private_key(file.read(), None)
    with open(certificate_path, "rb") as file:
        certificate = x509.load_pem_x509_certificate(file.read())
    return writer.Signer(private, certificate.public_bytes(serialization.Encoding.DER))


def load_recipients(specs, oaep):
    found = []
    for spec in specs:
        if spec.startswith("aes:"):
            _, secret, identifier = spec.split(":")
            found.append(writer.Recipient(secret=bytes.fromhex(secret), identifier=bytes.fromhex(identifier)))
        else:
            found += [
                writer.Recipient(public=serialization.load_der_public_key(spki), oaep=oaep)
                for spki, _ in keys.load_pem(spec)
            ]
    return found


def other_archive(value):
    if value is None:
        return None
    archive_id, digest = value.split(":")
    return bytes.fromhex(archive_id.replace("-", "")), bytes.fromhex(digest)


def rotations_of(args, recipients, created_at):
    """Generations 2 to N; the last one is for those of --rotate-to, if any."""
    rotators = [load_signer(spec) for spec in args.rotate_sign]
    last = load_recipients(args.rotate_to, args.oaep) or recipients
    made = []
    for generation in range(2, args.generations + 1):
        chosen = last if generation == args.generations else recipients
        moment = created_at + datetime.timedelta(days=generation)
        info = writer.RecordInfo(moment, proven=tuple(r.id for r in chosen), reason=f"rotation {generation}")
        made.append(writer.Rotation(chosen, rotators, info))
    return tuple(made)


def write_command(args):
    created_at = args.created_at or datetime.datetime.utcnow().replace(microsecond=0)
    recipients = load_recipients(args.recipient, args.oaep)
    with open(args.input, "rb") as file:
        plaintext = file.read()
    made = writer.write(
        writer.Spec(
            plaintext=plaintext,
            recipients=recipients,
            signers=[load_signer(spec) for spec in args.sign],
            entropy=keys.Entropy(),
            info=writer.RecordInfo(created_at),
            created_at=created_at,
            segment_size=args.segment_size,
            slot_size=args.slot_size,
            detached=args.detached,
            metadata=tuple(item.split("=", 1) for item in args.meta),
            kind=writer.KINDS.index(args.kind),
            parent=other_archive(args.parent),
            sequence=args.sequence,
            retain_until=args.retain_until,
            label=args.label,
            policy_digest=bytes.fromhex(args.policy_digest) if args.policy_digest else None,
            producer=args.producer,
            supersedes=other_archive(args.supersedes),
            rotations=rotations_of(args, recipients, created_at),
        )
    )
    with open(args.archive, "wb") as file:
        file.write(made.data)
    if made.sidecar is not None:
        with open(args.archive + ".keys", "wb") as file:
            file.write(made.sidecar)


# --- check ---------------------------------------------------------------------------


def outcome(path, trust, keyring, decrypt=True):
    """Of reading: (exit status, layer, kind, length and digest of the plaintext that was released), as an index has
    them; and STATUS:LAYER of bk-verify, which also reports a damaged slot."""
    released = hashlib.sha256()
    size = 0

    def take(data):
        nonlocal size
        size += len(data)
        released.update(data)

    def result(error):
        return (str(error.exit_code), error.layer, error.kind) if error else ("0", "-", "ok")

    failed = reported = None
    try:
        archive = read(path, trust, keyring, take=take, decrypt=decrypt)
    except reader.Refused as error:
        failed = reported = error
    if not failed:
        try:
            archive.check_slots()
        except reader.Refused as error:
            reported = error
    return (*result(failed), str(size), released.hexdigest()), ":".join(result(reported)[:2])


def check_vector(task):
    """What differs from the index, a line each. Each of the keys alone must bring about the same."""
    folder, row = task
    path = os.path.join(folder, row["name"])
    trust = reader.Trust()
    for spec in row["trust"].split():
        trust.add(spec, folder)
    found = []
    wanted = (row["exit"], row["layer"], row["kind"], row["released"], row["sha256"])
    for name in row["keys"].split():
        key = keys.Key(name if name.startswith("aes:") else os.path.join(folder, name))
        seen, verified = outcome(path, trust, [key])
        if seen != wanted:
            found.append(f"{row['name']}: read with {name[:20]}: {' '.join(seen)}, not {' '.join(wanted)}")
        if verified != row["decrypt"]:
            found.append(f"{row['name']}: verify with {name[:20]}: {verified}, not {row['decrypt']}")
    _, verified = outcome(path, trust, [], decrypt=False)
    if verified != row["integrity"]:
        found.append(f"{row['name']}: verify without a key: {verified}, not {row['integrity']}")
    return found


def read_index(folder):
    with open(os.path.join(folder, "index.tsv"), encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def check_command(args):
    rows = read_index(args.folder)
    with multiprocessing.Pool() as pool:
        results = pool.map(check_vector, [(args.folder, row) for row in rows], chunksize=8)
    for line in itertools.chain.from_iterable(results):
        print(line)
    wrong = sum(bool(lines) for lines in results)
    print(f"{len(rows)} vectors, {wrong} wrong")
    if wrong or not rows:
        sys.exit(1)


def parts_command(args):
    for row in read_index(args.folder):
        if row["exit"] != "0":
            continue
        trust = reader.Trust()
        for spec in row["trust"].split():
            trust.add(spec, args.folder)
        archive = reader.Archive(os.path.join(args.folder, row["name"]), trust)
        names = [name if name.startswith("aes:") else os.path.join(args.folder, name) for name in row["keys"].split()]
        archive.open([keys.Key(names[0])])
        found = {
            "envelope": archive.slot.envelope,
            "manifest": archive.file.at(archive.layout.manifest_offset, archive.layout.manifest_length),
            "package": archive.package.der,
        }
        signers = list(archive.signed.signers)
        if archive.slot.generation > 1:
            found["record"] = archive.slot.record
            signers += reader.Signed(archive.slot.record, rules.KEY_RECORD).signers
        found["signers"] = b"".join(keys.to_pem(signer.der) for signer in signers)
        for kind, data in found.items():
            with open(os.path.join(args.output, f"{row['name']}.{kind}"), "wb") as file:
                file.write(data)
        print(row["name"], *names)


def moment(value):
    return datetime.datetime.strptime(value, "%Y%m%d%H%M%SZ")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, run in (("read", read_command), ("verify", verify_command)):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("--trust", action="append", default=[])
        command.add_argument("--rotate", action="append", default=[])
        command.add_argument("--key", action="append", default=[])
        command.add_argument("--sidecar")
        command.add_argument("archive")
        if run is read_command:
            command.add_argument("output")
    command = commands.add_parser("write")
    command.set_defaults(run=write_command)
    for name in ("recipient", "sign", "meta", "rotate-sign", "rotate-to"):
        command.add_argument("--" + name, action="append", default=[], required=name in ("recipient", "sign"))
    command.add_argument("--oaep", choices=("sha256", "sha1"), default="sha256")
    command.add_argument("--segment-size", type=int, default=32768)
    command.add_argument("--slot-size", type=int)
    command.add_argument("--generations", type=int, default=1)
    command.add_argument("--detached", action="store_true")
    command.add_argument("--kind", choices=writer.KINDS, default="full")
    for name in ("parent", "supersedes", "sequence", "label", "policy-digest", "producer"):
        command.add_argument("--" + name)
    for name in ("created-at", "retain-until"):
        command.add_argument("--" + name, type=moment, help="YYYYMMDDHHMMSSZ")
    command.add_argument("input")
    command.add_argument("archive")
    command = commands.add_parser("check")
    command.set_defaults(run=check_command)
    command.add_argument("folder")
    command = commands.add_parser("parts")
    command.set_defaults(run=parts_command)
    command.add_argument("folder")
    command.add_argument("output")
    args = parser.parse_args()
    try:
        args.run(args)
    except reader.Refused as error:
        print(f"refused: {error.layer}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
