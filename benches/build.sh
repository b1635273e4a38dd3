#!/bin/bash
# Builds what the benchmarks compare, apart from wisp itself:
#   build.sh guests         what containers run, in target/bench/guests/
#   build.sh peers          the peer shim, in target/bench/peers/ (10 minutes once),
#                           and what Debian packages: crun
#   build.sh baseline REF   wisp at a git ref, in target/bench/baseline/REF/
set -euo pipefail
cd "$(dirname "$0")/.."
repo=$PWD

fail() {
    echo "benches/build.sh: $*" >&2
    exit 1
}

# place BUILT DIRECTORY: only if it differs, and never half-written.
place() {
    local name
    name=$(basename "$1")
    mkdir -p "$2"
    if ! cmp -s "$1" "$2/$name"; then
        install -m 0755 "$1" "$2/.$name.new"
        mv "$2/.$name.new" "$2/$name"
    fi
}

guests() {
    local host
    host=$(rustc -vV | sed -n 's/^host: //p')
    (
        cd benches/guests
        export CARGO_TARGET_DIR=$repo/target/bench/guests-build
        cargo build --quiet --release --locked --target wasm32-wasip2
        # The same program for native runtimes; static, because its image has no libc.
        RUSTFLAGS="-C target-feature=+crt-static" \
            cargo build --quiet --release --locked --target "$host"
    )
    place "target/bench/guests-build/wasm32-wasip2/release/start.wasm" target/bench/guests
    place "target/bench/guests-build/$host/release/start" target/bench/guests
}

peers() {
    if ! command -v crun >/dev/null; then
        [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null ||
            fail "crun is missing and cannot be installed from here"
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends crun >/dev/null ||
            fail "apt-get could not install crun"
    fi
    if [ ! -e /usr/include/seccomp.h ]; then
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends libseccomp-dev >/dev/null ||
            fail "apt-get could not install libseccomp-dev, which the peer links"
    fi
    (
        cd benches/peer-runwasi
        CARGO_TARGET_DIR=$repo/target/peer-runwasi cargo build --release --locked
    )
    place target/peer-runwasi/release/containerd-shim-peerwasi-v1 target/bench/peers
}

baseline() {
    local ref=$1 commit tree
    commit=$(git rev-parse --short=12 --verify "$ref^{commit}") || fail "$ref is no commit"
    tree=$(mktemp -d)
    # Expanded now: the function's variables are gone when the shell ends.
    # shellcheck disable=SC2064
    trap "git worktree remove --force '$tree' >/dev/null 2>&1; rm -rf '$tree'" EXIT
    git worktree add --quiet --detach "$tree" "$commit"
    (
        cd "$tree"
        # One for all baselines: dependencies are compiled once.
        export CARGO_TARGET_DIR=$repo/target/bench/baseline-build
        cargo build --release --locked -p wisp-shim
        cargo build --release --locked -p wisp-cli
    )
    for name in containerd-shim-wisp-v1 wisp; do
        place "target/bench/baseline-build/release/$name" "target/bench/baseline/$commit"
    done
    echo "BASELINE=target/bench/baseline/$commit"
}

case ${1:-} in
guests) guests ;;
peers) peers ;;
baseline) baseline "${2:?which git ref}" ;;
*) fail "guests, peers or baseline REF" ;;
esac
