//! Against the numbers of sacreBLEU and multi-bleu.perl in `tests/reference/bleu`.

use crate::Error;
use crate::generation::{
    Bleu, BleuStatistics, MultiBleu, SacreBleu, Smoothing, Tokeniser, multi_bleu, sacre_bleu,
    tokenise_13a,
};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

fn read(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/reference/bleu");
    fs::read_to_string(PathBuf::from(folder).join(name)).unwrap()
}

fn golden(part: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(&read("golden.json")).unwrap();
    all[part].as_array().unwrap().clone()
}

/// The lines as Python reads them: of the separators of lines, only the line feed is one.
fn lines(name: &str) -> Vec<String> {
    let text = read(name);
    let lines = text.strip_suffix('\n').unwrap().split('\n');
    lines.map(String::from).collect()
}

/// One of the ways to score in the golden file.
enum Way {
    Multi(MultiBleu),
    Sacre(SacreBleu),
}

impl Way {
    fn of(case: &Value) -> Self {
        let lowercase = case["lowercase"].as_bool().unwrap();
        if case["kind"] == "multi" {
            return Way::Multi(MultiBleu { lowercase });
        }
        let kinds = [Tokeniser::V13a, Tokeniser::None, Tokeniser::Char];
        let tokeniser = kinds.into_iter().find(|t| case["tokeniser"] == t.name());
        let smoothing = match case["smoothing"].as_str().unwrap() {
            "exp" => Smoothing::Exponential,
            _ => Smoothing::None,
        };
        Way::Sacre(SacreBleu {
            tokeniser: tokeniser.unwrap(),
            lowercase,
            smoothing,
        })
    }

    fn score(&self, hypotheses: &[String], references: &[&[String]]) -> Bleu {
        match self {
            Way::Multi(way) => way.score(hypotheses, references).unwrap(),
            Way::Sacre(way) => way.score(hypotheses, references).unwrap(),
        }
    }

    fn statistics(&self, hypotheses: &[String], references: &[&[String]]) -> BleuStatistics {
        match self {
            Way::Multi(way) => way.statistics(hypotheses, references).unwrap(),
            Way::Sacre(way) => way.statistics(hypotheses, references).unwrap(),
        }
    }
}

fn near(got: f64, expected: &Value, what: &str) {
    let expected = expected.as_f64().unwrap();
    assert!((got - expected).abs() < 1e-9, "{what}: {got} {expected}");
}

#[test]
fn scores_are_those_of_sacrebleu() {
    let hypotheses = lines("hypotheses.txt");
    let all = [lines("references_0.txt"), lines("references_1.txt")];
    let all: Vec<&[String]> = all.iter().map(Vec::as_slice).collect();
    for case in golden("cases") {
        let count = case["references"].as_u64().unwrap() as usize;
        let (way, references) = (Way::of(&case), &all[..count]);
        let bleu = way.score(&hypotheses, references);
        let name = case["report"].as_str().unwrap();
        near(bleu.score, &case["score"], name);
        near(bleu.brevity_penalty, &case["brevity_penalty"], name);
        let statistics = bleu.statistics;
        for order in 0..4 {
            near(bleu.precisions[order], &case["precisions"][order], name);
            assert_eq!(case["matched"][order], statistics.matched[order], "{name}");
            assert_eq!(case["total"][order], statistics.total[order], "{name}");
        }
        assert_eq!(case["hypothesis_length"], statistics.hypothesis_length);
        assert_eq!(case["reference_length"], statistics.reference_length);
        if let Way::Sacre(way) = &way {
            assert_eq!(case["signature"], way.signature(count));
            assert_eq!(case["report"], way.report(&bleu, count));
        }
        for (index, expected) in case["alone"].as_array().unwrap().iter().enumerate() {
            let references: Vec<_> = references.iter().map(|r| &r[index..=index]).collect();
            let bleu = way.score(&hypotheses[index..=index], &references);
            near(bleu.score, expected, &format!("{name}, line {index}"));
        }
    }
}

#[test]
fn parts_add_up_to_the_whole() {
    let hypotheses = lines("hypotheses.txt");
    let references = lines("references_0.txt");
    for case in golden("cases") {
        let way = Way::of(&case);
        let part = |from: usize, to: usize| {
            way.statistics(&hypotheses[from..to], &[&references[from..to]])
        };
        let sum: BleuStatistics = (0..4).map(|i| part(10 * i, 10 * i + 10)).sum();
        assert_eq!(sum, part(0, 40));
        assert_eq!(part(0, 7) + part(7, 40), sum);
    }
}

#[test]
fn tokens_are_those_of_sacrebleu() {
    for pair in golden("tokens") {
        let text = pair[0].as_str().unwrap();
        assert_eq!(pair[1], tokenise_13a(text).join(" "), "{text:?}");
    }
}

#[test]
fn multi_bleu_prints_its_line() {
    let hypotheses = lines("hypotheses.txt");
    let all = [lines("references_0.txt"), lines("references_1.txt")];
    let line = |lowercase, count: usize| {
        let references: Vec<&[String]> = all[..count].iter().map(Vec::as_slice).collect();
        let bleu = MultiBleu { lowercase }.score(&hypotheses, &references);
        bleu.unwrap().to_string()
    };
    // What the script prints for these files.
    let expected = [
        "BLEU = 34.48, 60.7/41.3/28.2/20.0 (BP=1.000, ratio=1.000, hyp_len=280, ref_len=280)",
        "BLEU = 51.53, 76.4/63.6/45.6/31.8 (BP=1.000, ratio=1.077, hyp_len=280, ref_len=260)",
        "BLEU = 34.90, 62.5/42.1/28.2/20.0 (BP=1.000, ratio=1.000, hyp_len=280, ref_len=280)",
        "BLEU = 53.36, 79.6/66.1/47.6/32.4 (BP=1.000, ratio=1.077, hyp_len=280, ref_len=260)",
    ];
    let got = [line(false, 1), line(false, 2), line(true, 1), line(true, 2)];
    assert_eq!(got, expected);

    let nothing = multi_bleu(&["a b"], &[&[""]]).unwrap();
    let expected = "BLEU = 0, 0/0/0/0 (BP=0, ratio=0, hyp_len=0, ref_len=0)";
    assert_eq!(nothing.to_string(), expected);
    let silent = multi_bleu(&[""], &[&["a b"]]).unwrap();
    assert_eq!((silent.score, silent.brevity_penalty), (0.0, 0.0));
}

#[test]
fn lists_of_other_lengths_are_refused() {
    let refused = |hypotheses: &[&str], references: &[&[&str]]| {
        let results = [
            multi_bleu(hypotheses, references),
            sacre_bleu(hypotheses, references),
        ];
        for result in results {
            assert!(matches!(result, Err(Error::Metric { .. })), "{result:?}");
        }
    };
    refused(&["a", "b"], &[&["a"]]);
    refused(&["a"], &[&["a"], &["a", "b"]]);
    refused(&["a"], &[&[]]);
    refused(&["a"], &[]);
    refused(&[], &[&[]]);
    refused(&[], &[]);
    assert!(BleuStatistics::of(&[1, 2], &[]).is_err());
}
