# How static programs are built, for scripts that read this file: dist.sh, which says
# why, and profile.sh. It wants $repo, $build (where to) and fail.
# shellcheck shell=bash

host=$(rustc -vV | sed -n 's/^host: //p')
[ "${host%%-*}" = x86_64 ] || fail "static programs are built on x86_64, and this Rust is for $host"
sysroot=$(rustc --print sysroot)
[ -x "$sysroot/lib/rustlib/$host/bin/rust-lld" ] ||
    fail "this Rust has no rust-lld, which links for both machines; rustup's has (https://rustup.rs)"

# In programs, sources have the same names wherever they were built.
flags="--remap-path-prefix=$repo=/wisp"
cargo fetch --quiet --locked
for index in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/; do
    flags+=$'\x1f'"--remap-path-prefix=${index%/}=/crates"
done
flags+=$'\x1f'"--remap-path-prefix=$sysroot/lib/rustlib/src/rust=/rust"

# build_static ARCH FLAGS PACKAGE PROGRAM [ARGUMENT…]: FLAGS, which begin with \x1f each,
# are for all that is compiled, the arguments are cargo's, those after -- for the program
# itself. One package a time, or the compiler would be linked into the shim. A directory
# for each machine, so that two shells can build for both at once.
build_static() {
    local arch=$1 more=$2 target=$1-unknown-linux-musl package=$3 program=$4
    shift 4
    CARGO_TARGET_DIR=$build/$arch CARGO_ENCODED_RUSTFLAGS=$flags$more \
        CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld \
        CC_x86_64_unknown_linux_musl=musl-gcc \
        CC_aarch64_unknown_linux_musl=aarch64-linux-gnu-gcc \
        AR_aarch64_unknown_linux_musl=aarch64-linux-gnu-ar \
        nice -n 19 cargo rustc --locked --profile dist --target "$target" ${JOBS:+-j "$JOBS"} \
        -p "$package" --bin "$program" "$@"
}
