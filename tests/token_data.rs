//! Words with labels: files in CoNLL-2003's form, pieces of words, batches, and the shipped sample.

use candle_core::{Device, Tensor};
use datasets::UNLABELLED;
use datasets::conll::{self, Scheme, file, read, read_known};
use datasets::text::TextEncoder;
use datasets::wordpiece::{BertConfig, bert_tokenizer, learn_wordpiece};
use datasets::{Corpus, Error, LabelSet, Sentence, Split, TokenDataset, sample};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use testing::assert_says;
use trainers::metrics::entities;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/conll")
}

fn sentence(text: &str) -> Sentence {
    let pairs = text.split(' ').map(|pair| pair.split_once('/').unwrap());
    let (tokens, labels) = pairs.map(|(t, l)| (t.to_string(), l.to_string())).unzip();
    Sentence { tokens, labels }
}

/// What reading a file with this content gives.
fn read_text(text: impl AsRef<[u8]>, scheme: Scheme) -> datasets::Result<Vec<Sentence>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.txt");
    std::fs::write(&path, text).unwrap();
    read(&path, scheme)
}

#[test]
fn files_of_the_original_form_become_iob2() {
    let train = read(&fixtures().join("eng.train"), Scheme::Iob1).unwrap();
    assert_eq!(
        train,
        [
            sentence("Marlow/B-ORG sold/O Denby/B-ORG Motors/I-ORG to/O Anna/B-PER Holt/I-PER ./O"),
            sentence("In/O Port/B-LOC Kelso/I-LOC Denby/B-LOC Bay/I-LOC waits/O"),
        ]
    );
    // Tabs, line ends of two bytes, empty lines with blanks, no empty line at the end.
    let corpus = Corpus::from_folder(&fixtures(), Scheme::Iob1).unwrap();
    let validation = [
        sentence("Holt/B-PER left/O Kelso/B-LOC"),
        sentence("Marlow/B-ORG"),
    ];
    assert_eq!(
        (corpus.train, &corpus.validation[..]),
        (train, &validation[..])
    );
    let names = ["B-LOC", "B-ORG", "B-PER", "I-LOC", "I-ORG", "I-PER", "O"];
    assert_eq!(corpus.labels.names(), names);
    for (class, name) in (0..).zip(names) {
        assert_eq!(corpus.labels.class(name), Some(class));
        assert_eq!(corpus.labels.name(class), Some(name));
    }
    assert_eq!(corpus.labels.class("B-MISC"), None);
    assert_eq!(corpus.labels.name(7), None);
}

#[test]
fn iob2_is_read_unchanged_in_both_schemes() {
    let text = "A B-PER\nB I-PER\nC B-PER\nD O\n\nE\tB-LOC\n";
    let strict = read_text(text, Scheme::Iob2).unwrap();
    assert_eq!(strict[0], sentence("A/B-PER B/I-PER C/B-PER D/O"));
    assert_eq!(strict, read_text(text, Scheme::Iob1).unwrap());
}

#[test]
fn gzipped_files_and_the_usual_names_are_found() {
    use std::io::Write;
    let folder = tempfile::tempdir().unwrap();
    let packed = std::fs::File::create(folder.path().join("dev.txt.gz")).unwrap();
    let mut packed = flate2::write::GzEncoder::new(packed, flate2::Compression::fast());
    packed.write_all(b"\xef\xbb\xbfA B-PER\n").unwrap();
    packed.finish().unwrap();
    let path = file(folder.path(), Split::Validation).unwrap();
    assert_eq!(read(&path, Scheme::Iob2).unwrap(), [sentence("A/B-PER")]);
    assert_says(
        file(folder.path(), Split::Train),
        &["train file of labelled words", "train.txt, eng.train"],
    );
}

