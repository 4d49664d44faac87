//! Text from and for people: endpoints and durations as they are written, foreign text made safe to print, and the nearest
//! right word for a wrong one.
//!
//! Owns what may reach a terminal, a log, a YAML comment or JSON. Called by whatever reads words or prints foreign ones.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What could command a terminal, hides itself or its neighbours, reorders text, or ends a line in YAML 1.1.
fn hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

fn replaced(text: &str, put: impl Fn(char, &mut String)) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if c != '\n' && hidden(c) {
            put(c, &mut out)
        } else {
            out.push(c)
        }
        out
    })
}

/// Text of files and of the kernel on its way to people: what is hidden is shown as an escape, so that no name can
/// rewrite what a terminal shows. Ends of lines stay.
pub fn clean(text: &str) -> String {
    replaced(text, |c, out| if c == '\t' { out.push(' ') } else { out.extend(c.escape_default()) })
}

/// A foreign word or line within a message: the same on one line, and cut where it is longer than anybody reads.
pub fn shown(text: &str) -> String {
    const MOST: usize = 300;
    let start: String = text.chars().take(MOST).collect();
    clean(&start).replace('\n', "\\n") + if start.len() < text.len() { "…" } else { "" }
}

/// A finished JSON text with JSON's own escapes for what is hidden; it stands in strings only.
pub fn clean_json(text: &str) -> String {
    replaced(text, |c, out| _ = write!(out, "\\u{:04x}", u32::from(c)))
}

/// A number with its word, which takes an `s` for several.
pub fn counted(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

/// The end of a message about a wrong word: the nearest right one, when one has it as a part or is alike.
pub fn did_you_mean(word: &str, choices: &[&str]) -> String {
    let word = word.to_ascii_lowercase();
    let likeness = |choice: &str| match word.len() > 1 && choice.contains(&word) {
        true => 0.9,
        false => strsim::jaro_winkler(&word, choice),
    };
    let scored = choices.iter().map(|choice| (likeness(choice), choice)).filter(|(score, _)| *score > 0.75);
    let nearest = scored.max_by(|one, other| one.0.total_cmp(&other.0));
    nearest.map_or(String::new(), |(_, choice)| format!("; did you mean `{choice}`?"))
}

/// Reads `A`, `A:PORT`, `[A6]`, `[A6]:PORT` or a bare IPv6 address.
pub fn parse_endpoint(text: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some((address, None));
    }
    if let Some(address) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return Some((IpAddr::V6(address.parse().ok()?), None));
    }
    let socket = text.parse::<SocketAddr>().ok()?;
    Some((socket.ip(), Some(socket.port())))
}

/// Reads a number with a unit (ms, s, m, h, d) or plain seconds.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.chars().take_while(char::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::{clean, clean_json, shown};

    #[test]
    fn no_name_reaches_the_terminal_as_it_is() {
        assert_eq!(clean("VI_1: \u{1b}[2Jx\r\u{202e}y\n"), "VI_1: \\u{1b}[2Jx\\r\\u{202e}y\n");
        assert_eq!(clean("plain,\t日本\n"), "plain, 日本\n");
    }

    #[test]
    fn json_stays_json_whatever_stands_in_it() {
        let value = serde_json::json!({ "name": "a\u{202e}b\u{7f}\n\u{1b}\t" });
        let text = clean_json(&value.to_string());
        assert!(text.contains(r"a\u202eb\u007f\n\u001b\t"), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).ok(), Some(value));
    }

    #[test]
    fn a_foreign_line_is_one_line_of_bounded_length() {
        assert_eq!(shown("a\nb\u{1b}\u{feff}"), "a\\nb\\u{1b}\\u{feff}");
        assert_eq!(shown(&"ä".repeat(300)), "ä".repeat(300));
        assert_eq!(shown(&"ä".repeat(301)), "ä".repeat(300) + "…");
    }
}
