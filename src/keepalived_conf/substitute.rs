//! Definitions of keepalived.conf, and what a line becomes with them.
//!
//! Owns `$NAME`, `${NAME}`, `~SEQ(…)` and `~LST(…)` (`replace_param()` and `add_seq()` of keepalived's
//! `lib/parser.c`). Which line is a definition, and bounds on the whole, are the parser's.

use std::collections::BTreeMap;

/// One sequence makes at most this many lines.
const MAX_SEQUENCE: usize = 10_000;

/// Every definition so far.
pub(super) struct Definitions(BTreeMap<String, Vec<String>>);

impl Definitions {
    pub(super) fn new(id: &str) -> Self {
        let own = [("_INSTANCE", id), ("_HASH", "#"), ("_BANG", "!"), ("_RANDOM", "0")];
        Self(own.into_iter().map(|(name, value)| (name.to_owned(), vec![value.to_owned()])).collect())
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.set_lines(name, vec![value.to_owned()]);
    }

    pub(super) fn set_lines(&mut self, name: &str, lines: Vec<String>) {
        self.0.insert(name.to_owned(), lines);
    }

    /// The line with its first reference replaced, and the further lines that a definition of several
    /// lines brings; `None` when nothing refers to a definition. Only at a line's end can such a
    /// definition stand.
    pub(super) fn substitute(&self, line: &str) -> Option<Vec<String>> {
        for (at, _) in line.match_indices('$') {
            let (before, reference) = line.split_at(at);
            let Some((name, after)) = reference_name(reference.get(1..)?) else { continue };
            match self.0.get(name).map(Vec::as_slice) {
                None => {}
                Some([]) => return Some(vec![format!("{before}{after}")]),
                Some([value]) => return Some(vec![format!("{before}{value}{after}")]),
                Some([first, rest @ ..]) if after.is_empty() => {
                    let mut lines = vec![format!("{before}{first}")];
                    lines.extend_from_slice(rest);
                    return Some(lines);
                }
                Some(_) => {}
            }
        }
        None
    }

    /// The lines that `~SEQ(name, start, step, end) text` or `~LST(name, value, …) text` stands for.
    pub(super) fn sequence(&self, line: &str) -> Option<Vec<String>> {
        let (head, text) = line.split_once(')')?;
        let (kind, list) = head.split_once('(')?;
        let mut words = list.split(',').map(|word| self.resolved(word.trim()));
        let name = words.next().filter(|name| is_name(name))?;
        let values: Vec<String> = match kind.trim_end() {
            "~LST" => words.collect(),
            "~SEQ" => numbers(words)?.into_iter().map(|number| number.to_string()).collect(),
            "~SEQx" => numbers(words)?.into_iter().map(|number| format!("{number:x}")).collect(),
            _ => return None,
        };
        // Written out at once rather than defined one after the other: the text may be another sequence.
        let text = text.trim_start();
        Some(values.into_iter().map(|value| replaced(text, &name, &value)).collect())
    }

    fn resolved(&self, word: &str) -> String {
        let name = word.strip_prefix('$').and_then(reference_name).filter(|(_, after)| after.is_empty());
        match name.and_then(|(name, _)| self.0.get(name)).map(Vec::as_slice) {
            Some([value]) => value.clone(),
            _ => word.to_owned(),
        }
    }
}

fn numbers(words: impl Iterator<Item = String>) -> Option<Vec<i64>> {
    let read = |word: String| match word.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    };
    let given: Vec<i64> = words.map(read).collect::<Option<_>>()?;
    let (start, step, end) = match given.as_slice() {
        [end] => (end.signum().max(-1) | 1, if *end < 1 { -1 } else { 1 }, *end),
        [start, end] => (*start, if start <= end { 1 } else { -1 }, *end),
        [start, step, end] => (*start, *step, *end),
        _ => return None,
    };
    if step == 0 || (start < end && step < 0) || (start > end && step > 0) {
        return None;
    }
    let next = |number: &i64| number.checked_add(step).filter(|next| (*next - end).signum() != step.signum());
    Some(std::iter::successors(Some(start), next).take(MAX_SEQUENCE).collect())
}

/// `text` with every reference to `name` replaced.
fn replaced(text: &str, name: &str, value: &str) -> String {
    let mut made = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, reference)) = rest.split_once('$') {
        made.push_str(before);
        match reference_name(reference) {
            Some((found, after)) if found == name => {
                made.push_str(value);
                rest = after;
            }
            _ => {
                made.push('$');
                rest = reference;
            }
        }
    }
    made + rest
}

/// The name that a reference, given without its `$`, names, and the text after it. Without braces it must
/// end the word.
fn reference_name(text: &str) -> Option<(&str, &str)> {
    if let Some(inner) = text.strip_prefix('{') {
        let (name, after) = inner.split_once('}')?;
        // ${_RANDOM 1 9}
        let name = name.split(' ').next().unwrap_or(name);
        return is_name(name).then_some((name, after));
    }
    let end = text.find(|letter: char| !is_name_letter(letter)).unwrap_or(text.len());
    let (name, after) = text.split_at(end);
    (is_name(name) && (after.is_empty() || after.starts_with([' ', '\t', ',', ')']))).then_some((name, after))
}

pub(super) fn is_name(name: &str) -> bool {
    name.chars().all(is_name_letter) && !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn is_name_letter(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}
