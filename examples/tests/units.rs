//! The programs' own unit tests, which `cargo test` builds and does not run where they lie.

#[allow(
    dead_code,
    reason = "the program itself is another target; here are its tests"
)]
#[path = "../pretrain/main.rs"]
mod pretrain;
#[allow(
    dead_code,
    reason = "the program itself is another target; here are its tests"
)]
#[path = "../translate/main.rs"]
mod translate;

use std::fs;
use std::path::Path;

/// A program's files, with those of its folder.
fn has_tests(path: &Path) -> bool {
    match fs::read_dir(path) {
        Ok(entries) => entries.flatten().any(|entry| has_tests(&entry.path())),
        Err(_) => {
            let is_rust = path.extension().is_some_and(|ending| ending == "rs");
            is_rust && fs::read_to_string(path).is_ok_and(|text| text.contains("#[cfg(test)]"))
        }
    }
}

#[test]
fn no_programs_tests_are_left_out() {
    let here = include_str!("units.rs");
    let mut with_tests = 0;
    for entry in fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // The library's are run, and these are.
        if ["common", "tests"].contains(&name.as_str()) || !has_tests(&path) {
            continue;
        }
        with_tests += 1;
        let file = match path.is_dir() {
            true => format!("../{name}/main.rs"),
            false => format!("../{name}"),
        };
        assert!(
            here.contains(&file),
            "{file} has tests that nothing runs: add it above"
        );
    }
    assert!(with_tests >= 2, "{with_tests}");
}
