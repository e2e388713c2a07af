//! Beam search over a decoder of few tokens, against searches that look at everything.

use crate::generation::{BeamSearch, Decoder, Hypothesis};
use crate::{Error, Result};

const PAD: u32 = 0;
const EOS: u32 = 1;
const VOCABULARY: usize = 5;

/// The natural logarithms of the probabilities of the next token: random, and a function of the sentence and
/// the tokens so far, the first one included.
fn next(sentence: u64, prefix: &[u32]) -> Vec<f32> {
    let mut state = sentence.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for token in prefix {
        state = mixed(state ^ (u64::from(*token) + 1));
    }
    let logit = |token: u64| 3.0 * (mixed(state ^ token << 32) >> 11) as f64 / (1u64 << 53) as f64;
    let logits: Vec<f64> = (0..VOCABULARY as u64).map(logit).collect();
    let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
    logits.iter().map(|l| (l - sum.ln()) as f32).collect()
}

fn mixed(state: u64) -> u64 {
    let state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ (state >> 31)
}

/// Remembers of each row its sentence and its tokens, as a model would in its keys and values.
struct Toy {
    rows: Vec<(u64, Vec<u32>)>,
    /// How many rows of each sentence there were in each step.
    seen: Vec<Vec<u64>>,
}

impl Toy {
    fn new(sentences: &[u64]) -> Self {
        let row = |sentence: &u64| (*sentence, Vec::new());
        Self {
            rows: sentences.iter().map(row).collect(),
            seen: Vec::new(),
        }
    }
}

impl Decoder for Toy {
    fn vocabulary(&self) -> usize {
        VOCABULARY
    }

    fn step(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        assert_eq!(tokens.len(), self.rows.len());
        self.seen.push(self.rows.iter().map(|row| row.0).collect());
        for (row, token) in self.rows.iter_mut().zip(tokens) {
            row.1.push(*token);
        }
        let values = self.rows.iter().map(|row| next(row.0, &row.1));
        Ok(values.collect::<Vec<_>>().concat())
    }

    fn select(&mut self, rows: &[usize]) -> Result<()> {
        self.rows = rows.iter().map(|row| self.rows[*row].clone()).collect();
        Ok(())
    }
}

/// Of at most `length` tokens.
fn search(beam: usize, length: usize) -> BeamSearch {
    BeamSearch {
        beam,
        n_best: beam,
        max_extra: length,
        min_length: 0,
        ..BeamSearch::new(EOS, EOS, PAD)
    }
}

fn run(search: &BeamSearch, sentence: u64) -> Vec<Hypothesis> {
    let found = search.search(&mut Toy::new(&[sentence]), &[1]);
    found.unwrap().remove(0)
}

/// A hypothesis from its tokens, the end included.
fn scored(search: &BeamSearch, sentence: u64, tokens: Vec<u32>) -> Hypothesis {
    let given = [&[search.bos], tokens.as_slice()].concat();
    let value = |i: usize| next(sentence, &given[..=i])[tokens[i] as usize];
    let log_probabilities: Vec<f32> = (0..tokens.len()).map(value).collect();
    let sum = log_probabilities.iter().fold(0.0, |s, v| s + f64::from(*v));
    Hypothesis {
        score: sum / (tokens.len() as f64).powf(search.length_penalty),
        tokens,
        log_probabilities,
    }
}

/// All sequences of the three words that are no longer than allowed, the best first.
fn exhaustive(search: &BeamSearch, sentence: u64) -> Vec<Hypothesis> {
    let mut all: Vec<Vec<u32>> = vec![vec![]];
    let mut first = 0;
    for _ in 0..search.max_extra {
        let last = all.len();
        for index in first..last {
            let longer = (2..VOCABULARY as u32).map(|word| [&all[index][..], &[word]].concat());
            let longer: Vec<_> = longer.collect();
            all.extend(longer);
        }
        first = last;
    }
    all.retain(|words| words.len() >= search.min_length);
    let ended = all.into_iter().map(|words| [&words[..], &[EOS]].concat());
    let mut all: Vec<_> = ended.map(|t| scored(search, sentence, t)).collect();
    all.sort_by(|a, b| b.score.total_cmp(&a.score));
    all
}

