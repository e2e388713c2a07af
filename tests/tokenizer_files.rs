//! Tokenizers that are damaged, or another model's.

use datasets::limits::LONGEST_LINE;
use datasets::wordpiece::learn_wordpiece;
use datasets::{Error, Row, TextEncoder};
use testing::assert_says;
use tokenizers::models::wordpiece::WordPiece;

const TEXTS: [&str; 2] = [
    "the film is not dull",
    "the plot is truly gripping , the cast is not",
];

fn learned() -> tokenizers::Tokenizer {
    learn_wordpiece(TEXTS, 60).unwrap()
}

fn json() -> serde_json::Value {
    serde_json::from_str(&learned().to_string(false).unwrap()).unwrap()
}

fn open(json: &[u8]) -> Result<TextEncoder, Error> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), json).unwrap();
    TextEncoder::from_folder(dir.path(), 16)
}

fn row(text: &str) -> Row {
    Row {
        first: text.to_string(),
        second: None,
        label: None,
    }
}

/// Among them one within its decoder, where the tokenizers crate panics.
#[test]
fn a_tokenizer_that_is_cut_off_anywhere_is_an_error_with_its_name() {
    let whole = json().to_string();
    assert!(open(whole.as_bytes()).is_ok());
    for length in 0..whole.len() {
        assert_says(open(&whole.as_bytes()[..length]), &["tokenizer.json"]);
    }
    let mut part = json();
    for decoder in [
        r#"{"type":"WordPiece"}"#,
        r#"{"type":"Nothing"}"#,
        "{}",
        "[]",
        "7",
        "\"x\"",
    ] {
        part["decoder"] = serde_json::from_str(decoder).unwrap();
        if let Err(error) = open(part.to_string().as_bytes()) {
            assert!(error.to_string().contains("tokenizer.json"), "{error}");
        }
    }
}

#[test]
fn a_tokenizer_without_special_tokens_is_refused() {
    let mut bare = json();
    bare["post_processor"] = serde_json::Value::Null;
    assert_says(
        open(bare.to_string().as_bytes()),
        &["tokenizer.json", "[CLS]", "post-processor"],
    );
    bare["post_processor"] =
        serde_json::json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true});
    assert_says(
        open(bare.to_string().as_bytes()),
        &["tokenizer.json", "[CLS]"],
    );
    let model = WordPiece::builder().vocab([("[UNK]".to_string(), 0), ("the".to_string(), 1)]);
    let made = tokenizers::Tokenizer::new(model.build().unwrap());
    assert_says(TextEncoder::new(made, 16), &["[CLS]"]);
}

#[test]
fn ids_of_special_tokens_count_even_outside_of_the_vocabulary() {
    let mut strange = json();
    strange["post_processor"]["cls"] = serde_json::json!(["[CLS]", 101]);
    let encoder = open(strange.to_string().as_bytes()).unwrap();
    assert_eq!(encoder.encode(&row("the")).unwrap().ids[0], 101);
    assert_eq!(encoder.vocab_size(), 102);
    assert_says(encoder.check(100, 16), &["up to 101", "has 100 entries"]);
    assert!(encoder.check(102, 16).is_ok());
    strange["post_processor"]["cls"] = serde_json::json!(["[CLS]", u32::MAX]);
    let encoder = open(strange.to_string().as_bytes()).unwrap();
    assert_says(encoder.check(100, 16), &["4294967295", "4294967296"]);
}

/// A post-processor by template, of the pieces of a single text and of a pair.
fn template(single: &[&str], pair: &[&str]) -> Result<TextEncoder, Error> {
    let piece = |name: &&str| match *name {
        "A" | "B" => serde_json::json!({"Sequence": {"id": name, "type_id": 0}}),
        special => serde_json::json!({"SpecialToken": {"id": special, "type_id": 0}}),
    };
    let pieces = |names: &[&str]| names.iter().map(piece).collect::<Vec<_>>();
    let mut file = json();
    file["post_processor"] = serde_json::json!({
        "type": "TemplateProcessing",
        "single": pieces(single),
        "pair": pieces(pair),
        "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]}},
    });
    open(file.to_string().as_bytes())
}

