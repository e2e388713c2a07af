//! `criteo prepare`: from text to a store.

use anyhow::{Context, Result, bail};
use clap::Args;
use common::program;
use common::say;
use datasets::criteo::{Malformed, Phase, Preprocessing, Progress, Store, Vocabularies};
use datasets::criteo::{prepare, prepare_with};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::time::Instant;
use trainers::callbacks::peak_memory_mib;

/// Turn click logs into a store, once: records of 160 bytes that training maps into memory.
///
/// Takes the contest's train.txt, its test.txt (--unlabelled) or the day files of the terabyte, plain
/// or gzipped. A store that is there already and was made from the same files in the same way is kept (with --like there must be none); a
/// preparation that was interrupted goes on where it was.
#[derive(Args)]
pub struct Options {
    /// Click logs, in the order of time
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// The store to make
    #[arg(long, value_name = "STORE")]
    out: PathBuf,

    /// The id of a categorical value is the value modulo N, without a vocabulary [default: ids in the
    /// order of appearance]
    #[arg(long, value_name = "N")]
    hash_modulo: Option<u32>,

    /// Values seen less often than this share an id
    #[arg(long, default_value_t = 1, value_name = "N")]
    minimum_count: u32,

    /// Leave out and count lines that break the format, instead of ending with the first
    #[arg(long)]
    skip_malformed: bool,

    /// The lines have no label, as in test.txt
    #[arg(long)]
    unlabelled: bool,

    /// Take the ids of this store's vocabularies, for later days or test.txt
    #[arg(long, value_name = "STORE")]
    like: Option<PathBuf>,

    /// Threads [default: the machine's physical cores]
    #[arg(long)]
    threads: Option<usize>,
}

impl Options {
    fn preprocessing(&self) -> Preprocessing {
        Preprocessing {
            labelled: !self.unlabelled,
            hash_modulo: self.hash_modulo,
            minimum_count: self.minimum_count,
            malformed: match self.skip_malformed {
                true => Malformed::Skip,
                false => Malformed::Refuse,
            },
        }
    }
}

pub fn run(options: &Options) -> Result<()> {
    program::start(options.threads)?;
    let began = Instant::now();
    let store = match kept(options)? {
        Some(store) => {
            say!("{}: is there already", options.out.display());
            store
        }
        None => make(options)?,
    };
    let seconds = began.elapsed().as_secs_f64();
    report(&store, seconds);
    Ok(())
}

/// The store of an earlier call, if it is what this one would make.
fn kept(options: &Options) -> Result<Option<Store>> {
    if !options.out.exists() {
        return Ok(None);
    }
    if options.like.is_some() {
        bail!(
            "{}: is there already; with --like a store is always made, and would take its place: remove it, or choose \
             another --out",
            options.out.display()
        );
    }
    let same = || -> datasets::Result<Store> {
        let store = Store::open(&options.out)?;
        store.expect(&options.preprocessing())?;
        store.expect_sources(&options.files)?;
        Ok(store)
    };
    let store = same().context("remove the file to make it again, or choose another --out")?;
    Ok(Some(store))
}

fn make(options: &Options) -> Result<Store> {
    let preprocessing = options.preprocessing();
    let bar = Bar::new();
    let store = match &options.like {
        None => prepare(&options.files, &options.out, &preprocessing, |p| {
            bar.show(p)
        }),
        Some(like) => {
            let vocabularies = vocabularies(like)?;
            prepare_with(
                &options.files,
                &options.out,
                &preprocessing,
                &vocabularies,
                |p| bar.show(p),
            )
        }
    };
    bar.0.finish_and_clear();
    Ok(store?)
}

fn vocabularies(like: &Path) -> Result<Vocabularies> {
    let vocabularies = Store::open(like)?.vocabularies()?;
    vocabularies.with_context(|| {
        let like = like.display();
        format!("{like}: its ids are hashes: give the same --hash-modulo instead of --like")
    })
}

/// A bar over both passes: the first takes most of the time.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::new(0);
        let template = "{bar:24} {bytes}/{total_bytes} {msg} [{elapsed} < {eta}]";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self(bar)
    }

    fn show(&self, progress: Progress) {
        let what = match progress.phase {
            Phase::Reading => "rows read",
            Phase::Numbering => "rows numbered",
        };
        self.0.set_length(progress.bytes_in_all);
        self.0.set_position(progress.bytes);
        self.0.set_message(format!("{} {what}", progress.rows));
    }
}

fn report(store: &Store, seconds: f64) {
    let summary = store.summary();
    let bytes: u64 = summary.sources.iter().map(|source| source.bytes).sum();
    let ids: usize = store.table_sizes().iter().sum();
    let clicks = match summary.preprocessing.labelled {
        true => format!(
            "{:.2} % clicks",
            100.0 * summary.clicks as f64 / summary.rows as f64
        ),
        false => "no labels".into(),
    };
    say!(
        "{}: {} rows, {clicks}, {ids} ids in {} tables, the largest of {}",
        store.path().display(),
        summary.rows,
        store.table_sizes().len(),
        store.table_sizes().iter().max().unwrap_or(&0),
    );
    say!(
        "  {seconds:.2} s, {:.1} MB of text, {:.1} MB/s, peak {:.0} MiB",
        bytes as f64 / 1e6,
        bytes as f64 / 1e6 / seconds,
        peak_memory_mib().unwrap_or_default(),
    );
    if summary.skipped.count > 0 {
        let places = summary.skipped.first.iter();
        let places: Vec<String> = places
            .map(|(file, line)| format!("{file}:{line}"))
            .collect();
        say!(
            "  {} malformed lines left out: {}{}",
            summary.skipped.count,
            places.join(", "),
            if summary.skipped.count > places.len() as u64 {
                ", …"
            } else {
                ""
            },
        );
    }
}
