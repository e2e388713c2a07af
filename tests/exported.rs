//! What is saved here opens in candle-transformers with the same numbers, and the other way round.

use adahessian::ops::Mode;
use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use candle_transformers::models::{
    bert as their_bert, distilbert as their_distilbert, xlm_roberta,
};
use datasets::wordpiece::{BertConfig, bert_tokenizer};
use datasets::{Row, TextEncoder};
use models::{
    MaskedLanguageModel, Model, SequenceClassifier, Start, auto, bert, distilbert, roberta,
};
use serde_json::{Value, json};
use std::path::Path;
use testing::assert_close;

const CPU: Device = Device::Cpu;
const TOLERANCE: f64 = 1e-5;

/// Weights that are not small, so that the numbers say something.
const RANGE: f64 = 0.2;

fn start() -> Start {
    Start {
        seed: 3,
        ..Start::default()
    }
}

/// Two texts, the second one padded with `padding`, and the mask.
fn batch(padding: u32) -> Result<(Tensor, Tensor)> {
    let ids = [[2u32, 17, 5, 90, 3], [2, 9, 3, padding, padding]];
    let mask = [[1u32, 1, 1, 1, 1], [1, 1, 1, 0, 0]];
    Ok((Tensor::new(&ids, &CPU)?, Tensor::new(&mask, &CPU)?))
}

fn theirs(folder: &Path) -> Result<VarBuilder<'static>> {
    let path = folder.join("model.safetensors");
    // SAFETY: nobody writes to the file meanwhile.
    Ok(unsafe { VarBuilder::from_mmaped_safetensors(&[path], DType::F32, &CPU)? })
}

/// Our config.json as another crate's configuration, which wants some fields that ours has not.
fn config<T: serde::de::DeserializeOwned>(folder: &Path, more: Value) -> Result<T> {
    let text = std::fs::read_to_string(folder.join("config.json"))?;
    let mut value: Value = serde_json::from_str(&text)?;
    for (key, field) in more.as_object().into_iter().flatten() {
        value[key] = field.clone();
    }
    Ok(serde_json::from_value(value)?)
}

/// The rows of texts, without padding: there models may differ.
fn text_only(x: &Tensor) -> Result<Tensor> {
    let (first, second) = (x.get(0)?, x.get(1)?.narrow(0, 0, 3)?);
    Ok(Tensor::cat(&[first, second], 0)?)
}

fn last_state(model: &SequenceClassifier, ids: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let states = (model.encoder()).hidden_states(ids, None, Some(mask), &Mode::Eval)?;
    text_only(&states[states.len() - 1])
}

fn our_bert() -> bert::Config {
    bert::Config {
        initializer_range: RANGE,
        ..bert::Config::tiny()
    }
}

#[test]
fn bert_opens_in_candle_transformers() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let model = SequenceClassifier::new(&our_bert().architecture()?, 2, &start())?;
    model.save(folder.path())?;
    let config = config(folder.path(), json!({ "pad_token_id": 0 }))?;
    let other = their_bert::BertModel::load(theirs(folder.path())?, &config)?;
    let (ids, mask) = batch(0)?;
    let expected = other.forward(&ids, &ids.zeros_like()?, Some(&mask))?;
    let ours = last_state(&model, &ids, &mask)?;
    assert_close("BERT", &ours, &text_only(&expected)?, TOLERANCE)
}

#[test]
fn bert_of_candle_transformers_opens_here() -> Result<()> {
    let folder = tempfile::tempdir()?;
    SequenceClassifier::new(&our_bert().architecture()?, 2, &start())?.save(folder.path())?;
    let config = config(folder.path(), json!({ "pad_token_id": 0 }))?;
    let map = VarMap::new();
    let vb = VarBuilder::from_varmap(&map, DType::F32, &CPU);
    let other = their_bert::BertModel::load(vb, &config)?;
    map.save(folder.path().join("model.safetensors"))?;
    let (model, report) = auto::sequence_classifier(folder.path(), None, &start())?;
    assert_eq!((report.initialised.len(), report.unused.len()), (4, 0));
    let (ids, mask) = batch(0)?;
    let expected = other.forward(&ids, &ids.zeros_like()?, Some(&mask))?;
    let ours = last_state(&model, &ids, &mask)?;
    assert_close("BERT", &ours, &text_only(&expected)?, TOLERANCE)
}

