//! Punctuation as tokens of its own, and back, by the rules of Moses's `tokenizer.perl` and `detokenizer.perl` for
//! languages in Latin letters.
//!
//! A character that is neither letter, digit nor one of `. , ' -` and the backtick is a token. A comma is one unless
//! it stands between digits (`3,5`, or `,5` at the line's start), two full stops and more are one (`...`). A single
//! full stop stays with its word within it (`1.000`, `U.S.`), and, but for the last word, behind an abbreviation and
//! before a small letter; else it is a token. Apostrophes follow the language: `don 't` in English, `l' homme` in French and Italian, a token of
//! their own elsewhere. Hyphens stay.
//!
//! Three things differ from Moses: the lists of abbreviations are short and the crate's own, a typographic
//! apostrophe (`’`) between letters is taken as a plain one, which Moses's script leaves to a step before it, and the
//! colon within Finnish and Swedish words (`EU:s`) and the dot within Catalan ones are tokens as elsewhere.

use super::is_blank;
use super::prefixes::keeps_stop;

/// What the rules depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Apostrophes belong to what is behind them.
    English,
    /// Apostrophes are tokens, numbers of one or two digits keep their full stop.
    German,
    /// Apostrophes belong to what is before them.
    French,
    /// Italian, Catalan and Irish: apostrophes belong to what is before them, and no abbreviations are known but
    /// initials.
    Italian,
    /// Apostrophes are tokens, and no abbreviations are known but initials.
    Other,
}

impl Language {
    /// Whether an apostrophe between letters stays with one of its sides.
    fn joins_apostrophes(self) -> bool {
        matches!(self, Self::English) || self.ends_contractions()
    }

    /// Whether that is the left one.
    pub(super) fn ends_contractions(self) -> bool {
        matches!(self, Self::French | Self::Italian)
    }

    /// The language of a code as `en`, `de`, `fr` or `it`; [`Language::Other`] of those that have no rules.
    pub fn from_code(code: &str) -> Self {
        match code {
            "en" => Self::English,
            "de" => Self::German,
            "fr" => Self::French,
            "it" | "ca" | "ga" => Self::Italian,
            _ => Self::Other,
        }
    }
}

/// Splits text into tokens and puts tokens together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moses {
    /// What the rules depend on.
    pub language: Language,
    /// Whether `& | < > ' " [ ]` are written as `&amp;`, `&#124;` and so on, as Moses needs it and IWSLT's usual
    /// preparation has it. Detokenising undoes it either way.
    pub escape: bool,
}

/// What is escaped, and how; the first is written first and undone last.
pub(super) const ESCAPES: [(&str, &str); 8] = [
    ("&", "&amp;"),
    ("|", "&#124;"),
    ("<", "&lt;"),
    (">", "&gt;"),
    ("'", "&apos;"),
    ("\"", "&quot;"),
    ("[", "&#91;"),
    ("]", "&#93;"),
];

/// All letters as small ones.
pub fn lower_case(text: &str) -> String {
    text.to_lowercase()
}

/// Numbers that Perl's classes do not count among digits: they are tokens, `m ²`. Those of Latin text (Unicode's
/// category No).
fn is_other_number(c: char) -> bool {
    matches!(c, '²' | '³' | '¹' | '¼'..='¾' | '\u{2070}'..='\u{2079}' | '\u{2080}'..='\u{2089}')
        || matches!(c, '\u{2150}'..='\u{215f}' | '\u{2189}' | '\u{2460}'..='\u{249b}' | '\u{24ea}'..='\u{24ff}')
        || matches!(c, '\u{2776}'..='\u{2793}')
}

fn is_letter_or_digit(c: char) -> bool {
    c.is_alphabetic() || (c.is_numeric() && !is_other_number(c))
}

/// Without blanks at its ends.
fn trimmed(line: &[char]) -> &[char] {
    let start = line.iter().position(|&c| c != ' ').unwrap_or(line.len());
    let end = line
        .iter()
        .rposition(|&c| c != ' ')
        .map_or(start, |last| last + 1);
    &line[start..end]
}

impl Moses {
    /// The rules of a language, without escapes.
    pub fn new(language: Language) -> Self {
        Self {
            language,
            escape: false,
        }
    }

