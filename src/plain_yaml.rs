//! The plain part of YAML, read in one pass and without allocating: what nearly every desired-state file is
//! written in.
//!
//! A takeover waits for its file to be read, and libyaml's events cost as much per real server as the kernel's
//! work for it. This reader therefore takes the part of YAML about which there can be no two opinions: block
//! mappings and lists, one-line `{…}` and `[…]`, comments, quoted text without escapes, and scalars that are
//! words, numbers, addresses or durations. About everything else it is [`Unsure`], and so it is about every
//! file that does not fit its types: then serde_yaml reads the file anew, decides, and words the error. That
//! both agree wherever this one is sure is tested with generated files.
//!
//! Owns no meaning and no error message. Called by `config`, which owns the types.

use std::fmt::Display;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

/// The file, or a part of it, is not plain, or does not fit: ask serde_yaml.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsure;

impl Display for Unsure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not plain YAML")
    }
}

impl std::error::Error for Unsure {}

impl de::Error for Unsure {
    fn custom<T: Display>(_: T) -> Self {
        Self
    }
}

type Result<T> = std::result::Result<T, Unsure>;

/// Reads a whole file.
///
/// # Errors
/// [`Unsure`], which says nothing about whether the file is right.
pub fn read<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T> {
    let mut reader = Reader { rest: text, line: "", column: 0, key: None };
    reader.next_line()?;
    if reader.line == "---" && reader.column == 0 {
        reader.next_line()?;
    }
    if reader.line.is_empty() || reader.column != 0 {
        return Err(Unsure);
    }
    let value = T::deserialize(Block(&mut reader))?;
    if reader.line.is_empty() { Ok(value) } else { Err(Unsure) }
}

/// Where reading stands.
struct Reader<'de> {
    /// The lines after this one
    rest: &'de str,
    /// What is left of this line, without blanks and comment; empty at the end of the file
    line: &'de str,
    /// The column of its first character
    column: usize,
    /// The key that it begins with, and the text after its colon and blanks
    key: Option<(&'de str, &'de str)>,
}

impl<'de> Reader<'de> {
    /// Makes this what is left of the line.
    fn stand(&mut self, line: &'de str, column: usize) {
        (self.line, self.column, self.key) = (line, column, key(line));
    }

    /// Goes to the next line with content.
    fn next_line(&mut self) -> Result<()> {
        (self.line, self.key) = ("", None);
        while !self.rest.is_empty() {
            // One pass finds the end of nearly every line: most have nothing but printable signs, none of which
            // begins a comment.
            let end = ordinary(self.rest.as_bytes());
            let (mut line, mut rest) = self.rest.split_at_checked(end).ok_or(Unsure)?;
            if !rest.is_empty() && !rest.starts_with('\n') {
                (line, rest) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
                line = before_comment(line, end)?;
                self.rest = rest;
            } else {
                self.rest = rest.get(1..).unwrap_or_default();
            }
            let content = without_blanks(line);
            self.stand(content.trim_ascii_end(), line.len() - content.len());
            if !self.line.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Takes `-` and the blanks after it, when an item of a list at `column` begins here.
    fn take_dash(&mut self, column: usize) -> Result<bool> {
        if self.line.is_empty() || self.column < column {
            return Ok(false);
        }
        let Some(after) = self.line.strip_prefix('-').filter(|_| self.column == column) else {
            // Deeper than its list; or a key at the list's own column, which ends it.
            return if self.column > column { Err(Unsure) } else { Ok(false) };
        };
        if after.is_empty() {
            self.next_line()?;
            return if self.column > column && !self.line.is_empty() { Ok(true) } else { Err(Unsure) };
        }
        let content = without_blanks(after);
        if content.len() == after.len() {
            return Err(Unsure);
        }
        self.stand(content, self.column + self.line.len() - content.len());
        Ok(true)
    }

    /// Takes `key:` and what makes its value the next thing to read, when a key at `column` stands here.
    fn take_key(&mut self, column: usize) -> Result<Option<&'de str>> {
        if self.line.is_empty() || self.column < column {
            return Ok(None);
        }
        let (key, after) = self.key.filter(|_| self.column == column).ok_or(Unsure)?;
        if !after.is_empty() {
            self.stand(after, self.column + self.line.len() - after.len());
            // On this line there is room for one value and no more structure.
            return if is_dash(after) || self.key.is_some() { Err(Unsure) } else { Ok(Some(key)) };
        }
        self.next_line()?;
        // A list may stand at the column of its key, anything else is deeper. No value at all would be null.
        let inside = self.column > column || (self.column == column && is_dash(self.line));
        if inside && !self.line.is_empty() { Ok(Some(key)) } else { Err(Unsure) }
    }
}

/// How many signs from the start are printable ASCII and do not begin a comment.
fn ordinary(text: &[u8]) -> usize {
    /// The same byte eight times.
    const fn each(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; 8])
    }
    let mut done = 0;
    let mut rest = text;
    // Eight at a time, since every byte of a file passes here. The highest bit of a byte tells that it is below a
    // blank, above `~`, or `#`. A carry can wrongly mark a byte behind the first that is marked, and the first alone
    // counts.
    while let Some((eight, after)) = rest.split_first_chunk() {
        let eight = u64::from_le_bytes(*eight);
        let hash = eight ^ each(b'#');
        let below = eight.wrapping_sub(each(b' ')) & !eight;
        let above = eight.wrapping_add(each(0x7f - b'~')) | eight;
        let found = (below | above | (hash.wrapping_sub(each(1)) & !hash)) & each(0x80);
        if found != 0 {
            return done + found.trailing_zeros() as usize / 8;
        }
        (done, rest) = (done + 8, after);
    }
    let other = |byte: &u8| !(b' '..=b'~').contains(byte) || *byte == b'#';
    done + rest.iter().position(other).unwrap_or(rest.len())
}

