//! Schedules that evaluations decide on: `plateau`, `plateau:FACTOR`, `plateau:FACTOR:PATIENCE`, each also as
//! `warmup:STEPS_OR_SHARE+...`.

use anyhow::{Context, Result, bail};
use trainers::Plateau;

/// Where nothing else is said: the paper's for ImageNet.
const DEFAULT: Plateau = Plateau {
    factor: 0.1,
    patience: 5,
};

/// A schedule's part that depends on the step alone, and what evaluations do to the rate.
///
/// # Errors
/// For anything but a factor in (0, 1) and a number of evaluations behind `plateau`.
pub fn parts(schedule: &str) -> Result<(String, Option<Plateau>)> {
    let (before, last) = match schedule.rsplit_once('+') {
        Some((before, last)) => (format!("{before}+"), last),
        None => (String::new(), schedule),
    };
    let mut values = last.split(':');
    if values.next() != Some("plateau") {
        return Ok((schedule.into(), None));
    }
    let expected = || {
        format!(
            "--schedule {schedule}: expected plateau:FACTOR:PATIENCE with a factor between 0 and 1 and a number of evaluations"
        )
    };
    let mut plateau = DEFAULT;
    if let Some(factor) = values.next() {
        plateau.factor = factor.parse().with_context(expected)?;
    }
    if let Some(patience) = values.next() {
        plateau.patience = patience.parse().with_context(expected)?;
    }
    let inside = plateau.factor > 0.0 && plateau.factor < 1.0 && plateau.patience > 0;
    if values.next().is_some() || !inside {
        bail!(expected());
    }
    Ok((format!("{before}constant"), Some(plateau)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plateau_has_a_factor_and_patience() {
        let of = |schedule: &str| parts(schedule).unwrap();
        assert_eq!(of("plateau"), ("constant".into(), Some(DEFAULT)));
        let half = |patience| {
            Some(Plateau {
                factor: 0.5,
                patience,
            })
        };
        assert_eq!(of("plateau:0.5"), ("constant".into(), half(5)));
        assert_eq!(
            of("warmup:0.1+plateau:0.5:2"),
            ("warmup:0.1+constant".into(), half(2))
        );
        for none in ["linear", "warmup:10+step:0.1:0.5", "plateaus"] {
            assert_eq!(of(none), (none.into(), None));
        }
        for wrong in [
            "plateau:1",
            "plateau:0",
            "plateau:-1:3",
            "plateau:NaN",
            "plateau:0.5:0",
            "plateau:0.5:2:1",
            "plateau:x",
            "plateau:0.5:1.5",
        ] {
            let error = parts(wrong).unwrap_err().to_string();
            assert!(error.contains(wrong) && error.contains("FACTOR"), "{error}");
        }
    }
}
