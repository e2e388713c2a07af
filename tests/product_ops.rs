//! Products and sums of whole tensors against their composed twins and finite differences.

use adahessian::engine::Handle;
use adahessian::ops::{add_rows, multiply_columns, products_of_rows};
use anyhow::Result;
use testing::assert_says;
use testing::twins::{random, twins, vars};

#[test]
fn columns_times_numbers() -> Result<()> {
    for shape in [&[1, 1][..], &[5, 3], &[2, 4, 7], &[6]] {
        let width = *shape.last().expect("a width");
        let vars = vars(&[("x", shape), ("c", &[width])])?;
        twins(
            &format!("columns of {shape:?}"),
            &vars,
            true,
            &|vars, enter| {
                let (x, c) = (enter(vars.get("x")?)?, enter(vars.get("c")?)?);
                multiply_columns(&x, &c)?.exit()
            },
        )?;
    }
    let enter = |name: &str, shape: &[usize]| -> Result<Handle> {
        Ok(Handle::enter(&random(name, shape)?)?)
    };
    let outcome = multiply_columns(&enter("x", &[2, 3])?, &enter("c", &[2])?);
    assert_says(outcome, &["[2, 3]", "[2]"]);
    Ok(())
}

/// A number that is an operand twice has both derivatives.
#[test]
fn an_operand_with_itself() -> Result<()> {
    let vars = vars(&[("x", &[2, 3, 4]), ("c", &[4])])?;
    twins("itself", &vars, true, &|vars, enter| {
        let (x, c) = (enter(vars.get("x")?)?, enter(vars.get("c")?)?);
        let x = multiply_columns(&multiply_columns(&x, &c)?, &c)?;
        products_of_rows(&x, &x)?.exit()
    })
}

#[test]
fn rows_with_rows() -> Result<()> {
    for (batch, queries, keys, width) in [(1, 1, 1, 1), (2, 3, 4, 5), (3, 17, 2, 9)] {
        let vars = vars(&[
            ("x", &[batch, queries, width]),
            ("w", &[batch, keys, width]),
        ])?;
        let what = format!("rows {batch}x{queries}x{keys}x{width}");
        twins(&what, &vars, queries < 10, &|vars, enter| {
            let (x, w) = (enter(vars.get("x")?)?, enter(vars.get("w")?)?);
            products_of_rows(&x, &w)?.exit()
        })?;
    }
    let enter = |name: &str, shape: &[usize]| -> Result<Handle> {
        Ok(Handle::enter(&random(name, shape)?)?)
    };
    let outcome = products_of_rows(&enter("x", &[2, 3, 4])?, &enter("w", &[2, 3, 5])?);
    assert_says(outcome, &["[2, 3, 4]", "[2, 3, 5]"]);
    let outcome = products_of_rows(&enter("x", &[2, 3])?, &enter("w", &[2, 3])?);
    assert_says(outcome, &["[2, 3]"]);
    Ok(())
}

#[test]
fn rows_that_a_batch_shares() -> Result<()> {
    for shape in [[1, 1, 1], [3, 2, 4]] {
        let vars = vars(&[("x", &shape), ("r", &shape[1..])])?;
        twins(
            &format!("shared rows of {shape:?}"),
            &vars,
            true,
            &|vars, enter| {
                let (x, r) = (enter(vars.get("x")?)?, enter(vars.get("r")?)?);
                add_rows(&x, &r)?.exit()
            },
        )?;
    }
    let enter = |name: &str, shape: &[usize]| -> Result<Handle> {
        Ok(Handle::enter(&random(name, shape)?)?)
    };
    let outcome = add_rows(&enter("x", &[2, 3, 4])?, &enter("r", &[2, 4])?);
    assert_says(outcome, &["[2, 3, 4]", "[2, 4]"]);
    Ok(())
}
