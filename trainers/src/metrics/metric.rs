//! What an evaluation reports, gathered batch by batch.

use super::{ClassMetric, CorrelationMetric, Scores, clicks, top_k_hits};
use crate::error::{Error, Result};
use candle_core::{D, DType, Tensor};
use datasets::UNLABELLED;

/// Scores of a model's outputs against labels, over as many batches as there are.
pub trait Metric {
    /// The same metric before its first batch.
    fn fresh(&self) -> Box<dyn Metric>;

    /// Takes in the outputs of a batch and its labels.
    ///
    /// # Errors
    /// [`Error::Metric`] if they do not fit each other or the metric.
    fn add(&mut self, outputs: &Tensor, labels: &Tensor) -> Result<()>;

    /// The scores of all batches.
    ///
    /// # Errors
    /// [`Error::Metric`] where they are not defined, as of no batch.
    fn scores(&self) -> Result<Scores>;
}

/// The names of the metrics that [`metric_by_name`] knows; `top5` stands for any number.
pub const METRICS: [&str; 9] = [
    "accuracy",
    "f1",
    "accuracy_f1",
    "matthews",
    "top5",
    "pearson",
    "spearman",
    "pearson_spearman",
    "clicks",
];

/// A metric by its name:
///
/// | name | outputs, labels | scores, the main one first |
/// |---|---|---|
/// | `accuracy`, `f1`, `matthews` | logits `[.., classes]`, classes `[..]` | of that name |
/// | `accuracy_f1` | the same, two classes | `combined` (their mean), `accuracy`, `f1` |
/// | `top5`, any number | logits [N, classes], classes `[N]` | the share whose class is among the 5 most probable |
/// | `pearson`, `spearman` | values, as many | of that name |
/// | `pearson_spearman` | the same | `combined` (their mean), `pearson`, `spearman` |
/// | `clicks` | logits, labels 0 and 1 | see [`clicks`](super::clicks); `says_nothing` |
///
/// Labels that are [`UNLABELLED`] do not count in the metrics of classes; for `topN` and those of values they are an error
/// or a value like any other.
///
/// # Errors
/// [`Error::Setting`] with the list of names.
pub fn metric_by_name(name: &str) -> Result<Box<dyn Metric>> {
    let classes = |report| Ok(Box::new(Classes::new(report)) as Box<dyn Metric>);
    let values = |report| Ok(Box::new(Values::new(report)) as Box<dyn Metric>);
    match name {
        "accuracy" => classes(ClassMetric::Accuracy),
        "f1" => classes(ClassMetric::F1),
        "accuracy_f1" => classes(ClassMetric::AccuracyF1),
        "matthews" => classes(ClassMetric::Matthews),
        "pearson" => values(CorrelationMetric::Pearson),
        "spearman" => values(CorrelationMetric::Spearman),
        "pearson_spearman" => values(CorrelationMetric::PearsonSpearman),
        "clicks" => Ok(Box::new(Clicks::default())),
        _ => match name.strip_prefix("top").and_then(|k| k.parse().ok()) {
            Some(k) if k > 0 => Ok(Box::new(TopK::new(k))),
            _ => Err(Error::Setting {
                what: "metric",
                expected: format!("one of {}", METRICS.join(", ")),
                got: format!("`{name}`"),
            }),
        },
    }
}

/// The most probable classes.
struct Classes {
    report: ClassMetric,
    predicted: Vec<u32>,
    expected: Vec<u32>,
    /// Whether an output was not a number: its class is none.
    has_nan: bool,
}

impl Classes {
    fn new(report: ClassMetric) -> Self {
        Self {
            report,
            predicted: Vec::new(),
            expected: Vec::new(),
            has_nan: false,
        }
    }
}

impl Metric for Classes {
    fn fresh(&self) -> Box<dyn Metric> {
        Box::new(Self::new(self.report))
    }

    fn add(&mut self, outputs: &Tensor, labels: &Tensor) -> Result<()> {
        let nan = nan_rows(outputs)?;
        let predicted = outputs.argmax(D::Minus1)?.flatten_all()?.to_vec1::<u32>()?;
        let expected = labels.to_dtype(DType::U32)?.flatten_all()?;
        let expected = expected.to_vec1::<u32>()?;
        super::check_lengths("classes", predicted.len(), expected.len())?;
        for ((predicted, expected), nan) in predicted.into_iter().zip(expected).zip(nan) {
            if expected != UNLABELLED {
                self.has_nan |= nan;
                self.predicted.push(predicted);
                self.expected.push(expected);
            }
        }
        Ok(())
    }

    fn scores(&self) -> Result<Scores> {
        let scores = self.report.scores(&self.predicted, &self.expected)?;
        Ok(match self.has_nan {
            true => undefined(&scores),
            false => scores,
        })
    }
}

