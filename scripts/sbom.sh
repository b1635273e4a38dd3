#!/bin/bash
# Writes to stdout what is linked into the program of a package, as CycloneDX 1.5:
#   sbom.sh PACKAGE TARGET        such as wisp-shim x86_64-unknown-linux-musl
set -euo pipefail
cd "$(dirname "$0")/.."
package=${1:?which package}
target=${2:?for which target}
# The same for everybody who builds the same commit.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

fail() {
    echo "sbom: $*" >&2
    exit 1
}

export PATH="$PWD/target/tools/bin:$PATH"
command -v cargo-cyclonedx >/dev/null ||
    nice -n 19 cargo install --quiet --locked --root target/tools cargo-cyclonedx@0.5.9 >&2 ||
    fail "cargo could not install cargo-cyclonedx"

# Of a copy, because the tool writes beside manifests.
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
folder=$(cargo metadata --locked --no-deps --format-version 1 |
    jq -r --arg name "$package" '.packages[] | select(.name == $name).manifest_path | rtrimstr("/Cargo.toml")')
[ -n "$folder" ] || fail "there is no package $package"
folder=${folder#"$PWD/"}
cp -r Cargo.lock crates node-installer "$tmp/"
sed 's,^members = .*,members = ["crates/*"\, "node-installer"],' Cargo.toml >"$tmp/Cargo.toml"
cargo cyclonedx --quiet --manifest-path "$tmp/$folder/Cargo.toml" --target "$target" \
    --format json --spec-version 1.5 --describe binaries --no-build-deps >&2
bill=$(echo "$tmp/$folder"/*_bin.cdx.json)
[ -e "$bill" ] || fail "cargo-cyclonedx wrote no bill for $package"

# The tool takes dependencies with all features that anything in the workspace
# wants, and would name the compiler in the shim's bill. What is built for this
# package alone, cargo knows: the rest is left out, and nothing may be missing.
cargo tree --locked -p "$package" --target "$target" --edges normal --prefix none --format '{p}' |
    sed 's/ v/ /; s/ (.*//' | LC_ALL=C sort -u >"$tmp/built"
jq -r '.metadata.component as $own | .components[], {name: $package, version: $own.version} |
    "\(.name) \(.version)"' --arg package "$package" "$bill" | LC_ALL=C sort -u >"$tmp/listed"
missing=$(LC_ALL=C comm -23 "$tmp/built" "$tmp/listed")
[ -z "$missing" ] || fail "cargo-cyclonedx left out of $package: $missing"

# What no package brings: Rust's standard library and, in it, the C library.
rust=$(rustc --version | cut -d' ' -f2)
libc=$(rustc --print sysroot)/lib/rustlib/$target/lib/self-contained/libc.a
musl=$(grep -aoE '\b1\.[0-9]+\.[0-9]+\b' "$libc" | LC_ALL=C sort -u)
[[ $musl =~ ^[0-9.]+$ ]] || fail "$libc does not say which musl it is"
jq --arg here "path+file://$tmp/" --arg rust "$rust" --arg musl "$musl" --rawfile built "$tmp/built" '
    def library($name; $version; $licenses): {
        type: "library", "bom-ref": "\($name)@\($version)", name: $name, version: $version,
        scope: "required", licenses: [{expression: $licenses}]
    };
    ($built | split("\n")) as $built
    | del(.serialNumber)
    | .components |= map(select("\(.name) \(.version)" | IN($built[])))
    | ([.metadata.component, .components[]] | map(."bom-ref")) as $refs
    | .dependencies |= map(select(.ref | IN($refs[]))
        | if .dependsOn then .dependsOn |= map(select(IN($refs[]))) else . end)
    | .components += [
        library("rust-std"; $rust; "MIT OR Apache-2.0"),
        library("musl"; $musl; "MIT")
    ]
    | walk(if type == "string" and startswith($here) then "path+file:///wisp/" + .[$here | length:] else . end)
    ' "$bill"