/// fairseq's rule with everything sorted.
fn naive(search: &BeamSearch, sentence: u64) -> Vec<Hypothesis> {
    let (mut prefixes, mut finished) = (vec![(0.0, vec![])], Vec::new());
    for length in 0.. {
        let mut longer = Vec::new();
        for (sum, words) in &prefixes {
            let values = next(sentence, &[&[search.bos], &words[..]].concat());
            let allowed = |token: u32| match token {
                PAD => false,
                EOS => length >= search.min_length,
                _ => length < search.max_extra,
            };
            for token in (0..VOCABULARY as u32).filter(|t| allowed(*t)) {
                let sum: f64 = sum + f64::from(values[token as usize]);
                longer.push((sum, [&words[..], &[token]].concat()));
            }
        }
        longer.sort_by(|a, b| b.0.total_cmp(&a.0));
        longer.truncate(2 * search.beam);
        let ends = |one: &(f64, Vec<u32>)| one.1.ends_with(&[EOS]);
        let leading = longer.iter().take(search.beam).filter(|one| ends(one));
        finished.extend(leading.map(|one| scored(search, sentence, one.1.clone())));
        longer.retain(|one| !ends(one));
        longer.truncate(search.beam);
        prefixes = longer;
        if finished.len() >= search.beam || prefixes.is_empty() {
            break;
        }
    }
    finished.truncate(search.beam);
    finished.sort_by(|a, b| b.score.total_cmp(&a.score));
    finished
}

#[test]
fn a_beam_of_one_is_greedy() {
    let search = search(3, 6).greedy();
    for sentence in 0..200 {
        let mut tokens: Vec<u32> = Vec::new();
        while !tokens.ends_with(&[EOS]) {
            let values = next(sentence, &[&[EOS], &tokens[..]].concat());
            let allowed = if tokens.len() == 6 { EOS..2 } else { EOS..5 };
            let best = allowed.max_by(|a, b| values[*a as usize].total_cmp(&values[*b as usize]));
            tokens.extend(best);
        }
        assert_eq!(run(&search, sentence), [scored(&search, sentence, tokens)]);
    }
}

#[test]
fn a_beam_as_large_as_the_space_finds_all_in_order() {
    for length_penalty in [-1.0, 0.0, 0.6, 1.0, 2.5] {
        for (sentence, min_length) in [(1, 0), (2, 0), (3, 2), (4, 4)] {
            let search = BeamSearch {
                length_penalty,
                min_length,
                ..search(128, 4)
            };
            let all = exhaustive(&search, sentence);
            assert!(all.len() == 121 || min_length > 0);
            assert_eq!(run(&search, sentence), all);
        }
    }
}

#[test]
fn smaller_beams_follow_the_rule() {
    for beam in 1..8 {
        for sentence in 0..60 {
            let search = BeamSearch {
                length_penalty: [0.0, 1.0, 1.3][sentence as usize % 3],
                min_length: sentence as usize % 4,
                ..search(beam, 7)
            };
            let found = run(&search, sentence);
            assert_eq!(found, naive(&search, sentence));
            let fewer = BeamSearch {
                n_best: 1,
                ..search
            };
            assert_eq!(run(&fewer, sentence), found[..1]);
        }
    }
}

#[test]
fn a_batch_is_its_sentences_one_by_one_and_drops_those_that_are_done() {
    let sentences: Vec<u64> = (0..23).collect();
    let lengths: Vec<usize> = sentences.iter().map(|s| (*s as usize * 5) % 9).collect();
    for beam in [1, 2, 5] {
        let search = BeamSearch {
            max_ratio: 1.2,
            ..search(beam, 1)
        };
        let mut toy = Toy::new(&sentences);
        let found = search.search(&mut toy, &lengths).unwrap();
        for (index, sentence) in sentences.iter().enumerate() {
            let mut alone = Toy::new(&[*sentence]);
            let one = search.search(&mut alone, &lengths[index..=index]).unwrap();
            assert_eq!(found[index], one[0]);
            let longest = (1.2 * lengths[index] as f64) as usize + 1;
            assert!(one[0].iter().all(|h| h.text().len() <= longest));
            // As many steps, and as many rows in each.
            let rows = |toy: &Toy, step: usize| -> usize {
                let seen = toy.seen.get(step).into_iter().flatten();
                seen.filter(|row| *row == sentence).count()
            };
            for step in 0..toy.seen.len() {
                assert_eq!(rows(&toy, step), rows(&alone, step));
                assert!(rows(&toy, step) <= beam);
            }
        }
    }
    assert!(
        search(2, 3)
            .search(&mut Toy::new(&[]), &[])
            .unwrap()
            .is_empty()
    );
}

