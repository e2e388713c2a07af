//! What a fine-tuned classifier says of texts: lines of a file, or a set of GLUE in the form that its server takes.
//!
//! ```text
//! echo 'a warm and funny film' | predict runs/sst2
//! predict runs/rte --task rte --data ./glue_data --out RTE.tsv
//! ```

use adahessian::ops::Mode;
use adahessian::without_graph;
use anyhow::{Context, Result, bail};
use candle_core::{DType, Device};
use clap::{CommandFactory, FromArgMatches, Parser};
use common::values::count;
use common::{answers, driver, program, say_error};
use datasets::glue::{self, GlueTask, Ragged, Row, Split};
use datasets::{TextDataset, TextEncoder, hub};
use models::{Model, Problem, SequenceClassifier, Start, auto};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use trainers::disk::write_whole;

/// Bytes that are read at once: lines that come together are answered together.
const BUFFER: usize = 1 << 16;

/// Classify texts with a fine-tuned model
///
/// Each line of a file, or of standard input, is a text, or two with a tab between them; its line of the answer has the
/// label, its probability, and the text. A model of one label gives its score. With --task the texts are those of GLUE, and the
/// answer is what GLUE's server takes: index and prediction.
#[derive(Parser)]
#[command(name = "predict")]
struct Options {
    /// A run's folder, a model's, or a Hub id
    model: String,

    /// The file of the texts [default: standard input]
    #[arg(conflicts_with = "task")]
    file: Option<PathBuf>,

    /// Of a run, take the model of the best evaluation, where it is another than the last one
    #[arg(long)]
    best: bool,

    /// A task of GLUE: rte, mrpc, stsb, sst2, qnli, qqp, mnli, mnli-mm or cola
    #[arg(long)]
    task: Option<String>,

    /// Its folder, in the layout of GLUE's download or with parquet files [default: from the Hub]
    #[arg(long, value_name = "DIR", requires = "task")]
    data: Option<PathBuf>,

    /// Its rows: test, validation or train
    #[arg(long, default_value = "test", value_parser = ["test", "validation", "train"], requires = "task")]
    set: String,

    /// Write the answer into this new file [default: standard output]
    #[arg(long, value_name = "FILE.tsv")]
    out: Option<PathBuf>,

    /// Longest text in tokens; what is longer is cut [default: as in training, if the model's tokenizer.json says it, else 128;
    /// at most as many as the model has positions]
    #[arg(long, value_name = "TOKENS", value_parser = count)]
    max_length: Option<usize>,

    /// Texts at a time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = count)]
    batch_size: usize,

    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,

    /// Threads [default: the machine's physical cores]
    #[arg(long, value_parser = common::values::threads)]
    threads: Option<usize>,
}

fn main() -> ExitCode {
    let matches = Options::command().get_matches();
    let options = Options::from_arg_matches(&matches).map_err(anyhow::Error::from);
    let done = options.and_then(|options| run(&options));
    driver::exit(done.map(|()| ExitCode::SUCCESS))
}

fn run(options: &Options) -> Result<()> {
    program::start(options.threads)?;
    answers::expect_new(options.out.as_deref())?;
    let device = program::device(&options.device)?;
    let folder = folder(options)?;
    let start = Start {
        device: device.clone(),
        ..Start::default()
    };
    let (model, report) = auto::sequence_classifier(&folder, None, &start)?;
    if let Some(name) = report.initialised.first() {
        bail!(
            "{}: has no `{name}`, so that its answers would be drawn by lot: fine-tune it first (`glue --model`)",
            folder.display()
        );
    }
    if model.config()["problem_type"] == Problem::MultiLabel.name() {
        bail!(
            "{}: any of its labels may be right ({}), and `predict` names one: take transformers' text-classification pipeline",
            folder.display(),
            Problem::MultiLabel.name()
        );
    }
    let positions = model.encoder().architecture().positions;
    let length = options.max_length.or(TextEncoder::saved_length(&folder)?);
    let most = length.unwrap_or(128).min(positions);
    let encoder = TextEncoder::from_folder(&folder, most)?.allow_small_vocabulary();
    encoder.check(model.encoder().architecture().vocabulary, positions)?;
    let model = Predictor {
        model,
        encoder,
        device,
        batch_size: options.batch_size,
    };
    match &options.task {
        Some(task) => of_task(options, &model, task.parse()?),
        None => of_lines(options, &model),
    }
}

/// Where the model's files are.
fn folder(options: &Options) -> Result<PathBuf> {
    let path = Path::new(&options.model);
    match answers::model_of_run(path, options.best) {
        Some(folder) => Ok(folder),
        None if path.is_dir() && !path.join("config.json").is_file() => {
            Err(answers::no_model(path, options.best))
        }
        None => Ok(hub::checkpoint_folder(&options.model)?),
    }
}

/// A model, and what makes batches for it.
struct Predictor {
    model: SequenceClassifier,
    encoder: TextEncoder,
    device: Device,
    batch_size: usize,
}

impl Predictor {
    /// The logits of each row, in their order.
    fn logits(&self, rows: &[Row]) -> Result<Vec<Vec<f64>>> {
        let texts = TextDataset::encode(&self.encoder, rows)?;
        let mut all = Vec::with_capacity(rows.len());
        let indices: Vec<usize> = (0..rows.len()).collect();
        for indices in indices.chunks(self.batch_size) {
            let batch = texts.batch(indices, &self.device)?;
            let (types, mask) = (Some(&batch.token_type_ids), Some(&batch.attention_mask));
            let logits = without_graph(|| {
                self.model
                    .forward(&batch.input_ids, types, mask, &Mode::Eval)
            })?;
            all.extend(logits.to_dtype(DType::F64)?.to_vec2::<f64>()?);
        }
        answers::expect_finite(&all)?;
        Ok(all)
    }

