//! As much of the shell's syntax as scripts around ipvsadm use: statements, words, quotes, heredocs.
//!
//! Owns the cutting of a text into statements with their lines, and which parts of a word stay open until a
//! variable is known. Runs nothing and knows no command; `script` does both. Called by `script` and `ipvsadm`.

/// A part of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As it stands
    Text(String),
    /// `$NAME` or `${NAME}`, and whether in double quotes
    Variable(String, bool),
    /// Anything else that the shell would compute: `$(…)`, `$1`, `${NAME%…}`
    Opaque(String),
}

/// A word of a statement.
pub type Word = Vec<Piece>;

/// A simple command, or what stands where one could.
#[derive(Clone, Debug, Default)]
pub struct Statement {
    /// Line on which it begins, from 1
    pub line: usize,
    /// Its text, for messages
    pub raw: String,
    /// Its words without redirections
    pub words: Vec<Word>,
    /// Its heredoc
    pub heredoc: Option<Heredoc>,
}

/// Lines given as standard input.
#[derive(Clone, Debug, Default)]
pub struct Heredoc {
    /// Line on which the first of them stands
    pub line: usize,
    /// The lines
    pub text: String,
    /// Variables in it are expanded: the delimiter was not quoted
    pub expand: bool,
}

/// Splits at blanks, but for quotes: a line of `ipvsadm -R`.
pub fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for letter in line.chars() {
        match quote {
            Some(end) if letter == end => quote = None,
            None if letter == '"' || letter == '\'' => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            None if letter.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// Cuts a script into statements. Never fails: what is no shell comes out as odd words.
pub fn statements(text: &str, first_line: usize) -> Vec<Statement> {
    let mut cutter = Cutter { rest: text, line: first_line, ..Cutter::default() };
    cutter.run();
    cutter.done
}

/// Where a redirection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Redirection {
    #[default]
    None,
    /// The next word is a file's name
    File,
    /// The next word ends a heredoc; with `-` its lines lose their tabs
    Heredoc(bool),
}

#[derive(Default)]
struct Cutter<'t> {
    rest: &'t str,
    line: usize,
    done: Vec<Statement>,
    current: Statement,
    started: Option<&'t str>,
    word: Option<Word>,
    quoted: bool,
    redirection: Redirection,
    heredocs: Vec<(String, bool, bool)>,
    /// `case` blocks that are open
    cases: usize,
}

