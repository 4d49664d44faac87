# shellcheck shell=bash
# The hosts of this example, and what must be set on them besides keepalived and lvs-notify.
# The words are those of ../failover/network.sh. Sourced by tests/suite/ipvs/examples.rs, never run by itself.

switch lan
for name in client lb1 lb2 rs1 rs2; do host "$name"; done
link client eth0 lan 2001:db8::50/64
link lb1 eth0 lan 2001:db8::1/64
link lb2 eth0 lan 2001:db8::2/64
link rs1 eth0 lan 2001:db8::11/64
link rs2 eth0 lan 2001:db8::12/64

# A neighbour solicitation is answered only on the interface that has the address: nothing else to set. With
# preferred lifetime 0 the VIP is never the source of the real server's own connections.
for name in rs1 rs2; do
    on "$name" ip address add 2001:db8::100/128 dev lo preferred_lft 0
done
