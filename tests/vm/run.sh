#!/bin/bash
# Runs the suites in a machine of their own, with cgroup v2 and systemd: what
# `make test-vm` does. The machine is emulated, so it needs no virtualisation;
# it is slow, and the tests are told so.
#
#   SUITE    which programs of tests/: containerd, node for wisp on a node with
#            systemd, and cri for pods (containerd node)
#   FILTER   only tests whose names contain this, also those left out otherwise
#   MINUTES  the machine is stopped after this many minutes (60)
#   SLOWNESS how much longer than on this machine the tests wait for anything (5)
#
# What runs in it is built here: nothing is compiled inside. Its console is in
# target/vm/console.log afterwards.
set -euo pipefail
cd "$(dirname "$0")/../.."

repo=$PWD
vm=$repo/target/vm
minutes=${MINUTES:-60}
read -ra names <<<"${SUITE:-containerd node}"
slowness=${SLOWNESS:-5}

# What is left out because the machine is slow, by parts of names; FILTER runs it.
left_out=(
    # Nothing in these has to do with cgroups.
    artifacts: cache: network: refused: streams: faults: terminals: same: image:
    # Once is enough for what does not depend on containerd.
    '2.1 commands:' '2.1 endings:' '2.1 files:' '2.1 http:'
    # Too much for an emulated machine: minutes of compiling, fifty shims at once.
    'a Go program' 'fifty containers'
)

fail() {
    echo "test-vm: $*" >&2
    exit 1
}
say() { echo "==> $*"; }

[ "$(uname -m)" = x86_64 ] || fail "the machine is an x86-64 one with the programs of this machine, and this is $(uname -m)"
[ "$(id -u)" = 0 ] || fail "the machine's files belong to root: run it as root"
has() { command -v "$1" >/dev/null; }
missing=()
has qemu-system-x86_64 || missing+=(qemu-system-x86)
has mmdebstrap || missing+=(mmdebstrap)
has mke2fs || missing+=(e2fsprogs)
has busybox || missing+=(busybox-static)
has setpriv || missing+=(util-linux)
has jq || missing+=(jq)
if [ ${#missing[@]} -gt 0 ]; then
    has apt-get || fail "this is no Debian; install what these of its packages have, then run it again: ${missing[*]}"
    say "installing ${missing[*]}"
    install_missing() { DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; }
    install_missing || { apt-get update -qq && install_missing; } || fail "apt-get could not install ${missing[*]}"
fi

tests/vm/machine.sh
tests/get-containerd-2.1.sh || say "without containerd 2.1"
mapfile -t suites < <(cargo test --release --locked -p wisp-tests "${names[@]/#/--test=}" --no-run 2>&1 |
    tee /dev/stderr | sed -n 's/.*Executable .*(\(.*\))$/\1/p')
[ "${#suites[@]}" = "${#names[@]}" ] || fail "cargo built no suites, or not all of: ${names[*]}"

# The second disk, new for each run: what is tested, at the paths it has here.
run=$vm/run.$$
# Of runs that were killed.
for old in "$vm"/run.*; do kill -0 "${old##*.}" 2>/dev/null || rm -rf "$old"; done
mkdir "$run"
clean_up() {
    local status=$?
    trap - EXIT
    trap '' INT TERM
    if [ -n "${qemu:-}" ]; then
        kill -KILL "$qemu" 2>/dev/null || true
        wait "$qemu" 2>/dev/null || true
    fi
    rm -rf "$run"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

disk=$run/disk
tree=$disk/tree
mkdir -p "$tree/target/release" "$tree/tests"
cp target/release/{containerd-shim-wisp-v1,wisp,wisp-node-installer} "$tree/target/release/"
cp tests/get-containerd-2.1.sh "$tree/tests/"
cp -r target/guests "$tree/target/"
[ ! -d target/containerd-2.1 ] || cp -r target/containerd-2.1 "$tree/target/"
mkdir "$disk/suites"
for suite in "${suites[@]}"; do
    # Without cargo's hash.
    name=${suite##*/}
    cp "$suite" "$disk/suites/${name%-*}"
done
[ ! -e "$disk/suites/node" ] || scripts/image.sh target/release "$disk/installer.oci.tar"
cc -static -Os -s -o "$disk/pause" tests/pause.c
cp tests/vm/inside.sh "$disk/"
{
    printf 'repo=%q slowness=%q names=%q\n' "$repo" "$slowness" "${names[*]}"
    arguments=(--test-threads 2 --color never)
    if [ -n "${FILTER:-}" ]; then
        arguments+=("$FILTER")
    else
        for part in "${left_out[@]}"; do arguments+=(--skip "$part"); done
    fi
    printf 'arguments=('
    printf '%q ' "${arguments[@]}"
    printf ')\n'
} >"$disk/settings"
kilobytes=$(du -sk "$disk" | cut -f1)
truncate -s "$((kilobytes * 5 / 4 / 1024 + 32))M" "$run/disk.ext4"
mke2fs -q -t ext4 -O ^has_journal -d "$disk" "$run/disk.ext4"
rm -rf "$disk"

say "starting the machine; its console is in target/vm/console.log"
mkfifo "$run/report"
start=$SECONDS
# Its disks are copies that vanish with it, and it goes when this script does.
TMPDIR=$run setpriv --pdeathsig KILL qemu-system-x86_64 \
    -machine q35 -accel tcg,thread=multi -cpu max -smp 2 -m 3072 \
    -nodefaults -no-user-config -display none -no-reboot \
    -kernel "$vm/vmlinuz" -initrd "$vm/initrd" \
    -append "console=ttyS0 loglevel=4 panic=-1 mitigations=off systemd.show_status=0" \
    -drive "file=$vm/root.ext4,if=none,id=root,format=raw,snapshot=on" -device virtio-blk-pci,drive=root \
    -drive "file=$run/disk.ext4,if=none,id=disk,format=raw,readonly=on" -device virtio-blk-pci,drive=disk \
    -serial "file:$vm/console.log" -serial stdio \
    </dev/null >"$run/report" 2>"$vm/qemu.log" &
qemu=$!

code=
limit=$((start + minutes * 60))
exec 3<"$run/report"
while [ "$SECONDS" -lt "$limit" ]; do
    line=
    if IFS= read -r -t "$((limit - SECONDS))" -u 3 line; then
        case $line in
        'wisp-vm: exit '*) code=${line#wisp-vm: exit } ;;
        *) printf '%s\n' "$line" ;;
        esac
    elif [ $? -le 128 ]; then
        break
    fi
done
took=$((SECONDS - start))
if [ -z "$code" ]; then
    {
        cat "$vm/qemu.log"
        tail -n 20 "$vm/console.log"
    } >&2
    [ "$SECONDS" -lt "$limit" ] || fail "the machine was stopped after $minutes minutes; MINUTES gives it more"
    fail "the machine ended without a result after $took s"
fi
say "the machine ran for $took s"
[ "$code" = 0 ] || fail "the suites failed with exit code $code"
