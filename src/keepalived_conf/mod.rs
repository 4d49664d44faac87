//! keepalived.conf as keepalived reads it: a tree of statements, each with its file and line.
//!
//! Owns the syntax: comments, quotes, braces, includes, `$NAME=value` and `${NAME}`, definitions of several lines, `@id`
//! conditions. Knows no keyword but `include`, which [`files`] reads; what the others mean is in `meaning`. Never
//! fails: what is wrong is a [`Trouble`]. Called by `check` and `import`.
//!
//! The facts are keepalived's `lib/parser.c`: `decomment()`, `read_line()`, `replace_param()` and `alloc_strvec_r()`. One
//! deliberate difference: what `~SEQ` and `~LST` make is not read.

pub mod files;
pub mod meaning;

use std::collections::BTreeMap;
use std::mem;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::text::shown;

/// Includes and blocks nested deeper are not read.
const MAX_DEPTH: usize = 32;
/// More bytes, written or made by substitution, are not read: a few lines can stand for millions.
const MAX_BYTES: usize = 64 << 20;

/// One keyword with its values, and its block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The keyword and its values, without their quotes
    pub words: Vec<String>,
    /// The line that the words were made from, without comment, after substitution
    pub raw: String,
    pub file: Rc<Path>,
    pub line: usize,
    /// It has a block, even if an empty one
    pub block: bool,
    pub children: Vec<Statement>,
}

impl Statement {
    pub fn keyword(&self) -> &str {
        self.value(0)
    }

    /// The word at this place, or nothing.
    pub fn value(&self, index: usize) -> &str {
        self.words.get(index).map_or("", String::as_str)
    }

    pub fn place(&self) -> String {
        format!("{}:{}", self.file.display(), self.line)
    }

    pub fn not_understood(&self) -> String {
        format!("{}: `{}` is not understood", self.place(), shown(&self.raw))
    }

    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.words.iter().skip(1).map(String::as_str)
    }

    /// Statements in the block that have this keyword.
    pub fn all<'a>(&'a self, keyword: &'a str) -> impl Iterator<Item = &'a Statement> {
        self.children.iter().filter(move |child| child.keyword() == keyword)
    }

    /// The last statement in the block with this keyword, which is the one that counts for settings.
    pub fn last<'a>(&'a self, keyword: &'a str) -> Option<&'a Statement> {
        self.all(keyword).last()
    }
}

/// Something that is wrong with the text itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub file: Rc<Path>,
    pub line: usize,
    pub message: String,
    /// Nothing is wrong with it, but lvs-notify does not read it
    pub unread: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Statements outside of any block
    pub statements: Vec<Statement>,
    /// Every file that was read, in order
    pub files: Vec<PathBuf>,
    pub troubles: Vec<Trouble>,
}

impl Tree {
    pub fn all<'a>(&'a self, keyword: &'a str) -> impl Iterator<Item = &'a Statement> {
        self.statements.iter().filter(move |statement| statement.keyword() == keyword)
    }

    /// Statements in any `global_defs` that have this keyword.
    pub fn globals<'a>(&'a self, keyword: &'a str) -> impl Iterator<Item = &'a Statement> {
        self.all("global_defs").flat_map(move |block| block.all(keyword))
    }
}

/// A file that a pattern matched, with its content or the reason why keepalived passes it over.
pub type Found = (PathBuf, Result<Vec<u8>, String>);

/// Reads the configuration that starts in `path`. `id` is what `@` conditions compare with: `keepalived -i`,
/// or the host's name up to its first dot. `find` gets a path or pattern and returns the files it matches.
pub fn parse(path: &Path, id: &str, find: &mut dyn FnMut(&Path) -> Vec<Found>) -> Tree {
    let own = [("_INSTANCE", id), ("_HASH", "#"), ("_BANG", "!")];
    let mut reader = Reader {
        definitions: own.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        id,
        find,
        tree: Tree::default(),
        open: Vec::new(),
        file: Rc::from(path),
        line: 0,
        depth: 0,
        left: MAX_BYTES,
    };
    reader.include(path);
    while let Some(owner) = reader.open.last() {
        (reader.file, reader.line) = (Rc::clone(&owner.file), owner.line);
        reader.trouble("a `{` has no `}`: everything after it is read as part of that block");
        reader.close();
    }
    reader.tree
}

