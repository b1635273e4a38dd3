#!/bin/bash
# Builds what is released, into target/dist/out/: static binaries of the shim, of
# wisp and of the node installer, a bill of materials of each, an archive per machine,
# the installer's image, and the checksums of all of it. docs/release.md says what it is made of and why.
#   ARCHS=x86_64      only for these machines; x86_64 and aarch64 if not given
#   JOBS=N            as many compilers at once; as many as processors if not given
set -euo pipefail
cd "$(dirname "$0")/.."
repo=$PWD
build=$repo/target/dist/build
out=$repo/target/dist/out

fail() {
    echo "dist: $*" >&2
    exit 1
}

read -ra archs <<<"${ARCHS:-x86_64 aarch64}"
for arch in "${archs[@]}"; do
    case $arch in
    x86_64 | aarch64) ;;
    *) fail "no binaries are made for $arch: ARCHS is some of x86_64 and aarch64" ;;
    esac
done
host=$(rustc -vV | sed -n 's/^host: //p')
[ "${host%%-*}" = x86_64 ] || fail "releases are built on x86_64, and this Rust is for $host"
sysroot=$(rustc --print sysroot)
[ -x "$sysroot/lib/rustlib/$host/bin/rust-lld" ] ||
    fail "this Rust has no rust-lld, which links for both machines; rustup's has (https://rustup.rs)"

metadata() { cargo metadata --locked --no-deps --format-version 1 | jq -r "$1"; }
version=$(metadata '.packages[] | select(.name == "wisp-shim").version')
# Files in archives are as old as the commit, so that archives do not differ. Not
# exported: cargo would build what looks at it again for each commit.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}

# In programs, sources have the same names wherever they were built.
flags="--remap-path-prefix=$repo=/wisp"
cargo fetch --quiet --locked
for index in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/; do
    flags+=$'\x1f'"--remap-path-prefix=${index%/}=/crates"
done
flags+=$'\x1f'"--remap-path-prefix=$sysroot/lib/rustlib/src/rust=/rust"

# build ARCH PACKAGE PROGRAM [FLAG…]: the flags are for the program itself.
# One package a time, or the compiler would be linked into the shim. A directory
# for each machine, so that two shells can build for both at once.
build() {
    local arch=$1 target=$1-unknown-linux-musl package=$2 program=$3
    shift 3
    CARGO_TARGET_DIR=$build/$arch CARGO_ENCODED_RUSTFLAGS=$flags \
        CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld \
        CC_x86_64_unknown_linux_musl=musl-gcc \
        CC_aarch64_unknown_linux_musl=aarch64-linux-gnu-gcc \
        AR_aarch64_unknown_linux_musl=aarch64-linux-gnu-ar \
        nice -n 19 cargo rustc --locked --profile dist --target "$target" ${JOBS:+-j "$JOBS"} \
        -p "$package" --bin "$program" -- "$@"
}

for arch in "${archs[@]}"; do
    echo "==> wisp $version for $arch"
    # At a fixed address (docs/start-up.md); wisp, whose compiler reads what
    # strangers wrote, at one that nobody knows where rustc can do that.
    build "$arch" wisp-shim containerd-shim-wisp-v1 -C relocation-model=static
    build "$arch" wisp-cli wisp
    build "$arch" wisp-node-installer wisp-node-installer
done

rm -rf "$out.new"
for arch in "${archs[@]}"; do
    name=wisp-$version-$arch-linux
    place=$out.new/$arch
    mkdir -p "$place"
    install -m 0755 "$build/$arch/$arch-unknown-linux-musl/dist/"{containerd-shim-wisp-v1,wisp,wisp-node-installer} "$place/"
    scripts/sbom.sh wisp-shim "$arch-unknown-linux-musl" >"$place/containerd-shim-wisp-v1.cdx.json"
    scripts/sbom.sh wisp-cli "$arch-unknown-linux-musl" >"$place/wisp.cdx.json"
    scripts/sbom.sh wisp-node-installer "$arch-unknown-linux-musl" >"$place/wisp-node-installer.cdx.json"
    (
        cd "$out.new"
        mkdir "$name"
        ln "$arch"/* "$name/"
        cp "$repo/LICENSE" "$repo/README.md" "$name/"
        tar --create --sort=name --mtime="@$SOURCE_DATE_EPOCH" --mode=u=rwX,go=rX \
            --owner=0 --group=0 --numeric-owner --hard-dereference "$name" |
            gzip -9 -n >"$name.tar.gz"
        rm -r "$name"
    )
done
scripts/image.sh "$out.new" "$out.new/wisp-node-installer-$version.oci.tar"
(
    cd "$out.new"
    find . -type f ! -name SHA256SUMS -printf '%P\n' | LC_ALL=C sort | xargs sha256sum >SHA256SUMS
)
rm -rf "$out"
mv "$out.new" "$out"
echo "==> $out"
