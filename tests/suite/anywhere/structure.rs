//! Rules about the code itself: who may use what, which licences come in, what the README says and what proves it.
//!
//! Owns the rules that a compiler does not know. Needs no privileges.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every source file with its path below src.
fn sources() -> Vec<(String, String)> {
    let mut list = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root().join("src")).unwrap().display().to_string();
                list.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    list
}

/// The program part of a file, without its tests.
fn program(text: &str) -> &str {
    text.split("\nmod tests").next().unwrap()
}

#[test]
fn only_the_kernel_door_speaks_netlink_and_only_config_speaks_yaml() {
    let rules: [(&str, &[&str]); 4] = [
        ("neli::", &["kernel/"]),
        ("nix::sys::socket", &["kernel/"]),
        ("sysctl::", &["kernel/"]),
        ("serde_yaml::", &["config/"]),
    ];
    for (name, text) in sources() {
        for (word, allowed) in rules {
            let used = program(&text)
                .lines()
                .any(|line| !line.trim_start().starts_with("//") && line.contains(word));
            assert!(!used || allowed.iter().any(|place| name.starts_with(place)), "{name} uses {word}");
        }
    }
}

#[test]
fn the_plan_is_pure() {
    let (_, plan) = sources().into_iter().find(|(name, _)| name == "plan.rs").unwrap();
    for word in
        ["std::fs", "std::process", "std::time", "std::env", "crate::kernel", "log::", "println!", "nix::"]
    {
        assert!(!program(&plan).contains(word), "plan.rs uses {word}");
    }
}

/// The arrows among files: what each names of the others.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let files: BTreeMap<String, String> = sources()
        .into_iter()
        .filter(|(name, _)| !["main.rs", "lib.rs", "kernel/live.rs"].contains(&name.as_str()))
        .map(|(name, text)| {
            let code = program(&text).lines().filter(|line| !line.trim_start().starts_with("//"));
            (
                name.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::"),
                code.collect::<Vec<_>>().join("\n"),
            )
        })
        .collect();
    let arrows_of = |(module, code): (&String, &String)| {
        let above = module.rsplit_once("::").map_or("", |(above, _)| above);
        let mut named = paths(code, "crate::", "");
        named.extend(paths(code, "super::", above));
        for child in files.keys().filter_map(|name| name.strip_prefix(&format!("{module}::"))) {
            named.extend(paths(code, &format!("{child}::"), &format!("{module}::{child}")));
        }
        // What is named is a file, or something in it.
        let file = |name: String| {
            let mut name = name.as_str();
            while !files.contains_key(name) {
                name = name.rsplit_once("::")?.0;
            }
            (name != module).then(|| name.to_owned())
        };
        (module.clone(), named.into_iter().filter_map(file).collect())
    };
    files.iter().map(arrows_of).collect()
}

/// Every path in `code` that begins with `start`, as a path below `base`; braces are taken apart.
fn paths(code: &str, start: &str, base: &str) -> Vec<String> {
    let mut list = Vec::new();
    for (at, _) in code.match_indices(start) {
        if !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
            branches(&code[at + start.len()..], base, &mut list);
        }
    }
    list
}

