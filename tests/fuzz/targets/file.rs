//! The desired-state file: any bytes are refused with a place, or mean something.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lvs_notify::config::Source;
use lvs_notify::model::Role;
use lvs_notify::model::Owned;
use lvs_notify::plan::{Observed, Plan};
use lvs_notify::desired::declared;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let source = Source { name: "file".to_owned(), text: text.to_owned() };
    match declared(&source) {
        Ok(declared) => {
            for role in [Role::Master, Role::Backup] {
                let plan = Plan::between(&declared.for_role(role), &Observed::default(), &Owned::default());
                for change in plan.changes() {
                    assert!(!change.commands().is_empty(), "{change} has no command");
                }
            }
        }
        Err(error) => assert!(error.0.starts_with("file:"), "an error without a place: {}", error.0),
    }
});
