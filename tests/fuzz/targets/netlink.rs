//! Replies of the kernel: any bytes are read inside their bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| lvs_notify::kernel::read_anything(bytes));
