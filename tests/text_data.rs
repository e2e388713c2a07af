//! From rows to batches: tokenizers, the order of batches, padding.

use std::fs;

use candle_core::{DType, Device};
use datasets::text::{Encoded, TextEncoder};
use datasets::wordpiece::learn_wordpiece;
use datasets::{Batcher, Error, Label, Row, TextDataset, collate};
use proptest::prelude::*;
use tempfile::TempDir;

const VOCABULARY: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nun\n##able\n##s\ncat\nhat\n,\nCat\n";

fn row(first: &str, second: Option<&str>) -> Row {
    Row {
        first: first.to_string(),
        second: second.map(str::to_string),
        label: Some(Label::Class(1)),
    }
}

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

#[test]
fn a_vocabulary_makes_a_bert_tokenizer() {
    let dir = folder(&[("vocab.txt", VOCABULARY)]);
    let encoder = TextEncoder::from_folder(dir.path(), 16).unwrap();
    let encoded = encoder.encode(&row("Cats, unable dog", None)).unwrap();
    assert_eq!(encoded.ids, [2, 8, 7, 10, 5, 6, 1, 3]);
    assert_eq!(encoded.types, [0; 8]);
    assert_eq!(encoded.label, Some(Label::Class(1)));
    let encoded = encoder.encode(&row("cat", Some("hat [MASK]"))).unwrap();
    assert_eq!(encoded.ids, [2, 8, 3, 9, 4, 3]);
    assert_eq!(encoded.types, [0, 0, 0, 1, 1, 1]);
    assert_eq!(
        (encoder.vocab_size(), encoder.pad_id(), encoder.max_length()),
        (12, 0, 16)
    );
    assert!(encoder.check(12, 16).is_ok());
    let message = encoder.check(11, 16).unwrap_err().to_string();
    assert!(
        message.contains("up to 11") && message.contains("has 11 entries"),
        "{message}"
    );
    let message = encoder.check(12, 15).unwrap_err().to_string();
    assert!(
        message.contains("length is 16") && message.contains("15 positions"),
        "{message}"
    );

    let cased = folder(&[
        ("vocab.txt", VOCABULARY),
        ("tokenizer_config.json", "{\"do_lower_case\": false}"),
    ]);
    let encoder = TextEncoder::from_folder(cased.path(), 16).unwrap();
    assert_eq!(
        encoder.encode(&row("Cats", None)).unwrap().ids,
        [2, 11, 7, 3]
    );
}

/// transformers 4 drops case for a BERT whose folder does not say otherwise.
#[test]
fn an_export_says_how_its_texts_are_prepared() {
    let exported = |files: &[(&str, &str)]| -> (TempDir, serde_json::Value) {
        let encoder = TextEncoder::from_folder(folder(files).path(), 16).unwrap();
        let out = TempDir::new().unwrap();
        encoder.save(out.path()).unwrap();
        let text = fs::read_to_string(out.path().join("tokenizer_config.json")).unwrap();
        (out, serde_json::from_str(&text).unwrap())
    };
    let (_, lower) = exported(&[("vocab.txt", VOCABULARY)]);
    let inputs = serde_json::json!(["input_ids", "token_type_ids", "attention_mask"]);
    let expected = serde_json::json!({
        "do_lower_case": true, "strip_accents": null, "tokenize_chinese_chars": true,
        "model_input_names": inputs,
    });
    assert_eq!(lower, expected);
    let config = r#"{"do_lower_case": false, "model_max_length": 512, "strip_accents": true}"#;
    let (folder_of_cased, cased) =
        exported(&[("vocab.txt", VOCABULARY), ("tokenizer_config.json", config)]);
    let expected = serde_json::json!({
        "do_lower_case": false, "strip_accents": true, "tokenize_chinese_chars": true,
        "model_max_length": 512, "model_input_names": inputs,
    });
    assert_eq!(cased, expected);
    // From the export, and from tokenizer.json alone, which says the same.
    for own_config in [true, false] {
        if !own_config {
            fs::remove_file(folder_of_cased.path().join("tokenizer_config.json")).unwrap();
        }
        let encoder = TextEncoder::from_folder(folder_of_cased.path(), 16).unwrap();
        let ids = encoder.encode(&row("Cats", None)).unwrap().ids;
        assert_eq!(ids, [2, 11, 7, 3]);
        let out = TempDir::new().unwrap();
        encoder.save(out.path()).unwrap();
        let text = fs::read_to_string(out.path().join("tokenizer_config.json")).unwrap();
        let again: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(again["do_lower_case"], false);
        assert_eq!(again.get("model_max_length").is_some(), own_config);
    }
}

