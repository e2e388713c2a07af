//! The programs as their users meet them: what they refuse and how they say so, what they leave behind,
//! and from where they go on.

#[path = "program/language.rs"]
mod language;
#[path = "program/pictures.rs"]
mod pictures;
mod program;
#[path = "program/resumes.rs"]
mod resumes;
#[path = "program/searches.rs"]
mod searches;
#[path = "program/translations.rs"]
mod translations;

use program::{Program, bits, folder, lines, write};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A glue run of a few small steps.
const SMALL: &str = "--task sst2 --limit 48 --limit-eval 16 --max-length 16 --epochs 2 --batch-size 8 --optimizer adamw";
/// Twelve of them, so that a checkpoint every second step comes between.
const OFTEN: &str = "--checkpoint-every 2 --log-every 1";

fn glue(arguments: &str) -> Program {
    Program::new("glue", arguments)
}

/// An uninterrupted small run.
fn whole(at: &Path) {
    glue(&format!("{SMALL} {OFTEN} --out")).path(at).succeeds();
}

#[test]
fn slips_of_the_finger_are_errors_of_the_flag_they_were_made_in() {
    let out = folder();
    let slips = [
        ("--batch-size 0", "--batch-size"),
        ("--limit 0", "--limit"),
        ("--epochs 99999999999999", "--epochs"),
        ("--prefetch 1000000000", "--prefetch"),
        ("--threads 100000", "--threads"),
        ("--eps 0", "--eps"),
        ("--lr nan", "--lr"),
        ("--lr=-1", "--lr"),
        ("--seed 18446744073709551615", "--seed"),
        ("--seed 1,1", "twice"),
        ("--seed 0,00", "twice"),
        ("--sweep lr=1e-3,0.001", "would be the same run"),
        ("--block-size hole", "--block-size"),
        ("--sweep block-size=4,0", "at least 1 entry"),
        ("--optimizer adahessian,adahessian", "twice"),
        ("--optimizer sdg", "--optimizer sdg"),
        ("--optimizer sgd --betas 0.9,0.98", "has no effect on sgd"),
        ("--optimizer adamw --hessian-every 5", "adahessian, sophiah"),
        (
            "--optimizer adahessian,adamw --sweep hessian-every=1,5",
            "runs would all be the same",
        ),
        ("--sweep betas=0.9,0.98", "semicolons"),
        ("--betas 0.9", "--betas"),
        ("--hessian-first soon", "--hessian-first"),
        ("--curvature-fraction 2", "--curvature-fraction"),
        ("--schedule never", "never"),
        ("--task nli", "nli"),
        ("--device tpu", "--device tpu"),
        ("--sweep lr", "--sweep"),
        ("--sweep lr=0.1,x", "lr"),
        ("--sweep speed=1,2", "speed"),
        ("--sweep seed=1,2", "--seed"),
        ("--resume", "--out"),
        ("--model ./nowhere", "./nowhere"),
        ("--data ./nowhere", "nowhere"),
        ("--task sst2 --new-head", "--new-head"),
        ("--task sst2,rte", "rte"),
        ("--task sst2 --sweep model=mini,./typo", "./typo"),
    ];
    for (index, (flags, said)) in slips.iter().enumerate() {
        let at = out.path().join(index.to_string());
        let mut program = glue(&format!("{flags} --limit-eval 8"));
        if *flags != "--resume" {
            program = program.argument("--out").path(&at);
        }
        let error = program.fails();
        assert!(error.contains(said), "{flags}: {error}");
        assert!(!error.contains("panicked"), "{flags}: {error}");
        assert!(!at.exists(), "{flags}: leaves {}", at.display());
    }
    let other = |program: &'static str, flags: &str| {
        let at = out.path().join(program);
        Program::new(program, flags)
            .argument("--out")
            .path(&at)
            .fails()
    };
    assert!(other("entities", "--new-head").contains("--new-head"));
    assert!(other("language_model", "train --attention standard --cores 2").contains("--cores"));
    // Whatever is wrong with a run is said before any text is prepared, of the last run of a comparison, too.
    for (flags, said) in [
        ("--window 100000", "window"),
        (
            "--attention standard --reference-unmasked",
            "reference_unmasked",
        ),
        ("--cutoffs 20 --label-smoothing 0.1", "--label-smoothing"),
        ("--limit 5", "--max-steps"),
        ("--sweep attention=block-term,standard --cores 2", "--cores"),
    ] {
        let error = other("language_model", &format!("train {flags} --data ./nowhere"));
        assert!(error.contains(said), "{flags}: {error}");
    }
    let pretrain = |flags: &str| other("pretrain", &format!("{flags} --data ./nowhere"));
    assert!(pretrain("--mask-share 0").contains("--mask-share"));
    let width = pretrain("--width 250");
    assert!(width.contains("250"), "{width}");
    let translate = other(
        "translate",
        "train --data ./nowhere --subwords . --vocabulary 9",
    );
    assert!(translate.contains("--vocabulary"), "{translate}");
    let single = other("imagenet", "--synthetic --batch-size 16 --limit 33");
    assert!(single.contains("a single image"), "{single}");
    let brings = other("pretrain", "--model ./nowhere --vocabulary 2000");
    assert!(brings.contains("brings its own"), "{brings}");
    let cifar = |flags: &str| other("cifar", flags);
    assert!(cifar("--synthetic --data /nonexistent").contains("--data"));
    assert!(cifar("--synthetic --hessian-first-epochs 2").contains("--hessian-first"));
    assert!(cifar("--synthetic --shortcut q").contains("--shortcut"));
    assert!(cifar("--synthetic --sweep model=resnet20,resnet21").contains("6 n + 2"));
    let clicks = |flags: &str| other("criteo", &format!("train --synthetic 100 {flags}"));
    assert!(clicks("--table-optimizer adam").contains("adagrad-rows"));
    assert!(clicks("--eval-on tests").contains("last-day"));
    assert!(clicks("--keep models").contains("--keep models"));
    assert!(cifar("--synthetic --width 100000").contains("number of parameters"));
}

