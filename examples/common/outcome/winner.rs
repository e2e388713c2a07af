//! A sentence that says which run is ahead, and whether its seeds show it.

use super::error_of;
use crate::results::{Place, Row, Spread};
use std::collections::BTreeMap;

/// Which run is ahead, and whether the seeds bear it out: of those that differ in nothing but optimizer and
/// swept flags, by the main score of the last evaluation. `dropped` are choices that have no row, as others were better.
pub(super) fn notes(rows: &[Row], dropped: &[Place]) -> Vec<String> {
    let mut fields: BTreeMap<Vec<&(String, String)>, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        fields.entry(field_of(&row.place)).or_default().push(row);
    }
    let sentences = fields.into_iter().filter_map(|(field, rows)| {
        let dropped = dropped.iter().filter(|place| field_of(place) == field);
        winner(&rows, &dropped.collect::<Vec<_>>())
    });
    sentences.collect()
}

/// What is compared among itself alone.
fn field_of(place: &[(String, String)]) -> Vec<&(String, String)> {
    let field = place
        .iter()
        .filter(|(name, _)| name == "task" || name == "model");
    field.collect()
}

fn winner(rows: &[&Row], dropped: &[&Place]) -> Option<String> {
    let score = |row: &Row| {
        row.last
            .get(&row.main)
            .copied()
            .filter(|s| s.mean.is_finite())
    };
    // A choice that lost seeds, or has not had all of them yet, is compared with none that did not.
    let most = rows.iter().map(|row| row.runs).max();
    let mut ranked: Vec<(&Row, Spread)> = rows
        .iter()
        .filter(|row| Some(row.runs) == most)
        .filter_map(|row| Some((*row, score(row)?)))
        .collect();
    let higher = rows.first()?.higher_is_better;
    ranked.sort_by(|(_, a), (_, b)| match higher {
        true => b.mean.total_cmp(&a.mean),
        false => a.mean.total_cmp(&b.mean),
    });
    // Of several optimizers the best choice of each, and not two neighbours of one of them.
    let mut seen: Vec<&str> = Vec::new();
    let best_of_each: Vec<(&Row, Spread)> = ranked
        .iter()
        .filter(|(row, _)| {
            let name = optimizer_of(&row.place);
            let first = !seen.contains(&name);
            seen.push(name);
            first
        })
        .copied()
        .collect();
    if best_of_each.len() > 1 {
        ranked = best_of_each;
    }
    let [(first, best), (second, next), ..] = ranked.as_slice() else {
        return None;
    };
    let choices = [first, second].map(|row| {
        let all = rows.iter().map(|row| &row.place);
        let all = all.chain(dropped.iter().copied());
        let same = |place: &&Place| optimizer_of(place) == optimizer_of(&row.place);
        all.filter(same).count()
    });
    let same = optimizer_of(&first.place) == optimizer_of(&second.place);
    let picked = match same {
        true => two_of(choices[0]),
        false => picked(choices),
    };
    let gap = (best.mean - next.mean).abs();
    let ahead = format!(
        "By {} {} is ahead of {} ({:.4} against {:.4})",
        first.main, first.group, second.group, best.mean, next.mean
    );
    if gap == 0.0 {
        return Some(format!(
            "By {} {} and {} are equal ({:.4}).{picked}",
            first.main, first.group, second.group, best.mean
        ));
    }
    let said = match (error_of(best, first.runs), error_of(next, second.runs)) {
        (Some(a), Some(b)) if a.hypot(b) == 0.0 => format!(
            "{ahead}; the seeds of each agree to the digit: there are too few examples to tell."
        ),
        (Some(a), Some(b)) => {
            let errors = gap / a.hypot(b);
            let chance = quantile(freedom((a, first.runs), (b, second.runs)));
            match errors > chance {
                true => format!(
                    "{ahead}: {errors:.1} standard errors of the difference, where chance has {chance:.1} once in \
                         twenty times with so many seeds."
                ),
                false => format!(
                    "{ahead}, but by {errors:.1} standard errors of the difference, where chance has {chance:.1} \
                         once in twenty times: these seeds do not tell them apart."
                ),
            }
        }
        _ => format!("{ahead}, on one seed: whether that is chance, several show (--seed 0,1,2)."),
    };
    Some(said + &picked)
}

/// What a choice of the best on the very rows that it is judged by takes from the verdict.
fn picked([of_first, of_second]: [usize; 2]) -> String {
    match of_first.max(of_second) {
        0 | 1 => String::new(),
        _ => format!(
            " They are the best of {of_first} and of {of_second} choices by these scores, which flatters both: other seeds, or \
             rows that were not looked at, confirm it."
        ),
    }
}

/// The same of two choices of one search.
fn two_of(choices: usize) -> String {
    match choices {
        0..=2 => String::new(),
        _ => format!(
            " They are the two best of {choices} choices by these scores, which flatters the first: other seeds, or rows that \
             were not looked at, confirm it."
        ),
    }
}

fn optimizer_of(place: &[(String, String)]) -> &str {
    let optimizer = place.iter().find(|(name, _)| name == "optimizer");
    optimizer.map_or("", |(_, value)| value.as_str())
}

