# shellcheck shell=bash
# The hosts of this example, and what must be set on them besides keepalived and lvs-notify.
# The words are those of ../failover/network.sh. Sourced by tests/suite/ipvs/examples.rs, never run by itself.

switch clients
switch lan
for name in client router lb1 lb2 rs1 rs2; do host "$name"; done
link client eth0 clients 198.51.100.50/24
link router eth0 clients 198.51.100.254/24
link router eth1 lan 192.0.2.3/24
link lb1 eth0 lan 192.0.2.1/24
link lb2 eth0 lan 192.0.2.2/24
link rs1 eth0 lan 192.0.2.11/24
link rs2 eth0 lan 192.0.2.12/24

on client ip route add default via 198.51.100.254
for name in lb1 lb2 rs1 rs2; do on "$name" ip route add default via 192.0.2.3; done

# The whole trick: the VIP is nobody's neighbour, it is behind the address that keepalived moves.
on router sysctl -qw net.ipv4.ip_forward=1
on router ip route add 203.0.113.100/32 via 192.0.2.254

for name in rs1 rs2; do on "$name" ip address add 203.0.113.100/32 dev lo; done
