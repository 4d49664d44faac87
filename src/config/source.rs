//! The text of a desired-state file: safe reading, its document, and errors with their place.
//!
//! Owns what the parser says and where. Leaves the YAML's shape to `document`, and its meaning to `rules`. Called by
//! `basis` and by the commands that only look at a file.

use std::fmt::{self, Write as _};
use std::fs::{Metadata, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::document::Document;
use crate::text::did_you_mean;

/// Larger files are refused unread, lest a takeover run out of memory: 20,000 services with 5 real servers each need less.
pub const MAX_BYTES: u64 = 16 << 20;

/// So many more brackets may be opened than closed: the parser's time grows with the square of their depth before it
/// comes to its own limit of 128. Those in comments count, so this has to be more than any good file has there.
const MAX_DEPTH: i32 = 5000;

/// One thing that is wrong with a file's meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The way to it from the document: keys of mappings, and indices of lists in digits
    pub location: Vec<String>,
    /// What is wrong, and what would be right
    pub message: String,
}

/// A file's text with its name: what errors quote.
#[derive(Clone, Debug)]
pub struct Source {
    pub name: String,
    pub text: String,
}

/// The desired-state file is invalid: another exit status than that of other failures.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

impl Source {
    /// Reads a file, and refuses one that somebody other than root or the caller can have written.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let bytes = read_safely(path).with_context(|| format!("reading the desired-state file {name}"))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
            let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
            let column = good.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
            Invalid(format!("{name}:{line}:{column}: not UTF-8; save the file in that encoding"))
        })?;
        Ok(Self { name, text })
    }

    /// Reads the document's structure: known keys, once each, with values of the right kind. Ends at the first mistake.
    pub fn document(&self) -> Result<Document, Invalid> {
        let depths = self.text.bytes().scan(0, |depth, byte| {
            *depth += i32::from(matches!(byte, b'[' | b'{')) - i32::from(matches!(byte, b']' | b'}'));
            Some(*depth)
        });
        if depths.max() > Some(MAX_DEPTH) {
            return Err(self.error(None, "nested too deeply to be a desired-state file"));
        }
        serde_yaml::from_str(&self.text).map_err(|error| self.structural(&error))
    }

    fn structural(&self, error: &serde_yaml::Error) -> Invalid {
        let place = error.location().map(|at| (at.line(), at.column()));
        let nothing = |line: &str| ["", "---"].contains(&line.trim()) || line.trim().starts_with('#');
        if self.text.lines().all(nothing) {
            let message = "the file is empty; it needs at least `version: 1`, `vips` and `virtual_services`";
            return self.error(place, message);
        }
        let text = error.to_string();
        // The message ends with its own copy of the place.
        let text = text.split(" at line ").next().unwrap_or(&text);
        // The parser tells the mapping, and the way to it before a colon.
        let twice = ["duplicate field ", "duplicate entry with key "].iter();
        if let Some((way, key)) = twice.filter_map(|words| text.split_once(words)).next() {
            let key = key.trim_matches(['`', '"']);
            let steps = way.split(['.', '[', ']', ':', ' ']).filter(|step| !step.is_empty()).chain([key]);
            let way: Vec<String> = steps.map(String::from).collect();
            let second = self.find(&way, 1).or(place);
            return self.error(second, &format!("`{key}` is given twice in the same mapping; keep one"));
        }
        // Rust's words for a value that is forgotten, and for a number.
        let text = text
            .replace("invalid type: unit value", "invalid type: nothing")
            .replace("expected u32", "expected a whole number from 0 to 4294967295");
        // The nearest right one to "unknown field `x`, expected one of …".
        let mut keys = text.split('`').skip(1).step_by(2);
        let wrong = keys.next().filter(|_| text.contains("unknown field")).unwrap_or_default();
        let hint = did_you_mean(wrong, &keys.collect::<Vec<_>>());
        self.error(place, &format!("{text}{hint}"))
    }

    /// Formats problems of meaning, each with its place, line and caret.
    pub fn explain<'p>(&self, problems: &'p [Problem]) -> Invalid {
        // Each place costs one more pass over the file.
        let most = if self.text.len() > 1 << 20 { 2 } else { 20 };
        let find = |problem: &'p Problem| (self.find(&problem.location, 0), &problem.message);
        let mut told: Vec<_> = problems.iter().take(most).map(find).collect();
        told.sort_by_key(|(place, _)| *place);
        let mut lines: Vec<_> = told.iter().map(|(place, message)| self.error(*place, message).0).collect();
        if problems.len() > most {
            lines.push(format!("{}: {} more errors", self.name, problems.len() - most));
        }
        Invalid(lines.join("\n"))
    }

    /// Line and column of a node, or of the mapping that lacks it: parses again and raises an error just there, so that
    /// the parser itself tells where it is, whatever style of YAML the file is written in.
    fn find(&self, way: &[String], nth: usize) -> Option<(usize, usize)> {
        let text = serde_yaml::Deserializer::from_str(&self.text);
        let error = Probe { way, nth }.deserialize(text).err()?;
        error.location().map(|at| (at.line(), at.column()))
    }

    /// A message with its place, its line and a caret.
    fn error(&self, place: Option<(usize, usize)>, message: &str) -> Invalid {
        let (line, column) = place.unwrap_or((1, 1));
        let mut text = format!("{}:{line}:{column}: {message}", self.name);
        if let Some(source) = place.and_then(|_| self.text.lines().nth(line.saturating_sub(1))) {
            let shown: String =
                source.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect();
            let margin = " ".repeat(column.saturating_sub(1).min(200));
            let _ = write!(text, "\n{line:5} | {shown}\n      | {margin}^");
        }
        Invalid(text)
    }
}

