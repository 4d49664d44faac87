//! What people read of commands that need root, in a network of their own: addresses, parameters, drains, and names that
//! there are not. Owns nothing but the place; leaves the comparison to `support::session`.

use crate::support::{Host, session};

#[test]
#[ignore = "needs root: run tests/run"]
fn commands_print_what_they_printed() {
    let host = Host::new("lb");
    let difference = session::replay("here", |script| {
        let mut command = host.command("bash");
        command.args(["-c", script]);
        command
    });
    assert!(difference.is_empty(), "{difference}(UPDATE_GOLDEN=1 takes the new text)");
}