/// The part of a line before its comment, which begins `at` this byte, or nowhere.
fn before_comment(content: &str, at: usize) -> Result<&str> {
    let (before, comment) = content.split_at_checked(at).ok_or(Unsure)?;
    // In a comment any letter may stand, but for those that YAML takes for a line's end or forbids.
    let letter = |c: char| match c {
        ' '..='~' => true,
        '\u{2028}' | '\u{2029}' => false,
        _ => ('\u{a0}'..'\u{d7ff}').contains(&c),
    };
    // Otherwise it is part of a plain text, or perhaps of a quoted one.
    let begins = comment.starts_with('#') && (before.is_empty() || before.ends_with(' '));
    if !begins || before.contains(['"', '\'']) || !comment.chars().all(letter) {
        return Err(Unsure);
    }
    Ok(before)
}

/// Without the blanks at its start.
fn without_blanks(text: &str) -> &str {
    let blanks = text.bytes().take_while(|byte| *byte == b' ').count();
    text.get(blanks..).unwrap_or_default()
}

fn is_dash(line: &str) -> bool {
    line == "-" || line.starts_with("- ")
}

/// A key and the text after its colon and blanks.
fn key(line: &str) -> Option<(&str, &str)> {
    if !line.starts_with(|c: char| c.is_ascii_lowercase()) {
        return None;
    }
    let end = line
        .bytes()
        .position(|byte| !(byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'))?;
    let (key, after) = line.split_at_checked(end)?;
    let after = after.strip_prefix(':')?;
    let value = without_blanks(after);
    (value.is_empty() || value.len() < after.len()).then_some((key, value))
}

/// Words that mean something else than their letters.
const SPECIAL: [&str; 6] = ["null", "true", "false", "nan", "inf", "infinity"];

/// Reads a [`key`] as the name of a field or parameter.
fn name<'de, K: DeserializeSeed<'de>>(key: &'de str, seed: K) -> Result<K::Value> {
    if SPECIAL.contains(&key) {
        return Err(Unsure);
    }
    seed.deserialize(de::value::BorrowedStrDeserializer::new(key))
}

/// A scalar by what YAML's core schema makes of it.
enum Scalar<'de> {
    Text(&'de str),
    Number(u64, &'de str),
    Truth(bool, &'de str),
}

impl<'de> Scalar<'de> {
    /// Reads a whole scalar.
    fn read(text: &'de str) -> Result<Self> {
        match text.as_bytes() {
            [quote @ (b'"' | b'\''), inner @ .., last] if quote == last => {
                let odd = inner.is_empty() || inner.iter().any(|byte| byte == quote || *byte == b'\\');
                let inner = text.get(1..text.len() - 1).filter(|_| !odd).ok_or(Unsure)?;
                Ok(Self::Text(inner))
            }
            [first, ..] if first.is_ascii_digit() => Self::read_number(text),
            [first, ..] if first.is_ascii_alphabetic() => Self::read_word(text),
            _ => Err(Unsure),
        }
    }

    fn read_word(text: &'de str) -> Result<Self> {
        match text {
            "true" => Ok(Self::Truth(true, text)),
            "false" => Ok(Self::Truth(false, text)),
            // `fe80::1` begins like a word, too.
            _ if is_plain(text) => {
                let special = SPECIAL.iter().any(|word| text.eq_ignore_ascii_case(word));
                if special { Err(Unsure) } else { Ok(Self::Text(text)) }
            }
            _ => Err(Unsure),
        }
    }

    fn read_number(text: &'de str) -> Result<Self> {
        let (mut digits, mut separators, mut plain) = (0, 0, true);
        for byte in text.bytes() {
            match byte {
                b'0'..=b'9' => digits += 1,
                b'.' | b':' => separators += 1,
                _ => plain &= is_plain_sign(byte),
            }
        }
        // With a colon or a second dot it is no number of any kind.
        if separators > 1 && plain && !text.ends_with(':') {
            return Ok(Self::Text(text));
        }
        if digits == text.len() {
            let ordinary = digits <= 18 && (digits == 1 || !text.starts_with('0'));
            return match text.parse() {
                Ok(number) if ordinary => Ok(Self::Number(number, text)),
                _ => Err(Unsure),
            };
        }
        match text.trim_start_matches(|c: char| c.is_ascii_digit()) {
            "ms" | "s" | "m" | "h" | "d" => Ok(Self::Text(text)),
            _ => Err(Unsure),
        }
    }

    fn text(&self) -> &'de str {
        match self {
            Self::Text(text) | Self::Number(_, text) | Self::Truth(_, text) => text,
        }
    }

    fn visit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self {
            Self::Text(text) => visitor.visit_borrowed_str(text),
            Self::Number(number, _) => visitor.visit_u64(number),
            Self::Truth(truth, _) => visitor.visit_bool(truth),
        }
    }
}

/// Letters and signs that mean nothing to YAML wherever they stand between the first and the last, but for a
/// colon at the end.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| is_plain_sign(byte) || byte == b':') && !text.ends_with(':')
}

fn is_plain_sign(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/')
}

/// The value that begins where the reader stands.
struct Block<'r, 'de>(&'r mut Reader<'de>);

impl<'de> Block<'_, 'de> {
    fn scalar(self) -> Result<Scalar<'de>> {
        let scalar = Scalar::read(self.0.line)?;
        self.0.next_line()?;
        Ok(scalar)
    }
}

