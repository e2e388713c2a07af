//! Labelled words as labelled pieces of words, and batches of them.

use candle_core::Device;

use super::batch::collate_tokens;
use super::{LabelSet, Sentence, TokenBatch};
use crate::Batcher;
use crate::batches::{Batches, Order, UNLABELLED};
use crate::error::{Error, Result};
use crate::excerpt::cut;
use crate::text::{Encoded, TextEncoder};

/// One sentence as token ids, each with a class or none.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenExample {
    /// The pieces, special ones included; without a label as a whole.
    pub encoded: Encoded,
    /// For each piece the class of the word that begins with it, or [`UNLABELLED`](crate::UNLABELLED).
    pub labels: Vec<u32>,
    /// How many words have no piece: they lie behind the maximum length, or are nothing to the tokenizer
    /// (control characters, for example).
    pub left_out: usize,
}

impl TokenExample {
    /// How many pieces have a class: the words that are there.
    pub fn words(&self) -> usize {
        self.labels
            .iter()
            .filter(|class| **class != UNLABELLED)
            .count()
    }
}

/// Encoded sentences of one split.
#[derive(Debug, Clone, Default)]
pub struct TokenDataset {
    /// The sentences, in the order of the file.
    pub examples: Vec<TokenExample>,
    /// The id that fills up shorter sentences of a batch.
    pub pad_id: u32,
}

impl TokenDataset {
    /// Cuts the words of `sentences` into pieces, keeping their order.
    ///
    /// The first piece of each word has the word's class. Sentences that are too long are cut at their
    /// end. Tokenizers that tell a word by the blank before it (GPT-2's, RoBERTa's) need
    /// [`TextEncoder::for_words`].
    ///
    /// # Errors
    /// If a label is not in `labels`, a sentence has no words or not as many labels as words, or the
    /// tokenizer refuses a word.
    pub fn encode(
        encoder: &TextEncoder,
        labels: &LabelSet,
        sentences: &[Sentence],
    ) -> Result<Self> {
        let classes = sentences.iter().enumerate();
        let classes = classes.map(|(index, sentence)| classes_of(index, sentence, labels));
        let classes = classes.collect::<Result<Vec<_>>>()?;
        let words: Vec<&[String]> = sentences.iter().map(|s| s.tokens.as_slice()).collect();
        let pieces = encoder.encode_words(&words)?.into_iter().zip(classes);
        let examples = pieces.map(|((encoded, places), classes)| {
            let labels = labels_of(&places, &classes);
            let mut example = TokenExample {
                encoded,
                labels,
                left_out: 0,
            };
            example.left_out = classes.len().saturating_sub(example.words());
            example
        });
        Ok(Self {
            examples: examples.collect(),
            pad_id: encoder.pad_id(),
        })
    }

    /// The number of sentences.
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// Whether there are no sentences.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// How many words of all sentences have no piece. No metric of pieces sees them, so their number
    /// should be reported beside it.
    pub fn left_out(&self) -> usize {
        self.examples.iter().map(|e| e.left_out).sum()
    }

    /// Keeps the first `n` sentences at most.
    pub fn limit(mut self, n: usize) -> Self {
        self.examples.truncate(n);
        self
    }

    /// The number of pieces of each sentence, as [`Batcher::order`](crate::Batcher::order) wants it.
    pub fn lengths(&self) -> Vec<usize> {
        self.examples.iter().map(|e| e.encoded.ids.len()).collect()
    }

    /// The sentences with these indices as tensors on `device`.
    ///
    /// # Errors
    /// If there are none, an index is out of range, an example has not as many labels as pieces, or a
    /// tensor cannot be made.
    pub fn batch(&self, indices: &[usize], device: &Device) -> Result<TokenBatch> {
        let examples = indices
            .iter()
            .map(|&index| {
                self.examples.get(index).ok_or_else(|| Error::Batch {
                    reason: format!("index {index} in a data set of {} sentences", self.len()),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        collate_tokens(&examples, self.pad_id, device)
    }
}

/// The classes of a sentence's words.
fn classes_of(index: usize, sentence: &Sentence, labels: &LabelSet) -> Result<Vec<u32>> {
    let (words, own) = (sentence.tokens.len(), sentence.labels.len());
    if words == 0 || words != own {
        return Err(Error::Batch {
            reason: format!(
                "sentence {index} has {words} words and {own} labels; give one or more words, and a label for each"
            ),
        });
    }
    let classes = sentence.labels.iter().zip(&sentence.tokens);
    let classes = classes.map(|(label, word)| {
        let place = || format!("sentence {index}, word {:?}", cut(word));
        labels
            .class(label)
            .ok_or_else(|| labels.unseen(place(), label))
    });
    classes.collect()
}

/// The label of each piece: `places[i]` is the word that piece `i` belongs to.
fn labels_of(places: &[Option<u32>], classes: &[u32]) -> Vec<u32> {
    let mut last = None;
    let label = |place: &Option<u32>| {
        let word = place.filter(|_| *place != last);
        last = place.or(last);
        let class = word.and_then(|word| classes.get(word as usize));
        class.copied().unwrap_or(UNLABELLED)
    };
    places.iter().map(label).collect()
}

/// Labelled words cut into batches by a [`Batcher`].
pub struct TokenBatches {
    dataset: TokenDataset,
    order: Order,
    device: Device,
}

impl TokenBatches {
    /// The batches of this data set on this device.
    pub fn new(dataset: TokenDataset, batcher: Batcher, device: &Device) -> Self {
        Self {
            order: Order::new(batcher, dataset.lengths()),
            dataset,
            device: device.clone(),
        }
    }
}

impl Batches for TokenBatches {
    type Batch = TokenBatch;

    fn len(&self, _epoch: usize) -> usize {
        self.order.batches()
    }

    fn get(&self, epoch: usize, index: usize) -> Result<TokenBatch> {
        let sentences = self.order.batch(epoch, index)?;
        self.dataset.batch(&sentences, &self.device)
    }
}