/// With ReLU: candle-transformers' DistilBERT takes a GELU that is approximated by a tanh.
fn our_distilbert() -> distilbert::Config {
    distilbert::Config {
        initializer_range: RANGE,
        activation: "relu".into(),
        ..distilbert::Config::tiny()
    }
}

/// candle-transformers' mask, [B, 1, 1, T]: 1 is what is hidden.
fn hidden(mask: &Tensor) -> Result<Tensor> {
    let hidden = mask.eq(0u32)?; // U8
    Ok(hidden.unsqueeze(1)?.unsqueeze(1)?)
}

#[test]
fn distilbert_opens_in_candle_transformers() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let model = MaskedLanguageModel::new(&our_distilbert().architecture()?, &start())?;
    model.save(folder.path())?;
    let config = config(folder.path(), json!({ "pad_token_id": 0 }))?;
    let vb = theirs(folder.path())?;
    let other = their_distilbert::DistilBertForMaskedLM::load(vb, &config)?;
    let (ids, mask) = batch(0)?;
    let expected = other.forward(&ids, &hidden(&mask)?)?;
    let ours = model.forward(&ids, None, Some(&mask), &Mode::Eval)?; // [2, 5, 128]
    assert_close(
        "logits",
        &text_only(&ours)?,
        &text_only(&expected)?,
        TOLERANCE,
    )
}

#[test]
fn distilbert_of_candle_transformers_opens_here() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let architecture = our_distilbert().architecture()?;
    SequenceClassifier::new(&architecture, 2, &start())?.save(folder.path())?;
    let config = config(folder.path(), json!({ "pad_token_id": 0 }))?;
    let map = VarMap::new();
    let vb = VarBuilder::from_varmap(&map, DType::F32, &CPU);
    let other = their_distilbert::DistilBertModel::load(vb, &config)?;
    map.save(folder.path().join("model.safetensors"))?;
    let (model, report) = auto::sequence_classifier(folder.path(), None, &start())?;
    assert_eq!((report.initialised.len(), report.unused.len()), (4, 0));
    let (ids, mask) = batch(0)?;
    let expected = text_only(&other.forward(&ids, &hidden(&mask)?)?)?;
    assert_close(
        "DistilBERT",
        &last_state(&model, &ids, &mask)?,
        &expected,
        TOLERANCE,
    )
}

fn our_roberta() -> roberta::Config {
    roberta::Config {
        initializer_range: RANGE,
        ..roberta::Config::tiny()
    }
}

/// XLM-RoBERTa is RoBERTa with another vocabulary.
#[test]
fn roberta_opens_in_candle_transformers() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let architecture = our_roberta().architecture()?;
    let (ids, mask) = batch(1)?;
    let types = ids.zeros_like()?;
    let model = SequenceClassifier::new(&architecture, 3, &start())?;
    model.save(folder.path())?;
    let settings: xlm_roberta::Config = config(folder.path(), json!({}))?;
    let vb = theirs(folder.path())?;
    let other = xlm_roberta::XLMRobertaForSequenceClassification::new(3, &settings, vb)?;
    let expected = other.forward(&ids, &mask, &types)?;
    let ours = model.forward(&ids, None, Some(&mask), &Mode::Eval)?; // [2, 3]
    assert_close("logits of sequences", &ours, &expected, TOLERANCE)?;

    let model = MaskedLanguageModel::new(&architecture, &start())?;
    model.save(folder.path())?;
    let vb = theirs(folder.path())?;
    let other = xlm_roberta::XLMRobertaForMaskedLM::new(&settings, vb)?;
    let expected = other.forward(&ids, &mask, &types, None, None, None)?;
    let ours = model.forward(&ids, None, Some(&mask), &Mode::Eval)?; // [2, 5, 128]
    assert_close(
        "logits of words",
        &text_only(&ours)?,
        &text_only(&expected)?,
        TOLERANCE,
    )
}

