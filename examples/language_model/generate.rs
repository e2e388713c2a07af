//! `language_model generate`: a text from a model, word by word.

use crate::corpus::VOCABULARY;
use adahessian::ops::Mode;
use adahessian::random::Stream;
use adahessian::without_graph;
use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use clap::Args;
use common::sampling::Sampling;
use common::values::{above_zero, count, not_negative};
use common::{answers, program};
use datasets::words::{END, WordVocabulary};
use models::{LanguageModel, Start};
use std::io::Write;
use std::path::PathBuf;

/// Let a model go on with a text.
#[derive(Args)]
pub struct Options {
    /// The folder of a run, or of its model
    #[arg(value_name = "RUN")]
    run: PathBuf,

    /// What the text begins with
    #[arg(long, default_value = "")]
    prompt: String,

    /// Words to write
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = count)]
    words: usize,

    /// What logits are divided by; 0 always takes the likeliest word
    #[arg(long, default_value_t = 1.0, value_parser = not_negative)]
    temperature: f64,

    /// Draw from the K likeliest words only
    #[arg(long, value_name = "K", value_parser = count)]
    top_k: Option<usize>,

    /// Draw from the likeliest words that together have this probability; of those that --top-k leaves
    #[arg(long, value_name = "P", value_parser = above_zero)]
    top_p: Option<f64>,

    /// The seed of what is drawn
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,

    /// Threads [default: the machine's physical cores]
    #[arg(long)]
    threads: Option<usize>,
}

pub fn run(options: &Options) -> Result<()> {
    program::start(options.threads)?;
    let inner = options.run.join("model");
    let folder = if inner.is_dir() {
        inner
    } else {
        options.run.clone()
    };
    let start = Start {
        device: program::device(&options.device)?,
        ..Start::default()
    };
    let (model, _) = LanguageModel::load(&folder, &start)?;
    let vocabulary = WordVocabulary::read(&folder.join(VOCABULARY))?;
    let sampling = Sampling {
        temperature: options.temperature,
        top_k: options.top_k,
        top_p: options.top_p,
    };
    let mut ids = vec![vocabulary.end()];
    ids.extend(
        options
            .prompt
            .split_whitespace()
            .map(|word| vocabulary.id(word)),
    );
    let mut output = std::io::stdout().lock();
    for &id in &ids[1..] {
        answers::printed(say(&mut output, &vocabulary, id))?;
    }
    for word in 0..options.words {
        let seen = &ids[ids.len().saturating_sub(model.config().window)..];
        let words = Tensor::new(seen, &Device::Cpu)?.unsqueeze(0)?;
        let logits = without_graph(|| model.forward(&words, &Mode::Eval))?.detach(); // [1, T, V]
        let last = logits.get(0)?.get(seen.len() - 1)?;
        let last: Vec<f32> = last.to_dtype(DType::F32)?.to_vec1()?;
        let uniform = Stream::new(options.seed, "words", word as u64, 0).uniform(1)[0];
        let id = sampling.draw(&last, uniform).context("drawing a word")?;
        let id = id as u32;
        answers::printed(say(&mut output, &vocabulary, id))?;
        ids.push(id);
    }
    answers::printed(writeln!(output).map_err(Into::into))
}

fn say(output: &mut impl Write, vocabulary: &WordVocabulary, id: u32) -> Result<()> {
    match vocabulary.word(id) {
        Some(END) => writeln!(output)?,
        word => write!(output, "{} ", word.unwrap_or_default())?,
    }
    Ok(output.flush()?)
}
