//! keepalived.conf: any bytes make a tree, and every rule can be judged over it; its virtual servers
//! become a desired-state file that the file's own reader takes.
#![no_main]

use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use lvs_notify::import::{self, Origin};

use lvs_notify::check::{self, Input};
use lvs_notify::keepalived_conf::{self, meaning::Conf};

fuzz_target!(|bytes: &[u8]| {
    let mut find = |path: &Path| match path == Path::new("/conf") {
        true => vec![(PathBuf::from("/conf"), Ok(bytes.to_vec()))],
        false => Vec::new(),
    };
    let tree = keepalived_conf::parse(Path::new("/conf"), "lb1", &mut find);
    check::findings(Input { complete: true, conf: Some(&Conf::of(&tree)), ..Input::default() });
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let ask = |_: &str, _: &str| "http 80/tcp\n".to_owned();
    if let Ok(table) = import::parse(Origin::KeepalivedConf, "conf", text, ask) {
        import::write(&table).expect("what is written is valid");
    }
});
