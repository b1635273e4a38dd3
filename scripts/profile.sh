#!/bin/bash
# Counts what the shim's program executes when it serves HTTP, and leaves the counts
# where releases are optimised by them: crates/shim/profile/x86_64.profdata. As root or
# not; a quarter of an hour on two processors. docs/release.md says why.
set -euo pipefail
cd "$(dirname "$0")/.."
repo=$PWD
build=$repo/target/profile/build
place=$repo/crates/shim/profile

fail() {
    echo "profile: $*" >&2
    exit 1
}

# shellcheck source-path=SCRIPTDIR source=static.sh
. scripts/static.sh
profdata=$sysroot/lib/rustlib/$host/bin/llvm-profdata
[ -x "$profdata" ] || fail "llvm-profdata is missing: run scripts/setup.sh profile"
for needed in target/release/wisp target/guests/http-02.wasm target/guests/http-03.wasm; do
    [ -e "$needed" ] || fail "$needed is missing: run make build examples"
done

echo "==> a shim that counts"
build_static x86_64 $'\x1f'-Cprofile-generate wisp-shim containerd-shim-wisp-v1 \
    --features train -- -C relocation-model=static
cargo build --release --locked -p wisp-bench

echo "==> it serves"
counts=$(mktemp -d)
trap 'rm -rf "$counts"' EXIT
LLVM_PROFILE_FILE=$counts/%p-%m.profraw target/release/wisp-bench train \
    --program "$build/x86_64/x86_64-unknown-linux-musl/dist/containerd-shim-wisp-v1" \
    --compiler target/release/wisp --guests target/guests

mkdir -p "$place"
# Functions that were not called are left out: they are not known to be seldom used,
# a start of a container was no part of this.
"$profdata" merge --sparse -o "$place/x86_64.profdata.new" "$counts"/*.profraw
mv "$place/x86_64.profdata.new" "$place/x86_64.profdata"
echo "==> $place/x86_64.profdata"
