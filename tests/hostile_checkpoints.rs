//! Configurations and checkpoints made to exhaust memory: each is an error before anything is allocated.

use anyhow::Result;
use candle_core::{Device, Tensor};
use models::dlrm::{self, Dlrm};
use models::{
    Error, MaskedLanguageModel, Model, ResNet, SequenceClassifier, Start, auto, bert, resnet,
};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use testing::assert_says;

/// A saved tiny BERT with its config.json changed.
fn checkpoint(change: impl FnOnce(&mut Value)) -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    let architecture = bert::Config::tiny().architecture()?;
    SequenceClassifier::new(&architecture, 2, &Start::default())?.save(folder.path())?;
    let path = folder.path().join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    change(&mut config);
    fs::write(&path, config.to_string())?;
    Ok(folder)
}

fn open(folder: &Path) -> models::Result<SequenceClassifier> {
    Ok(auto::sequence_classifier(folder, None, &Start::default())?.0)
}

fn is_quick<T>(work: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let outcome = work();
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    outcome
}

#[test]
fn sizes_out_of_range_are_named() -> Result<()> {
    for (model_type, field, size) in [
        ("bert", "num_hidden_layers", 1_000_000_000u64),
        ("bert", "hidden_size", 1_000_000_000_000),
        ("bert", "intermediate_size", u64::MAX),
        ("bert", "vocab_size", 1 << 40),
        ("bert", "max_position_embeddings", 1 << 40),
        ("bert", "type_vocab_size", 1 << 40),
        ("squeezebert", "num_hidden_layers", 1_000_000_000),
        ("roberta", "num_hidden_layers", 1_000_000_000),
        ("roberta", "hidden_size", 1_000_000_000_000),
        ("distilbert", "n_layers", 1_000_000_000),
        ("distilbert", "dim", 1_000_000_000_000),
        ("distilbert", "hidden_dim", u64::MAX),
    ] {
        let folder = tempfile::tempdir()?;
        let text = json!({ "model_type": model_type, field: size });
        fs::write(folder.path().join("config.json"), text.to_string())?;
        let outcome = auto::Config::read(folder.path()).and_then(|c| c.architecture());
        let error = outcome.map(drop).unwrap_err();
        assert!(matches!(error, Error::Config { .. }), "{error}");
        assert_says(Err::<(), _>(error), &[field, " to ", &size.to_string()]);
    }
    let labels = checkpoint(|config| {
        config["id2label"] = json!(null);
        config["num_labels"] = json!(1_000_000_000_000u64);
    })?;
    assert_says(
        open(labels.path()).map(drop),
        &["num_labels", "1000000000000"],
    );
    for (field, value) in [
        ("num_labels", json!("3")),
        ("num_labels", json!(-1)),
        ("id2label", json!(["a", "b", "c"])),
    ] {
        let labels = checkpoint(|config| {
            config["id2label"] = json!(null);
            config[field] = value;
        })?;
        assert_says(open(labels.path()).map(drop), &[field]);
    }
    Ok(())
}

/// Each size is possible, all together are not.
#[test]
fn parameters_are_counted_before_they_are_made() -> Result<()> {
    let config = bert::Config {
        hidden_size: 1 << 16,
        num_attention_heads: 1 << 10,
        num_hidden_layers: 1 << 12,
        intermediate_size: 1 << 18,
        ..bert::Config::base()
    };
    let architecture = config.architecture()?;
    let start = Start::default();
    for outcome in [
        is_quick(|| SequenceClassifier::new(&architecture, 2, &start).map(drop)),
        is_quick(|| MaskedLanguageModel::new(&architecture, &start).map(drop)),
    ] {
        assert_says(outcome, &["number of parameters", "8589934592"]);
    }
    for width in [100_000, 1 << 20] {
        let config = resnet::Config {
            width,
            ..resnet::Config::named("resnet20")?
        };
        let outcome = is_quick(|| ResNet::new(&config, &start).map(drop));
        assert_says(outcome, &["number of parameters", "8589934592"]);
    }
    for (width, classes, says) in [(usize::MAX, 10, "width"), (16, usize::MAX, "classes")] {
        let config = resnet::Config {
            width,
            classes,
            ..resnet::Config::named("resnet20")?
        };
        assert_says(ResNet::new(&config, &start).map(drop), &[says, "1 to"]);
    }
    let precision = adahessian::sparse::Precision::F32;
    for (bottom, tables, says) in [
        (vec![13, 1 << 40, 16], vec![3], "bottom"),
        (vec![13, 16], vec![usize::MAX, 2], "rows of all tables"),
        (vec![13, 16], vec![1 << 33], "rows of all tables"),
        (vec![13, 1 << 16], vec![1 << 31], "numbers of all tables"),
    ] {
        let top = vec![8, 1];
        let config = dlrm::Config {
            bottom,
            tables,
            top,
        };
        assert_says(Dlrm::new(&config, &start, precision).map(drop), &[says]);
    }
    Ok(())
}

