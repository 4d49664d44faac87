//! Whether a VIP answers, with links that few hosts have: see `here::answering`, which owns the arrangements.

use crate::here::answering::agree;

#[test]
#[ignore = "needs root and a kernel with IPVS: run tests/run"]
fn status_and_the_wire_agree_on_rare_links() {
    agree(24, &["bond", "vrf", "vrf", "ipvlan", "dummy", "bridge", "macvlan"]);
}
