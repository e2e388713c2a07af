//! The operations of transformers: the fused ones against the composed ones and against finite
//! differences, at both levels, over a table of shapes.

use adahessian::engine::Handle;
use adahessian::nn::LayerNorm;
use adahessian::ops::{self, Activation, Dropout, EmbeddingTables, Mode};
use adahessian::random::Stream;
use adahessian::{Hessian, LinearOperator, NamedVars, VarVec};
use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use testing::assert_close;
use testing::assert_says;
use testing::dropped_norm;
use testing::twins::{COMPOSED, Enter, FUSED, loss, random, to, twins, vars};

const TRAINING: Mode = Mode::Train {
    seed: 11,
    step: 4,
    micro: 1,
};

#[test]
fn linear_maps() -> Result<()> {
    // Leading dimensions, inputs, outputs, groups.
    let cases: [(&[usize], usize, usize, usize); 8] = [
        (&[2, 5], 6, 4, 1),
        (&[1], 3, 7, 1),
        (&[3, 1, 2], 8, 12, 4),
        (&[17], 6, 6, 2),
        (&[1, 1], 1, 1, 1),
        (&[2, 33], 20, 24, 4),
        (&[40, 7], 17, 65, 1),
        (&[300], 5, 3, 1),
    ];
    let activations = [
        Activation::Identity,
        Activation::Gelu,
        Activation::Tanh,
        Activation::Relu,
        Activation::Silu,
    ];
    for (leading, inputs, outputs, groups) in cases {
        let mut x = leading.to_vec();
        x.push(inputs);
        let vars = vars(&[
            ("x", &x),
            ("weight", &[outputs, inputs / groups]),
            ("bias", &[outputs]),
        ])?;
        for activation in activations {
            for bias in [true, false] {
                let what = format!("{activation} of {x:?} to {outputs} in {groups}, bias {bias}");
                // Finite differences stumble over the kink of ReLU.
                let smooth = activation != Activation::Relu && x.iter().product::<usize>() < 200;
                let (used, _) = vars.partition(|name| bias || name != "bias");
                twins(&what, &used, smooth, &|vars, enter| {
                    let bias = bias.then(|| vars.get("bias")).transpose()?;
                    let bias = bias.map(|b| b.as_tensor());
                    let x = enter(vars.get("x")?)?;
                    ops::linear(&x, vars.get("weight")?, bias, groups, activation)?.exit()
                })?;
            }
        }
    }
    Ok(())
}

/// The weight of a pointwise convolution, [out, in, 1].
#[test]
fn a_linear_map_of_three_dimensions() -> Result<()> {
    let vars = vars(&[("x", &[2, 3, 4]), ("weight", &[6, 2, 1]), ("bias", &[6])])?;
    twins("pointwise", &vars, true, &|vars, enter| {
        let x = enter(vars.get("x")?)?;
        let bias = Some(vars.get("bias")?.as_tensor());
        ops::linear(&x, vars.get("weight")?, bias, 2, Activation::Gelu)?.exit()
    })
}

#[test]
fn layer_norms() -> Result<()> {
    for shape in [&[2, 3, 8][..], &[1, 5], &[40, 17], &[3, 2, 33], &[700, 24]] {
        let width = shape[shape.len() - 1];
        let all = vars(&[
            ("x", shape),
            ("r", shape),
            ("weight", &[width]),
            ("bias", &[width]),
        ])?;
        for residual in [true, false] {
            for p in [0.0, 0.3] {
                let what = format!("layer norm of {shape:?}, residual {residual}, p {p}");
                let (used, _) = all.partition(|name| residual || name != "r");
                let small = shape.iter().product::<usize>() < 300;
                twins(&what, &used, small, &|vars, enter| {
                    let x = enter(vars.get("x")?)?;
                    let r = match residual {
                        true => Some(enter(vars.get("r")?)?),
                        false => None,
                    };
                    let dropout = Dropout::new(p, "place", &TRAINING);
                    let (weight, bias) = (vars.get("weight")?, vars.get("bias")?);
                    dropped_norm(&x, r.as_ref(), &dropout, weight, bias, 1e-6)?.exit()
                })?;
            }
        }
    }
    Ok(())
}

