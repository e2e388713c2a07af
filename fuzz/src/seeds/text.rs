//! Text: GLUE's tasks, tokenizers, configurations.

use datasets::wordpiece::learn_wordpiece;
use datasets::words::{WordStore, WordVocabulary};

use super::{Seed, fixture, gzip, with};
use crate::join;

/// The first lines of a fixture.
fn head(name: &str, lines: usize) -> Vec<u8> {
    let text = fixture(name);
    let lines = text.split_inclusive(|&byte| byte == b'\n').take(lines);
    lines.flatten().copied().collect()
}

/// A training file of each task, in the order of `GlueTask::all`, a gzipped one, and MRPC's own.
pub(super) fn glue() -> Vec<Seed> {
    let folders = [
        "RTE", "MRPC", "STS-B", "SST-2", "QNLI", "QQP", "MNLI", "MNLI", "CoLA",
    ];
    let mut seeds = Vec::new();
    for (task, folder) in folders.iter().enumerate() {
        let file = head(&format!("glue/{folder}/train.tsv"), 4);
        seeds.push((
            "glue_tsv",
            format!("train-{task}"),
            with(&[task as u8, 0], &file),
        ));
    }
    let test = head("glue/CoLA/test.tsv", 4);
    seeds.push(("glue_tsv", "test-8".to_string(), with(&[8, 2], &test)));
    let packed = gzip(&head("glue/SST-2/train.tsv", 4));
    seeds.push(("glue_tsv", "train-3.gz".to_string(), with(&[3, 8], &packed)));
    let pairs = fixture("glue-msr/MRPC/dev_ids.tsv");
    let corpus = fixture("glue-msr/MRPC/msr_paraphrase_train.txt");
    let both = join(&[&pairs, &corpus]);
    seeds.push(("glue_tsv", "msr".to_string(), with(&[1, 16], &both)));
    let marked = [b"\xef\xbb\xbf".as_slice(), &head("glue/SST-2/train.tsv", 2)].concat();
    seeds.push(("glue_tsv", "marked".to_string(), with(&[3, 4], &marked)));
    seeds
}

/// The tests' CoNLL-2003 file, in IOB1, and one in IOB2.
pub(super) fn conll() -> Vec<Seed> {
    let other = b"Ekeus B-PER\nheads O\nfor O\nNew B-LOC\nYork I-LOC\n\n. O\n";
    vec![
        (
            "conll",
            "iob1".to_string(),
            with(&[1], &head("conll/eng.train", 30)),
        ),
        ("conll", "iob2".to_string(), with(&[0], other)),
        ("conll", "packed".to_string(), with(&[2], &gzip(other))),
    ]
}

/// Prose, and WikiText's form of it.
pub(super) fn masked() -> Vec<Seed> {
    let prose = b"The game began development in 2010 .\n\nIt was unaffable , the game .\n";
    let prepared =
        b" \n = The game = \n \n The game began <unk> in 2 @,@ 010 , a role @-@ playing game . \n";
    vec![
        ("masked_text", "prose".to_string(), with(&[0], prose)),
        ("masked_text", "prepared".to_string(), with(&[5], prepared)),
        (
            "masked_text",
            "packed".to_string(),
            with(&[3], &gzip(prepared)),
        ),
    ]
}

/// A text word by word in lines, a list of words, and a store of the text that the target has.
pub(super) fn words() -> Vec<Seed> {
    let text = b"the game began\n\n = the <unk> game = \n";
    let list = b"the\n<eos>\ngame\n<unk>\n";
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("train.txt"), b"the game began\nthe game\n").expect("room");
    let vocabulary = WordVocabulary::of_file(&path("train.txt"), None).expect("words");
    WordStore::of_file(&path("train.txt"), &vocabulary, &path("s.words")).expect("a store");
    let store = std::fs::read(path("s.words")).expect("a store");
    vec![
        ("word_text", "lines".to_string(), with(&[0, 0], text)),
        ("word_text", "few".to_string(), with(&[0, 3], text)),
        (
            "word_text",
            "packed".to_string(),
            with(&[1, 0], &gzip(text)),
        ),
        ("word_text", "list".to_string(), with(&[3, 0], list)),
        ("word_text", "store".to_string(), with(&[4, 0], &store)),
    ]
}

