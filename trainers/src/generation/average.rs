//! The mean of the variables of several checkpoints.

use crate::checkpoint::model_bytes;
use crate::disk::write_whole;
use crate::error::{Error, Result};
use crate::run_folder::{RunFolder, find_checkpoint};
use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{TensorView, View};
use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

/// Writes the mean of the variables of the last `count` checkpoints of a run; see [`average`].
///
/// A run keeps as many checkpoints as [`Checkpoints::keep`](crate::Checkpoints::keep) says, two by default.
///
/// # Errors
/// [`Error::Setting`] if `count` is 0 or the run has fewer checkpoints. Those of [`average`].
pub fn average_newest(run: &RunFolder, count: usize, to: &Path) -> Result<()> {
    let checkpoints = run.checkpoints();
    let published = checkpoints.list()?;
    if count == 0 || count > published.len() {
        return Err(Error::Setting {
            what: "number of checkpoints to average",
            expected: format!(
                "1 to {}, as many as {} holds (a run may keep more)",
                published.len(),
                checkpoints.folder().display()
            ),
            got: count.to_string(),
        });
    }
    average(&published[published.len() - count..], to)
}

/// Writes the mean of each variable over files of safetensors with the same names, shapes and number types, as
/// fairseq's `average_checkpoints.py` does: Polyak averaging of the last checkpoints (Vaswani et al., 2017).
///
/// A path is that of a file, of a checkpoint's folder, whose checksums are checked, or of a run's folder, which
/// means its newest checkpoint. Floating-point numbers are summed up in f64 and rounded once, to the variable's
/// own type. Others, counters say, have no mean; they
/// must be the same everywhere. Sparse tables are files of their own, which this does not read. The file is there
/// whole or not at all; one of that name is replaced.
///
/// # Errors
/// [`Error::Setting`] without a path. [`Error::Average`] naming the file and the tensor that is missing, is one
/// too many, or has another shape or number type. [`Error::Corrupt`] for a damaged checkpoint,
/// [`Error::NoCheckpoint`] for a folder without one. [`Error::Io`].
pub fn average<P: AsRef<Path>>(paths: &[P], to: &Path) -> Result<()> {
    let Some((first, others)) = paths.split_first() else {
        return Err(Error::Setting {
            what: "checkpoints to average",
            expected: "one at least".into(),
            got: "none".into(),
        });
    };
    let mut sums = Sums::of(first.as_ref())?;
    for path in others {
        sums.add(path.as_ref())?;
    }
    write_whole(to, &sums.mean(paths.len())?)
}

/// A variable's numbers, summed up.
struct Sum {
    dtype: Dtype,
    shape: Vec<usize>,
    values: Values,
}

enum Values {
    /// With the type that candle has for them.
    Floats(DType, Vec<f64>),
    /// Numbers of another kind, as they are in all files.
    Same(Vec<u8>),
}

struct Sums {
    first: PathBuf,
    variables: BTreeMap<String, Sum>,
    /// The first file's own: the format that transformers asks for, say.
    texts: Option<HashMap<String, String>>,
}

impl Sums {
    fn of(path: &Path) -> Result<Self> {
        let bytes = read(path)?;
        let file = parse(path, &bytes)?;
        let mut variables = BTreeMap::new();
        for (name, view) in file.iter() {
            let values = match float(view.dtype()) {
                Some(dtype) => Values::Floats(dtype, floats(&view, dtype)?),
                None => Values::Same(view.data().into()),
            };
            let sum = Sum {
                dtype: view.dtype(),
                shape: view.shape().into(),
                values,
            };
            variables.insert(name.to_owned(), sum);
        }
        Ok(Self {
            first: path.into(),
            variables,
            texts: texts(&bytes),
        })
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let bytes = read(path)?;
        let file = parse(path, &bytes)?;
        let first = self.first.display();
        let wrong = |name: &str, expected: String, got: String| {
            let expected = format!("{expected} as in {first}");
            Err(unfit(path, format!("tensor `{name}`"), expected, got))
        };
        let known = &self.variables;
        if let Some(extra) = file.names().into_iter().find(|n| !known.contains_key(*n)) {
            return wrong(extra, "no such tensor,".into(), "one".into());
        }
        for (name, sum) in &mut self.variables {
            let expected = || format!("{:?} {:?}", sum.dtype, sum.shape);
            let Ok(view) = file.tensor(name) else {
                return wrong(name, expected(), "no such tensor".into());
            };
            if view.dtype() != sum.dtype || view.shape() != sum.shape {
                let got = format!("{:?} {:?}", view.dtype(), view.shape());
                return wrong(name, expected(), got);
            }
            match &mut sum.values {
                Values::Floats(dtype, sums) => {
                    let values = floats(&view, *dtype)?;
                    sums.iter_mut()
                        .zip(values)
                        .for_each(|(s, value)| *s += value);
                }
                Values::Same(same) if same == view.data() => {}
                Values::Same(_) => {
                    let expected = format!("the same {:?} numbers", sum.dtype);
                    return wrong(name, expected, "others, which have no mean".into());
                }
            }
        }
        Ok(())
    }

    /// The file of the means.
    fn mean(self, count: usize) -> Result<Vec<u8>> {
        let mut means = Vec::new();
        for (name, sum) in self.variables {
            let bytes = match sum.values {
                Values::Floats(dtype, sums) => {
                    let means: Vec<f64> = sums.iter().map(|sum| sum / count as f64).collect();
                    let mean = Tensor::from_vec(means, sum.shape.as_slice(), &Device::Cpu)?;
                    mean.to_dtype(dtype)?.data().into_owned()
                }
                Values::Same(bytes) => bytes,
            };
            means.push((name, sum.dtype, sum.shape, bytes));
        }
        let refused = |e: safetensors::SafeTensorError| {
            let tensors = "tensors that a file can hold".into();
            unfit(&self.first, "means".into(), tensors, e.to_string())
        };
        let views = means.iter().map(|(name, dtype, shape, bytes)| {
            let view = TensorView::new(*dtype, shape.clone(), bytes).map_err(refused)?;
            Ok((name, view))
        });
        let views: Vec<(&String, TensorView)> = views.collect::<Result<_>>()?;
        safetensors::serialize(views, self.texts).map_err(refused)
    }
}

/// candle's number type for floating-point numbers.
fn float(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        Dtype::F32 => Some(DType::F32),
        Dtype::F64 => Some(DType::F64),
        _ => None,
    }
}

fn floats(view: &TensorView, dtype: DType) -> Result<Vec<f64>> {
    let tensor = Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)?;
    Ok(tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    match path.is_dir() {
        true => model_bytes(&find_checkpoint(path)?),
        false => fs::read(path).map_err(Error::io("cannot read", path)),
    }
}

fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>> {
    SafeTensors::deserialize(bytes).map_err(|e| {
        let expected = "tensors in the format of safetensors".into();
        unfit(path, "file".into(), expected, e.to_string())
    })
}

/// The texts beside the tensors.
fn texts(bytes: &[u8]) -> Option<HashMap<String, String>> {
    let (_, header) = SafeTensors::read_metadata(bytes).ok()?;
    header.metadata().clone()
}

fn unfit(path: &Path, what: String, expected: String, got: String) -> Error {
    Error::Average {
        path: path.into(),
        what,
        expected,
        got,
    }
}
