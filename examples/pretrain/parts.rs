//! The parts of a run: text, tokenizer, model.

use super::PretrainArgs;
use anyhow::{Context, Result, bail};
use candle_core::Device;
use common::flags::Settings;
use common::grid::Cell;
use common::program::busy;
use common::text;
use datasets::masked::TextFile;
use datasets::wordpiece::WordCounts;
use datasets::{GlueTask, Masking, Packed, Pairing, Split, TextEncoder, sample};
use models::{
    Architecture, LoadReport, MaskedLanguageModel, Model, Start, auto, bert, mimetic, squeezebert,
};
use std::path::Path;

/// The models that have names.
pub const PRESETS: [&str; 6] = [
    "squeezebert",
    "squeezebert-mini",
    "squeezebert-tiny",
    "bert",
    "bert-mini",
    "bert-tiny",
];

/// What `--pairs` takes.
pub const PAIRS: [&str; 4] = ["none", "next", "order", "excerpt"];

/// Its default, which is not written: runs that were begun before there was such a flag go on.
pub fn no_pairs() -> String {
    PAIRS[0].into()
}

pub fn is_no_pairs(pairs: &str) -> bool {
    pairs == PAIRS[0]
}

/// What `--pairs` says.
pub fn pairing(pairs: &str) -> Option<Pairing> {
    match pairs {
        "next" => Some(Pairing::NextSentence),
        "order" => Some(Pairing::SentenceOrder),
        "excerpt" => Some(Pairing::Excerpt),
        _ => None,
    }
}

/// Text as sequences of tokens, and the tokenizer that made them.
pub struct Data {
    pub train: Packed,
    pub validation: Packed,
    pub encoder: TextEncoder,
}

impl Data {
    /// Checksums of all tokens.
    pub fn content(&self) -> impl Iterator<Item = [u8; 4]> + '_ {
        let texts = [&self.train, &self.validation];
        texts.into_iter().map(|text| text.checksum().to_le_bytes())
    }
}

/// The preset and the number of pieces of words, where neither is said.
pub fn default_sizes(own: &PretrainArgs) -> (&'static str, usize) {
    match own.data {
        Some(_) => ("squeezebert-mini", 8000),
        None => ("squeezebert-tiny", 1000),
    }
}

/// Refuses sizes beside a model that brings its own.
pub fn check(own: &PretrainArgs) -> Result<()> {
    // By their values: a configuration names them all.
    let (preset, vocabulary) = default_sizes(own);
    let (preset, vocabulary) = (own.preset != preset, own.vocabulary != vocabulary);
    let positions = own.positions > own.max_length.max(128);
    let fresh = own.layers.is_some() || own.width.is_some();
    let fresh = fresh || own.mimetic > 0.0;
    let sizes = fresh || own.dropout.is_some() || preset || vocabulary || positions;
    if own.model.is_some() && sizes {
        bail!(
            "--preset, --width, --layers, --vocabulary, --positions, --dropout, --mimetic: a --model brings its own; leave them out"
        );
    }
    Masking::new(own.mask_share, own.whole_words, 0).context("--mask-share")?;
    if own.model.is_none() {
        architecture(own, own.vocabulary)?;
    }
    Ok(())
}

/// From a folder, with tokens in files beside `out`, or from the shipped sample.
pub fn load(settings: &Settings<PretrainArgs>, out: &Path) -> Result<Data> {
    let own = &settings.own;
    match &own.data {
        Some(folder) => of_folder(folder, settings, out),
        None => of_sample(settings),
    }
}

/// The texts of a folder; in memory is a portion of them at a time.
fn of_folder(folder: &Path, settings: &Settings<PretrainArgs>, out: &Path) -> Result<Data> {
    let (own, training) = (&settings.own, &settings.training);
    let text = |split, most| -> Result<TextFile> {
        let text = TextFile::find(folder, split)?;
        Ok(TextFile { most, ..text })
    };
    let train = text(Split::Train, training.limit)?;
    let validation = text(Split::Validation, training.limit_eval)?;
    let encoder = match &own.model {
        Some(folder) => TextEncoder::from_folder(folder, own.max_length)?,
        None => busy("learning a vocabulary", || {
            let mut counts = WordCounts::default();
            train.for_each_line(|line| counts.add(line))?;
            text::learned_of(&counts, own.vocabulary, own.max_length)
        })?,
    };
    let stores = text::beside(out);
    std::fs::create_dir_all(&stores).with_context(|| stores.display().to_string())?;
    // Runs of one comparison may have other tokenizers, and other parts of the text.
    let packed = |text: &TextFile, name: &str| -> Result<Packed> {
        let mark =
            crc32fast::hash(format!("{:08x} {:?}", encoder.checksum()?, text.most).as_bytes());
        let store = stores.join(format!("{name}-{mark:08x}.pieces"));
        Ok(busy("cutting the text into pieces", || {
            Packed::of_file(&encoder, text, &store)
        })?)
    };
    Ok(Data {
        train: packed(&train, "train")?,
        validation: packed(&validation, "valid")?,
        encoder,
    })
}