/// Batch, queries, keys, heads, width of a head.
const ATTENTIONS: [[usize; 5]; 7] = [
    [2, 4, 4, 2, 3],
    [1, 1, 1, 1, 1],
    [3, 5, 5, 1, 4],
    [2, 3, 6, 2, 2],
    [1, 17, 17, 4, 2],
    [2, 33, 33, 3, 8],
    [4, 7, 5, 2, 5],
];

/// Keys of each sequence that are text, the first ones; the last sequence has none where `none`, and
/// one key in the middle of the first is hidden.
fn key_mask(batch: usize, keys: usize, none: bool) -> Result<Tensor> {
    let mut mask = vec![0u32; batch * keys];
    for (sequence, row) in mask.chunks_mut(keys).enumerate() {
        let text = match none && sequence + 1 == batch {
            true => 0,
            false => (keys - sequence % keys).max(1),
        };
        row[..text].fill(1);
    }
    if keys > 2 {
        mask[1] = 0;
    }
    Ok(Tensor::from_vec(mask, (batch, keys), &Device::Cpu)?)
}

#[test]
fn attentions() -> Result<()> {
    for [batch, queries, keys, heads, width] in ATTENTIONS {
        let all = heads * width;
        let vars = vars(&[
            ("q", &[batch, queries, all]),
            ("k", &[batch, keys, all]),
            ("v", &[batch, keys, all]),
        ])?;
        let masks = [
            None,
            Some(key_mask(batch, keys, false)?),
            Some(key_mask(batch, keys, true)?),
        ];
        for (number, mask) in masks.iter().enumerate() {
            for causal in [false, true] {
                if causal && queries != keys {
                    continue;
                }
                for p in [0.0, 0.2] {
                    let what = format!(
                        "attention {batch}x{queries}x{keys}, {heads} heads of {width}, mask {number}, causal {causal}, p {p}"
                    );
                    let small = batch * queries * all < 100;
                    twins(&what, &vars, small, &|vars, enter| {
                        let [q, k, v] = ["q", "k", "v"].map(|name| enter(vars.get(name)?));
                        let dropout = Dropout::new(p, "weights", &TRAINING);
                        let qkv = [&q?, &k?, &v?];
                        ops::attention(qkv, heads, mask.as_ref(), causal, &dropout)?.exit()
                    })?;
                }
            }
        }
    }
    Ok(())
}

/// One tensor as query, key and value, as in a model without its maps.
#[test]
fn an_attention_of_a_value_with_itself() -> Result<()> {
    let vars = vars(&[("x", &[2, 5, 6])])?;
    twins("self", &vars, true, &|vars, enter| {
        let x = enter(vars.get("x")?)?;
        let y = ops::attention([&x, &x, &x], 2, None, false, &Dropout::none())?;
        ops::attention([&y, &x, &y], 3, None, true, &Dropout::none())?.exit()
    })
}

#[test]
fn embeddings() -> Result<()> {
    let vars = vars(&[
        ("words", &[11, 4]),
        ("positions", &[6, 4]),
        ("types", &[2, 4]),
        ("weight", &[4]),
        ("bias", &[4]),
    ])?;
    // Ids that occur often, once, and not at all.
    let ids = Tensor::new(
        &[[3u32, 3, 10, 0], [3, 7, 0, 0], [1, 3, 3, 9]],
        &Device::Cpu,
    )?;
    let types = Tensor::new(&[[0u32, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1]], &Device::Cpu)?;
    twins("embedding", &vars, true, &|vars, enter| {
        let tables = EmbeddingTables {
            words: vars.get("words")?,
            positions: vars.get("positions")?,
            token_types: vars.get("types")?,
        };
        let dropout = Dropout::new(0.4, "embeddings", &TRAINING);
        let (weight, bias) = (vars.get("weight")?, vars.get("bias")?);
        let sum = match format!("{:?}", enter(tables.words)?).contains("composed") {
            true => {
                let [words, kinds] = [(&ids, "words"), (&types, "types")]
                    .map(|(ids, name)| ops::embedding(ids, &enter(vars.get(name)?)?)?.exit());
                let positions = vars.get("positions")?.narrow(0, 0, 4)?;
                Handle::composed(&(words? + kinds?)?.broadcast_add(&positions)?)
            }
            false => ops::embedding_sum(&ids, &types, &tables)?,
        };
        let y = ops::layer_norm(&sum, weight, bias, 1e-6)?;
        ops::dropout(&y, &dropout)?.exit()
    })?;
    twins("embedding of a handle", &vars, true, &|vars, enter| {
        let all = ["words", "positions", "types", "weight", "bias"];
        let rest = all.map(|name| vars.get(name)?.sqr()?.sum_all());
        let rest = rest.into_iter().reduce(|a, b| a? + b?);
        let rows = ops::embedding(&ids, &enter(vars.get("words")?)?)?.exit()?;
        Ok(rows.broadcast_add(&(rest.expect("five")? * 0.1)?)?)
    })
}

