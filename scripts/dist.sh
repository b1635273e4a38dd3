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
# shellcheck source-path=SCRIPTDIR source=static.sh
. scripts/static.sh

metadata() { cargo metadata --locked --no-deps --format-version 1 | jq -r "$1"; }
version=$(metadata '.packages[] | select(.name == "wisp-shim").version')
# Files in archives are as old as the commit, so that archives do not differ. Not
# exported: cargo would build what looks at it again for each commit.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}

# profile ARCH: the flags by which what scripts/profile.sh counted is used, if there is
# something for this machine. What has changed since is compiled as if nobody had.
profile() {
    local file=$repo/crates/shim/profile/$1.profdata
    [ -e "$file" ] || return 0
    printf '\x1f-Cprofile-use=%s\x1f-Cllvm-args=-no-pgo-warn-mismatch' "$file"
}

for arch in "${archs[@]}"; do
    echo "==> wisp $version for $arch"
    # At a fixed address (docs/start-up.md); wisp, whose compiler reads what
    # strangers wrote, at one that nobody knows where rustc can do that.
    used=$(profile "$arch")
    build_static "$arch" "$used" wisp-shim containerd-shim-wisp-v1 -- -C relocation-model=static
    build_static "$arch" "$used" wisp-cli wisp
    build_static "$arch" "$used" wisp-node-installer wisp-node-installer
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
