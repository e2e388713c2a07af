//! What programs on text share: where a model starts from, and what follows from that.

use crate::flags::Settings;
use crate::optimizers::{self, Family};
use anyhow::Result;
use datasets::TextEncoder;
use datasets::wordpiece::WordCounts;
use models::{LoadReport, auto};
use std::path::{Path, PathBuf};

/// exp of a mean of -log p: of a run that ran away, too, a number, and one that means can be taken of.
pub fn perplexity(loss: f64) -> f64 {
    const MOST: f64 = 340.0; // 10¹⁴⁷, whose square is a number, too
    if loss > MOST { MOST.exp() } else { loss.exp() }
}

/// Defaults of optimizer and schedule for a family of models.
///
/// # Errors
/// For an unknown optimizer.
pub fn defaults<A: clap::Args>(settings: &mut Settings<A>, family: Family) -> Result<()> {
    let optimizer = &mut settings.optimizer;
    optimizer.lr = optimizers::default_lr(&optimizer.optimizer, family)?;
    optimizer.weight_decay = optimizers::default_decay(&optimizer.optimizer)?;
    optimizer.bound = optimizers::default_bound(family);
    settings.training.schedule = optimizers::default_schedule(family).into();
    // Texts are encoded once; a batch is made in no time.
    settings.run.prefetch = 0;
    Ok(())
}

/// A tokenizer learned from the texts to train on, for a model from scratch.
///
/// # Errors
/// If there is nothing to learn from, or `max_length` leaves no room for text.
pub fn learned<'a>(
    texts: impl IntoIterator<Item = &'a str>,
    vocabulary: usize,
    max_length: usize,
) -> Result<TextEncoder> {
    let mut counts = WordCounts::default();
    texts.into_iter().try_for_each(|text| counts.add(text))?;
    learned_of(&counts, vocabulary, max_length)
}

/// The same of words that are counted already.
///
/// # Errors
/// As [`learned`].
pub fn learned_of(
    counts: &WordCounts,
    vocabulary: usize,
    max_length: usize,
) -> Result<TextEncoder> {
    let tokenizer = counts.tokenizer(vocabulary)?;
    // A sample may have fewer words than the model has room for.
    Ok(TextEncoder::new(tokenizer, max_length)?.allow_small_vocabulary())
}

/// The configuration with the probability of `--dropout`, or with its own.
#[must_use]
pub fn with_dropout(config: auto::Config, dropout: Option<f64>) -> auto::Config {
    match dropout {
        Some(probability) => config.with_dropout(probability),
        None => config,
    }
}

/// A checkpoint's configuration, with the probability of `--dropout` or with its own.
///
/// # Errors
/// If it cannot be read.
pub fn checkpoint(folder: &Path, dropout: Option<f64>) -> Result<auto::Checkpoint> {
    let checkpoint = auto::Checkpoint::open(folder)?;
    Ok(match dropout {
        Some(probability) => checkpoint.with_dropout(probability),
        None => checkpoint,
    })
}

/// `OUT-data`, where a program keeps what it makes of its texts.
pub fn beside(out: &Path) -> PathBuf {
    // `.` has no name of its own, and would lead into the run's own folder, as a slash behind would.
    let out = std::path::absolute(out).unwrap_or_else(|_| out.into());
    let mut name = out.components().collect::<PathBuf>().into_os_string();
    name.push("-data");
    PathBuf::from(name)
}

/// A checksum of a tokenizer, and of what is trained and judged on: texts that have changed, labels in another order,
/// words with other numbers make another run.
///
/// # Errors
/// If the tokenizer cannot be written.
pub fn mark<C: AsRef<[u8]>>(
    encoder: &TextEncoder,
    content: impl IntoIterator<Item = C>,
) -> Result<String> {
    let tokenizer = encoder.tokenizer().to_string(false);
    let tokenizer = tokenizer.map_err(anyhow::Error::msg)?;
    let mut sum = crc32fast::Hasher::new();
    sum.update(tokenizer.as_bytes());
    for part in content {
        let part = part.as_ref();
        // With its length: where one part ends is told, too.
        sum.update(&(part.len() as u64).to_le_bytes());
        sum.update(part);
    }
    Ok(format!("{:08x}", sum.finalize()))
}

/// What a checkpoint brought, in a line; nothing for a model from scratch.
pub fn loaded(report: Option<&LoadReport>) -> String {
    let or_none = |names: &[String]| match names {
        [] => "none".to_string(),
        names => names.join(", "),
    };
    report.map_or_else(String::new, |report| {
        format!(
            "\n  {} tensors loaded, fresh: {}, not used: {}",
            report.loaded.len(),
            or_none(&report.initialised),
            or_none(&report.unused)
        )
    })
}
