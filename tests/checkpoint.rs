//! Checkpoints: everything comes back, every damage is found and named, nothing is lost on the way.

use adahessian::sparse::{Precision, SparseTable};
use adahessian::{AdaHessian, AdamW, CurvatureInfo, NamedVars, Optim, Optimizer, Rule, State};
use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor, Var};
use std::fs;
use std::path::{Path, PathBuf};
use testing::assert_says;
use trainers::checkpoint::{Content, load};
use trainers::{Checkpoints, Error, Evaluated, LastCurvature, Progress, Scores};

/// A model of several dtypes, with a variable that no optimizer sees.
fn model(value: f64) -> Result<NamedVars> {
    let var = |shape: &[usize], dtype| -> Result<Var> {
        let tensor = (Tensor::ones(shape, DType::F64, &Device::Cpu)? * value)?;
        Ok(Var::from_tensor(&tensor.to_dtype(dtype)?)?)
    };
    Ok(NamedVars::new([
        ("dense.weight".to_string(), var(&[2, 3], DType::F32)?),
        ("dense.bias".to_string(), var(&[2], DType::F32)?),
        ("norm.running_mean".to_string(), var(&[2], DType::F64)?),
    ])?)
}

fn optimizer(vars: &NamedVars) -> Result<Optimizer<AdaHessian>> {
    let (trained, _) = vars.partition(|name| name.starts_with("dense"));
    Ok(AdaHessian::builder().lr(0.1).build(&trained)?)
}

/// One step on Σ w⁴ + Σ b⁴, so that the state is not zero.
fn one_step(vars: &NamedVars, optimizer: &mut Optimizer<AdaHessian>) -> Result<()> {
    let fourth = |name: &str| -> Result<Tensor> { Ok(vars.get(name)?.sqr()?.sqr()?.sum_all()?) };
    let loss = (fourth("dense.weight")? + fourth("dense.bias")?)?;
    optimizer.backward_step(&loss)?;
    Ok(())
}

fn progress(step: u64) -> Progress {
    Progress {
        step,
        epoch: 3,
        position: 17,
        best: Some(Evaluated {
            step: 9,
            scores: Scores::new("f1", 0.1 + 0.2).with("loss", 1.0 / 3.0),
        }),
        last: None,
        without_best: 2,
        on_plateau: 1,
        plateau_factor: 0.1f64.powi(3),
        skipped: 4,
        curvature: Some(LastCurvature {
            step: 7,
            info: CurvatureInfo {
                mean_abs: 1.0 / 3.0,
                max_abs: 1e300,
                below_eps: 0.125,
            },
        }),
        elapsed_seconds: 1_234.567_891_234_567_8,
    }
}

fn save(
    checkpoints: &Checkpoints,
    vars: &NamedVars,
    optimizer: &dyn Optim,
    step: u64,
) -> Result<PathBuf> {
    let (optimizer, progress) = (optimizer.state()?, progress(step));
    let content = Content {
        vars,
        tables: &[],
        optimizer: &optimizer,
        progress: &progress,
        config: "lr = 0.1\n",
    };
    Ok(checkpoints.save(content)?)
}

fn bits(vars: &NamedVars) -> Result<Vec<Vec<u64>>> {
    let values = vars.iter().map(|(_, v)| {
        v.as_tensor()
            .flatten_all()?
            .to_dtype(DType::F64)?
            .to_vec1::<f64>()
    });
    Ok(values
        .map(|v| Ok(v?.into_iter().map(f64::to_bits).collect()))
        .collect::<candle_core::Result<_>>()?)
}

/// Without the file of the folder's lock, which holds nothing and stays.
fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names: Vec<_> = fs::read_dir(folder)?
        .map(|e| Ok(e?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.retain(|name| name != ".lock");
    names.sort();
    Ok(names)
}

#[test]
fn everything_comes_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (vars, other) = (model(0.7)?, model(0.0)?);
    let mut opt = optimizer(&vars)?;
    one_step(&vars, &mut opt)?;
    let path = save(&Checkpoints::new(folder.path()), &vars, &opt, 120)?;
    assert_eq!(path, folder.path().join("step-00000120"));

    let loaded = load(&path)?;
    assert_eq!(loaded.progress, progress(120));
    assert_eq!(loaded.config, "lr = 0.1\n");
    let mut other_opt = optimizer(&other)?;
    loaded.restore(&other, &mut other_opt)?;
    assert_eq!(bits(&other)?, bits(&vars)?);
    // One more step on both, bit for bit.
    one_step(&vars, &mut opt)?;
    one_step(&other, &mut other_opt)?;
    assert_eq!(bits(&other)?, bits(&vars)?);
    // The model's file is a plain one.
    let plain = candle_core::safetensors::load(path.join("model.safetensors"), &Device::Cpu)?;
    assert_eq!(plain.len(), 3);
    assert_eq!(plain["norm.running_mean"].to_vec1::<f64>()?, [0.7, 0.7]);
    Ok(())
}

