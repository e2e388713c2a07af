//! Click logs of a known model in the format of the contest.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;

use super::files::Partial;
use super::vocabulary::with_ending;
use super::{Planted, Preprocessing, Row, Store, prepare};
use crate::error::{Error, Result};
use crate::lock::FileLock;

/// Rows that a thread makes at once.
const BLOCK: u64 = 4096;
/// Blocks that are kept in memory at once, for each thread.
const BLOCKS_A_THREAD: u64 = 8;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Generated {
    /// Rows.
    pub rows: u64,
    /// Rows that are clicks.
    pub clicks: u64,
    /// Mean of `-log p` over the rows, `p` the planted probability of the row's own label: what the
    /// planted model itself reaches on these rows, in nats.
    pub log_loss: f64,
    /// What `log_loss` is expected to be with labels drawn anew: no model can do better on average.
    pub expected_log_loss: f64,
}

/// Writes `rows` labelled rows of the model [`Planted::new`]`(seed)`, from row 0 on.
///
/// The text is a function of `rows` and `seed`, the same on every machine and with any number of
/// threads.
///
/// # Errors
/// Those of the writer.
pub fn generate(rows: u64, seed: u64, writer: &mut impl Write) -> io::Result<Generated> {
    generate_rows(&Planted::new(seed), 0..rows, writer)
}

/// Writes some labelled rows of a model; other rows of the same model are fresh data.
///
/// # Errors
/// Those of the writer.
pub fn generate_rows(
    model: &Planted,
    rows: Range<u64>,
    writer: &mut impl Write,
) -> io::Result<Generated> {
    let mut sum = Generated::default();
    let group = BLOCK * BLOCKS_A_THREAD * rayon::current_num_threads() as u64;
    let mut start = rows.start;
    while start < rows.end {
        let end = rows.end.min(start.saturating_add(group));
        let blocks: Vec<(Vec<u8>, Generated)> = (0..(end - start).div_ceil(BLOCK))
            .into_par_iter()
            .map(|block| {
                let first = start + block * BLOCK;
                make(model, first..end.min(first + BLOCK))
            })
            .collect();
        for (text, part) in blocks {
            writer.write_all(&text)?;
            sum.rows += part.rows;
            sum.clicks += part.clicks;
            sum.log_loss += part.log_loss;
            sum.expected_log_loss += part.expected_log_loss;
        }
        start = end;
    }
    writer.flush()?;
    let rows = sum.rows.max(1) as f64;
    sum.log_loss /= rows;
    sum.expected_log_loss /= rows;
    Ok(sum)
}

/// The store at `path` of `rows` rows of the model [`Planted::new`]`(seed)`, made if it is not there yet; its
/// text, some 244 bytes a row, lies beside it as long as that takes.
///
/// # Errors
/// If another process is making it, a file cannot be written or read, or what is there is no store of so many rows.
pub fn generate_store(path: &Path, rows: u64, seed: u64) -> Result<Store> {
    if !path.exists() {
        let _lock = FileLock::claim(&with_ending(path, ".generating"), path)?;
        // A name that nobody else has: `train.txt` beside `train.clicks` is likely to be the contest's.
        let text = Partial::new(with_ending(path, ".generated.txt"));
        // What a call left that was killed is overwritten.
        let file = File::create(text.path()).map_err(|e| text.failed(e))?;
        let mut writer = BufWriter::with_capacity(1 << 20, file);
        generate(rows, seed, &mut writer).map_err(|e| text.failed(e))?;
        drop(writer);
        let text_alone = [text.path().to_path_buf()];
        prepare(&text_alone, path, &Preprocessing::default(), |_| ())?;
    }
    let store = Store::open(path)?;
    if store.len() as u64 == rows {
        return Ok(store);
    }
    Err(Error::Setting {
        name: "rows",
        got: rows.to_string(),
        expected: format!(
            "{}, as many as {} has; remove it to make it again",
            store.len(),
            path.display()
        ),
    })
}

/// The text of some rows; the losses are sums.
fn make(model: &Planted, rows: Range<u64>) -> (Vec<u8>, Generated) {
    let mut text = Vec::with_capacity((rows.end - rows.start) as usize * 280);
    let mut part = Generated::default();
    for index in rows {
        let (row, probability) = model.draw(index);
        let clicked = row.label == Some(true);
        // Both logarithms are of numbers away from 0: no logit is beyond some ten.
        let (if_clicked, if_not) = (-libm::log(probability), -libm::log1p(-probability));
        part.rows += 1;
        part.clicks += u64::from(clicked);
        part.log_loss += if clicked { if_clicked } else { if_not };
        part.expected_log_loss += probability * if_clicked + (1.0 - probability) * if_not;
        write_row(&mut text, &row);
    }
    (text, part)
}

/// A line as the contest's files have it.
fn write_row(text: &mut Vec<u8>, row: &Row) {
    if let Some(label) = row.label {
        text.extend([b'0' + u8::from(label), b'\t']);
    }
    for integer in row.integers {
        if let Some(value) = integer {
            write_integer(text, value);
        }
        text.push(b'\t');
    }
    for category in row.categories {
        if let Some(value) = category {
            let digits = (0..8).rev().map(|digit| value >> (4 * digit) & 15);
            text.extend(digits.map(|digit| b"0123456789abcdef"[digit as usize]));
        }
        text.push(b'\t');
    }
    text.pop();
    text.push(b'\n');
}

fn write_integer(text: &mut Vec<u8>, value: i32) {
    if value < 0 {
        text.push(b'-');
    }
    let start = text.len();
    let mut rest = value.unsigned_abs();
    loop {
        text.push(b'0' + (rest % 10) as u8);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    text[start..].reverse();
}