#[test]
fn rows_of_tables_times_a_number() -> Result<()> {
    let vars = vars(&[("words", &[11, 4]), ("positions", &[6, 4])])?;
    let ids = Tensor::new(&[[3u32, 3, 10], [3, 0, 0]], &Device::Cpu)?;
    // Not 0 to T - 1: behind padding.
    let places = Tensor::new(&[[2u32, 3, 4], [1, 1, 2]], &Device::Cpu)?;
    let scaled = |scales: [f64; 2]| {
        let (ids, places) = (&ids, &places);
        move |vars: &NamedVars, enter: Enter| {
            let (words, positions) = (vars.get("words")?, vars.get("positions")?);
            let [first, second] = scales;
            match format!("{:?}", enter(words)?).contains("composed") {
                true => {
                    let words = ops::embedding(ids, &enter(words)?)?.exit()?;
                    let positions = ops::embedding(places, &enter(positions)?)?.exit()?;
                    Ok(((words * first)? + (positions * second)?)?)
                }
                false => {
                    let parts: [(&Tensor, &Tensor, f64); 2] =
                        [(ids, words, first), (places, positions, second)];
                    ops::scaled_sum_of_rows(&parts)?.exit()
                }
            }
        }
    };
    twins("scaled rows", &vars, true, &scaled([4f64.sqrt(), 1.0]))?;
    twins("scaled rows, signs", &vars, true, &scaled([-1.7, 0.3]))?;
    // The same table twice: its gradient is the sum of both.
    twins("rows of one table", &vars, true, &|vars, enter| {
        let words = vars.get("words")?;
        match format!("{:?}", enter(words)?).contains("composed") {
            true => {
                let [one, other] =
                    [&ids, &places].map(|ids| ops::embedding(ids, &enter(words)?)?.exit());
                let rest = (vars.get("positions")?.sqr()?.sum_all()? * 0.1)?;
                Ok(((one? * 2.0)? + other?)?.broadcast_add(&rest)?)
            }
            false => {
                let parts: [(&Tensor, &Tensor, f64); 2] =
                    [(&ids, words, 2.0), (&places, words, 1.0)];
                let rest = (vars.get("positions")?.sqr()?.sum_all()? * 0.1)?;
                Ok(ops::scaled_sum_of_rows(&parts)?
                    .exit()?
                    .broadcast_add(&rest)?)
            }
        }
    })?;
    assert_says(
        ops::scaled_sum_of_rows(&[
            (&ids, vars.get("words")?, 1.0),
            (&places.narrow(1, 0, 2)?, vars.get("positions")?, 1.0),
        ]),
        &["ids of an embedding", "[2, 3]", "[2, 2]"],
    );
    assert_says(
        ops::scaled_sum_of_rows(&[(&ids, vars.get("positions")?, 1.0)]),
        &["10"],
    );
    Ok(())
}

