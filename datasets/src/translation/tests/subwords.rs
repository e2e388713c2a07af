//! Learned subwords and fairseq's: there and back, saved and loaded.

use super::damaged;
use crate::random::Random;
use crate::translation::{BpeCodes, Dictionary, Subwords, learn_subwords, try_learn_subwords};
use crate::{Error, Result};

const LINES: [&str; 6] = [
    "ein kleines Haus steht am Rand der Stadt , und das Haus ist alt .",
    "die kleinen Häuser der Stadt sind alt , sagt sie .",
    "wir haben 3,5 Millionen Euro gezählt .",
    "a small house stands at the edge of the city , and the house is old .",
    "the small houses of the city are old , she says .",
    "we have counted 3.5 million euros .",
];

fn learned() -> Subwords {
    learn_subwords(LINES, 150).unwrap()
}

#[test]
fn lines_come_back_from_learned_subwords() {
    let subwords = learned();
    assert!((80..=150).contains(&subwords.vocab_size()));
    let ids = (
        subwords.bos(),
        subwords.pad(),
        subwords.eos(),
        subwords.unk(),
    );
    assert_eq!(ids, (0, 1, 2, 3));
    let mut random = Random::new(4, 0);
    let words: Vec<&str> = LINES.iter().flat_map(|line| line.split(' ')).collect();
    let letters: Vec<char> = words.concat().chars().collect();
    for _ in 0..300 {
        let mut line: Vec<String> = (0..random.below(9))
            .map(|_| words[random.below(words.len())].to_string())
            .collect();
        line.push(
            (0..1 + random.below(6))
                .map(|_| letters[random.below(letters.len())])
                .collect(),
        );
        let line = line.join(" ");
        let ids = subwords.encode(&line).unwrap();
        assert!(
            ids.iter()
                .all(|id| *id > 3 && (*id as usize) < subwords.vocab_size()),
            "{line:?}"
        );
        assert_eq!(subwords.decode(&ids).unwrap(), line);
    }
    let ids = subwords.encode("  small\u{a0} \thouse ").unwrap();
    let framed = [&[0], ids.as_slice(), &[2, 1, 1]].concat();
    assert_eq!(subwords.decode(&framed).unwrap(), "small house");
    // Frequent words are whole.
    assert_eq!(subwords.encode("the house").unwrap().len(), 2);
}

#[test]
fn learning_does_not_depend_on_the_order_of_lines() {
    let content = |lines: Vec<&str>| {
        let dir = tempfile::tempdir().unwrap();
        learn_subwords(lines, 150)
            .unwrap()
            .save(dir.path())
            .unwrap();
        std::fs::read(dir.path().join("tokenizer.json")).unwrap()
    };
    let first = content(LINES.to_vec());
    for _ in 0..5 {
        assert_eq!(content(LINES.iter().rev().copied().collect()), first);
    }
}

#[test]
fn unknown_characters_and_special_tokens_in_text() {
    let subwords = learned();
    let ids = subwords.encode("中 house").unwrap();
    assert!(ids.contains(&subwords.unk()));
    assert_eq!(subwords.decode(&ids).unwrap(), "<unk> house");
    // Text that looks like a special token is text.
    let text = ["</s> <s> <pad> </s> s / < >"; 9];
    let subwords = learn_subwords(text, 60).unwrap();
    let ids = subwords.encode("</s> <s> <pad> <unk>").unwrap();
    assert!(ids.iter().all(|id| *id > 2), "{ids:?}");
    let ids = subwords.encode("</s> <pad>").unwrap();
    assert_eq!(subwords.decode(&ids).unwrap(), "</s> <pad>");
    assert!(subwords.encode(" ").unwrap().is_empty());
    assert_eq!(subwords.decode(&[]).unwrap(), "");
    let error = subwords.decode(&[5, 60]).unwrap_err().to_string();
    assert!(error.contains("id 60"), "{error}");
    assert!(subwords.encode(&"s".repeat((1 << 20) + 1)).is_err());
    let long = subwords.encode(&"s".repeat(1 << 20)).unwrap();
    assert_eq!(subwords.decode(&long).unwrap().len(), 1 << 20);
}

