//! Metrics of names in sentences: whole names count, not words.

use super::metric::{nan_rows, undefined};
use super::{Metric, Scores};
use crate::error::{Error, Result};
use candle_core::{D, Tensor};
use datasets::UNLABELLED;
use std::collections::{BTreeMap, HashSet};

/// A name: its type, and its words `start .. end`.
type Span<'a> = (&'a str, usize, usize);

/// How many names were predicted, were expected, and are both.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    predicted: usize,
    expected: usize,
    right: usize,
}

impl Counts {
    fn precision(self) -> f64 {
        share(self.right, self.predicted)
    }

    fn recall(self) -> f64 {
        share(self.right, self.expected)
    }

    /// 2 P R / (P + R), which is 2 right / (predicted + expected).
    fn f1(self) -> f64 {
        share(2 * self.right, self.predicted + self.expected)
    }
}

/// 0.0 of nothing.
fn share(part: usize, of: usize) -> f64 {
    match of {
        0 => 0.0,
        _ => part as f64 / of as f64,
    }
}

/// The scores of predicted labels against expected ones, a list a sentence, F1 first:
///
/// * `f1`, `precision` and `recall` over all names; a name is right where type, first and last word
///   are those of an expected one;
/// * `accuracy`, the share of words with the right label;
/// * `f1_TYPE`, `precision_TYPE` and `recall_TYPE` for each type that is predicted or expected.
///
/// Labels are `O`, `B-TYPE` and `I-TYPE`. An `I-` that goes on with nothing (at the beginning, behind
/// `O`, or behind another type) begins a name: so do the script of CoNLL-2000 and 2003 (conlleval) and
/// seqeval in its default mode, whose numbers these are. Where there are no names, predicted or
/// expected, the share of them is 0.0, as theirs.
///
/// # Errors
/// [`Error::Metric`] for different lengths, no words, or a label of another form.
pub fn entities(predicted: &[Vec<&str>], expected: &[Vec<&str>]) -> Result<Scores> {
    counted(BTreeMap::new(), predicted, expected)
}

/// The same, of the types that are named and of these.
fn counted<'a>(
    mut types: BTreeMap<&'a str, Counts>,
    predicted: &[Vec<&'a str>],
    expected: &[Vec<&'a str>],
) -> Result<Scores> {
    if predicted.len() != expected.len() {
        return Err(wrong(
            "as many predicted sentences as expected ones",
            format!("{} and {}", predicted.len(), expected.len()),
        ));
    }
    let (mut words, mut equal) = (0, 0);
    for (index, (predicted, expected)) in predicted.iter().zip(expected).enumerate() {
        if predicted.len() != expected.len() {
            return Err(wrong(
                "as many predicted labels as expected ones in each sentence",
                format!(
                    "{} and {} in sentence {index}",
                    predicted.len(),
                    expected.len()
                ),
            ));
        }
        words += expected.len();
        let pairs = predicted.iter().zip(expected);
        equal += pairs.filter(|(p, e)| p == e).count();
        let (predicted, expected) = (spans(predicted)?, spans(expected)?);
        let known: HashSet<&Span> = expected.iter().collect();
        for span in &predicted {
            let counts = types.entry(span.0).or_default();
            counts.predicted += 1;
            counts.right += usize::from(known.contains(span));
        }
        for span in &expected {
            types.entry(span.0).or_default().expected += 1;
        }
    }
    if words == 0 {
        return Err(wrong("one word at least", "no words".into()));
    }
    Ok(report(&types, share(equal, words)))
}

fn report(types: &BTreeMap<&str, Counts>, accuracy: f64) -> Scores {
    let all = types.values().fold(Counts::default(), |sum, own| Counts {
        predicted: sum.predicted + own.predicted,
        expected: sum.expected + own.expected,
        right: sum.right + own.right,
    });
    let scores = Scores::new("f1", all.f1())
        .with("precision", all.precision())
        .with("recall", all.recall())
        .with("accuracy", accuracy);
    types.iter().fold(scores, |scores, (name, own)| {
        scores
            .with(&format!("f1_{name}"), own.f1())
            .with(&format!("precision_{name}"), own.precision())
            .with(&format!("recall_{name}"), own.recall())
    })
}

/// The names of a sentence. They do not overlap.
fn spans<'a>(labels: &[&'a str]) -> Result<Vec<Span<'a>>> {
    let mut spans: Vec<Span> = Vec::new();
    // Whether the last span reaches up to the present word.
    let mut open = false;
    for (index, label) in labels.iter().enumerate() {
        match parts(label)? {
            None => open = false,
            Some((is_inside, kind)) => {
                match spans.last_mut() {
                    Some(last) if open && is_inside && last.0 == kind => last.2 = index + 1,
                    _ => spans.push((kind, index, index + 1)),
                }
                open = true;
            }
        }
    }
    Ok(spans)
}