/// A layer's norm of dropout(x) + r, with and without a bias and a mean, against its equation.
#[test]
fn norms_of_a_sum_with_a_residual() -> Result<()> {
    type Make = fn(&NamedVars) -> adahessian::Result<LayerNorm>;
    let weight =
        |vars: &NamedVars| Ok::<_, adahessian::Error>(vars.get("weight")?.as_tensor().clone());
    let layers: [(&str, bool, Make); 3] = [
        ("with a bias", true, |vars| {
            let [weight, bias] = [vars.get("weight")?, vars.get("bias")?];
            Ok(LayerNorm::new(
                weight.as_tensor().clone(),
                bias.as_tensor().clone(),
                0.1,
            ))
        }),
        ("without a bias", true, |vars| {
            Ok(LayerNorm::new_no_bias(
                vars.get("weight")?.as_tensor().clone(),
                0.1,
            ))
        }),
        ("root of the mean square", false, |vars| {
            Ok(LayerNorm::rms_norm(
                vars.get("weight")?.as_tensor().clone(),
                0.1,
            ))
        }),
    ];
    for (what, removes_mean, make) in layers {
        let mut shapes: Vec<(&str, &[usize])> =
            vec![("x", &[2, 3, 5]), ("r", &[2, 3, 5]), ("weight", &[5])];
        if what == "with a bias" {
            shapes.push(("bias", &[5]));
        }
        twins(what, &vars(&shapes)?, true, &|vars, enter| {
            let dropout = Dropout::new(0.3, "norm", &TRAINING);
            let (x, r) = (enter(vars.get("x")?)?, enter(vars.get("r")?)?);
            if !format!("{x:?}").contains("composed") {
                return make(vars)?.forward_residual(&x, &r, &dropout)?.exit();
            }
            let sum = (ops::dropout(&x, &dropout)?.exit()? + r.exit()?)?;
            let centred = match removes_mean {
                true => sum.broadcast_sub(&sum.mean_keepdim(2)?)?,
                false => sum,
            };
            let deviation = (centred.sqr()?.mean_keepdim(2)? + 0.1)?.sqrt()?;
            let y = centred
                .broadcast_div(&deviation)?
                .broadcast_mul(&weight(vars)?)?;
            match vars.get("bias") {
                Ok(bias) => Ok(y.broadcast_add(bias)?),
                Err(_) => Ok(y),
            }
        })?;
    }
    Ok(())
}

#[test]
fn first_positions() -> Result<()> {
    let vars = vars(&[("x", &[3, 4, 5])])?;
    twins("first position", &vars, true, &|vars, enter| {
        let first = ops::first_positions(&enter(vars.get("x")?)?, 1)?;
        ops::reshape(&first, &[3, 5])?.exit()
    })
}

#[test]
fn cross_entropies() -> Result<()> {
    for (rows, classes) in [(1, 2), (5, 3), (4, 100), (33, 17), (2, 3000)] {
        let vars = vars(&[("logits", &[rows, classes])])?;
        for smoothing in [0.0, 0.1] {
            for ignored in [false, true] {
                let targets = (0..rows).map(|i| match ignored && i % 3 == 1 {
                    true => -100,
                    false => (i * 7 % classes) as i64,
                });
                let targets = Tensor::from_vec(targets.collect(), rows, &Device::Cpu)?;
                let ignore = ignored.then_some(-100);
                let what = format!("cross entropy {rows}x{classes}, {smoothing}, {ignored}");
                twins(&what, &vars, rows * classes < 100, &|vars, enter| {
                    let logits = enter(vars.get("logits")?)?;
                    let loss = ops::cross_entropy(&logits, &targets, smoothing, ignore)?.exit()?;
                    // So that the second level sees a gradient other than 1.
                    Ok(loss.sqrt()?)
                })?;
            }
        }
    }
    Ok(())
}

/// Of sequences as of their rows, without a reshape.
#[test]
fn cross_entropies_of_sequences() -> Result<()> {
    let vars = vars(&[("logits", &[2, 3, 5])])?;
    let targets = Tensor::new(&[[0u32, 4, 2], [1, 9, 3]], &Device::Cpu)?;
    let rows = targets.flatten_all()?;
    twins("cross entropy of sequences", &vars, true, &|vars, enter| {
        let logits = enter(vars.get("logits")?)?;
        let loss = ops::cross_entropy(&logits, &targets, 0.1, Some(9))?.exit()?;
        Ok(loss.sqrt()?)
    })?;
    for enter in [Handle::enter, Handle::of_tensors, |x: &Tensor| {
        Ok(Handle::composed(x))
    }] {
        let logits = enter(vars.get("logits")?)?;
        let flat = enter(&vars.get("logits")?.flatten_to(1)?)?;
        let [a, b] = [(&logits, &targets), (&flat, &rows)].map(|(logits, targets)| {
            let loss = ops::cross_entropy(logits, targets, 0.1, Some(9))?.exit()?;
            Ok::<_, anyhow::Error>(loss.to_scalar::<f64>()?)
        });
        assert_eq!(a?, b?);
    }
    let logits = Handle::enter(vars.get("logits")?)?;
    let error = ops::cross_entropy(&logits, &rows, 0.1, Some(9));
    assert_says(error, &["[2, 3]", "[6]"]);
    Ok(())
}

