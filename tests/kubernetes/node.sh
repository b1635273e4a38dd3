#!/bin/bash
# Process 1 of the node: makes its root directory, its network and its cgroups, and
# runs the suite in it. Called by run.sh in new namespaces, with the repository, a
# directory on a disk, the suite and its arguments.
set -euo pipefail
repo=$1 work=$2 suite=$3
shift 3
root=$work/root

mount -t tmpfs -o mode=0755 node "$root"
cd "$root"
mkdir -p dev etc/cni opt proc root run sys tmp usr var/lib var/log "${repo#/}" disk
chmod 1777 tmp
# What is read: the machine's programs, and the repository.
mount --bind /usr usr
mount -o remount,bind,ro usr
for link in bin lib lib32 lib64 libx32 sbin; do [ ! -L "/$link" ] || cp -a "/$link" .; done
mount -t tmpfs local usr/local
mkdir -p usr/local/bin
for file in alternatives group hosts iproute2 ld.so.cache ld.so.conf ld.so.conf.d nsswitch.conf passwd protocols services ssl; do
    [ ! -e "/etc/$file" ] || cp -a "/etc/$file" etc/
done
ln -s ../usr/lib/os-release etc/os-release
echo nameserver 10.96.0.10 >etc/resolv.conf
tr -d - </proc/sys/kernel/random/uuid >etc/machine-id
mount --bind "$repo" "${repo#/}"
mount -o remount,bind,ro "${repo#/}"
# What is written: logs, and what needs a disk.
mount --bind "$repo/target/kubernetes" var/log
mount --bind "$work/disk" disk
for name in containerd kubelet control; do
    mkdir -p "disk/$name" "var/lib/$name"
    mount --bind "disk/$name" "var/lib/$name"
done
ln -s ../run var/run

mount -t proc proc proc
# How the machine overcommits and panics is not the node's business: kubelet finds what
# it would write.
for part in kernel vm; do
    mount --bind "proc/sys/$part" "proc/sys/$part"
    mount -o remount,bind,ro "proc/sys/$part"
done
mkdir usr/local/sysctl
while read -r name value; do
    echo "$value" >"usr/local/sysctl/${name#*/}"
    mount --bind "usr/local/sysctl/${name#*/}" "proc/sys/$name"
done <<'END'
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
END
mount --rbind /dev dev
mount -t tmpfs -o mode=0755 run run
mount -t sysfs sysfs sys
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mount -t cgroup2 cgroup sys/fs/cgroup
else
    mount -t tmpfs -o mode=0755 cgroup sys/fs/cgroup
    for hierarchy in /sys/fs/cgroup/*/; do
        name=$(basename "$hierarchy")
        [ -e "$hierarchy/cgroup.procs" ] || continue
        mkdir "sys/fs/cgroup/$name"
        case $name in
        unified) mount -t cgroup2 cgroup "sys/fs/cgroup/$name" ;;
        systemd) mount -t cgroup -o none,name=systemd cgroup "sys/fs/cgroup/$name" ;;
        *) mount -t cgroup -o "$name" cgroup "sys/fs/cgroup/$name" ;;
        esac
    done
fi

mkdir old
pivot_root . old
umount -l /old
rmdir /old
# Mounts that are made for pods are seen in them.
mount --make-rshared /

if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    # Of version 2 only a group without processes has groups with controllers below it.
    mkdir /sys/fs/cgroup/init
    while read -r pid; do echo "$pid" >/sys/fs/cgroup/init/cgroup.procs; done </sys/fs/cgroup/cgroup.procs
    for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
        echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
    done
fi

hostname node-1
ip link set lo up
# A bridge is the one kind of interface that needs nobody at its other end.
ip link add node0 type bridge
ip address add 192.168.77.1/24 dev node0
ip link set node0 up
ip route add default via 192.168.77.254 dev node0
echo 1 >/proc/sys/net/ipv4/ip_forward

export PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TMPDIR=/tmp
cd /
# Not instead of this shell, which ends what others leave to process 1.
"$suite" --test-threads 1 "$@"
