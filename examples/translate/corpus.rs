//! Parallel text from a folder: its files, its preparation, its subwords.

use super::pieces::{LOOKED_AT, Pieces, ways_to_let};
use super::train::TranslateArgs;
use anyhow::{Context, Result, bail};
use common::program::busy;
use datasets::sample::number_pairs;
use datasets::translation::{
    Filter, Language, Moses, Pair, PairStore, PairTexts, ParallelLines, RULES, Subwords,
    encode_pairs, learn_subwords, lower_case, try_learn_subwords,
};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// The names of a set of validation sentences, the first that is there.
const VALIDATION: [&str; 4] = ["valid", "val", "validation", "dev"];
/// Pairs of the sample.
pub const SAMPLE: (usize, usize) = (4000, 200);

/// What is done to a line before it is cut into subwords, and undone behind.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preparation {
    /// Whether punctuation is split off.
    pub tokenize: bool,
    /// Whether case is dropped.
    pub lower_case: bool,
    /// Whether what is split off is escaped, `&apos;s`, as a dictionary of IWSLT's usual preparation has it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub escape: bool,
}

impl Preparation {
    /// A line as the model sees it.
    pub fn prepared(self, line: &str, language: &str) -> String {
        let mut line = match self.tokenize {
            true => Moses {
                escape: self.escape,
                ..Moses::new(Language::from_code(language))
            }
            .tokenize(line),
            false => line.to_string(),
        };
        if self.lower_case {
            line = lower_case(&line);
        }
        line
    }

    /// What the model says, as people write it.
    pub fn undone(self, line: &str, language: &str) -> String {
        match self.tokenize {
            true => Moses::new(Language::from_code(language)).detokenize(line),
            false => line.to_string(),
        }
    }
}

/// What the runs on the same text share.
pub struct Data {
    pub subwords: Subwords,
    pub train: PairStore,
    pub validation: PairStore,
    /// The validation sentences as the model sees them.
    pub pairs: Vec<Pair>,
    /// Training pairs that are empty, too long or too unequal.
    pub left_out: usize,
    /// What was done to all lines.
    pub preparation: Preparation,
}

impl Data {
    /// The longest validation sentence in tokens.
    ///
    /// # Errors
    /// If a sentence has more tokens than the model has positions: better now than at the end of an epoch.
    pub fn longest(&self, positions: usize) -> Result<usize> {
        for (set, store) in [("training", &self.train), ("validation", &self.validation)] {
            let lengths = store.lengths();
            let longest = lengths.iter().map(|pair| pair.0.max(pair.1)).enumerate();
            if let Some((pair, tokens)) = longest.max_by_key(|&(_, tokens)| tokens)
                && tokens > positions
            {
                bail!(
                    "{set} pair {pair}, counted from 0 among those that are kept, has {tokens} tokens; the model has {positions} positions: \
                     lower --max-length for training pairs, cut validation pairs"
                );
            }
        }
        let lengths = self.validation.lengths().into_iter();
        Ok(lengths.map(|pair| pair.0.max(pair.1)).max().unwrap_or(0))
    }

    /// How many validation pairs there are, for people. The loss has none of an empty side: there is nothing to say.
    pub fn judged_by(&self) -> String {
        let (in_loss, all) = (self.validation.len(), self.pairs.len());
        match all - in_loss {
            0 => format!("{all} validation pairs"),
            empty => format!(
                "{in_loss} validation pairs ({empty} with an empty side are not in the loss)"
            ),
        }
    }

    /// Checksums of all that is trained on, and of all that it is judged by, as token ids.
    pub fn mark(&self) -> String {
        let sets = [&self.train, &self.validation];
        sets.map(|set| format!("{:08x}", checksum(set))).join("-")
    }
}

fn checksum(set: &PairStore) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for pair in 0..set.len() {
        for ids in [set.source(pair), set.target(pair)] {
            let ids = ids.unwrap_or_default();
            hasher.update(&(ids.len() as u64).to_le_bytes());
            ids.iter().for_each(|id| hasher.update(&id.to_le_bytes()));
        }
    }
    hasher.finalize()
}

/// The two files of a set.
pub fn files(folder: &Path, set: &str, languages: [&str; 2]) -> Option<[PathBuf; 2]> {
    let file = |language: &str| {
        let names = [format!("{set}.{language}"), format!("{set}.{language}.gz")];
        let paths = names.into_iter().map(|name| folder.join(name));
        paths.into_iter().find(|path| path.is_file())
    };
    Some([file(languages[0])?, file(languages[1])?])
}

/// The pairs of a set, as the model sees them.
pub fn pairs(
    folder: &Path,
    set: &str,
    languages: [&str; 2],
    preparation: Preparation,
) -> Result<Vec<Pair>> {
    let [source, target] = files(folder, set, languages).with_context(|| {
        let [source, target] = languages;
        format!(
            "{}: no {set}.{source} and {set}.{target}, plain or with .gz behind",
            folder.display()
        )
    })?;
    let lines = ParallelLines::open(&source, &target)?;
    let pairs = lines.map(|pair| {
        let pair = pair?;
        Ok(Pair {
            source: preparation.prepared(&pair.source, languages[0]),
            target: preparation.prepared(&pair.target, languages[1]),
        })
    });
    pairs.collect()
}

