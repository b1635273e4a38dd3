#!/bin/bash
# Proves of what `make dist` left in target/dist/out/ (or in the directory that is
# given) what docs/release.md says of it. As root, with `make examples` done.
set -euo pipefail
cd "$(dirname "$0")/.."
repo=$PWD
out=$(realpath "${1:-target/dist/out}")
hello=$repo/target/guests/hello.wasm
programs=(containerd-shim-wisp-v1 wisp wisp-node-installer)
# SPECIFICATION.md: the first two together.
most_bytes=$((64 << 20))

fail() {
    echo "test-dist: $*" >&2
    exit 1
}
say() { echo "==> $*"; }

[ "$(id -u)" = 0 ] || fail "an empty root and containerd need root: run it as root"
[ -e "$out/SHA256SUMS" ] || fail "$out has no SHA256SUMS: run scripts/dist.sh"
[ -e "$hello" ] || fail "$hello is missing: run make examples"
for program in readelf jq unshare chroot; do
    command -v "$program" >/dev/null || fail "$program is missing: run scripts/setup.sh dist"
done
version=$(cargo metadata --locked --no-deps --format-version 1 |
    jq -r '.packages[] | select(.name == "wisp-shim").version')
mapfile -t archs < <(cd "$out" && find . -mindepth 1 -maxdepth 1 -type d -printf '%f\n' | sort)
tmp=$(mktemp -d)
trap 'rm -rf --one-file-system "$tmp"' EXIT

say "SHA256SUMS names every file, and each is what it says"
(
    cd "$out"
    sha256sum --quiet --check SHA256SUMS
    diff <(find . -type f ! -name SHA256SUMS -printf '%P\n' | LC_ALL=C sort) <(sed 's/^[^ ]* [ *]//' SHA256SUMS) ||
        fail "SHA256SUMS names other files than there are"
)

# is_static FILE MACHINE TYPE: TYPE is EXEC (fixed address) or DYN (any address).
is_static() {
    readelf -hW "$1" >"$tmp/header"
    grep -q "Machine: .*$2" "$tmp/header" || fail "$1 is not for $2"
    grep -q "Type: *$3 " "$tmp/header" || fail "$1 is not of type $3"
    ! readelf -lW "$1" | grep -qw INTERP || fail "$1 asks for a dynamic linker"
    ! readelf -dW "$1" | grep -qw NEEDED || fail "$1 needs libraries"
    ! readelf -SW "$1" | grep -qE '\.(symtab|debug_info) ' || fail "$1 is not stripped"
}

for arch in "${archs[@]}"; do
    case $arch in
    x86_64) machine=X86-64 address_of_wisp=DYN ;;
    # rustc makes no static program for any address here.
    aarch64) machine=AArch64 address_of_wisp=EXEC ;;
    *) fail "$out/$arch: there is no such machine" ;;
    esac
    place=$out/$arch

    say "$arch: all are static and stripped, the shim at a fixed address, without relocations"
    is_static "$place/containerd-shim-wisp-v1" "$machine" EXEC
    is_static "$place/wisp" "$machine" "$address_of_wisp"
    is_static "$place/wisp-node-installer" "$machine" "$address_of_wisp"
    readelf -rW "$place/containerd-shim-wisp-v1" | grep -q "There are no relocations" ||
        fail "$place/containerd-shim-wisp-v1 has relocations"

    say "$arch: nothing in them names this machine's directories"
    for program in "${programs[@]}"; do
        for path in "$repo" "$HOME" "${CARGO_HOME:-$HOME/.cargo}" "$(rustc --print sysroot)"; do
            # A home of / or /root/ alone says nothing.
            [ "${#path}" -gt 1 ] || continue
            ! grep -qaF "$path/" "$place/$program" || fail "$place/$program names $path"
        done
    done

    say "$arch: the bills of materials name the version, and the compiler in wisp only"
    for program in "${programs[@]}"; do
        jq -e --arg version "$version" '
            .bomFormat == "CycloneDX" and .metadata.component.version == $version
            and (.components | length) > 50
            and all(.components[]; .name != "" and .version != "")' \
            "$place/$program.cdx.json" >/dev/null || fail "$place/$program.cdx.json is not one"
    done
    has_compiler() { jq -e 'any(.components[]; .name == "cranelift-codegen")' "$place/$1.cdx.json" >/dev/null; }
    has_compiler wisp || fail "$place/wisp.cdx.json lacks the compiler"
    for program in containerd-shim-wisp-v1 wisp-node-installer; do
        ! has_compiler "$program" || fail "$place/$program.cdx.json has the compiler"
    done

    name=wisp-$version-$arch-linux
    say "$arch: $name.tar.gz has the same files"
    tar -xzf "$out/$name.tar.gz" -C "$tmp"
    for file in "$place"/*; do
        cmp "$file" "$tmp/$name/${file##*/}"
    done
    [ -x "$tmp/$name/wisp" ] && [ -s "$tmp/$name/LICENSE" ] || fail "$name.tar.gz cannot be used as it is"

    bytes=0
    for program in "${programs[@]}"; do
        size=$(stat -c %s "$place/$program")
        [ "$program" = wisp-node-installer ] || bytes=$((bytes + size))
        printf '    %-24s %10d bytes\n' "$program" "$size"
    done
    printf '    %-24s %10d bytes\n' "$name.tar.gz" "$(stat -c %s "$out/$name.tar.gz")"
    [ "$bytes" -le "$most_bytes" ] || fail "$arch: both are $bytes bytes, more than SPECIFICATION.md promises"
