//! What a run and a comparison may be gone on with, and what nobody may lose by it.

use crate::program::{Program, folder, write};
use std::fs;
use std::path::Path;

const SMALL: &str = "--task sst2 --limit 16 --limit-eval 8 --max-length 12 --batch-size 8";

fn glue(arguments: &str, at: &Path) -> Program {
    Program::new("glue", &format!("{SMALL} {arguments} --out")).path(at)
}

fn resumed(name: &'static str, arguments: &str, at: &Path) -> Program {
    Program::new(name, &format!("{arguments} --resume")).path(at)
}

fn epochs(run: &Path) -> usize {
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    metrics
        .lines()
        .filter(|line| line.contains("\"evaluation\""))
        .count()
}

/// Pictures in CIFAR-10's binary files: a label and 3,072 bytes each.
fn pictures(folder: &Path) {
    let records = |count: usize| -> Vec<u8> {
        let record = |i: usize| {
            let mut bytes = vec![(i * 37 % 251) as u8; 3073];
            bytes[0] = (i % 10) as u8;
            bytes
        };
        (0..count).flat_map(record).collect()
    };
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("data_batch_1.bin"), records(20)).unwrap();
    fs::write(folder.join("test_batch.bin"), records(10)).unwrap();
}

/// Its configuration names the folder of the images beside two flags that would exclude it.
#[test]
fn a_run_on_real_pictures_goes_on() {
    let out = folder();
    let (data, run) = (out.path().join("data"), out.path().join("run"));
    pictures(&data);
    let cifar = "--model resnet8 --epochs 2 --batch-size 10 --optimizer sgd --data";
    Program::new("cifar", &format!("--max-steps 2 {cifar}"))
        .path(&data)
        .argument("--out")
        .path(&run)
        .succeeds();
    let text = resumed("cifar", "--max-steps 4", &run).succeeds();
    assert!(text.contains("goes on to another length"), "{text}");
    assert_eq!(epochs(&run), 2);
    // The same pictures elsewhere, and the schedule named as it was; other pictures there.
    let moved = out.path().join("moved");
    fs::rename(&data, &moved).unwrap();
    let on = |arguments: &str| {
        let run = resumed("cifar", arguments, &run);
        run.argument("--data").path(&moved)
    };
    let text = on("--max-steps 4 --schedule step").succeeds();
    assert!(text.contains("finished already"), "{text}");
    let file = moved.join("data_batch_1.bin");
    let mut bytes = fs::read(&file).unwrap();
    bytes[1000] ^= 1;
    fs::write(&file, bytes).unwrap();
    let error = on("--epochs 3 --max-steps 6").fails();
    assert!(error.contains("has changed since"), "{error}");
    let error = resumed("cifar", "--schedule constant", &run).fails();
    assert!(error.contains("it was"), "{error}");
    pictures(&data);
    let error = Program::new("cifar", &format!("--synthetic {cifar}"))
        .path(&data)
        .fails();
    assert!(error.contains("--data, --hub, --synthetic"), "{error}");
}