/// Whether the right class is among the most probable ones.
struct TopK {
    k: usize,
    hits: usize,
    count: usize,
}

impl TopK {
    fn new(k: usize) -> Self {
        Self {
            k,
            hits: 0,
            count: 0,
        }
    }
}

impl Metric for TopK {
    fn fresh(&self) -> Box<dyn Metric> {
        Box::new(Self::new(self.k))
    }

    fn add(&mut self, outputs: &Tensor, labels: &Tensor) -> Result<()> {
        self.hits += top_k_hits(outputs, labels, self.k)?;
        self.count += labels.elem_count();
        Ok(())
    }

    fn scores(&self) -> Result<Scores> {
        super::check_lengths("top-k accuracy", self.count, self.count)?;
        let share = self.hits as f64 / self.count as f64;
        Ok(Scores::new(&format!("top{}", self.k), share))
    }
}

/// Whether a batch has a target for each output: of two batches that have not the sums may be equal.
fn expect_alike(metric: &'static str, outputs: usize, labels: usize) -> Result<()> {
    match outputs == labels {
        true => Ok(()),
        false => super::check_lengths(metric, outputs, labels),
    }
}

/// Values beside their targets.
struct Values {
    report: CorrelationMetric,
    predicted: Vec<f64>,
    expected: Vec<f64>,
}

impl Values {
    fn new(report: CorrelationMetric) -> Self {
        Self {
            report,
            predicted: Vec::new(),
            expected: Vec::new(),
        }
    }
}

impl Metric for Values {
    fn fresh(&self) -> Box<dyn Metric> {
        Box::new(Self::new(self.report))
    }

    fn add(&mut self, outputs: &Tensor, labels: &Tensor) -> Result<()> {
        let (predicted, expected) = (numbers(outputs)?, numbers(labels)?);
        expect_alike("values", predicted.len(), expected.len())?;
        self.predicted.extend(predicted);
        self.expected.extend(expected);
        Ok(())
    }

    fn scores(&self) -> Result<Scores> {
        self.report.scores(&self.predicted, &self.expected)
    }
}

/// Logits of clicks.
#[derive(Default)]
struct Clicks {
    logits: Vec<f64>,
    labels: Vec<bool>,
}

impl Metric for Clicks {
    fn fresh(&self) -> Box<dyn Metric> {
        Box::new(Self::default())
    }

    fn add(&mut self, outputs: &Tensor, labels: &Tensor) -> Result<()> {
        let (logits, labels) = (numbers(outputs)?, numbers(labels)?);
        expect_alike("clicks", logits.len(), labels.len())?;
        let labels = labels.into_iter().map(is_click);
        self.labels.extend(labels.collect::<Result<Vec<_>>>()?);
        self.logits.extend(logits);
        Ok(())
    }

    fn scores(&self) -> Result<Scores> {
        let (scores, warnings) = clicks(&self.logits, &self.labels)?;
        // What is not finite of a model that ran away stays so.
        let defined = self.logits.iter().all(|logit| logit.is_finite());
        let scores = match warnings.one_label && defined {
            true => without_auc(&scores),
            false => scores,
        };
        let nothing = warnings.constant || warnings.one_label;
        Ok(scores.with("says_nothing", f64::from(u8::from(nothing))))
    }
}

/// The scores of rows of one label, which end no run: neither ranks nor entropy are defined.
fn without_auc(scores: &Scores) -> Scores {
    let defined = scores.iter().filter(|(_, value)| value.is_finite());
    defined.fold(Scores::new("auc", 0.5), |all, (name, value)| {
        all.with(name, value)
    })
}

/// Whether one of a row's outputs is not a number: the place of the largest would say nothing.
pub(super) fn nan_rows(outputs: &Tensor) -> Result<Vec<bool>> {
    let rows = outputs.ne(outputs)?.max(D::Minus1)?.flatten_all()?;
    Ok(rows
        .to_vec1::<u8>()?
        .into_iter()
        .map(|nan| nan != 0)
        .collect())
}

/// The same names, and no numbers.
pub(super) fn undefined(scores: &Scores) -> Scores {
    let mut names = scores.iter().map(|(name, _)| name);
    let main = Scores::new(names.next().unwrap_or_default(), f64::NAN);
    names.fold(main, |all, name| all.with(name, f64::NAN))
}

fn is_click(label: f64) -> Result<bool> {
    match label {
        0.0 => Ok(false),
        1.0 => Ok(true),
        other => Err(Error::Batch {
            expected: "labels 0 and 1".into(),
            got: format!("{other}; rows of test.txt, say, have none"),
        }),
    }
}

fn numbers(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}
