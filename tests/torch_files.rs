//! `pytorch_model.bin`, as models on the Hub have it that were saved before there was safetensors.

use adahessian::ops::Mode;
use anyhow::Result;
use candle_core::{DType, Device};
use models::{SequenceClassifier, Start, auto};
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
    models::Model::save(&model, folder.path())?;
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