/// The sentences of the shipped sample.
fn of_sample(settings: &Settings<PretrainArgs>) -> Result<Data> {
    let (own, training) = (&settings.own, &settings.training);
    let (mut train, mut validation) = (sentences(Split::Train)?, sentences(Split::Validation)?);
    train.truncate(training.limit.unwrap_or(usize::MAX));
    validation.truncate(training.limit_eval.unwrap_or(usize::MAX));
    let encoder = match &own.model {
        Some(folder) => TextEncoder::from_folder(folder, own.max_length)?,
        None => {
            let lines = train.iter().map(String::as_str);
            text::learned(lines, own.vocabulary, own.max_length)?
        }
    };
    Ok(Data {
        train: Packed::encode(&encoder, &train)?,
        validation: Packed::encode(&encoder, &validation)?,
        encoder,
    })
}

/// The sample's questions, and the sentences that may answer them.
fn sentences(split: Split) -> Result<Vec<String>> {
    let rows = sample::rows(GlueTask::Qnli, split)?.unwrap_or_default();
    let texts = rows
        .into_iter()
        .flat_map(|row| [Some(row.first), row.second]);
    Ok(texts.flatten().collect())
}

/// A fresh model, or one that goes on, and what its checkpoint brought.
pub fn model(
    cell: &Cell<PretrainArgs>,
    data: &Data,
    device: &Device,
) -> Result<(MaskedLanguageModel, Option<LoadReport>)> {
    let own = &cell.settings.own;
    let pairs = pairing(&own.pairs).is_some();
    let start = Start {
        seed: cell.seed,
        device: device.clone(),
        ..Start::default()
    };
    let (model, report) = match &own.model {
        Some(folder) => {
            let (model, report) = match pairs {
                true => auto::masked_language_model_with_pairs(folder, &start)?,
                false => auto::masked_language_model(folder, &start)?,
            };
            (model, Some(report))
        }
        None => {
            let architecture = architecture(own, data.encoder.vocab_size())?;
            let model = match pairs {
                true => MaskedLanguageModel::with_pairs(&architecture, &start)?,
                false => MaskedLanguageModel::new(&architecture, &start)?,
            };
            if own.mimetic > 0.0 {
                mimetic(&model.vars(), &architecture, own.mimetic, cell.seed)?;
            }
            (model, None)
        }
    };
    let architecture = model.encoder().architecture();
    data.encoder
        .check(architecture.vocabulary, architecture.positions)?;
    Ok((model, report))
}

/// What `--preset` names, with as many words as there are.
fn architecture(own: &PretrainArgs, vocab_size: usize) -> Result<Architecture> {
    let (family, size) = own.preset.split_once('-').unwrap_or((&own.preset, "base"));
    // Layers, width, heads.
    let (layers, width, heads) = match size {
        "tiny" => (2, 64, 4),
        "mini" => (4, 256, 4),
        _ => (12, 768, 12),
    };
    let (layers, width) = (own.layers.unwrap_or(layers), own.width.unwrap_or(width));
    let wide = 4 * width;
    let max_position_embeddings = own.positions.max(own.max_length);
    Ok(match family {
        "bert" => {
            let base = bert::Config::default();
            let config = bert::Config {
                vocab_size,
                hidden_size: width,
                num_hidden_layers: layers,
                num_attention_heads: heads,
                intermediate_size: wide,
                max_position_embeddings,
                hidden_dropout_prob: own.dropout.unwrap_or(base.hidden_dropout_prob),
                attention_probs_dropout_prob: own
                    .dropout
                    .unwrap_or(base.attention_probs_dropout_prob),
                ..base
            };
            config.architecture()?
        }
        _ => {
            let base = squeezebert::Config::default();
            let config = squeezebert::Config {
                vocab_size,
                hidden_size: width,
                embedding_size: width,
                num_hidden_layers: layers,
                num_attention_heads: heads,
                intermediate_size: wide,
                max_position_embeddings,
                hidden_dropout_prob: own.dropout.unwrap_or(base.hidden_dropout_prob),
                attention_probs_dropout_prob: own
                    .dropout
                    .unwrap_or(base.attention_probs_dropout_prob),
                ..base
            };
            config.architecture()?
        }
    })
}
