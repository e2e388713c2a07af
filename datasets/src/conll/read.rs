//! Files of labelled words, line by line.

use std::path::Path;

use super::{LabelSet, Sentence};
use crate::error::{Error, Place, Result};
use crate::limits::Budget;
use crate::lines::Lines;

/// The word of the line that begins a document.
const DOCUMENT: &str = "-DOCSTART-";

/// How a file says where a name begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scheme {
    /// Every name begins with `B-`. An `I-` that goes on with nothing is an error.
    #[default]
    Iob2,
    /// A name begins with `I-`, or with `B-` where one of its type stands right before it, as in
    /// CoNLL-2003's own files: an `I-` that goes on with nothing becomes `B-`. Files in IOB2 are
    /// read unchanged.
    Iob1,
}

/// The sentences of a plain or gzipped file, in its order, with labels in IOB2.
///
/// Lines have at most 1 MiB, and all lines of a file the same number of columns, two or more.
///
/// # Errors
/// If the file cannot be read, is not UTF-8, has a longer line, one with another number of columns, a
/// label that is none of `O`, `B-TYPE` and `I-TYPE` or breaks the scheme, or no sentence at all. The
/// error names the line.
pub fn read(path: &Path, scheme: Scheme) -> Result<Vec<Sentence>> {
    parse(path, scheme, None)
}

/// [`read`] for validation and test files, whose labels must be among those of the training file.
///
/// # Errors
/// For the reasons of [`read`], and for another label.
pub fn read_known(path: &Path, scheme: Scheme, labels: &LabelSet) -> Result<Vec<Sentence>> {
    parse(path, scheme, Some(labels))
}

fn parse(path: &Path, scheme: Scheme, known: Option<&LabelSet>) -> Result<Vec<Sentence>> {
    let mut lines = Lines::open(path)?;
    let mut file = File {
        path,
        scheme,
        known,
        columns: None,
    };
    let (mut sentences, mut sentence) = (Vec::new(), Sentence::default());
    let mut budget = Budget::default();
    while let Some((number, text)) = lines.next()? {
        let fields: Vec<&str> = text.split([' ', '\t']).filter(|f| !f.is_empty()).collect();
        if fields.is_empty() || fields[0] == DOCUMENT {
            if !sentence.tokens.is_empty() {
                sentences.push(std::mem::take(&mut sentence));
            }
            continue;
        }
        budget.take(path, text.len())?;
        let last = sentence.labels.last().map(String::as_str);
        let label = file.label(number, &fields, last)?;
        sentence.tokens.push(fields[0].to_string());
        sentence.labels.push(label);
    }
    if !sentence.tokens.is_empty() {
        sentences.push(sentence);
    }
    if sentences.is_empty() {
        return Err(Error::Empty {
            path: path.to_path_buf(),
            expected: "a word and its label a line, an empty line after each sentence".to_string(),
        });
    }
    Ok(sentences)
}

/// What the lines of a file have in common.
struct File<'a> {
    path: &'a Path,
    scheme: Scheme,
    known: Option<&'a LabelSet>,
    /// Those of the first line.
    columns: Option<usize>,
}

impl File<'_> {
    fn wrong(&self, line: usize, expected: impl Into<String>, got: String) -> Error {
        Error::WordLine {
            path: self.path.to_path_buf(),
            place: Place::Line(line),
            expected: expected.into(),
            got,
        }
    }

    /// The label of a line in IOB2, behind a word with the label `before`.
    fn label(&mut self, line: usize, fields: &[&str], before: Option<&str>) -> Result<String> {
        let got = fields.len();
        if got < 2 {
            let (expected, got) = (
                "a word and its label",
                format!("only {:?}", shown(fields[0])),
            );
            return Err(self.wrong(line, expected, got));
        }
        let columns = *self.columns.get_or_insert(got);
        if got != columns {
            let expected = format!("{columns}, as on the first line (is there a blank in a word?)");
            return Err(self.wrong(line, expected, format!("{got} columns")));
        }
        let label = self.in_iob2(line, fields[got - 1], before)?;
        match self.known {
            Some(known) if known.class(&label).is_none() => {
                let place = format!("{}, {}", self.path.display(), Place::Line(line));
                Err(known.unseen(place, &label))
            }
            _ => Ok(label),
        }
    }

    fn in_iob2(&self, line: usize, label: &str, before: Option<&str>) -> Result<String> {
        let wrong = |expected| Err(self.wrong(line, expected, format!("label {:?}", shown(label))));
        if label == "O" {
            return Ok(label.to_string());
        }
        let kind = match label.split_once('-') {
            Some(("B", kind)) if !kind.is_empty() => return Ok(label.to_string()),
            Some(("I", kind)) if !kind.is_empty() => kind,
            Some(("E" | "S" | "L" | "U", _)) => {
                return wrong("O, B-TYPE or I-TYPE; convert the file from BIOES or BILOU to IOB2");
            }
            _ => return wrong("O, B-TYPE or I-TYPE; is the label in the last column?"),
        };
        let is_inside = before
            .and_then(|label| label.split_once('-'))
            .is_some_and(|(_, before)| before == kind);
        match (is_inside, self.scheme) {
            (true, _) => Ok(label.to_string()),
            (false, Scheme::Iob1) => Ok(format!("B-{kind}")),
            (false, Scheme::Iob2) => wrong(
                "a B- or I- of its type right before it; read the file as IOB1 if its names begin \
                 with I-, or repair the line",
            ),
        }
    }
}

/// The beginning of a field, for messages.
fn shown(field: &str) -> String {
    field.chars().take(40).collect()
}
