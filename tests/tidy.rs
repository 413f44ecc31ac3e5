//! The house rules that a compiler does not check. Exceptions stand in one list, which may only
//! shrink.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_COLUMNS_MAX: usize = 110;

/// (file, rule, reason)
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// Last words of type names that say nothing.
const EMPTY_SUFFIXES: [&str; 9] = [
    "Manager",
    "Service",
    "Processor",
    "Helper",
    "Util",
    "Utils",
    "Impl",
    "Bridge",
    "Facade",
];

/// (where, what must not be imported there)
const FORBIDDEN_IMPORTS: [(&str, &[&str]); 4] = [
    ("src/", &["openraft"]),
    ("raft/src/", &["gantry_protocol", "axum"]),
    (
        "storage/src/",
        &["openraft", "tokio", "gantry_raft", "gantry_protocol"],
    ),
    (
        "protocol/src/",
        &["tokio", "gantry_storage", "gantry_raft", "openraft"],
    ),
];

struct Source {
    /// Relative to the repository.
    name: String,
    text: String,
}

impl Source {
    /// The lines before the test module.
    fn code_lines(&self) -> Vec<&str> {
        let tests = self.text.find("#[cfg(test)]\n#[allow").or_else(|| {
            let at = self.text.find("#[cfg(test)]\nmod tests {")?;
            Some(at)
        });
        self.text[..tests.unwrap_or(self.text.len())]
            .lines()
            .collect()
    }

    fn is_test(&self) -> bool {
        let name = self.name.as_str();
        name.starts_with("tests/")
            || name.contains("/tests/")
            || name.ends_with("/tests.rs")
            || name.ends_with("/testing.rs")
            || name.contains("/testing/")
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn walk(directory: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.')
                && !["target", "data", "node_modules"].contains(&name.as_str())
            {
                walk(&path, ending, found);
            }
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
}

fn files(ending: &str) -> Vec<Source> {
    let root = root();
    let mut paths = Vec::new();
    walk(&root, ending, &mut paths);
    paths.sort();
    assert!(
        !paths.is_empty(),
        "no {ending} files below {}",
        root.display()
    );
    let read = |path: PathBuf| Source {
        name: path
            .strip_prefix(&root)
            .unwrap()
            .to_string_lossy()
            .into_owned(),
        text: fs::read_to_string(&path).unwrap(),
    };
    paths.into_iter().map(read).collect()
}

fn rust_files() -> Vec<Source> {
    let clients = |source: &Source| source.name.starts_with("tests/clients/");
    files(".rs")
        .into_iter()
        .filter(|source| !clients(source))
        .collect()
}

fn report(rule: &str, found: Vec<(String, String)>) {
    let excused = |file: &str| {
        EXCEPTIONS
            .iter()
            .any(|(name, of, _)| *name == file && *of == rule)
    };
    let left: Vec<String> = found
        .iter()
        .filter(|(file, _)| !excused(file))
        .map(|(file, what)| format!("{file}: {what}"))
        .collect();
    assert!(left.is_empty(), "{rule}:\n{}", left.join("\n"));
    for (file, of, reason) in EXCEPTIONS.iter().filter(|(_, of, _)| *of == rule) {
        let needed = found.iter().any(|(name, _)| name == file);
        assert!(
            needed,
            "{file} needs no exception from {of} any more ({reason}): remove it"
        );
    }
}

#[test]
fn every_file_says_what_it_is() {
    let found = rust_files()
        .into_iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| (source.name, "no module documentation".to_string()));
    report("module documentation", found.collect());
}

#[test]
fn files_are_short() {
    let mut found = Vec::new();
    for source in rust_files().iter().filter(|source| !source.is_test()) {
        let lines = source.code_lines().len();
        if lines > FILE_LINES_MAX {
            found.push((source.name.clone(), format!("{lines} lines")));
        }
    }
    report("file length", found);
}

#[test]
fn lines_are_short() {
    let mut found = Vec::new();
    for source in rust_files() {
        for (number, line) in source.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > LINE_COLUMNS_MAX {
                let what = format!("line {} has {columns} columns", number + 1);
                found.push((source.name.clone(), what));
            }
        }
    }
    report("line length", found);
}

