//! A shell script's ipvsadm commands.
//!
//! Owns plain variables, `for` over plain words, and what becomes of each command: it is carried out on the
//! table, or told with its line. The branches of a script are read one after the other, so that what it takes
//! away (for BACKUP) is told, not done. Leaves syntax to `shell`, options to `options`. Called by `import`.

use std::collections::{BTreeMap, BTreeSet};

use super::options::{self, Command};
use super::shell::{self, Piece, Statement, Word};
use super::{Table, ipvsadm, shown};
use crate::model::DaemonState;
use crate::names::Hosts;

/// Statements carried out, loops unrolled; a script that needs more is no script around ipvsadm.
const MOST_STEPS: usize = 200_000;
/// Lines told at most of each kind; more are counted.
const MOST_NOTES: usize = 1000;

/// Before a command; a `for` is looked at by itself.
const KEYWORDS: [&str; 15] = [
    "if", "then", "elif", "else", "fi", "while", "until", "do", "done", "{", "}", "!", "time", "esac",
    "function",
];
/// Before a command that is run all the same.
const WRAPPERS: [&str; 6] = ["sudo", "exec", "command", "nohup", "env", "builtin"];
/// Assign.
const DECLARATIONS: [&str; 5] = ["export", "local", "readonly", "declare", "typeset"];
/// Change nothing outside the script.
const HARMLESS: [&str; 26] = [
    ":", "true", "false", "test", "[", "[[", "echo", "printf", "exit", "return", "shift", "set", "cd",
    "sleep", "date", "logger", "break", "continue", "read", "unset", "trap", "wait", "umask", "which", "for",
    "grep",
];

/// Reads a script. Never fails: what is not understood is told in the file's comments.
pub fn read(name: &str, text: &str, hosts: &Hosts) -> Table {
    let mut script = Script {
        name,
        hosts,
        table: Table { origin: format!("the shell script {name}"), ..Table::default() },
        variables: BTreeMap::new(),
        open: Vec::new(),
        removing: BTreeSet::new(),
        others: Vec::new(),
        told: BTreeSet::new(),
        steps: 0,
    };
    script.run(&shell::statements(text, 1));
    script.finish()
}

struct Script<'a> {
    name: &'a str,
    hosts: &'a Hosts,
    table: Table,
    /// Values of the variables that have a plain one
    variables: BTreeMap<String, String>,
    /// Lines that were not understood, or say something else than an earlier one
    open: Vec<String>,
    /// Lines that take something away
    removing: BTreeSet<usize>,
    /// Other commands
    others: Vec<String>,
    /// Every line told, since a loop comes to the same one again
    told: BTreeSet<String>,
    steps: usize,
}

