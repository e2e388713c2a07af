//! Inputs from seeds: bits, cuts, splices, numbers at their limits, repetitions.

/// Bytes of the longest input.
const LONGEST: usize = 1 << 16;
/// Numbers at which something changes.
const NUMBERS: [i64; 22] = [
    0,
    1,
    -1,
    2,
    7,
    8,
    16,
    32,
    64,
    100,
    127,
    128,
    255,
    256,
    1024,
    32_767,
    65_535,
    1 << 20,
    i32::MAX as i64,
    u32::MAX as i64,
    i64::MAX,
    i64::MIN,
];
/// The same as text, and others.
const TEXTS: [&str; 12] = [
    "0",
    "-1",
    "1",
    "255",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "9223372036854775807",
    "18446744073709551616",
    "1e308",
    "nan",
];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `0..n`; 0 for none.
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// Some bytes of an input, mostly few.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let most = match self.below(4) {
            0 => length,
            1 => 256,
            _ => 16,
        };
        start..start + self.below((length - start).min(most) + 1)
    }
}

/// Input `index` of `seed`.
pub fn input(corpus: &[Vec<u8>], words: &[&str], seed: u64, index: u64) -> Vec<u8> {
    let mut random = Random(seed.rotate_left(32) ^ index);
    random.next();
    let mut bytes = random.one_of(corpus).clone();
    let most = 1 << random.below(5);
    let changes = 1 + random.below(most);
    for _ in 0..changes {
        change(&mut bytes, corpus, words, &mut random);
        bytes.truncate(LONGEST);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], words: &[&str], random: &mut Random) {
    let length = bytes.len();
    let at = random.below(length);
    match random.below(12) {
        0 | 1 if length > 0 => bytes[at] ^= 1 << random.below(8),
        2 if length > 0 => bytes[at] = random.next() as u8,
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(random.range(length))),
        5 => repeat(bytes, random),
        6 => {
            let other = random.one_of(corpus);
            let part = other[random.range(other.len())].to_vec();
            let place = replaced(random, length);
            bytes.splice(place, part);
        }
        7 => {
            let count = 1 + random.below(8);
            let noise: Vec<u8> = (0..count).map(|_| random.next() as u8).collect();
            bytes.splice(at..at, noise);
        }
        8 => overwrite(bytes, at, &number(random)),
        9 => {
            let number = number(random);
            bytes.splice(at..at, number);
        }
        10 => decimal(bytes, at, random),
        _ => {
            let word = match words {
                [] => *random.one_of(&TEXTS),
                words => *random.one_of(words),
            };
            let place = replaced(random, length);
            bytes.splice(place, word.bytes());
        }
    }
}

/// Where something comes: in the place of something, or between.
fn replaced(random: &mut Random, length: usize) -> std::ops::Range<usize> {
    let range = random.range(length);
    match random.below(2) {
        0 => range.start..range.start,
        _ => range,
    }
}

/// Repeats a part, a few times or often.
fn repeat(bytes: &mut Vec<u8>, random: &mut Random) {
    let range = random.range(bytes.len());
    let part = bytes[range.clone()].to_vec();
    let most = LONGEST / part.len().max(1);
    let times = match random.below(3) {
        0 => 1 + random.below(most),
        _ => 1 + random.below(4),
    };
    bytes.splice(range.end..range.end, part.repeat(times.min(most)));
}

/// A number of one, two, four or eight bytes.
fn number(random: &mut Random) -> Vec<u8> {
    let value = *random.one_of(&NUMBERS);
    let length = 1 << random.below(4);
    let mut bytes = value.to_le_bytes()[..length].to_vec();
    if random.below(2) == 0 {
        bytes.reverse();
    }
    bytes
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(with) {
        *to = *from;
    }
}

/// Puts another number in the place of the first one in digits from a place on.
fn decimal(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    let digit = |byte: &u8| byte.is_ascii_digit();
    let Some(start) = bytes[at.min(bytes.len())..].iter().position(digit) else {
        return;
    };
    let start = at + start;
    let end = bytes[start..].iter().position(|byte| !digit(byte));
    let end = end.map_or(bytes.len(), |end| start + end);
    let text = *random.one_of(&TEXTS);
    bytes.splice(start..end, text.bytes());
}
