# shellcheck shell=bash
# The hosts of this example, and what must be set on them besides keepalived and lvs-notify.
# The words are those of ../failover/network.sh. Sourced by tests/suite/ipvs/examples.rs, never run by itself.

switch lan
for name in client lb1 lb2; do host "$name"; done
link client eth0 lan 192.0.2.50/24
link lb1 eth0 lan 192.0.2.1/24
link lb2 eth0 lan 192.0.2.2/24
# Nothing else: the directors are the real servers, and lvs-notify sets what a real server needs.
