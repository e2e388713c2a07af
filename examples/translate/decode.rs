//! `translate decode`: lines in, translations out.

use super::pieces::{LOOKED_AT, Pieces, are_cut};
use super::translator::Translator;
use anyhow::{Context, Result};
use clap::Args;
use common::values::count;
use common::{answers, program};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use trainers::generation::BeamSearch;

/// Lines that are translated at a time, at the most.
const PIECE: usize = 512;
/// Bytes that are read at a time.
const BUFFER: usize = 1 << 16;

/// How a search is made.
#[derive(Args)]
pub struct SearchArgs {
    /// Prefixes of each sentence that are gone on with
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = count)]
    pub beam: usize,

    /// The power of the length that a score is divided by
    #[arg(long, value_name = "POWER", default_value_t = 1.0)]
    pub length_penalty: f64,

    /// A translation has at most RATIO times the source's tokens, and --max-extra more
    #[arg(long, value_name = "RATIO", default_value_t = 0.0)]
    pub max_ratio: f64,

    /// Tokens that a translation may have beyond --max-ratio
    #[arg(long, value_name = "TOKENS", default_value_t = 200)]
    pub max_extra: usize,
}

impl SearchArgs {
    pub fn search(&self, translator: &Translator) -> BeamSearch {
        BeamSearch {
            beam: self.beam,
            length_penalty: self.length_penalty,
            max_ratio: self.max_ratio,
            max_extra: self.max_extra,
            ..translator.search()
        }
    }
}

/// Translate the lines of standard input: as many together as are there, so that who writes one and waits has its
/// translation.
#[derive(Args)]
pub struct Options {
    /// The folder of a run, or of its model
    #[arg(value_name = "RUN")]
    run: PathBuf,

    #[command(flatten)]
    search: SearchArgs,

    /// Print the N best translations of a line, with their scores
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count)]
    n_best: usize,

    /// Print the tokens as the model says them
    #[arg(long)]
    raw: bool,

    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,

    /// Threads [default: the machine's physical cores]
    #[arg(long)]
    threads: Option<usize>,
}

pub fn run(options: &Options) -> Result<()> {
    program::start(options.threads)?;
    let translator = Translator::load(&options.run, &program::device(&options.device)?)?;
    let search = BeamSearch {
        n_best: options.n_best,
        ..options.search.search(&translator)
    };
    let mut input = BufReader::with_capacity(BUFFER, std::io::stdin().lock());
    let mut output = std::io::stdout().lock();
    let cut = are_cut(&translator.subwords, translator.languages.preparation);
    let mut pieces = Pieces::default();
    let mut say =
        |lines: &[String]| answers::printed(say(options, &translator, &search, lines, &mut output));
    let (mut lines, mut number) = (Vec::with_capacity(PIECE), 0);
    loop {
        let mut line = String::new();
        let read = input.read_line(&mut line);
        if !matches!(read, Ok(bytes) if bytes > 0) {
            // What came before a line that is no text is translated all the same.
            say(&lines)?;
            return read
                .map(drop)
                .with_context(|| format!("line {} of the standard input", number + 1));
        }
        number += 1;
        if cut && number <= LOOKED_AT {
            pieces.look(&line, || format!("line {number} of the standard input"));
            pieces.refuse_beginning()?;
        }
        lines.push(line.trim_end_matches(['\n', '\r']).to_string());
        let waits = !input.buffer().contains(&b'\n');
        if waits || lines.len() == PIECE {
            say(&lines)?;
            lines.clear();
        }
    }
}

fn say(
    options: &Options,
    translator: &Translator,
    search: &BeamSearch,
    lines: &[String],
    output: &mut impl Write,
) -> Result<()> {
    let languages = &translator.languages;
    let prepare = |line: &String| languages.preparation.prepared(line, &languages.source);
    let prepared: Vec<String> = lines.iter().map(prepare).collect();
    let prepared: Vec<&str> = prepared.iter().map(String::as_str).collect();
    for found in translator.translate(&prepared, search)? {
        for translation in found {
            let text = match options.raw {
                true => translation.text,
                false => languages
                    .preparation
                    .undone(&translation.text, &languages.target),
            };
            match options.n_best {
                1 => writeln!(output, "{text}")?,
                _ => writeln!(output, "{:.4}\t{text}", translation.score)?,
            }
        }
    }
    Ok(output.flush()?)
}