    /// The tokens of a line with single blanks between them. Control characters are left out.
    pub fn tokenize(&self, line: &str) -> String {
        let spaced = self.spaced(line);
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut text = String::with_capacity(spaced.len() + 8);
        for (place, word) in words.iter().enumerate() {
            if place > 0 {
                text.push(' ');
            }
            match word.strip_suffix('.').filter(|before| !before.is_empty()) {
                Some(before) if self.stop_is_a_token(before, words.get(place + 1)) => {
                    text.push_str(before);
                    text.push_str(" .");
                }
                _ => text.push_str(word),
            }
        }
        // The script's last rule, for a full stop that an apostrophe hid.
        if let Some(before) = text
            .strip_suffix(".'")
            .filter(|before| !before.is_empty() && !before.ends_with('.'))
        {
            text = format!("{} . '", before.trim_end());
        }
        match self.escape {
            true => ESCAPES
                .iter()
                .fold(text, |text, (from, to)| text.replace(from, to)),
            false => text,
        }
    }

    /// Blanks around all tokens, but for full stops behind words.
    fn spaced(&self, line: &str) -> String {
        let blank = |c: char| if is_blank(c) { ' ' } else { c };
        let characters = line.chars().map(blank).filter(|c| !c.is_control());
        let characters: Vec<char> = characters.collect();
        let characters = trimmed(&characters);
        let mut between_letters = None;
        let mut spaced = String::with_capacity(line.len() * 5 / 4);
        for (place, &c) in characters.iter().enumerate() {
            let before = place.checked_sub(1).and_then(|place| characters.get(place));
            let sides = before.copied().zip(characters.get(place + 1).copied());
            let (before, next) = (
                before.copied().unwrap_or(' '),
                characters.get(place + 1).copied().unwrap_or(' '),
            );
            // Of rock'n'roll Perl sees the first apostrophe alone: its letters are used up.
            let used_up = between_letters.is_some_and(|last: usize| last + 2 == place);
            let mut apostrophe = || {
                let letters = before.is_alphabetic() && next.is_alphabetic();
                match letters && self.language.joins_apostrophes() {
                    true if used_up => (false, false),
                    true => {
                        between_letters = Some(place);
                        self.around_apostrophe(sides)
                    }
                    false => self.around_apostrophe(sides),
                }
            };
            let (left, right) = match c {
                '.' => match (before == '.', next == '.') {
                    (false, false) => (false, false),
                    (before, next) => (!before, !next),
                },
                ',' => {
                    // The line's first character has nothing before it that is no digit.
                    let number = place == 0 || before.is_numeric();
                    let token = !(number && next.is_numeric());
                    (token, token)
                }
                '\'' => apostrophe(),
                '’' if before.is_alphabetic() && next.is_alphabetic() => apostrophe(),
                '`' | '-' | ' ' => (false, false),
                c if is_letter_or_digit(c) => (false, false),
                _ => (true, true),
            };
            spaced.extend(left.then_some(' '));
            spaced.push(c);
            spaced.extend(right.then_some(' '));
        }
        spaced
    }

    /// Whether there is a blank before an apostrophe, and one behind it. In languages with contractions one at the
    /// line's start or end stays with its word.
    fn around_apostrophe(&self, sides: Option<(char, char)>) -> (bool, bool) {
        let Some((before, next)) = sides else {
            let alone = self.language.joins_apostrophes();
            return (!alone, !alone);
        };
        let letters = (before.is_alphabetic(), next.is_alphabetic());
        match (self.language, letters) {
            (Language::English, (true, true)) => (true, false),
            // The 1990's; any other letter behind a digit stays.
            (Language::English, (false, true)) if before.is_numeric() => (next == 's', false),
            (language, (true, true)) if language.ends_contractions() => (false, true),
            _ => (true, true),
        }
    }

    /// Whether the full stop behind a word is a token; at the end of the line it is.
    fn stop_is_a_token(&self, word: &str, next: Option<&&str>) -> bool {
        // Several full stops are a token already.
        let stops = word.ends_with('.');
        let dotted = word.contains('.') && word.chars().any(char::is_alphabetic);
        let Some(first) = next.and_then(|next| next.chars().next()) else {
            return !stops;
        };
        let (small, number) = (first.is_lowercase(), first.is_ascii_digit());
        !(stops || dotted || small || keeps_stop(self.language, word, number))
    }
}