fn read_safely(path: &Path) -> anyhow::Result<Vec<u8>> {
    // O_NONBLOCK: opening a FIFO for reading would wait for a writer.
    let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    ensure!(metadata.is_file(), "it is not a regular file");
    refuse_foreign_writers(&metadata, "the file", path)?;
    let directory = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    refuse_foreign_writers(&std::fs::metadata(directory)?, "its directory", directory)?;
    // The file may grow while it is read.
    let mut bytes = Vec::with_capacity(metadata.len().min(MAX_BYTES) as usize + 1);
    let size = metadata.len().max(file.take(MAX_BYTES + 1).read_to_end(&mut bytes)? as u64);
    ensure!(size <= MAX_BYTES, "it has {size} bytes, more than the limit of {MAX_BYTES}");
    Ok(bytes)
}

/// Refuses what somebody other than root or the caller may change, and names the command against that.
pub fn refuse_foreign_writers(metadata: &Metadata, what: &str, path: &Path) -> anyhow::Result<()> {
    let (owner, mode, path) = (metadata.uid(), metadata.mode(), path.display());
    let ours = owner == 0 || owner == nix::unistd::geteuid().as_raw();
    ensure!(ours, "{what} belongs to user {owner}, who could change it: chown root {path}");
    // A sticky directory (/tmp) lets others add files, but not replace this one.
    let sticky_directory = metadata.is_dir() && mode & 0o1000 != 0;
    let closed = mode & 0o022 == 0 || sticky_directory;
    ensure!(closed, "{what} is writable by others (mode {:04o}): chmod go-w {path}", mode & 0o7777);
    Ok(())
}

/// Goes down a path and fails at its end, whatever is there: a visitor fails at what it has no method for.
struct Probe<'p> {
    way: &'p [String],
    /// How many equal keys to pass over in the last mapping
    nth: usize,
}

impl<'de> DeserializeSeed<'de> for Probe<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Probe<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the rest of the path")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let (index, way) = self.way.split_first().ok_or(de::Error::custom("here"))?;
        for _ in 0..index.parse().unwrap_or(0) {
            seq.next_element::<IgnoredAny>()?;
        }
        seq.next_element_seed(Probe { way, ..self })?.ok_or(de::Error::custom("here"))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (wanted, way) = self.way.split_first().ok_or(de::Error::custom("here"))?;
        let mut left = if way.is_empty() { self.nth } else { 0 };
        while let Some(key) = map.next_key::<String>()? {
            if *wanted == key && left == 0 {
                return map.next_value_seed(Probe { way, ..self });
            }
            left -= usize::from(*wanted == key);
            map.next_value::<IgnoredAny>()?;
        }
        Err(de::Error::custom("here"))
    }
}