/// What a program is for stands in front of its flags.
#[test]
fn help_says_what_a_program_is_for() {
    for (name, arguments, said) in [
        ("glue", "--help", "Fine-tune a BERT"),
        ("cifar", "--help", "Train residual networks"),
        ("criteo", "train --help", "Train DLRM"),
        ("translate", "train --help", "Train"),
        ("language_model", "train --help", "Train"),
        ("pretrain", "--help", "Train a SqueezeBERT"),
        ("entities", "--help", "Find names"),
        ("predict", "--help", "Classify texts"),
        ("classify", "--help", "Sort pictures"),
    ] {
        let help = Program::new(name, arguments).succeeds();
        let first = help.lines().next().unwrap_or_default();
        assert!(first.contains(said), "{name}: {first}");
    }
}

#[test]
fn values_that_are_lists_are_swept() {
    let out = folder();
    let plan = glue("--dry-run --optimizer adahessian --sweep betas=0.9,0.98;0.8,0.9 --out")
        .path(&out.path().join("x"))
        .succeeds();
    assert!(plan.starts_with("# 2 runs\n"), "{plan}");
    assert_eq!(lines(&plan, "betas = \"0.8,0.9\""), 1, "{plan}");
}

/// Without a model the program compares two optimizers, with two seeds.
#[test]
fn a_model_that_is_swept_has_the_defaults_of_one_that_is_named() {
    let out = folder();
    let runs = |flags: &str, count: usize| {
        let plan = glue(&format!("--dry-run --task sst2 {flags} --out"));
        let plan = plan.path(&out.path().join("x")).succeeds();
        assert!(plan.starts_with(&format!("# {count} runs\n")), "{plan}");
    };
    runs("", 4);
    runs("--model mini", 1);
    runs("--sweep model=mini,./elsewhere", 2);
}

