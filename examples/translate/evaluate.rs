//! `translate evaluate`: BLEU of trained models on a set of sentences.

use super::corpus;
use super::decode::SearchArgs;
use super::pieces::{Pieces, are_cut};
use super::translator::Translator;
use anyhow::{Context, Result, bail};
use clap::Args;
use common::{program, runs, say, say_error, table};
use datasets::sample::number_pairs;
use datasets::translation::{Pair, read_parallel, remove_marks};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::Instant;
use trainers::disk::write_whole;
use trainers::generation::{MultiBleu, SacreBleu};

/// Translate a set of sentences with trained models, and score the translations.
#[derive(Args)]
pub struct Options {
    /// Folders of runs or of comparisons, or of models
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,

    /// The folder of the set [default: generated numbers, German and English]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// The set: the files SET.LANGUAGE
    #[arg(long, default_value = "test", requires = "data")]
    set: String,

    /// The first N sentences only
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    #[command(flatten)]
    search: SearchArgs,

    /// Write each model's translations into this folder, in a file named after the run's path
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,

    /// Threads [default: the machine's physical cores]
    #[arg(long)]
    threads: Option<usize>,
}

pub fn run(options: &Options) -> Result<()> {
    program::start(options.threads)?;
    let has_model = |path: &Path| path.join("model").is_dir() || path.join("config.json").is_file();
    let named = options.runs.iter().map(|run| runs::named(run, has_model));
    let paths = named.collect::<Result<Vec<_>>>()?.concat();
    let (mut lines, mut failed) = (Vec::new(), 0);
    for path in &paths {
        // Those before it took minutes each.
        match evaluate(options, path).with_context(|| path.display().to_string()) {
            Ok(line) => lines.push(line),
            Err(error) if paths.len() == 1 => return Err(error),
            Err(error) => {
                say_error!("{error:#}");
                failed += 1;
            }
        }
    }
    let header = [
        "run",
        "sentences",
        "multi-BLEU",
        "lower case",
        "sacreBLEU",
        "seconds",
    ];
    say!("{}", table::format(&header, &lines));
    match failed {
        0 => Ok(()),
        _ => bail!("{failed} of {} models could not be evaluated", paths.len()),
    }
}

/// As people wrote them.
fn pairs(options: &Options, translator: &Translator) -> Result<Vec<Pair>> {
    let languages = &translator.languages;
    let mut pairs = match &options.data {
        Some(folder) => {
            let codes = [languages.source.as_str(), languages.target.as_str()];
            let files = corpus::files(folder, &options.set, codes);
            let [source, target] = files.with_context(|| {
                let [source, target] = codes;
                let (folder, set) = (folder.display(), &options.set);
                format!("{folder}: no {set}.{source} and {set}.{target}, plain or with .gz behind")
            })?;
            read_parallel(&source, &target)?
        }
        None => {
            let codes = (languages.source.as_str(), languages.target.as_str());
            if codes != ("de", "en") {
                let (source, target) = codes;
                bail!(
                    "--data: the generated numbers are German and English, and the model translates {source} to {target}: \
                     name the folder of a set"
                );
            }
            // Behind those that the sample has for training and validation.
            let [_, pairs] = number_pairs(corpus::SAMPLE.0 + corpus::SAMPLE.1, 500, 0);
            pairs
                .into_iter()
                .map(|(source, target)| Pair { source, target })
                .collect()
        }
    };
    pairs.truncate(options.limit.unwrap_or(usize::MAX));
    Ok(pairs)
}

fn evaluate(options: &Options, path: &Path) -> Result<Vec<String>> {
    let translator = Translator::load(path, &program::device(&options.device)?)?;
    let languages = translator.languages.clone();
    let file = written(options, path, &languages.target)?;
    let pairs = pairs(options, &translator)?;
    refuse_pieces(&translator, &pairs)?;
    let prepare = |text: &str, language: &str| languages.preparation.prepared(text, language);
    let sources: Vec<String> = pairs
        .iter()
        .map(|pair| prepare(&pair.source, &languages.source))
        .collect();
    let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
    let began = Instant::now();
    let found = translator.translate(&sources, &options.search.search(&translator))?;
    let seconds = began.elapsed().as_secs_f64();
    let texts: Vec<&str> = found.iter().map(|best| best[0].text.as_str()).collect();
    let people: Vec<String> = texts
        .iter()
        .map(|text| languages.preparation.undone(text, &languages.target))
        .collect();
    if let Some(file) = file {
        write_whole(&file, (people.join("\n") + "\n").as_bytes())?;
    }
    let prepared: Vec<String> = pairs
        .iter()
        .map(|pair| remove_marks(&prepare(&pair.target, &languages.target)))
        .collect();
    let raw = pairs.iter().map(|pair| remove_marks(&pair.target));
    let raw: Vec<String> = raw.collect();
    let cased = MultiBleu { lowercase: false };
    let small = MultiBleu { lowercase: true };
    // A model that knows no case is not asked for it.
    let sacre = SacreBleu {
        lowercase: languages.preparation.lower_case,
        ..SacreBleu::default()
    };
    Ok(vec![
        path.display().to_string(),
        pairs.len().to_string(),
        format!("{:.2}", cased.score(&texts, &[prepared.as_slice()])?.score),
        format!("{:.2}", small.score(&texts, &[prepared.as_slice()])?.score),
        format!("{:.2}", sacre.score(&people, &[raw.as_slice()])?.score),
        format!("{seconds:.1}"),
    ])
}

/// Refuses a set that is in pieces of words where the model makes its own: its scores would be none of the model's.
fn refuse_pieces(translator: &Translator, pairs: &[Pair]) -> Result<()> {
    if !are_cut(&translator.subwords, translator.languages.preparation) {
        return Ok(());
    }
    let mut pieces = Pieces::default();
    for (number, pair) in pairs.iter().enumerate() {
        pieces.look(&pair.source, || format!("the set's line {}", number + 1));
    }
    pieces.refuse(&[])
}

/// Where the translations go, if anywhere; known before there are any.
fn written(options: &Options, path: &Path, language: &str) -> Result<Option<PathBuf>> {
    let Some(folder) = &options.out else {
        return Ok(None);
    };
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let file = folder.join(format!("{}.{language}", file_name(path)));
    match file.exists() {
        true => bail!(
            "{}: is there already: remove it, or choose another --out",
            file.display()
        ),
        false => Ok(Some(file)),
    }
}

/// A run's path in one word: two runs of one name differ in their folders.
fn file_name(path: &Path) -> String {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(part) => Some(part.to_string_lossy()),
        _ => None,
    });
    match parts.collect::<Vec<_>>().join("-") {
        name if name.is_empty() => "run".into(),
        name => name,
    }
}
