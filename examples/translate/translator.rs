//! From lines to their translations.

use super::corpus::Preparation;
use anyhow::{Context, Result};
use candle_core::{D, DType, Device, Tensor};
use common::say_error;
use datasets::translation::{Subwords, remove_marks};
use models::transformer::{Decoding, Transformer};
use models::{Model as _, Start};
use serde::{Deserialize, Serialize};
use std::path::Path;
use trainers::generation::{BeamSearch, Decoder};

/// The file beside a model that says how its text was prepared.
const SETTINGS: &str = "translation.json";
/// Sources of a batch together have at most as many tokens, padding included.
const BATCH_TOKENS: usize = 2048;

/// A search's step has at most as many numbers, one for each word that may follow in each place of its beams; three arrays
/// of them are there at once.
const STEP_NUMBERS: usize = 1 << 26;

/// How many of the first sentences, the shortest of which comes first, are translated at once, where each has so many
/// numbers in a step: at least one.
fn at_once(lengths: impl Iterator<Item = usize>, numbers: usize) -> usize {
    let fits = |&(count, longest): &(usize, usize)| {
        count * longest <= BATCH_TOKENS && count.saturating_mul(numbers) <= STEP_NUMBERS
    };
    let counted = (1..).zip(lengths);
    counted
        .take_while(fits)
        .last()
        .map_or(1, |(count, _)| count)
}

/// What ids say, in words: of a text that was in pieces already (`marks`), without their marks.
fn in_words(subwords: &Subwords, marks: bool, ids: &[u32]) -> Result<String> {
    let said = subwords.decode(ids)?;
    Ok(match marks {
        true => remove_marks(&said),
        false => said,
    })
}

/// What is saved with a model besides its variables.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Languages {
    /// The source's code.
    pub source: String,
    /// The target's.
    pub target: String,
    /// What is done to lines.
    pub preparation: Preparation,
}

/// A model with all that it needs between text and text.
#[derive(Clone)]
pub struct Translator {
    pub model: Transformer,
    pub subwords: Subwords,
    pub languages: Languages,
}

/// A translation with its score.
pub struct Translation {
    /// As the model says it, in words.
    pub text: String,
    pub score: f64,
}

/// The model's rows for a search.
struct Rows<'a> {
    decoding: Decoding<'a>,
    vocabulary: usize,
}

impl Decoder for Rows<'_> {
    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn step(&mut self, tokens: &[u32]) -> trainers::Result<Vec<f32>> {
        let logits = self.decoding.step(tokens).map_err(trainers::Error::user)?;
        let logits = logits.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let log_p = candle_nn::ops::log_softmax(&logits, D::Minus1)?;
        Ok(log_p.flatten_all()?.to_vec1()?)
    }

    fn select(&mut self, rows: &[usize]) -> trainers::Result<()> {
        self.decoding.select(rows).map_err(trainers::Error::user)
    }
}

impl Translator {
    /// The model of a run's folder, or of one that [`Translator::save`] wrote, on this device.
    pub fn load(folder: &Path, device: &Device) -> Result<Self> {
        let inner = folder.join("model");
        let folder = match inner.is_dir() {
            true => inner.as_path(),
            false => folder,
        };
        let start = Start {
            device: device.clone(),
            ..Start::default()
        };
        let (model, _) = Transformer::load(folder, &start)?;
        let path = folder.join(SETTINGS);
        let text = std::fs::read_to_string(&path);
        let text = text.with_context(|| format!("{}: how text was prepared", path.display()))?;
        let languages = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        let subwords = Subwords::from_folder(folder)?;
        Ok(Self {
            model,
            subwords,
            languages,
        })
    }

    /// Writes a folder that [`Translator::load`] reads.
    pub fn save(&self, folder: &Path) -> Result<()> {
        self.model.save(folder)?;
        self.subwords.save(folder)?;
        let path = folder.join(SETTINGS);
        let text = serde_json::to_string_pretty(&self.languages)?;
        std::fs::write(&path, text + "\n").with_context(|| path.display().to_string())
    }

    /// A search with the model's special tokens.
    pub fn search(&self) -> BeamSearch {
        let subwords = &self.subwords;
        BeamSearch {
            forbidden: vec![subwords.bos()],
            ..BeamSearch::new(subwords.eos(), subwords.eos(), subwords.pad())
        }
    }

