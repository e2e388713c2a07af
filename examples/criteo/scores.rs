//! The scores of clicks as cells of a table.

use trainers::Scores;

/// The heads of the columns.
pub const HEADER: [&str; 6] = [
    "AUC",
    "accuracy",
    "log loss",
    "norm. entropy",
    "predicted",
    "clicks",
];

/// Name, factor and decimal places of each column; shares in percent.
pub const COLUMNS: [(&str, f64, usize); 6] = [
    ("auc", 100.0, 3),
    ("accuracy", 100.0, 3),
    ("loss", 1.0, 5),
    ("normalised_entropy", 1.0, 5),
    ("prediction_rate", 100.0, 2),
    ("label_rate", 100.0, 2),
];

/// A cell for each column.
pub fn cells(scores: &Scores) -> impl Iterator<Item = String> {
    COLUMNS
        .iter()
        .map(|&(name, factor, places)| match scores.get(name) {
            Some(value) => format!("{:.places$}", value * factor),
            None => "-".into(),
        })
}
