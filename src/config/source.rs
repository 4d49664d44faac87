//! The text of a desired-state file: safe reading, its document, and errors with their place.
//!
//! Owns what the parser says and where. Leaves the YAML's shape to `document`, and its meaning to `rules`. Called by
//! `basis` and by the commands that only look at a file.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::document::{Document, Text};
use crate::text::nearest;

/// Larger files are refused unread: a file for 20,000 services with 5 real servers each is
/// smaller, and a takeover must not run out of memory.
pub const MAX_BYTES: u64 = 16 << 20;

/// Brackets nested deeper are refused: the file's own shape needs five, and the parser's time grows
/// with the square of the depth.
const MAX_DEPTH: usize = 100;

/// At most this many problems are told at once.
const MAX_PROBLEMS: usize = 20;

/// A step from a YAML node to one below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// A key of a mapping
    Key(Cow<'static, str>),
    /// An item of a list, counted from 0
    Index(usize),
}

/// The way from the document to a node.
pub type Location = Vec<Segment>;

/// One thing that is wrong with a file's meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub location: Location,
    /// What is wrong, and what would be right
    pub message: String,
}

/// A file's text with its name: what errors quote.
#[derive(Clone, Debug)]
pub struct Source {
    pub name: String,
    pub text: String,
}

/// The desired-state file is invalid. Told apart from other failures, because the exit status
/// and the fallback to the last good file depend on it.
#[derive(Clone, Debug)]
pub struct Invalid(pub String);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Invalid {}

