//! Checks of flags' values, so that a slip of the finger is an error of the flag it was made in.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

fn number<T>(text: &str, range: RangeInclusive<T>) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    match text.parse::<T>() {
        Ok(value) if range.contains(&value) => Ok(value),
        _ => Err(format!("expected {} to {}", range.start(), range.end())),
    }
}

/// A size: 1 to 10⁹.
///
/// # Errors
/// For anything else.
pub fn count(text: &str) -> Result<usize, String> {
    number(text, 1..=1_000_000_000)
}

/// A number of steps: 1 to 10¹⁵.
///
/// # Errors
/// For anything else.
pub fn steps(text: &str) -> Result<u64, String> {
    number(text, 1..=1_000_000_000_000_000)
}

/// A number of epochs: 1 to 10⁶.
///
/// # Errors
/// For anything else.
pub fn epochs(text: &str) -> Result<usize, String> {
    number(text, 1..=1_000_000)
}

/// Batches made ahead: 0 to 1000, all of them in memory.
///
/// # Errors
/// For anything else.
pub fn ahead(text: &str) -> Result<usize, String> {
    number(text, 0..=1000)
}

/// Threads: 1 to 1024.
///
/// # Errors
/// For anything else.
pub fn threads(text: &str) -> Result<usize, String> {
    number(text, 1..=1024)
}

/// A finite number above 0.
///
/// # Errors
/// For anything else.
pub fn above_zero(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value.is_finite() => Ok(value),
        _ => Err("expected a number above 0".into()),
    }
}

/// A finite number of at least 0.
///
/// # Errors
/// For anything else.
pub fn not_negative(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value >= 0.0 && value.is_finite() => Ok(value),
        _ => Err("expected a number of at least 0".into()),
    }
}

/// A finite number of at least 1.
///
/// # Errors
/// For anything else.
pub fn one_or_more(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value >= 1.0 && value.is_finite() => Ok(value),
        _ => Err("expected a number of at least 1".into()),
    }
}

/// A number from 0 to 1.
///
/// # Errors
/// For anything else.
pub fn share(text: &str) -> Result<f64, String> {
    number(text, 0.0..=1.0)
}

/// A probability with which something is dropped out: at least 0 and below 1.
///
/// # Errors
/// For anything else.
pub fn dropout(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..1.0).contains(&value) => Ok(value),
        _ => Err("expected a number of at least 0 and below 1".into()),
    }
}

/// A list separated by commas, without repetitions, in small letters.
///
/// # Errors
/// For nothing, and for something twice.
pub fn list(text: &str) -> Result<Vec<String>, String> {
    list_as_it_is(&text.to_lowercase())
}

/// A [`list`] whose capital letters stay: of paths, say.
///
/// # Errors
/// As [`list`].
pub fn list_as_it_is(text: &str) -> Result<Vec<String>, String> {
    list_of(text, ',')
}

/// The same of values with this character between them.
///
/// # Errors
/// As [`list_as_it_is`].
pub fn list_of(text: &str, separator: char) -> Result<Vec<String>, String> {
    let parts = text.split(separator).map(|part| part.trim().to_string());
    let parts: Vec<String> = parts.filter(|p| !p.is_empty()).collect();
    if parts.is_empty() {
        return Err("expected at least one".into());
    }
    for (i, part) in parts.iter().enumerate() {
        if parts[..i].contains(part) {
            return Err(format!("`{part}` is there twice: it would be the same run"));
        }
    }
    Ok(parts)
}

/// The text of a [`list`].
///
/// # Errors
/// As [`list`].
pub fn list_text(text: &str) -> Result<String, String> {
    Ok(list(text)?.join(","))
}

/// A list of sizes separated by commas, each as [`count`] has it.
///
/// # Errors
/// For anything else.
pub fn counts(text: &str) -> Result<Vec<usize>, String> {
    let parts = text.split(',').map(|part| count(part.trim()));
    parts
        .collect::<Result<_, _>>()
        .map_err(|why| format!("sizes separated by commas: {why}"))
}

/// The text of such [`counts`].
///
/// # Errors
/// As [`counts`].
pub fn counts_text(text: &str) -> Result<String, String> {
    counts(text).map(|_| text.to_string())
}

/// The text of a [`list`] of seeds: whole numbers from 0 to 2⁶³ - 1.
///
/// # Errors
/// As [`list`], and for what is no seed.
pub fn seeds(text: &str) -> Result<String, String> {
    let seed = |seed: &String| {
        let number = number(seed, 0..=i64::MAX as u64);
        number.map_err(|e| format!("`{seed}`: {e}"))
    };
    let seeds = list(text)?
        .iter()
        .map(seed)
        .collect::<Result<Vec<_>, _>>()?;
    let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
    // 00 is 0, too.
    list_text(&seeds.join(","))
}
