#!/usr/bin/env bash
# Installs the Debian packages that building and testing bk needs, as far as they are missing. With all of them present
# it changes nothing and needs no privileges. It leaves nothing behind but packages.
#
#     tests/setup.sh [SUITE...]     and those that tests/tokens/ (tokens), tests/fuzz/run.sh (fuzz), tests/lint.sh (lint),
#                                   tests/long/coverage_test.sh (coverage) and tests/bench/run.sh (bench) need
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive

packages=(
    build-essential cmake ninja-build pkg-config         # to build
    libssl-dev libp11-kit-dev libtasn1-6-dev libtasn1-bin libjansson-dev libinih-dev
    scdoc                                                # manual pages
    man-db zsh                                           # tests/cli/docs_test.sh: pages and completion as they are used
    libcmocka-dev                                        # unit tests
    softhsm2 p11-kit opensc                              # a token, and a second opinion on what is in it
    openssl libengine-pkcs11-openssl                     # break-glass with stock tools
    python3 python3-cryptography                         # docs/recover.py
    postgresql                                           # a real database to back up; pgbench is in it
)

# the fast engine of the payload; for this architecture alone
if [[ $(dpkg --print-architecture) == amd64 ]]; then packages+=(libipsec-mb-dev); fi

for suite in "$@"; do
    case $suite in
    fuzz) packages+=(clang libclang-rt-14-dev) ;;
    lint) packages+=(clang-format clang-tidy cppcheck universal-ctags) ;;
    coverage) packages+=(gcovr) ;;
    bench) packages+=(age gpg gpg-agent restic borgbackup) ;;
    tokens)
        packages+=(
            libnss3 libnss3-tools opencryptoki
            # a TPM, but for the packages with its module, which tests/tokens/tokens.sh only unpacks: installed, every
            # program that uses p11-kit would load it
            swtpm tpm2-abrmd tpm2-tools dbus libtss2-esys-3.0.2-0 libtss2-mu0 libtss2-rc0 libtss2-tctildr0
            libtss2-tcti-tabrmd0 libsqlite3-0 libyaml-0-2
            python3-bcrypt python3-cryptography python3-pyasn1 python3-pyasn1-modules python3-tpm2-pytss python3-yaml
        )
        ;;
    *)
        printf 'usage: tests/setup.sh [tokens] [fuzz] [lint] [coverage] [bench]\n' >&2
        exit 2
        ;;
    esac
done

missing() {
    local package
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || printf '%s\n' "$package"
    done
}

# What apt says is shown only if it fails.
get() {
    local log rc=0
    log=$(mktemp)
    apt-get install -qq -y --no-install-recommends -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 "$@" \
        >"$log" 2>&1 </dev/null || rc=$?
    ((rc == 0)) || cat "$log" >&2
    rm -f "$log"
    return "$rc"
}

# PostgreSQL's package makes a cluster and starts a server when it is installed; the tests make their own in a temporary
# folder. postgresql-common comes first, because it brings the file that says so; the file is put back as it was, however
# this ends.
get_postgresql() (
    conf=/etc/postgresql-common/createcluster.conf
    get postgresql-common || exit
    kept=$(mktemp)
    cp -p "$conf" "$kept"
    trap 'cp -p "$kept" "$conf"; rm -f "$kept"' EXIT
    printf '\ncreate_main_cluster = false\n' >>"$conf"
    get "$@"
)

install() {
    local plain=() postgresql=() package
    for package in "$@"; do
        if [[ $package == postgresql ]]; then postgresql+=("$package"); else plain+=("$package"); fi
    done
    apt-get update -qq || return
    ((${#plain[@]} == 0)) || get "${plain[@]}" || return
    ((${#postgresql[@]} == 0)) || get_postgresql "${postgresql[@]}"
}

mapfile -t wanted < <(missing "${packages[@]}")
((${#wanted[@]} == 0)) && exit 0
if ((EUID != 0)); then
    printf 'tests/setup.sh: these packages are missing, and only root can install them: %s\n' "${wanted[*]}" >&2
    exit 1
fi
printf 'installing: %s\n' "${wanted[*]}"
install "${wanted[@]}" || { sleep 10; install "${wanted[@]}"; }
mapfile -t wanted < <(missing "${packages[@]}")
if ((${#wanted[@]} != 0)); then
    printf 'tests/setup.sh: could not be installed: %s\n' "${wanted[*]}" >&2
    exit 1
fi