struct Reader<'a> {
    id: &'a str,
    find: &'a mut dyn FnMut(&Path) -> Vec<Found>,
    /// Every definition so far; the lines of one are joined by `\n`
    definitions: BTreeMap<String, String>,
    tree: Tree,
    /// Whose blocks are open, from the outermost
    open: Vec<Statement>,
    file: Rc<Path>,
    line: usize,
    /// Files that are read at once
    depth: usize,
    left: usize,
}

impl Reader<'_> {
    fn trouble(&mut self, message: impl Into<String>) {
        self.note(message, false);
    }

    fn note(&mut self, message: impl Into<String>, unread: bool) {
        if self.tree.troubles.len() < 100 {
            let (file, line, message) = (Rc::clone(&self.file), self.line, message.into());
            self.tree.troubles.push(Trouble { file, line, message, unread });
        }
    }

    fn include(&mut self, pattern: &Path) {
        if self.depth > MAX_DEPTH {
            return self.trouble("files include each other too deeply; the rest is not read");
        }
        let found = (self.find)(pattern);
        // A pattern may match nothing today; a name is a promise.
        if found.is_empty() && !pattern.to_string_lossy().contains(['*', '?', '[', '{']) {
            self.trouble(format!("there is no file `{}`; keepalived goes on without it", pattern.display()));
        }
        for (path, content) in found {
            match content {
                Ok(bytes) => {
                    let before = (mem::replace(&mut self.file, Rc::from(path.as_path())), self.line);
                    self.tree.files.push(path);
                    self.depth += 1;
                    self.lines(&String::from_utf8_lossy(&bytes));
                    self.depth -= 1;
                    (self.file, self.line) = before;
                }
                Err(why) => self.trouble(format!("{} is not read: {why}", path.display())),
            }
        }
    }

    fn lines(&mut self, text: &str) {
        // A definition goes on in the next line.
        let mut whole = String::new();
        for (number, line) in text.split('\n').enumerate() {
            self.line = number + 1;
            let (line, continues) = uncommented(line);
            let defines = !whole.is_empty() || self.conditional(&line).and_then(defines).is_some();
            whole.extend((!whole.is_empty() && !line.is_empty()).then_some('\n'));
            whole += &line;
            if !continues || !defines {
                self.expand(mem::take(&mut whole));
            }
        }
    }

    /// The line without its `@id` conditions, or `None` when one of them is not met.
    fn conditional<'l>(&self, mut line: &'l str) -> Option<&'l str> {
        while let Some(rest) = line.strip_prefix('@') {
            let (word, after) = rest.split_once([' ', '\t'])?;
            let met = word.strip_prefix('^').map_or(word == self.id, |other| other != self.id);
            line = met.then(|| after.trim_start())?;
        }
        Some(line)
    }

    /// Carries out conditions, definitions and substitutions until plain text is left.
    fn expand(&mut self, line: String) {
        let mut waiting = Vec::from_iter(self.affords(&line).then_some(line));
        while let Some(line) = waiting.pop() {
            let Some(line) = self.conditional(&line) else { continue };
            if let Some((name, value)) = defines(line) {
                self.definitions.insert(name, value);
            } else if let Some(kind) = ["~SEQ", "~LST"].iter().find(|kind| line.starts_with(**kind)) {
                self.note(format!("the lines that `{kind}` makes are not read"), true);
            } else if let Some(made) = self.substitute(line) {
                waiting.extend(made.split('\n').rev().filter(|line| self.affords(line)).map(str::to_owned));
            } else {
                self.plain(line);
            }
        }
    }

    /// The line with its first reference replaced, which makes it several where the definition has several lines; `None`
    /// when nothing refers to a definition. Only at a line's end can one of several lines stand.
    fn substitute(&self, line: &str) -> Option<String> {
        line.match_indices('$').find_map(|(at, _)| {
            let (before, reference) = line.split_at(at);
            let (name, after) = reference_name(reference.get(1..)?)?;
            let value = match name {
                "_PWD" => self.file.parent()?.to_string_lossy(),
                _ => self.definitions.get(name)?.into(),
            };
            (after.is_empty() || !value.contains('\n')).then(|| format!("{before}{value}{after}"))
        })
    }

    fn affords(&mut self, line: &str) -> bool {
        let had = self.left;
        self.left = had.saturating_sub(line.len() + 32);
        if self.left == 0 && had > 0 {
            self.note("the configuration expands to more than 64 MiB; the rest is not read", true);
        }
        self.left > 0
    }

    /// Text without anything to substitute: an include, statements, braces.
    fn plain(&mut self, line: &str) {
        if let Some([first, second]) = split(line, false).as_deref() {
            if matches!(first.strip_prefix("include"), Some("" | "r" | "m" | "w" | "b" | "a")) {
                return self.include(&self.file.with_file_name(second));
            }
        }
        let (mut quote, mut start) = (false, 0);
        for (at, letter) in line.char_indices() {
            quote ^= letter == '"';
            if quote || !matches!(letter, '{' | '}') {
                continue;
            }
            self.statement(line.get(start..at).unwrap_or_default());
            match letter {
                '{' => self.open(),
                _ => self.close(),
            }
            start = at + 1;
        }
        self.statement(line.get(start..).unwrap_or_default());
    }

    /// Where the next statement goes: into the innermost open block.
    fn level(&mut self) -> &mut Vec<Statement> {
        self.open.last_mut().map_or(&mut self.tree.statements, |owner| &mut owner.children)
    }

    fn statement(&mut self, text: &str) {
        let (raw, words) = (text.trim().to_owned(), split(text, false).unwrap_or_default());
        if !words.is_empty() {
            let (file, line) = (Rc::clone(&self.file), self.line);
            self.level().push(Statement { words, raw, file, line, block: false, children: Vec::new() });
        }
    }

    fn open(&mut self) {
        if self.open.len() >= MAX_DEPTH {
            return self.trouble("blocks are nested too deeply; this `{` is ignored");
        }
        match self.level().pop() {
            Some(owner) if !owner.block => self.open.push(Statement { block: true, ..owner }),
            other => {
                self.level().extend(other);
                self.trouble("unexpected `{`: keepalived ignores it");
            }
        }
    }

    fn close(&mut self) {
        match self.open.pop() {
            Some(owner) => self.level().push(owner),
            None => self.trouble("an extra `}`: a block was closed before"),
        }
    }
}