impl Script<'_> {
    fn finish(mut self) -> Table {
        let daemons = &mut self.table.daemons;
        let both = (daemons.get(&DaemonState::Master), daemons.get(&DaemonState::Backup));
        if let (Some(master), Some(backup)) = both {
            // One daemon that follows the role is what `sync_daemon` says.
            if backup != master {
                self.open.push(format!(
                    "the sync daemons differ; the master's settings are written, the backup's are: {}",
                    shown(&backup.ipvsadm())
                ));
            }
            daemons.remove(&DaemonState::Backup);
        }
        let mut notes = vec![
            "Branches of the script are read one after the other: what this file says is for MASTER."
                .to_owned(),
        ];
        if !self.removing.is_empty() {
            let lines: Vec<String> = self.removing.iter().map(ToString::to_string).collect();
            notes.push(format!(
                "Not needed any more, since leaving MASTER removes what is declared: lines {}.",
                lines.join(", ")
            ));
        }
        for (title, lines) in [
            ("NOT UNDERSTOOD, or at odds with an earlier line; see to each of them:", self.open),
            (
                "Other commands of the script; VIPs, ARP parameters and announcements are lvs-notify's own work:",
                self.others,
            ),
        ] {
            let more = lines.len().saturating_sub(MOST_NOTES);
            if !lines.is_empty() {
                notes.push(title.to_owned());
                notes.extend(lines.into_iter().take(MOST_NOTES).map(|line| format!("  {line}")));
            }
            if more > 0 {
                notes.push(format!("  and {more} more"));
            }
        }
        self.table.notes.extend(notes);
        self.table
    }

    fn at(&self, line: usize, why: &str, raw: &str) -> String {
        format!("{}:{line}: {why}: {}", self.name, shown(raw))
    }

    fn odd(&mut self, line: usize, why: &str, raw: &str) {
        let text = self.at(line, why, raw);
        if self.told.insert(text.clone()) {
            self.open.push(text);
        }
    }

    fn run(&mut self, statements: &[Statement]) {
        let mut rest = statements;
        while let Some((statement, after)) = rest.split_first() {
            rest = after;
            self.steps += 1;
            if self.steps == MOST_STEPS {
                self.odd(
                    statement.line,
                    "loops go on for too long; nothing from here on is read",
                    &statement.raw,
                );
            }
            if self.steps >= MOST_STEPS {
                return;
            }
            let words = command_words(&statement.words);
            match words {
                [word, name, of, values @ ..]
                    if shell::plain(word) == Some("for") && shell::plain(of) == Some("in") =>
                {
                    let length = body(after);
                    let (body, after) = after.split_at_checked(length).unwrap_or((after, &[]));
                    rest = after;
                    self.each(statement, shell::plain(name).unwrap_or_default(), values, body);
                }
                _ => self.statement(statement, words),
            }
        }
    }

    fn each(&mut self, statement: &Statement, name: &str, values: &[Word], body: &[Statement]) {
        match self.expand(values) {
            Ok(values) => {
                for value in values {
                    self.variables.insert(name.to_owned(), value);
                    self.run(body);
                }
            }
            Err(what) => {
                self.variables.remove(name);
                if mentions_ipvsadm(body) {
                    self.odd(statement.line, &format!("{what} has no plain value"), &statement.raw);
                }
                self.run(body);
            }
        }
    }

    fn statement(&mut self, statement: &Statement, words: &[Word]) {
        let assignments = words.iter().take_while(|word| assignment(word).is_some()).count();
        let (assigned, mut command) = words.split_at_checked(assignments).unwrap_or((words, &[]));
        let declares =
            command.first().and_then(shell::plain).is_some_and(|word| DECLARATIONS.contains(&word));
        if command.is_empty() || declares {
            assigned.iter().chain(command.iter().skip(1)).for_each(|word| self.assign(word));
            return;
        }
        while let Some((word, rest)) = command.split_first() {
            if !shell::plain(word).is_some_and(|word| WRAPPERS.contains(&word)) {
                break;
            }
            command = rest;
        }
        let Some((first, arguments)) = command.split_first() else { return };
        let program = self.expand(std::slice::from_ref(first));
        let mut program = program.unwrap_or_default().into_iter();
        let path = program.next().unwrap_or_default();
        let more: Vec<String> = program.collect();
        match path.rsplit('/').next().unwrap_or_default() {
            "ipvsadm" => self.ipvsadm(statement, more, arguments),
            "ipvsadm-restore" => self.restore(statement),
            "read" | "unset" => {
                for word in arguments {
                    self.variables.remove(shell::plain(word).unwrap_or_default());
                }
            }
            // But `echo 1 >/proc/sys/net/ipv4/ip_forward`.
            // And the rest of `[[ a || b ]]`.
            name if (HARMLESS.contains(&name) || command.last().and_then(shell::plain) == Some("]]"))
                && !["ipvsadm", "/proc/sys"].iter().any(|word| statement.raw.contains(word)) => {}
            _ => {
                let line = format!("{}:{}: {}", self.name, statement.line, shown(&statement.raw));
                if self.told.insert(line.clone()) {
                    self.others.push(line);
                }
            }
        }
    }

    fn assign(&mut self, word: &Word) {
        let Some((name, value)) = assignment(word) else { return };
        // An assignment is not split at blanks.
        let mut text = String::new();
        for piece in value {
            match piece {
                Piece::Text(part) => text.push_str(&part),
                Piece::Variable(of, _) if self.variables.contains_key(&of) => {
                    text.push_str(self.variables.get(&of).map_or("", String::as_str));
                }
                _ => {
                    self.variables.remove(&name);
                    return;
                }
            }
        }
        self.variables.insert(name, text);
    }

    /// The words with their variables' values, split at blanks where the shell would; or what has no value.
    fn expand(&self, words: &[Word]) -> Result<Vec<String>, String> {
        let mut list = Vec::new();
        for word in words {
            let mut current: Option<String> = None;
            for piece in word {
                match piece {
                    Piece::Text(text) => current.get_or_insert_default().push_str(text),
                    Piece::Opaque(text) => return Err(format!("`{}`", shown(text))),
                    Piece::Variable(name, quoted) => {
                        let value = self.variables.get(name).ok_or_else(|| format!("`${}`", shown(name)))?;
                        if *quoted {
                            current.get_or_insert_default().push_str(value);
                            continue;
                        }
                        let blank = |c: char| c.is_ascii_whitespace();
                        if value.starts_with(blank) {
                            list.extend(current.take());
                        }
                        for (count, part) in value.split_ascii_whitespace().enumerate() {
                            if count > 0 {
                                list.extend(current.take());
                            }
                            current.get_or_insert_default().push_str(part);
                        }
                        if value.ends_with(blank) {
                            list.extend(current.take());
                        }
                    }
                }
            }
            list.extend(current);
        }
        Ok(list)
    }

    fn ipvsadm(&mut self, statement: &Statement, mut words: Vec<String>, arguments: &[Word]) {
        match self.expand(arguments) {
            Ok(more) => words.extend(more),
            Err(what) => {
                return self.odd(statement.line, &format!("{what} has no plain value"), &statement.raw);
            }
        }
        match options::parse(&words, self.hosts) {
            Ok(Command::Restore) => self.restore(statement),
            Ok(command) => self.carry_out(statement.line, &statement.raw, command),
            Err(why) => self.odd(statement.line, &why, &statement.raw),
        }
    }

    fn restore(&mut self, statement: &Statement) {
        let Some(heredoc) = &statement.heredoc else {
            let why = "the rules come from elsewhere; import that with `--from ipvsadm-save`";
            return self.odd(statement.line, why, &statement.raw);
        };
        for (number, raw) in heredoc.text.lines().enumerate() {
            let line = heredoc.line + number;
            let words = match heredoc.expand {
                false => Ok(shell::words(raw)),
                true => shell::statements(raw, line)
                    .first()
                    .map_or(Ok(Vec::new()), |found| self.expand(&found.words)),
            };
            let words = match words {
                Ok(mut words) => {
                    if words.first().is_some_and(|word| word == "ipvsadm") {
                        words.remove(0);
                    }
                    words
                }
                Err(what) => {
                    self.odd(line, &format!("{what} has no plain value"), raw);
                    continue;
                }
            };
            match options::parse(&words, self.hosts) {
                Ok(command) => self.carry_out(line, raw, command),
                Err(why) => self.odd(line, &why, raw),
            }
        }
    }

    fn carry_out(&mut self, line: usize, raw: &str, command: Command) {
        match &command {
            Command::DeleteService(_)
            | Command::DeleteServer(..)
            | Command::Clear
            | Command::StopDaemon(_) => {
                self.removing.insert(line);
                return;
            }
            Command::EditService(key, settings)
                if self.table.services.get(key).is_none_or(|known| known.settings != *settings) =>
            {
                return self.odd(line, "an edit, not carried out", raw);
            }
            Command::EditServer(key, server, new)
                if self.table.services.get(key).and_then(|known| known.servers.get(server)) != Some(new) =>
            {
                return self.odd(line, "an edit, not carried out", raw);
            }
            // The same again, in another branch, says nothing new.
            Command::AddService(key, settings)
                if self.table.services.get(key).is_some_and(|known| known.settings == *settings) =>
            {
                return;
            }
            Command::AddServer(key, server, new)
                if self.table.services.get(key).and_then(|known| known.servers.get(server)) == Some(new) =>
            {
                return;
            }
            _ => {}
        }
        if let Err(why) = ipvsadm::carry_out(&mut self.table, command) {
            self.odd(line, &why, raw);
        }
    }
}

