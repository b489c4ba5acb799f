#!/bin/sh
# PID 1 of a test VM: makes the places that a Linux system has, runs /run.sh and
# says how it ended in one line that the host waits for.

export PATH=/bin HOME=/root TERM=dumb
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
hostname mmwatch-vm

# Lines as they were written, without carriage returns.
stty -onlcr
echo 'mmwatch-vm: begin'
cd /root
sh /run.sh </dev/null
code=$?

# From here on no message of the kernel may tear the line apart; those of
# before, warnings included, are on the console already.
dmesg -n 1
echo "mmwatch-vm: exit $code"
poweroff -f
