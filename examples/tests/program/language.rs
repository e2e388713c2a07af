//! The language model: trained, gone on with, and asked for words.

use crate::program::{Program, bits, folder, write};
use std::fs;
use std::path::Path;

const SMALL: &str = "--max-steps 6 --epochs 1 --batch-size 4 --optimizer adahessian --schedule constant --log-every 1 --checkpoint-every 1";

fn language_model(arguments: &str) -> Program {
    Program::new("language_model", arguments)
}

/// A thousand words in lines of ten.
fn texts(at: &Path) {
    fs::create_dir_all(at).unwrap();
    for (file, count) in [("train.txt", 100), ("valid.txt", 20), ("test.txt", 10)] {
        let line = |i: usize| {
            let words = (0..10).map(|j| format!("w{}", (i * i + 3 * j * i + j) % 40));
            words.collect::<Vec<_>>().join(" ") + "\n"
        };
        write(&at.join(file), &(0..count).map(line).collect::<String>());
    }
}

#[test]
fn a_run_that_goes_on_is_one_that_did_not_stop() {
    let out = folder();
    let (data, whole, parts) = (
        out.path().join("data"),
        out.path().join("whole"),
        out.path().join("parts"),
    );
    texts(&data);
    let train = |arguments: &str, at: &Path| {
        language_model(&format!("train --preset tiny {arguments} --data"))
            .path(&data)
            .argument("--out")
            .path(at)
    };
    train(SMALL, &whole).succeeds();
    train(&SMALL.replace("--max-steps 6", "--max-steps 3"), &parts).succeeds();
    let go_on = || language_model("train --max-steps 6 --resume").path(&parts);
    go_on().succeeds();
    assert!(
        bits(&whole) == bits(&parts),
        "a run that went on is another"
    );
    let summary = fs::read_to_string(whole.join("summary.json")).unwrap();
    for score in ["perplexity", "test_perplexity"] {
        assert!(summary.contains(score), "{summary}");
    }
    // Other words, and no words.
    let text = fs::read_to_string(data.join("train.txt")).unwrap();
    write(&data.join("train.txt"), &text.replace("w1 ", "v1 "));
    let go_on = || language_model("train --max-steps 7 --resume").path(&parts);
    let error = go_on().fails();
    assert!(error.contains("has changed since"), "{error}");
    // The same words in another order: the vocabulary is the same, and its store another text's.
    let (first, rest) = text.split_once('\n').unwrap();
    write(&data.join("train.txt"), &format!("{rest}{first}\n"));
    let error = go_on().fails();
    assert!(
        error.contains("delete the file") && error.contains("train-"),
        "{error}"
    );
    write(&data.join("valid.txt"), "\n\n");
    let error = train(SMALL, &out.path().join("other")).fails();
    assert!(
        error.contains("valid.txt") && error.contains("no data rows"),
        "{error}"
    );
    write(&data.join("valid.txt"), "w1 w2\n");
    let error = train(SMALL, &out.path().join("another")).fails();
    assert!(
        error.contains("window") && error.contains("a text of 3"),
        "{error}"
    );
    fs::remove_file(data.join("valid.txt")).unwrap();
    let error = train(SMALL, &out.path().join("third")).fails();
    assert!(
        error.contains("valid.txt") && error.contains("wiki.valid.tokens"),
        "{error}"
    );
}

#[test]
fn what_is_written_is_a_function_of_the_seed() {
    let out = folder();
    let run = out.path().join("run");
    language_model(&format!("train {SMALL} --out"))
        .path(&run)
        .succeeds();
    let said = |arguments: &str| {
        let program = language_model(&format!("generate --words 12 {arguments}"));
        program.path(&run).succeeds()
    };
    let text = said("--prompt what --seed 1");
    assert!(text.starts_with("what "), "{text}");
    // The end of a line is none to be seen.
    assert!(
        (2..=13).contains(&text.split_whitespace().count()),
        "{text}"
    );
    assert_eq!(said("--prompt what --seed 1"), text);
    assert_ne!(said("--prompt what --seed 2"), text);
    // The likeliest word is no matter of the seed.
    assert_eq!(
        said("--temperature 0 --seed 1"),
        said("--temperature 0 --seed 2")
    );
    fs::remove_file(run.join("model/vocabulary.txt")).unwrap();
    let error = language_model("generate").path(&run).fails();
    assert!(error.contains("vocabulary.txt"), "{error}");
    let error = language_model("train --limit 5").fails();
    assert!(error.contains("--max-steps"), "{error}");
}

#[test]
fn a_pretraining_keeps_its_tokens_beside_its_folder() {
    let out = folder();
    let (data, run) = (out.path().join("data"), out.path().join("run"));
    texts(&data);
    // A slash behind does not lead into the run's own folder.
    let slash = Path::new(&format!("{}/", run.display())).to_path_buf();
    let flags = "--preset squeezebert-tiny --vocabulary 60 --max-length 16 --batch-size 4 --epochs 1 --pairs excerpt";
    let pretrain = |arguments: &str| Program::new("pretrain", arguments);
    pretrain(&format!("{flags} --max-steps 2 --data"))
        .path(&data)
        .argument("--out")
        .path(&slash)
        .succeeds();
    let stores = || -> Vec<_> {
        let stores = fs::read_dir(out.path().join("run-data")).unwrap();
        let names = stores.map(|file| file.unwrap().file_name().to_string_lossy().into_owned());
        names.filter(|name| name.ends_with(".pieces")).collect()
    };
    let made = stores();
    assert_eq!(made.len(), 2, "{made:?}");
    // How the model is saved changes no step; the tokens are those that are there.
    let size = || {
        fs::metadata(run.join("model/model.safetensors"))
            .unwrap()
            .len()
    };
    let whole = size();
    pretrain("--half --resume").path(&slash).succeeds();
    assert!(size() * 10 < whole * 6, "{whole} and {}", size());
    assert_eq!(stores().len(), 2);
    // Another text is not taken for this one.
    let text = fs::read_to_string(data.join("train.txt")).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    write(&data.join("train.txt"), &format!("{rest}{first}\n"));
    let error = pretrain("--max-steps 4 --resume").path(&run).fails();
    assert!(error.contains("delete the file"), "{error}");
    let error = Program::new("glue", "--scratch --dry-run").succeeds();
    assert!(error.contains("scratch = true"), "{error}");
    let error = Program::new("glue", "--task sst2 --scratch --out")
        .path(&out.path().join("fresh"))
        .fails();
    assert!(
        error.contains("--scratch") && error.contains("--model"),
        "{error}"
    );
}

/// Words that a text has not, and a dropout of everything.
#[test]
fn what_no_model_can_be_made_with_is_refused() {
    let out = folder();
    let data = out.path().join("data");
    texts(&data);
    let train = |arguments: &str, at: &str| {
        let at = out.path().join(at);
        let program = language_model(&format!("train --preset tiny {arguments} --data"));
        program.path(&data).argument("--out").path(&at).fails()
    };
    let error = train("--max-steps 1 --cutoffs 10,1000", "run");
    assert!(
        error.contains("--cutoffs 10,1000") && error.contains("38 different words"),
        "{error}"
    );
    let error = train("--dropout 1", "other");
    assert!(
        error.contains("--dropout") && error.contains("below 1"),
        "{error}"
    );
    // Before anything is made of the text.
    assert!(!out.path().join("other-data").exists());
}
