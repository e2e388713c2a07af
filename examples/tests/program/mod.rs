//! Programs as processes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// A program and its arguments.
pub struct Program {
    name: &'static str,
    arguments: Vec<String>,
    /// The largest file in KiB.
    limit: Option<usize>,
}

impl Program {
    /// With arguments separated by blanks.
    pub fn new(name: &'static str, arguments: &str) -> Self {
        Self {
            name,
            arguments: arguments.split_whitespace().map(String::from).collect(),
            limit: None,
        }
    }

    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub fn path(self, path: &Path) -> Self {
        self.argument(&path.display().to_string())
    }

    /// No file of it can be larger than this, as on a full disk.
    pub fn limited(mut self, kib: usize) -> Self {
        self.limit = Some(kib);
        self
    }

    pub fn command(&self) -> Command {
        let program = executable(self.name);
        let mut command = match self.limit {
            None => Command::new(program),
            Some(kib) => {
                // Writing on is an error then, and no signal.
                let mut shell = Command::new("bash");
                let script = format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\"");
                shell.args(["-c", &script]).arg(program);
                shell
            }
        };
        command
            .args(&self.arguments)
            .current_dir(std::env::temp_dir());
        command.env("HF_HUB_OFFLINE", "1");
        command
    }

    fn output(&self) -> Output {
        self.command().output().expect("a program that was built")
    }

    /// Its standard output.
    pub fn succeeds(&self) -> String {
        let output = self.output();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, error) = (text(&output.stdout), text(&output.stderr));
        assert!(
            output.status.success(),
            "{} {:?}\n{out}\n{error}",
            self.name,
            self.arguments
        );
        out
    }

    /// Its standard error.
    pub fn fails(&self) -> String {
        let output = self.output();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = output.status.code();
        assert!(
            code == Some(1) || code == Some(2),
            "{} {:?}: {code:?}\n{error}",
            self.name,
            self.arguments
        );
        error
    }
}

/// An example beside this test's own program.
fn executable(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a path");
    let target = own.ancestors().nth(2).expect("target/debug/deps/programs");
    let path = target
        .join("examples")
        .join(name)
        .with_extension(std::env::consts::EXE_EXTENSION);
    assert!(
        path.is_file(),
        "{}: cargo test builds it, `--test` alone does not",
        path.display()
    );
    path
}

pub fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

pub fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

/// In how many lines this is all there is.
pub fn lines(text: &str, line: &str) -> usize {
    text.lines().filter(|l| *l == line).count()
}

/// Every variable, table and state of the newest checkpoint, and rate and loss of every step that was logged.
pub fn bits(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let checkpoints = fs::read_dir(run.join("checkpoint")).unwrap();
    let names = checkpoints.map(|entry| entry.unwrap().path());
    let is_step = |path: &PathBuf| {
        path.file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("step-")
    };
    let newest = names.filter(is_step).max();
    let newest = newest.expect("a checkpoint");
    let mut all = BTreeMap::new();
    for file in [
        "model.safetensors",
        "optim.safetensors",
        "tables.safetensors",
    ] {
        let path = newest.join(file);
        if file.starts_with("tables") && !path.exists() {
            continue;
        }
        let bytes = fs::read(path).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        for (name, tensor) in tensors.tensors() {
            all.insert(format!("{file} {name}"), tensor.data().to_vec());
        }
    }
    let name = newest.file_name().unwrap().to_string_lossy().into_owned();
    all.insert("step".into(), name.into_bytes());
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    for line in metrics.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        if line["kind"] == "step" {
            let key = format!("logged {}", line["step"]);
            let seen = all.insert(key, format!("{} {}", line["loss"], line["lr"]).into_bytes());
            assert!(seen.is_none(), "{}: {line} once more", run.display());
        }
    }
    all
}
