#!/bin/bash
# Builds every guest of this folder into target/guests/, for `make examples`.
set -euo pipefail
cd "$(dirname "$0")"

target=$(cd .. && pwd)/target
guests=$target/guests
export CARGO_TARGET_DIR=$target/examples
mkdir -p "$guests"

# install_guest BUILT NAME: only if it differs, and never half-written.
install_guest() {
    if ! cmp -s "$1" "$guests/$2.wasm"; then
        install -m 0644 "$1" "$guests/.$2.new"
        mv "$guests/.$2.new" "$guests/$2.wasm"
    fi
}

cargo build --quiet --release --locked --target wasm32-wasip1 \
    -p hello-module -p tour
for name in hello-module:hello-module tour:tour-module; do
    install_guest "$CARGO_TARGET_DIR/wasm32-wasip1/release/${name%:*}.wasm" "${name#*:}"
done

cargo build --quiet --release --locked --target wasm32-wasip2 \
    -p hello -p tour -p command-03 -p config -p hostile -p http-02 -p http-03
for name in hello tour command-03 config hostile http-02 http-03; do
    install_guest "$CARGO_TARGET_DIR/wasm32-wasip2/release/${name//-/_}.wasm" "$name"
done

built=$CARGO_TARGET_DIR/other
mkdir -p "$built/broken"
cargo run --quiet --locked -p broken -- "$built/broken"
for wasm in "$built"/broken/*.wasm; do
    install_guest "$wasm" "$(basename "$wasm" .wasm)"
done

clang --target=wasm32-wasi -Os -Wall -Wextra -Werror -Wl,--strip-debug hello-c/hello.c -o "$built/hello-c.wasm"
install_guest "$built/hello-c.wasm" hello-c

if command -v go >/dev/null; then
    (cd hello-go && GOOS=wasip1 GOARCH=wasm go build -trimpath -ldflags=-s -o "$built/hello-go.wasm" .)
    install_guest "$built/hello-go.wasm" hello-go
elif [ -n "${CI:-}" ]; then
    echo "examples: go is not on this machine, and CI needs hello-go" >&2
    exit 1
else
    echo "examples: SKIPPED hello-go: go is not on this machine (https://go.dev/dl has it)"
fi
