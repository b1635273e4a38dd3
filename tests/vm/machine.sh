#!/bin/bash
# Makes the machine of `make test-vm` in target/vm/: kernel, initramfs and root
# file system, all from packages of this machine's own Debian release.
#
# Nothing on the machine changes: packages are unpacked into target/vm/, not
# installed. Does nothing if the files are there and made by this very script.
set -euo pipefail
cd "$(dirname "$0")/../.."

vm=$PWD/target/vm
made=$vm/made-by
sum=$(sha256sum tests/vm/machine.sh | cut -d' ' -f1)
[ "$(cat "$made" 2>/dev/null)" != "$sum" ] || exit 0

# What the suites use, and what boots: udev and a login are not needed.
packages=systemd,systemd-sysv,dbus,kmod,containerd,runc,busybox-static,iproute2,curl,iptables,containernetworking-plugins,openssl,strace
# Modules for the disks, overlay mounts and the networks of pods.
modules=(virtio_pci virtio_blk overlay bridge veth br_netfilter dummy
    nf_tables nft_compat nft_chain_nat xt_MASQUERADE xt_comment xt_conntrack xt_mark xt_addrtype
    xt_nat xt_tcpudp xt_multiport)

fail() {
    echo "test-vm: $*" >&2
    exit 1
}
say() { echo "==> $*"; }

[ "$(id -u)" = 0 ] || fail "the root file system's files belong to root: run it as root"

# The archives that apt on this machine has for Debian, security updates included.
sources() {
    apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(RELEASE)' \
        'Identifier: Packages' 'Component: main' |
        awk '$1 == "Debian" { print "deb", $2, $3, "main" }' | sort -u
}
[ -n "$(sources)" ] || apt-get -qq update || fail "apt-get update failed"
[ -n "$(sources)" ] || fail "apt on this machine has no Debian archive configured"

rm -rf "$vm/new"
mkdir -p "$vm/new"
work=$(mktemp -d "$vm/new/work.XXXXXX")
trap 'rm -rf "$vm/new"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
log=$vm/machine.log
: >"$log"
logged() { "$@" >>"$log" 2>&1 || fail "$1 failed; see $log: $(grep -E '^(E:|[a-z-]+: )' "$log" | tail -n 1)"; }

say "the kernel: Debian's for cloud machines, unpacked"
arch=$(dpkg --print-architecture)
image=$(apt-cache depends --important "linux-image-cloud-$arch" | awk '$1 == "Depends:" { print $2; exit }')
[ -n "$image" ] || fail "apt has no linux-image-cloud-$arch: run apt-get update"
mkdir "$work/deb"
(cd "$work/deb" && logged apt-get -q -o APT::Sandbox::User=root download "$image")
dpkg -x "$work"/deb/*.deb "$work/kernel"
release=$(basename "$work"/kernel/lib/modules/*)
cp "$work/kernel/boot/vmlinuz-$release" "$vm/new/vmlinuz"

say "the root file system: $packages"
sources >"$work/sources.list"
# Without documents, messages and what only a login would need.
logged mmdebstrap --mode=root --variant=minbase --include="$packages" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    "" "$work/root" "$work/sources.list"
root=$work/root

# Only these modules and what they need, at their places for modprobe.
cp -a "$work/kernel/lib/modules/$release" "$root/lib/modules.all"
mkdir -p "$root/lib/modules"
mv "$root/lib/modules.all" "$root/lib/modules/$release"
logged chroot "$root" depmod "$release"
needed=$(for module in "${modules[@]}"; do
    chroot "$root" modprobe --set-version "$release" --show-depends "$module" 2>/dev/null ||
        fail "the kernel has no module $module"
done | awk '$1 == "insmod" { print $2 }' | awk '!seen[$0]++')
for module in $needed; do
    mkdir -p "$work/kept$(dirname "$module")"
    cp "$root$module" "$work/kept$module"
done
cp "$root/lib/modules/$release"/modules.{order,builtin,builtin.modinfo} "$work/kept/lib/modules/$release"
rm -rf "$root/lib/modules/$release"
mkdir -p "$root/lib/modules"
cp -a "$work/kept/lib/modules/$release" "$root/lib/modules/"
logged chroot "$root" depmod "$release"
printf '%s\n' overlay bridge veth br_netfilter >"$root/etc/modules-load.d/wisp.conf"

# Starts the suites and nothing else; what they do is on the second disk.
echo wisp-vm >"$root/etc/hostname"
printf '127.0.0.1 localhost wisp-vm\n::1 localhost\n' >"$root/etc/hosts"
echo 'nameserver 127.0.0.1' >"$root/etc/resolv.conf"
: >"$root/etc/fstab"
: >"$root/etc/machine-id"
cat >"$root/etc/systemd/system/wisp.target" <<'UNIT'
[Unit]
Description=The suites, and nothing else
Requires=basic.target
Wants=dbus.service wisp.service
After=basic.target
UNIT
cat >"$root/etc/systemd/system/wisp.service" <<'UNIT'
[Unit]
Description=Run what the second disk has
After=basic.target dbus.service systemd-modules-load.service

[Service]
Type=oneshot
ExecStart=/usr/bin/busybox sh -c 'mkdir -p /run/disk && mount -o ro /dev/vdb /run/disk && exec /run/disk/inside.sh'
ExecStopPost=/usr/bin/systemctl poweroff --force --force
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS1
Delegate=yes
KillMode=mixed
TasksMax=infinity
LimitNOFILE=1048576
UNIT
ln -sf wisp.target "$root/etc/systemd/system/default.target"
for unit in systemd-update-done.service systemd-journal-flush.service ldconfig.service \
    systemd-journal-catalog-update.service apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer e2scrub_all.timer fstrim.timer getty.target containerd.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
truncate -s 2G "$vm/new/root.ext4"
logged mke2fs -q -t ext4 -d "$root" -L root -O ^has_journal -E lazy_itable_init=1,nodiscard "$vm/new/root.ext4"

say "the initramfs: the disk's modules, and on to the root file system"
initrd=$work/initrd
mkdir -p "$initrd"/{bin,lib,proc,sys,dev,root}
cp "$root/usr/bin/busybox" "$initrd/bin/busybox" 2>/dev/null || cp "$root/bin/busybox" "$initrd/bin/busybox"
ln -s busybox "$initrd/bin/sh"
{
    echo '#!/bin/sh'
    echo 'export PATH=/bin'
    echo 'busybox mount -t devtmpfs dev /dev'
    for module in virtio_pci virtio_blk; do
        chroot "$root" modprobe --set-version "$release" --show-depends "$module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r path; do
        cp "$root$path" "$initrd/lib/"
        echo "busybox insmod /lib/$(basename "$path")"
    done
    echo 'busybox mount -t ext4 -o rw,noatime /dev/vda /root'
    echo 'busybox umount /dev'
    echo 'exec busybox switch_root /root /sbin/init'
    echo 'echo "initramfs: no root file system"; busybox poweroff -f'
} >"$initrd/init"
chmod 0755 "$initrd/init"
(cd "$initrd" && find . -print0 | busybox cpio --quiet -0 -o -H newc 2>>"$log") >"$vm/new/initrd"

rm -rf "$work"
mv "$vm"/new/* "$vm/"
echo "$sum" >"$made"
say "made: $(du -sh --apparent-size "$vm/root.ext4" | cut -f1) root file system, $(du -sh "$vm/root.ext4" | cut -f1) on disk, Linux $release"