/// Of a run's model: lines of a file with its answers in front, and GLUE's rows in the form of its server.
#[test]
fn a_model_answers() {
    let out = folder();
    let run = out.path().join("run");
    glue(&format!("{SMALL} --out")).path(&run).succeeds();
    let texts = out.path().join("texts.txt");
    write(&texts, "a warm and funny film\nit is dull\ttwice\n\n");
    let said = Program::new("predict", "")
        .path(&run)
        .path(&texts)
        .succeeds();
    let said: Vec<Vec<&str>> = said
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    assert_eq!(said.len(), 3);
    assert_eq!(said[0][2..], ["a warm and funny film"]);
    assert_eq!(said[1][2..], ["it is dull", "twice"]);
    for line in &said {
        assert!(["negative", "positive"].contains(&line[0]), "{line:?}");
        let probability: f64 = line[1].parse().unwrap();
        assert!((0.5..=1.0).contains(&probability), "{line:?}");
    }
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/glue");
    let answer = out.path().join("SST-2.tsv");
    let task = |task: &str| {
        let flags = format!("--set validation --data {data} --task {task} --out");
        Program::new("predict", &flags).path(&answer).path(&run)
    };
    let error = task("rte").fails();
    assert!(error.contains("fine-tuned for something else"), "{error}");
    assert!(!answer.exists());
    task("sst2").succeeds();
    let rows = fs::read_to_string(&answer).unwrap();
    let mut rows = rows.lines();
    assert_eq!(rows.next(), Some("index\tprediction"));
    for (index, row) in rows.enumerate() {
        let (at, class) = row.split_once('\t').unwrap();
        assert!(
            at == index.to_string() && ["0", "1"].contains(&class),
            "{row}"
        );
    }
    assert!(task("sst2").fails().contains("is there already"));
    // What comes before a line that is no text has its answers.
    let cut_off = out.path().join("cut-off.txt");
    fs::write(
        &cut_off,
        b"a warm and funny film\nit is dull\nna\xefve\nwell\n",
    )
    .unwrap();
    let answers = out.path().join("answers.tsv");
    let into = Program::new("predict", "--out").path(&answers).path(&run);
    let error = into.path(&cut_off).fails();
    assert!(error.contains("line 3"), "{error}");
    assert_eq!(fs::read_to_string(&answers).unwrap().lines().count(), 2);
    let error = Program::new("predict", "")
        .path(&run)
        .path(&cut_off)
        .fails();
    assert!(error.contains("line 3"), "{error}");
    // Nor are those before one that is too long for the tokenizer lost.
    let long = out.path().join("long.txt");
    write(
        &long,
        &format!("dull\nwarm\n{}\nfunny\n", "a ".repeat(1 << 20)),
    );
    fs::remove_file(&answers).unwrap();
    let into = Program::new("predict", "--out").path(&answers).path(&run);
    let error = into.path(&long).fails();
    assert!(error.contains("line 3"), "{error}");
    assert_eq!(fs::read_to_string(&answers).unwrap().lines().count(), 2);
    // What cannot be written shows before the model answers.
    let nowhere = Program::new("predict", "--out")
        .path(&out.path().join("nowhere/x.tsv"))
        .path(&run);
    let error = nowhere.path(&texts).fails();
    assert!(error.contains("cannot be written"), "{error}");
    // A comparison's folder has no model of its own.
    let all = out.path().join("all");
    fs::create_dir(&all).unwrap();
    fs::rename(&run, all.join("sst2-seed0")).unwrap();
    let error = Program::new("predict", "").path(&all).path(&texts).fails();
    assert!(error.contains("sst2-seed0 is one"), "{error}");
}