/// Takes a path apart: `a::{b, c::d}` is two. Gives what comes after it.
fn branches<'a>(text: &'a str, base: &str, list: &mut Vec<String>) -> &'a str {
    let text = text.trim_start();
    let join = |name: &str| if base.is_empty() { name.to_owned() } else { format!("{base}::{name}") };
    if let Some(mut rest) = text.strip_prefix('{') {
        while !rest.trim_start().starts_with('}') {
            rest = branches(rest, base, list).trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        return &rest.trim_start()[1..];
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if let Some(rest) = rest.strip_prefix("::") {
        return branches(rest, &join(name), list);
    }
    list.push(join(name));
    // `name as other`, `*`, or the end.
    rest.find([',', '}', ';', '(', '\n']).map_or("", |end| &rest[end..])
}

#[test]
fn no_circle_among_files() {
    let arrows = arrows();
    assert!(arrows["reconcile"].contains("plan") && arrows["plan"].contains("desired"), "{arrows:?}");
    // What can be reached from each file; a file that reaches itself is in a circle.
    let reached = |from: &str| {
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut next: Vec<&str> = arrows[from].iter().map(String::as_str).collect();
        while let Some(name) = next.pop() {
            if seen.insert(name) {
                next.extend(arrows[name].iter().map(String::as_str));
            }
        }
        seen.contains(from)
    };
    let circle: Vec<&String> = arrows.keys().filter(|name| reached(name)).collect();
    assert!(circle.is_empty(), "circles among {circle:?}");
    // The flow has one direction; how values are written down is nobody's step of it.
    for (name, below) in [
        ("model", [].as_slice()),
        ("config", &["model"]),
        ("desired", &["config", "model"]),
        ("observed", &["desired", "model"]),
        ("plan", &["observed", "desired", "config", "model"]),
    ] {
        let wrong: Vec<_> = arrows[name]
            .iter()
            .filter(|to| *to != "serial" && !below.iter().any(|ok| to.starts_with(ok)))
            .collect();
        assert!(wrong.is_empty(), "{name} names {wrong:?}");
    }
}

/// A file that grows beyond this is two.
#[test]
fn no_file_is_longer_than_600_lines() {
    for (name, text) in sources() {
        let count = program(&text).lines().count();
        assert!(count <= 600, "{name} has {count} lines");
    }
}

/// What breaks a rule of `check` is decided from what `check::facts` has read.
#[test]
fn the_rules_of_check_read_nothing() {
    for name in ["keepalived", "files", "rules"].map(|name| format!("check/{name}.rs")) {
        let (_, rules) = sources().into_iter().find(|(path, _)| *path == name).unwrap();
        for word in ["std::fs", "std::process", "std::env", "crate::kernel", "crate::names", "nix::"] {
            assert!(!program(&rules).contains(word), "{name} uses {word}");
        }
    }
}

#[test]
fn every_file_says_what_it_owns_and_unsafe_stands_in_one_place() {
    let mut places = Vec::new();
    for (name, text) in sources() {
        assert!(text.starts_with("//!"), "{name} does not open with what it owns");
        places.extend(text.matches("allow(unsafe_code)").map(|_| name.clone()));
    }
    assert_eq!(places, ["kernel/ipvs_sockopt.rs"], "the one documented exception");
}

#[test]
fn licences_and_origins_of_what_is_linked() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--format-version", "1", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let allowed = [
        "MIT",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "Unlicense",
        "BSL-1.0",
        "Unicode-3.0",
        "Zlib",
        "ISC",
    ];
    let mut count = 0;
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        if name == env!("CARGO_PKG_NAME") {
            continue;
        }
        let source = package["source"].as_str().unwrap_or("a path");
        assert!(source.starts_with("registry+"), "{name} comes from {source}");
        // Of alternatives one is enough; of parts joined with AND every one counts.
        let licence =
            package["license"].as_str().unwrap_or_default().replace('/', " OR ").replace(['(', ')'], "");
        let part = |words: &str| {
            words
                .split(" OR ")
                .any(|word| allowed.contains(&word.trim().trim_end_matches(" WITH LLVM-exception")))
        };
        assert!(licence.split(" AND ").all(part), "{name} is under {licence:?}");
        count += 1;
    }
    println!("{count} packages, all under permissive licences, all from the registry");
}