#[test]
fn roberta_of_candle_transformers_opens_here() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let architecture = our_roberta().architecture()?;
    SequenceClassifier::new(&architecture, 2, &start())?.save(folder.path())?;
    let settings: xlm_roberta::Config = config(folder.path(), json!({}))?;
    let map = VarMap::new();
    let vb = VarBuilder::from_varmap(&map, DType::F32, &CPU);
    let other = xlm_roberta::XLMRobertaModel::new(&settings, vb)?;
    map.save(folder.path().join("model.safetensors"))?;
    let (model, report) = auto::sequence_classifier(folder.path(), None, &start())?;
    assert_eq!((report.initialised.len(), report.unused.len()), (4, 0));
    let (ids, mask) = batch(1)?;
    let types = ids.zeros_like()?;
    let expected = other.forward(&ids, &mask, &types, None, None, None)?;
    let ours = last_state(&model, &ids, &mask)?;
    assert_close("RoBERTa", &ours, &text_only(&expected)?, TOLERANCE)
}

/// A tokenizer with case, or RoBERTa's for words, in a model's folder, and what it makes of some texts.
fn texts(name: &str, folder: &Path) -> Result<TextEncoder> {
    let encoder = match name {
        "roberta" => {
            std::fs::write(folder.join("tokenizer.json"), crate::masked::BYTE_LEVEL)?;
            TextEncoder::from_folder(folder, 32)?.for_words()
        }
        _ => {
            let words = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nParis\nparis\nÉté\n##s\na";
            let config = BertConfig {
                lower_case: false,
                ..BertConfig::default()
            };
            TextEncoder::new(bert_tokenizer(words.as_bytes(), config)?, 32)?
        }
    };
    encoder.save(folder)?;
    let mut made = Vec::new();
    for text in ["a", "Paris a parisa", "Étés Paris", "# ## a#"] {
        let row = Row {
            first: text.into(),
            second: None,
            label: None,
        };
        made.push(json!({"text": text, "ids": encoder.encode(&row)?.ids}));
    }
    let made = serde_json::to_string_pretty(&made)?;
    std::fs::write(folder.join("texts.json"), made)?;
    Ok(encoder)
}

/// What tokenizer and model make of two texts: of some families, with types of tokens.
fn pair(encoder: &TextEncoder, model: &SequenceClassifier, folder: &Path) -> Result<()> {
    let row = Row {
        first: "a Paris".into(),
        second: Some("parisa a".into()),
        label: None,
    };
    let made = encoder.encode(&row)?;
    let ids = Tensor::new(made.ids.as_slice(), &CPU)?.unsqueeze(0)?; // [1, T]
    let types = Tensor::new(made.types.as_slice(), &CPU)?.unsqueeze(0)?;
    let logits = model.forward(&ids, Some(&types), None, &Mode::Eval)?; // [1, 3]
    let logits = logits.to_vec2::<f32>()?;
    let made = json!({
        "first": row.first, "second": row.second, "ids": made.ids, "logits": logits,
    });
    Ok(std::fs::write(folder.join("pair.json"), made.to_string())?)
}

/// `EXPORTS=DIR cargo test -p tests exported`, then `python scripts/check_exports.py DIR`: what is saved, with the
/// logits of a batch and of a pair, and the ids of some texts beside it, opens in transformers with the same ones.
#[test]
fn exports_for_transformers_are_written_where_asked() -> Result<()> {
    let kept = std::env::var_os("EXPORTS");
    let scratch = tempfile::tempdir()?;
    let folder = kept.as_ref().map_or(scratch.path(), Path::new);
    let squeezebert = models::squeezebert::Config {
        initializer_range: RANGE,
        ..models::squeezebert::Config::tiny()
    };
    let architectures = [
        ("bert", our_bert().architecture()?, 0),
        ("distilbert", our_distilbert().architecture()?, 0),
        ("roberta", our_roberta().architecture()?, 1),
        ("squeezebert", squeezebert.architecture()?, 0),
    ];
    for (name, architecture, padding) in architectures {
        let at = folder.join(name);
        let model = SequenceClassifier::new(&architecture, 3, &start())?;
        model.save(&at)?;
        let (ids, mask) = batch(padding)?;
        let logits = model.forward(&ids, None, Some(&mask), &Mode::Eval)?; // [2, 3]
        let batch = [
            ("input_ids", ids.to_dtype(DType::I64)?),
            ("attention_mask", mask.to_dtype(DType::I64)?),
            ("logits", logits),
        ];
        let path = at.join("batch.safetensors");
        candle_core::safetensors::save(&batch.into_iter().collect(), &path)?;
        assert!(path.is_file());
        let encoder = texts(name, &at)?;
        pair(&encoder, &model, &at)?;
    }
    if kept.is_none() {
        println!("EXPORTS is not set: nothing is kept for transformers");
    }
    Ok(())
}
