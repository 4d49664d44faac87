//! Words for people: the nearest right one.
//!
//! Owns how a wrong word is answered. Called by whatever reads words.

/// The end of a message about a wrong word: the nearest right one, or nothing.
pub fn did_you_mean(word: &str, choices: &[&str]) -> String {
    nearest(word, choices).map_or(String::new(), |word| format!("; did you mean `{word}`?"))
}

/// The choice most like `word`, when one is close enough to be meant: a part of it, or alike.
pub fn nearest<'a>(word: &str, choices: &[&'a str]) -> Option<&'a str> {
    let lower = word.to_ascii_lowercase();
    let likeness = |choice: &str| match lower.len() > 1 && choice.contains(&lower) {
        true => 0.9,
        false => strsim::jaro_winkler(&lower, choice),
    };
    choices
        .iter()
        .map(|choice| (likeness(choice), *choice))
        .filter(|(score, _)| *score > 0.75)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, choice)| choice)
}
