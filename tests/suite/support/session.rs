//! Sessions: commands and what they print, in tests/golden/NAME/session.
//!
//! Owns how a session is written and run anew, and what of it is different in every run. Leaves the comparison to
//! `golden`, and where the commands run to the caller.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::LVS_NOTIFY;
use super::golden::{difference, folder};

/// What is different in every run: milliseconds, the date and how long ago it was, process ids.
const MASK: &str = r"s/[0-9]+\.[0-9] ms/N ms/g; s/[0-9-]{10} [0-9:]{8} UTC( \([^)]*\))?/DATE/g; s/\(process [0-9]+\)/(process N)/g";

/// Runs the commands of the session in `tests/golden/NAME/session` anew, in a copy of that folder, and gives what is
/// different. A session's lines are a comment first, then `$ COMMAND`, what it prints, and `[STATUS]` unless that is 0.
/// `shell` makes the process that runs a line of bash.
pub fn replay(name: &str, shell: impl Fn(&str) -> Command) -> String {
    let old = fs::read_to_string(folder().join(name).join("session")).unwrap();
    let work = scratch(name);
    let (path, place) = (Path::new(LVS_NOTIFY).parent().unwrap().display(), work.display());
    let mut new: String =
        old.lines().take_while(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    for line in old.lines().filter_map(|line| line.strip_prefix("$ ")) {
        let script = format!(
            "cd '{place}'; umask 022; PATH='{path}:'$PATH; set -o pipefail
            {{ {line}\n}} 2>&1 | sed -E '{MASK}'"
        );
        let output = shell(&script)
            .stdin(Stdio::null())
            .env_remove("LVS_NOTIFY_CONFIG")
            .env("LC_ALL", "C")
            .output()
            .expect("a shell");
        let printed = String::from_utf8(output.stdout).unwrap();
        let end = if printed.is_empty() || printed.ends_with('\n') { "" } else { "\n" };
        let status = match output.status.code() {
            Some(0) => String::new(),
            status => format!("[{}]\n", status.unwrap_or(-1)),
        };
        let _ = write!(new, "\n$ {line}\n{printed}{end}{status}");
    }
    fs::remove_dir_all(work).unwrap();
    difference(&format!("{name}/session"), &new)
}

/// A copy of a golden folder that only its owner can write to, whatever the umask of the checkout was.
fn scratch(name: &str) -> PathBuf {
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let work = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("golden-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work).unwrap();
    mode(&work, 0o755);
    for entry in fs::read_dir(folder().join(name)).unwrap().flatten() {
        let copy = work.join(entry.file_name());
        fs::copy(entry.path(), &copy).unwrap();
        mode(&copy, 0o644);
    }
    work
}
