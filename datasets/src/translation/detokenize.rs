//! Tokens put together again, by the rules of Moses's `detokenizer.perl`.

use super::moses::ESCAPES;
use super::{Language, Moses};

fn is_apostrophe(c: char) -> bool {
    matches!(c, '\'' | '’')
}

impl Moses {
    /// A line of tokens as text: punctuation joins the word before it, or behind it, and quotes what is between them.
    ///
    /// What the tokens do not tell is lost: there will be blanks around `/` and dashes, and behind an apostrophe that
    /// was a token.
    pub fn detokenize(&self, line: &str) -> String {
        // Hyphens that were split off, as `tokenizer.perl -a` does.
        let line = line.replace(" @-@ ", "-");
        let line = ESCAPES
            .iter()
            .rev()
            .fold(line, |line, (to, from)| line.replace(from, to));
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut text = String::with_capacity(line.len());
        let mut blank = false;
        let mut quotes = Quotes::default();
        for (place, word) in words.iter().enumerate() {
            let before = place
                .checked_sub(1)
                .and_then(|place| words.get(place))
                .copied();
            let last = place + 1 == words.len();
            // The dogs' bones: no quote.
            let possessive = self.language == Language::English
                && *word == "'"
                && !quotes.single
                && before.is_some_and(|before| before.ends_with('s'));
            let (left, right) = match possessive {
                true => (true, false),
                false => match quotes.side(word) {
                    Some(opens) => (!opens, opens),
                    None => self.joins(word, before.is_none(), last),
                },
            };
            text.extend((blank && !left).then_some(' '));
            text.push_str(word);
            blank = !right;
        }
        text
    }

    /// Whether a token joins the one before it, and the one behind it.
    fn joins(&self, word: &str, first: bool, last: bool) -> (bool, bool) {
        let all = |set: &str| word.chars().all(|c| set.contains(c));
        let mut characters = word.chars();
        let (start, second) = (
            characters.next().unwrap_or(' '),
            characters.next().unwrap_or(' '),
        );
        let mut back = word.chars().rev();
        let (end, before_end) = (back.next().unwrap_or(' '), back.next().unwrap_or(' '));
        if all("([{¿¡$£¥¢€₹₽₩") {
            return (false, true);
        }
        if self.language == Language::French && all("?!:;%\\") {
            return (false, false);
        }
        if all(",.?!:;\\%}])…") {
            return (true, false);
        }
        let english = self.language == Language::English;
        if english && !first && is_apostrophe(start) && second.is_alphabetic() {
            return (true, false);
        }
        if self.language.ends_contractions()
            && !last
            && is_apostrophe(end)
            && before_end.is_alphabetic()
        {
            return (false, true);
        }
        (false, false)
    }
}

/// Which quotes are open.
#[derive(Default)]
struct Quotes {
    double: bool,
    single: bool,
}

impl Quotes {
    /// Whether a token opens a quotation or closes it; `None` if it is no quote.
    fn side(&mut self, word: &str) -> Option<bool> {
        match word {
            "\"" | "“" | "”" | "„" | "''" | "``" => Some(toggle(&mut self.double)),
            "'" | "`" | "‘" | "‚" => Some(toggle(&mut self.single)),
            // Closes, or is an apostrophe that lost its word.
            "’" if self.single => Some(toggle(&mut self.single)),
            _ => None,
        }
    }
}

/// Opens what is closed and closes what is open; whether it is open now.
fn toggle(open: &mut bool) -> bool {
    *open = !*open;
    *open
}
