//! The process edge: what keepalived hands over is put right, then `lvs_notify::main` does the work.

use std::process::ExitCode;

fn main() -> ExitCode {
    lvs_notify::main()
}
