//! The seeds of every target and some inputs made of them, as `scripts/fuzz.sh` replays them for longer.

use fuzz::TARGETS;
use std::process::Command;

#[test]
fn no_target_panics_on_its_seeds_nor_on_what_is_made_of_them() {
    let output = Command::new(env!("CARGO_BIN_EXE_replay"))
        .args(["--inputs", "200", "--seconds", "3"])
        .output()
        .expect("the program");
    let (rows, errors) = (output.stdout, output.stderr);
    let (rows, errors) = (
        String::from_utf8_lossy(&rows),
        String::from_utf8_lossy(&errors),
    );
    assert!(output.status.success(), "{rows}\n{errors}");
    for target in TARGETS {
        let row = format!("| {} |", target.name);
        let row = rows.lines().find(|line| line.starts_with(&row));
        let row = row.unwrap_or_else(|| panic!("no row of {}: {rows}", target.name));
        assert!(row.ends_with("well |"), "{row}");
    }
}

#[test]
fn a_name_that_no_target_has_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_replay"))
        .arg("gleu")
        .output();
    let output = output.expect("the program");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(errors.contains("glue_tsv"), "{errors}");
}
