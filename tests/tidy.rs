//! House rules that the compiler doesn't know. Part of `cargo test`.

use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES: usize = 400;
const FUNCTION_LINES: usize = 70;

#[derive(Debug)]
struct Source {
    path: PathBuf,
    /// Without the tests at its foot.
    code: Vec<String>,
}

fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of ours").flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
                let code = code.lines().map(str::to_owned).collect();
                found.push(Source { path: path.strip_prefix(root).expect("ours").to_owned(), code });
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has lost its sources");
    found
}

fn ours() -> Vec<Source> {
    ["src", "shim/src", "protos/src", "tests"].into_iter().flat_map(sources).collect()
}

#[test]
fn files_are_short() {
    let long = |source: &&Source| source.code.len() > FILE_LINES;
    let long: Vec<_> = ours().iter().filter(long).map(|s| (s.path.clone(), s.code.len())).collect();
    assert!(long.is_empty(), "over {FILE_LINES} lines without tests: {long:?}");
}

#[test]
fn functions_are_short() {
    let mut long = Vec::new();
    for source in ours() {
        let mut begun: Option<(usize, usize, &str)> = None;
        for (number, line) in source.code.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            match begun {
                Some((start, depth, name)) if indent == depth && line.trim_start() == "}" => {
                    if number - start > FUNCTION_LINES {
                        long.push(format!("{}:{}: {name}", source.path.display(), start + 1));
                    }
                    begun = None;
                }
                None if is_function(line) => begun = Some((number, indent, line.trim())),
                _ => {}
            }
        }
    }
    assert!(long.is_empty(), "over {FUNCTION_LINES} lines: {long:#?}");
}

fn is_function(line: &str) -> bool {
    let words = line.trim_start().trim_start_matches("pub").trim_start();
    let words = words.strip_prefix('(').and_then(|rest| rest.split_once(')')).map_or(words, |(_, rest)| rest);
    let plain = ["async ", "const ", "unsafe "]
        .iter()
        .fold(words.trim_start(), |words, prefix| words.strip_prefix(prefix).unwrap_or(words));
    plain.starts_with("fn ") && !line.trim_end().ends_with(';') && !line.trim_end().ends_with('}')
}

#[test]
fn the_core_knows_nothing_of_containerd() {
    let manifest =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).expect("ours");
    let dependencies = manifest.split("\n[dependencies]").nth(1).expect("dependencies");
    let dependencies = dependencies.split("\n[").next().expect("a section");
    for foreign in ["containerd", "ttrpc", "protobuf", "cryo-protos"] {
        assert!(!dependencies.contains(foreign), "the core depends on {foreign}");
    }
}

#[test]
fn the_shim_links_nothing_of_the_command() {
    let manifest =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).expect("ours");
    assert!(manifest.contains("\ncryo = { path = \".\", default-features = false }\n"));
    assert!(manifest.contains("\nclap = { workspace = true, optional = true }\n"));
    assert!(
        !fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs"))
            .expect("ours")
            .contains("command")
    );
}

#[test]
fn what_is_pure_does_no_input_or_output() {
    for pure in ["src/container/state.rs", "src/policy.rs"] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(pure)).expect(pure);
        let code = text.split("#[cfg(test)]").next().expect("code");
        for io in ["std::fs", "std::io", "tokio", "rustix", "crate::"] {
            assert!(!code.contains(io), "{pure} uses {io}");
        }
    }
}

#[test]
fn only_one_file_is_unsafe() {
    let opens = |source: &&Source| source.code.iter().any(|line| line.contains("allow(unsafe_code"));
    let open: Vec<_> = sources("src").into_iter().chain(sources("shim/src")).collect();
    let open: Vec<_> = open.iter().filter(opens).map(|source| source.path.clone()).collect();
    assert_eq!(open, [Path::new("src/sys.rs")]);
}

#[test]
fn nobody_waits_for_just_any_child() {
    let waits = ["waitpid(None", "wait(WaitOptions", "WaitId::All", ".wait_with_output("];
    for source in sources("src").iter().chain(&sources("shim/src")) {
        for line in &source.code {
            let found = waits.iter().find(|wait| line.contains(**wait));
            assert_eq!(found, None, "{}: {line}", source.path.display());
        }
    }
}

#[test]
fn nothing_is_left_to_do_in_the_code() {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
    for source in ours() {
        for line in &source.code {
            let found = marks.iter().find(|mark| line.contains(**mark));
            assert_eq!(found, None, "{}: {line} (ARCHITECTURE.md has a place for it)", source.path.display());
        }
    }
}
