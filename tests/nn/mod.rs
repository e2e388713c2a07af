//! The layers under candle_nn's names: each against candle's own where that is right, and each against
//! finite differences at both levels.

mod case;
mod dropout;
mod functions;
mod layers;
mod malformed;
mod sequences;
mod values;
mod variables;

use anyhow::Result;
use case::{Case, case};
use testing::assert_says;

fn all() -> Vec<Case> {
    let parts = [
        layers::maps(),
        layers::norms(),
        layers::convolutions(),
        sequences::attention(),
        sequences::recurrent(),
        functions::pointwise(),
        functions::images(),
        functions::indices(),
        functions::losses(),
    ];
    parts.into_iter().flatten().collect()
}

/// Runs a check of every case and fails with all that failed, by name.
fn every(check: impl Fn(&Case) -> Result<()>) {
    let failures = all().into_iter().filter_map(|case| {
        let error = check(&case).err()?;
        Some(format!("{}: {error:#}", case.name))
    });
    let failures: Vec<String> = failures.collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn values_names_and_shapes_are_candles() {
    every(Case::is_candles);
}

#[test]
fn gradients_are_right() {
    every(Case::gradient);
}

#[test]
fn hessians_are_right() {
    every(Case::hessian);
}

#[test]
fn single_precision_is_double_rounded() {
    every(Case::single);
}

#[test]
fn half_precision_stays_what_it_is() {
    every(Case::half);
}

/// What candle loses is found by these checks: they are able to fail.
#[test]
fn candles_holes_are_found() {
    let softmax = case("softmax", &[3, 4], |_, x| {
        candle_nn::ops::softmax_last_dim(x)
    });
    assert_says(softmax.gradient(), &["no gradient reaches", "input"]);
    let pool = case("pool", &[1, 1, 4, 4], |_, x| x.max_pool2d(2));
    assert_says(pool.gradient(), &["gradient of `input` differs"]);
    let gather = case("gather", &[3, 3], |_, x| {
        let (one, other) = functions::two_indices()?;
        x.gather(&one, 1)?.exp()? * x.gather(&other, 1)?.sin()?
    });
    assert_says(
        gather.hessian(),
        &["Hessian-vector product of `input` differs"],
    );
}