done

image=$out/wisp-node-installer-$version.oci.tar
say "the image has every machine's programs and nothing else"
mkdir "$tmp/image"
tar -xf "$image" -C "$tmp/image"
blob() { echo "$tmp/image/blobs/sha256/${1#sha256:}"; }
index=$(blob "$(jq -r '.manifests[0].digest' "$tmp/image/index.json")")
for arch in "${archs[@]}"; do
    case $arch in x86_64) go=amd64 ;; *) go=arm64 ;; esac
    manifest=$(blob "$(jq -er --arg arch "$go" '.manifests[] | select(.platform.architecture == $arch).digest' "$index")")
    mkdir "$tmp/image/$arch"
    tar -xzf "$(blob "$(jq -r '.layers[0].digest' "$manifest")")" -C "$tmp/image/$arch"
    for program in "${programs[@]}"; do
        cmp "$out/$arch/$program" "$tmp/image/$arch/$program"
    done
    diff <(find "$tmp/image/$arch" -type f -printf '%P\n' | LC_ALL=C sort) \
        <(printf '%s\n' LICENSE "${programs[@]}") || fail "the image for $arch has other files"
done

# says_version ARCH COMMAND…: started by the command, both know who they are.
says_version() {
    local arch=$1 said
    shift
    said=$("$@" containerd-shim-wisp-v1 -v)
    [[ $said == *"Version: $version"$'\n'* ]] || fail "$arch: the shim says: $said"
    [[ $(sed -n 's/^ *AOT key: //p' <<<"$said") == ?* ]] || fail "$arch: the shim says no AOT key: $said"
    said=$("$@" wisp --version | head -n 1)
    [ "$said" = "wisp $version" ] || fail "$arch: wisp says: $said"
    said=$("$@" wisp-node-installer --version)
    [ "$said" = "wisp-node-installer $version" ] || fail "$arch: the installer says: $said"
}

if [ -d "$out/x86_64" ]; then
    say "x86_64: in a root with nothing but them, all start"
    root=$tmp/root
    mkdir "$root"
    cp "$out/x86_64"/{containerd-shim-wisp-v1,wisp,wisp-node-installer} "$root/"
    in_root() { chroot "$root" "/$1" "${@:2}"; }
    says_version x86_64 in_root

    say "x86_64: there, with a /proc, wisp compiles and runs hello"
    # A file system of its own: what confines the compiler changes its mounts.
    # It goes with the namespace.
    mkdir "$tmp/mount"
    said=$(unshare --mount --pid --fork bash -euc '
        mount -t tmpfs none "$2"
        cp "$1"/* "$3" "$2/"
        mkdir "$2/proc"
        mount -t proc none "$2/proc"
        exec chroot "$2" /wisp run /hello.wasm' bash "$root" "$tmp/mount" "$hello")
    [[ $said == *"hello from a component"* ]] || fail "hello says: $said"
fi

if [ -d "$out/aarch64" ]; then
    say "aarch64: all start on an emulated processor, and wisp reads hello"
    qemu=$(command -v qemu-aarch64 || command -v qemu-aarch64-static) ||
        fail "no emulator for aarch64: run scripts/setup.sh dist"
    mkdir "$tmp/empty"
    emulated() { "$qemu" -L "$tmp/empty" "$out/aarch64/$1" "${@:2}"; }
    says_version aarch64 emulated
    emulated wisp inspect "$hello" >"$tmp/inspected"
    grep -q "wasi:cli" "$tmp/inspected" || fail "aarch64: wisp says of hello: $(cat "$tmp/inspected")"
fi

if [ -d "$out/x86_64" ]; then
    # Of a static program's C library guests make other system calls for the same
    # ends: these suites have guests do all that they may, and native code what it
    # may not.
    say "x86_64: containerd's suites about life, guests and what they may not"
    tests/get-containerd-2.1.sh || [ -z "${CI:-}" ]
    for suite in lifecycle: commands: endings: files: network: http hostile; do
        WISP_TESTS_BINARIES=$out/x86_64 \
            cargo test --release --locked -p wisp-tests --test containerd -- "$suite"
    done
fi
say "all of it holds"