#[test]
fn forbidden_tokens_do_not_come_and_ends_come_in_time() {
    let search = BeamSearch {
        forbidden: vec![3],
        min_length: 2,
        ..search(4, 3)
    };
    for sentence in 0..50 {
        let found = run(&search, sentence);
        assert_eq!(found.len(), 4);
        for one in found {
            assert!(matches!(one.text().len(), 2 | 3) && one.tokens.ends_with(&[EOS]));
            assert!(one.text().iter().all(|token| [2, 4].contains(token)));
            assert_eq!(one, scored(&search, sentence, one.tokens.clone()));
        }
    }
}

/// The same values in every step and row.
struct Same(Vec<f32>);

impl Decoder for Same {
    fn vocabulary(&self) -> usize {
        4
    }

    fn step(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        Ok(self.0.repeat(tokens.len()))
    }

    fn select(&mut self, _: &[usize]) -> Result<()> {
        Ok(())
    }
}

#[test]
fn ties_are_broken_by_row_and_token() {
    let all = search(2, 9).search(&mut Same(vec![-1.0; 4]), &[1]).unwrap();
    let tokens: Vec<_> = all[0].iter().map(|h| h.tokens.as_slice()).collect();
    assert_eq!(tokens, [&[EOS][..], &[2, EOS]]);
    assert_eq!(all[0][0].score, all[0][1].score);
}

#[test]
fn what_cannot_be_searched_is_refused() {
    let refused = |values: &[f32], part: &str| {
        let result = search(2, 3).search(&mut Same(values.to_vec()), &[1, 1]);
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Decoder { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    };
    refused(&[-1.0, -1.0, f32::NAN, -1.0], "row 0, token 2");
    refused(&[-1.0, -1.0, -1.0, f32::INFINITY], "row 0, token 3");
    refused(&[-1.0; 3], "expected 2 rows of 4 tokens, got 6");
    refused(&[f32::NEG_INFINITY; 4], "sentence 0");
    let no_end = [-1.0, f32::NEG_INFINITY, -1.0, -1.0];
    refused(&no_end, "sentence 0");
}

#[test]
fn settings_outside_their_range_are_refused() {
    let fine = search(2, 3);
    let wrong = [
        (
            "beam",
            BeamSearch {
                beam: 0,
                ..fine.clone()
            },
        ),
        (
            "n_best",
            BeamSearch {
                n_best: 0,
                ..fine.clone()
            },
        ),
        (
            "n_best",
            BeamSearch {
                n_best: 3,
                ..fine.clone()
            },
        ),
        (
            "length_penalty",
            BeamSearch {
                length_penalty: f64::NAN,
                ..fine.clone()
            },
        ),
        (
            "max_ratio",
            BeamSearch {
                max_ratio: -1.0,
                ..fine.clone()
            },
        ),
        (
            "min_length",
            BeamSearch {
                min_length: 4,
                ..fine.clone()
            },
        ),
        (
            "bos",
            BeamSearch {
                bos: 4,
                ..fine.clone()
            },
        ),
        (
            "eos",
            BeamSearch {
                eos: 4,
                ..fine.clone()
            },
        ),
        (
            "pad",
            BeamSearch {
                pad: 9,
                ..fine.clone()
            },
        ),
        (
            "eos",
            BeamSearch {
                pad: EOS,
                ..fine.clone()
            },
        ),
        (
            "eos",
            BeamSearch {
                forbidden: vec![EOS],
                ..fine.clone()
            },
        ),
    ];
    for (name, search) in wrong {
        let error = search.search(&mut Same(vec![-1.0; 4]), &[1]).unwrap_err();
        assert!(
            matches!(error, Error::Setting { what, .. } if what == name),
            "{error}"
        );
    }
}
