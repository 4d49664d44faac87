//! What a script makes, by letting it.
//!
//! Owns the run from outside: the script's file, its time, its end, and which of what is there afterwards it has made.
//! Leaves what it finds around it to `sandbox` and `crate::kernel::namespace`, reading to `kernel`. Called by `lib`.

use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sched::{CloneFlags, unshare};

use super::kernel;
use super::sandbox::INSIDE;
use super::write::Table;
use crate::kernel::{Kernel as _, Linux, namespace};
use crate::plan::Needs;

const NOT_LOOKED_AT: &str = "Not looked at, because no desired-state file has it: routes, firewall rules, other parameters, files, programs.";

/// Runs a script with its arguments in private namespaces and gives what it has made there, and why that may not be
/// all. This process stays in the network namespace.
pub fn read(words: &[OsString], limit: Duration) -> anyhow::Result<(Table, Option<String>)> {
    let (name, arguments) = words.split_first().context("no script is named")?;
    let script = find(name)?;
    // Without IPVS it can make nothing.
    if let Some(error) = Linux::default().prepare(&Needs::default()).pop() {
        return Err(error.into());
    }
    namespace::enter(&crate::kernel::names()?)?;
    let mut kernel = Linux::default();
    let before = kernel.observe(&kernel::scope()?)?;
    let problem = execute(&script, arguments, limit)?;
    // What is there now and was not before.
    let mut after = kernel.observe(&kernel::scope()?)?;
    after.parameters.retain(|name, value| before.parameters.get(name) != Some(value));
    after.addresses.retain(|found| !before.addresses.contains(found));
    let mut table = kernel::table(&after);
    table.notes.push(NOT_LOOKED_AT.to_owned());
    table.origin = format!("what {} made in private namespaces of this kernel", script.display());
    if let Some(problem) = &problem {
        table.notes.insert(0, format!("PERHAPS INCOMPLETE: {problem}."));
    }
    Ok((table, problem))
}

/// The file meant: by its path or, as keepalived and shells do it, by its name in PATH.
fn find(name: &OsStr) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").filter(|_| Path::new(name).components().count() == 1);
    let path = path.unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|folder| folder.join(name)).chain([name.into()]);
    let found = places.find(|place| place.is_file());
    let name = Path::new(name).display();
    let found = found.with_context(|| format!("there is no script {name}; give its path"))?;
    if found.metadata().is_ok_and(|file| file.permissions().mode() & 0o111 == 0) {
        bail!("the script {name} is not executable: chmod +x it, or name its shell, as in --run bash {name}");
    }
    std::path::absolute(&found).with_context(|| format!("finding the script {name}"))
}

/// Runs a script as a child of the first process of a process namespace: nobody outside can be signalled, and with
/// that process everything ends. Gives what went wrong with it.
fn execute(script: &Path, arguments: &[OsString], limit: Duration) -> anyhow::Result<Option<String>> {
    // A socket can be read with a limit. What comes is one word at the end, or the end alone.
    let (mut reader, writer) = UnixStream::pair().context("making a socket")?;
    reader.set_read_timeout(Some(limit)).context("limiting the script's time")?;
    unshare(CloneFlags::CLONE_NEWPID).context("making a private process namespace")?;
    let mut child = Command::new("/proc/self/exe")
        .arg0(INSIDE)
        .args(["import", "--run"])
        .arg(script)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(OwnedFd::from(writer))
        .spawn()
        .context("starting this program again, as /proc/self/exe")?;
    let mut end = String::new();
    let late = reader.read_to_string(&mut end).is_err();
    child.kill().context("stopping the script")?;
    child.wait().context("waiting for the script's end")?;
    let (script, limit) = (script.display(), limit.as_secs_f32());
    match end.as_str() {
        _ if late => {
            Ok(Some(format!("{script} was stopped after {limit} s; `--limit DURATION` gives it more time")))
        }
        "" => bail!("{script} was not run; the reason is told above"),
        "exit status: 0" => Ok(None),
        ended => Ok(Some(format!("{script} ended with {ended}"))),
    }
}