/// The settings of a folder.
fn settings(dir: &TempDir) -> serde_json::Value {
    let text = fs::read_to_string(dir.path().join("tokenizer_config.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// As in transformers: settings without them, and DistilBERT's tokenizer, give no types of tokens.
#[test]
fn tokens_have_types_where_transformers_gives_some() {
    const CONFIG: &str = "tokenizer_config.json";
    let pair = row("cat", Some("hat"));
    let inputs = |types: bool| match types {
        true => serde_json::json!(["input_ids", "token_type_ids", "attention_mask"]),
        false => serde_json::json!(["input_ids", "attention_mask"]),
    };
    let with = r#"{"tokenizer_class": "DistilBertTokenizer",
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}"#;
    let without = r#"{"model_input_names": ["input_ids", "attention_mask"]}"#;
    let slow = r#"{"tokenizer_class": "DistilBertTokenizer"}"#;
    let fast = r#"{"tokenizer_class": "DistilBertTokenizerFast"}"#;
    for (file, text, types) in [
        ("README.md", "", true),
        (CONFIG, r#"{"tokenizer_class": "BertTokenizer"}"#, true),
        (CONFIG, with, true),
        (CONFIG, without, false),
        (CONFIG, slow, false),
        (CONFIG, fast, false),
        ("config.json", r#"{"model_type": "bert"}"#, true),
        ("config.json", r#"{"model_type": "distilbert"}"#, false),
        ("config.json", r#"{"model_type": "roberta"}"#, false),
    ] {
        let dir = folder(&[("vocab.txt", VOCABULARY), (file, text)]);
        let encoder = TextEncoder::from_folder(dir.path(), 16).unwrap();
        let second = u32::from(types);
        let expected = [0, 0, 0, second, second];
        assert_eq!(encoder.encode(&pair).unwrap().types, expected, "{text}");
        // Who opens the export gets the same.
        let out = TempDir::new().unwrap();
        encoder.save(out.path()).unwrap();
        assert_eq!(settings(&out)["model_input_names"], inputs(types), "{text}");
        let again = TextEncoder::from_folder(out.path(), 16).unwrap();
        assert_eq!(again.encode(&pair).unwrap().types, expected, "{text}");
    }
    // In transformers a DistilBERT, or a RoBERTa, that is given types is an error, whatever the tokenizer came with.
    for settings_file in ["{}", with] {
        let plain = folder(&[("vocab.txt", VOCABULARY), (CONFIG, settings_file)]);
        let encoder = TextEncoder::from_folder(plain.path(), 16).unwrap();
        for model in ["distilbert", "roberta"] {
            let config = format!(r#"{{"model_type": "{model}"}}"#);
            let out = folder(&[("config.json", config.as_str())]);
            encoder.save(out.path()).unwrap();
            assert_eq!(settings(&out)["model_input_names"], inputs(false));
        }
    }
}

/// As in transformers: what is said beside a tokenizer.json goes before it.
#[test]
fn settings_beside_a_tokenizer_file_change_its_steps() {
    let dir = folder(&[("vocab.txt", VOCABULARY)]);
    let lower = TextEncoder::from_folder(dir.path(), 16).unwrap();
    lower.save(dir.path()).unwrap();
    let ids = |settings: &str, text: &str| {
        fs::write(dir.path().join("tokenizer_config.json"), settings).unwrap();
        let encoder = TextEncoder::from_folder(dir.path(), 16).unwrap();
        encoder.encode(&row(text, None)).unwrap().ids
    };
    assert_eq!(ids("{}", "Cats"), [2, 8, 7, 3]);
    assert_eq!(ids(r#"{"do_lower_case": false}"#, "Cats"), [2, 11, 7, 3]);
    // Of another kind of tokenizer transformers does not know the setting.
    let other = r#"{"do_lower_case": false, "tokenizer_class": "PreTrainedTokenizerFast"}"#;
    assert_eq!(ids(other, "Cats"), [2, 8, 7, 3]);
    assert_eq!(ids(r#"{"strip_accents": null}"#, "çat"), [2, 8, 3]);
    assert_eq!(ids(r#"{"strip_accents": false}"#, "çat"), [2, 1, 3]);
}

#[test]
fn the_length_that_a_model_was_trained_with_is_saved() {
    let dir = folder(&[("vocab.txt", VOCABULARY)]);
    let length = || TextEncoder::saved_length(dir.path()).unwrap();
    assert_eq!(length(), None);
    let encoder = TextEncoder::from_folder(dir.path(), 9).unwrap();
    encoder.save(dir.path()).unwrap();
    assert_eq!(length(), Some(9));
    let path = dir.path().join("tokenizer.json");
    for text in [r#"{"truncation": null}"#, "{", "[]"] {
        fs::write(&path, text).unwrap();
        assert_eq!(length(), None, "{text}");
    }
}

#[test]
fn settings_baked_into_a_tokenizer_file_are_overruled() {
    let dir = folder(&[("vocab.txt", VOCABULARY)]);
    let plain = TextEncoder::from_folder(dir.path(), 6).unwrap();
    let mut baked = plain.tokenizer().clone();
    baked.with_padding(Some(tokenizers::PaddingParams {
        strategy: tokenizers::PaddingStrategy::Fixed(100),
        pad_id: 0,
        ..Default::default()
    }));
    let saved = TempDir::new().unwrap();
    baked
        .save(saved.path().join("tokenizer.json"), false)
        .unwrap();
    let encoder = TextEncoder::from_folder(saved.path(), 7).unwrap();
    assert_eq!(encoder.encode(&row("cat", None)).unwrap().ids, [2, 8, 3]);
    // Seven tokens leave four for text: the longer sentence is cut.
    let long = row("cat hat cat hat", Some("hat"));
    assert_eq!(encoder.encode(&long).unwrap().ids, [2, 8, 9, 8, 3, 9, 3]);
    let rows = vec![long; 2100];
    let many = encoder.encode_many(&rows).unwrap();
    assert_eq!(many.len(), rows.len());
    assert!(many.iter().all(|e| *e == encoder.encode(&rows[0]).unwrap()));
}

#[test]
fn unusable_tokenizers_are_refused() {
    let message = |files: &[(&str, &str)], length| {
        let dir = folder(files);
        TextEncoder::from_folder(dir.path(), length)
            .unwrap_err()
            .to_string()
    };
    assert!(message(&[], 8).contains("tokenizer.json, vocab.txt"));
    let text = message(&[("tokenizer.json", "{\"version\": ")], 8);
    assert!(text.contains("tokenizer.json"), "{text}");
    let text = message(&[("vocab.txt", "cat\nhat\n")], 8);
    assert!(
        text.contains("vocab.txt") && text.contains("[UNK]"),
        "{text}"
    );
    let text = message(&[("vocab.txt", VOCABULARY)], 3);
    assert!(text.contains("max_length = 3"), "{text}");
    let text = message(
        &[("vocab.txt", VOCABULARY), ("tokenizer_config.json", "{")],
        8,
    );
    assert!(text.contains("tokenizer_config.json"), "{text}");
}

/// The vocabulary by id.
fn tokens(tokenizer: &tokenizers::Tokenizer) -> Vec<String> {
    let size = tokenizer.get_vocab_size(true) as u32;
    (0..size)
        .map(|id| tokenizer.id_to_token(id).unwrap())
        .collect()
}

#[test]
fn a_learned_vocabulary_is_the_one_worked_out_by_hand() {
    // Sennrich et al.'s example: low 5, lower 2, newest 6, widest 3.
    let texts = ["low Low low LOW low", "lower, lower"];
    let more = [
        "newest newest newest",
        "newest newest newest widest widest widest",
    ];
    let learn = |size| learn_wordpiece(texts.into_iter().chain(more), size).unwrap();
    let special = "[PAD] [UNK] [CLS] [SEP] [MASK]";
    let alphabet = "##d ##e ##i ##o ##r ##s ##t ##w , l n w";
    let merges = "##es ##est ##ow low ##ew ##ewest newest ##dest ##idest widest ##er lower";
    let expected = format!("{special} {alphabet} {merges}");
    let expected: Vec<&str> = expected.split(' ').collect();
    assert_eq!(
        tokens(&learn(1000)),
        expected,
        "stops when no pair occurs twice"
    );
    assert_eq!(tokens(&learn(21)), expected[..21]);
    let encoder = TextEncoder::new(learn(1000), 16).unwrap();
    let ids = encoder.encode(&row("Lowest x", None)).unwrap().ids;
    let id = |token: &str| expected.iter().position(|t| *t == token).unwrap() as u32;
    assert_eq!(
        ids,
        [
            id("[CLS]"),
            id("low"),
            id("##est"),
            id("[UNK]"),
            id("[SEP]")
        ]
    );
    assert!(matches!(
        learn_wordpiece(texts, 5),
        Err(Error::Setting { .. })
    ));
    assert!(matches!(
        learn_wordpiece([""], 50),
        Err(Error::Setting { .. })
    ));
}

#[test]
fn a_learned_vocabulary_is_the_same_in_every_process() {
    use datasets::{GlueTask, Split, sample};
    let rows = sample::rows(GlueTask::Qnli, Split::Train).unwrap().unwrap();
    let texts = || {
        rows.iter()
            .flat_map(|row| [Some(row.first.as_str()), row.second.as_deref()])
    };
    let learn = || tokens(&learn_wordpiece(texts().flatten(), 2000).unwrap());
    let vocabulary = learn();
    assert_eq!(vocabulary.len(), 2000);
    assert_eq!(learn(), vocabulary);
    // FNV-1a of the tokens, recorded once: hash maps are seeded anew in every process.
    let digest = vocabulary
        .join("\n")
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    assert_eq!(digest, 16_802_021_977_272_620_751);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_epoch_has_every_example_once(
        lengths in prop::collection::vec(1usize..50, 0..200),
        batch_size in 1usize..17,
        seed in any::<u64>(),
        epoch in 0usize..5,
        shuffle in any::<bool>(),
        bucket in prop::option::of(0usize..6),
    ) {
        let batcher = Batcher { batch_size, seed, shuffle, bucket, drop_last: false };
        let order = batcher.order(&lengths, epoch);
        prop_assert_eq!(order.len(), batcher.batches(lengths.len()));
        let mut indices: Vec<usize> = order.iter().flatten().copied().collect();
        indices.sort_unstable();
        prop_assert_eq!(indices, (0..lengths.len()).collect::<Vec<_>>());
        prop_assert!(order.iter().filter(|batch| batch.len() != batch_size).count() <= 1);
        prop_assert_eq!(&batcher.order(&lengths, epoch), &order);

        let dropping = Batcher { drop_last: true, ..batcher };
        let order = dropping.order(&lengths, epoch);
        prop_assert_eq!(order.len(), dropping.batches(lengths.len()));
        prop_assert!(order.iter().all(|batch| batch.len() == batch_size));
        let mut indices: Vec<usize> = order.into_iter().flatten().collect();
        indices.sort_unstable();
        indices.dedup();
        prop_assert_eq!(indices.len(), lengths.len() / batch_size * batch_size);
    }
}

#[test]
fn seeds_and_epochs_have_orders_of_their_own() {
    let lengths = vec![7; 100];
    let order = |seed, epoch| {
        Batcher {
            seed,
            ..Batcher::default()
        }
        .order(&lengths, epoch)
    };
    assert_ne!(order(1, 0), order(1, 1));
    assert_ne!(order(1, 0), order(2, 0));
    assert_ne!(order(0, 1), order(1, 0));
    let plain = Batcher {
        batch_size: 40,
        shuffle: false,
        ..Batcher::default()
    };
    let in_order: Vec<usize> = (0..100).collect();
    assert_eq!(plain.order(&lengths, 3).concat(), in_order);
    // Worked out by a separate ChaCha8 and Fisher-Yates in Python.
    let small = Batcher {
        batch_size: 10,
        seed: 1,
        ..Batcher::default()
    };
    assert_eq!(small.order(&[1; 10], 0), [[1, 4, 9, 8, 0, 5, 7, 6, 2, 3]]);
    assert_eq!(small.order(&[1; 10], 2), [[8, 7, 2, 6, 4, 5, 1, 9, 0, 3]]);
}

#[test]
fn a_shuffle_is_uniform() {
    // Each of the 24 orders of four examples is expected 500 times, standard deviation 22.
    let batcher = Batcher {
        batch_size: 4,
        ..Batcher::default()
    };
    let mut counts = std::collections::HashMap::new();
    for epoch in 0..12_000 {
        *counts
            .entry(batcher.order(&[1; 4], epoch).concat())
            .or_insert(0i32) += 1;
    }
    assert_eq!(counts.len(), 24);
    assert!(
        counts.values().all(|&count| (count - 500).abs() < 110),
        "{counts:?}"
    );
}

#[test]
fn buckets_save_padding_and_stay_shuffled() {
    let lengths: Vec<usize> = (0..1000).map(|i| 1 + (i * 37) % 101).collect();
    let padded = |bucket| {
        let batcher = Batcher {
            batch_size: 10,
            bucket,
            ..Batcher::default()
        };
        let order = batcher.order(&lengths, 0);
        let longest = |batch: &Vec<usize>| batch.iter().map(|&i| lengths[i]).max().unwrap();
        let widths: Vec<usize> = order.iter().map(longest).collect();
        (widths.iter().sum::<usize>() * 10, widths)
    };
    let tokens: usize = lengths.iter().sum();
    let (without, _) = padded(None);
    let (with, widths) = padded(Some(20));
    assert!(with < tokens * 11 / 10, "{with} for {tokens} tokens");
    assert!(without > tokens * 3 / 2, "{without} for {tokens} tokens");
    assert!(
        !widths[..20].is_sorted(),
        "batches must not come short to long"
    );
}

fn example(ids: &[u32], label: Option<Label>) -> Encoded {
    Encoded {
        ids: ids.to_vec(),
        types: ids.iter().map(|id| id % 2).collect(),
        label,
    }
}

#[test]
fn a_batch_is_padded_to_its_longest_example() {
    let device = Device::Cpu;
    let data = TextDataset {
        examples: vec![
            example(&[5, 6, 7], Some(Label::Class(1))),
            example(&[8], Some(Label::Class(0))),
            example(&[9; 50], Some(Label::Class(2))),
        ],
        pad_id: 3,
    };
    assert_eq!(data.lengths(), [3, 1, 50]);
    let batch = data.batch(&[1, 0], &device).unwrap();
    let rows = |tensor: &candle_core::Tensor| tensor.to_vec2::<u32>().unwrap();
    assert_eq!(rows(&batch.input_ids), [[8, 3, 3], [5, 6, 7]]);
    assert_eq!(rows(&batch.token_type_ids), [[0, 0, 0], [1, 0, 1]]);
    assert_eq!(rows(&batch.attention_mask), [[1, 0, 0], [1, 1, 1]]);
    let labels = batch.labels.as_ref().unwrap();
    assert_eq!(labels.to_vec1::<u32>().unwrap(), [0, 1]);
    let part = batch.narrow(1, 1).unwrap();
    assert_eq!((part.len(), part.is_empty()), (1, false));
    assert_eq!(rows(&part.input_ids), [[5, 6, 7]]);
    assert_eq!(part.labels.unwrap().to_vec1::<u32>().unwrap(), [1]);
    for (start, len) in [(0, 0), (1, 2), (3, 1), (usize::MAX, 2)] {
        assert!(batch.narrow(start, len).is_err(), "{start} {len}");
    }
    assert!(data.batch(&[3], &device).is_err());
    assert_eq!(data.limit(2).len(), 2);
}

#[test]
fn labels_of_one_batch_are_of_one_kind() {
    let device = Device::Cpu;
    let class = example(&[1], Some(Label::Class(1)));
    let score = example(&[1, 2], Some(Label::Score(2.5)));
    let none = example(&[1], None);
    let batch = collate(&[&score, &score], 0, &device).unwrap();
    let labels = batch.labels.unwrap();
    assert_eq!((labels.dtype(), labels.dims()), (DType::F32, &[2][..]));
    assert!(collate(&[&none], 0, &device).unwrap().labels.is_none());
    for mixed in [[&class, &score], [&class, &none], [&none, &score]] {
        assert!(matches!(
            collate(&mixed, 0, &device),
            Err(Error::Batch { .. })
        ));
    }
    assert!(collate(&[], 0, &device).is_err());
    assert!(collate(&[&example(&[], None)], 0, &device).is_err());
    let crooked = Encoded {
        types: vec![],
        ..class
    };
    assert!(collate(&[&crooked], 0, &device).is_err());
}
