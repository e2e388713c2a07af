//! `translate score`: BLEU of a file of translations.

use anyhow::{Context, Result, bail};
use clap::Args;
use common::say;
use std::path::{Path, PathBuf};
use trainers::generation::{MultiBleu, SacreBleu};

/// Score translations against references, both a sentence a line: as multi-bleu does, of tokens as they are, and as
/// sacreBLEU does.
#[derive(Args)]
pub struct Options {
    /// The translations
    #[arg(value_name = "FILE")]
    hypotheses: PathBuf,

    /// Files of references; several are several references of each sentence
    #[arg(required = true, value_name = "REFERENCE")]
    references: Vec<PathBuf>,

    /// Drop case
    #[arg(long)]
    lower_case: bool,
}

pub fn run(options: &Options) -> Result<()> {
    let hypotheses = lines(&options.hypotheses)?;
    let files = options.references.iter().map(|path| lines(path));
    let files = files.collect::<Result<Vec<_>>>()?;
    for (file, path) in files.iter().zip(&options.references) {
        if file.len() != hypotheses.len() {
            bail!(
                "{}: {} lines, expected {}, as many as {} has",
                path.display(),
                file.len(),
                hypotheses.len(),
                options.hypotheses.display()
            );
        }
    }
    let references: Vec<&[String]> = files.iter().map(Vec::as_slice).collect();
    let tokens = MultiBleu {
        lowercase: options.lower_case,
    };
    say!("{}", tokens.score(&hypotheses, &references)?);
    let text = SacreBleu {
        lowercase: options.lower_case,
        ..SacreBleu::default()
    };
    let bleu = text.score(&hypotheses, &references)?;
    say!("{}", text.report(&bleu, files.len()));
    Ok(())
}

fn lines(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(text.lines().map(str::to_string).collect())
}