/// Refuses what the settings say twice, or of the shipped numbers.
pub fn check(own: &TranslateArgs) -> Result<()> {
    // By their values: a configuration names them all.
    let other = (own.source.as_str(), own.target.as_str()) != ("de", "en");
    let other = other || own.tokenize || own.lower_case || own.subwords.is_some();
    if own.data.is_none() && other {
        bail!(
            "--source, --target, --tokenize, --lower-case, --subwords: the shipped numbers are German and English, and need \
             none of it; give --data, or leave them out"
        );
    }
    if own.subwords.is_some() && own.vocabulary != 10_000 {
        bail!("--vocabulary: --subwords brings its own; leave one of the two out");
    }
    Ok(())
}

/// The data of a run. What is made of the training text is kept beside the run's folder, in a folder of its name
/// and `-data`, and opened there again; of other text, or of the same one prepared otherwise, something else is
/// made beside it.
pub fn load(own: &TranslateArgs, limits: [Option<usize>; 2], out: &Path) -> Result<Data> {
    let Some(folder) = &own.data else {
        return sample(own, limits);
    };
    let languages = [own.source.as_str(), own.target.as_str()];
    let set = VALIDATION
        .iter()
        .find(|set| files(folder, set, languages).is_some());
    let Some(set) = set else {
        bail!(
            "{}: no validation sentences; tried {} with .{} and .{}, plain or with .gz behind",
            folder.display(),
            VALIDATION.join(", "),
            languages[0],
            languages[1]
        );
    };
    let raw = training_files(folder, languages)?;
    let given = own.subwords.as_deref().map(Subwords::from_folder);
    let given = given.transpose()?;
    refuse_pieces(own, given.as_ref(), &raw)?;
    let preparation = own.preparation(given.as_ref());
    let mut validation = pairs(folder, set, languages, preparation)?;
    validation.truncate(limits[1].unwrap_or(usize::MAX));
    let made = place(&stamp(own, preparation, limits[0], &raw)?, out)?;
    // Two runs that begin together would write the same files.
    let lock = File::create(made.join(".lock")).with_context(|| made.display().to_string())?;
    lock.lock().with_context(|| made.display().to_string())?;
    let train = busy("preparing the training text", || {
        prepared(preparation, languages, &raw, limits[0], &made)
    })?;
    let subwords = busy("learning subwords", || subwords(own, given, &train, &made))?;
    let texts = PairTexts {
        source: &train[0],
        target: &train[1],
        source_subwords: &subwords,
        target_subwords: &subwords,
        filter: own.filter(),
    };
    let built = busy("cutting the training text into subwords", || {
        texts.open_or_build(&made.join("train.pairs"))
    });
    let store_of_train = built?;
    let pairs_in_all = ParallelLines::open(&train[0], &train[1])?.count();
    Ok(Data {
        left_out: pairs_in_all.saturating_sub(store_of_train.len()),
        train: store_of_train,
        validation: store(&validation, &subwords, Filter::NONE)?,
        pairs: validation,
        subwords,
        preparation,
    })
}

fn store(pairs: &[Pair], subwords: &Subwords, filter: Filter) -> Result<PairStore> {
    let ids = encode_pairs(pairs, subwords, subwords, &filter)?;
    Ok(PairStore::in_memory(ids)?)
}

fn sample(own: &TranslateArgs, limits: [Option<usize>; 2]) -> Result<Data> {
    let [train, validation] = number_pairs(SAMPLE.0, SAMPLE.1, 0);
    let cut = |pairs: Vec<(String, String)>, limit: Option<usize>| -> Vec<Pair> {
        let pairs = pairs.into_iter().take(limit.unwrap_or(usize::MAX));
        pairs
            .map(|(source, target)| Pair { source, target })
            .collect()
    };
    let (train, validation) = (cut(train, limits[0]), cut(validation, limits[1]));
    let lines = train.iter().flat_map(|pair| [&pair.source, &pair.target]);
    let subwords = learn_subwords(lines, own.vocabulary)?;
    let pairs_in_all = train.len();
    let train = store(&train, &subwords, own.filter())?;
    Ok(Data {
        left_out: pairs_in_all - train.len(),
        train,
        validation: store(&validation, &subwords, Filter::NONE)?,
        pairs: validation,
        subwords,
        preparation: own.preparation(None),
    })
}

/// The file that says what the others in its folder were made of.
const MADE_OF: &str = "made-of.json";

fn training_files(folder: &Path, languages: [&str; 2]) -> Result<[PathBuf; 2]> {
    let [source, target] = languages;
    files(folder, "train", languages).with_context(|| {
        let folder = folder.display();
        format!("{folder}: no train.{source} and train.{target}, plain or with .gz behind")
    })
}

