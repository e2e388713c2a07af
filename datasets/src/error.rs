//! What can go wrong: where it was, what was expected, what was found, and the way out.

use std::fmt;
use std::path::PathBuf;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// The position of a record inside its file, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A line of a text file; the header counts.
    Line(usize),
    /// A row of a parquet file.
    Row(usize),
    /// A record of a binary file whose records are equally long.
    Record(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(n) => write!(f, "line {n}"),
            Place::Row(n) => write!(f, "row {n}"),
            Place::Record(n) => write!(f, "record {n}"),
        }
    }
}

/// Everything that loading, encoding and batching can refuse.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system could not open or read a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A folder holds none of the files that could serve.
    #[error(
        "no {what} in {}: looked for {tried}; put one of these files there or pass another folder",
        dir.display()
    )]
    NotFound {
        /// What was wanted, in words.
        what: String,
        /// The folder that was searched.
        dir: PathBuf,
        /// The file names that were tried.
        tried: String,
    },
    /// A file without a single data row.
    #[error("{}: no data rows; expected {expected}; was the download cut off?", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// What should have been there.
        expected: String,
    },
    /// Bytes that are not UTF-8 text.
    #[error("{}, {place}: not valid UTF-8; convert the file to UTF-8 or fetch it again", path.display())]
    InvalidUtf8 {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        place: Place,
    },
    /// A gzip stream that is cut off or damaged.
    #[error(
        "{}, after line {line}: damaged or truncated gzip ({source}); fetch the file again",
        path.display()
    )]
    Gzip {
        /// The file.
        path: PathBuf,
        /// The last line that could be read whole.
        line: usize,
        /// The decoder's reason.
        source: std::io::Error,
    },
    /// A line of a text file that is too long to be one.
    #[error(
        "{}, {place}: a line of more than {longest} bytes; is this a text file with a record on each line?",
        path.display()
    )]
    LongLine {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        place: Place,
        /// The most bytes that a line may have.
        longest: usize,
    },
    /// A file that holds more than is read into memory, see [`limits`](crate::limits).
    #[error("{}: more than {most} {what}, which is more than is read into memory; is this the right file? else cut it into several", path.display())]
    TooMuch {
        /// The file.
        path: PathBuf,
        /// What there is too much of.
        what: &'static str,
        /// The most that is read.
        most: u64,
    },
    /// A file that another process, or another thread, is making.
    #[error("{}: another preparation is making it at this moment; wait for that one, or choose another name", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A column that the task needs is not in the header or schema.
    #[error(
        "{}: no column {column:?} for {task}; the columns are {found}; is this the right task?",
        path.display()
    )]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The task that was asked for.
        task: &'static str,
        /// The wanted column, with its accepted spellings.
        column: String,
        /// The columns that the file has.
        found: String,
    },
    /// A row with more or fewer fields than the header.
    #[error(
        "{}, {place}: {got} tab-separated fields, expected {expected}; repair the row or take it out, or load so that such rows are skipped and counted",
        path.display()
    )]
    FieldCount {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        place: Place,
        /// Fields the header promises.
        expected: usize,
        /// Fields the row has.
        got: usize,
    },
    /// A label that the task does not know, or none where one is needed.
    #[error(
        "{}, {place}, column {column:?}: label {got:?}, expected {expected}; check that the file belongs to this task",
        path.display()
    )]
    BadLabel {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        place: Place,
        /// The label's column.
        column: &'static str,
        /// The set of labels.
        expected: String,
        /// What the file says.
        got: String,
    },
    /// A line of a file of labelled words, of a dictionary or of merges that breaks the format.
    #[error("{}, {place}: {got}, expected {expected}", path.display())]
    WordLine {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        place: Place,
        /// What should be there, and what to do.
        expected: String,
        /// What is there.
        got: String,
    },
    /// A label of a word that the training data does not have.
    #[error(
        "{place}: label {got:?}, expected one of the training data's, which are {expected}; \
         add sentences with it to the training data, or correct it"
    )]
    UnseenLabel {
        /// The file and line, or the sentence and word.
        place: String,
        /// The labels of the training data.
        expected: String,
        /// The label.
        got: String,
    },
    /// A value of the wrong kind in a parquet column.
    #[error("{}, {place}, column {column:?}: {got}, expected {expected}", path.display())]
    BadField {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        place: Place,
        /// The column.
        column: String,
        /// The wanted kind.
        expected: &'static str,
        /// What the file holds.
        got: String,
    },
    /// A parquet file that cannot be decoded.
    #[error("{}: unreadable parquet ({reason}); {hint}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The decoder's reason.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
    /// A binary file that is cut off or damaged.
    #[error("{}, {place}: {reason}; was the download cut off? fetch the file again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first record that is not whole.
        place: Place,
        /// What was expected and found.
        reason: String,
    },
    /// A line of a click log that breaks the format.
    #[error(
        "{}, {place}: {got}, expected {expected}; repair the line or take it out, or prepare so that such lines are \
         skipped and counted (--skip-malformed)",
        path.display()
    )]
    ClickLine {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        place: Place,
        /// What should be there.
        expected: String,
        /// What is there.
        got: String,
    },
    /// A file that is no store of clicks or vocabulary of one, or is not whole.
    #[error("{}: not usable as a click store: {reason}; prepare it again from the text", path.display())]
    NotAStore {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of token ids, or its index, that is none, is damaged, or was made of something else.
    #[error("{}: {got}, expected {expected}; {hint}", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What should be there.
        expected: String,
        /// What is there.
        got: String,
        /// What to do.
        hint: &'static str,
    },
    /// A store of clicks, or a vocabulary of one, in another version of the format.
    #[error(
        "{}: version {got} of the click store format, this program reads version {expected}; \
         prepare it again from the text, or use the program that made it",
        path.display()
    )]
    StoreVersion {
        /// The file.
        path: PathBuf,
        /// The version that can be read.
        expected: u32,
        /// The version of the file.
        got: u32,
    },
    /// A store of clicks that other preprocessing or other files made than is wanted.
    #[error("{}: {differences}; prepare another store, or ask for what this one has", path.display())]
    OtherPreprocessing {
        /// The file.
        path: PathBuf,
        /// What differs, as it is and as it is wanted.
        differences: String,
    },
    /// A picture that cannot be decoded.
    #[error("{}{}: not a readable picture ({reason}); fetch it again or remove it", path.display(), after_comma(place))]
    Image {
        /// The file.
        path: PathBuf,
        /// Where in the file, if it holds more than one picture.
        place: Option<Place>,
        /// The decoder's reason.
        reason: String,
    },
    /// A picture of another size than the data set's.
    #[error(
        "{}{}: {} x {} pixels, expected {} x {}; is this the right data set?",
        path.display(), after_comma(place), got.0, got.1, expected.0, expected.1
    )]
    ImageSize {
        /// The file.
        path: PathBuf,
        /// Where in the file, if it holds more than one picture.
        place: Option<Place>,
        /// The wanted height and width.
        expected: (usize, usize),
        /// The picture's height and width.
        got: (usize, usize),
    },
    /// A file that says what is done to a picture, and says what cannot be done here.
    #[error("{}: {got}, expected {expected}; take the file that belongs to the model", path.display())]
    PictureSetting {
        /// The file.
        path: PathBuf,
        /// What should be there.
        expected: String,
        /// What is there.
        got: String,
    },
    /// A class folder without a single picture.
    #[error(
        "{}: no pictures in this class folder; expected files ending in {expected}; unpack them again or remove the folder",
        path.display()
    )]
    EmptyClass {
        /// The folder.
        path: PathBuf,
        /// The accepted endings.
        expected: &'static str,
    },
    /// Two files of a data set contradict each other.
    #[error("{}: {reason}", path.display())]
    Inconsistent {
        /// The file.
        path: PathBuf,
        /// How they disagree and what to do.
        reason: String,
    },
    /// A task name that is not in GLUE.
    #[error("unknown task {got:?}; the tasks are {expected}")]
    UnknownTask {
        /// What was asked for.
        got: String,
        /// The names.
        expected: String,
    },
    /// A setting outside its range.
    #[error("{name} = {got}: expected {expected}")]
    Setting {
        /// The setting's name.
        name: &'static str,
        /// Its value.
        got: String,
        /// The range and what to do.
        expected: String,
    },
    /// A tokenizer file that cannot be used, or a text that cannot be encoded.
    #[error("tokenizer{}: {reason}", path.as_ref().map(|p| format!(" {}", p.display())).unwrap_or_default())]
    Tokenizer {
        /// The file, where there is one.
        path: Option<PathBuf>,
        /// The reason and what to do.
        reason: String,
    },
    /// The tokenizer can make ids that the model has no embedding for.
    #[error(
        "the tokenizer's ids go up to {largest}, but the model's vocabulary has {vocab_size} entries; \
         take the tokenizer that belongs to the model, or build the model with vocab_size >= {}",
        u64::from(*largest) + 1
    )]
    VocabularyTooSmall {
        /// The largest id of the tokenizer.
        largest: u32,
        /// The model's vocabulary size.
        vocab_size: usize,
    },
    /// The tokenizer uses so little of the model's vocabulary that it must be another model's.
    #[error(
        "the tokenizer has ids below {tokens}, but the model's vocabulary has {vocab_size} entries: it seems to be \
         another model's; take the tokenizer.json that came with the model, or, if most of the vocabulary is to stay \
         unused, say so with TextEncoder::allow_small_vocabulary"
    )]
    VocabularyTooLarge {
        /// The largest id of the tokenizer plus one.
        tokens: usize,
        /// The model's vocabulary size.
        vocab_size: usize,
    },
    /// Sequences may become longer than the model has positions for.
    #[error(
        "the maximum sequence length is {max_length}, but the model has {positions} positions; \
         lower the length or build the model with more positions"
    )]
    TooLong {
        /// The encoder's maximum length in tokens.
        max_length: usize,
        /// The model's number of positions.
        positions: usize,
    },
    /// Offline, and the file is not in the cache.
    #[error(
        "offline: {repo}/{file} (revision {revision}) is not in the cache {}; \
         unset HF_HUB_OFFLINE once to fetch it, or pass a local folder with --model or --data",
        cache.display()
    )]
    NotCached {
        /// The repository.
        repo: String,
        /// The file in it.
        file: String,
        /// The revision.
        revision: String,
        /// The cache folder.
        cache: PathBuf,
    },
    /// The Hub could not be reached.
    #[error(
        "cannot reach {endpoint} for {repo}/{file} ({reason}); \
         without a network pass a local folder with --model or --data"
    )]
    Unreachable {
        /// The server's address.
        endpoint: String,
        /// The repository.
        repo: String,
        /// The file in it.
        file: String,
        /// The network's reason.
        reason: String,
    },
    /// The Hub answered, but not with the file.
    #[error("the Hub refused {repo}/{file} (revision {revision}): {reason}")]
    Refused {
        /// The repository.
        repo: String,
        /// The file in it.
        file: String,
        /// The revision.
        revision: String,
        /// The number of the server's answer, where it is one of HTTP: 404 for what is not there.
        status: Option<u16>,
        /// The server's answer and what to do.
        reason: String,
    },
    /// A repository of the Hub has none of the files that could serve.
    #[error(
        "the repository {repo} has no {what} that can be read: looked for {tried}; choose another model, or save this one with \
         transformers (`save_pretrained`) and pass the folder"
    )]
    Absent {
        /// The repository.
        repo: String,
        /// What was wanted, in words.
        what: String,
        /// The file names that were tried.
        tried: String,
    },
    /// A download has another size than the server announced; it was removed from the cache.
    #[error(
        "{repo}/{file}: {got} bytes arrived, the server announced {expected}; the copy was removed, try again"
    )]
    SizeMismatch {
        /// The repository.
        repo: String,
        /// The file in it.
        file: String,
        /// Announced bytes.
        expected: u64,
        /// Bytes on disk.
        got: u64,
    },
    /// A batch that cannot be made.
    #[error("cannot make a batch: {reason}")]
    Batch {
        /// The reason and what to do.
        reason: String,
    },
    /// A source of batches of the program failed; see [`Error::user`].
    #[error(transparent)]
    User(Box<dyn std::error::Error + Send + Sync>),
    /// Making a tensor failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// `, record 7`, or nothing.
fn after_comma(place: &Option<Place>) -> String {
    place.map(|place| format!(", {place}")).unwrap_or_default()
}

impl Error {
    /// Wraps an error of the program, for [`Batches`](crate::Batches) of its own.
    pub fn user(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Error::User(error.into())
    }

    /// An I/O error with its file.
    pub(crate) fn io(path: &std::path::Path, source: std::io::Error) -> Self {
        Error::Io {
            path: path.to_path_buf(),
            source,
        }
    }
}
