//! Generated film-review sentences with the rules of sentiment that word counts cannot see.
//!
//! A sentence judges one part of a film with one adjective. What decides is that adjective and
//! whether it is negated; on the side there are intensifiers, which change nothing, and remarks
//! about other things with an adjective of any polarity, which count for nothing:
//!
//! ```text
//! the plot is truly gripping .                                     positive
//! the plot is not gripping .                                       negative
//! although the trailer looked dull , the plot is truly gripping .  positive
//! ```
//!
//! Label, negation and the remark's polarity are drawn independently, so every adjective, and
//! every negation, occurs on both sides: no weighting of single words can be right throughout.

use std::collections::HashSet;

use super::pick;
use crate::glue::{Label, Row};
use crate::random::Random;

/// Sentences with a negated adjective, in percent.
const NEGATED: usize = 35;
/// Sentences with a remark about something else, in percent.
const REMARK: usize = 35;
/// Sentences with an intensifier, in percent.
const INTENSIFIED: usize = 40;

/// How often a sentence that was there before is drawn again.
const TRIES: usize = 100;

const POSITIVE: [&str; 16] = [
    "good",
    "great",
    "gripping",
    "charming",
    "clever",
    "moving",
    "funny",
    "fresh",
    "honest",
    "brilliant",
    "lively",
    "warm",
    "thrilling",
    "touching",
    "graceful",
    "smart",
];
const NEGATIVE: [&str; 16] = [
    "bad", "dull", "boring", "clumsy", "stale", "tedious", "silly", "shallow", "lifeless", "awful",
    "bland", "cold", "messy", "tiresome", "hollow", "weak",
];
const PART: [&str; 10] = [
    "film",
    "movie",
    "plot",
    "story",
    "acting",
    "script",
    "dialogue",
    "ending",
    "cast",
    "direction",
];
const OTHER: [&str; 8] = [
    "trailer",
    "poster",
    "book",
    "sequel",
    "interview",
    "advert",
    "magazine",
    "website",
];
const NEGATION: [&str; 4] = ["not", "never", "hardly", "by no means"];
const INTENSIFIER: [&str; 5] = ["very", "truly", "really", "quite", "remarkably"];
const DETERMINER: [&str; 3] = ["the", "its", "this"];
const CONCESSION: [&str; 3] = ["although", "even though", "while"];

/// An adjective of the given polarity.
fn adjective(random: &mut Random, positive: bool) -> &'static str {
    pick(random, if positive { &POSITIVE } else { &NEGATIVE })
}

/// A sentence with this label, in the lower-case, spaced style of SST-2.
fn sentence(random: &mut Random, positive: bool) -> String {
    let negated = random.chance(NEGATED);
    let mut verdict = vec![
        pick(random, &DETERMINER),
        pick(random, &PART),
        pick(random, &["is", "was", "feels"]),
    ];
    if negated {
        verdict.push(pick(random, &NEGATION));
    }
    if random.chance(INTENSIFIED) {
        verdict.push(pick(random, &INTENSIFIER));
    }
    verdict.push(adjective(random, positive != negated));
    if random.chance(REMARK) {
        let polarity = random.chance(50);
        let remark = [
            pick(random, &CONCESSION),
            "the",
            pick(random, &OTHER),
            pick(random, &["looked", "seemed", "sounded"]),
            adjective(random, polarity),
        ];
        if random.chance(50) {
            let tail = std::mem::replace(&mut verdict, remark.to_vec());
            verdict.push(",");
            verdict.extend(tail);
        } else {
            verdict.push(",");
            verdict.extend(remark);
        }
    }
    verdict.push(".");
    verdict.join(" ")
}

/// `count` sentences, half of them positive (class 1), as a pure function of `seed`.
///
/// The first `n` rows do not depend on `count`. The sentences differ from one another; only
/// after many millions of rows, when new ones have become rare, may some repeat.
pub fn sentiment(seed: u64, count: usize) -> Vec<Row> {
    let mut random = Random::new(seed, 0);
    let mut seen = HashSet::new();
    let mut rows = Vec::with_capacity(count);
    // Labels come in pairs of one positive and one negative, in random order.
    let mut positive = false;
    while rows.len() < count {
        positive = if rows.len() % 2 == 0 {
            random.chance(50)
        } else {
            !positive
        };
        let mut text = sentence(&mut random, positive);
        for _ in 0..TRIES {
            if !seen.contains(&text) {
                break;
            }
            text = sentence(&mut random, positive);
        }
        seen.insert(text.clone());
        rows.push(Row {
            first: text,
            second: None,
            label: Some(Label::Class(u32::from(positive))),
        });
    }
    rows
}
