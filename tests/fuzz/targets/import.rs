//! What `ipvsadm -S` writes: any text is refused with a reason, or becomes a file that
//! the file's own reader takes.
#![no_main]

use libfuzzer_sys::fuzz_target;

use lvs_notify::import::{self, Origin};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let ask = |_: &str, _: &str| "http 80/tcp\nsip 5060/udp\n".to_owned();
    if let Ok(table) = import::parse(Origin::IpvsadmSave, "text", text, ask) {
        import::write(&table).expect("what is written is valid");
    }
});
