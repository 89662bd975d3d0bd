#!/usr/bin/env bash
# The first process in a cluster's own network, mount, PID, UTS and IPC namespaces: prepares them, then
# collects orphans until it is killed, which ends every process in there and unmounts everything.
#   machine.sh READY-FILE NODE ADDRESS/PREFIX ADDRESS6/PREFIX
set -euo pipefail
ready=$1 node=$2 address=$3 address6=$4

hostname "$node"
# Mounts propagate among the namespaces in here, and none to the machine outside.
mount --make-rshared /
# kubelet, containerd, runc and CNI write to fixed paths: file systems that end with this process
# are mounted over them, and hide what the machine's own daemons keep there.
for path in /run /var/lib /var/log; do mount -t tmpfs -o mode=0755 tmpfs "$path"; done
mkdir -p /run/containerd /run/lock /run/netns /var/lib/kubelet /var/lib/cni /var/log/pods

ip link set lo up
# Instead of a dummy device, which the kernel may lack: a pair of which both ends stay here. One
# gives the node an address and a default route, which the redirect of a connection to a Service
# needs.
ip link add node0 type veth peer name node1
ip link set node1 up
ip address add "$address" dev node0
ip link set node0 up
ip address add "$address6" dev node0 nodad
ip route add default dev node0
ip -6 route add default dev node0
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
touch "$ready"

# While bash waits, it collects every child that ends, adopted ones too.
while :; do
  sleep infinity &
  wait
done
