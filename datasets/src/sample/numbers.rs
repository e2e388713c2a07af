//! Numbers in German and English words: pairs of sentences that need no file, and that a translator of any
//! size learns, though not word by word. German says the ones before the tens and writes a number as one
//! word: 4321 is viertausenddreihunderteinundzwanzig, and four thousand three hundred twenty-one.

use crate::random::Random;

/// What is drawn from: the numbers below.
const BELOW: u32 = 1_000_000;

/// Pairs of a German and an English sentence, each of some numbers, and none twice: training sentences and
/// others. A function of the seed.
pub fn number_pairs(train: usize, validation: usize, seed: u64) -> [Vec<(String, String)>; 2] {
    let mut random = Random::new(seed, 0);
    let mut seen = std::collections::BTreeSet::new();
    let mut draw = |count: usize| {
        let mut pairs = Vec::with_capacity(count);
        while pairs.len() < count {
            let numbers: Vec<u32> = (0..1 + random.below(3))
                .map(|_| number(&mut random))
                .collect();
            if seen.insert(numbers.clone()) {
                pairs.push(sentence(&numbers));
            }
        }
        pairs
    };
    [draw(train), draw(validation)]
}

/// As many short ones as long ones.
fn number(random: &mut Random) -> u32 {
    let most = 10u32.pow(1 + random.below(6) as u32).min(BELOW);
    random.below(most as usize) as u32
}

fn sentence(numbers: &[u32]) -> (String, String) {
    let join = |say: fn(u32) -> String, and: &str| {
        let words: Vec<String> = numbers.iter().map(|&n| say(n)).collect();
        match words.split_last() {
            Some((last, rest)) if !rest.is_empty() => {
                format!("{} {and} {last} .", rest.join(" , "))
            }
            _ => format!("{} .", words.concat()),
        }
    };
    (join(german, "und"), join(english, "and"))
}

const ONES: [&str; 20] = [
    "null",
    "ein",
    "zwei",
    "drei",
    "vier",
    "fünf",
    "sechs",
    "sieben",
    "acht",
    "neun",
    "zehn",
    "elf",
    "zwölf",
    "dreizehn",
    "vierzehn",
    "fünfzehn",
    "sechzehn",
    "siebzehn",
    "achtzehn",
    "neunzehn",
];
const TENS: [&str; 10] = [
    "", "", "zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig",
];

/// A number below a million in German, as one word.
pub fn german(n: u32) -> String {
    match n {
        1 => "eins".into(),
        _ => german_part(n) + if n % 100 == 1 && n > 1 { "s" } else { "" },
    }
}

/// Within a longer word: ein, not eins.
fn german_part(n: u32) -> String {
    let rest = |rest: u32| match rest {
        0 => String::new(),
        rest => german_part(rest),
    };
    match n {
        0..20 => ONES[n as usize].into(),
        20..100 if n.is_multiple_of(10) => TENS[(n / 10) as usize].into(),
        20..100 => format!("{}und{}", ONES[(n % 10) as usize], TENS[(n / 10) as usize]),
        100..1000 => format!("{}hundert{}", german_part(n / 100), rest(n % 100)),
        _ => format!("{}tausend{}", german_part(n / 1000), rest(n % 1000)),
    }
}

const ONES_ENGLISH: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS_ENGLISH: [&str; 10] = [
    "", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety",
];

/// A number below a million in English, in several words.
pub fn english(n: u32) -> String {
    let rest = |rest: u32| match rest {
        0 => String::new(),
        rest => format!(" {}", english(rest)),
    };
    match n {
        0..20 => ONES_ENGLISH[n as usize].into(),
        20..100 if n.is_multiple_of(10) => TENS_ENGLISH[(n / 10) as usize].into(),
        20..100 => format!("{}-{}", TENS_ENGLISH[(n / 10) as usize], english(n % 10)),
        100..1000 => format!("{} hundred{}", english(n / 100), rest(n % 100)),
        _ => format!("{} thousand{}", english(n / 1000), rest(n % 1000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_said_as_people_say_them() {
        for (n, de, en) in [
            (0, "null", "zero"),
            (1, "eins", "one"),
            (17, "siebzehn", "seventeen"),
            (21, "einundzwanzig", "twenty-one"),
            (101, "einhunderteins", "one hundred one"),
            (
                4321,
                "viertausenddreihunderteinundzwanzig",
                "four thousand three hundred twenty-one",
            ),
            (60_000, "sechzigtausend", "sixty thousand"),
            (
                717_031,
                "siebenhundertsiebzehntausendeinunddreißig",
                "seven hundred seventeen thousand thirty-one",
            ),
        ] {
            assert_eq!((german(n), english(n)), (de.into(), en.into()));
        }
        assert_eq!(sentence(&[2, 30, 1]).0, "zwei , dreißig und eins .");
        assert_eq!(sentence(&[7]).1, "seven .");
    }

    #[test]
    fn pairs_are_functions_of_the_seed_and_none_is_there_twice() {
        let [train, validation] = number_pairs(500, 100, 3);
        let all: std::collections::BTreeSet<_> = train.iter().chain(&validation).collect();
        assert_eq!((train.len(), validation.len(), all.len()), (500, 100, 600));
        assert_eq!(number_pairs(500, 100, 3), [train.clone(), validation]);
        assert_ne!(number_pairs(500, 100, 4)[0], train);
    }
}
