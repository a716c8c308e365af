"""The command lines that are compared: bk, and those that people use today, on the same file."""

import os
import shutil
import subprocess
from pathlib import Path

KEY = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
IV = "0" * 32
PIN = "123456"


def quiet(argv):
    """Runs it for what it makes; what it says is shown only if it fails."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    said = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        raise RuntimeError(f"{Path(argv[0]).name} ended with {done.returncode}: {said[-2000:]}")
    return said


def help_of(program):
    return subprocess.run([program, "--help"], capture_output=True, text=True, check=False).stdout


class Bk:
    """bk's programs, with two SoftHSM tokens: a signer's, and one with the key that opens archives."""

    def __init__(self, folder, scratch):
        self.folder = folder
        self.scratch = scratch
        self.module = next(Path("/usr/lib").rglob("libsofthsm2.so"))
        self.make_tokens()
        self.engines = self.find_engines()

    def program(self, name):
        return str(self.folder / name)

    def make_tokens(self):
        conf, tokens, pin = (self.scratch / name for name in ("softhsm2.conf", "tokens", "pin"))
        tokens.mkdir()
        conf.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
        os.environ["SOFTHSM2_CONF"] = str(conf)
        pin.write_text(PIN)
        pin.chmod(0o600)
        for label in ("signer", "kek"):
            quiet(["softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "87654321"])
        for name in ("a", "b", "next"):
            self.make_key("kek", name, "kek")
        for name in ("backup", "rotator"):
            self.make_key("signer", name, "sign")

    def make_key(self, token, name, use):
        options = f"generate -q --type p256 --use {use} -o".split()
        quiet([self.program("bk-key"), *options, self.pem(name), self.uri(token, name)])

    def pem(self, name):
        return str(self.scratch / f"{name}.pem")

    def uri(self, token, name):
        return f"pkcs11:token={token};object={name}?module-path={self.module}&pin-source=file:{self.scratch}/pin"

    def find_engines(self):
        """The values of --engine that work here; [None] where there is no such option."""
        self.gaps = {}
        if not self.has("--engine"):
            self.gaps["--engine"] = "bk-wrap has no --engine in this build: one row, of what it takes by itself"
            return [None]
        works = []
        for engine in ("openssl", "ipsec-mb"):
            try:
                quiet(self.wrap(engine, "-", self.pem("a")))
                works.append(engine)
            except RuntimeError as error:
                self.gaps[f"--engine {engine}"] = f"does not work here: {str(error).strip().splitlines()[-1]}"
        return works or [None]

    @property
    def best(self):
        return self.engines[-1]

    def command(self, program, engine, *rest):
        return [self.program(program), "-q", *(["--engine", engine] if engine else []), *rest]

    def wrapping(self, engine, *rest):
        signer = self.uri("signer", "backup")
        return self.command("bk-wrap", engine, "-r", self.pem("a"), "-r", self.pem("b"), "-s", signer, *rest)

    def wrap(self, engine, out, *source):
        return self.wrapping(engine, "-o", out, *source)

    def wrap_batch(self, listed):
        """listed: a file of lines of batch_line()."""
        return self.wrapping(self.best, "--batch", str(listed))

    def unwrap(self, engine, out, archive, *more):
        trust, key = self.pem("backup"), self.uri("kek", "a")
        return self.command("bk-unwrap", engine, "-t", trust, "-k", key, *more, "-o", out, archive)

    def verify(self, engine, archive):
        return self.command("bk-verify", engine, "-t", self.pem("backup"), archive)

    def rekey(self, archive):
        keys = ["--from", self.uri("kek", "a"), "--to", self.uri("kek", "next"), "-s", self.uri("signer", "rotator")]
        trust = ["-t", self.pem("backup"), "-t", f"rotate:{self.pem('rotator')}"]
        return self.command("bk-rekey", None, "--json", *keys, *trust, archive)

    def has(self, option):
        return option in help_of(self.program("bk-wrap"))


def batch_line(source, out):
    return f"{source}\t{out}\n"


def named(program, engine):
    return f"{program} {engine}" if engine else program


class Peers:
    """The keys and repositories of the others."""

    def __init__(self, scratch):
        self.scratch = scratch
        self.age_key = scratch / "age.key"
        quiet(["age-keygen", "-o", str(self.age_key)])
        self.age_recipient = quiet(["age-keygen", "-y", str(self.age_key)]).strip()
        os.environ.update(GNUPGHOME=str(scratch / "gnupg"), BORG_BASE_DIR=str(scratch / "borg-base"))
        os.environ.update(BORG_PASSPHRASE="bench", RESTIC_PASSWORD="bench")
        (scratch / "gnupg").mkdir(mode=0o700)
        quiet(["gpg", "--batch", "--quiet", "--passphrase", "", *"--quick-gen-key bench default default never".split()])

    def end(self):
        """gpg leaves an agent running."""
        quiet(["gpgconf", "--kill", "all"])

    def age(self, out, *source):
        return ["age", "-r", self.age_recipient, *(["-o", out] if out != "-" else []), *source]

    def age_open(self, out, *source):
        return ["age", "-d", "-i", str(self.age_key), *(["-o", out] if out != "-" else []), *source]

    def gpg(self, out, *source):
        options = "--batch --quiet --trust-model always -r bench --cipher-algo AES256 --compress-algo none".split()
        return ["gpg", *options, "-o", out, "-e", *source]

    def gpg_open(self, out, *source):
        return ["gpg", "--batch", "--quiet", "-o", out, "-d", *source]

    def openssl(self, out, *source, way="-e"):
        cipher = f"{way} -aes-256-ctr -bufsize 131072 -K {KEY} -iv {IV}".split()
        files = [*(["-in", *source] if source else []), *(["-out", out] if out != "-" else [])]
        return ["openssl", "enc", *cipher, *files]

    def openssl_open(self, out, *source):
        return self.openssl(out, *source, way="-d")

    def repository(self):
        return self.scratch / "repository"

    def drop_repository(self):
        for path in (self.repository(), self.scratch / "borg-base"):
            shutil.rmtree(path, ignore_errors=True)

    def restic_init(self):
        self.drop_repository()
        quiet(["restic", "init", "--no-cache", "--repository-version", "2", "-r", str(self.repository())])

    def borg_init(self):
        self.drop_repository()
        quiet(["borg", "init", "-e", "repokey", str(self.repository())])

    def restic(self, source):
        options = "backup --quiet --no-cache --compression off -r".split()
        return ["restic", *options, str(self.repository()), "--stdin" if source == "-" else source]

    def borg(self, source):
        return ["borg", "create", "--compression", "none", f"{self.repository()}::a", source]
