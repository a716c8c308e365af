# shellcheck shell=bash
# Completion of bk's programs for bash; needs nothing but bash. Installed as bk-wrap, with the other names linked to it.

# The long options of a program, each with what its value is: - none, file, key, uri, text, or words to choose from.
_bk_options() {
    printf '%s\n' 'profile profile' 'config file' 'quiet -' 'progress auto,always,never' 'token-timeout text' \
        'json -' 'help -' 'version -'
    case $1 in
    bk-wrap)
        printf '%s\n' 'recipient key' 'sign uri' 'sign-cert file' 'token-profile file' 'output file' 'batch file' 'null -' \
            'detach -' 'manifest file' 'kind full,incremental,wal,snapshot,other' 'public-label text' 'retain-until text' \
            'parent file' 'sequence text' 'meta text' 'meta-file file' 'allow-empty -' 'force -' 'jobs text' \
            'engine auto,openssl,ipsec-mb' 'direct -'
        ;;
    bk-unwrap)
        printf '%s\n' 'trust trust' 'key uri' 'output file' 'range text' 'meta -' 'expect expect' \
            'min-generation text' 'manifest file' 'allow-unverified -' 'raw-rsa -' 'restore-command -' 'force -' 'jobs text' \
            'engine auto,openssl,ipsec-mb' 'direct -'
        ;;
    bk-verify)
        printf '%s\n' 'level signature,integrity,decrypt' 'trust trust' 'key uri' 'expect expect' \
            'min-generation text' 'manifest file' 'raw-rsa -' 'show -' 'jobs text' \
            'engine auto,openssl,ipsec-mb' 'direct -'
        ;;
    bk-rekey)
        printf '%s\n' 'from uri' 'to key' 'add key' 'remove text' 'sign uri' 'sign-cert file' 'trust trust' \
            'token-profile file' 'blind required,preferred,off' 'unproven -' 'raw-rsa -' 'reason incident,departure,ownership,provider,audit,age' \
            'sidecar -' 'dry-run -'
        ;;
    bk-key)
        printf '%s\n' 'type rsa3072,rsa4096,p256,p384,aes256' 'use kek,sign,rotate' 'owner text' 'days text' 'output file' \
            'force -' 'on-token -' 'max-age text' 'sign uri' 'sign-cert file' 'against file' 'trust trust'
        ;;
    esac
}

# The long name of a short option.
_bk_long() {
    case $1 in
    -r) printf recipient ;;
    -s) printf sign ;;
    -o) printf output ;;
    -j) printf jobs ;;
    -t) printf trust ;;
    -k) printf key ;;
    --*) printf %s "${1#--}" ;;
    esac
}

# The profiles in the file that the command line, the environment or the usual places name.
_bk_profiles() {
    local i file=''
    for ((i = 1; i < COMP_CWORD; i++)); do
        if [[ ${COMP_WORDS[i]} == --config ]]; then file=${COMP_WORDS[i + 1]}; fi
    done
    file=${file:-${BK_CONFIG:-}}
    if [[ -z $file ]]; then
        file=${XDG_CONFIG_HOME:-$HOME/.config}/bk/bk.conf
        [[ -e $file ]] || file=/etc/bk/bk.conf
    fi
    sed -n 's/^[[:blank:]]*\[\([^][:blank:]]*\)][[:blank:]]*$/\1/p' "${file/#\~\//$HOME/}" 2>/dev/null
}

_bk_words() { mapfile -t COMPREPLY < <(compgen -W "$1" -- "$2"); }

_bk_files() {
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$1")
}

_bk_value() {
    local kind=$1 cur=$2
    case $kind in
    file) _bk_files "$cur" ;;
    profile) _bk_words "$(_bk_profiles)" "$cur" ;;
    text) COMPREPLY=() ;;
    uri)
        compopt -o nospace 2>/dev/null
        _bk_words 'pkcs11:' "$cur"
        ;;
    key)
        _bk_files "$cur"
        [[ -z $cur ]] || { [[ pkcs11: == "$cur"* ]] && COMPREPLY+=('pkcs11:'); } || true
        ;;
    trust)
        _bk_files "$cur"
        if [[ -n $cur && rotate: == "$cur"* ]]; then COMPREPLY+=('rotate:'); fi
        ;;
    expect)
        compopt -o nospace 2>/dev/null
        _bk_words 'archive= manifest= label= signer= sequence= created-after=' "$cur"
        ;;
    *) _bk_words "${kind//,/ }" "$cur" ;;
    esac
}

# Behind "--" stands another command.
_bk_command() {
    local at=$1
    if declare -F _command_offset >/dev/null; then
        _command_offset "$at"
    elif ((COMP_CWORD == at)); then
        mapfile -t COMPREPLY < <(compgen -c -- "${COMP_WORDS[COMP_CWORD]}")
    else
        _bk_files "${COMP_WORDS[COMP_CWORD]}"
    fi
}

_bk() {
    local program=${1##*/} cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} name kind wanted i
    local -a long=()
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        if [[ ${COMP_WORDS[i]} == -- ]]; then
            _bk_command $((i + 1))
            return
        fi
    done
    wanted=$(_bk_long "$prev")
    while read -r name kind; do
        long+=("--$name")
        if [[ $name == "$wanted" && $kind != - ]]; then
            _bk_value "$kind" "$cur"
            return
        fi
    done < <(_bk_options "$program")
    if [[ $cur == -* ]]; then
        _bk_words "${long[*]}" "$cur"
    elif [[ $program == bk-key ]] && ((COMP_CWORD == 1)); then
        _bk_words 'generate list show export probe audit' "$cur"
    elif [[ $program == bk-key ]]; then
        _bk_value uri "$cur"
    else
        _bk_files "$cur"
    fi
}

complete -F _bk bk-wrap bk-unwrap bk-verify bk-rekey bk-key
