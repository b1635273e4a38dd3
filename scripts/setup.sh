#!/bin/bash
# Installs what building, testing and the demo need and this machine lacks:
# Debian packages (as root), Rust's Wasm targets and lint tools. Quick when
# nothing is missing; otherwise it says in one line what it could not get.
#   setup.sh          for all but releases
#   setup.sh dist     for releases as well
#   setup.sh profile  and to count what they execute (scripts/profile.sh)
set -euo pipefail

fail() {
    echo "setup: $*" >&2
    exit 1
}

has() { command -v "$1" >/dev/null; }

# clang says where it looks for what Debian packages apart from it.
has_c_for_wasm() {
    has clang && [ -e "$(clang --target=wasm32-wasi -print-libgcc-file-name)" ]
}

# Whether the package lists of this machine have a package.
can_install() { apt-cache policy "$1" | grep -q 'Candidate: [0-9]'; }

case ${1:-} in
'' | dist | profile) purpose=${1:-} ;;
*) fail "for nothing, for dist or for profile; not for '$1'" ;;
esac

# What has to be there, and the Debian package that has it.
missing=()
has cc || missing+=(gcc libc6-dev)
has protoc || missing+=(protobuf-compiler)
has clang || missing+=(clang)
has wasm-ld || missing+=(lld)
[ -e /usr/include/wasm32-wasi/stdio.h ] || missing+=(wasi-libc)
has_c_for_wasm || missing+=(libclang-rt-dev-wasm32)
has containerd || missing+=(containerd)
has runc || missing+=(runc)
has curl || missing+=(curl ca-certificates)
has busybox || missing+=(busybox-static)
# Pods' networks: CNI plugins, and what they and the tests of pods call.
[ -x /usr/lib/cni/bridge ] || missing+=(containernetworking-plugins)
has iptables || missing+=(iptables)
has ip || missing+=(iproute2)
# The certificate of the stand-in for an API server.
has openssl || missing+=(openssl)
has jq || missing+=(jq)
# Makes calls of the kernel slow, and fail.
has strace || missing+=(strace)
if [ -n "$purpose" ]; then
    # Both compile C for a C library that is not this machine's: ring's, and a
    # few lines of Wasmtime's.
    has musl-gcc || missing+=(musl-tools)
    has aarch64-linux-gnu-gcc || missing+=(gcc-aarch64-linux-gnu)
    [ -e /usr/aarch64-linux-gnu/include/stdlib.h ] || missing+=(libc6-dev-arm64-cross)
    # Later Debians have it in qemu-user, static as well.
    has qemu-aarch64 || has qemu-aarch64-static || missing+=(qemu-user-static)
    has readelf || missing+=(binutils)
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
if has apt-get && [ "$(id -u)" = 0 ]; then
    may_install=yes
    # A fresh machine has no package lists yet.
    if { [ ${#missing[@]} -gt 0 ] || ! has cargo; } && ! can_install gcc; then
        apt-get update >"$log" 2>&1 || fail "apt-get update failed: $(grep '^[EW]:' "$log" | head -n 1)"
    fi
    # Some Debian releases have rustup; elsewhere rustup.rs is the way.
    if ! has cargo && can_install rustup; then
        missing+=(rustup)
    fi
fi

if [ ${#missing[@]} -gt 0 ]; then
    has apt-get ||
        fail "this is no Debian; install what these of its packages have, then run it again: ${missing[*]}"
    [ "${may_install:-}" = yes ] ||
        fail "packages are missing and only root can install them: run apt-get install ${missing[*]}"
    echo "setup: installing ${missing[*]}"
    install_missing() {
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
            "${missing[@]}" >"$log" 2>&1
    }
    # Once more with new lists: old ones name packages that are gone.
    install_missing || { apt-get update >"$log" 2>&1 && install_missing; } ||
        fail "apt-get could not install ${missing[*]}: $(grep '^[EW]:' "$log" | head -n 1)"
fi

if ! has cargo && has rustup; then
    echo "setup: installing Rust"
    rustup default stable >"$log" 2>&1 || fail "rustup could not install Rust: $(tail -n 1 "$log")"
fi
has cargo ||
    fail "cargo is missing and no package here has it; install Rust from https://rustup.rs, then run it again"

wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "$0")/../Cargo.toml")
found=$(rustc --version | cut -d' ' -f2)
[ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1)" = "$wanted" ] ||
    fail "Rust $wanted or newer is needed and this is $found: run rustup update"

sysroot=$(rustc --print sysroot)
additions=()
targets=(wasm32-wasip1 wasm32-wasip2)
[ -z "$purpose" ] || targets+=(x86_64-unknown-linux-musl aarch64-unknown-linux-musl)
for target in "${targets[@]}"; do
    [ -d "$sysroot/lib/rustlib/$target" ] || additions+=("target add $target")
done
[ -x "$sysroot/bin/cargo-clippy" ] || additions+=("component add clippy")
[ -x "$sysroot/bin/rustfmt" ] || additions+=("component add rustfmt")
host=$(rustc -vV | sed -n 's/^host: //p')
[ "$purpose" != profile ] || [ -x "$sysroot/lib/rustlib/$host/bin/llvm-profdata" ] ||
    additions+=("component add llvm-tools")
for addition in "${additions[@]}"; do
    has rustup || fail "this Rust lacks what 'rustup $addition' adds, and there is no rustup; see https://rustup.rs"
    echo "setup: rustup $addition"
    # Its words are its arguments.
    # shellcheck disable=SC2086
    rustup $addition >"$log" 2>&1 || fail "'rustup $addition' failed: $(tail -n 1 "$log")"
done