/// Refuses to cut what is in pieces already.
fn refuse_pieces(
    own: &TranslateArgs,
    subwords: Option<&Subwords>,
    raw: &[PathBuf; 2],
) -> Result<()> {
    let ways = ways_to_let(subwords, own.tokenize);
    if ways.is_empty() {
        return Ok(());
    }
    let mut pieces = Pieces::default();
    let pairs = ParallelLines::open(&raw[0], &raw[1])?;
    for (number, pair) in pairs.take(LOOKED_AT).enumerate() {
        let pair = pair?;
        for (line, file) in [&pair.source, &pair.target].into_iter().zip(raw) {
            pieces.look(line, || format!("{}: line {}", file.display(), number + 1));
        }
    }
    pieces.refuse(&[ways.join(" and ").as_str()])
}

/// All that decides what is made of the text.
fn stamp(
    own: &TranslateArgs,
    preparation: Preparation,
    limit: Option<usize>,
    raw: &[PathBuf; 2],
) -> Result<String> {
    let describe = |path: &PathBuf| -> Result<serde_json::Value> {
        let file = path
            .metadata()
            .with_context(|| path.display().to_string())?;
        let changed = file.modified()?.duration_since(std::time::UNIX_EPOCH)?;
        Ok(serde_json::json!([
            path,
            file.len(),
            changed.as_nanos().to_string()
        ]))
    };
    let stamp = serde_json::json!({
        "rules": RULES,
        "preparation": preparation, "vocabulary": own.vocabulary, "subwords": own.subwords, "limit": limit,
        "max_length": own.max_length, "max_pair_ratio": own.max_pair_ratio, "source": describe(&raw[0])?, "target": describe(&raw[1])?,
    });
    Ok(stamp.to_string())
}

/// The folder of what is made of such text, beside the run's.
fn place(stamp: &str, out: &Path) -> Result<PathBuf> {
    let made = common::text::beside(out).join(format!("{:08x}", crc32fast::hash(stamp.as_bytes())));
    std::fs::create_dir_all(&made).with_context(|| made.display().to_string())?;
    let path = made.join(MADE_OF);
    match std::fs::read_to_string(&path) {
        Ok(before) if before == stamp => Ok(made),
        Ok(_) if path.metadata()?.len() > 0 => {
            bail!("{}: was made of other text; remove it", made.display())
        }
        _ => {
            trainers::disk::write_whole(&path, stamp.as_bytes())?;
            Ok(made)
        }
    }
}

/// The training text as the model sees it: the folder's own files, or files in `made`.
fn prepared(
    preparation: Preparation,
    languages: [&str; 2],
    raw: &[PathBuf; 2],
    limit: Option<usize>,
    made: &Path,
) -> Result<[PathBuf; 2]> {
    if !preparation.tokenize && !preparation.lower_case && limit.is_none() {
        return Ok(raw.clone());
    }
    let files = languages.map(|language| made.join(format!("train.{language}")));
    if files.iter().all(|file| file.is_file()) {
        return Ok(files);
    }
    let parts = languages.map(|language| made.join(format!("train.{language}.part")));
    let open = |path: &Path| File::create(path).with_context(|| path.display().to_string());
    let mut writers = [
        BufWriter::new(open(&parts[0])?),
        BufWriter::new(open(&parts[1])?),
    ];
    let lines = ParallelLines::open(&raw[0], &raw[1])?;
    for pair in lines.take(limit.unwrap_or(usize::MAX)) {
        let pair = pair?;
        for ((writer, line), language) in writers
            .iter_mut()
            .zip([pair.source, pair.target])
            .zip(languages)
        {
            writeln!(writer, "{}", preparation.prepared(&line, language))?;
        }
    }
    for (writer, (part, file)) in writers.into_iter().zip(parts.iter().zip(&files)) {
        writer.into_inner()?.sync_all()?;
        std::fs::rename(part, file).with_context(|| file.display().to_string())?;
    }
    Ok(files)
}

/// The folder's own subwords, else those that were learned before, else new ones.
fn subwords(
    own: &TranslateArgs,
    given: Option<Subwords>,
    train: &[PathBuf; 2],
    made: &Path,
) -> Result<Subwords> {
    if let Some(given) = given {
        return Ok(given);
    }
    if made.join("tokenizer.json").is_file() {
        return Ok(Subwords::from_folder(made)?);
    }
    let lines = ParallelLines::open(&train[0], &train[1])?;
    let lines = lines.flat_map(|pair| match pair {
        Ok(pair) => [Ok(pair.source), Ok(pair.target)]
            .into_iter()
            .collect::<Vec<_>>(),
        Err(error) => vec![Err(error)],
    });
    let subwords = try_learn_subwords(lines, own.vocabulary)?;
    subwords.save(made)?;
    Ok(subwords)
}