impl Source {
    /// Reads a file that only its owner, root or the caller, can have written.
    ///
    /// # Errors
    /// When it cannot be read, is no regular file, is too large, is not UTF-8, or when somebody
    /// else may write to it or to its directory.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let reading = || format!("reading the desired-state file {name}");
        // O_NONBLOCK: opening a FIFO for reading would wait for a writer.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC)
            .open(path)
            .with_context(reading)?;
        let bytes = Self::content(&file, path).with_context(reading)?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let good = error.utf8_error().valid_up_to();
            let before = error.as_bytes().get(..good).unwrap_or_default();
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
            Invalid(format!("{name}:{line}:{column}: not UTF-8; save the file in that encoding"))
        })?;
        Ok(Self { name, text })
    }

    fn content(file: &File, path: &Path) -> anyhow::Result<Vec<u8>> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            bail!("it is not a regular file");
        }
        refuse_foreign_writers(&metadata, "the file")?;
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        refuse_foreign_writers(&std::fs::metadata(directory)?, "its directory")?;
        if metadata.len() > MAX_BYTES {
            bail!("it has {} bytes, more than the limit of {MAX_BYTES}", metadata.len());
        }
        let mut bytes = Vec::new();
        // The file may grow while it is read.
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_BYTES {
            bail!("it grew beyond the limit of {MAX_BYTES} bytes while it was read");
        }
        Ok(bytes)
    }

    /// Reads the document's structure: known keys, once each, with values of the right kind.
    ///
    /// # Errors
    /// [`Invalid`], with the place of the first structural error.
    pub fn document(&self) -> Result<Document, Invalid> {
        if let Some(place) = self.too_deep() {
            return Err(Invalid(self.excerpt(Some(place), "nested too deeply to be a desired-state file")));
        }
        serde_yaml::from_str(&self.text).map_err(|error| self.structural(&error))
    }

    /// Where brackets are nested beyond the limit. Not exact about quotes and comments at the end of a line; a key at the
    /// margin starts anew, since nothing can be open there.
    fn too_deep(&self) -> Option<(usize, usize)> {
        let mut depth: usize = 0;
        for (number, line) in self.text.lines().enumerate() {
            if line.starts_with(|c: char| c.is_ascii_alphabetic()) {
                depth = 0;
            }
            if line.trim_start().starts_with('#') {
                continue;
            }
            for (column, byte) in line.bytes().enumerate() {
                match byte {
                    b'[' | b'{' => depth += 1,
                    b']' | b'}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                if depth > MAX_DEPTH {
                    return Some((number + 1, column + 1));
                }
            }
        }
        None
    }

    fn structural(&self, error: &serde_yaml::Error) -> Invalid {
        let mut text = error.to_string();
        let mut place = error.location().map(|at| (at.line(), at.column()));
        let duplicate = if text.contains("duplicate field") { self.duplicate_key() } else { None };
        if let Some((found, key)) = duplicate {
            text = format!("`{key}` is given twice in the same mapping; keep one");
            place = Some(found);
        }
        // The message ends with its own copy of the place.
        let text = text.split(" at line ").next().unwrap_or(&text);
        let text = match (text.contains("EOF") || text.contains("missing field `version`"), self.is_blank()) {
            (true, true) => {
                "the file is empty; it needs at least `version: 1`, `vips` and `virtual_services`".to_owned()
            }
            _ => with_suggestion(text),
        };
        // An unknown key is reported with the place of its value's end or of its mapping; look for
        // the key itself nearby.
        if let Some(key) = quoted(&text).filter(|_| text.contains("unknown field")) {
            place = self.unknown_key(key, place).or(place);
        }
        Invalid(self.excerpt(place, &text))
    }

    fn is_blank(&self) -> bool {
        self.text.lines().all(|line| {
            let line = line.trim();
            line.is_empty() || line.starts_with('#') || line == "---"
        })
    }

    fn duplicate_key(&self) -> Option<((usize, usize), String)> {
        let mut key = None;
        let error = Walk(&mut key).deserialize(serde_yaml::Deserializer::from_str(&self.text)).err()?;
        let at = error.location()?;
        Some(((at.line(), at.column()), key?))
    }

    /// The place of `key:` closest to where the parser stood.
    fn unknown_key(&self, key: &str, near: Option<(usize, usize)>) -> Option<(usize, usize)> {
        let target = near.map_or(1, |(line, _)| line);
        let mut best: Option<(usize, usize)> = None;
        for (number, line) in self.text.lines().enumerate() {
            let found = line.match_indices(key).find(|(at, _)| {
                let before = line.get(..*at).unwrap_or_default();
                let after = line.get(at + key.len()..).unwrap_or_default();
                before.chars().all(|c| " -{,\"'".contains(c) || before.contains('{'))
                    && after.trim_start_matches(['"', '\'']).trim_start().starts_with(':')
            });
            let Some((at, _)) = found else { continue };
            if best.is_none_or(|(line, _)| (number + 1).abs_diff(target) < line.abs_diff(target)) {
                best = Some((number + 1, at + 1));
            }
        }
        best
    }

    /// Formats problems of meaning, each with its place, line and caret.
    pub fn explain(&self, problems: &[Problem]) -> Invalid {
        // Each place costs one more pass over the file.
        let most = if self.text.len() > 1 << 20 { 2 } else { MAX_PROBLEMS };
        let mut told: Vec<(Option<(usize, usize)>, &str)> = problems
            .iter()
            .take(most)
            .map(|problem| (self.find(&problem.location), problem.message.as_str()))
            .collect();
        told.sort_by_key(|(place, _)| *place);
        let mut text = told
            .into_iter()
            .map(|(place, message)| self.excerpt(place, message))
            .collect::<Vec<_>>()
            .join("\n");
        if problems.len() > most {
            let _ = write!(text, "\n{}: {} more errors", self.name, problems.len() - most);
        }
        Invalid(text)
    }

    /// The place of a node: parses again and raises an error just there, so that the parser
    /// itself tells where it is, whatever style of YAML the file is written in.
    fn find(&self, location: &[Segment]) -> Option<(usize, usize)> {
        let mut path = location;
        loop {
            let deserializer = serde_yaml::Deserializer::from_str(&self.text);
            let at = Probe(path).deserialize(deserializer).err().and_then(|error| error.location());
            match (at, path.split_last()) {
                (Some(at), _) => return Some((at.line(), at.column())),
                // A key that is not there: the mapping that lacks it.
                (None, Some((_, parent))) => path = parent,
                (None, None) => return None,
            }
        }
    }

    fn excerpt(&self, place: Option<(usize, usize)>, message: &str) -> String {
        let Some((line, column)) = place else {
            return format!("{}:1:1: {message}", self.name);
        };
        let mut text = format!("{}:{line}:{column}: {message}", self.name);
        if let Some(source) = self.text.lines().nth(line.saturating_sub(1)) {
            let shown: String =
                source.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect();
            let margin = " ".repeat(column.saturating_sub(1).min(200));
            let _ = write!(text, "\n{line:5} | {shown}\n      | {margin}^");
        }
        text
    }
}