#[test]
fn functions_are_short() {
    let mut found = Vec::new();
    for source in rust_files().iter().filter(|source| !source.is_test()) {
        let lines = source.code_lines();
        for (start, line) in lines.iter().enumerate() {
            let trimmed = line.trim_start();
            let is_function = [
                "fn ",
                "pub fn ",
                "async fn ",
                "pub async fn ",
                "pub(crate) fn ",
            ]
            .iter()
            .any(|head| trimmed.starts_with(head));
            if !is_function {
                continue;
            }
            let indent = line.len() - trimmed.len();
            let closing = format!("{}}}", " ".repeat(indent));
            let end = lines[start..].iter().position(|line| *line == closing);
            if let Some(length) = end.filter(|length| *length > FUNCTION_LINES_MAX) {
                let what = format!("line {}: {length} lines: {trimmed}", start + 1);
                found.push((source.name.clone(), what));
            }
        }
    }
    report("function length", found);
}

#[test]
fn names_say_something() {
    let mut found = Vec::new();
    for source in rust_files() {
        for (number, line) in source.text.lines().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            for pair in words.windows(2) {
                let name = pair[1].trim_end_matches(|c: char| !c.is_alphanumeric());
                let name = name.split(['<', '(', '{', ';']).next().unwrap_or_default();
                let declares = ["struct", "enum", "trait", "type"].contains(&pair[0]);
                if declares && EMPTY_SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) {
                    found.push((source.name.clone(), format!("line {}: {name}", number + 1)));
                }
            }
        }
    }
    report("names", found);
}

#[test]
fn crates_keep_to_their_side() {
    let mut found = Vec::new();
    for source in rust_files() {
        for (place, forbidden) in FORBIDDEN_IMPORTS {
            if !source.name.starts_with(place) {
                continue;
            }
            for (number, line) in source.text.lines().enumerate() {
                let uses = line.trim_start().trim_start_matches("pub ");
                for name in forbidden {
                    if uses.starts_with(&format!("use {name}::")) {
                        found.push((source.name.clone(), format!("line {}: {name}", number + 1)));
                    }
                }
            }
        }
    }
    report("dependency rules", found);
}

#[test]
fn nothing_is_left_unfinished_or_printed() {
    let mut found = Vec::new();
    for source in rust_files().iter().filter(|source| !source.is_test()) {
        let prints = source.name == "src/main.rs" || source.name.starts_with("src/cli/");
        for (number, line) in source.code_lines().iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let mut bad = vec!["todo!(", "unimplemented!(", "dbg!("];
            if !prints {
                bad.extend(["println!(", "eprintln!("]);
            }
            for what in bad.iter().filter(|what| code.contains(**what)) {
                found.push((source.name.clone(), format!("line {}: {what}", number + 1)));
            }
        }
    }
    report("leftovers", found);
}

#[test]
fn links_between_documents_resolve() {
    let mut found = Vec::new();
    for document in files(".md") {
        let directory = root().join(&document.name);
        let directory = directory.parent().unwrap().to_path_buf();
        for (at, _) in document.text.match_indices("](") {
            let rest = &document.text[at + 2..];
            let Some(target) = rest.split(')').next() else {
                continue;
            };
            let target = target.split('#').next().unwrap_or_default();
            let is_local = !target.is_empty() && !target.contains("://") && !target.contains(' ');
            if is_local && !directory.join(target).exists() {
                found.push((document.name.clone(), format!("link to {target}")));
            }
        }
    }
    report("links", found);
}

#[test]
fn named_documents_exist() {
    let mut found = Vec::new();
    for source in rust_files() {
        for (at, _) in source.text.match_indices("docs/") {
            let name: String = source.text[at..]
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || "/-_.".contains(*c))
                .collect();
            let name = name.trim_end_matches('.');
            if name.ends_with(".md") && !root().join(name).exists() {
                found.push((source.name.clone(), name.to_string()));
            }
        }
    }
    report("documents", found);
}

/// The image is built from a copy of the repository that leaves out what `.dockerignore` names, in two
/// steps; a member that is missing in either ends the build only where images are built.
#[test]
fn the_image_is_built_with_every_member_of_the_workspace() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let (manifest, recipe, ignored) = (
        read("Cargo.toml"),
        read("Dockerfile"),
        read(".dockerignore"),
    );
    let members = manifest.split("members = [").nth(1).unwrap();
    let members = members.split(']').next().unwrap();
    let mut found = Vec::new();
    for member in members.split('"').skip(1).step_by(2).filter(|m| *m != ".") {
        if !recipe.contains(&format!("COPY {member}/Cargo.toml {member}/Cargo.toml\n")) {
            found.push((
                "Dockerfile".to_string(),
                format!("does not copy {member}/Cargo.toml"),
            ));
        }
        if member.starts_with("tests/") && !ignored.contains(&format!("!{member}\n")) {
            found.push((".dockerignore".to_string(), format!("leaves out {member}")));
        }
    }
    report("image", found);
}