/// A statement's words without the keywords before its command.
fn command_words(mut words: &[Word]) -> &[Word] {
    while let Some((first, rest)) = words.split_first() {
        let Some(word) = shell::plain(first).filter(|word| KEYWORDS.contains(word)) else { break };
        // The word after `function` is its name.
        words = rest.get(usize::from(word == "function")..).unwrap_or_default();
    }
    words
}

/// How many statements a loop has, its `done` included.
fn body(statements: &[Statement]) -> usize {
    let mut depth = 1usize;
    for (index, statement) in statements.iter().enumerate() {
        for word in statement.words.iter().map_while(shell::plain) {
            match word {
                "for" | "while" | "until" | "select" => depth += 1,
                "done" => depth = depth.saturating_sub(1),
                _ if KEYWORDS.contains(&word) => continue,
                _ => break,
            }
        }
        if depth == 0 {
            return index + 1;
        }
    }
    statements.len()
}

fn mentions_ipvsadm(statements: &[Statement]) -> bool {
    statements.iter().any(|statement| statement.raw.to_ascii_lowercase().contains("ipvsadm"))
}

/// Name and value of `NAME=value`.
fn assignment(word: &Word) -> Option<(String, Vec<Piece>)> {
    let (first, rest) = word.split_first()?;
    let Piece::Text(text) = first else { return None };
    let (name, value) = text.split_once('=')?;
    let mut pieces = vec![Piece::Text(value.to_owned())];
    pieces.extend(rest.iter().cloned());
    shell::is_name(name).then(|| (name.to_owned(), pieces))
}