#[test]
fn what_cannot_be_learned_is_an_error() {
    for (lines, vocabulary) in [
        (vec!["a b"], 5),
        (vec!["a b"], usize::MAX),
        (vec!["", " "], 50),
        (vec![], 50),
    ] {
        assert!(matches!(
            learn_subwords(lines, vocabulary),
            Err(Error::Setting { .. })
        ));
    }
    let failing = ["a b"].into_iter().map(Ok).chain([Err(Error::Batch {
        reason: "here".to_string(),
    })]);
    assert!(
        try_learn_subwords(failing, 50)
            .unwrap_err()
            .to_string()
            .contains("here")
    );
    // The smallest: the blank alone, all else is unknown.
    let subwords = learn_subwords(["ab ab"], 6).unwrap();
    assert_eq!(subwords.encode("ab").unwrap(), [4, 3, 3]);
}

fn fairseq(text: &str, codes: Option<&str>) -> Result<Subwords> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dict");
    std::fs::write(&path, text).unwrap();
    let dictionary = Dictionary::from_file(&path)?;
    let codes = codes.map(|codes| {
        std::fs::write(&path, codes).unwrap();
        BpeCodes::from_file(&path)
    });
    Ok(Subwords::fairseq(dictionary, codes.transpose()?))
}

#[test]
fn what_a_text_has_to_be_is_told_from_the_subwords() {
    let pieces = "lo@@ 5\nw 4\n";
    for (symbols, codes, have_codes, are_escaped) in [
        (pieces, Some("l o\n"), true, false),
        (pieces, None, false, false),
        ("it 5\n&apos;s 4\n", None, false, true),
        ("it 5\n&quot; 4\n", None, false, true),
        // What is left of pages.
        ("it 5\n&quot; 4\n\" 9\n", None, false, false),
        ("it 5\n&apos;s 4\n' 9\n", None, false, false),
    ] {
        let subwords = fairseq(symbols, codes).unwrap();
        let got = (subwords.have_codes(), subwords.are_escaped());
        assert_eq!(got, (have_codes, are_escaped), "{symbols}");
        assert!(!subwords.have_marks());
    }
    let of = |line: &str| learn_subwords([line; 3], 40).unwrap();
    assert!(of("lo@@ w lo@@ wer").have_marks() && !of("low lower @@ -1 @@").have_marks());
}

#[test]
fn fairseqs_are_pieces_in_a_dictionary() {
    let (symbols, codes) = (
        "lo@@ 5\nw 4\nwer 3\n",
        "#version: 0.2\nl o\ne r</w>\nw er</w>\n",
    );
    let subwords = fairseq(symbols, Some(codes)).unwrap();
    let ids = subwords.encode("low lower  x").unwrap();
    assert_eq!(ids, [4, 5, 4, 6, 3]);
    assert_eq!(
        subwords
            .decode(&[&[0], ids.as_slice(), &[2, 1]].concat())
            .unwrap(),
        "low lower <unk>"
    );
    assert_eq!(subwords.decode(&[5, 4, 2]).unwrap(), "w lo");
    assert!(subwords.decode(&[7]).is_err());
    let cut = fairseq(symbols, None).unwrap();
    assert_eq!(cut.encode("lo@@ w").unwrap(), [4, 5]);
    assert_eq!((cut.vocab_size(), cut.eos()), (7, 2));
}

