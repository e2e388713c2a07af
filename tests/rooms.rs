//! The house itself: which folder of `adahessian` may know which, and who may ask where numbers live.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A room, and the rooms it may use.
const ROOMS: [(&str, &[&str]); 8] = [
    ("numeric", &[]),
    ("engine", &["numeric"]),
    ("ops", &["numeric", "engine"]),
    ("nn", &["numeric", "engine", "ops"]),
    // A difference of gradients is no step of a training: running statistics must not move.
    (
        "curvature",
        &["numeric", "engine", "ops::statistics_at_rest"],
    ),
    ("tables", &["numeric", "engine"]),
    ("optim", &["numeric", "engine", "curvature", "tables"]),
    (
        "sparse",
        &["numeric", "engine", "curvature", "tables", "optim"],
    ),
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../adahessian/src")
}

fn files(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files(&path, all),
            false => all.push(path),
        }
    }
}

/// The code of every file of a room, without comments and unit tests.
fn code(room: &str) -> Vec<(PathBuf, String)> {
    let mut all = Vec::new();
    files(&source().join(room), &mut all);
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let lines = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        let code = lines.collect::<Vec<_>>().join("\n");
        (path, code)
    };
    let is_test = |path: &PathBuf| path.file_name().is_some_and(|name| name == "tests.rs");
    all.into_iter()
        .filter(|path| !is_test(path))
        .map(read)
        .collect()
}

/// What stands behind each `crate::`, up to two names of it.
fn used(code: &str) -> BTreeSet<String> {
    let names = |rest: &str| {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
        let path: Vec<&str> = rest[..end.unwrap_or(rest.len())].split("::").collect();
        path[..path.len().min(2)].join("::")
    };
    code.split("crate::").skip(1).map(names).collect()
}

#[test]
fn rooms_look_one_way() {
    for (room, may) in ROOMS {
        for (path, code) in code(room) {
            for name in used(&code) {
                let other = name.split("::").next().unwrap();
                let is_room = ROOMS.iter().any(|(room, _)| *room == other);
                let allowed = other == room || may.contains(&other) || may.contains(&&*name);
                assert!(
                    !is_room || allowed,
                    "{} uses {name}, which {room} must not know",
                    path.display()
                );
            }
        }
    }
}

/// A choice by device or number type is the engine's; what a type can hold is in `numeric/dtype.rs`.
#[test]
fn nobody_else_asks_where_numbers_live() {
    for room in ["ops", "nn", "curvature", "tables", "optim"] {
        for (path, code) in code(room) {
            for asks in [
                "is_cpu()",
                "is_cuda()",
                "is_metal()",
                "DType::F32 =>",
                "DType::F64 =>",
            ] {
                assert!(!code.contains(asks), "{} asks {asks}", path.display());
            }
        }
    }
}

/// Every operation has a row in the table of what it is on a GPU, with a test that is there.
#[test]
fn operations_on_a_gpu_are_tested() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("../docs/CUDA_OPS.md")).unwrap();
    let code = fs::read_to_string(source().join("ops/mod.rs")).unwrap();
    let public = code.split("pub use ").skip(1);
    let names = public.flat_map(|line| {
        let line = line.split(';').next().unwrap();
        let names = line.rsplit("::").next().unwrap();
        names.split([',', '{', '}', ' ', '\n']).map(str::to_string)
    });
    // Functions; `statistics_at_rest` is none of an operand.
    let names = names.filter(|name| name.starts_with(|c: char| c.is_lowercase()));
    let names: Vec<String> = names.filter(|name| name != "statistics_at_rest").collect();
    assert!(names.len() > 25, "{names:?}");
    for name in names {
        let row = table
            .lines()
            .find(|l| l.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("docs/CUDA_OPS.md has no row of `{name}`"));
        let test = row.rsplit('`').nth(1).unwrap();
        let (file, test) = test.split_once("::").unwrap();
        let file = fs::read_to_string(root.join(format!("cuda/{file}.rs"))).unwrap();
        assert!(file.contains(&format!("fn {test}()")), "{name}: {test}");
        assert!(
            file.contains(&format!("{name}(")) || name.ends_with("layer_norm"),
            "{name}"
        );
    }
}
