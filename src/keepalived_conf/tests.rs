//! Tests of the parser, without a disk.

use std::collections::BTreeMap;

use super::meaning::{Conf, script};
use super::*;

fn read_all(files: &[(&str, &str)], id: &str) -> Tree {
    let files: BTreeMap<&str, &str> = files.iter().copied().collect();
    let mut find = |pattern: &Path| -> Vec<Found> {
        let wanted = pattern.to_str().unwrap();
        let (start, end) = wanted.split_once('*').unwrap_or((wanted, ""));
        let fits = |name: &str| match wanted.contains('*') {
            true => name.starts_with(start) && name.ends_with(end),
            false => name == wanted,
        };
        let found = files.iter().filter(|(name, _)| fits(name));
        found.map(|(name, text)| (PathBuf::from(name), Ok(text.as_bytes().to_vec()))).collect()
    };
    parse(Path::new("/etc/k.conf"), id, &mut find)
}

fn read(text: &str) -> Tree {
    read_all(&[("/etc/k.conf", text)], "lb1")
}

/// The tree as one line: `a b { c d }`.
fn shown(list: &[Statement]) -> String {
    let one = |statement: &Statement| {
        let words: Vec<String> = statement
            .words
            .iter()
            .map(
                |word| if word.is_empty() || word.contains(' ') { format!("<{word}>") } else { word.clone() },
            )
            .collect();
        match statement.block {
            true => format!("{} {{ {} }}", words.join(" "), shown(&statement.children)),
            false => words.join(" "),
        }
    };
    list.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn line(text: &str) -> String {
    let tree = read(text);
    assert_eq!(tree.troubles, [], "{text}");
    shown(&tree.statements)
}

#[test]
fn comments_quotes_and_braces() {
    assert_eq!(line("! comment\na b # c\n  v VI_1 {\n x \"p q\" ! y\n}\n"), "a b; v VI_1 { x <p q> }");
    assert_eq!(line("v VI_1\n{\n x 1\n}\nw"), "v VI_1 { x 1 }; w");
    assert_eq!(line("unicast_peer { 192.0.2.1 }"), "unicast_peer { 192.0.2.1 }");
    assert_eq!(line("a { b { c } d {} }"), "a { b { c }; d {  } }");
    assert_eq!(line("a \"# { } !\" \"\" c\"d e\""), "a <# { } !> <> c <d e>");
    assert_eq!(line("pass a\\#b\\!c # d"), "pass a#b!c");
    assert_eq!(line("a ${UNKNOWN} $OTHER x"), "a $ { UNKNOWN }; $OTHER x");
}

#[test]
fn places_are_those_of_the_file() {
    let tree = read("a\n\n# c\nv {\n  x\n}\n");
    let lines: Vec<usize> = tree.statements.iter().map(|statement| statement.line).collect();
    assert_eq!((lines, tree.statements[1].children[0].line), (vec![1, 4], 5));
}

#[test]
fn conditions_follow_the_id() {
    let text = "@lb1 a 1\n@lb2 a 2\n@^lb1 a 3\n@^lb2 a 4\n@lb1\n$WHO=@lb1\n$WHO b 5\n";
    assert_eq!(line(text), "a 1; a 4; b 5");
}

#[test]
fn definitions_are_replaced_when_they_are_used() {
    let text =
        "$BASE=192.0.${SUB}\n$SUB=2\nx ${BASE}.1\n$SUB=3\nx ${BASE}.1 $SUB, ${_INSTANCE} ${_PWD}${_HASH}\n";
    assert_eq!(line(text), "x 192.0.2.1; x 192.0.3.1 3, lb1 /etc#");
    assert_eq!(line("$E=\nx ${E}y $E"), "x y");
}

#[test]
fn definitions_of_several_lines() {
    let text = "$RS= \\\n real ${VS}.${N} { \\\n  @lb1 weight 1 \\\n  @lb2 weight 2 \\\n\\\n }\n\n$VS=a\n\
                $ALL= \\\n $N=1 \\\n $RS \\\n $N=2 \\\n $RS \\\n end\nv {\n $ALL\n}\n";
    assert_eq!(line(text), "v { real a.1 { weight 1 }; real a.2 { weight 1 }; end }");
}

#[test]
fn what_a_sequence_makes_is_not_read() {
    let tree = read("a\n~SEQ(N, 1, 3) real 10.0.0.${N} { x }\n$L=~LST(N, a)\n$L b $N\nc");
    assert_eq!(shown(&tree.statements), "a; c");
    let told: Vec<_> = tree.troubles.iter().map(|one| (one.line, one.unread, one.message.as_str())).collect();
    let message = |kind: &str| format!("the lines that `{kind}` makes are not read");
    assert_eq!(told, [(2, true, message("~SEQ").as_str()), (4, true, message("~LST").as_str())]);
}

#[test]
fn includes_are_relative_to_the_file_that_has_them() {
    let files = [
        ("/etc/k.conf", "a\ninclude d/*.conf\ninclude /etc/none\nv {\n include v.inc\n}\n"),
        ("/etc/d/1.conf", "b ${_PWD}\n$X=7\ninclude sub/2\n"),
        ("/etc/d/sub/2", "c $X\n"),
        ("/etc/v.inc", "state BACKUP\n"),
    ];
    let tree = read_all(&files, "lb1");
    assert_eq!(shown(&tree.statements), "a; b /etc/d; c 7; v { state BACKUP }");
    assert_eq!(tree.files.len(), 4);
    assert_eq!(tree.statements[2].file.to_str(), Some("/etc/d/sub/2"));
    assert_eq!(tree.troubles.len(), 1);
    assert!(tree.troubles[0].line == 3 && tree.troubles[0].message.contains("/etc/none"));
    let itself = read_all(&[("/etc/k.conf", "x\ninclude k.conf\n")], "lb1");
    assert!(itself.troubles[0].message.contains("too deeply") && itself.statements.len() < 100);
}

#[test]
fn what_is_wrong_is_told_and_reading_goes_on() {
    let tree = read("a {\n b\n");
    assert_eq!((shown(&tree.statements).as_str(), tree.troubles.len()), ("a { b }", 1));
    assert_eq!((tree.troubles[0].line, tree.troubles[0].file.to_str()), (1, Some("/etc/k.conf")));
    let tree = read("a\n}\nb {\n}\n");
    assert_eq!((shown(&tree.statements).as_str(), tree.troubles[0].line), ("a; b {  }", 2));
    let tree = read("a \"b\n{\n{\nc\n}\n");
    assert_eq!((shown(&tree.statements).as_str(), tree.troubles.len()), ("a b { c }", 1));
    assert!(read("$A=$B\n$B=x$A\n$A\n").troubles[0].message.contains("expands to more than"));
    assert!(read(&"a {\n".repeat(1000)).troubles.len() > 10);
}

#[test]
fn a_script_is_split_twice() {
    let split = |text: &str| script(&read(text).statements[0]);
    let (argv, user) = split("notify_master \"/usr/bin/lvs-notify master VI_1\"").unwrap();
    assert_eq!((argv.len(), user), (3, None));
    let (argv, user) = split("notify_master /usr/bin/lvs-notify master VI_1").unwrap();
    assert_eq!((argv.join(" "), user.as_deref()), ("/usr/bin/lvs-notify".to_owned(), Some("master")));
    let (argv, user) = split("notify \"/bin/x 'a b' c\\\\'d\" root").unwrap();
    assert_eq!((argv.join("|"), user.as_deref()), ("/bin/x|a b|c'd".to_owned(), Some("root")));
    assert_eq!(split("notify '/bin/x y'").unwrap().0, ["/bin/x", "y"]);
    assert_eq!(split("notify \"/bin/x 'y\""), None);
    assert_eq!(split("notify \"/bin/x y\\\\\""), None);
    assert_eq!(split("notify").unwrap().0.len(), 0);
}

#[test]
fn ranges_of_addresses() {
    let all = |text: &str| {
        let tree = read(&format!("virtual_server {text} 80 {{\n}}\n"));
        let conf = Conf::of(&tree);
        let keys = conf.servers[0].services[0].as_ref();
        keys.map(Vec::len).map_err(|why| usize::from(!why.contains("has more than 4096 addresses")))
    };
    for (text, expected) in [
        ("192.0.2.1", Ok(1)),
        ("192.0.2.1-9", Ok(9)),
        ("192.0.2.1-192.0.3.0", Ok(256)),
        ("2001:db8::a-1f", Ok(22)),
        ("192.0.2.0/28", Ok(16)),
        ("2001:db8::/64", Err(0)),
        ("0.0.0.0/0", Err(0)),
        ("192.0.2.9-1", Err(1)),
        ("192.0.2.9-2001:db8::1", Err(1)),
        ("192.0.2.9-300", Err(1)),
        ("192.0.2.9/33", Err(1)),
    ] {
        assert_eq!(all(text), expected, "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
        parse(Path::new("/k"), "lb1", &mut |_| vec![(PathBuf::from("/k"), Ok(bytes.clone()))]);
    }

    /// The letters that mean something, so that they meet each other.
    #[test]
    fn no_mixture_of_its_own_syntax_makes_it_panic(
        text in "([ab1]|[ \t\n{}\"'\\\\$@^!#(),]|\\$[AB]=|\\$\\{A\\}|~SEQ\\(A,1,3\\)|~LST\\(B,a,\\$A\\)|include |\\\\\n|\u{e9}){0,60}"
    ) {
        let mut calls = 0;
        let tree = parse(Path::new("/k"), "a", &mut |_| {
            calls += 1;
            let content = if calls < 4 { text.clone() } else { String::new() };
            vec![(PathBuf::from("/k"), Ok(content.into_bytes()))]
        });
        Conf::of(&tree);
        for statement in &tree.statements {
            proptest::prop_assert!(!statement.words.is_empty());
            script(statement);
        }
    }
}