/// Whether a label is an `I-`, and its type; `None` for `O`.
fn parts(label: &str) -> Result<Option<(bool, &str)>> {
    match label.split_once('-') {
        None if label == "O" => Ok(None),
        Some(("B", kind)) if !kind.is_empty() => Ok(Some((false, kind))),
        Some(("I", kind)) if !kind.is_empty() => Ok(Some((true, kind))),
        _ => Err(wrong(
            "labels O, B-TYPE and I-TYPE",
            format!("label {label:?}"),
        )),
    }
}

fn wrong(expected: &'static str, got: String) -> Error {
    Error::Metric {
        metric: "entities",
        expected,
        got,
    }
}

/// [`entities`] of logits `[B, T, labels]` against classes [B, T], where positions that are [`UNLABELLED`]
/// are no words; with the scores of each type of its names, 0.0 where nobody named one.
#[derive(Clone, Debug)]
pub struct EntityMetric {
    names: Vec<String>,
    predicted: Vec<Vec<u32>>,
    expected: Vec<Vec<u32>>,
    /// Whether an output was not a number.
    has_nan: bool,
}

impl EntityMetric {
    /// With the labels' names by class.
    pub fn new(names: &[String]) -> Self {
        Self {
            names: names.into(),
            predicted: Vec::new(),
            expected: Vec::new(),
            has_nan: false,
        }
    }

    fn named(&self, sentences: &[Vec<u32>]) -> Result<Vec<Vec<&str>>> {
        let name = |class: &u32| {
            let name = self.names.get(*class as usize).map(String::as_str);
            name.ok_or_else(|| wrong("classes that have a name", class.to_string()))
        };
        let sentences = sentences.iter().map(|s| s.iter().map(name).collect());
        sentences.collect()
    }
}

impl Metric for EntityMetric {
    fn fresh(&self) -> Box<dyn Metric> {
        Box::new(Self::new(&self.names))
    }

    fn add(&mut self, outputs: &Tensor, labels: &Tensor) -> Result<()> {
        if outputs.rank() != 3 || labels.dims() != &outputs.dims()[..2] {
            let got = format!("{:?} and {:?}", outputs.dims(), labels.dims());
            return Err(wrong("logits [B, T, labels] and classes [B, T]", got));
        }
        let mut nan = nan_rows(outputs)?.into_iter();
        let predicted = outputs.argmax(D::Minus1)?.to_vec2::<u32>()?;
        let expected = labels.to_vec2::<u32>()?;
        for (predicted, expected) in predicted.iter().zip(&expected) {
            let nan = nan.by_ref().take(predicted.len()).collect::<Vec<_>>();
            let labelled = expected.iter().map(|class| *class != UNLABELLED);
            self.has_nan |= labelled.zip(nan).any(|(counts, nan)| counts && nan);
            let words = predicted.iter().zip(expected);
            let words = words.filter(|(_, class)| **class != UNLABELLED);
            let (predicted, expected) = words.map(|(p, e)| (*p, *e)).unzip();
            self.predicted.push(predicted);
            self.expected.push(expected);
        }
        Ok(())
    }

    fn scores(&self) -> Result<Scores> {
        // Types that nobody named this time, too: every evaluation has the same scores.
        let types = self.names.iter().filter_map(|name| parts(name).ok()?);
        let types = types.map(|(_, name)| (name, Counts::default())).collect();
        let scores = counted(
            types,
            &self.named(&self.predicted)?,
            &self.named(&self.expected)?,
        )?;
        Ok(match self.has_nan {
            true => undefined(&scores),
            false => scores,
        })
    }
}