/// Of the logits of a linear map, which are never there all at once.
#[test]
fn linear_cross_entropies() -> Result<()> {
    let shapes: [(&[usize], usize); 5] = [
        (&[1, 1], 2),
        (&[5, 4], 3),
        (&[2, 3, 4], 7),
        (&[33, 8], 17),
        (&[2, 5], 3000),
    ];
    for (shape, classes) in shapes {
        let (rows, width) = (&shape[..shape.len() - 1], shape[shape.len() - 1]);
        let count = rows.iter().product::<usize>();
        let all = vars(&[
            ("x", shape),
            ("weight", &[classes, width]),
            ("bias", &[classes]),
        ])?;
        for (smoothing, ignored, has_bias) in [
            (0.0, false, false),
            (0.1, true, true),
            (0.1, false, false),
            (0.0, true, true),
        ] {
            let targets = (0..count).map(|i| match ignored && i % 3 == 1 {
                true => -100,
                false => (i * 7 % classes) as i64,
            });
            let targets = Tensor::from_vec(targets.collect(), rows, &Device::Cpu)?;
            let ignore = ignored.then_some(-100);
            let what = format!("linear cross entropy {shape:?}, {smoothing}, {ignored}");
            let (used, _) = all.partition(|name| has_bias || name != "bias");
            twins(&what, &used, count * classes < 100, &|vars, enter| {
                let x = enter(vars.get("x")?)?;
                let weight = vars.get("weight")?.as_tensor();
                let bias = vars.get("bias").ok().map(|bias| bias.as_tensor());
                let loss =
                    ops::linear_cross_entropy(&x, weight, bias, &targets, smoothing, ignore)?;
                loss.exit()
            })?;
        }
    }
    Ok(())
}

/// What is not trained has no gradient made for it, and changes no other one.
#[test]
fn linear_cross_entropies_of_constants() -> Result<()> {
    let all = vars(&[("x", &[6, 4]), ("weight", &[5, 4]), ("bias", &[5])])?;
    let targets = Tensor::new(&[0u32, 4, 2, 1, 1, 3], &Device::Cpu)?;
    for trained in ["x", "weight", "bias", "x bias", "weight bias"] {
        let (used, rest) = all.partition(|name| trained.contains(name));
        twins(trained, &used, true, &|vars, enter| {
            let dtype = vars
                .iter()
                .next()
                .map_or(DType::F64, |(_, var)| var.dtype());
            let get = |name| match (vars.get(name), rest.get(name)) {
                (Ok(var), _) => Ok(var.as_tensor().clone()),
                (_, other) => Ok::<_, adahessian::Error>(other?.detach().to_dtype(dtype)?),
            };
            let (x, weight, bias) = (enter(&get("x")?)?, get("weight")?, get("bias")?);
            let loss = ops::linear_cross_entropy(&x, &weight, Some(&bias), &targets, 0.1, None)?;
            Ok(loss.exit()?.sqrt()?)
        })?;
    }
    Ok(())
}

/// In several parts as a map and a loss of its logits; with weights that are in use twice.
#[test]
fn linear_cross_entropies_in_parts() -> Result<()> {
    // Slopes are kept, and made again.
    parts_are_the_whole(300, 15_000)?;
    parts_are_the_whole(300, 28_100)
}

fn parts_are_the_whole(rows: usize, classes: usize) -> Result<()> {
    let vars = vars(&[("table", &[classes, 3]), ("map", &[3, 3])])?;
    let ids = Tensor::from_vec((0..rows as u32).collect(), rows, &Device::Cpu)?;
    let targets = Tensor::from_vec((0..rows as u32).rev().collect(), rows, &Device::Cpu)?;
    let hessian = |is_in_parts: bool| -> Result<Hessian> {
        let table = vars.get("table")?;
        let embedded = ops::embedding(&ids, &Handle::enter(table)?)?;
        let x = ops::linear(&embedded, vars.get("map")?, None, 1, Activation::Gelu)?;
        let loss = match is_in_parts {
            true => ops::linear_cross_entropy(&x, table, None, &targets, 0.1, None)?,
            false => {
                let logits = ops::linear(&x, table, None, 1, Activation::Identity)?;
                ops::cross_entropy(&logits, &targets, 0.1, None)?
            }
        };
        Ok(Hessian::of(&loss.exit()?.sqrt()?, &vars)?)
    };
    let (parts, whole) = (hessian(true)?, hessian(false)?);
    let z = VarVec::from_fn(&vars, |name, shape, dtype, device| {
        Stream::new(3, name, 1, 0).normal_tensor(shape, dtype, device)
    })?;
    for (a, b) in [
        (parts.gradient()?, whole.gradient()?),
        (parts.apply(&z)?, whole.apply(&z)?),
    ] {
        for ((name, a), (_, b)) in a.iter().zip(b.iter()) {
            assert_close(name, a, b, 1e-12)?;
        }
    }
    Ok(())
}