/// Refuses what somebody other than root or the caller may change.
///
/// # Errors
/// With what is wrong and the command that mends it.
pub fn refuse_foreign_writers(metadata: &std::fs::Metadata, what: &str) -> anyhow::Result<()> {
    let caller = nix::unistd::geteuid().as_raw();
    if metadata.uid() != 0 && metadata.uid() != caller {
        bail!("{what} belongs to user {}, who could change it; chown it to root", metadata.uid());
    }
    // A sticky directory (/tmp) lets others add files, but not replace this one.
    let sticky_directory = metadata.is_dir() && metadata.mode() & 0o1000 != 0;
    if metadata.mode() & 0o022 != 0 && !sticky_directory {
        bail!("{what} may be written by others (mode {:04o}); chmod go-w it", metadata.mode() & 0o7777);
    }
    Ok(())
}

/// The text between the first pair of backquotes.
fn quoted(text: &str) -> Option<&str> {
    text.split('`').nth(1)
}

/// Adds the nearest right word to a message of the form "unknown field `x`, expected one of …".
fn with_suggestion(text: &str) -> String {
    let Some((_, expected)) = text.split_once("expected") else {
        return text.to_owned();
    };
    let choices: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    match quoted(text).filter(|_| text.contains("unknown")).and_then(|word| nearest(word, &choices)) {
        Some(word) => format!("{text}; did you mean `{word}`?"),
        None => text.to_owned(),
    }
}

/// Goes down a path and fails at its end.
struct Probe<'p>(&'p [Segment]);

impl<'de> DeserializeSeed<'de> for Probe<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Every scalar visit of a probe: the path ends here, or it leads nowhere.
macro_rules! probe_scalars {
    ($($name:ident: $type:ty),*) => {$(
        fn $name<E: de::Error>(self, _: $type) -> Result<(), E> {
            if self.0.is_empty() { Err(E::custom("here")) } else { Ok(()) }
        }
    )*};
}

impl<'de> Visitor<'de> for Probe<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }
    probe_scalars!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);
    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        if self.0.is_empty() { Err(E::custom("here")) } else { Ok(()) }
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((first, rest)) = self.0.split_first() else {
            return Err(de::Error::custom("here"));
        };
        let mut index = 0;
        loop {
            let more = match first {
                Segment::Index(wanted) if *wanted == index => seq.next_element_seed(Probe(rest))?.is_some(),
                _ => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                return Ok(());
            }
            index += 1;
        }
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((first, rest)) = self.0.split_first() else {
            return Err(de::Error::custom("here"));
        };
        while let Some(Text(key)) = map.next_key()? {
            match first {
                Segment::Key(wanted) if *wanted == key => map.next_value_seed(Probe(rest))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Visits a whole document and fails at the second of two equal keys of a mapping.
struct Walk<'k>(&'k mut Option<String>);

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

macro_rules! walk_scalars {
    ($($name:ident: $type:ty),*) => {$(
        fn $name<E: de::Error>(self, _: $type) -> Result<(), E> { Ok(()) }
    )*};
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }
    walk_scalars!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);
    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Walk(self.0))?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = std::collections::BTreeSet::new();
        while map.next_key_seed(NewKey(&mut seen, self.0))?.is_some() {
            map.next_value_seed(Walk(self.0))?;
        }
        Ok(())
    }
}

/// A key that must not have been seen yet; failing inside it makes the parser name its place.
struct NewKey<'k>(&'k mut std::collections::BTreeSet<String>, &'k mut Option<String>);

impl<'de> DeserializeSeed<'de> for NewKey<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for NewKey<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_str<E: de::Error>(self, key: &str) -> Result<(), E> {
        if self.0.insert(key.to_owned()) {
            return Ok(());
        }
        *self.1 = Some(key.to_owned());
        Err(E::custom("given twice"))
    }
}
