//! The desired-state file: any bytes are refused with a place, or mean something.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lvs_notify::config::source::Source;
use lvs_notify::model::Role;
use lvs_notify::model::Owned;
use lvs_notify::observed::Observed;
use lvs_notify::plan::Plan;
use lvs_notify::config::Config;
use lvs_notify::desired::Desired;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let source = Source { name: "file".to_owned(), text: text.to_owned() };
    match Config::parse(&source) {
        Ok(declared) => {
            for role in [Role::Master, Role::Backup] {
                let plan = Plan::between(&Desired::for_role(&declared, role), &Observed::default(), &Owned::default());
                for change in plan.changes() {
                    assert!(!change.commands().is_empty(), "{change} has no command");
                }
            }
        }
        Err(error) => assert!(error.0.starts_with("file:"), "an error without a place: {}", error.0),
    }
});