#[test]
fn squared_errors() -> Result<()> {
    for rows in [1, 2, 17] {
        let vars = vars(&[("p", &[rows])])?;
        let target = random("target", &[rows])?;
        twins(&format!("mse {rows}"), &vars, true, &|vars, enter| {
            let p = vars.get("p")?;
            let target = target.to_dtype(p.dtype())?;
            Ok(ops::mse(&enter(p)?, &target)?.exit()?.sqrt()?)
        })?;
    }
    let p = Handle::enter(&random("p", &[3])?)?;
    let error = ops::mse(&p, &random("t", &[3, 1])?);
    assert_says(error, &["[3]", "[3, 1]"]);
    Ok(())
}

/// x + dropout(f(LayerNorm(x))), twice: a network that normalises first.
#[test]
fn residuals_before_the_norm() -> Result<()> {
    let vars = vars(&[
        ("x", &[2, 3, 5]),
        ("w", &[5, 5]),
        ("b", &[5]),
        ("scale", &[5]),
        ("shift", &[5]),
    ])?;
    for p in [0.0, 0.4] {
        twins(&format!("residual, {p}"), &vars, true, &|vars, enter| {
            let get = |name: &str| vars.get(name).map(|v| v.as_tensor().clone());
            let mut x = enter(&get("x")?)?;
            for layer in ["first", "second"] {
                let dropout = Dropout::new(p, layer, &TRAINING);
                let (scale, shift) = (get("scale")?, get("shift")?);
                let h = dropped_norm(&x, None, &Dropout::none(), &scale, &shift, 1e-5)?;
                let f = ops::linear(&h, &get("w")?, Some(&get("b")?), 1, Activation::Gelu)?;
                x = ops::residual(&x, &f, &dropout)?;
            }
            x.exit()
        })?;
    }
    let (x, f) = (random("x", &[2, 3])?, random("f", &[3, 2])?);
    let error = ops::residual(&Handle::enter(&x)?, &Handle::enter(&f)?, &Dropout::none());
    assert_says(error, &["[2, 3]", "[3, 2]"]);
    Ok(())
}

/// A layer of BERT with everything in it, against finite differences with its dropout masks fixed.
#[test]
fn a_whole_layer_with_dropout() -> Result<()> {
    let vars = vars(&[
        ("x", &[2, 4, 6]),
        ("q", &[6, 6]),
        ("k", &[6, 3]),
        ("v", &[6, 6]),
        ("o", &[6, 6]),
        ("wide", &[8, 6]),
        ("narrow", &[6, 8]),
        ("b6", &[6]),
        ("b8", &[8]),
        ("w1", &[6]),
        ("w2", &[6]),
    ])?;
    let mask = key_mask(2, 4, false)?;
    twins("layer", &vars, true, &|vars, enter| {
        let x = enter(vars.get("x")?)?;
        let map = |x: &Handle, name: &str, bias: &str, groups, activation| {
            let bias = Some(vars.get(bias)?.as_tensor());
            ops::linear(x, vars.get(name)?, bias, groups, activation)
        };
        let plain = Activation::Identity;
        let q = map(&x, "q", "b6", 1, plain)?;
        let k = map(&x, "k", "b6", 2, plain)?;
        let v = map(&x, "v", "b6", 1, plain)?;
        let weights = Dropout::new(0.1, "weights", &TRAINING);
        let context = ops::attention([&q, &k, &v], 2, Some(&mask), false, &weights)?;
        let y = map(&context, "o", "b6", 1, plain)?;
        let norm = |y: &Handle, x: &Handle, place: &str, weight: &str| {
            let dropout = Dropout::new(0.1, place, &TRAINING);
            let (weight, bias) = (vars.get(weight)?, vars.get("b6")?);
            dropped_norm(y, Some(x), &dropout, weight, bias, 1e-6)
        };
        let y = norm(&y, &x, "a", "w1")?;
        let z = map(&y, "wide", "b8", 1, Activation::Gelu)?;
        let z = map(&z, "narrow", "b6", 1, plain)?;
        let z = norm(&z, &y, "b", "w2")?;
        Ok(ops::first_positions(&z, 1)?.exit()?.squeeze(1)?)
    })
}