/// A full disk is an error, and a reader who has gone is none.
#[cfg(target_os = "linux")]
#[test]
fn answers_that_nobody_gets() {
    let out = folder();
    let run = out.path().join("run");
    glue(&format!("{SMALL} --max-steps 1 --out"))
        .path(&run)
        .succeeds();
    let texts = out.path().join("texts.txt");
    write(&texts, &"a warm and funny film\n".repeat(20_000));
    let predict = Program::new("predict", "").path(&run).path(&texts);
    let few = out.path().join("few.txt");
    write(&few, "a warm and funny film\n");
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = Program::new("predict", "").path(&run).path(&few).command();
    let status = command
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&status.stderr).into_owned();
    assert!(
        !status.status.success() && error.contains("space"),
        "{error}"
    );
    let mut command = predict.command();
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success() && error.is_empty(), "{error}");
    // An error that cannot be said is one all the same.
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = glue("--resume").path(&out.path().join("nothing")).command();
    let status = command.stderr(full).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn a_file_of_settings_is_checked_like_flags_and_flags_go_before_it() {
    let out = folder();
    let file = out.path().join("settings.toml");
    let refused = |text: &str, said: &[&str]| {
        write(&file, text);
        let error = glue("--dry-run --config").path(&file).fails();
        for said in said.iter().chain(&["settings.toml"]) {
            assert!(error.contains(said), "{text}: {error}");
        }
    };
    refused("lrr = 0.1\n", &["--lrr"]);
    refused("lr = \"fast\"\n", &["--lr"]);
    refused("batch_size = 0\n", &["--batch-size"]);
    refused("out = \"here\"\n", &["out"]);
    refused("lr = \n", &["line 1"]);
    // Settings that are written down only where they are not the default.
    write(&file, "keep = \"models\"\nunseen = \"divide\"\n");
    let plan = |flags: &str| {
        glue(&format!(
            "--dry-run --optimizer adahessian {flags} --config"
        ))
        .path(&file)
        .succeeds()
    };
    assert_eq!(lines(&plan(""), "keep = \"models\""), 1);
    let plan = plan("--keep all --unseen auto");
    assert!(
        !plan.contains("keep =") && !plan.contains("unseen ="),
        "{plan}"
    );
    write(
        &file,
        "lr = 0.25\nweight_decay = 1\nsweep = [\"epochs=1,2\"]\n",
    );
    let plan = glue("--dry-run --lr 0.5 --optimizer sgd --config")
        .path(&file)
        .succeeds();
    assert!(plan.starts_with("# 2 runs\n"), "{plan}");
    assert_eq!(lines(&plan, "lr = 0.5"), 2, "{plan}");
    assert_eq!(lines(&plan, "weight_decay = 1.0"), 2, "{plan}");
    assert_eq!(
        (lines(&plan, "epochs = 1"), lines(&plan, "epochs = 2")),
        (1, 1)
    );
}

#[test]
fn a_run_killed_before_its_first_checkpoint_begins_again() {
    let out = folder();
    let (reference, run) = (out.path().join("whole"), out.path().join("run"));
    whole(&reference);
    // What it leaves that was killed early.
    fs::create_dir_all(run.join("checkpoint/.step-00000002.partial")).unwrap();
    fs::copy(reference.join("config.toml"), run.join("config.toml")).unwrap();
    write(&run.join(".curves.svg.partial"), "<svg");
    write(&run.join("metrics.jsonl"), "{\"kind\":\"st");
    write(&run.join("checkpoint/mine.txt"), "of somebody else");
    glue("--resume").path(&run).succeeds();
    assert_eq!(bits(&run), bits(&reference));
    assert!(run.join("checkpoint/mine.txt").exists());
    // The same command again instead of --resume.
    for left in [".config.toml.partial", "config.toml", ".lock"] {
        let again = out.path().join(format!("again-{left}"));
        fs::create_dir_all(&again).unwrap();
        fs::copy(reference.join("config.toml"), again.join(left)).unwrap();
        whole(&again);
        assert_eq!(bits(&again), bits(&reference));
    }
    let nothing = out.path().join("nothing");
    fs::create_dir(&nothing).unwrap();
    let error = glue("--resume").path(&nothing).fails();
    assert!(error.contains("nothing was begun here"), "{error}");
}

