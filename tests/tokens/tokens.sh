# shellcheck shell=bash
# Real PKCS#11 modules from Debian's packages, each with one fresh token, for tests that have sourced tests/cli/lib.sh
# and run in namespaces of their own (see end_to_end_test.sh): p11-kit knows these modules and no others.
#
#     start_MODULE     starts it; afterwards `key MODULE OBJECT` is a URI of its token, `kinds MODULE` says what it can do
#
# What a module needs beside itself (a daemon, a bus, a simulator) is ended with the namespace.

# use_no_module : forgets the system's own configuration of modules.
use_no_module() {
    mkdir -p "$T/modules"
    mount --bind "$T/modules" /usr/share/p11-kit/modules
    if [[ -d /etc/pkcs11/modules ]]; then mount -t tmpfs tmpfs /etc/pkcs11/modules; fi
}

# module NAME PATH [LINE...] : from now on p11-kit knows it.
module() {
    printf 'module: %s\n' "$2" >"$T/modules/$1.module"
    if (($# > 2)); then printf '%s\n' "${@:3}" >>"$T/modules/$1.module"; fi
}

# pin NAME TEXT
pin() { (umask 077 && printf '%s\n' "$2" >"$T/$1.pin"); }

# key MODULE OBJECT : its URI.
key() { printf 'pkcs11:token=%s;object=%s?pin-source=file:%s/%s.pin' "$(label "$1")" "$2" "$T" "$1"; }

label() {
    case $1 in
    nss) printf 'NSS%%20Certificate%%20DB' ;;
    remote) printf 'far' ;;
    *) printf '%s' "$1" ;;
    esac
}

# kinds MODULE : the KEKs that it can keep, strongest first.
kinds() {
    case $1 in
    softhsm | nss) echo 'aes256 p256 p384 rsa3072' ;;
    *) echo rsa3072 ;;
    esac
}

# signs MODULE : its signing keys, the usual one first.
signs() {
    case $1 in
    opencryptoki) echo rsa3072 ;;
    *) echo 'p256 p384 rsa3072' ;;
    esac
}

start_softhsm() {
    use_tokens softhsm-tokens
    make_token softhsm
    module softhsm "$SOFTHSM"
}

start_nss() {
    pin nss 'a pin of NSS'
    mkdir "$T/nss"
    certutil -N -d "sql:$T/nss" -f "$T/nss.pin"
    module nss "$(find /usr/lib -name libsoftokn3.so -print -quit)" \
        "x-init-reserved: configdir='sql:$T/nss' certPrefix='' keyPrefix='' secmod='secmod.db' flags="
}

# A server of another host's token: SoftHSM with a folder of its own, which the server alone sees.
start_remote() {
    local here=$SOFTHSM2_CONF
    use_tokens far-tokens
    make_token far
    cp -p "$T/far.pin" "$T/remote.pin"
    p11-kit server --provider "$SOFTHSM" -n "$T/far.sock" 'pkcs11:token=far' >"$T/far.log" 2>&1
    export SOFTHSM2_CONF=$here
    export P11_KIT_SERVER_ADDRESS=unix:path=$T/far.sock
    module remote "$(find /usr/lib -name p11-kit-client.so -print -quit)"
}

start_opencryptoki() {
    local folder
    for folder in /etc/opencryptoki /var/lib/opencryptoki /var/log/opencryptoki; do
        mkdir -p "$T/ock$folder"
        cp -a "$folder/." "$T/ock$folder"
        mount --bind "$T/ock$folder" "$folder"
    done
    mount -t tmpfs tmpfs /run
    mount -t tmpfs tmpfs /dev/shm
    mkdir -p /run/lock/opencryptoki /run/opencryptoki
    printf 'version opencryptoki-3.1\nslot 0\n{\nstdll = libpkcs11_sw.so\n}\n' >/etc/opencryptoki/opencryptoki.conf
    pkcsslotd
    {
        echo opencryptoki | pkcsconf -I -c 0 -S 87654321
        pkcsconf -P -c 0 -S 87654321 -n 56785678
        pkcsconf -u -c 0 -S 56785678 -n 11112222
        pkcsconf -p -c 0 -U 11112222 -n 12341234
    } >"$T/ock.log" 2>&1
    pin opencryptoki 12341234
    module opencryptoki "$(find /usr/lib -name libopencryptoki.so -print -quit)"
}

# unpack PACKAGE... : Debian packages under build/tokens/root, without installing them.
unpack() {
    local package folder=$ROOT/build/tokens
    mkdir -p "$folder/root"
    for package in "$@"; do
        [[ ! -e $folder/$package.unpacked ]] || continue
        compgen -G "$folder/${package}_*.deb" >/dev/null || (cd "$folder" && apt-get download -qq "$package") 2>/dev/null
        dpkg -x "$folder/$package"_*.deb "$folder/root"
        : >"$folder/$package.unpacked"
    done
}

start_tpm() {
    local root=$ROOT/build/tokens/root
    unpack libtpm2-pkcs11-1 libtpm2-pkcs11-tools python3-tpm2-pkcs11-tools
    export PYTHONPATH=$root/usr/lib/python3/dist-packages PYTHONDONTWRITEBYTECODE=1
    mkdir -p "$T/tpm/state" "$T/tpm/store"
    swtpm socket --tpm2 --tpmstate "dir=$T/tpm/state" --ctrl "type=unixio,path=$T/tpm/s.ctrl" \
        --server "type=unixio,path=$T/tpm/s" --flags not-need-init,startup-clear --daemon
    dbus-daemon --session "--address=unix:path=$T/tpm/bus" --fork --nopidfile
    export DBUS_SESSION_BUS_ADDRESS=unix:path=$T/tpm/bus
    # a simulator alone runs out of places for objects: a resource manager stands before it
    tpm2-abrmd --allow-root --session "--tcti=swtpm:path=$T/tpm/s" --max-transients=100 >"$T/tpm/abrmd.log" 2>&1 &
    export TPM2_PKCS11_STORE=$T/tpm/store TPM2_PKCS11_TCTI=tabrmd:bus_type=session TPM2TOOLS_TCTI=tabrmd:bus_type=session
    sleep 1
    pin tpm 'a pin of the TPM'
    "$root/usr/bin/tpm2_ptool" init --path "$T/tpm/store" >"$T/tpm/ptool.log" 2>&1
    "$root/usr/bin/tpm2_ptool" addtoken --path "$T/tpm/store" --pid 1 --label tpm --userpin "$(cat "$T/tpm.pin")" --sopin 5678 \
        >>"$T/tpm/ptool.log" 2>&1
    module tpm "$(find "$root" -name libtpm2_pkcs11.so -print -quit)"
}
