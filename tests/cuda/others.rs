//! Operations on the device that no other file here has: parts of tensors, pools, dropout, multi-linear attention.

use super::device;
use super::values::same;
use adahessian::ops::{self, Dropout, Mode, Window};
use anyhow::Result;
use candle_core::Tensor;
use testing::twins::vars;

const TRAINING: Mode = Mode::Train {
    seed: 4,
    step: 2,
    micro: 0,
};

#[test]
fn parts_of_tensors() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    let all = vars(&[("x", &[2, 5, 3]), ("y", &[2, 4, 3])])?;
    for dim in [0, 1, 2] {
        same(&format!("narrow {dim}"), &all, &device, |vars, enter| {
            ops::narrow(&enter(vars.get("x")?)?, dim, 1, 1)?.exit()
        })?;
    }
    same("reshape, cat", &all, &device, |vars, enter| {
        let (x, y) = (enter(vars.get("x")?)?, enter(vars.get("y")?)?);
        ops::reshape(&ops::cat(&[&x, &y, &x], 1)?, &[4, 7, 3])?.exit()
    })?;
    same("first positions", &all, &device, |vars, enter| {
        ops::first_positions(&enter(vars.get("x")?)?, 2)?.exit()
    })
}

#[test]
fn pools() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    let images = vars(&[("x", &[2, 3, 7, 6])])?;
    for (kernel, stride, padding) in [(2, 2, 0), (3, 2, 1), (3, 1, 0)] {
        let window = Window {
            kernel,
            stride,
            padding,
        };
        let what = format!("{kernel}, {stride}, {padding}");
        same(
            &format!("maxima {what}"),
            &images,
            &device,
            |vars, enter| ops::max_pool2d(&enter(vars.get("x")?)?, &window)?.exit(),
        )?;
        same(&format!("means {what}"), &images, &device, |vars, enter| {
            ops::avg_pool2d(&enter(vars.get("x")?)?, &window)?.exit()
        })?;
    }
    same("one mean", &images, &device, |vars, enter| {
        ops::global_avg_pool2d(&enter(vars.get("x")?)?)?.exit()
    })?;
    for (stride, channels) in [(1, 3), (2, 5), (3, 4)] {
        let what = format!("shortcut {stride} to {channels}");
        same(&what, &images, &device, |vars, enter| {
            ops::subsample_channels(&enter(vars.get("x")?)?, stride, channels)?.exit()
        })?;
    }
    Ok(())
}

#[test]
fn dropouts() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    let all = vars(&[("x", &[3, 5, 7]), ("y", &[3, 5, 7])])?;
    for p in [0.0, 0.3] {
        let dropout = Dropout::new(p, "place", &TRAINING);
        same(&format!("dropout {p}"), &all, &device, |vars, enter| {
            ops::dropout(&enter(vars.get("x")?)?, &dropout)?.exit()
        })?;
        same(&format!("residual {p}"), &all, &device, |vars, enter| {
            let (x, y) = (enter(vars.get("x")?)?, enter(vars.get("y")?)?);
            ops::residual(&x, &y, &dropout)?.exit()
        })?;
    }
    Ok(())
}

#[test]
fn sums_of_embeddings() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    let all = vars(&[("w", &[11, 5]), ("p", &[4, 5]), ("t", &[2, 5])])?;
    let ids = Tensor::new(&[[3u32, 0, 3], [10, 3, 1]], &candle_core::Device::Cpu)?;
    let types = Tensor::new(&[[0u32, 0, 1], [1, 1, 0]], &candle_core::Device::Cpu)?;
    same("first layer", &all, &device, |vars, _| {
        let tables = ops::EmbeddingTables {
            words: vars.get("w")?,
            positions: vars.get("p")?,
            token_types: vars.get("t")?,
        };
        ops::embedding_sum(&ids, &types, &tables)?.exit()
    })?;
    same("sum of rows", &all, &device, |vars, _| {
        let (w, t) = (vars.get("w")?, vars.get("t")?);
        ops::sum_of_rows(&[(&ids, w), (&types, t)])?.exit()
    })
}

#[test]
fn multilinear_attentions() -> Result<()> {
    let Some(device) = device() else {
        return Ok(());
    };
    for (batch, length, rank, outputs, window) in
        [(1, 1, 1, 1, 1), (2, 4, 3, 2, 6), (2, 9, 4, 5, 9)]
    {
        let rows = [batch, length, rank];
        let all = vars(&[
            ("a", &rows),
            ("m", &rows),
            ("v", &rows),
            ("s", &[batch, length, length]),
            ("weight", &[outputs, window * window]),
        ])?;
        for causal in [true, false] {
            let what = format!("{batch} x {length} of {window}, rank {rank}, causal {causal}");
            same(&what, &all, &device, |vars, enter| {
                let part = |name: &str| enter(vars.get(name)?);
                let (a, m, v, s) = (part("a")?, part("m")?, part("v")?, part("s")?);
                let weight = vars.get("weight")?;
                let y = ops::multilinear_attention([&a, &m, &v], &s, weight, causal)?;
                Ok((y.exit()? * 0.1)?)
            })?;
        }
    }
    Ok(())
}