/// What is left of a comparison is made as its other runs were, on the same data, or not at all.
#[test]
fn a_comparison_does_not_mix_what_cannot_be_compared() {
    let out = folder();
    let (data, several) = (out.path().join("data"), out.path().join("several"));
    pictures(&data);
    let flags = "--model resnet8 --max-steps 2 --epochs 1 --batch-size 10 --lr 0.1";
    let cifar = |arguments: &str, at: &Path| {
        let program = Program::new("cifar", &format!("{flags} {arguments} --data"));
        program.path(&data).argument("--out").path(at)
    };
    cifar("--optimizer sgd --seed 0,1", &several).succeeds();
    let runs = ["0", "1"].map(|seed| several.join(format!("sgd-seed{seed}")));
    // Other pictures, in the place of those that the first run saw.
    fs::remove_dir_all(&runs[1]).unwrap();
    let file = data.join("data_batch_1.bin");
    let whole = fs::read(&file).unwrap();
    let mut bytes = whole.clone();
    bytes[1000] ^= 1;
    fs::write(&file, bytes).unwrap();
    let error = resumed("cifar", "", &several).fails();
    let named = runs[0].display().to_string();
    assert!(
        error.contains("are not those that") && error.contains(&named),
        "{error}"
    );
    fs::write(&file, whole).unwrap();
    // A complete run of other settings in its place.
    fs::remove_dir_all(&runs[0]).unwrap();
    cifar("--optimizer sgd --seed 0 --weight-decay 0.3", &runs[0]).succeeds();
    let error = resumed("cifar", "", &several).fails();
    assert!(error.contains("made with weight_decay = 0.3"), "{error}");
    // Elsewhere in the folder it is announced and left alone.
    fs::rename(&runs[0], several.join("older")).unwrap();
    let text = resumed("cifar", "", &several).succeeds();
    assert!(!text.contains("finished already"), "{text}");
    assert!(
        text.contains("older: no run of what is asked for"),
        "{text}"
    );
    // Data that are compared are none that are mixed.
    let (moved, swept) = (out.path().join("moved"), out.path().join("swept"));
    pictures(&moved);
    fs::write(moved.join("test_batch.bin"), vec![3; 3073]).unwrap();
    let both = format!("data={},{}", data.display(), moved.display());
    Program::new(
        "cifar",
        &format!("{flags} --optimizer sgd --seed 0 --sweep {both} --out"),
    )
    .path(&swept)
    .succeeds();
}

