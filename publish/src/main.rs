//! `publish runs/mini/model --repo OWNER/NAME`: a run's model to the Hugging Face Hub.

use clap::Parser;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use publish::{Folder, Hub, Push, Result};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// A line on standard output, whoever reads it: nothing ends because nobody does.
macro_rules! say {
    ($($text:tt)*) => {{
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

/// Push a run's model, its tokenizer and its card to the Hugging Face Hub, as one commit.
///
/// The token is HF_TOKEN, or what `hf auth login` has saved; the server HF_ENDPOINT, or the public Hub.
#[derive(Parser)]
struct Cli {
    /// The folder `model` (or `model-best`) of a run, or the run's own
    folder: PathBuf,

    /// The repository, OWNER/NAME; made where it is not there
    #[arg(long)]
    repo: String,

    /// Make it a private one; push nothing if it is there and public
    #[arg(long)]
    private: bool,

    /// The branch, which must be there [default: main]
    #[arg(long)]
    branch: Option<String>,

    /// What the commit says of itself
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,

    /// Open a pull request instead of changing the branch
    #[arg(long)]
    pull_request: bool,

    /// Say what would be pushed, and do nothing
    #[arg(long)]
    dry_run: bool,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let mut push = Push::to(&cli.repo)?;
    push.private = cli.private;
    push.branch.clone_from(&cli.branch);
    push.pull_request = cli.pull_request;
    if let Some(message) = &cli.message {
        push.message.clone_from(message);
    }
    let folder = Folder::open(&cli.folder)?;
    for file in &folder.files {
        say!("{}, {}", file.name, HumanBytes(file.bytes));
    }
    for name in &folder.left_out {
        say!("{name} stays here");
    }
    match folder.license()? {
        Some(license) => say!("license: {license}"),
        None if folder.has_card() => say!(
            "README.md names no license: without one nobody may use the model; write `license: ID` between the --- of \
             its first lines"
        ),
        None => say!("no README.md: the repository will have no card, and no license"),
    }
    let (count, bytes) = (folder.files.len(), HumanBytes(folder.bytes()));
    if cli.dry_run {
        say!("{count} files, {bytes}, would go to {}", push.repo);
        return Ok(());
    }
    let hub = Hub::from_variables(|name| std::env::var(name).ok())?;
    let bar = bar(folder.bytes());
    let shown = bar.clone();
    let pushed = hub.push(&folder, &push, move |done, _| shown.set_position(done));
    bar.finish_and_clear();
    let pushed = pushed?;
    say!("{count} files, {bytes}: {}", pushed.url);
    Ok(())
}

/// Shown on a terminal only.
fn bar(bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {bytes} of {total_bytes}, {bytes_per_sec}");
    let bar = ProgressBar::new(bytes);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