#[test]
fn what_is_saved_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let text = "we have counted the houses of the city lower";
    let codes = fairseq("lo@@ 5\nw 4\n", Some("l o\n")).unwrap();
    let plain = fairseq("we 5\nhave 4\n", None).unwrap();
    for (name, subwords) in [
        ("learned", learned()),
        ("codes", codes.clone()),
        ("plain", plain.clone()),
    ] {
        let dir = dir.path().join(name);
        subwords.save(&dir).unwrap();
        subwords.save(&dir).unwrap();
        let loaded = Subwords::from_folder(&dir).unwrap();
        assert_eq!(loaded.encode(text).unwrap(), subwords.encode(text).unwrap());
        assert_eq!(loaded.vocab_size(), subwords.vocab_size());
    }
    // What would be read instead.
    assert!(codes.save(&dir.path().join("learned")).is_err());
    assert!(plain.save(&dir.path().join("codes")).is_err());
    assert!(matches!(
        Subwords::from_folder(dir.path()),
        Err(Error::NotFound { .. })
    ));
}

/// Files of other tokenizers, and damaged ones.
#[test]
fn other_tokenizers_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    learned().save(dir.path()).unwrap();
    let path = dir.path().join("tokenizer.json");
    let whole = std::fs::read_to_string(&path).unwrap();
    for (from, to, expected) in [
        (
            "\"normalizer\": null",
            "\"normalizer\": {\"type\": \"Lowercase\"}",
            "normaliser",
        ),
        (
            "\"prepend_scheme\": \"always\"",
            "\"prepend_scheme\": \"never\"",
            "Metaspace",
        ),
        ("\"dropout\": null", "\"dropout\": 0.1", "other options"),
        (
            "\"byte_fallback\": false",
            "\"byte_fallback\": true",
            "other options",
        ),
        (
            "\"continuing_subword_prefix\": null",
            "\"continuing_subword_prefix\": \"##\"",
            "",
        ),
        (
            "\"unk_token\": \"<unk>\"",
            "\"unk_token\": null",
            "other options",
        ),
        (
            "\"content\": \"<pad>\"",
            "\"content\": \"<x>\"",
            "special tokens",
        ),
        (
            "\"truncation\": null",
            "\"truncation\": {\"direction\": \"Right\", \"max_length\": 2, \"strategy\": \"LongestFirst\", \"stride\": 0}",
            "cuts",
        ),
        ("\"▁\": 9", "\"▁\": 4294967295", ""),
        ("\"<unk>\": 3", "\"<x>\": 3", ""),
        ("{", "", "whole"),
    ] {
        if from.contains('▁') && !whole.contains(from) {
            continue;
        }
        assert!(whole.contains(from), "{from}");
        std::fs::write(&path, whole.replacen(from, to, 1)).unwrap();
        let error = Subwords::from_folder(dir.path()).unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, Error::Tokenizer { .. }) && text.contains(expected),
            "{from}: {text}"
        );
        assert!(text.contains("tokenizer.json"), "{text}");
    }
    let mut random = Random::new(6, 0);
    for _ in 0..150 {
        std::fs::write(&path, damaged(whole.as_bytes(), &mut random)).unwrap();
        if let Ok(subwords) = Subwords::from_folder(dir.path()) {
            let ids = subwords.encode("we have counted the houses").unwrap();
            subwords.decode(&ids).unwrap();
        }
    }
}

#[test]
fn damaged_dictionaries_and_codes_are_errors_or_subwords() {
    let mut random = Random::new(8, 0);
    let (symbols, codes) = (
        "lo@@ 5\nw 4\nwer 3\nä 2 #fairseq:overwrite\n",
        "#version: 0.2\nl o\ne r</w>\nw er</w>\n",
    );
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..500 {
        std::fs::write(
            dir.path().join("dict.txt"),
            damaged(symbols.as_bytes(), &mut random),
        )
        .unwrap();
        std::fs::write(
            dir.path().join("codes.txt"),
            damaged(codes.as_bytes(), &mut random),
        )
        .unwrap();
        if let Ok(subwords) = Subwords::from_folder(dir.path()) {
            let ids = subwords.encode("lower low ä").unwrap();
            subwords.decode(&ids).unwrap();
        }
    }
}