#[test]
fn a_run_goes_on_with_the_settings_it_was_begun_with_or_not_at_all() {
    let out = folder();
    let (reference, run) = (out.path().join("whole"), out.path().join("run"));
    whole(&reference);
    glue(&format!("{SMALL} {OFTEN} --max-steps 6 --out"))
        .path(&run)
        .succeeds();
    let config = fs::read_to_string(run.join("config.toml")).unwrap();
    for damaged in [
        config.replace("lr = 0.002", "lr = 0.15"),
        String::new(),
        "lr = 0.1\n".into(),
    ] {
        assert_ne!(damaged, config);
        write(&run.join("config.toml"), &damaged);
        let error = glue("--resume").path(&run).fails();
        assert!(error.contains("checksum"), "{error}");
    }
    write(&run.join("config.toml"), &config);
    for flag in [
        "--limit 40",
        "--lr 0.1",
        "--seed 3",
        "--optimizer sgd",
        "--sweep lr=1,2",
        "--task qnli",
    ] {
        let error = glue(&format!("{flag} --resume")).path(&run).fails();
        let name = flag.split(' ').next().unwrap();
        assert!(
            error.contains(name) && error.contains("begin another"),
            "{error}"
        );
    }
    // How often it logs, and how long it goes on, does not change its steps.
    glue("--max-steps 12 --log-every 3 --resume")
        .path(&run)
        .succeeds();
    let resumed = fs::read_to_string(run.join("config.toml")).unwrap();
    assert!(resumed.contains("max_steps = 12") && resumed.contains("log_every = 3"));
    // What was done cannot be undone, and the attempt leaves no trace.
    let error = glue("--max-steps 4 --resume").path(&run).fails();
    assert!(error.contains("taken 12 steps"), "{error}");
    let config = fs::read_to_string(run.join("config.toml")).unwrap();
    assert!(config == resumed && run.join("summary.json").is_file());
}

#[test]
fn the_best_checkpoint_serves_where_no_other_is_left() {
    let out = folder();
    let run = out.path().join("run");
    glue(&format!("{SMALL} --eval-every 2 --out"))
        .path(&run)
        .succeeds();
    let expected = bits(&run);
    for entry in fs::read_dir(run.join("checkpoint")).unwrap() {
        let path = entry.unwrap().path();
        if path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("step-")
        {
            fs::remove_dir_all(path).unwrap();
        }
    }
    fs::remove_file(run.join("summary.json")).unwrap();
    glue("--resume").path(&run).succeeds();
    assert_eq!(bits(&run), expected);
}

#[test]
fn a_start_that_failed_leaves_the_folder_free() {
    let out = folder();
    let run = out.path().join("run");
    let error = glue("--task rte --out").path(&run).fails();
    assert!(error.contains("--data DIR"), "{error}");
    whole(&run);
    let error = glue(&format!("{SMALL} --out")).path(&run).fails();
    assert!(error.contains("holds a run already"), "{error}");
    let others = out.path().join("others");
    fs::create_dir(&others).unwrap();
    write(&others.join("thesis.tex"), "\\begin{document}");
    let error = glue(&format!("{SMALL} --out")).path(&others).fails();
    assert!(error.contains("holds no run"), "{error}");
    assert_eq!(fs::read_dir(&others).unwrap().count(), 1);
}

/// Waits until it is so.
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < Duration::from_secs(120), "not {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_second_run_in_a_folder_is_refused_and_an_interrupted_one_goes_on_to_the_same_bits() {
    let out = folder();
    let (reference, run) = (out.path().join("whole"), out.path().join("run"));
    let long = "--task sst2 --limit 400 --limit-eval 16 --max-length 16 --epochs 4 --batch-size 8 --optimizer sgd --checkpoint-every 1";
    let mut first = glue(&format!("{long} --out")).path(&run).command();
    let mut child = first
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("begun", || run.join("checkpoint").is_dir());
    let named = format!("process {}", child.id());
    let error = glue(&format!("{long} --out")).path(&run).fails();
    // Until its first checkpoint the folder is a process's, then a run's.
    assert!(
        error.contains(&named) || error.contains("holds a run"),
        "{error}"
    );
    let error = glue("--resume").path(&run).fails();
    assert!(error.contains(&named), "{error}");
    // As `timeout` and batch systems end a process: by itself, and with its group.
    for _ in 0..3 {
        // SAFETY: the child is ours and has not been waited for.
        unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
        std::thread::sleep(Duration::from_millis(2));
    }
    let ended = child.wait().unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut said).unwrap();
    assert_eq!(ended.code(), Some(130), "{said}");
    assert!(said.contains("--resume"), "{said}");
    assert!(!run.join("model").exists());
    glue("--resume").path(&run).succeeds();
    glue(&format!("{long} --out")).path(&reference).succeeds();
    assert_eq!(bits(&run), bits(&reference));
}

