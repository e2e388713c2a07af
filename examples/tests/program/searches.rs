//! Searches on the one driver: a range test of the rate, successive halving, the paper's tables.

use crate::program::{Program, folder, lines, write};
use std::fs;
use std::path::Path;

const SMALL: &str = "--task sst2 --limit 48 --limit-eval 16 --max-length 16 --batch-size 8";

fn glue(arguments: &str) -> Program {
    Program::new("glue", &format!("{SMALL} {arguments} --out"))
}

#[test]
fn a_range_test_proposes_a_rate_for_each_optimizer() {
    let out = folder();
    let at = out.path().join("rates");
    let text = glue("--optimizer adamw,sgd --seed 3,4 --find-lr 40")
        .path(&at)
        .succeeds();
    assert!(
        text.contains("proposed") && text.contains("find-lr.svg"),
        "{text}"
    );
    let table = text
        .lines()
        .filter(|l| l.starts_with("adamw  ") || l.starts_with("sgd  "));
    assert_eq!(table.count(), 2, "one seed is enough: {text}");
    assert!(
        fs::read_to_string(at.join("find-lr.svg"))
            .unwrap()
            .contains("adamw")
    );
    // One of its runs by itself is no run to go on with.
    let alone = out.path().join("alone");
    let text = glue("--optimizer adamw --epochs 3 --schedule cosine --find-lr 20")
        .path(&alone)
        .succeeds();
    assert!(text.contains("not used: --schedule, --epochs\n"), "{text}");
    let error = Program::new("glue", "--resume").path(&alone).fails();
    assert!(error.contains("range test"), "{error}");
    let again = out.path().join("again");
    let error = glue("--sweep lr=0.1,0.2 --find-lr").path(&again).fails();
    assert!(error.contains("--find-lr") && !again.exists(), "{error}");
}

/// Which a file of settings can say, where no flag contradicts it.
#[test]
fn a_range_test_is_no_search_by_halving() {
    let out = folder();
    let file = out.path().join("search.toml");
    write(
        &file,
        "halving = true\nepochs = 8\nsweep = [\"dropout=0,0.1\"]\n",
    );
    let at = out.path().join("found");
    let program = Program::new("glue", &format!("{SMALL} --find-lr 40 --config")).path(&file);
    let error = program.argument("--out").path(&at).fails();
    assert!(
        error.contains("--find-lr") && error.contains("halving"),
        "{error}"
    );
    assert!(!at.exists());
}

/// Where the dense layers' rate in a test is their own, the tables' is theirs.
#[test]
fn the_rates_of_tables_rise_in_a_range_test_too() {
    let flags = "train --data nowhere --find-lr 20 --dry-run --out";
    let out = folder();
    let text = Program::new("criteo", flags).path(&out.path().join("rates"));
    let text = text.succeeds();
    assert!(text.contains("lr_scale = 100.0\n"), "{text}");
    assert!(text.contains("table_lr = 1.0\n"), "{text}");
}

/// What failed in the first rung is named at the end, and no choice that others were better than.
#[test]
fn halving_remembers_what_failed() {
    let out = folder();
    let at = out.path().join("search");
    let flags = "--optimizer sgd --bound 0 --epochs 4 --sweep lr=0.1,0.2,1e38 --halving";
    let error = glue(flags).path(&at).fails();
    assert!(error.contains("of all rungs: 1"), "{error}");
    let report = fs::read_to_string(at.join("report.html")).unwrap();
    assert!(report.contains("rung 1: lr 1e38"), "{report}");
}

/// Four rates by two optimizers: eight runs of one epoch, four of two, two of four; an interrupted search goes on.
/// What a comparison leaves behind, which of large models fills a disk.
#[test]
fn a_comparison_keeps_what_it_is_asked_to() {
    let out = folder();
    let made = |keep: &str| {
        let at = out.path().join(keep);
        let flags = format!("--optimizer adamw --epochs 2 --eval-every 1 --seed 0,1 --keep {keep}");
        glue(&flags).path(&at).succeeds();
        let text = Program::new("glue", "--resume").path(&at).succeeds();
        assert!(text.contains("2 of 2 runs are finished"), "{text}");
        let results = fs::read_to_string(at.join("results.json")).unwrap();
        let entries = fs::read_dir(&at)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let runs: Vec<_> = entries.filter(|path| path.is_dir()).collect();
        assert_eq!(runs.len(), 2);
        for run in &runs {
            assert!(run.join("summary.json").is_file() && run.join("metrics.jsonl").is_file());
            assert_eq!(run.join("checkpoint").exists(), keep == "all", "{keep}");
            assert_eq!(run.join("model").exists(), keep != "figures", "{keep}");
        }
        assert!(results.contains("\"runs\": 2"), "{results}");
        if keep == "all" {
            // A disk that is full is made room on afterwards, too.
            for (less, models) in [("models", true), ("figures", false)] {
                let flags = format!("--keep {less} --resume");
                Program::new("glue", &flags).path(&at).succeeds();
                for run in &runs {
                    assert!(!run.join("checkpoint").exists() && run.join("summary.json").is_file());
                    assert_eq!(run.join("model").exists(), models, "{less}");
                }
            }
        }
    };
    for keep in ["all", "models", "figures"] {
        made(keep);
    }
    // Another length would begin from nothing.
    let error = Program::new("glue", "--epochs 3 --resume")
        .path(&out.path().join("figures"))
        .fails();
    assert!(error.contains("--epochs 3"), "{error}");
}

