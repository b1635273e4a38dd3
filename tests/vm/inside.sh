#!/bin/bash
# Runs the suites inside the machine that run.sh starts, and says how they
# ended in its last line.
set -uo pipefail
exec 2>&1
busybox stty -F /dev/ttyS1 raw
# shellcheck disable=SC1091
. /run/disk/settings

code=1
trap 'echo "wisp-vm: exit $code"; busybox sync' EXIT
seconds() { cut -d. -f1 /proc/uptime; }
echo "==> up after $(seconds) s: Linux $(uname -r), $(systemctl --version | sed -n 's/^\(systemd [0-9]*\).*/\1/p'), $(stat -f -c %T /sys/fs/cgroup) at /sys/fs/cgroup"

# Everything is where it was built, and cannot be changed.
mkdir -p "$repo"
mount --bind /run/disk/tree "$repo"
mount -t tmpfs -o mode=1777 tmpfs /tmp
ip link set lo up
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
# Not those of this unit: containerd would take itself for a service.
unset NOTIFY_SOCKET INVOCATION_ID JOURNAL_STREAM

# Slices stay until somebody stops them; those of the tests are the tests' own.
units() { systemctl list-units --all --plain --no-legend --type=scope,slice,service | cut -d' ' -f1 | grep -v '^wisptests' | sort; }
before=$(units)
export WISP_TESTS_OWN_MACHINE=yes WISP_TESTS_PAUSE=/run/disk/pause WISP_TESTS_SLOWNESS=$slowness \
    WISP_TESTS_INSTALLER_IMAGE=/run/disk/installer.oci.tar
code=0
# shellcheck disable=SC2086
for name in $names; do
    "/run/disk/suites/$name" "${arguments[@]}" || code=$?
    echo "==> $name: done after $(seconds) s"
done
# systemd drops a unit that has ended a moment later.
for _ in 1 2 3 4 5; do
    left=$(comm -13 <(echo "$before") <(units))
    [ -n "$left" ] || break
    sleep 2
done
if [ -n "$left" ]; then
    echo "units left behind: $(echo $left)"
    [ "$code" != 0 ] || code=1
fi
echo "==> done after $(seconds) s, exit code $code"
