#!/bin/bash
# Feeds each target, or those that are named, for some time with inputs that
# reach what none has reached before: cargo fuzz, on the Rust that is there.
#   EACH=60        for so many seconds each; 60 if not given
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
each=${EACH:-60}

fail() {
    echo "fuzz: $*" >&2
    exit 1
}

[[ $each =~ ^[1-9][0-9]*$ ]] || fail "EACH is a number of seconds, not '$each'"
# libFuzzer is C++.
command -v c++ >/dev/null || fail "a C++ compiler is missing: apt-get install g++"
command -v cargo-fuzz >/dev/null || cargo install --quiet --locked cargo-fuzz
# Coverage and sanitizers are for nightly Rust, and this makes any one that: the
# compiler is the one that everything else here is built with.
export RUSTC_BOOTSTRAP=1

mapfile -t all < <(cargo fuzz list)
targets=("$@")
[ $# -gt 0 ] || targets=("${all[@]}")
for target in "${targets[@]}"; do
    printf '%s\n' "${all[@]}" | grep -qx "$target" || fail "no target $target: there are ${all[*]}"
    echo "==> $target"
    mkdir -p "corpus/$target"
    # What it finds in a panic, it says, and leaves in artifacts/.
    cargo fuzz run "$target" "corpus/$target" "../crates/fuzz/corpus/$target" -- \
        -max_total_time="$each" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1
done
