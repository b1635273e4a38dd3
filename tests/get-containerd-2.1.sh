#!/bin/bash
# Unpacks containerd 2.1 from Debian unstable into target/containerd-2.1/.
#
# Nothing on the machine changes: apt works in directories of its own, and the
# package is unpacked, not installed. The mirror is the one that the machine's
# own apt uses for Debian. Does nothing if the files are there already.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$PWD/target/containerd-2.1
if [ -x "$target/usr/bin/containerd" ] && [ -x "$target/usr/bin/ctr" ]; then
    exit 0
fi

fail() {
    echo "get-containerd-2.1: $*" >&2
    exit 1
}

command -v apt-get >/dev/null || fail "this machine has no apt-get; unpack containerd 2.1 into $target (usr/bin/containerd, usr/bin/ctr) yourself"

mirrors() {
    apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Identifier: Packages' |
        awk '$1 == "Debian" { print $2 }' | sort -u
}
mirror=$(mirrors | head -n 1)
if [ -z "$mirror" ]; then
    # A machine that never ran `apt-get update` does not know its labels.
    apt-get -qq update || fail "apt-get update failed"
    mirror=$(mirrors | head -n 1)
fi
[ -n "$mirror" ] || fail "apt on this machine has no Debian archive configured; unpack containerd 2.1 into $target yourself"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# apt drops its privileges to download, and must still be able to get here.
chmod 0755 "$work"
mkdir -p "$work/etc" "$work/state/lists/partial" "$work/cache/archives/partial" "$work/download"
: > "$work/state/status"

keyring=/usr/share/keyrings/debian-archive-keyring.gpg
options=
[ ! -e "$keyring" ] || options="[signed-by=$keyring] "
echo "deb ${options}$mirror sid main" > "$work/etc/sources.list"

apt=(apt-get -qq
    -o "Dir::Etc::SourceList=$work/etc/sources.list"
    -o "Dir::Etc::SourceParts=-"
    -o "Dir::State=$work/state"
    -o "Dir::State::Lists=$work/state/lists"
    -o "Dir::State::Status=$work/state/status"
    -o "Dir::Cache=$work/cache"
    -o "Acquire::Languages=none"
    -o "APT::Sandbox::User=root")

"${apt[@]}" update || fail "could not read the package list of Debian unstable from $mirror"
# Unstable moves on; these tests are about 2.1.
version=$(apt-cache "${apt[@]:2}" madison containerd |
    awk -F' *[|] *' '$2 ~ /^2[.]1[.]/ { print $2; exit }')
[ -n "$version" ] || fail "Debian unstable has no containerd 2.1 any more; unpack one into $target yourself"
(cd "$work/download" && "${apt[@]}" download "containerd=$version") || fail "could not download containerd $version"

mkdir -p "$work/unpacked"
dpkg -x "$work"/download/containerd_*.deb "$work/unpacked"
[ -x "$work/unpacked/usr/bin/containerd" ] || fail "the package containerd $version has no usr/bin/containerd"
mkdir -p "$(dirname "$target")"
rm -rf "$target" "$target.new"
cp -a "$work/unpacked" "$target.new"
mv "$target.new" "$target"
echo "containerd $version is in $target"