impl<'de> Deserializer<'de> for Block<'_, 'de> {
    type Error = Unsure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let column = self.0.column;
        if is_dash(self.0.line) {
            return visitor.visit_seq(BlockItems { reader: self.0, column });
        }
        if self.0.key.is_some() {
            return visitor.visit_map(BlockItems { reader: self.0, column });
        }
        if self.0.line.starts_with(['{', '[']) {
            let mut flow = Flow(self.0.line);
            let value = visitor_of_flow(&mut flow, visitor)?;
            if !flow.0.is_empty() {
                return Err(Unsure);
            }
            self.0.next_line()?;
            return Ok(value);
        }
        self.scalar()?.visit(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_borrowed_str(self.scalar()?.text())
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_some(self)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        // Derived types take a list for their fields in order, which serde_yaml does not.
        let mapping = self.0.key.is_some() || self.0.line.starts_with('{');
        if mapping { self.deserialize_any(visitor) } else { Err(Unsure) }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_map(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct newtype_struct
        seq tuple tuple_struct enum identifier ignored_any
    }
}

/// The items of a list, or the entries of a mapping, that stand at one column.
struct BlockItems<'r, 'de> {
    reader: &'r mut Reader<'de>,
    column: usize,
}

impl<'de> SeqAccess<'de> for BlockItems<'_, 'de> {
    type Error = Unsure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        if !self.reader.take_dash(self.column)? {
            return Ok(None);
        }
        // A list inside of a list fits no type.
        if is_dash(self.reader.line) { Err(Unsure) } else { seed.deserialize(Block(self.reader)).map(Some) }
    }
}