/// A path that is no Unicode ends no run at its end.
#[cfg(target_os = "linux")]
#[test]
fn a_folder_may_have_any_name() {
    use std::os::unix::ffi::OsStrExt;
    let out = folder();
    let run = out.path().join(std::ffi::OsStr::from_bytes(b"r\xff"));
    let mut command = glue(&format!("{SMALL} --max-steps 1 --out")).command();
    let ended = command.arg(&run).output().unwrap();
    let error = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{error}");
    assert!(run.join("report.html").is_file());
}

/// A run's settings are all written down; of its optimizer's those alone are said that it reads.
#[test]
fn the_command_of_a_run_that_was_gone_on_with_is_one() {
    let out = folder();
    let run = out.path().join("run");
    glue(&format!("{SMALL} --max-steps 1 --out"))
        .path(&run)
        .succeeds();
    glue("--max-steps 2 --resume").path(&run).succeeds();
    let report = fs::read_to_string(run.join("report.html")).unwrap();
    let begin = report.find("<pre>").unwrap() + "<pre>".len();
    let length = report[begin..].find("</pre>").unwrap();
    let command = report[begin..begin + length]
        .replace("&#39;", "'")
        .replace("&quot;", "\"");
    assert!(
        command.contains("--max-steps=2") && !command.contains("--resume"),
        "{command}"
    );
    let planned = Command::new("bash")
        .args(["-c", &format!("{command} --dry-run")])
        .output();
    let planned = planned.unwrap();
    let error = String::from_utf8_lossy(&planned.stderr).into_owned();
    assert!(planned.status.success(), "{command}: {error}");
    assert!(String::from_utf8_lossy(&planned.stdout).contains("max_steps = 2\n"));
}

/// Ctrl-C during the last evaluation comes too late to leave anything undone.
#[test]
fn a_run_that_comes_to_its_end_was_not_stopped() {
    let out = folder();
    let run = out.path().join("run");
    let flags = "--task sst2 --limit 16 --limit-eval 400 --max-length 16 --epochs 1 --batch-size 8 --optimizer sgd --out";
    let mut command = glue(flags).path(&run).command();
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("at its last step", || {
        let metrics = fs::read_to_string(run.join("metrics.jsonl"));
        metrics.is_ok_and(|text| text.contains("\"step\":2,"))
    });
    // SAFETY: the child is ours and has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert_eq!(ended.status.code(), Some(0), "{said}");
    assert!(!said.contains("stopped"), "{said}");
    let again = glue("--resume").path(&run).succeeds();
    assert!(again.contains("finished already"), "{again}");
}

/// What `nohup` does before it becomes the program.
#[test]
fn a_run_outlives_its_terminal_where_that_was_asked_for() {
    let out = folder();
    let run = out.path().join("run");
    let program = glue(&format!("{SMALL} {OFTEN} --out")).path(&run).command();
    let mut shell = Command::new("bash");
    shell.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]);
    shell.arg(program.get_program()).args(program.get_args());
    let child = shell
        .env("HF_HUB_OFFLINE", "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("begun", || run.join("checkpoint").is_dir());
    // SAFETY: the child is ours and has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGHUP) };
    let ended = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(0), "{error}");
    assert!(run.join("checkpoint/step-00000012").is_dir());
}