/// Welch's degrees of freedom of the difference of two means, from their standard errors and numbers of runs.
fn freedom((a, of_a): (f64, usize), (b, of_b): (f64, usize)) -> f64 {
    let part = |error: f64, runs: usize| error.powi(4) / (runs.max(2) - 1) as f64;
    (a * a + b * b).powi(2) / (part(a, of_a) + part(b, of_b))
}

/// What Student's t is beyond, either way, in one of twenty cases; between two rows of the table the larger value.
fn quantile(freedom: f64) -> f64 {
    const TABLE: [(f64, f64); 12] = [
        (1.0, 12.706),
        (2.0, 4.303),
        (3.0, 3.182),
        (4.0, 2.776),
        (5.0, 2.571),
        (6.0, 2.447),
        (7.0, 2.365),
        (8.0, 2.306),
        (10.0, 2.228),
        (15.0, 2.131),
        (30.0, 2.042),
        (120.0, 1.980),
    ];
    let row = TABLE.iter().rfind(|(at, _)| *at <= freedom);
    row.map_or(TABLE[0].1, |(_, quantile)| *quantile)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a table of Student's distribution, and Welch's formula in its two simple cases.
    #[test]
    fn few_seeds_prove_little() {
        for (freedom, expected) in [
            (0.5, 12.706),
            (2.0, 4.303),
            (4.9, 2.776),
            (12.0, 2.228),
            (1e9, 1.980),
        ] {
            assert_eq!(quantile(freedom), expected);
        }
        assert!((freedom((0.1, 3), (0.1, 3)) - 4.0).abs() < 1e-12);
        assert!((freedom((0.1, 5), (0.0, 5)) - 4.0).abs() < 1e-12);
    }

    fn row(group: &str, scores: &[f64]) -> Row {
        let last = BTreeMap::from([("accuracy".to_string(), Spread::of(scores))]);
        Row {
            group: group.into(),
            place: Vec::new(),
            runs: scores.len(),
            main: "accuracy".into(),
            higher_is_better: true,
            best: last.clone(),
            last,
            losses: BTreeMap::new(),
            scores: BTreeMap::new(),
            train_loss: Spread::of(&[0.1]),
            seconds_per_step: None,
            peak_memory_mib: None,
            minutes: 1.0,
        }
    }

    #[test]
    fn the_winner_is_one_that_the_seeds_bear_out() {
        let said = |rows: &[Row]| {
            let rows: Vec<&Row> = rows.iter().collect();
            winner(&rows, &[]).unwrap_or_default()
        };
        // 2.8 standard errors: of two seeds each that is chance.
        let two = said(&[row("a", &[0.90, 0.92]), row("b", &[0.86, 0.88])]);
        assert!(
            two.contains("a is ahead of b") && two.contains("do not tell them apart"),
            "{two}"
        );
        let ten: Vec<f64> = (0..10).map(|i| 0.9 + 0.002 * f64::from(i)).collect();
        let lower: Vec<f64> = ten.iter().map(|score| score - 0.02).collect();
        let clear = said(&[row("a", &ten), row("b", &lower)]);
        assert!(
            clear.contains("standard errors of the difference, where chance"),
            "{clear}"
        );
        let same = said(&[row("a", &[0.5, 0.5]), row("b", &[0.4, 0.4])]);
        assert!(same.contains("agree to the digit"), "{same}");
        // One that lost two of three seeds is not ahead.
        let lost = said(&[
            row("a", &[0.99]),
            row("b", &[0.8, 0.81, 0.82]),
            row("c", &[0.7, 0.72, 0.71]),
        ]);
        assert!(lost.contains("b is ahead of c"), "{lost}");
    }

    /// Of several optimizers the best choice of each.
    #[test]
    fn two_choices_of_one_optimizer_are_no_comparison_of_two() {
        let by = |optimizer: &str, group: &str, scores: &[f64]| Row {
            place: vec![("optimizer".into(), optimizer.into())],
            ..row(group, scores)
        };
        let rows = [
            by("adamw", "adamw 1", &[0.95, 0.96]),
            by("adamw", "adamw 2", &[0.94, 0.95]),
            by("adahessian", "adahessian 1", &[0.90, 0.92]),
        ];
        let said = winner(&rows.iter().collect::<Vec<_>>(), &[]).unwrap_or_default();
        assert!(said.contains("adamw 1 is ahead of adahessian 1"), "{said}");
        let one = winner(&rows[..2].iter().collect::<Vec<_>>(), &[]).unwrap_or_default();
        assert!(one.contains("adamw 1 is ahead of adamw 2"), "{one}");
        assert!(!one.contains("choices"), "{one}");
        let third = [rows[1].place.clone()];
        let three = winner(&rows[..2].iter().collect::<Vec<_>>(), &[&third[0]]);
        let three = three.unwrap_or_default();
        assert!(three.contains("two best of 3 choices"), "{three}");
        assert!(said.contains("best of 2 and of 1 choices"), "{said}");
        let fixed = winner(&[&rows[0], &rows[2]], &[]).unwrap_or_default();
        assert!(!fixed.contains("choices"), "{fixed}");
        // The best of a search is that of all that it began with.
        let dropped = [&rows[0].place, &rows[0].place, &rows[2].place];
        let searched = winner(&[&rows[0], &rows[2]], &dropped).unwrap_or_default();
        assert!(
            searched.contains("best of 3 and of 2 choices"),
            "{searched}"
        );
    }
}
