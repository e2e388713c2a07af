//! The translator from text to BLEU.

use crate::program::{Program, bits, folder, write};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

const SMALL: &str =
    "--limit 120 --limit-eval 10 --epochs 2 --max-tokens 400 --translate 6 --optimizer adamw";

fn translate(arguments: &str) -> Program {
    Program::new("translate", arguments)
}

fn trained(at: &Path) {
    translate(&format!("train {SMALL} --out"))
        .path(at)
        .succeeds();
}

/// What `decode` says to these lines.
fn said(run: &Path, flags: &str, lines: &str) -> String {
    let program = translate("decode").path(run);
    let mut command = program.command();
    command.args(flags.split_whitespace());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(lines.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_translator_is_trained_asked_scored_and_averaged() {
    let out = folder();
    let run = out.path().join("run");
    trained(&run);
    for file in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "translation.json",
    ] {
        assert!(run.join("model").join(file).is_file(), "{file}");
    }
    let summary = fs::read_to_string(run.join("summary.json")).unwrap();
    assert!(
        summary.contains("\"bleu\"") && summary.contains("\"perplexity\""),
        "{summary}"
    );

    let answers = said(
        &run,
        "--max-extra 5 --max-ratio 1",
        "zwei\n\ndreizehn und vier .\n",
    );
    assert_eq!(answers.lines().count(), 3, "{answers}");
    let best = said(&run, "--n-best 3 --max-extra 5 --max-ratio 1", "zwei\n");
    assert_eq!(best.lines().count(), 3, "{best}");
    assert!(
        best.lines()
            .all(|line| line.starts_with('-') && line.contains('\t')),
        "{best}"
    );

    let texts = out.path().join("texts");
    let table = translate("evaluate --limit 8 --beam 2 --max-extra 5 --max-ratio 1 --out")
        .path(&texts)
        .path(&run)
        .succeeds();
    assert!(table.contains("sacreBLEU"), "{table}");
    let hypotheses = texts.join("run.en");
    assert_eq!(fs::read_to_string(&hypotheses).unwrap().lines().count(), 8);
    let own = translate("score")
        .path(&hypotheses)
        .path(&hypotheses)
        .succeeds();
    assert!(own.starts_with("BLEU = "), "{own}");
    let short = out.path().join("short.en");
    write(&short, "one\n");
    let error = translate("score").path(&hypotheses).path(&short).fails();
    assert!(error.contains("1 lines, expected 8"), "{error}");

    let mean = out.path().join("mean");
    translate("average --last 2 --out")
        .path(&mean)
        .path(&run)
        .succeeds();
    assert_eq!(
        said(&mean, "--max-extra 5 --max-ratio 1", "zwei\n")
            .lines()
            .count(),
        1
    );
    let error = translate("average --last 9 --out")
        .path(&out.path().join("no"))
        .path(&run)
        .fails();
    assert!(error.contains("averag") && error.contains('9'), "{error}");
}

#[test]
fn text_is_prepared_once_and_a_run_on_it_goes_on_bit_for_bit() {
    let out = folder();
    let text = out.path().join("text");
    fs::create_dir(&text).unwrap();
    let (mut german, mut english) = (String::new(), String::new());
    for i in 0..60 {
        let (a, b) = (
            ["Ein Hund", "Das Haus", "Die Katze"][i % 3],
            ["A dog", "The house", "The cat"][i % 3],
        );
        let (c, d) = (
            ["läuft", "steht", "schläft", "singt"][i % 4],
            ["runs", "stands", "sleeps", "sings"][i % 4],
        );
        german += &format!("{a} {c}, Nummer {i}.\n");
        english += &format!("{b} {d}, number {i}.\n");
    }
    write(&text.join("train.de"), &german);
    write(&text.join("train.en"), &english);
    write(&text.join("val.de"), "Ein Hund steht.\n");
    write(&text.join("val.en"), "A dog stands.\n");
    let train = |flags: &str, at: &Path| {
        let flags = format!(
            "train --preset tiny --vocabulary 120 --tokenize --lower-case --epochs 2 --max-tokens 150 --schedule constant --checkpoint-every 2 {flags}"
        );
        translate(&flags)
            .argument("--data")
            .path(&text)
            .argument("--out")
            .path(at)
    };
    let (whole, parts) = (out.path().join("whole"), out.path().join("parts"));
    train("", &whole).succeeds();
    let prepared = fs::read_to_string(out.path().join("whole-data/train.en")).unwrap();
    assert!(
        prepared.starts_with("a dog runs , number 0 .\n"),
        "{prepared}"
    );
    train("--max-steps 3", &parts).succeeds();
    fs::remove_file(parts.join("summary.json")).unwrap();
    translate("train --max-steps 1000000 --resume")
        .path(&parts)
        .succeeds();
    assert!(
        bits(&whole) == bits(&parts),
        "a run that went on is another"
    );
    // What people write comes out.
    let said = said(&whole, "--max-extra 3 --max-ratio 1", "Ein Hund steht.\n");
    assert_eq!(said, said.to_lowercase());

    write(&text.join("train.de"), &german.replace("Hund", "Wolf"));
    let error = translate("train --max-steps 1000000 --resume").path(&parts);
    // It is complete, so nothing is read again; a new run in the same place is refused.
    error.succeeds();
    let error = train("", &parts).fails();
    assert!(error.contains("parts"), "{error}");
    // Nor is what was made of other text taken for this one's.
    let others = out.path().join("whole-data");
    fs::rename(&others, out.path().join("new-data")).unwrap();
    train("--max-steps 1", &out.path().join("new")).succeeds();
    let prepared = fs::read_to_string(out.path().join("new-data/train.de")).unwrap();
    assert!(prepared.starts_with("ein wolf"), "{prepared}");

    write(&text.join("train.de"), "Ein Hund.\n");
    let error = train("", &out.path().join("other")).fails();
    assert!(
        error.contains("train.de") && error.contains("train.en"),
        "{error}"
    );
    fs::remove_file(text.join("val.en")).unwrap();
    let error = train("", &out.path().join("another")).fails();
    assert!(error.contains("no validation sentences"), "{error}");
}