/// A table that the model has no more is not forgotten without a word.
#[test]
fn tables_of_another_model_are_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let table =
        |name: &str| SparseTable::from_fn(name, [3, 2], Precision::F32, |_, row| row.fill(1.0));
    let tables = [table("users")?, table("items")?];
    let vars = model(0.7)?;
    let (optimizer, progress) = (optimizer(&vars)?.state()?, progress(3));
    let path = Checkpoints::new(folder.path()).save(Content {
        vars: &vars,
        tables: &tables,
        optimizer: &optimizer,
        progress: &progress,
        config: "",
    })?;
    let loaded = load(&path)?;
    loaded.restore_tables(&tables)?;
    for (given, named) in [(&tables[..1], "`items`"), (&tables[1..], "`users`")] {
        assert_says(loaded.restore_tables(given), &[named, "no such table"]);
    }
    Ok(())
}

#[test]
fn the_newest_two_and_the_best_are_kept() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let runs = folder.path().join("checkpoint");
    let checkpoints = Checkpoints::new(&runs);
    assert_eq!(checkpoints.latest()?, None);
    let vars = model(1.0)?;
    let opt = optimizer(&vars)?;
    let best = |step| -> Result<PathBuf> {
        let (optimizer, progress) = (opt.state()?, progress(step));
        Ok(checkpoints.save_best(Content {
            vars: &vars,
            tables: &[],
            optimizer: &optimizer,
            progress: &progress,
            config: "",
        })?)
    };
    save(&checkpoints, &vars, &opt, 5)?;
    best(5)?;
    // What a killed process left behind.
    fs::create_dir(runs.join(".step-00000007.partial"))?;
    fs::write(
        runs.join(".step-00000007.partial/model.safetensors"),
        "half",
    )?;
    assert_eq!(checkpoints.list()?.len(), 1);
    for step in [10, 100_000_000, 20] {
        save(&checkpoints, &vars, &opt, step)?;
    }
    assert_eq!(
        names(&runs)?,
        ["best-00000005", "step-00000020", "step-100000000"]
    );
    assert_eq!(
        checkpoints.latest()?,
        Some(runs.join("step-100000000")),
        "by number, not by letters"
    );
    best(30)?;
    assert_eq!(checkpoints.best()?, Some(runs.join("best-00000030")));
    checkpoints.remove_after(20)?;
    assert_eq!(names(&runs)?, ["step-00000020"]);
    Ok(())
}

#[test]
fn a_second_save_of_a_step() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let checkpoints = Checkpoints::new(folder.path());
    let vars = model(1.0)?;
    let opt = optimizer(&vars)?;
    let path = save(&checkpoints, &vars, &opt, 1)?;
    let first = fs::read(path.join("manifest"))?;
    save(&checkpoints, &vars, &opt, 1)?;
    assert_eq!(
        fs::read(path.join("manifest"))?,
        first,
        "the same variables: it stays"
    );
    let (optimizer, evaluated) = (
        opt.state()?,
        Progress {
            last: progress(1).best,
            ..progress(1)
        },
    );
    checkpoints.save(Content {
        vars: &vars,
        tables: &[],
        optimizer: &optimizer,
        progress: &evaluated,
        config: "lr = 0.1\n",
    })?;
    assert_eq!(load(&path)?.progress, evaluated);
    vars.get("dense.bias")?
        .set(&Tensor::new(&[5f32, 6.], &Device::Cpu)?)?;
    save(&checkpoints, &vars, &opt, 1)?;
    assert_eq!(load(&path)?.model["dense.bias"].to_vec1::<f32>()?, [5., 6.]);
    fs::write(path.join("config.toml"), "damaged")?;
    save(&checkpoints, &vars, &opt, 1)?;
    assert_eq!(load(&path)?.config, "lr = 0.1\n");
    assert_eq!(names(folder.path())?, ["step-00000001"]);
    Ok(())
}

/// Two checkpoints; the newer one is there to be damaged.
struct Pair {
    _folder: tempfile::TempDir,
    older: PathBuf,
    newer: PathBuf,
}

fn pair() -> Result<Pair> {
    let folder = tempfile::tempdir()?;
    let checkpoints = Checkpoints::new(folder.path());
    let vars = model(0.3)?;
    let mut opt = optimizer(&vars)?;
    one_step(&vars, &mut opt)?;
    let older = save(&checkpoints, &vars, &opt, 1)?;
    let newer = save(&checkpoints, &vars, &opt, 2)?;
    Ok(Pair {
        _folder: folder,
        older,
        newer,
    })
}

/// Loading must fail, name the file, and offer the older checkpoint.
fn expect_damage(pair: &Pair, damaged: &str, what: &str) {
    match load(&pair.newer) {
        Err(Error::Corrupt {
            path,
            file,
            previous,
            reason,
        }) => {
            assert_eq!(
                (&path, file.as_str()),
                (&pair.newer, damaged),
                "{what}: {reason}"
            );
            assert_eq!(previous.as_ref(), Some(&pair.older), "{what}");
        }
        Err(other) => panic!("{damaged}, {what}: another error: {other}"),
        Ok(_) => panic!("{damaged}, {what}: not noticed"),
    }
}