#[test]
fn the_number_of_threads_changes_no_bit() -> Result<()> {
    let all = to(
        &vars(&[("x", &[3, 65, 96]), ("weight", &[96, 24]), ("bias", &[96])])?,
        DType::F32,
    )?;
    let run = |threads: usize| -> Result<Vec<Vec<f32>>> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()?;
        pool.install(|| {
            let x = Handle::enter(all.get("x")?)?;
            let bias = Some(all.get("bias")?.as_tensor());
            let y = ops::linear(&x, all.get("weight")?, bias, 4, Activation::Gelu)?;
            let y = ops::attention([&y, &x, &y], 4, None, false, &Dropout::none())?;
            let bias = all.get("bias")?;
            let y = dropped_norm(&y, Some(&x), &Dropout::none(), bias, bias, 1e-6)?;
            let hessian = Hessian::of(&loss(&y.exit()?)?, &all)?;
            let z = VarVec::from_fn(&all, |name, shape, dtype, device| {
                adahessian::random::Stream::new(1, name, 0, 0).normal_tensor(shape, dtype, device)
            })?;
            let products = adahessian::LinearOperator::apply(&hessian, &z)?;
            let numbers = products
                .iter()
                .map(|(_, p)| Ok(p.flatten_all()?.to_vec1()?));
            numbers.collect::<Result<_>>()
        })
    };
    let one = run(1)?;
    assert!(one == run(2)? && one == run(4)?);
    Ok(())
}

/// A guard that looks for numbers that are not finite must see them behind every operation.
#[test]
fn not_a_number_is_not_swallowed() -> Result<()> {
    let kinds = [DType::F32, DType::F64].map(|dtype| [(dtype, FUSED), (dtype, COMPOSED)]);
    for (dtype, enter) in kinds.into_iter().flatten() {
        let nan = Tensor::full(f32::NAN, (2, 3, 4), &Device::Cpu)?.to_dtype(dtype)?;
        let ones = Tensor::ones((2, 3, 4), dtype, &Device::Cpu)?;
        let weight = Tensor::ones((4, 4), dtype, &Device::Cpu)?;
        let (nan, ones) = (enter(&nan)?, enter(&ones)?);
        let norm = weight.get(0)?;
        let none = Dropout::none();
        let mut results = vec![
            ops::attention([&nan, &ones, &ones], 2, None, true, &none)?,
            ops::attention([&ones, &ones, &nan], 2, None, false, &none)?,
            dropped_norm(&nan, None, &none, &norm, &norm, 1e-6)?,
        ];
        for activation in [Activation::Gelu, Activation::Tanh, Activation::Relu] {
            results.push(ops::linear(&nan, &weight, None, 1, activation)?);
        }
        for result in results {
            let values = result.exit()?.flatten_all()?.to_dtype(DType::F64)?;
            assert!(values.to_vec1::<f64>()?.iter().all(|x| x.is_nan()));
        }
    }
    Ok(())
}