/// The line without comment and outer blanks, and whether it ends with a backslash (which is taken off).
/// Only double quotes protect a comment's first letter, as in keepalived.
fn uncommented(line: &str) -> (String, bool) {
    let mut kept = String::with_capacity(line.len());
    let (mut quote, mut continues) = (false, false);
    let mut letters = line.trim_end_matches('\r').chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                None => continues = true,
                Some(next @ ('#' | '!')) if !quote => kept.push(next),
                Some(next) => kept.extend([letter, next]),
            },
            '#' | '!' if !quote => {
                continues = letters.last() == Some('\\');
                break;
            }
            _ => {
                quote ^= letter == '"';
                kept.push(letter);
            }
        }
    }
    (kept.trim().to_owned(), continues)
}

/// Reads `$NAME=value`. The name is followed by the sign at once.
fn defines(line: &str) -> Option<(String, String)> {
    let (name, value) = line.strip_prefix('$')?.split_once('=')?;
    is_name(name).then(|| (name.to_owned(), value.trim_start().to_owned()))
}

/// The name that a reference, given without its `$`, names, and the text after it. Without braces it must end the word.
fn reference_name(text: &str) -> Option<(&str, &str)> {
    let (name, after) = match text.strip_prefix('{') {
        Some(inner) => inner.split_once('}')?,
        None => text.split_at(text.find(|letter| !is_name_letter(letter)).unwrap_or(text.len())),
    };
    let ends = text.starts_with('{') || after.is_empty() || after.starts_with([' ', '\t', ',']);
    (ends && is_name(name)).then_some((name, after))
}

fn is_name(name: &str) -> bool {
    name.chars().all(is_name_letter) && !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn is_name_letter(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// Splits a line at blanks outside of quotes, as keepalived does: for most keywords with double quotes around whole words
/// and nothing else. For scripts, `escaped`, also with single ones, which may begin within a word, and with backslashes: the
/// next letter is taken as it is, also where keepalived makes another one of it, as of `\n`; and `None` when one is open.
fn split(line: &str, escaped: bool) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        let opens = quote.is_none() && (letter == '"' || (escaped && letter == '\''));
        let closes = quote == Some(letter);
        let blank = quote.is_none() && (letter.is_ascii_whitespace() || letter == '\u{b}');
        if blank || (!escaped && (opens || closes)) {
            words.extend(word.take());
        }
        if opens {
            (quote, word) = (Some(letter), Some(word.unwrap_or_default()));
        } else if closes {
            quote = None;
        } else if !blank {
            let literal = if escaped && letter == '\\' { letters.next()? } else { letter };
            word.get_or_insert_default().push(literal);
        }
    }
    words.extend(word);
    (quote.is_none() || !escaped).then_some(words)
}

#[cfg(test)]
mod tests;
