//! `pytorch_model.bin`, as models on the Hub have it that were saved before there was safetensors.

use adahessian::ops::Mode;
use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use models::{Model, SequenceClassifier, Start, auto};
use std::fs;
use std::path::{Path, PathBuf};
use testing::{assert_close, assert_says, reference};

fn made() -> PathBuf {
    reference().join("huggingface/pytorch_bin")
}

fn open(folder: &Path) -> models::Result<SequenceClassifier> {
    Ok(auto::sequence_classifier(folder, None, &Start::default())?.0)
}

/// A copy with another file of weights.
fn with(bytes: &[u8]) -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    fs::copy(
        made().join("config.json"),
        folder.path().join("config.json"),
    )?;
    fs::write(folder.path().join("pytorch_model.bin"), bytes)?;
    Ok(folder)
}

/// With tensors of their own, and with two that are parts of one storage.
#[test]
fn a_model_of_pytorch_has_its_logits() -> Result<()> {
    let (model, report) = auto::sequence_classifier(&made(), None, &Start::default())?;
    assert_eq!((report.initialised.len(), report.unused.len()), (0, 0));
    let batch = candle_core::safetensors::load(made().join("batch.safetensors"), &Device::Cpu)?;
    let ids = batch["input_ids"].to_dtype(DType::U32)?;
    let mask = batch["attention_mask"].to_dtype(DType::U32)?;
    let logits = model.forward(&ids, None, Some(&mask), &Mode::Eval)?;
    assert_close("logits", &logits, &batch["logits"], 1e-5)?;
    // safetensors go before it.
    let folder = with(b"nothing")?;
    model.save(folder.path())?;
    open(folder.path())?;
    Ok(())
}

#[test]
fn what_is_no_such_file_is_an_error_with_its_name() -> Result<()> {
    let whole = fs::read(made().join("pytorch_model.bin"))?;
    let says = ["pytorch_model.bin", "safetensors"];
    for bytes in [
        &b""[..],
        b"PK",
        &whole[..whole.len() / 2],
        &whole[..whole.len() - 30],
    ] {
        assert_says(open(with(bytes)?.path()).map(drop), &says);
    }
    // What PyTorch wrote before 1.6 begins with the pickle of its magic number.
    let old = [&[0x80, 2, 0x8a, 10, 0x6c, 0xfc][..], &whole].concat();
    let outcome = open(with(&old)?.path()).map(drop);
    assert_says(outcome, &["pytorch_model.bin", "1.6", "save it again"]);
    // Whatever is changed in it: an error or numbers, and no panic. 13 kB, of which the pickle is in front.
    for at in (0..whole.len()).step_by(5) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        let _ = open(with(&bytes)?.path());
    }
    let empty = tempfile::tempdir()?;
    fs::copy(made().join("config.json"), empty.path().join("config.json"))?;
    assert_says(
        open(empty.path()).map(drop),
        &["model.safetensors", "pytorch_model.bin"],
    );
    Ok(())
}

/// A matrix of 12 rows and 8 columns.
const WIDE: &str = "bert.encoder.layer.0.intermediate.dense.weight";

/// The file with that matrix's numbers by columns, and with these strides.
fn by_columns(strides: [u8; 2]) -> Result<Vec<u8>> {
    let bytes = |weight: &Tensor| -> Result<Vec<u8>> {
        let numbers = weight.flatten_all()?.to_vec1::<f32>()?;
        Ok(numbers.iter().flat_map(|x| x.to_le_bytes()).collect())
    };
    let vars = open(&made())?.vars();
    let weight = vars.get(WIDE)?.as_tensor();
    let (rows, columns) = (bytes(weight)?, bytes(&weight.t()?.contiguous()?)?);
    let mut whole = fs::read(made().join("pytorch_model.bin"))?;
    put(&mut whole, &rows, &columns);
    // The pickle ends where its description in the archive begins.
    let start = places(&whole, &[0x80, 2])[0];
    let end = places(&whole, b"PK\x07\x08")[0];
    let pickle = whole[start..end].to_vec();
    let mut changed = pickle.clone();
    let name = places(&pickle, WIDE.as_bytes())[0];
    let by_rows = name + places(&pickle[name..], b"K\x08K\x01\x86")[0];
    (changed[by_rows + 1], changed[by_rows + 3]) = (strides[0], strides[1]);
    put(&mut whole, &pickle, &changed);
    Ok(whole)
}

/// Where some bytes are, at least once.
fn places(whole: &[u8], part: &[u8]) -> Vec<usize> {
    let all = 0..=whole.len() - part.len();
    let places: Vec<usize> = all.filter(|&i| whole[i..].starts_with(part)).collect();
    assert!(!places.is_empty(), "{part:?}");
    places
}

/// Puts bytes in the place of as many others, and so their checksums in the archive.
fn put(whole: &mut [u8], old: &[u8], new: &[u8]) {
    let checksum = |bytes: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        crc.sum().to_le_bytes()
    };
    let (before, after) = (checksum(old), checksum(new));
    for (old, new) in [(old, new), (&before[..], &after[..])] {
        for at in places(whole, old) {
            whole[at..at + new.len()].copy_from_slice(new);
        }
    }
}

/// As models have them that were converted from TensorFlow, where matrices are the transposed ones.
#[test]
fn a_matrix_that_lies_by_columns_is_read() -> Result<()> {
    let (expected, folder) = (open(&made())?, with(&by_columns([1, 12])?)?);
    let model = open(folder.path())?;
    for (name, var) in expected.vars().iter() {
        assert_close(name, model.vars().get(name)?, var, 0.0)?;
    }
    // A view in which numbers are twice.
    let folder = with(&by_columns([1, 8])?)?;
    assert_says(
        open(folder.path()).map(drop),
        &[WIDE, "a view of another", "safetensors"],
    );
    Ok(())
}
