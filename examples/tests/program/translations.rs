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

/// A file of what was made of the text of the runs whose folder has this name; of several, the newest.
fn made(out: &Path, name: &str, file: &str) -> String {
    let folders = fs::read_dir(out.join(format!("{name}-data"))).unwrap();
    let mut folders: Vec<_> = folders.map(|entry| entry.unwrap().path()).collect();
    folders.sort_by_key(|folder| folder.metadata().unwrap().modified().unwrap());
    fs::read_to_string(folders.last().unwrap().join(file)).unwrap()
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
    let name: Vec<_> = run
        .iter()
        .skip(1)
        .map(|part| part.to_string_lossy())
        .collect();
    let hypotheses = texts.join(format!("{}.en", name.join("-")));
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
    let no = out.path().join("no");
    let error = translate("average --last 9 --out")
        .path(&no)
        .path(&run)
        .fails();
    assert!(error.contains("averag") && error.contains('9'), "{error}");
    assert!(!no.exists(), "no model that is no mean");
    let error = translate("average --last 2 --out")
        .path(&mean)
        .path(&run)
        .fails();
    assert!(error.contains("is there already"), "{error}");
    let best = out.path().join("best");
    translate("average --best --out")
        .path(&best)
        .path(&run)
        .succeeds();
    assert!(best.join("tokenizer.json").is_file());
    let error = translate("evaluate --limit 1 --out")
        .path(&texts)
        .path(&run)
        .fails();
    assert!(error.contains("is there already"), "{error}");
    let error = translate("evaluate --set validation").path(&run).fails();
    assert!(error.contains("--data"), "{error}");
    latin_1_behind_a_good_line(&run);
}

/// What came before a line that is no text is translated, and the error names the line.
fn latin_1_behind_a_good_line(run: &Path) {
    let program = translate("decode --max-extra 3 --max-ratio 1").path(run);
    let mut command = program.command();
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"zwei\nf\xfcnf\n")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 1);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("line 2"), "{error}");
}

/// Who writes a line and waits has its translation, though the pipe is open.
#[test]
fn a_pipe_is_answered_line_by_line() {
    use std::io::{BufRead, BufReader};
    let out = folder();
    let run = out.path().join("run");
    trained(&run);
    let program = translate("decode --max-extra 3 --max-ratio 1").path(&run);
    let mut child = program
        .command()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut answers = BufReader::new(output).lines();
    for line in ["zwei .", "drei ."] {
        writeln!(input, "{line}").unwrap();
        assert!(answers.next().unwrap().is_ok());
    }
    drop(input);
    assert!(child.wait().unwrap().success());
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
            "train --preset tiny --vocabulary 120 --tokenize --lower-case --epochs 2 --max-tokens 150 --schedule constant --log-every 1 --checkpoint-every 2 {flags}"
        );
        translate(&flags)
            .argument("--data")
            .path(&text)
            .argument("--out")
            .path(at)
    };
    let (whole, parts) = (out.path().join("whole"), out.path().join("parts"));
    train("", &whole).succeeds();
    let prepared = made(out.path(), "whole", "train.en");
    assert!(
        prepared.starts_with("a dog runs , number 0 .\n"),
        "{prepared}"
    );
    train("--max-steps 3", &parts).succeeds();
    fs::remove_file(parts.join("summary.json")).unwrap();
    // Other text gives words other numbers.
    write(&text.join("train.de"), &german.replace("Hund", "Wolf"));
    let error = translate("train --max-steps 1000000 --resume")
        .path(&parts)
        .fails();
    assert!(error.contains("has changed since"), "{error}");
    write(&text.join("train.de"), &german);
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
    // A slash behind the folder's name leads to the same place.
    train("--max-steps 1", &out.path().join("new/")).succeeds();
    let prepared = made(out.path(), "new", "train.de");
    assert!(prepared.starts_with("ein wolf"), "{prepared}");

    let long = format!("{}\n", "Hund ".repeat(1200));
    write(&text.join("val.de"), &long);
    let error = train("", &out.path().join("long")).fails();
    assert!(
        error.contains("validation pair 0") && error.contains("1024 positions"),
        "{error}"
    );
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

/// Text as fairseq's script leaves it, with the dictionary and the codes that it was cut with.
#[test]
fn pieces_are_not_cut_again() {
    let out = folder();
    let (text, subwords) = (out.path().join("text"), out.path().join("subwords"));
    for at in [&text, &subwords] {
        fs::create_dir(at).unwrap();
    }
    for set in ["train", "valid"] {
        write(&text.join(format!("{set}.de")), &"ge@@ ht es\n".repeat(20));
        write(&text.join(format!("{set}.en")), &"it go@@ es\n".repeat(20));
    }
    write(
        &subwords.join("dict.txt"),
        "ge@@ 9\nht 9\nes 9\nit 9\ngo@@ 9\n",
    );
    write(&subwords.join("code"), "#version: 0.2\ng e\nh t</w>\n");
    let train = |flags: &str, at: &str| {
        let flags = format!(
            "train --preset tiny --optimizer adamw --max-steps 1 --translate 0 {flags} --data"
        );
        let program = translate(&flags).path(&text).argument("--out");
        program.path(&out.path().join(at))
    };
    let with = format!("--subwords {}", subwords.display());
    let error = train(&with, "cut").fails();
    assert!(
        error.contains("line 1 has `ge@@`") && error.contains("dict.txt alone"),
        "{error}"
    );
    let error = train("--tokenize true", "split").fails();
    assert!(error.contains("leave --tokenize out"), "{error}");
    fs::remove_file(subwords.join("code")).unwrap();
    train(&with, "pieces").succeeds();
    // New subwords may be learned of them, and used again.
    train("", "learned").succeeds();
    let learned = out.path().join("learned/model");
    train(&format!("--subwords {}", learned.display()), "again").succeeds();
}

/// A dictionary of escaped text has no other apostrophe.
#[test]
fn text_is_escaped_as_the_dictionary_is() {
    let out = folder();
    let (text, subwords) = (out.path().join("text"), out.path().join("subwords"));
    for at in [&text, &subwords] {
        fs::create_dir(at).unwrap();
    }
    for set in ["train", "valid"] {
        write(&text.join(format!("{set}.de")), &"es geht\n".repeat(20));
        write(&text.join(format!("{set}.en")), &"it's going\n".repeat(20));
    }
    write(
        &subwords.join("dict.txt"),
        "it 9\n&apos;s 9\ngoing 9\nes 9\ngeht 9\n",
    );
    let at = out.path().join("run");
    let flags = format!(
        "train --preset tiny --optimizer adamw --max-steps 1 --translate 0 --tokenize true --subwords {} --data",
        subwords.display()
    );
    translate(&flags)
        .path(&text)
        .argument("--out")
        .path(&at)
        .succeeds();
    let prepared = made(out.path(), "run", "train.en");
    assert!(prepared.starts_with("it &apos;s going\n"), "{prepared}");
    let saved = fs::read_to_string(at.join("model/translation.json")).unwrap();
    assert!(saved.contains("\"escape\": true"), "{saved}");
}