#[test]
fn halving_keeps_the_better_half_of_each_optimizer() {
    let out = folder();
    let at = out.path().join("search");
    let flags = "--optimizer adamw,sgd --epochs 4 --sweep lr-scale=0.1,1,10,100 --halving";
    let text = glue(flags).path(&at).succeeds();
    for rung in [
        "rung 1 of 3: 8 runs",
        "rung 2 of 3: 4 runs",
        "rung 3 of 3: 2 runs",
    ] {
        assert_eq!(lines(&text, rung), 1, "{text}");
    }
    // Of one choice that is left, too, it is said among how many it was chosen.
    let choices = text.matches("best of 4 and of 4 choices").count();
    assert_eq!(choices, 3, "{text}");
    let runs = |rung: &str| {
        let entries = fs::read_dir(at.join(rung)).unwrap();
        let folders = entries
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.path().is_dir());
        let names = folders.map(|entry| entry.file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    };
    let last = runs("rung3");
    assert!(
        last[0].starts_with("sst2-adamw-") && last[1].starts_with("sst2-sgd-"),
        "{last:?}"
    );
    assert!(
        runs("rung2")
            .iter()
            .all(|name| runs("rung1").contains(name))
    );
    let config = fs::read_to_string(at.join("rung2").join(&runs("rung2")[0]).join("config.toml"));
    assert!(config.unwrap().contains("epochs = 2\n"));

    // Each rung's figures stay, and the last one's are the comparison's.
    let rows = |folder: &Path| {
        let text = fs::read_to_string(folder.join("results.json")).unwrap();
        text.matches("\"group\"").count()
    };
    let figures = [&at.join("rung1"), &at.join("rung2"), &at].map(|folder| rows(folder));
    assert_eq!(figures, [8, 4, 2]);
    assert!(at.join("rung1/report.html").is_file());

    // As after a kill: a run of the second rung and all of the third are missing.
    fs::remove_dir_all(at.join("rung2").join(&runs("rung2")[0])).unwrap();
    fs::remove_dir_all(at.join("rung3")).unwrap();
    let text = Program::new("glue", "--resume").path(&at).succeeds();
    assert!(
        text.contains("8 of 8 runs are finished") && text.contains("3 of 4 runs are finished"),
        "{text}"
    );
    assert_eq!(runs("rung3"), last);

    let refused = out.path().join("refused");
    for flags in ["--halving", "--epochs 1 --sweep lr=0.1,0.2 --halving"] {
        let error = glue(flags).path(&refused).fails();
        assert!(error.contains("--halving") && !refused.exists(), "{error}");
    }
}

#[test]
fn a_table_of_the_paper_is_a_comparison() {
    let out = folder();
    let plan = |study: &str, runs: usize| {
        let at = out.path().join(study);
        let plan = glue(&format!("--dry-run --study {study}"))
            .path(&at)
            .succeeds();
        assert!(plan.starts_with(&format!("# {runs} runs\n")), "{plan}");
        plan
    };
    let rates = plan("rates", 3 * 8 * 3);
    assert_eq!(lines(&rates, "lr_scale = 10.0"), 9, "{rates}");
    plan("blocks", 10 * 3);
    plan("delays", 5 * 3);
    plan("optimizers", 4 * 3);
    let curvature = plan("curvature", 16 * 3);
    assert_eq!(
        lines(&curvature, "curvature_fraction = 0.125"),
        12,
        "{curvature}"
    );
    let at = out.path().join("delays");
    let text = glue("--epochs 1 --seed 0,1 --study delays")
        .path(&at)
        .succeeds();
    assert!(text.contains("std. error"), "{text}");
    let report = fs::read_to_string(at.join("report.html")).unwrap();
    assert!(report.contains("by hessian every"), "a figure of the sweep");
}