#[test]
fn a_full_disk_stops_the_run_and_leaves_the_last_checkpoint() {
    let out = folder();
    let (reference, run) = (out.path().join("whole"), out.path().join("run"));
    whole(&reference);
    glue(&format!("{SMALL} {OFTEN} --max-steps 4 --out"))
        .path(&run)
        .succeeds();
    // Files end at 64 KiB, as they would on a full disk: no checkpoint can be written.
    let program = glue("--max-steps 12 --resume").path(&run);
    let error = program.limited(64).fails();
    assert!(
        error.contains("checkpoint") && error.contains(&run.display().to_string()),
        "{error}"
    );
    let left = fs::read_dir(run.join("checkpoint")).unwrap();
    let left: Vec<String> = left
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert!(left.iter().any(|name| name == "step-00000004"), "{left:?}");
    // The shorter run was complete, and the longer one is not.
    let said = glue("--resume").path(&run).succeeds();
    assert!(!said.contains("finished already"), "{said}");
    assert!(run.join("checkpoint/step-00000012").is_dir(), "{said}");
    let left = fs::read_dir(run.join("checkpoint")).unwrap();
    assert!(left.into_iter().all(|e| {
        !e.unwrap()
            .file_name()
            .to_string_lossy()
            .ends_with(".partial")
    }));
}

#[test]
fn a_comparison_has_its_cells_its_table_and_its_report() {
    let out = folder();
    let at = out.path().join("grid");
    let flags = "--task sst2 --limit 32 --limit-eval 16 --max-length 16 --epochs 1 --batch-size 8 --optimizer sgd,adamw --seed 0,1 \
                 --sweep lr=0.001,0.01";
    let said = glue(&format!("{flags} --out")).path(&at).succeeds();
    assert!(said.contains("report: "), "{said}");
    for cell in ["sst2-sgd-lr0.001-seed0", "sst2-adamw-lr0.01-seed1"] {
        for file in [
            "config.toml",
            "metrics.jsonl",
            "curves.svg",
            "summary.json",
            "model/config.json",
        ] {
            assert!(at.join(cell).join(file).is_file(), "{cell}/{file}");
        }
    }
    let results = fs::read_to_string(at.join("results.json")).unwrap();
    let rows: serde_json::Value = serde_json::from_str(&results).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 4);
    assert!(
        rows[0]["last"]["accuracy"]["deviation"].is_number(),
        "{results}"
    );
    let report = fs::read_to_string(at.join("report.html")).unwrap();
    assert!(
        report.contains("<svg") && report.contains("sgd") && !report.contains("http://"),
        "{said}"
    );

    // One cell is lost: it alone is made again, to the same bits.
    let cell = at.join("sst2-adamw-lr0.001-seed1");
    let expected = bits(&cell);
    fs::remove_dir_all(&cell).unwrap();
    let said = glue("--resume").path(&at).succeeds();
    assert!(said.contains("7 of 8 runs are finished already"), "{said}");
    assert_eq!(bits(&cell), expected);
    let error = glue(&format!("{flags} --out")).path(&at).fails();
    assert!(error.contains("holds a run"), "{error}");

    // One cannot be read any more: it is named, and the others are shown.
    fs::remove_file(cell.join("metrics.jsonl")).unwrap();
    let error = glue("--resume").path(&at).fails();
    assert!(
        error.contains("cannot be shown") && error.contains("1 of 8 runs failed"),
        "{error}"
    );
    let results = fs::read_to_string(at.join("results.json")).unwrap();
    assert_eq!(results.matches("\"runs\": 2").count(), 3, "{results}");
    assert_eq!(results.matches("\"runs\": 1").count(), 1, "{results}");
    let report = fs::read_to_string(at.join("report.html")).unwrap();
    assert!(report.contains("cannot be shown") && report.contains("7 of 8 runs"));
    // What was gone on with says how it is made, not how it was gone on with.
    for word in ["--task=sst2", "--sweep=lr=", "--out"] {
        assert!(report.contains(word), "{word}: {report}");
    }
    assert!(!report.contains("glue --resume"), "{report}");
}
