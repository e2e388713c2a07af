//! Text that is in pieces of words already, `ge@@ gl@@ ä@@ tteten`: cut again, its marks would be words.

use super::corpus::Preparation;
use anyhow::{Result, bail};
use datasets::translation::Subwords;

/// Lines that are looked at for marks.
pub const LOOKED_AT: usize = 1000;

/// What is done to a text that must not be in pieces; empty where it may be. New subwords may be learned of pieces, whose
/// marks are taken from what is said with them.
pub fn ways_to_let(subwords: Option<&Subwords>, tokenize: bool) -> Vec<&'static str> {
    let codes = subwords.is_some_and(Subwords::have_codes);
    let ways = [
        (codes, "give --subwords a folder with its dict.txt alone"),
        (tokenize, "leave --tokenize out"),
    ];
    let ways = ways.into_iter().filter(|(needed, _)| *needed);
    ways.map(|(_, way)| way).collect()
}

/// Whether a model cuts its text into pieces by itself.
pub fn are_cut(subwords: &Subwords, preparation: Preparation) -> bool {
    !ways_to_let(Some(subwords), preparation.tokenize).is_empty()
}

/// Lines that were looked at.
#[derive(Default)]
pub struct Pieces {
    lines: usize,
    marked: usize,
    /// Where the first mark is, and its word.
    first: Option<(String, String)>,
}

impl Pieces {
    /// Looks at one more line; `place` says where it is.
    pub fn look(&mut self, line: &str, place: impl FnOnce() -> String) {
        self.lines += 1;
        let mut words = line.split_whitespace();
        if let Some(word) = words.find(|word| word.len() > 2 && word.ends_with("@@")) {
            self.marked += 1;
            self.first
                .get_or_insert_with(|| (place(), word.to_string()));
        }
    }

    /// Refuses a text of which at least one line in ten has a mark, and says what else can be done than giving it as it was
    /// before.
    pub fn refuse(&self, ways: &[&str]) -> Result<()> {
        self.refuse_from(1, 10, ways)
    }

    /// The same of a text that has not come to its end, so that more is asked for: two lines, and half of them.
    pub fn refuse_beginning(&self) -> Result<()> {
        self.refuse_from(2, 2, &[])
    }

    fn refuse_from(&self, least: usize, one_in: usize, ways: &[&str]) -> Result<()> {
        let are_many = self.marked >= least && self.marked * one_in >= self.lines;
        match &self.first {
            Some((place, word)) if are_many => {
                let ways: String = ways.iter().map(|way| format!("{way}; or ")).collect();
                bail!(
                    "{place} has `{word}`: the text is in pieces of words already, which would be cut again: {ways}give the \
                     text as it was before"
                )
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(lines: &[&str]) -> Option<String> {
        let mut pieces = Pieces::default();
        for (number, line) in lines.iter().enumerate() {
            pieces.look(line, || format!("line {}", number + 1));
        }
        let refused = pieces.refuse(&["leave it out"]);
        refused.err().map(|error| error.to_string())
    }

    #[test]
    fn a_line_in_ten_with_a_mark_is_a_text_in_pieces() {
        let (plain, cut) = ("a lower price", "a lo@@ wer price");
        assert_eq!(refused(&[]), None);
        assert_eq!(refused(&[plain, "@@ alone", "it's at me@@home"]), None);
        let mut lines = vec![plain; 9];
        lines.push(cut);
        let said = refused(&lines).unwrap();
        for piece in ["line 10", "`lo@@`", "leave it out; or give"] {
            assert!(said.contains(piece), "{said}");
        }
        lines.push(plain);
        assert_eq!(refused(&lines), None);
    }

    #[test]
    fn a_text_that_goes_on_is_not_judged_by_one_line() {
        let mut pieces = Pieces::default();
        for (line, is_refused) in [
            ("write to me@@", false),
            ("and so on", false),
            ("lo@@ wer", true),
        ] {
            pieces.look(line, || "here".into());
            assert_eq!(pieces.refuse_beginning().is_err(), is_refused, "{line}");
        }
        for _ in 0..2 {
            pieces.look("a lower price", || "here".into());
        }
        assert!(pieces.refuse_beginning().is_ok());
    }
}