    /// The translations of lines that are prepared already, `n_best` each, the best first.
    pub fn translate(&self, lines: &[&str], search: &BeamSearch) -> Result<Vec<Vec<Translation>>> {
        let most = self.positions().saturating_sub(1);
        let mut cut = 0;
        let ids = lines.iter().map(|line| {
            let mut ids = self.subwords.encode(line)?;
            cut += usize::from(ids.len() > most);
            ids.truncate(most);
            ids.push(self.subwords.eos());
            Ok(ids)
        });
        let ids = ids.collect::<Result<Vec<_>>>()?;
        if cut > 0 {
            say_error!(
                "{cut} of {} sentences have more than the {most} tokens that the model has positions for: their ends are not \
                 translated",
                lines.len()
            );
        }
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|&line| ids[line].len());
        let mut all: Vec<Vec<Translation>> = lines.iter().map(|_| Vec::new()).collect();
        let mut rest = order.as_slice();
        let numbers = search.beam.saturating_mul(self.model.config().vocab_size);
        while !rest.is_empty() {
            let lengths = rest.iter().map(|&line| ids[line].len());
            let (batch, others) = rest.split_at(at_once(lengths, numbers));
            let sources: Vec<&[u32]> = batch.iter().map(|&line| ids[line].as_slice()).collect();
            for (&line, found) in batch.iter().zip(self.batch(&sources, search)?) {
                all[line] = found;
            }
            rest = others;
        }
        Ok(all)
    }

    fn positions(&self) -> usize {
        self.model.config().max_position_embeddings
    }

    fn batch(&self, sources: &[&[u32]], search: &BeamSearch) -> Result<Vec<Vec<Translation>>> {
        let width = sources.iter().map(|ids| ids.len()).max().unwrap_or(0);
        let padded = sources.iter().flat_map(|ids| {
            let padding = std::iter::repeat_n(self.subwords.pad(), width - ids.len());
            ids.iter().copied().chain(padding)
        });
        let shape = (sources.len(), width);
        let ids = Tensor::from_vec(padded.collect::<Vec<u32>>(), shape, &Device::Cpu)?;
        let mut rows = Rows {
            decoding: self.model.decode(&ids)?,
            vocabulary: self.model.config().vocab_size,
        };
        let mut search = search.clone();
        // Not longer than the model has positions for, whatever is allowed.
        search.max_extra = search.max_extra.min(self.positions().saturating_sub(1));
        search.max_ratio = search.max_ratio.min(
            self.positions().saturating_sub(1 + search.max_extra) as f64 / width.max(1) as f64,
        );
        let lengths: Vec<usize> = sources.iter().map(|ids| ids.len()).collect();
        let found = search.search(&mut rows, &lengths)?;
        let marks = self.subwords.have_marks();
        let texts = found.into_iter().map(|hypotheses| {
            let texts = hypotheses.iter().map(|hypothesis| {
                Ok(Translation {
                    text: in_words(&self.subwords, marks, hypothesis.text())?,
                    score: hypothesis.score,
                })
            });
            texts.collect::<Result<Vec<_>>>()
        });
        texts.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datasets::translation::learn_subwords;

    #[test]
    fn what_is_learned_of_pieces_says_words() {
        let lines = ["lo@@ w lo@@ wer", "lo@@ w ne@@ wer"];
        let subwords = learn_subwords(lines, 30).unwrap();
        let ids = subwords.encode("lo@@ wer").unwrap();
        assert_eq!(
            in_words(&subwords, subwords.have_marks(), &ids).unwrap(),
            "lower"
        );
    }

    #[test]
    fn a_search_is_bounded_by_its_tokens_and_by_its_words() {
        let short = || std::iter::repeat_n(2, 5000);
        assert_eq!(at_once(short(), 5 * 10_000), 1024);
        assert_eq!(at_once(short(), 50 * 37_000), 36);
        assert_eq!(at_once(short(), usize::MAX), 1);
        assert_eq!(at_once([100, 3000].into_iter(), 1), 1);
        assert_eq!(at_once([5000].into_iter(), 1), 1);
    }
}