    /// The same; of lines of which one cannot be answered, those before it. `first` is the first one's number.
    fn lines_up_to_an_error(&self, rows: &[Row], first: usize, to: &mut dyn Write) -> Result<()> {
        let mut all = Vec::new();
        if self.lines(rows, &mut all).is_ok() {
            return Ok(to.write_all(&all)?);
        }
        for (number, row) in (first..).zip(rows) {
            self.lines(std::slice::from_ref(row), to)
                .with_context(|| format!("line {number}"))?;
        }
        Ok(())
    }

    /// Lines as they are, each with what the model says of it in front.
    fn lines(&self, rows: &[Row], to: &mut dyn Write) -> Result<()> {
        let names = self.model.label_names();
        for (row, logits) in rows.iter().zip(self.logits(rows)?) {
            match logits.as_slice() {
                [score] => write!(to, "{score:.4}")?,
                logits => {
                    let class = largest(logits);
                    let sum: f64 = logits.iter().map(|x| (x - logits[class]).exp()).sum();
                    write!(to, "{}\t{:.4}", names[class], 1.0 / sum)?;
                }
            }
            let second = row.second.iter().map(|text| format!("\t{text}"));
            writeln!(to, "\t{}{}", row.first, second.collect::<String>())?;
        }
        Ok(())
    }
}

/// The first of the largest.
fn largest(logits: &[f64]) -> usize {
    let better = |best: usize, i: usize| if logits[i] > logits[best] { i } else { best };
    (0..logits.len()).fold(0, better)
}

/// A file in large portions; of standard input the lines that wait, so that who types one has its answer. What comes
/// before a line that is no text, or that the tokenizer refuses, is answered all the same.
fn of_lines(options: &Options, model: &Predictor) -> Result<()> {
    let source: Box<dyn Read> = match &options.file {
        Some(path) => Box::new(File::open(path).with_context(|| path.display().to_string())?),
        None => Box::new(io::stdin().lock()),
    };
    let mut input = BufReader::with_capacity(BUFFER, source);
    let portion = 64 * options.batch_size;
    let (mut answer, mut rows, mut number) = (Vec::new(), Vec::new(), 0);
    loop {
        let mut line = String::new();
        let read = input.read_line(&mut line);
        let ended = !matches!(read, Ok(bytes) if bytes > 0);
        if !ended {
            number += 1;
            rows.push(row(&line));
        }
        let waits = options.file.is_none() && !input.buffer().contains(&b'\n');
        if ended || waits || rows.len() >= portion {
            let first = number + 1 - rows.len();
            let said = match options.out {
                Some(_) => model.lines_up_to_an_error(&rows, first, &mut answer),
                None => {
                    let mut output = BufWriter::new(io::stdout().lock());
                    let written = model.lines_up_to_an_error(&rows, first, &mut output);
                    answers::printed(written.and_then(|()| Ok(output.flush()?)))
                }
            };
            if let Err(error) = said {
                answers::finish_in_part(options.out.as_deref(), &answer)?;
                return Err(error);
            }
            rows.clear();
        }
        if ended {
            return match read {
                Ok(_) => answers::finish(options.out.as_deref(), &answer),
                Err(error) => {
                    answers::finish_in_part(options.out.as_deref(), &answer)?;
                    Err(error).with_context(|| format!("line {}", number + 1))
                }
            };
        }
    }
}

/// A line with its text, or two.
fn row(line: &str) -> Row {
    let line = line.strip_suffix('\n').unwrap_or(line);
    let line = line.strip_suffix('\r').unwrap_or(line);
    let (first, second) = match line.split_once('\t') {
        Some((first, second)) => (first, Some(second.to_string())),
        None => (line, None),
    };
    Row {
        first: first.into(),
        second,
        label: None,
    }
}

/// Index and prediction, with GLUE's own names of the labels.
fn of_task(options: &Options, model: &Predictor, task: GlueTask) -> Result<()> {
    let split = match options.set.as_str() {
        "train" => Split::Train,
        "validation" => Split::Validation,
        _ => Split::Test,
    };
    // The server counts every row; in other sets the published files have a few that are not whole.
    let ragged = match split {
        Split::Test => Ragged::Refuse,
        _ => Ragged::SkipAndCount,
    };
    let loaded = glue::load_with(options.data.as_deref(), task, split, ragged)?;
    if loaded.skipped > 0 {
        say_error!(
            "{} rows that are not whole are left out, and an index counts those that are",
            loaded.skipped
        );
    }
    let rows = loaded.rows;
    let (names, own) = (task.labels(), model.model.label_names());
    let labels = names.len().max(1);
    let same = names
        .iter()
        .zip(own)
        .all(|(name, own)| own.eq_ignore_ascii_case(name));
    if own.len() != labels || (labels > 1 && !same) {
        bail!(
            "--task {task}: the model's labels are {}, and the task's {}: it was fine-tuned for something else",
            own.join(", "),
            if labels > 1 {
                names.join(", ")
            } else {
                "one score".into()
            }
        );
    }
    let mut answer = String::from("index\tprediction\n");
    for (index, logits) in model.logits(&rows)?.iter().enumerate() {
        let prediction = match task.is_regression() {
            true => format!("{:.3}", logits[0].clamp(0.0, 5.0)),
            false => task.written_labels()[largest(logits)].to_string(),
        };
        answer += &format!("{index}\t{prediction}\n");
    }
    match &options.out {
        Some(out) => Ok(write_whole(out, answer.as_bytes())?),
        None => {
            let mut output = io::stdout().lock();
            let written = output.write_all(answer.as_bytes());
            answers::printed(written.and_then(|()| output.flush()).map_err(Into::into))
        }
    }
}