impl<'de> MapAccess<'de> for BlockItems<'_, 'de> {
    type Error = Unsure;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        let Some(key) = self.reader.take_key(self.column)? else {
            return Ok(None);
        };
        name(key, seed).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        seed.deserialize(Block(self.reader))
    }
}

/// What is left of a line inside of brackets.
struct Flow<'de>(&'de str);

impl<'de> Flow<'de> {
    /// Takes this sign and the blanks after it, when it is next.
    fn take(&mut self, sign: char) -> bool {
        let after = self.0.strip_prefix(sign);
        self.0 = after.map_or(self.0, |after| without_blanks(after));
        after.is_some()
    }

    fn scalar(&mut self) -> Result<Scalar<'de>> {
        let end = match self.0.as_bytes() {
            [quote @ (b'"' | b'\''), inner @ ..] => {
                inner.iter().position(|byte| byte == quote).map(|at| at + 2).ok_or(Unsure)?
            }
            bytes => bytes.iter().position(|byte| b",]}".contains(byte)).ok_or(Unsure)?,
        };
        let (scalar, after) = self.0.split_at_checked(end).ok_or(Unsure)?;
        self.0 = without_blanks(after);
        Scalar::read(scalar.trim_end_matches(' '))
    }
}

fn visitor_of_flow<'de, V: Visitor<'de>>(flow: &mut Flow<'de>, visitor: V) -> Result<V::Value> {
    if flow.take('{') {
        return visitor.visit_map(FlowItems { flow, first: true });
    }
    if flow.take('[') {
        return visitor.visit_seq(FlowItems { flow, first: true });
    }
    flow.scalar()?.visit(visitor)
}

/// A value inside of brackets.
struct FlowValue<'r, 'de>(&'r mut Flow<'de>);

impl<'de> Deserializer<'de> for FlowValue<'_, 'de> {
    type Error = Unsure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor_of_flow(self.0, visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_borrowed_str(self.0.scalar()?.text())
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_some(self)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        if self.0.0.starts_with('{') { self.deserialize_any(visitor) } else { Err(Unsure) }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_map(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct newtype_struct
        seq tuple tuple_struct enum identifier ignored_any
    }
}

/// The items of a list, or the entries of a mapping, inside of brackets.
struct FlowItems<'r, 'de> {
    flow: &'r mut Flow<'de>,
    first: bool,
}

impl FlowItems<'_, '_> {
    /// Whether another one follows. Nothing at all, and a comma before the end, are left to others.
    fn more(&mut self, end: char) -> Result<bool> {
        if std::mem::take(&mut self.first) {
            return Ok(true);
        }
        if self.flow.take(end) {
            return Ok(false);
        }
        if self.flow.take(',') { Ok(true) } else { Err(Unsure) }
    }
}

impl<'de> SeqAccess<'de> for FlowItems<'_, 'de> {
    type Error = Unsure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        if !self.more(']')? {
            return Ok(None);
        }
        seed.deserialize(FlowValue(self.flow)).map(Some)
    }
}

impl<'de> MapAccess<'de> for FlowItems<'_, 'de> {
    type Error = Unsure;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        if !self.more('}')? {
            return Ok(None);
        }
        let (key, after) = key(self.flow.0).filter(|(_, after)| !after.is_empty()).ok_or(Unsure)?;
        self.flow.0 = after;
        name(key, seed).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        seed.deserialize(FlowValue(self.flow))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::ordinary;

    proptest! {
        #[test]
        fn what_is_ordinary_is_found_eight_at_a_time(
            text in proptest::collection::vec(prop_oneof![9 => 0x1eu8..0x24, 9 => 0x7du8..0x82, 1 => any::<u8>()], 0..40),
            blanks in 0usize..20,
        ) {
            let text = [vec![b' '; blanks], text].concat();
            let odd = |byte: &u8| *byte < b' ' || *byte > b'~' || *byte == b'#';
            prop_assert_eq!(ordinary(&text), text.iter().position(odd).unwrap_or(text.len()));
        }
    }
}
