# shellcheck shell=bash
# The hosts of this example, and what must be set on them besides keepalived and lvs-notify.
# The words are those of ../failover/network.sh. Sourced by tests/suite/ipvs/examples.rs, never run by itself.

switch lan
switch far
for name in client lb1 lb2 router rs1 rs2; do host "$name"; done
link client eth0 lan 192.0.2.50/24
link lb1 eth0 lan 192.0.2.1/24
link lb2 eth0 lan 192.0.2.2/24
link router eth0 lan 192.0.2.254/24
link router eth1 far 198.51.100.254/24
link rs1 eth0 far 198.51.100.11/24
link rs2 eth0 far 198.51.100.12/24

on router sysctl -qw net.ipv4.ip_forward=1
for name in lb1 lb2; do on "$name" ip route add default via 192.0.2.254; done

for name in rs1 rs2; do
    on "$name" ip route add default via 198.51.100.254
    # tunl0 comes with the module. What comes out of it is for the VIP, from a client who is elsewhere.
    on "$name" modprobe ipip
    on "$name" ip link set tunl0 up
    on "$name" sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.tunl0.rp_filter=0
    on "$name" ip address add 192.0.2.100/32 dev lo
done
# GUE is the same packet in UDP: taken out of UDP here, it goes on to tunl0.
on rs2 modprobe fou
on rs2 ip fou add port 6080 gue