#[test]
fn malformed_lines_are_named() {
    let cases: [(&str, Scheme, &[&str]); 10] = [
        (
            "A O\nB\n",
            Scheme::Iob2,
            &["line 2", "only \"B\"", "a word and its label"],
        ),
        (
            "A X O\n\nB O\n",
            Scheme::Iob2,
            &["line 3", "2 columns", "expected 3"],
        ),
        (
            "A O\nB I-PER\n",
            Scheme::Iob2,
            &["line 2", "\"I-PER\"", "as IOB1"],
        ),
        ("A B-LOC\nB I-PER\n", Scheme::Iob2, &["line 2", "\"I-PER\""]),
        (
            "A B-PER\n\nB I-PER\n",
            Scheme::Iob2,
            &["line 3", "\"I-PER\""],
        ),
        ("A S-PER\n", Scheme::Iob1, &["line 1", "\"S-PER\"", "BIOES"]),
        ("A B-\n", Scheme::Iob1, &["line 1", "\"B-\"", "B-TYPE"]),
        ("A o\n", Scheme::Iob1, &["line 1", "\"o\"", "last column"]),
        (
            "-DOCSTART- O\n\n \n",
            Scheme::Iob2,
            &["train.txt", "no data rows", "a word and its label"],
        ),
        ("", Scheme::Iob2, &["train.txt", "no data rows"]),
    ];
    for (text, scheme, pieces) in cases {
        let mut pieces = pieces.to_vec();
        pieces.push("train.txt");
        assert_says(read_text(text, scheme), &pieces);
    }
    assert_says(
        read_text(b"A O\n\xff O\n", Scheme::Iob2),
        &["line 2", "UTF-8"],
    );
    let long = format!("A O\n{} O\n", "x".repeat(1 << 20));
    assert!(matches!(
        read_text(long, Scheme::Iob2),
        Err(Error::LongLine { .. })
    ));
    let nowhere = read(Path::new("/nowhere/train.txt"), Scheme::Iob2);
    assert!(matches!(nowhere, Err(Error::Io { .. })));
}

