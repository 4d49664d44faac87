//! The command `check`: which files, which keepalived.conf, and whether this host is looked at.
//!
//! Owns the gathering for `lint`, which judges, and `report::check`, which tells. Called by `lib`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::config::Source;
use crate::desired;
use crate::instance;
use crate::keepalived_conf::{self, Tree};
use crate::kernel::host::Host;
use crate::lint::{self, File, Input};
use crate::report::check::Checked;

/// Where keepalived looks.
const KEEPALIVED_CONF: &str = "/etc/keepalived/keepalived.conf";

/// Checks what was named, or everything that is this host's.
///
/// # Errors
/// When there is nothing to check, or the named keepalived.conf cannot be read.
pub fn run(
    named: &[PathBuf],
    config: Option<&Path>,
    keepalived_conf: Option<&Path>,
    host: bool,
) -> anyhow::Result<Checked> {
    let complete = named.is_empty() && config.is_none();
    let paths: Vec<PathBuf> = match (named, config) {
        ([], Some(file)) => vec![file.to_owned()],
        ([], None) => instance::all().into_iter().map(|instance| instance.path).collect(),
        (named, _) => named.to_vec(),
    };
    let own = named.iter().all(|path| path.parent() == Some(Path::new(instance::DIRECTORY)));
    let host = host || own;
    let default = Some(Path::new(KEEPALIVED_CONF)).filter(|path| host && path.exists());
    let tree = keepalived_conf.or(default).map(read_conf).transpose()?;
    if paths.is_empty() && tree.is_none() {
        bail!("nothing to check: there is no file in {}, and no {KEEPALIVED_CONF}", instance::DIRECTORY);
    }
    let mut checked = Checked { host, ..Checked::default() };
    for path in &paths {
        match Source::read(path).and_then(|source| Ok(desired::declared(&source)?)) {
            Ok(declared) => checked.files.push(File {
                path: path.display().to_string(),
                instance: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
                declared,
            }),
            Err(error) => checked.invalid.push(format!("{error:#}")),
        }
    }
    let host = host.then(|| {
        let mut asked = lint::asked(tree.as_ref());
        asked.interfaces = checked.files.iter().flat_map(|file| file.declared.interfaces()).collect();
        Host::read(&asked)
    });
    let input = Input {
        files: &checked.files,
        complete: complete && checked.invalid.is_empty(),
        conf: tree.as_ref(),
        host: host.as_ref(),
    };
    checked.findings = lint::findings(input);
    checked.proofs = lint::loops(input);
    checked.conf = tree.iter().flat_map(|tree| &tree.files).map(|path| path.display().to_string()).collect();
    Ok(checked)
}

fn read_conf(path: &Path) -> anyhow::Result<Tree> {
    let reading = || format!("reading {} as keepalived.conf", path.display());
    // The first file must be there; what an include does not find is a finding.
    std::fs::File::open(path).with_context(reading)?;
    let host = nix::sys::utsname::uname().with_context(reading)?;
    let name = host.nodename().to_string_lossy();
    let id = name.split('.').next().unwrap_or_default();
    Ok(keepalived_conf::parse(path, id, &mut keepalived_conf::files::find))
}