/// Of a file that repeats them, sequences came out longer than the maximum length, and in gigabytes.
#[test]
fn a_tokenizer_that_repeats_or_drops_a_text_is_refused() {
    let encoder = template(&["[CLS]", "A"], &["[CLS]", "B", "[CLS]", "A"]).unwrap();
    // The learned one has a [SEP] besides.
    let film = TextEncoder::new(learned(), 16)
        .unwrap()
        .encode(&row("the film"));
    let tokens = film.unwrap().ids.len() - 1;
    assert_eq!(encoder.encode(&row("the film")).unwrap().ids.len(), tokens);
    let long = row(&"the ".repeat(100));
    assert_eq!(encoder.encode(&long).unwrap().ids.len(), 16);
    assert_says(
        template(&["[CLS]", "A", "A", "A"], &["[CLS]", "A", "B"]),
        &[
            "tokenizer.json",
            "only text of a single text 3 times",
            "not once",
        ],
    );
    assert_says(
        template(&["[CLS]", "A"], &["[CLS]", "A", "B", "B"]),
        &["second text of a pair 2 times"],
    );
    assert_says(template(&["[CLS]"], &["[CLS]", "A", "B"]), &["0 times"]);
    assert_says(
        template(&["[CLS]", "A"], &["[CLS]", "B"]),
        &["first text of a pair 0 times"],
    );
}

/// Each of them makes two bytes of one outside of ASCII, and a file has room for a hundred.
#[test]
fn a_tokenizer_that_makes_texts_much_longer_is_refused() {
    let mut file = json();
    let bytes = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let sequence =
        |count| serde_json::json!({"type": "Sequence", "pretokenizers": vec![&bytes; count]});
    file["pre_tokenizer"] = sequence(6);
    assert!(open(file.to_string().as_bytes()).is_ok());
    file["pre_tokenizer"] = sequence(30);
    assert_says(
        open(file.to_string().as_bytes()),
        &["tokenizer.json", "times as long", "cut the text"],
    );
}

/// Words in the place of signs: 225 times as long at the most, which no text is, and short texts cannot be.
#[test]
fn a_tokenizer_may_write_signs_as_words() {
    let sign = |sign: &str, word: &str| serde_json::json!({"type": "Replace", "pattern": {"String": sign}, "content": word});
    let signs = [
        sign("%", " percent "),
        sign("&", " and "),
        sign("+", " plus"),
    ];
    let mut file = json();
    let lower = file["normalizer"].clone();
    let steps: Vec<_> = std::iter::once(lower).chain(signs).collect();
    file["normalizer"] = serde_json::json!({"type": "Sequence", "normalizers": steps});
    let encoder = open(file.to_string().as_bytes()).unwrap();
    assert!(!encoder.encode(&row("50 % & more")).unwrap().ids.is_empty());
    assert!(encoder.encode(&row(&"the ".repeat(8_000))).is_ok());
    let error = encoder.encode(&row(&"the ".repeat(10_000)));
    assert_says(
        error,
        &["225 times as long", "40000 bytes", "8388608 bytes"],
    );
}

#[test]
fn a_maximum_length_leaves_room_for_the_special_tokens_of_single_texts_too() {
    let mut single = vec!["[CLS]"; 20];
    single.push("A");
    assert_says(
        template(&single, &["[CLS]", "A", "B"]),
        &["max_length", "16", "more than 21"],
    );
}

#[test]
fn a_tokenizer_of_another_model_is_refused_unless_the_caller_knows() {
    let encoder = TextEncoder::new(learned(), 16).unwrap();
    let tokens = encoder.vocab_size();
    assert!(encoder.check(2 * tokens, 16).is_ok());
    let outcome = encoder.check(30_522, 16);
    assert!(matches!(
        outcome,
        Err(Error::VocabularyTooLarge {
            vocab_size: 30_522,
            ..
        })
    ));
    assert_says(
        outcome,
        &[
            &tokens.to_string(),
            "30522",
            "another model's",
            "tokenizer.json",
        ],
    );
    let encoder = encoder.allow_small_vocabulary();
    assert!(encoder.check(30_522, 16).is_ok());
    // What would read beyond the embeddings is never allowed.
    assert!(encoder.check(tokens - 1, 16).is_err());
}