#[test]
fn a_label_that_training_lacks_is_refused_with_its_place() {
    let labels = LabelSet::of(&[sentence("A/B-PER B/O")]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("valid.txt");
    std::fs::write(&path, "A O\nB I-PER\n").unwrap();
    // As IOB1 it is a B-PER, which is known.
    assert!(read_known(&path, Scheme::Iob1, &labels).is_ok());
    std::fs::write(&path, "A O\n\nB B-LOC\n").unwrap();
    assert_says(
        read_known(&path, Scheme::Iob2, &labels),
        &["valid.txt", "line 3", "\"B-LOC\"", "B-PER, O"],
    );
    assert_says(
        TokenDataset::encode(
            &encoder(8),
            &labels,
            &[sentence("low/O"), sentence("low/B-LOC")],
        ),
        &["sentence 1", "\"low\"", "\"B-LOC\"", "B-PER, O"],
    );
    assert_says(
        LabelSet::of(&[sentence("A/O")]),
        &["labels", "two different labels"],
    );
}

/// Words of the letters l, o, w, e, r: `low` and `er` are pieces, everything else is letters.
fn encoder(max_length: usize) -> TextEncoder {
    let vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\nlow\n##er\n##l\n##o\n##w\nl\no\nw";
    let tokenizer = bert_tokenizer(vocabulary.as_bytes(), BertConfig::default()).unwrap();
    TextEncoder::new(tokenizer, max_length).unwrap()
}

#[test]
fn the_first_piece_of_a_word_has_its_label() {
    let sentences = [
        sentence("Lower/B-PER low/I-PER ?/O o-o/B-PER"),
        // A zero-width joiner is nothing to the tokenizer, and the word behind it keeps its label.
        sentence("\u{200d}/O low/B-PER"),
    ];
    let labels = LabelSet::of(&sentences).unwrap();
    let class = |name: &str| labels.class(name).unwrap();
    let (b, i, o, x) = (class("B-PER"), class("I-PER"), class("O"), UNLABELLED);
    let data = TokenDataset::encode(&encoder(12), &labels, &sentences).unwrap();
    let [first, second] = &data.examples[..] else {
        panic!("{:?}", data.examples);
    };
    // [CLS] low ##er low [UNK] o [UNK] o [SEP]: punctuation inside of a word cuts it, too.
    assert_eq!(first.encoded.ids, [2, 4, 5, 4, 1, 10, 1, 10, 3]);
    assert_eq!(first.labels, [x, b, x, i, o, b, x, x, x]);
    assert_eq!((first.words(), second.words()), (4, 1));
    assert_eq!(second.labels, [x, b, x]);
    assert_eq!(
        (data.len(), data.left_out(), data.lengths()),
        (2, 1, vec![9, 3])
    );

    // Cut in the middle of the last word: its first piece is still there. Then before it.
    for (max_length, labels_left, left_out) in [
        (7, vec![x, b, x, i, o, b, x], 1),
        (6, vec![x, b, x, i, o, x], 2),
    ] {
        let data = TokenDataset::encode(&encoder(max_length), &labels, &sentences).unwrap();
        assert_eq!(data.examples[0].labels, labels_left);
        assert_eq!(data.left_out(), left_out);
        assert_eq!(*data.examples[0].encoded.ids.last().unwrap(), 3);
    }
    for (tokens, labels_given) in [(vec![], vec![]), (vec!["low".to_string()], vec![])] {
        let crooked = Sentence {
            tokens,
            labels: labels_given,
        };
        assert_says(
            TokenDataset::encode(&encoder(8), &labels, &[crooked]),
            &["sentence 0", "a label for each"],
        );
    }
}

/// A byte-level vocabulary knows a word by the blank before it, which a list of words has not.
#[test]
fn words_of_a_byte_level_vocabulary_are_those_inside_of_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::write(path, crate::masked::BYTE_LEVEL).unwrap();
    let words = ["a".to_string(), "a".to_string()];
    let ids = |encoder: &TextEncoder| {
        let made = encoder.encode_words(&[&words]).unwrap();
        (made[0].0.ids.clone(), made[0].1.clone())
    };
    let plain = TextEncoder::from_folder(folder.path(), 8).unwrap();
    assert_eq!(ids(&plain).0, [0, 3, 3, 1]);
    let encoder = plain.for_words();
    let made = (vec![0, 5, 5, 1], vec![None, Some(0), Some(1), None]);
    assert_eq!(ids(&encoder), made);
    // Who opens the export gets the same.
    let out = tempfile::tempdir().unwrap();
    encoder.save(out.path()).unwrap();
    let config = std::fs::read_to_string(out.path().join("tokenizer_config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    // RoBERTa's tokens have no types.
    let inputs = ["input_ids", "attention_mask"];
    let expected = serde_json::json!({"add_prefix_space": true, "model_input_names": inputs});
    assert_eq!(config, expected);
    let again = TextEncoder::from_folder(out.path(), 8).unwrap();
    assert_eq!(ids(&again), made);
}

#[test]
fn batches_have_labels_where_words_begin() {
    let sentences = [
        sentence("lower/B-PER low/O"),
        sentence("low/B-PER"),
        sentence("low/O low/O low/O"),
    ];
    let labels = LabelSet::of(&sentences).unwrap();
    let data = TokenDataset::encode(&encoder(8), &labels, &sentences).unwrap();
    let batch = data.batch(&[1, 0], &Device::Cpu).unwrap();
    let rows = |tensor: &Tensor| tensor.to_vec2::<u32>().unwrap();
    let x = UNLABELLED;
    assert_eq!(rows(&batch.input_ids), [[2, 4, 3, 0, 0], [2, 4, 5, 4, 3]]);
    assert_eq!(rows(&batch.attention_mask), [[1, 1, 1, 0, 0], [1; 5]]);
    assert_eq!(rows(&batch.token_type_ids), [[0; 5]; 2]);
    assert_eq!(rows(&batch.labels), [[x, 0, x, x, x], [x, 0, x, 1, x]]);
    assert_eq!(
        (batch.len(), batch.labelled(), batch.is_empty()),
        (2, 3, false)
    );

    let targets = batch.targets().unwrap();
    let positions = targets.positions.to_vec1::<u32>().unwrap();
    assert_eq!(positions, [1, 6, 8]);
    assert_eq!(targets.classes.to_vec1::<u32>().unwrap(), [0, 0, 1]);
    assert_eq!(
        batch.by_sentence(&['a', 'b', 'c']).unwrap(),
        [&['a'][..], &['b', 'c']]
    );
    assert_says(batch.by_sentence(&['a']), &["1 values for 3 labelled"]);

    // Micro-batches keep the width, and their labelled words add up.
    let part = batch.narrow(1, 1).unwrap();
    assert_eq!((part.len(), part.labelled()), (1, 2));
    assert_eq!(rows(&part.labels), [[x, 0, x, 1, x]]);
    assert_eq!(
        part.targets().unwrap().positions.to_vec1::<u32>().unwrap(),
        [1, 3]
    );
    assert_eq!(part.text().len(), 1);
    for (start, len) in [(0, 0), (1, 2), (3, 1), (usize::MAX, 2)] {
        assert!(batch.narrow(start, len).is_err(), "{start} {len}");
    }
    assert!(data.batch(&[3], &Device::Cpu).is_err());
    assert!(data.batch(&[], &Device::Cpu).is_err());
    assert_eq!(data.limit(1).len(), 1);
}

#[test]
fn a_batch_without_labels_has_no_targets() {
    let sentences = [sentence("\u{200d}/O low/B-PER")];
    let labels = LabelSet::of(&sentences).unwrap();
    let mut data = TokenDataset::encode(&encoder(8), &labels, &sentences).unwrap();
    data.examples[0].labels = vec![UNLABELLED; 3];
    let batch = data.batch(&[0], &Device::Cpu).unwrap();
    assert_says(batch.targets().map(|_| ()), &["1 sentences", "max_length"]);
    data.examples[0].labels.pop();
    assert_says(
        data.batch(&[0], &Device::Cpu).map(|_| ()),
        &["3 ids but 2 labels"],
    );
}

#[test]
fn the_sample_is_of_one_piece() {
    let corpus = sample::entity_corpus().unwrap();
    assert_eq!((corpus.train.len(), corpus.validation.len()), (400, 150));
    let names = ["B-LOC", "B-ORG", "B-PER", "I-LOC", "I-ORG", "I-PER", "O"];
    assert_eq!(corpus.labels.names(), names);
    let all: Vec<&Sentence> = corpus.train.iter().chain(&corpus.validation).collect();
    let different: HashSet<_> = all.iter().map(|s| &s.tokens).collect();
    assert_eq!(different.len(), all.len(), "no sentence is there twice");
    assert_eq!(sample::entities(0, 10), corpus.train[..10]);
    assert_ne!(sample::entities(1, 10), corpus.train[..10]);

    // Written as a file and read strictly, it is the same: its labels are IOB2.
    let mut text = String::new();
    for sentence in &corpus.train {
        for (token, label) in sentence.tokens.iter().zip(&sentence.labels) {
            text += &format!("{token} {label}\n");
        }
        text += "\n";
    }
    assert_eq!(read_text(text, Scheme::Iob2).unwrap(), corpus.train);

    // No word is cut off or unknown with a learned vocabulary and 48 pieces.
    let words = corpus.train.iter().flat_map(|s| &s.tokens);
    let tokenizer = learn_wordpiece(words.map(String::as_str), 600).unwrap();
    let encoder = TextEncoder::new(tokenizer, 48).unwrap();
    let data = conll::TokenDataset::encode(&encoder, &corpus.labels, &corpus.validation).unwrap();
    assert_eq!((data.len(), data.left_out()), (150, 0));
}

/// F1 of the label that is most frequent in training for what `seen` makes of a place in a sentence, or
/// for the word alone where that never occurred.
fn table_f1<'a, K: Ord>(corpus: &'a Corpus, seen: impl Fn(&'a [String], usize) -> K) -> f64 {
    let mut table: BTreeMap<K, BTreeMap<&str, usize>> = BTreeMap::new();
    let mut words: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for sentence in &corpus.train {
        for (index, label) in sentence.labels.iter().enumerate() {
            let key = seen(&sentence.tokens, index);
            *table.entry(key).or_default().entry(label).or_default() += 1;
            let word = words.entry(&sentence.tokens[index]).or_default();
            *word.entry(label).or_default() += 1;
        }
    }
    let predict = |tokens: &'a [String], index: usize| {
        let known = table.get(&seen(tokens, index));
        let known = known.or_else(|| words.get(tokens[index].as_str()));
        let best = known.and_then(|labels| labels.iter().max_by_key(|(_, count)| **count));
        best.map_or("O", |(label, _)| *label)
    };
    let sentences = corpus.validation.iter();
    let (predicted, expected): (Vec<Vec<&str>>, Vec<Vec<&str>>) = sentences
        .map(|s| {
            let predicted = (0..s.tokens.len()).map(|index| predict(&s.tokens, index));
            let expected = s.labels.iter().map(String::as_str);
            (predicted.collect::<Vec<_>>(), expected.collect::<Vec<_>>())
        })
        .unzip();
    entities(&predicted, &expected).unwrap().main()
}

#[test]
fn tables_of_words_do_not_solve_the_sample() {
    let corpus = sample::entity_corpus().unwrap();
    let word = table_f1(&corpus, |tokens, index| tokens[index].clone());
    let pair = table_f1(&corpus, |tokens, index| {
        let before = index.checked_sub(1).map(|before| tokens[before].clone());
        (before, tokens[index].clone())
    });
    assert!(word < 0.4, "{word}");
    assert!(pair < 0.6, "{pair}");
    assert!(word < pair, "context helps: {word} {pair}");
}
