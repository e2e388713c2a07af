//! What is fuzzed: one function for each parser and loader, which takes any bytes.
//!
//! ```text
//! fuzz_targets/NAME.rs (cargo-fuzz, nightly) ─┐
//!                                             ├─> fuzz::NAME(&[u8])
//! src/bin/replay/ (mutator of its own) ─────┘
//! ```
//!
//! A function says whether the library took the input, and either will do. What it must never do: panic, hang, or ask
//! for a gigabyte. The first bytes of an input choose among settings (task, split, compression), the rest is
//! the file: so every input is a case, and seeds stay readable.

mod scratch;
pub mod seeds;
mod targets;

pub use scratch::Scratch;
pub use targets::checkpoints::checkpoint_manifest;
pub use targets::clicks::{criteo_store, criteo_text};
pub use targets::configs::{run_config, train_config};
pub use targets::conll::conll;
pub use targets::folders::model_folder;
pub use targets::glue::{glue_parquet, glue_tsv};
pub use targets::masked::masked_text;
pub use targets::models::{safetensors_config, torch_file};
pub use targets::pictures::{cifar_binary, image_decode, image_parquet};
pub use targets::text::{byte_level, tokenizer_json, wordpiece};
pub use targets::translation::parallel_text;
pub use targets::words::word_text;

/// A target: its name, and what it does with an input.
pub struct Target {
    /// The name, of its folder of seeds, too.
    pub name: &'static str,
    /// The function: whether the library took the input.
    pub run: fn(&[u8]) -> bool,
    /// What its files are made of, for a mutator that knows nothing else.
    pub words: &'static [&'static str],
}

/// All of them. A new parser or loader gets a line here, a file in `fuzz_targets`, and a seed.
pub const TARGETS: &[Target] = &[
    target(
        "glue_tsv",
        glue_tsv,
        &[
            "\t", "\n", "\r", "sentence", "label", "\u{feff}", "1", "5.0",
        ],
    ),
    target("glue_parquet", glue_parquet, &["PAR1", "sentence", "label"]),
    target(
        "image_parquet",
        image_parquet,
        &["PAR1", "image", "bytes", "label"],
    ),
    target("cifar_binary", cifar_binary, &[]),
    target(
        "image_decode",
        image_decode,
        &["IHDR", "IDAT", "PLTE", "tRNS", "iCCP", "\u{1}\u{11}"],
    ),
    target(
        "conll",
        conll,
        &[
            "\n",
            "\n\n",
            " O",
            "\t",
            "B-PER",
            "I-PER",
            "-DOCSTART-",
            "\u{feff}",
        ],
    ),
    target(
        "masked_text",
        masked_text,
        &[
            "\n", " = ", " @-@ ", "<unk>", "[MASK]", "##", "\u{feff}", "\r",
        ],
    ),
    target(
        "word_text",
        word_text,
        &[
            "\n", "<eos>", "<unk>", "PAR1", "text", "WORDSTOR", "\u{feff}", "\r",
        ],
    ),
    target(
        "criteo_text",
        criteo_text,
        &[
            "\t",
            "\n",
            "\r\n",
            "-1",
            "ffffffff",
            "2147483647",
            "1\t",
            "\u{feff}",
        ],
    ),
    target(
        "criteo_store",
        criteo_store,
        &["rows", "table_sizes", "4294967296", "\"", "[", "{", "-1"],
    ),
    target(
        "wordpiece",
        wordpiece,
        &[
            "\n", "##", "[UNK]", "[CLS]", "[SEP]", "\u{feff}", "ﬁ", "\u{301}",
        ],
    ),
    target("tokenizer_json", tokenizer_json, JSON),
    target(
        "byte_level",
        byte_level,
        &[
            "\n", " ", "#version", "\u{120}", "<s>", "\"", ":", ",", "{", "}", "-1", "true",
        ],
    ),
    target(
        "parallel_text",
        parallel_text,
        &[
            "\n",
            " ",
            "</w>",
            "@@",
            "#version: 0.1\n",
            " #fairseq:overwrite",
            "MMIDIDX",
            "PAR1",
            "translation",
            "\"Metaspace\"",
        ],
    ),
    target("safetensors_config", safetensors_config, JSON),
    target("model_folder", model_folder, JSON),
    target(
        "torch_file",
        torch_file,
        &[
            "torch._utils\n_rebuild_tensor_v2\n",
            "collections\nOrderedDict\n",
            "torch\nFloatStorage\n",
            "torch\nHalfStorage\n",
            "storage",
            "cpu",
        ],
    ),
    target(
        "checkpoint_manifest",
        checkpoint_manifest,
        &["crc32 ", "\n", "data_offsets", "shape", "F32", "U64"],
    ),
    target("train_config", train_config, TOML),
    target("run_config", run_config, TOML),
];

const JSON: &[&str] = &[
    "null",
    "true",
    "{}",
    "[]",
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "-1",
    "1e999",
    "18446744073709551615",
    "1000000000",
    "\"type\":\"Sequence\"",
    "\\u0000",
    "\"\"",
    "0.5",
];
const TOML: &[&str] = &[
    "=",
    "\n",
    "[",
    "]",
    "\"",
    "nan",
    "inf",
    "-1",
    "9223372036854775807",
    "[[a]]",
    "warmup:1+linear",
    "step:0.1:3",
    "true",
    "'''",
    "#",
    "1979-05-27",
];

const fn target(
    name: &'static str,
    run: fn(&[u8]) -> bool,
    words: &'static [&'static str],
) -> Target {
    Target { name, run, words }
}

/// The first bytes as settings, and the rest; zeros where there are none.
fn settings<const N: usize>(data: &[u8]) -> ([u8; N], &[u8]) {
    let mut settings = [0; N];
    let (first, rest) = data.split_at(data.len().min(N));
    settings[..first.len()].copy_from_slice(first);
    (settings, rest)
}

/// Several files in one input: each has its length before it, and the last one is what is left.
fn parts<const N: usize>(mut data: &[u8]) -> [&[u8]; N] {
    let mut parts = [&[] as &[u8]; N];
    for (index, part) in parts.iter_mut().enumerate() {
        let (length, rest) = match data.split_first_chunk::<4>() {
            Some((length, rest)) if index + 1 < N => (u32::from_le_bytes(*length) as usize, rest),
            _ => (data.len(), data),
        };
        (*part, data) = rest.split_at(length.min(rest.len()));
    }
    parts
}

/// The inverse of `parts`, for seeds.
pub fn join(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        if index + 1 < parts.len() {
            bytes.extend((part.len() as u32).to_le_bytes());
        }
        bytes.extend_from_slice(part);
    }
    bytes
}