#[test]
fn what_does_not_fit_is_refused() -> Result<()> {
    let handle = |shape: &[usize]| -> Result<Handle> {
        Ok(Handle::enter(&Tensor::zeros(
            shape,
            DType::F32,
            &Device::Cpu,
        )?)?)
    };
    let tensor = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu);
    let x = handle(&[2, 3, 4])?;
    let none = Dropout::none();
    assert_says(
        ops::linear(&x, &tensor(&[5, 3])?, None, 1, Activation::Identity),
        &["input of a linear map"],
    );
    assert_says(
        dropped_norm(&x, None, &none, &tensor(&[3])?, &tensor(&[3])?, 1e-6),
        &["layer norm"],
    );
    assert_says(
        dropped_norm(
            &x,
            Some(&handle(&[2, 4])?),
            &none,
            &tensor(&[4])?,
            &tensor(&[4])?,
            1e-6,
        ),
        &["residual"],
    );
    assert_says(
        ops::attention([&x, &x, &x], 3, None, false, &none),
        &["heads"],
    );
    assert_says(
        ops::attention([&x, &handle(&[2, 5, 4])?, &x], 2, None, false, &none),
        &["keys and values"],
    );
    let empty = handle(&[2, 0, 4])?;
    assert_says(
        ops::attention([&empty, &x, &x], 2, None, false, &none),
        &["queries"],
    );
    assert_says(
        ops::dropout(&x, &Dropout::new(1.0, "x", &TRAINING)),
        &["dropout probability"],
    );
    let targets = Tensor::new(&[0u32, 9], &Device::Cpu)?;
    assert_says(
        ops::cross_entropy(&handle(&[2, 3])?, &targets, 0.0, None),
        &["9 in row 1"],
    );
    let of = |weight: &[usize], bias: &[usize], targets: &Tensor, smoothing: f64| {
        let (x, weight, bias) = (handle(&[2, 4])?, tensor(weight)?, tensor(bias)?);
        let loss = ops::linear_cross_entropy(&x, &weight, Some(&bias), targets, smoothing, None);
        anyhow::Ok(loss?.exit()?)
    };
    let fitting = Tensor::new(&[0u32, 2], &Device::Cpu)?;
    assert!(of(&[3, 4], &[3], &fitting, 0.0).is_ok());
    assert_says(of(&[3, 4], &[3], &targets, 0.0), &["9 in row 1"]);
    assert_says(of(&[3, 5], &[3], &fitting, 0.0), &["[3, 4]", "[3, 5]"]);
    assert_says(of(&[3, 4], &[4], &fitting, 0.0), &["bias", "[3]", "[4]"]);
    assert_says(of(&[3, 4], &[3], &fitting, 1.5), &["smoothing", "1.5"]);
    let three = Tensor::new(&[0u32, 2, 1], &Device::Cpu)?;
    assert_says(of(&[3, 4], &[3], &three, 0.0), &["[2]", "[3]"]);
    Ok(())
}

#[test]
fn handles_are_reshaped_narrowed_and_joined() -> Result<()> {
    let vars = vars(&[("x", &[2, 3, 4]), ("y", &[2, 5, 4]), ("z", &[3, 8])])?;
    for dim in 0..3 {
        let (used, _) = vars.partition(|name| name == "x");
        twins(&format!("narrow {dim}"), &used, true, &|vars, enter| {
            ops::narrow(&enter(vars.get("x")?)?, dim, 1, 1)?.exit()
        })?;
        twins(&format!("cat {dim}"), &used, true, &|vars, enter| {
            let x = enter(vars.get("x")?)?;
            ops::cat(&[&x, &x], dim)?.exit()
        })?;
    }
    twins("parts of several", &vars, true, &|vars, enter| {
        let [x, y, z] = ["x", "y", "z"].map(|name| enter(vars.get(name)?));
        let z = ops::reshape(&z?, &[2, 3, 4])?;
        let all = ops::cat(&[&x?, &y?, &z], 1)?; // [2, 11, 4]
        let part = ops::narrow(&all, 1, 2, 7)?;
        ops::narrow(&ops::reshape(&part, &[14, 4])?, 1, 1, 3)?.exit()
    })?;
    let x = Handle::enter(&random("x", &[2, 3])?)?;
    assert_says(ops::reshape(&x, &[5]), &["6 entries", "[5]"]);
    assert_says(ops::narrow(&x, 2, 0, 1), &["dimension", "below 2"]);
    assert_says(ops::narrow(&x, 1, 2, 2), &["range", "3 there are"]);
    let y = Handle::enter(&random("y", &[4, 2])?)?;
    assert_says(ops::cat(&[&x, &y], 0), &["part to join", "[4, 2]"]);
    assert_says(ops::cat::<Handle>(&[], 0), &["at least one"]);
    Ok(())
}

#[test]
fn activations_entry_by_entry() -> Result<()> {
    for shape in [&[7][..], &[3, 5], &[40, 500]] {
        let vars = vars(&[("x", shape)])?;
        for activation in [
            Activation::Identity,
            Activation::Gelu,
            Activation::Relu,
            Activation::Tanh,
            Activation::Silu,
        ] {
            let smooth = activation != Activation::Relu && shape.len() < 3 && shape[0] < 10;
            let what = format!("{activation} of {shape:?}");
            twins(&what, &vars, smooth, &|vars, enter| {
                ops::activation(&enter(vars.get("x")?)?, activation)?.exit()
            })?;
        }
    }
    Ok(())
}