#[test]
fn a_complete_run_goes_on_to_another_length_and_a_comparison_does_not() {
    let out = folder();
    let (run, several) = (out.path().join("run"), out.path().join("several"));
    glue("--optimizer sgd --epochs 1", &run).succeeds();
    let same = resumed("glue", "", &run).succeeds();
    assert!(
        same.contains("1 of 1 runs are finished already") && epochs(&run) == 1,
        "{same}"
    );
    resumed("glue", "--epochs 2", &run).succeeds();
    assert_eq!(epochs(&run), 2);
    // Back to a checkpoint before its end: not without a word.
    let mut checkpoints: Vec<_> = fs::read_dir(run.join("checkpoint"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    checkpoints.retain(|path| path.join("manifest").is_file());
    let error = resumed("glue", "", &checkpoints[0]).fails();
    assert!(error.contains("its end would be lost"), "{error}");
    let error = resumed("glue", "", &run)
        .argument("--out")
        .path(&several)
        .fails();
    assert!(error.contains("goes on in its own folder"), "{error}");

    let sweep = "--optimizer sgd --epochs 1 --sweep lr=0.01,0.1";
    glue(sweep, &several).succeeds();
    let error = resumed("glue", "--epochs 2", &several).fails();
    assert!(
        error.contains("all of a comparison have one length"),
        "{error}"
    );
    // The command that it was begun with, once more.
    let text = glue(sweep, &several).argument("--resume").succeeds();
    assert!(text.contains("2 of 2 runs are finished already"), "{text}");
    let error = resumed("glue", "--sweep lr=0.01,0.2", &several).fails();
    assert!(error.contains("runs are added to no comparison"), "{error}");
    let error = resumed("glue", "--halving", &several).fails();
    assert!(error.contains("--halving"), "{error}");
    // One of its runs by itself can be made longer, and is not compared with the others any more.
    let longer = several.join("sst2-sgd-lr0.01-seed0");
    resumed("glue", "--epochs 2", &longer).succeeds();
    let error = resumed("glue", "", &several).fails();
    assert!(
        error.contains("longer or shorter") && error.contains(&longer.display().to_string()),
        "{error}"
    );
}

#[test]
fn a_run_that_is_made_longer_leaves_figures_alone_where_that_is_asked_for() {
    let out = folder();
    let run = out.path().join("run");
    glue("--optimizer sgd --epochs 1", &run).succeeds();
    assert!(run.join("model").is_dir());
    resumed("glue", "--epochs 2 --keep figures", &run).succeeds();
    assert_eq!(epochs(&run), 2);
    for gone in ["checkpoint", "model", "model-best"] {
        assert!(!run.join(gone).exists(), "{gone}");
    }
}

#[test]
fn a_folder_that_holds_somebodys_model_or_settings_is_no_run() {
    let out = folder();
    let (one, two) = (out.path().join("one"), out.path().join("two"));
    fs::create_dir_all(one.join("model")).unwrap();
    write(&one.join("model/config.json"), "{}");
    fs::create_dir_all(&two).unwrap();
    write(
        &two.join("config.toml"),
        "optimizer = \"sgd\"\nepochs = 1\n",
    );
    let error = glue("--optimizer sgd", &one).fails();
    assert!(
        error.contains("choose another --out") && one.join("model/config.json").is_file(),
        "{error}"
    );
    let error = Program::new("glue", SMALL)
        .argument("--config")
        .path(&two.join("config.toml"))
        .argument("--out")
        .path(&two)
        .fails();
    assert!(error.contains("choose another --out"), "{error}");
    assert!(
        fs::read_to_string(two.join("config.toml"))
            .unwrap()
            .starts_with("optimizer")
    );
}

#[test]
fn lists_are_lists_wherever_they_stand() {
    let out = folder();
    let settings = out.path().join("settings.toml");
    write(
        &settings,
        "optimizer = [\"sgd\", \"adamw\"]\nseed = [0, 1]\n",
    );
    let plan = glue("--dry-run", &out.path().join("a"))
        .argument("--config")
        .path(&settings)
        .succeeds();
    assert!(plan.contains("# 4 runs"), "{plan}");
    let paths = glue(
        "--dry-run --optimizer sgd --sweep data=/Data/A,/Data/B",
        &out.path().join("b"),
    )
    .succeeds();
    assert!(paths.contains("data = \"/Data/A\""), "{paths}");
    for (flags, piece) in [
        (
            "--optimizer sgd --lr 0.5 --sweep lr=0.1,0.3",
            "leave one of the two out",
        ),
        ("--optimizer sgd --sweep threads=1,2", "no setting of a run"),
        (
            "--optimizer sgd --sweep data=a/b,a_b",
            "would have the folder",
        ),
        (
            "--optimizer sgd --epochs 3 --sweep lr=0.1,0.2 --halving",
            "no quarter",
        ),
    ] {
        let error = glue(flags, &out.path().join("c")).fails();
        assert!(error.contains(piece), "{flags}: {error}");
    }
}

/// A rate that no run survives is what the test looks for.
#[test]
fn a_range_test_that_runs_away_has_its_proposal_and_is_no_comparison() {
    let out = folder();
    let run = out.path().join("lr");
    let text = glue("--optimizer sgd,adamw --lr 1e8 --find-lr 60", &run).succeeds();
    assert!(
        text.contains("proposed") && run.join("find-lr.svg").is_file(),
        "{text}"
    );
    assert!(
        !run.join("report.html").exists(),
        "no winner of range tests"
    );
    let error = resumed("glue", "", &run).fails();
    assert!(error.contains("range test"), "{error}");
}

/// A store that is there is nobody's to replace.
#[test]
fn clicks_are_not_prepared_over_a_store_with_other_words() {
    let out = folder();
    let [text, store] = ["clicks.txt", "clicks.store"].map(|name| out.path().join(name));
    Program::new("criteo", "generate --rows 300")
        .path(&text)
        .succeeds();
    let prepare = || {
        Program::new("criteo", "prepare")
            .path(&text)
            .argument("--out")
            .path(&store)
    };
    prepare().succeeds();
    let before = fs::read(&store).unwrap();
    let error = prepare().argument("--like").path(&store).fails();
    assert!(error.contains("is there already"), "{error}");
    assert!(prepare().succeeds().contains("is there already"));
    assert_eq!(fs::read(&store).unwrap(), before);
}

/// Before the training, and not in its report.
#[test]
fn clicks_of_another_model_than_the_planted_one_are_refused() {
    let out = folder();
    let [text, store, run] =
        ["clicks.txt", "clicks.store", "run"].map(|name| out.path().join(name));
    Program::new("criteo", "generate --rows 2000 --seed 1")
        .path(&text)
        .succeeds();
    Program::new("criteo", "prepare")
        .path(&text)
        .argument("--out")
        .path(&store)
        .succeeds();
    let train = |planted: &str| {
        let flags = "train --bottom 8,4 --top 4 --max-steps 1 --planted";
        Program::new("criteo", flags)
            .argument(planted)
            .argument("--data")
            .path(&store)
            .argument("--out")
            .path(&run)
    };
    let error = train("7").fails();
    assert!(error.contains("--planted 7"), "{error}");
    assert!(!run.exists());
    let text = train("1").succeeds();
    assert!(text.contains("(the model that made them)"), "{text}");
}

/// A device that is not there is said, and not replaced by another.
#[test]
fn clicks_are_trained_on_the_device_that_was_asked_for() {
    let out = folder();
    let train = "train --synthetic 300 --bottom 16 --top 8 --max-steps 1 --device cuda:7 --out";
    let error = Program::new("criteo", train)
        .path(&out.path().join("run"))
        .fails();
    assert!(error.contains("cuda"), "{error}");
}

/// The last step's model, and that of the best evaluation where it was an earlier one.
#[test]
fn the_best_model_is_there_beside_the_last() {
    let out = folder();
    let run = out.path().join("run");
    // Evaluations that are all alike: the first one stays the best.
    let flags = "--optimizer adamw --lr-scale 1e-9 --epochs 2 --eval-every 1 --seed 0";
    glue(flags, &run).succeeds();
    let model = |name: &str| fs::read(run.join(name).join("model.safetensors")).unwrap();
    let best: Vec<_> = fs::read_dir(run.join("checkpoint"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("best-")
        })
        .collect();
    let kept = fs::read(best[0].join("model.safetensors")).unwrap();
    let tensors = |bytes: &[u8]| {
        let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
        let of =
            |(name, view): (String, safetensors::tensor::TensorView)| (name, view.data().to_vec());
        let all: std::collections::BTreeMap<_, _> = file.tensors().into_iter().map(of).collect();
        all
    };
    assert!(tensors(&model("model-best")) == tensors(&kept));
    assert!(tensors(&model("model-best")) != tensors(&model("model")));
    assert!(run.join("model-best/tokenizer.json").is_file());
    let card = |folder: &str| fs::read_to_string(run.join(folder).join("README.md")).unwrap();
    let (last, best) = (card("model"), card("model-best"));
    assert!(
        last != best && last.contains("text-classification"),
        "{last}"
    );
    assert!(!last.contains(out.path().to_str().unwrap()), "{last}");
    assert!(last.contains("Made by `glue --config FILE`"), "{last}");
    // It is a checkpoint like any other.
    Program::new("glue", SMALL)
        .argument("--model")
        .path(&run.join("model-best"))
        .argument("--data")
        .path(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/glue"))
        .argument("--max-steps")
        .argument("1")
        .argument("--out")
        .path(&out.path().join("on"))
        .succeeds();
}

/// Data may lie elsewhere when a run goes on, if it is the same.
#[test]
fn data_may_move_but_not_change() {
    let out = folder();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/conll");
    let copy = |name: &str| {
        let to = out.path().join(name);
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(&fixture).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
            }
        }
        to
    };
    let (first, second) = (copy("first"), copy("second"));
    let run = out.path().join("run");
    Program::new(
        "entities",
        "--max-steps 1 --epochs 2 --batch-size 2 --optimizer sgd --data",
    )
    .path(&first)
    .argument("--out")
    .path(&run)
    .succeeds();
    fs::remove_dir_all(&first).unwrap();
    let on = |steps: &str| {
        Program::new("entities", &format!("--max-steps {steps} --data"))
            .path(&second)
            .argument("--resume")
            .path(&run)
    };
    on("2").succeeds();
    let text = fs::read_to_string(second.join("eng.train")).unwrap();
    write(
        &second.join("eng.train"),
        &text.replacen(" I-ORG\n", " I-PER\n", 1),
    );
    let error = on("3").fails();
    assert!(error.contains("has changed since"), "{error}");
}

#[test]
fn steps_of_a_schedule_are_said_where_a_program_has_none() {
    let out = folder();
    let error = glue("--schedule step", &out.path().join("run")).fails();
    assert!(error.contains("step:0.1:0.5:0.75"), "{error}");
}
