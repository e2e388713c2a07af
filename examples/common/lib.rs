//! What the examples share: one driver, from flags to a report.

pub mod answers;
pub mod card;
pub mod driver;
pub mod experiment;
pub mod find_lr;
pub mod flags;
pub mod grid;
pub mod halving;
pub mod layers;
pub mod optimizers;
pub mod outcome;
mod plateau;
pub mod plots;
pub mod program;
pub mod report;
pub mod results;
pub mod runs;
pub mod same;
pub mod sampling;
pub mod session;
pub mod study;
pub mod table;
pub mod text;
pub mod values;
pub mod vision;