impl Cutter<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let mut letters = self.rest.chars();
        let letter = letters.next()?;
        self.rest = letters.as_str();
        self.line += usize::from(letter == '\n');
        Some(letter)
    }

    fn skip(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn begin(&mut self) {
        if self.started.is_none() {
            self.started = Some(self.rest);
            self.current.line = self.line;
        }
    }

    fn put(&mut self, piece: Piece) {
        let word = self.word.get_or_insert_default();
        match (word.last_mut(), piece) {
            (Some(Piece::Text(text)), Piece::Text(more)) => text.push_str(&more),
            (_, piece) => word.push(piece),
        }
    }

    fn text(&mut self, letter: char) {
        self.put(Piece::Text(letter.to_string()));
    }

    fn run(&mut self) {
        while let Some(letter) = self.peek() {
            if !letter.is_whitespace() && !";&|".contains(letter) {
                self.begin();
            }
            match letter {
                '\n' => {
                    self.end_statement();
                    self.next();
                    self.read_heredocs();
                }
                _ if letter.is_whitespace() => {
                    self.end_word();
                    self.next();
                }
                '#' if self.word.is_none() => {
                    self.end_statement();
                    let line = self.rest.find('\n').unwrap_or(self.rest.len());
                    self.rest = self.rest.get(line..).unwrap_or_default();
                }
                '\\' => {
                    self.next();
                    match self.next() {
                        Some('\n') | None => {}
                        Some(letter) => self.text(letter),
                    }
                }
                '\'' => {
                    self.next();
                    self.quoted = true;
                    self.put(Piece::Text(String::new()));
                    while let Some(letter) = self.next().filter(|letter| *letter != '\'') {
                        self.text(letter);
                    }
                }
                '"' => self.double_quotes(),
                '$' | '`' => self.dollar(false),
                '<' | '>' => self.redirect(letter),
                '&' if self.rest.starts_with("&>") => {
                    self.next();
                    self.redirect('>');
                }
                ';' | '&' | '|' => {
                    let arm = self.cases > 0 && self.rest.starts_with(";;");
                    self.end_statement();
                    self.next();
                    if arm {
                        self.skip(";");
                        self.skip("&");
                        self.pattern();
                    }
                }
                '(' => self.open(),
                ')' => {
                    self.end_statement();
                    self.next();
                }
                _ => {
                    self.next();
                    self.text(letter);
                }
            }
        }
        self.end_statement();
        self.read_heredocs();
    }

    fn double_quotes(&mut self) {
        self.next();
        self.quoted = true;
        self.put(Piece::Text(String::new()));
        while let Some(letter) = self.peek() {
            match letter {
                '"' => {
                    self.next();
                    return;
                }
                '$' | '`' => self.dollar(true),
                '\\' => {
                    self.next();
                    match self.next() {
                        Some('\n') | None => {}
                        Some(letter) if "$`\"\\".contains(letter) => self.text(letter),
                        Some(letter) => {
                            self.text('\\');
                            self.text(letter);
                        }
                    }
                }
                _ => {
                    self.next();
                    self.text(letter);
                }
            }
        }
    }

    /// `$NAME`, `${NAME}`, and what only a shell can compute.
    fn dollar(&mut self, quoted: bool) {
        let start = self.rest;
        let named = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        match self.next() {
            Some('`') => self.until('`', None),
            _ => match self.peek() {
                Some('(') => {
                    self.next();
                    self.until(')', Some('('));
                }
                Some('{') => {
                    self.next();
                    self.until('}', Some('{'));
                    let inner = taken(start, self.rest);
                    let name = inner.strip_prefix("${").and_then(|inner| inner.strip_suffix('}'));
                    if let Some(name) = name.filter(|name| is_name(name)) {
                        return self.put(Piece::Variable(name.to_owned(), quoted));
                    }
                }
                Some(letter) if letter.is_ascii_alphabetic() || letter == '_' => {
                    let end = self.rest.find(|letter| !named(letter)).unwrap_or(self.rest.len());
                    let (name, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
                    self.rest = rest;
                    return self.put(Piece::Variable(name.to_owned(), quoted));
                }
                Some(letter) if letter.is_ascii_digit() || "@*#?$!-".contains(letter) => {
                    self.next();
                }
                _ => return self.text('$'),
            },
        }
        let opaque = taken(start, self.rest).to_owned();
        self.put(Piece::Opaque(opaque));
    }

    fn until(&mut self, end: char, nested: Option<char>) {
        let mut depth = 1;
        while depth > 0 {
            match self.next() {
                None => return,
                Some('\\') => {
                    self.next();
                }
                Some(letter) if letter == end => depth -= 1,
                Some(letter) if Some(letter) == nested => depth += 1,
                Some(_) => {}
            }
        }
    }

    fn redirect(&mut self, letter: char) {
        // The number of a descriptor, as in `2>`, is no word.
        let descriptor = |word: &Word| matches!(word.as_slice(), [Piece::Text(text)] if text.chars().all(|c| c.is_ascii_digit()));
        if self.word.as_ref().is_some_and(descriptor) && !self.quoted {
            self.word = None;
        }
        self.end_word();
        self.next();
        self.redirection = Redirection::File;
        if letter == '<' && self.rest.starts_with('<') && !self.rest.starts_with("<<") {
            self.next();
            self.redirection = Redirection::Heredoc(self.skip("-"));
            return;
        }
        while self.peek().is_some_and(|letter| "<>&|".contains(letter)) {
            self.next();
        }
    }

    fn open(&mut self) {
        let array = self.word.as_ref().and_then(|word| word.last());
        if matches!(array, Some(Piece::Text(text)) if text.ends_with('=')) {
            let start = self.rest;
            self.next();
            self.until(')', Some('('));
            let opaque = taken(start, self.rest).to_owned();
            return self.put(Piece::Opaque(opaque));
        }
        self.next();
        if self.word.is_some() {
            // `name()` begins a function, whose name is no command.
            self.word = None;
            self.current = Statement::default();
            self.started = None;
            let blanks = self.rest.trim_start_matches([' ', '\t']);
            self.rest = blanks.strip_prefix(')').unwrap_or(blanks);
            return;
        }
        self.end_statement();
    }

    /// The pattern of a `case` arm up to its bracket, or the end of the block.
    fn pattern(&mut self) {
        loop {
            while self.peek().is_some_and(char::is_whitespace) {
                self.next();
            }
            if !self.rest.starts_with('#') {
                break;
            }
            while self.peek().is_some_and(|letter| letter != '\n') {
                self.next();
            }
        }
        if self.skip("esac") {
            self.cases = self.cases.saturating_sub(1);
            return;
        }
        self.skip("(");
        while self.next().is_some_and(|letter| letter != ')') {}
    }

    fn end_word(&mut self) {
        let quoted = std::mem::take(&mut self.quoted);
        let Some(word) = self.word.take() else { return };
        match std::mem::take(&mut self.redirection) {
            Redirection::None => {
                self.current.words.push(word);
                let ends =
                    |word: Option<&Word>, text: &str| word.is_some_and(|word| plain(word) == Some(text));
                if ends(self.current.words.last(), "in")
                    && self.current.words.iter().any(|word| ends(Some(word), "case"))
                {
                    self.cases += 1;
                    self.current = Statement::default();
                    self.started = None;
                    self.pattern();
                } else if ends(self.current.words.first(), "esac") {
                    // After the last arm, which needs no `;;`.
                    self.cases = self.cases.saturating_sub(1);
                }
            }
            Redirection::File => {}
            Redirection::Heredoc(tabs) => {
                let end: String = word
                    .iter()
                    .map(|piece| match piece {
                        Piece::Text(text) | Piece::Variable(text, _) | Piece::Opaque(text) => text.as_str(),
                    })
                    .collect();
                self.heredocs.push((end, tabs, !quoted));
            }
        }
    }

    fn end_statement(&mut self) {
        self.end_word();
        let mut statement = std::mem::take(&mut self.current);
        if let Some(start) = self.started.take() {
            statement.raw = taken(start, self.rest).trim().replace("\\\n", " ");
        }
        if !statement.words.is_empty() {
            self.done.push(statement);
        }
    }

    /// The bodies of the heredocs that the line before opened; they belong to its last statement.
    fn read_heredocs(&mut self) {
        for (end, tabs, expand) in std::mem::take(&mut self.heredocs) {
            let mut heredoc = Heredoc { line: self.line, text: String::new(), expand };
            while !self.rest.is_empty() {
                let (line, rest) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
                self.rest = rest;
                self.line += 1;
                let line = if tabs { line.trim_start_matches('\t') } else { line };
                if line == end {
                    break;
                }
                heredoc.text.push_str(line);
                heredoc.text.push('\n');
            }
            if let Some(statement) = self.done.last_mut() {
                statement.heredoc = Some(heredoc);
            }
        }
    }
}

/// The text between two places of the same text.
fn taken<'t>(start: &'t str, rest: &str) -> &'t str {
    start.get(..start.len().saturating_sub(rest.len())).unwrap_or_default()
}

/// The text of a word that needs no shell to be known.
pub fn plain(word: &Word) -> Option<&str> {
    match word.as_slice() {
        [Piece::Text(text)] => Some(text),
        _ => None,
    }
}

/// Whether a variable may be called so.
pub fn is_name(text: &str) -> bool {
    text.chars().next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}
