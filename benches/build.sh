#!/bin/bash
# Builds what the benchmarks compare, apart from wisp itself:
#   build.sh guests         what containers run, in target/bench/guests/
#   build.sh peers          the peer shim and wasmtime, in target/bench/peers/
#                           (half an hour once), and what Debian packages: crun
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
            cargo build --quiet --release --locked --target "$host" -p start
    )
    local name built=target/bench/guests-build/wasm32-wasip2/release
    for name in start hello_02 hello_03 work_02 work_03; do
        place "$built/$name.wasm" target/bench/guests
    done
    place "target/bench/guests-build/$host/release/start" target/bench/guests
    javascript
}

# A component out of JavaScript: its engine is part of it and has already run the
# script's beginning.
javascript() {
    local source=benches/guests/js-02 built=target/bench/js-02 made=target/bench/guests/js_02.wasm wit file
    wit=$(cargo metadata --locked --format-version 1 --manifest-path benches/guests/Cargo.toml |
        jq -r '.packages[] | select(.name == "wasip2") | .manifest_path')
    wit=$(dirname "$wit")/wit/deps
    if [ -e "$made" ] && [ -z "$(find "$source" -newer "$made")" ]; then
        return
    fi
    if ! command -v npm >/dev/null || [ "$(node -p 'process.versions.node.split(".")[0] >= 20')" != true ]; then
        echo "benches/build.sh: SKIPPED the component in JavaScript: it takes Node.js 20 and npm"
        return
    fi
    mkdir -p "$built/wit/deps"
    cp "$source"/* "$built"
    mv "$built/server.wit" "$built/wit"
    # The definitions of the same crate that the other guests have, by the version
    # that the engine names: 0.2.x are compatible.
    for file in "$wit"/*.wit; do
        sed 's/0\.2\.1[0-9]/0.2.10/g' "$file" >"$built/wit/deps/$(basename "$file")"
    done
    (
        cd "$built"
        npm ci --ignore-scripts --no-audit --no-fund --silent
        node_modules/.bin/componentize-js -w "$PWD/wit" -n server -o js_02.wasm hello.js
    )
    place "$built/js_02.wasm" target/bench/guests
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
    wasmtime
}

# wasmtime_features: what `serve` and `compile` need and what makes them fast; the rest
# of the default features is other commands, tracing and debugging.
wasmtime_features() {
    local features=(run compile serve cranelift parallel-compilation pooling-allocator)
    features+=(component-model component-model-async wasi-http threads cache)
    features+=(gc gc-drc gc-copying gc-null backtrace demangle addr2line)
    (
        IFS=,
        echo "${features[*]}"
    )
}

# Of the version that wisp has, and optimised as wisp's releases are.
wasmtime() {
    local version=48.0.8
    if [ "$(target/bench/peers/wasmtime --version 2>/dev/null | cut -d ' ' -f 2)" = "$version" ]; then
        return
    fi
    CARGO_TARGET_DIR=$repo/target/peer-wasmtime \
        CARGO_PROFILE_RELEASE_LTO=fat \
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        CARGO_PROFILE_RELEASE_PANIC=abort \
        CARGO_PROFILE_RELEASE_STRIP=debuginfo \
        cargo install --quiet --locked --root target/bench/wasmtime \
        --version "$version" wasmtime-cli \
        --no-default-features --features "$(wasmtime_features)"
    place target/bench/wasmtime/bin/wasmtime target/bench/peers
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