/// The file is small and the configuration large: the first tensor that does not fit says so.
#[test]
fn a_large_configuration_of_a_small_checkpoint_is_refused_by_the_header() -> Result<()> {
    let folder = checkpoint(|config| config["num_hidden_layers"] = json!(4096))?;
    let outcome = is_quick(|| open(folder.path()).map(drop));
    assert_says(outcome, &["no tensor `bert.encoder.layer.2."]);
    let folder = checkpoint(|config| {
        config["hidden_size"] = json!(1 << 16);
        config["intermediate_size"] = json!(1 << 18);
    })?;
    let outcome = is_quick(|| open(folder.path()).map(drop));
    assert_says(outcome, &["word_embeddings", "[128, 65536]", "[128, 32]"]);
    Ok(())
}

#[test]
fn a_configuration_longer_than_any_is_not_read() -> Result<()> {
    let folder = checkpoint(|config| config["comment"] = json!("x".repeat(9 << 20)))?;
    assert_says(
        open(folder.path()).map(drop),
        &["config.json", "longer than 8388608"],
    );
    Ok(())
}

/// A safetensors file of this header, of the length it says or the true one, and this many bytes.
fn file(path: &Path, header: &str, length: Option<u64>, data: usize) -> Result<()> {
    let length = length.unwrap_or(header.len() as u64);
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(vec![0; data]);
    Ok(fs::write(path, bytes)?)
}

#[test]
fn headers_that_lie_are_refused() -> Result<()> {
    let folder = checkpoint(|_| {})?;
    let path = folder.path().join("model.safetensors");
    let entry = |shape: &str, range: &str| {
        format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{range}}}}}"#)
    };
    let honest = entry("[2]", "[0,8]");
    let huge = entry("[4611686018427387904,4]", "[0,8]");
    let overlapping = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
    let cases: [(&str, Option<u64>, usize); 9] = [
        (&honest, Some(u64::MAX), 8),
        (&honest, Some(1 << 40), 8),
        (&honest, Some(99_000_000), 8),
        (&honest, None, 4),
        (&honest, None, 12),
        (&huge, None, 8),
        (overlapping, None, 12),
        (&entry("[2]", "[8,0]"), None, 8),
        (&entry("[2]", "[0,1099511627776]"), None, 8),
    ];
    for (header, length, data) in cases {
        file(&path, header, length, data)?;
        let error = is_quick(|| open(folder.path()).map(drop)).unwrap_err();
        assert!(matches!(error, Error::File { .. }), "{error}");
        assert_says(Err::<(), _>(error), &["model.safetensors", "cut off"]);
    }
    // A header that is right, of something else.
    file(&path, &honest, None, 8)?;
    assert_says(
        open(folder.path()).map(drop),
        &["word_embeddings", "among 1 tensors"],
    );
    Ok(())
}

#[test]
fn a_file_with_any_byte_of_its_header_changed_never_panics() -> Result<()> {
    let folder = checkpoint(|_| {})?;
    let path = folder.path().join("model.safetensors");
    let whole = fs::read(&path)?;
    let header = 8 + u64::from_le_bytes(whole[..8].try_into()?) as usize;
    let mut refused = 0;
    for index in (0..header).step_by(7).chain(0..8) {
        for mask in [0x01, 0x10, 0xff] {
            let mut bytes = whole.clone();
            bytes[index] ^= mask;
            let _ = fs::remove_file(&path);
            fs::write(&path, bytes)?;
            if let Err(error) = open(folder.path()) {
                refused += 1;
                let text = error.to_string();
                assert!(text.contains("model.safetensors"), "byte {index}: {text}");
            }
        }
    }
    assert!(refused > 100, "{refused}");
    Ok(())
}

/// Loading reads each tensor by itself; the numbers are those of the whole file.
#[test]
fn tensors_are_read_from_their_places() -> Result<()> {
    let folder = checkpoint(|_| {})?;
    let model = open(folder.path())?;
    let path = folder.path().join("model.safetensors");
    let tensors = candle_core::safetensors::load(path, &Device::Cpu)?;
    assert_eq!(tensors.len(), model.vars().len());
    for (name, var) in model.vars().iter() {
        let there: &Tensor = &tensors[name];
        assert_eq!(
            testing::largest(&(var.as_tensor() - there)?)?,
            0.0,
            "{name}"
        );
    }
    Ok(())
}