/// The YAML blocks of the README are files that work, and its table of commands is complete.
#[test]
fn the_readme_says_what_the_program_does() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let mut blocks = 0;
    for block in readme.split("```yaml\n").skip(1) {
        let block = block.split("```").next().unwrap();
        let indent = block.lines().next().unwrap().chars().take_while(|letter| *letter == ' ').count();
        let text: String =
            block.lines().map(|line| format!("{}\n", line.get(indent..).unwrap_or_default())).collect();
        // The reference lists alternatives with `|`; everything else is to be taken as it stands.
        let text = text.replace("netmask: 255.255.255.0 | prefix: 64, ", "");
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("readme-{blocks}.yaml"));
        std::fs::write(&file, &text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_lvs-notify")).arg("check").arg(&file).output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        let reference = text.contains("allow_empty");
        // The reference shows keys together that exclude each other in one server.
        assert!(reference || output.status.success(), "{told}\n{text}");
        assert!(!told.contains("unknown field") && !told.contains("missing field"), "{told}");
        blocks += 1;
    }
    assert!(blocks >= 2, "the README has lost its examples");
    for command in [
        "master", "backup", "fault", "stop", "notify", "apply", "plan", "status", "check", "import", "drain",
        "undrain", "fifo",
    ] {
        assert!(readme.contains(&format!("`{command}")), "the README does not name {command}");
        let help = Command::new(env!("CARGO_BIN_EXE_lvs-notify")).args([command, "--help"]).output().unwrap();
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        assert!(help.contains("Example"), "{command} --help has no example: {help}");
    }
}

/// The README's table of symptoms and the tests that provoke them: neither has one that the other has not, and every
/// rule of `check` that the table names is seen to be found and to go.
#[test]
fn every_symptom_of_the_readme_is_provoked() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let (_, section) = readme.split_once("\n## Troubleshooting\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let (_, rows) = section.split_once("\n|---|---|---|\n").unwrap();
    let rows: Vec<&str> =
        rows.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next()).collect();
    assert!(rows.len() > 8, "{rows:?}");

    let mut tests = BTreeSet::new();
    let places = ["anywhere", "here", "ipvs"].map(|place| root().join("tests/suite").join(place));
    for entry in places.iter().flat_map(|place| std::fs::read_dir(place).unwrap().flatten()) {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let Some(symptom) = line.strip_prefix("// README: ") else { continue };
            let next = lines[at..].iter().find(|line| !line.starts_with("//"));
            assert_eq!(next, Some(&"#[test]"), "{symptom} is at no test");
            tests.insert(symptom.to_owned());
        }
    }
    assert_eq!(rows.iter().map(|row| (*row).to_owned()).collect::<BTreeSet<_>>(), tests);
    assert_eq!(rows.len(), tests.len(), "a symptom twice");

    let text = std::fs::read_to_string(root().join("tests/suite/ipvs/symptoms.rs")).unwrap();
    let rule = |word: &&str| {
        word.len() == 3
            && word.starts_with(['E', 'W', 'I'])
            && word[1..].bytes().all(|byte| byte.is_ascii_digit())
    };
    let mut count = 0;
    for word in section.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(rule) {
        assert!(
            text.contains(&format!("\"{word}\"")),
            "tests/suite/ipvs/symptoms.rs has nothing about {word}"
        );
        count += 1;
    }
    assert!(count > 8, "{count} rules in the table");
}

/// A file that is no module is never built, and a test at no place is never run.
#[test]
fn every_test_has_a_place() {
    let suite = root().join("tests/suite");
    let main = std::fs::read_to_string(suite.join("main.rs")).unwrap();
    for place in ["anywhere", "here", "ipvs"] {
        let (_, block) = main.split_once(&format!("mod {place} {{")).unwrap();
        let (block, _) = block.split_once('}').unwrap();
        let named: BTreeSet<&str> =
            block.lines().filter_map(|line| line.split_once("mod ")?.1.strip_suffix(';')).collect();
        let files: BTreeSet<String> = std::fs::read_dir(suite.join(place))
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(files.iter().map(String::as_str).collect::<BTreeSet<_>>(), named, "{place}");
    }
    for entry in std::fs::read_dir(suite.join("support")).unwrap().flatten() {
        assert!(!std::fs::read_to_string(entry.path()).unwrap().contains("#[test]"), "{:?}", entry.path());
    }
    // What `cargo test` ignores there is run by tests/schema.
    let ignored = std::fs::read_dir(suite.join("anywhere")).unwrap().flatten().map(|entry| {
        let text = std::fs::read_to_string(entry.path()).unwrap();
        text.lines().filter(|line| line.starts_with("#[ignore")).count()
    });
    assert_eq!(ignored.sum::<usize>(), 1, "only tests/schema's test may be ignored there");
}
