#!/bin/bash
# Makes the image of the node installer without Docker: an OCI archive that
# `ctr image import`, `kind load image-archive` and skopeo take.
#   image.sh [DIR [OUT]]
# DIR has the three programs, or a folder with them for each machine (x86_64,
# aarch64), as `make dist` leaves them; target/dist/out if not given. Static programs
# are all that is in the image; of others their libraries come along, so that an
# image of `make build` runs, too.
#   IMAGE=NAME        what it is called, without a tag
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "image: $*" >&2
    exit 1
}

programs=(containerd-shim-wisp-v1 wisp wisp-node-installer)
dir=${1:-target/dist/out}
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
name=${IMAGE:-localhost/wisp/node-installer}:$version
out=${2:-$dir/wisp-node-installer-$version.oci.tar}
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
[ -d "$dir" ] || fail "there is no $dir: \`make dist\` makes target/dist/out, or name a folder of programs"
command -v jq >/dev/null || fail "jq is missing (apt-get install jq)"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
blobs=$work/layout/blobs/sha256
mkdir -p "$blobs"

digest() { sha256sum "$1" | cut -d' ' -f1; }

# blob FILE: moves it among the blobs and says its digest.
blob() {
    local sum
    sum=$(digest "$1")
    mv "$1" "$blobs/$sum"
    echo "$sum"
}

# descriptor TYPE DIGEST
descriptor() {
    jq -nc --arg type "$1" --arg digest "sha256:$2" --argjson size "$(stat -c %s "$blobs/$2")" \
        '{mediaType: $type, digest: $digest, size: $size}'
}

# Which machine an ELF file is for, as Rust calls it (the header's e_machine).
machine() {
    [ "$(head -c 4 "$1" | tail -c 3)" = ELF ] || fail "$1 is no program"
    case $(od -An -tu2 -j18 -N2 "$1" | tr -d ' ') in
    62) echo x86_64 ;;
    183) echo aarch64 ;;
    *) fail "$1 is for a machine that no image is made for" ;;
    esac
}

# manifest ARCH DIR: makes layer, configuration and manifest; says the manifest's digest.
manifest() {
    local arch=$1 from=$2 root=$work/root-$1 program library go
    mkdir "$root"
    for program in "${programs[@]}"; do
        [ -f "$from/$program" ] || fail "$from/$program is missing"
        [ "$(machine "$from/$program")" = "$arch" ] || fail "$from/$program is not for $arch"
        install -m 0755 "$from/$program" "$root/$program"
        [ "$arch" = "$(uname -m)" ] || continue
        # Nothing of a static program; with each line a path of the loader's or a library's.
        ldd "$from/$program" 2>/dev/null | grep -o '/[^ ]*' | while read -r library; do
            install -m 0755 -D "$library" "$root$library"
        done || true
    done
    # Where nodes are mounted: the root is read-only.
    mkdir "$root/host"
    cp LICENSE "$root/LICENSE"
    tar --create --sort=name --mtime="@$epoch" --mode=u=rwX,go=rX --owner=0 --group=0 \
        --numeric-owner -C "$root" --file "$work/layer.tar" .
    local diff layer config
    diff=$(digest "$work/layer.tar")
    gzip -9 -n "$work/layer.tar"
    layer=$(blob "$work/layer.tar.gz")
    case $arch in x86_64) go=amd64 ;; aarch64) go=arm64 ;; esac
    jq -nc --arg arch "$go" --arg diff "sha256:$diff" --arg version "$version" \
        --arg created "$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)" '{
        created: $created, architecture: $arch, os: "linux",
        config: {
            Entrypoint: ["/wisp-node-installer"], WorkingDir: "/",
            Labels: {
                "org.opencontainers.image.title": "wisp-node-installer",
                "org.opencontainers.image.version": $version,
                "org.opencontainers.image.licenses": "Apache-2.0"
            }
        },
        rootfs: {type: "layers", diff_ids: [$diff]}
    }' >"$work/config"
    config=$(blob "$work/config")
    jq -nc --argjson config "$(descriptor application/vnd.oci.image.config.v1+json "$config")" \
        --argjson layer "$(descriptor application/vnd.oci.image.layer.v1.tar+gzip "$layer")" '{
        schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json",
        config: $config, layers: [$layer]
    }' >"$work/manifest"
    descriptor_of_manifest=$(blob "$work/manifest")
    descriptor application/vnd.oci.image.manifest.v1+json "$descriptor_of_manifest" |
        jq -c --arg arch "$go" '. + {platform: {architecture: $arch, os: "linux"}}'
    rm -r "$root"
}

manifests=()
for arch in x86_64 aarch64; do
    if [ -d "$dir/$arch" ]; then
        described=$(manifest "$arch" "$dir/$arch")
        manifests+=("$described")
    fi
done
if [ "${#manifests[@]}" = 0 ]; then
    [ -f "$dir/wisp" ] || fail "neither programs nor folders of them (x86_64, aarch64) are in $dir"
    described=$(manifest "$(machine "$dir/wisp")" "$dir")
    manifests+=("$described")
fi

printf '%s\n' "${manifests[@]}" | jq -sc '{
    schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json", manifests: .
}' >"$work/index"
index=$(blob "$work/index")
descriptor application/vnd.oci.image.index.v1+json "$index" | jq -c --arg name "$name" --arg tag "$version" '{
    schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json",
    manifests: [. + {annotations: {
        "io.containerd.image.name": $name, "org.opencontainers.image.ref.name": $tag
    }}]
}' >"$work/layout/index.json"
echo '{"imageLayoutVersion":"1.0.0"}' >"$work/layout/oci-layout"
mkdir -p "$(dirname "$out")"
tar --create --sort=name --mtime="@$epoch" --mode=u=rwX,go=rX --owner=0 --group=0 \
    --numeric-owner -C "$work/layout" --file "$out.new" oci-layout index.json blobs
mv "$out.new" "$out"
echo "==> $name in $out"