const FILES: [&str; 4] = [
    "manifest",
    "config.toml",
    "model.safetensors",
    "optim.safetensors",
];

#[test]
fn a_cut_at_any_byte_is_found() -> Result<()> {
    let pair = pair()?;
    for file in FILES {
        let path = pair.newer.join(file);
        let whole = fs::read(&path)?;
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length])?;
            expect_damage(
                &pair,
                file,
                &format!("cut to {length} of {} bytes", whole.len()),
            );
        }
        fs::write(&path, [&whole[..], b"\n"].concat())?;
        expect_damage(&pair, file, "a byte more");
        fs::remove_file(&path)?;
        expect_damage(&pair, file, "missing");
        fs::write(&path, &whole)?;
    }
    load(&pair.newer)?;
    Ok(())
}

#[test]
fn a_flipped_bit_of_any_byte_is_found() -> Result<()> {
    let pair = pair()?;
    for file in FILES {
        let path = pair.newer.join(file);
        let whole = fs::read(&path)?;
        for index in 0..whole.len() {
            // Another bit for each byte; all bits of the manifest, whose own check is a text.
            let masks = if file == "manifest" {
                (0..8).collect()
            } else {
                vec![index % 8]
            };
            for bit in masks {
                let mut changed = whole.clone();
                changed[index] ^= 1 << bit;
                fs::write(&path, &changed)?;
                expect_damage(&pair, file, &format!("bit {bit} of byte {index}"));
            }
        }
        fs::write(&path, &whole)?;
    }
    load(&pair.newer)?;
    Ok(())
}

#[test]
fn errors_say_the_way_out() -> Result<()> {
    let pair = pair()?;
    fs::write(pair.newer.join("model.safetensors"), "x")?;
    let older = format!("--resume {}", pair.older.display());
    assert_says(
        load(&pair.newer),
        &["step-00000002", "model.safetensors", "got 1", &older],
    );
    // A damaged one is not offered.
    fs::remove_file(pair.older.join("manifest"))?;
    assert_says(
        load(&pair.newer),
        &["no other intact checkpoint", "start the run again"],
    );
    assert_says(
        load(Path::new("/nowhere/at/all")),
        &["/nowhere/at/all", "no such folder"],
    );
    Ok(())
}

#[test]
fn a_newer_format_is_refused_by_name() -> Result<()> {
    let pair = pair()?;
    let manifest = pair.newer.join("manifest");
    let text = fs::read_to_string(&manifest)?.replace("checkpoint 1", "checkpoint 2");
    let body = &text[..text.find("crc32 ").context("a last line")?];
    let crc = crc32(body.as_bytes());
    fs::write(&manifest, format!("{body}crc32 {crc:08x}\n"))?;
    assert_says(
        load(&pair.newer),
        &["manifest", "format version 2", "reads version 1"],
    );
    Ok(())
}

/// CRC-32 of ISO 3309, bit by bit: an oracle apart from the library's.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

#[test]
fn another_model_is_refused_before_anything_changes() -> Result<()> {
    let pair = pair()?;
    let loaded = load(&pair.newer)?;
    let list: Vec<_> = model(9.0)?
        .iter()
        .map(|(n, v)| (n.to_string(), v.clone()))
        .collect();
    let refused = |list: &[(String, Var)], pieces: &[&str]| -> Result<()> {
        let vars = NamedVars::new(list.to_vec())?;
        let mut opt = optimizer(&vars)?;
        let before = (bits(&vars)?, texts(&opt.state()?));
        assert_says(loaded.restore(&vars, &mut opt), pieces);
        assert_eq!((bits(&vars)?, texts(&opt.state()?)), before);
        Ok(())
    };
    // In the order of names: dense.bias, dense.weight, norm.running_mean.
    let with = |index: usize, var: Var| {
        let mut list = list.clone();
        list[index].1 = var;
        list
    };
    let other_shape = Var::zeros((3, 2), DType::F32, &Device::Cpu)?;
    refused(
        &with(1, other_shape),
        &["`dense.weight`", "[3, 2]", "[2, 3]"],
    )?;
    let other_dtype = Var::zeros(2, DType::F32, &Device::Cpu)?;
    refused(
        &with(2, other_dtype.clone()),
        &["`norm.running_mean`", "F32", "F64"],
    )?;
    let more = [&list[..], &[("extra".to_string(), other_dtype)]].concat();
    refused(&more, &["`extra`", "no such variable"])?;
    refused(&list[..2], &["`norm.running_mean`", "no such variable"])?;

    // The variables fit, the optimizer does not.
    let vars = model(9.0)?;
    let mut other = AdamW::default().lr(0.1).build(&vars)?;
    let before = bits(&vars)?;
    assert_says(loaded.restore(&vars, &mut other), &["kind", "adahessian"]);
    assert_eq!(bits(&vars)?, before);
    Ok(())
}

fn texts(state: &State) -> Vec<(String, String)> {
    let tensors = state
        .tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.to_string()));
    tensors.chain(state.meta.clone()).collect()
}
