# shellcheck shell=bash
# The hosts of this example, and what must be set on them besides keepalived and lvs-notify.
# The words are those of ../failover/network.sh. Sourced by tests/suite/ipvs/examples.rs, never run by itself.

switch lan
for name in client lb1 lb2 rs1 rs2; do host "$name"; done
link client eth0 lan 192.0.2.50/24
link lb1 eth0 lan 192.0.2.1/24
link lb2 eth0 lan 192.0.2.2/24
link rs1 eth0 lan 192.0.2.11/24
link rs2 eth0 lan 192.0.2.12/24

# A real server takes packets for the VIPs, and never says so: first the parameters, then the addresses.
for name in rs1 rs2; do
    on "$name" sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
    for vip in 192.0.2.100 192.0.2.101; do on "$name" ip address add "$vip/32" dev lo; done
done