#[test]
fn a_text_has_an_end_and_so_has_a_word() {
    let encoder = TextEncoder::new(learned(), 16).unwrap();
    let long = "the ".repeat(LONGEST_LINE / 4);
    assert_eq!(encoder.encode(&row(&long)).unwrap().ids.len(), 16);
    let longer = format!("{long}t");
    assert_says(
        encoder.encode(&row(&longer)),
        &["1048577 bytes", "at most 1048576"],
    );
    assert_says(
        encoder.encode_many(&[row("the"), row(&longer)]),
        &["1048577 bytes"],
    );
    assert_says(learn_wordpiece([longer.as_str()], 100), &["1048577 bytes"]);
    // A word that WordPiece takes as unknown is not learned from, be it a megabyte: a hundred are.
    let word = "ab".repeat(LONGEST_LINE / 2);
    let learned = learn_wordpiece(["abba", &word], 1000).unwrap();
    assert_eq!(
        tokens(&learned),
        tokens(&learn_wordpiece(["abba"], 1000).unwrap())
    );
    let at_the_limit = "ab".repeat(50);
    let learned = learn_wordpiece([at_the_limit.as_str(); 2], 1000).unwrap();
    assert!(learned.token_to_id(&at_the_limit).is_some());
    let beyond = learn_wordpiece(["abba", &format!("{at_the_limit}a")], 1000).unwrap();
    assert_eq!(
        tokens(&beyond).len(),
        tokens(&learn_wordpiece(["abba"], 1000).unwrap()).len()
    );
}

fn tokens(tokenizer: &tokenizers::Tokenizer) -> Vec<(String, u32)> {
    let mut tokens: Vec<_> = tokenizer.get_vocab(true).into_iter().collect();
    tokens.sort();
    tokens
}

/// A folder with a `vocab.txt` and these files beside it.
fn plain(beside: &[(&str, &str)]) -> Result<TextEncoder, Error> {
    let dir = tempfile::tempdir().unwrap();
    let vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\nfilm\n";
    std::fs::write(dir.path().join("vocab.txt"), vocabulary).unwrap();
    for (name, text) in beside {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    TextEncoder::from_folder(dir.path(), 16)
}

/// What `vocab.txt` alone does not say: Japanese words, characters for pieces, tokens behind the vocabulary.
#[test]
fn a_vocabulary_of_another_tokenizer_than_berts_is_refused() {
    const CONFIG: &str = "tokenizer_config.json";
    let config = |text: &str| plain(&[(CONFIG, text)]).map(drop);
    for known in [
        "{}",
        r#"{"tokenizer_class": "BertTokenizer", "word_tokenizer_type": "basic", "subword_tokenizer_type": "wordpiece"}"#,
        r#"{"tokenizer_class": "DistilBertTokenizerFast"}"#,
        r#"{"tokenizer_class": null, "added_tokens_decoder": {"0": {"content": "[PAD]"}, "4": {"content": "[MASK]"}}}"#,
    ] {
        assert!(config(known).is_ok(), "{known}");
    }
    for (text, setting) in [
        (r#"{"word_tokenizer_type": "mecab"}"#, "mecab"),
        (r#"{"subword_tokenizer_type": "character"}"#, "character"),
        (
            r#"{"tokenizer_class": "BertJapaneseTokenizer"}"#,
            "BertJapaneseTokenizer",
        ),
        (r#"{"added_tokens_decoder": {"7": {}}}"#, "token 7"),
    ] {
        assert_says(config(text), &[CONFIG, setting, "tokenizer.json"]);
    }
    const ADDED: &str = "added_tokens.json";
    let added = |text: &str| plain(&[(ADDED, text)]).map(drop);
    assert!(added(r#"{"[MASK]": 4}"#).is_ok());
    assert_says(
        added(r#"{"[E1]": 7}"#),
        &[ADDED, "token 7", "tokenizer.json"],
    );
    assert_says(added("[7"), &[ADDED, "JSON"]);
}