const TEXTS: [&str; 3] = [
    "the film is not dull .",
    "the plot is truly gripping , the cast is not .",
    "naïve ﬁlms , 日本",
];

/// A BERT tokenizer as JSON, others written by hand, a vocabulary, texts.
pub(super) fn tokenizers() -> Vec<Seed> {
    let tokenizer = learn_wordpiece(TEXTS, 60).expect("a vocabulary of the texts");
    let whole = tokenizer.to_string(false).expect("a tokenizer as JSON");
    let mut seeds = vec![(
        "tokenizer_json",
        "bert".to_string(),
        with(&[16], whole.as_bytes()),
    )];
    for (name, json) in [("bpe", BPE), ("unigram", UNIGRAM)] {
        seeds.push((
            "tokenizer_json",
            name.to_string(),
            with(&[16], json.as_bytes()),
        ));
    }
    let vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nun\n##aff\n##able\nthe\nfilm\n.\n";
    let config = br#"{"do_lower_case": false, "strip_accents": true}"#;
    let both = join(&[config, vocabulary.as_bytes()]);
    seeds.push(("wordpiece", "vocabulary".to_string(), with(&[0], &both)));
    let vocabulary = r#"{"<s>":0,"<pad>":1,"</s>":2,"<unk>":3,"<mask>":4,"Ġ":5,"t":6,"h":7,"e":8,"Ġt":9,"he":10,"Ġthe":11}"#;
    let merges = "#version: 0.2\nĠ t\nh e\nĠt he\n";
    let config = br#"{"add_prefix_space": true}"#;
    let all = join(&[config, vocabulary.as_bytes(), merges.as_bytes()]);
    seeds.push(("byte_level", "roberta".to_string(), all));
    seeds.push((
        "wordpiece",
        "texts".to_string(),
        with(&[61], TEXTS.join("\n").as_bytes()),
    ));
    seeds
}

const BPE: &str = r#"{"version":"1.0","truncation":{"direction":"Right","max_length":8,"strategy":"LongestFirst","stride":0},
"padding":{"strategy":{"Fixed":8},"direction":"Right","pad_to_multiple_of":null,"pad_id":1,"pad_type_id":0,"pad_token":"<pad>"},
"added_tokens":[{"id":0,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
"normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Replace","pattern":{"Regex":"\\s+"},"content":" "},{"type":"Prepend","prepend":"x"}]},
"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\p{L}+|\\d"},"behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}]},
"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],
"pair":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":1}}],
"special_tokens":{"<s>":{"id":"<s>","ids":[0],"tokens":["<s>"]}}},
"decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},
"model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"ignore_merges":false,
"vocab":{"<s>":0,"<pad>":1,"u":2,"n":3,"un":4,"a":5,"f":6},"merges":[["u","n"]]}}"#;

const UNIGRAM: &str = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":{"type":"Lowercase"},
"pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true},
"post_processor":{"type":"RobertaProcessing","sep":["</s>",2],"cls":["<s>",1],"trim_offsets":true,"add_prefix_space":true},
"decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"Strip","content":" ","start":1,"stop":0}]},
"model":{"type":"Unigram","unk_id":0,"byte_fallback":false,"vocab":[["<unk>",0.0],["<s>",0.0],["</s>",0.0],["▁the",-2.0],["un",-3.5],["a",-4.0],["f",-4.5]]}}"#;

/// Configurations of the trainer, and of a run.
pub(super) fn configs() -> Vec<Seed> {
    let train = b"epochs = 3\nmax_steps = 100\nmicro_batches = 2\ncurvature_fraction = 0.5\n\
        schedule = \"warmup:0.1+linear\"\neval_every = 10\nseed = 7\n[plateau]\nfactor = 0.5\npatience = 2\n";
    let stepped =
        b"schedule = \"step:0.1:30:60\"\nlog_every = 1\npatience = 3\nkeep_checkpoints = 1\n";
    let run = b"optimizer = \"adahessian,sgd\"\nlr = 0.15\nepochs = 5\nseed = \"0,1\"\nhessian_every = 2\n\
        sweep = [\"lr=1e-3,3e-3\"]\naudit = true\nschedule = \"warmup:0.1+cosine\"\n";
    vec![
        ("train_config", "all".to_string(), train.to_vec()),
        ("train_config", "stepped".to_string(), stepped.to_vec()),
        ("run_config", "programs".to_string(), run.to_vec()),
    ]
}
