//! Windows of a text, and the words that follow each of theirs.

use candle_core::{Device, Tensor};

use super::WordStore;
use crate::batcher::Batcher;
use crate::batches::{Batches, Order, TensorBatch};
use crate::error::{Error, Result};
use crate::random::Random;

/// Batches of windows: `inputs` [B, T] are words, `labels` [B, T] those behind each of them, both u32, on the CPU, where
/// models look ids up.
///
/// A window is foretold from itself alone: nothing is carried from one to the next, so they may come in any order.
pub struct WordWindows {
    text: WordStore,
    /// What stands before the first word: `<eos>`.
    before: u32,
    window: usize,
    /// Whole windows, and in order the words of the last one.
    order: Order,
    place: Place,
}

/// Where windows begin.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// Each epoch so many words behind the text's beginning, at the most.
    Drawn { seed: u64, most: usize },
    /// At the beginning; the last batch is the one window that is not whole, of so many words.
    All { rest: usize },
}

impl WordWindows {
    /// To train on: in the batcher's order, each epoch from another word on, so that windows are cut elsewhere. What is
    /// left before the first window and behind the last one is not used in that epoch.
    ///
    /// # Errors
    /// [`Error::Setting`] if the text is shorter than a window.
    pub fn shuffled(text: WordStore, before: u32, window: usize, batcher: Batcher) -> Result<Self> {
        check(&text, window)?;
        // As many as there are wherever the first one begins.
        let windows = ((text.len() + 1).saturating_sub(window) / window).max(1);
        let most = (text.len() - windows * window).min(window - 1);
        let seed = batcher.seed;
        Ok(Self {
            order: Order::new(batcher, vec![window; windows]),
            text,
            before,
            window,
            place: Place::Drawn { seed, most },
        })
    }

    /// All words once, from the first to the last, in order, `batch_size` windows at a time; the last batch is the rest of
    /// the text, if there is one. Every word is foretold, the first one from what is `before` it, and from the same words
    /// whatever the size of the batches.
    ///
    /// # Errors
    /// [`Error::Setting`] if the text is shorter than a window.
    pub fn in_order(
        text: WordStore,
        before: u32,
        window: usize,
        batch_size: usize,
    ) -> Result<Self> {
        check(&text, window)?;
        let batcher = Batcher {
            batch_size,
            shuffle: false,
            ..Batcher::default()
        };
        Ok(Self {
            order: Order::new(batcher, vec![window; text.len() / window]),
            place: Place::All {
                rest: text.len() % window,
            },
            text,
            before,
            window,
        })
    }

    /// The words that an epoch foretells.
    pub fn words(&self) -> usize {
        let windows = self.order.examples() * self.window;
        match self.place {
            Place::Drawn { .. } => windows,
            Place::All { rest } => windows + rest,
        }
    }

    /// Windows of `length` words that begin at these.
    fn batch(&self, starts: &[usize], length: usize) -> Result<TensorBatch> {
        let (mut words, mut next) = (Vec::new(), Vec::new());
        for &start in starts {
            let labels = self.text.words(start, length)?;
            match start {
                0 => words.push(self.before),
                start => words.extend(self.text.words(start - 1, 1)?),
            }
            words.extend(&labels[..length - 1]);
            next.extend(labels);
        }
        let tensor = |ids| Tensor::from_vec(ids, (starts.len(), length), &Device::Cpu);
        Ok(TensorBatch {
            inputs: tensor(words)?,
            labels: tensor(next)?,
        })
    }
}

fn check(text: &WordStore, window: usize) -> Result<()> {
    match window > 0 && window <= text.len() {
        true => Ok(()),
        false => Err(Error::Setting {
            name: "window",
            got: format!("{window} words of a text of {}", text.len()),
            expected: "at least 1 word, and no more than the text has".into(),
        }),
    }
}

impl Batches for WordWindows {
    type Batch = TensorBatch;

    fn len(&self, _epoch: usize) -> usize {
        let rest = matches!(self.place, Place::All { rest } if rest > 0);
        self.order.batches() + usize::from(rest)
    }

    fn get(&self, epoch: usize, index: usize) -> Result<TensorBatch> {
        let first = match self.place {
            Place::Drawn { seed, most } => {
                Random::of_example(seed, epoch as u64, u64::MAX).below(most + 1)
            }
            Place::All { rest } if rest > 0 && index == self.order.batches() => {
                return self.batch(&[self.text.len() - rest], rest);
            }
            Place::All { .. } => 0,
        };
        let windows = self.order.batch(epoch, index)?;
        let starts: Vec<usize> = windows.iter().map(|n| first + n * self.window).collect();
        self.batch(&starts, self.window)
    }
}
