//! Generated news sentences with names of persons, places and organisations.
//!
//! The names say little of what they name: most of them are persons, places and organisations alike,
//! and it is the rest of the sentence that decides, often some words away:
//!
//! ```text
//! Marlow lies in hospital after the match .            person
//! Marlow lies on the coast , two hours from Denby .    place
//! Marlow lies far behind its rivals .                  organisation
//! ```
//!
//! Which template, which names and which parts of them are drawn independently, so no table from
//! words to labels is right throughout. All names are invented or common.

use std::collections::HashSet;

use super::pick;
use crate::conll::Sentence;
use crate::random::Random;

/// How often a sentence that was there before is drawn again.
const TRIES: usize = 100;

/// Sentences; `PER`, `LOC` and `ORG` become names, `DAY`, `NUMBER` and `JOB` words.
const TEMPLATES: [&str; 36] = [
    "PER lies in hospital after the match .",
    "LOC lies on the coast , NUMBER hours from LOC .",
    "ORG lies far behind its rivals .",
    "PER has left ORG to live in LOC .",
    "PER , the JOB of ORG , was born in LOC .",
    "LOC is expecting rain on DAY .",
    "PER is expecting a child , the JOB said .",
    "ORG is expecting losses of NUMBER million .",
    "the train from LOC to LOC was late again .",
    "the letter from PER to ORG was never answered .",
    "shares of ORG fell after PER resigned .",
    "ORG sold its factory near LOC to ORG .",
    "ORG and ORG will merge on DAY .",
    "PER and PER married in LOC on DAY .",
    "the road between LOC and LOC is closed .",
    "the dispute between ORG and PER goes on .",
    "PER won in NUMBER sets against PER .",
    "fans of PER waited at the hotel in LOC .",
    "the streets of LOC were empty on DAY .",
    "the accounts of ORG were checked on DAY .",
    "the parents of PER moved away from LOC .",
    "in LOC , PER told reporters nothing .",
    "at ORG , PER leads NUMBER engineers .",
    "for PER , it was the first visit to LOC .",
    "for ORG , the year ended badly .",
    "ORG hired PER as its JOB .",
    "ORG opened an office in LOC .",
    "nobody at ORG would say why PER left .",
    "PER grew up on a hill above the bay .",
    "the bank near the river in LOC was robbed .",
    "the JOB of LOC met PER on DAY .",
    "the JOB of ORG flew to LOC with PER .",
    "PER wrote NUMBER novels about LOC .",
    "LOC has NUMBER schools and one hospital .",
    "ORG has NUMBER workers and one JOB .",
    "PER has NUMBER brothers and one sister .",
];
/// Surnames, towns and firms at once.
const NAME: [&str; 28] = [
    "Marlow", "Denby", "Arlen", "Carrow", "Hadley", "Tarrant", "Weston", "Selwyn", "Orrin",
    "Kestrel", "Lorne", "Varley", "Ashby", "Brandt", "Corvin", "Delmar", "Elstow", "Farrow",
    "Garland", "Holt", "Ingram", "Jarrow", "Kelso", "Linden", "Merrick", "Norden", "Ostler",
    "Penrose",
];
/// Given names; the last ones are towns, too.
const GIVEN: [&str; 14] = [
    "Anna", "Peter", "Maria", "Jonas", "Clara", "David", "Nina", "Oscar", "Ruth", "Simon", "Lorne",
    "Kelso", "Arlen", "Linden",
];
const DIRECTION: [&str; 6] = ["North", "New", "Port", "Upper", "West", "Saint"];
const FEATURE: [&str; 5] = ["Bay", "Hill", "Falls", "Bridge", "Valley"];
const BRANCH: [&str; 8] = [
    "Bank", "Motors", "Airlines", "Brothers", "Hospital", "Bay", "Press", "Valley",
];
const INSTITUTION: [&str; 4] = ["Bank", "University", "Port", "Museum"];
const DAY: [&str; 5] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"];
const NUMBER: [&str; 6] = ["two", "three", "four", "seven", "nine", "twelve"];
const JOB: [&str; 6] = ["director", "mayor", "doctor", "head", "lawyer", "founder"];

/// A person: often the surname alone.
fn person(random: &mut Random) -> Vec<&'static str> {
    match random.below(10) {
        0..5 => vec![pick(random, &NAME)],
        5 => vec![pick(random, &GIVEN)],
        _ => vec![pick(random, &GIVEN), pick(random, &NAME)],
    }
}

/// A place: often one word.
fn place(random: &mut Random) -> Vec<&'static str> {
    match random.below(10) {
        0..6 => vec![pick(random, &NAME)],
        6..8 => vec![pick(random, &DIRECTION), pick(random, &NAME)],
        _ => vec![pick(random, &NAME), pick(random, &FEATURE)],
    }
}

/// An organisation: often one word.
fn organisation(random: &mut Random) -> Vec<&'static str> {
    match random.below(10) {
        0..5 => vec![pick(random, &NAME)],
        5..8 => vec![pick(random, &NAME), pick(random, &BRANCH)],
        8 => vec![pick(random, &INSTITUTION), "of", pick(random, &NAME)],
        _ => vec![
            pick(random, &GIVEN),
            pick(random, &NAME),
            pick(random, &BRANCH),
        ],
    }
}

/// One sentence of a template.
fn sentence(random: &mut Random) -> Sentence {
    let mut sentence = Sentence::default();
    for slot in pick(random, &TEMPLATES).split(' ') {
        let (kind, words) = match slot {
            "PER" => (Some(slot), person(random)),
            "LOC" => (Some(slot), place(random)),
            "ORG" => (Some(slot), organisation(random)),
            "DAY" => (None, vec![pick(random, &DAY)]),
            "NUMBER" => (None, vec![pick(random, &NUMBER)]),
            "JOB" => (None, vec![pick(random, &JOB)]),
            word => (None, vec![word]),
        };
        for (index, word) in words.into_iter().enumerate() {
            let label = match (kind, index) {
                (None, _) => "O".to_string(),
                (Some(kind), 0) => format!("B-{kind}"),
                (Some(kind), _) => format!("I-{kind}"),
            };
            sentence.tokens.push(word.to_string());
            sentence.labels.push(label);
        }
    }
    sentence
}

/// `count` sentences as a pure function of `seed`, with the types `PER`, `LOC` and `ORG`.
///
/// The first `n` sentences do not depend on `count`. They differ from one another; only when new
/// ones have become rare, after some hundred thousand, may some repeat.
pub fn entities(seed: u64, count: usize) -> Vec<Sentence> {
    let mut random = Random::new(seed, 0);
    let mut seen = HashSet::new();
    let mut sentences = Vec::with_capacity(count);
    while sentences.len() < count {
        let mut drawn = sentence(&mut random);
        for _ in 0..TRIES {
            if !seen.contains(&drawn.tokens) {
                break;
            }
            drawn = sentence(&mut random);
        }
        seen.insert(drawn.tokens.clone());
        sentences.push(drawn);
    }
    sentences
}
