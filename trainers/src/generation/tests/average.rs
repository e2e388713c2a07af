//! Means of checkpoints, and what has none.

use crate::checkpoint::Content;
use crate::generation::{average, average_newest};
use crate::{Error, Progress, Result, RunFolder};
use adahessian::{NamedVars, State};
use candle_core::{DType, Device, Tensor, Var};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

type Tensors = HashMap<String, Tensor>;

/// Variables of every kind, whose numbers grow with `step`.
fn tensors(step: u32) -> Result<Tensors> {
    let values = Tensor::arange(0f64, 6., &Device::Cpu)?.reshape((2, 3))?;
    let values = ((values + 0.1)? * f64::from(step * step))?;
    let of = |dtype: DType| values.to_dtype(dtype);
    Ok(HashMap::from([
        ("single".to_owned(), of(DType::F32)?),
        ("double".to_owned(), of(DType::F64)?),
        ("brain".to_owned(), of(DType::BF16)?),
        ("half".to_owned(), of(DType::F16)?),
        ("scalar".to_owned(), Tensor::new(step as f32, &Device::Cpu)?),
        (
            "empty".to_owned(),
            Tensor::zeros((0, 3), DType::F32, &Device::Cpu)?,
        ),
        ("count".to_owned(), Tensor::new(&[7u32, 8], &Device::Cpu)?),
    ]))
}

fn save(folder: &Path, name: &str, tensors: &Tensors) -> PathBuf {
    let path = folder.join(name);
    candle_core::safetensors::save(tensors, &path).unwrap();
    path
}

fn load(path: &Path) -> Tensors {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor.to_dtype(DType::F64).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn means_are_taken_in_double_precision_and_rounded_once() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let all = [tensors(1)?, tensors(2)?, tensors(4)?];
    let names = ["a", "b", "c"];
    let paths: Vec<_> = names
        .iter()
        .zip(&all)
        .map(|(n, t)| save(folder.path(), n, t))
        .collect();
    let to = folder.path().join("mean.safetensors");
    average(&paths, &to)?;
    let mean = load(&to);
    assert_eq!(mean.len(), all[0].len());
    for (name, first) in &all[0] {
        let own: Vec<_> = all.iter().map(|tensors| numbers(&tensors[name])).collect();
        let expected = (0..own[0].len()).map(|i| (own[0][i] + own[1][i] + own[2][i]) / 3.0);
        let expected = Tensor::from_iter(expected, &Device::Cpu)?.to_dtype(first.dtype())?;
        assert_eq!(mean[name].dtype(), first.dtype());
        assert_eq!(mean[name].dims(), first.dims());
        assert_eq!(numbers(&mean[name]), numbers(&expected), "{name}");
    }
    assert_eq!(numbers(&mean["scalar"]), [f64::from(7f32 / 3.0)]);
    // Of one file, and in the place of one that it is made of.
    average(&paths[1..2], &paths[2])?;
    assert_eq!(numbers(&load(&paths[2])["half"]), numbers(&all[1]["half"]));
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 4);
    Ok(())
}

#[test]
fn what_does_not_fit_is_named() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let first = save(folder.path(), "first", &tensors(1)?);
    let to = folder.path().join("mean");
    let refused = |tensors: &Tensors, parts: &[&str]| {
        let other = save(folder.path(), "other", tensors);
        let error = average(&[&first, &other], &to).unwrap_err();
        assert!(matches!(error, Error::Average { .. }), "{error}");
        for part in parts.iter().chain(&["other", "first"]) {
            assert!(error.to_string().contains(part), "{error}");
        }
        assert!(!to.exists());
    };
    let changed = |name: &str, tensor: Option<Tensor>| -> Result<Tensors> {
        let mut tensors = tensors(2)?;
        tensors.remove(name);
        tensors.extend(tensor.map(|tensor| (name.to_owned(), tensor)));
        Ok(tensors)
    };
    let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu);
    refused(&changed("half", None)?, &["`half`", "got no such tensor"]);
    refused(
        &changed("more", Some(zeros(&[1], DType::F32)?))?,
        &["`more`", "got one"],
    );
    let turned = zeros(&[3, 2], DType::F32)?;
    refused(
        &changed("single", Some(turned))?,
        &["`single`", "F32 [2, 3]", "F32 [3, 2]"],
    );
    let wider = zeros(&[2, 3], DType::F64)?;
    refused(
        &changed("single", Some(wider))?,
        &["F32 [2, 3]", "F64 [2, 3]"],
    );
    refused(
        &changed("count", Some(zeros(&[2], DType::U32)?))?,
        &["`count`", "no mean"],
    );

    fs::write(folder.path().join("rubbish"), b"no tensors").unwrap();
    let error = average(&[folder.path().join("rubbish")], &to).unwrap_err();
    assert!(matches!(error, Error::Average { .. }), "{error}");
    let error = average(&[folder.path().join("absent")], &to).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    let error = average::<PathBuf>(&[], &to).unwrap_err();
    assert!(matches!(error, Error::Setting { .. }), "{error}");
    Ok(())
}

#[test]
fn a_run_gives_its_last_checkpoints() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::create(folder.path().join("run"), "lr = 0.1\n")?;
    let checkpoints = run.checkpoints().keep(3);
    for step in 1..=4u64 {
        let var = Var::new(&[step as f32, 0.], &Device::Cpu)?;
        let content = Content {
            vars: &NamedVars::new([("w".to_owned(), var)])?,
            tables: &[],
            optimizer: &State::default(),
            progress: &Progress {
                step,
                ..Progress::default()
            },
            config: "lr = 0.1\n",
        };
        checkpoints.save(content)?;
    }
    let to = folder.path().join("mean.safetensors");
    for (count, expected) in [(1, 4.0), (2, 3.5), (3, 3.0)] {
        average_newest(&run, count, &to)?;
        assert_eq!(numbers(&load(&to)["w"]), [expected, 0.0]);
    }
    for count in [0, 4] {
        let error = average_newest(&run, count, &to).unwrap_err();
        assert!(matches!(error, Error::Setting { .. }), "{error}");
    }
    average(&[run.path()], &to)?;
    assert_eq!(numbers(&load(&to)["w"]), [4.0, 0.0]);
    // What stands beside the tensors of an exported model, its format, stays.
    let texts = std::collections::HashMap::from([("format".to_string(), "pt".to_string())]);
    let exported = folder.path().join("exported.safetensors");
    let tensors = load(&to);
    safetensors::serialize_to_file(&tensors, Some(texts.clone()), &exported).unwrap();
    average(&[&exported], &to)?;
    let bytes = fs::read(&to).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header.metadata(), &Some(texts));
    let error = average(&[tempfile::tempdir().unwrap().path()], &to).unwrap_err();
    assert!(matches!(error, Error::NoCheckpoint { .. }), "{error}");
    // A damaged one is found out.
    let model = checkpoints.list()?[2].join("model.safetensors");
    let mut bytes = fs::read(&model).unwrap();
    bytes
        .iter_mut()
        .last()
        .into_iter()
        .for_each(|byte| *byte ^= 1);
    fs::write(&model, bytes).unwrap();
    let error = average_newest(&run, 2, &to).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    Ok(())
}
