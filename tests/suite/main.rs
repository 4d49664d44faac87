//! All integration tests in one program, by the place in which they can run.
//!
//! A test's name begins with its place, and that is how `tests/run` and `tests/one` find where it must run. Tests of
//! the second and third place are ignored by `cargo test`, with the reason.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

/// What needs no privileges: `cargo test` runs it.
mod anywhere {
    mod check;
    mod config;
    mod golden;
    pub(crate) mod import;
    mod laws;
    mod packaging;
    mod protocol;
    mod structure;
}

/// What needs root, and no IPVS: in namespaces of any machine.
mod here {
    pub(crate) mod answering;
    mod confirm;
    mod faults;
    mod fifo;
    mod golden;
    pub(crate) mod held_up;
    mod instances;
    pub(crate) mod keepalived;
    mod netns;
    mod rehearsal;
    mod verdict;
}

/// What needs root and a kernel with IPVS.
mod ipvs {
    mod answering;
    mod drain;
    mod examples;
    mod fifo;
    mod import;
    mod keepalived;
    mod races;
    mod rehearsal;
    mod services;
    mod status;
    mod symptoms;
    mod system;
    mod trouble;
}
