#!/usr/bin/env bash
# Puts into tests/fuzz/corpus.tar.xz what earlier runs of the fuzzers on this machine found and the seeds do not cover:
# the smallest inputs that reach something new, of at most 8 KiB each.
set -euo pipefail
cd "$(dirname "$0")/../.."

max_bytes=8192
work=build/fuzz/work
kept=build/fuzz/corpus

export ASAN_OPTIONS=quarantine_size_mb=8
rm -rf "$kept"
for source in tests/fuzz/*_fuzz.c; do
    name=$(basename "$source" _fuzz.c)
    mkdir -p "$kept/$name" "$work/$name" "$work/seeds/$name" "$work/small/$name"
    find "$work/$name" -type f -size -$((max_bytes + 1))c -exec cp -t "$work/small/$name" {} +
    # what seeds cover already is in the first folder, and is taken out again
    cp -n "$work/seeds/$name"/* "$kept/$name" 2>/dev/null || true
    "build/fuzz/tests/fuzz/${name}_fuzz" -merge=1 -timeout=25 -rss_limit_mb=3072 "$kept/$name" "$work/small/$name" \
        >"$work/$name.merge.log" 2>&1 </dev/null
    for seed in "$work/seeds/$name"/*; do rm -f "$kept/$name/$(basename "$seed")"; done
    rm -rf "$work/small"
    printf '%-10s %5d inputs\n' "$name" "$(find "$kept/$name" -type f | wc -l)"
done
tar -C "$kept" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cJf tests/fuzz/corpus.tar.xz .
ls -l tests/fuzz/corpus.tar.xz
