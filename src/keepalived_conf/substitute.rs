//! Definitions of keepalived.conf, and what a line becomes with them.
//!
//! Owns `$NAME` and `${NAME}` (`replace_param()` of keepalived's `lib/parser.c`). Which line is a definition, and bounds
//! on the whole, are the parser's.

use std::collections::BTreeMap;

/// Every definition so far; the lines of one are joined by `\n`.
pub(super) struct Definitions(BTreeMap<String, String>);

impl Definitions {
    pub(super) fn new(id: &str) -> Self {
        let own = [("_INSTANCE", id), ("_HASH", "#"), ("_BANG", "!"), ("_RANDOM", "0")];
        Self(own.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), value.to_owned());
    }

    /// The line with its first reference replaced, which makes it several where the definition has several lines; `None`
    /// when nothing refers to a definition. Only at a line's end can one of several lines stand.
    pub(super) fn substitute(&self, line: &str) -> Option<String> {
        line.match_indices('$').find_map(|(at, _)| {
            let (before, reference) = line.split_at(at);
            let (name, after) = reference_name(reference.get(1..)?)?;
            let value = self.0.get(name).filter(|value| after.is_empty() || !value.contains('\n'))?;
            Some(format!("{before}{value}{after}"))
        })
    }
}

/// The name that a reference, given without its `$`, names, and the text after it. Without braces it must end the word.
fn reference_name(text: &str) -> Option<(&str, &str)> {
    if let Some(inner) = text.strip_prefix('{') {
        let (name, after) = inner.split_once('}')?;
        // ${_RANDOM 1 9}
        let name = name.split(' ').next().unwrap_or(name);
        return is_name(name).then_some((name, after));
    }
    let end = text.find(|letter: char| !is_name_letter(letter)).unwrap_or(text.len());
    let (name, after) = text.split_at(end);
    (is_name(name) && (after.is_empty() || after.starts_with([' ', '\t', ',']))).then_some((name, after))
}

pub(super) fn is_name(name: &str) -> bool {
    name.chars().all(is_name_letter) && !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit())
}

pub(super) fn is_name_letter(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}
