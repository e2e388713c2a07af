//! The twice differentiable operations: values against plain loops, gradients against the loss,
//! Hessian-vector products against the gradients.

use adahessian::ops::{self, Activation, Dropout, EmbeddingTables, Mode};
use adahessian::random::Stream;
use adahessian::{Error, NamedVars, Result, check};
use candle_core::{CpuStorage, CustomOp1, D, DType, Device, Layout, Shape, Tensor, Var};

const CPU: Device = Device::Cpu;
const TRAIN: Mode = Mode::Train {
    seed: 3,
    step: 7,
    micro: 1,
};

fn normal(name: &str, shape: &[usize]) -> Tensor {
    let stream = Stream::new(11, name, 0, 0);
    stream.normal_tensor(shape, DType::F64, &CPU).unwrap()
}

fn ids(values: &[u32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape, &CPU).unwrap()
}

fn vec(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_close(what: &str, got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (a, b)) in got.iter().zip(expected).enumerate() {
        assert!(
            (a - b).abs() <= 1e-12 * b.abs().max(1.0),
            "{what}[{i}]: {a} instead of {b}"
        );
    }
}

/// Any smooth function with a full Hessian.
fn to_loss(output: &Tensor) -> Result<Tensor> {
    let weights = normal("loss", output.dims());
    Ok((output * weights)?.tanh()?.sum_all()?)
}

type Op = Box<dyn Fn(&[Tensor]) -> Result<Tensor>>;

/// An operation and the shapes of its differentiable arguments.
fn row(
    name: &str,
    shapes: &[&[usize]],
    op: impl Fn(&[Tensor]) -> Result<Tensor> + 'static,
) -> (String, Vec<Vec<usize>>, Op) {
    (
        name.into(),
        shapes.iter().map(|s| s.to_vec()).collect(),
        Box::new(op),
    )
}

fn attention_row(
    name: &str,
    shape: [usize; 4],
    mask: Option<Vec<u32>>,
    causal: bool,
    p: f64,
) -> (String, Vec<Vec<usize>>, Op) {
    let op = move |a: &[Tensor]| {
        let mask = mask.as_ref().map(|m| ids(m, &[shape[0], shape[2]]));
        attention(
            &a[0],
            &a[1],
            &a[2],
            mask.as_ref(),
            causal,
            &Dropout::new(p, "weights", &TRAIN),
        )
    };
    row(name, &[&shape, &shape, &shape], op)
}

fn linear(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    ops::linear(x, w, b, 1, Activation::Identity)
}

fn grouped_linear(x: &Tensor, w: &Tensor, b: Option<&Tensor>, groups: usize) -> Result<Tensor> {
    ops::linear(x, w, b, groups, Activation::Identity)
}

/// On heads that stand apart: [B, heads, T, d].
fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
    causal: bool,
    dropout: &Dropout,
) -> Result<Tensor> {
    let (batch, heads, queries, width) = q.dims4()?;
    let joined = |x: &Tensor| -> Result<Tensor> {
        let length = x.dim(2)?;
        let x = x.transpose(1, 2)?.contiguous()?;
        Ok(x.reshape((batch, length, heads * width))?)
    };
    let y = ops::attention(
        [&joined(q)?, &joined(k)?, &joined(v)?],
        heads,
        mask,
        causal,
        dropout,
    )?;
    let y = y.reshape((batch, queries, heads, width))?;
    Ok(y.transpose(1, 2)?.contiguous()?)
}

/// BERT's first layer.
fn embedding_layer_norm(
    ids: &Tensor,
    types: &Tensor,
    tables: &EmbeddingTables,
    norm: [&Tensor; 2],
    eps: f64,
    dropout: &Dropout,
) -> Result<Tensor> {
    let sum = ops::embedding_sum(ids, types, tables)?;
    ops::dropout(&ops::layer_norm(&sum, norm[0], norm[1], eps)?, dropout)?.exit()
}

fn grouped_row(
    groups: usize,
    x: &'static [usize],
    outputs: usize,
    pointwise: bool,
) -> (String, Vec<Vec<usize>>, Op) {
    let part = x[x.len() - 1] / groups;
    let weight: Vec<usize> = if pointwise {
        vec![outputs, part, 1]
    } else {
        vec![outputs, part]
    };
    let name = format!("grouped_linear {x:?} {weight:?} groups {groups}");
    row(&name, &[x, &weight, &[outputs]], move |a| {
        grouped_linear(&a[0], &a[1], Some(&a[2]), groups)
    })
}

fn table() -> Vec<(String, Vec<Vec<usize>>, Op)> {
    let mut rows = vec![
        row("linear 2-D", &[&[5, 3], &[4, 3], &[4]], |a| {
            linear(&a[0], &a[1], Some(&a[2]))
        }),
        row("linear 3-D, no bias", &[&[2, 3, 5], &[7, 5]], |a| {
            linear(&a[0], &a[1], None)
        }),
        row("linear, one vector", &[&[3], &[2, 3], &[2]], |a| {
            linear(&a[0], &a[1], Some(&a[2]))
        }),
        row("linear, transposed input", &[&[2, 5, 3], &[4, 5]], |a| {
            linear(&a[0].transpose(1, 2)?, &a[1], None)
        }),
        row(
            "grouped, transposed input",
            &[&[2, 6, 3], &[4, 3], &[4]],
            |a| grouped_linear(&a[0].transpose(1, 2)?, &a[1], Some(&a[2]), 2),
        ),
        grouped_row(1, &[1, 3, 4], 5, true),
        grouped_row(2, &[2, 3, 6], 4, false),
        grouped_row(4, &[1, 7, 8], 12, true),
        grouped_row(3, &[3, 2, 1, 9], 3, true),
        row("gelu", &[&[3, 5]], |a| {
            ops::activation(&a[0], Activation::Gelu)
        }),
        row("tanh", &[&[7]], |a| {
            ops::activation(&a[0], Activation::Tanh)
        }),
        row(
            "linear + gelu in groups",
            &[&[2, 3, 4], &[6, 2], &[6]],
            |a| ops::linear(&a[0], &a[1], Some(&a[2]), 2, Activation::Gelu),
        ),
        row("relu (no entry near 0)", &[&[3, 4]], |a| {
            let away = a[0].sin()?; // below 1
            let away = (away + normal("signs", &[3, 4]).sign()?.affine(3.0, 0.0)?)?;
            ops::activation(&away, Activation::Relu)
        }),
        row("layer_norm", &[&[2, 3, 5], &[5], &[5]], |a| {
            ops::layer_norm(&a[0], &a[1], &a[2], 1e-12)
        }),
        row("layer_norm, one row", &[&[1, 4], &[4], &[4]], |a| {
            ops::layer_norm(&a[0], &a[1], &a[2], 1e-5)
        }),
        row(
            "residual_layer_norm with dropout",
            &[&[2, 3, 5], &[2, 3, 5], &[5], &[5]],
            |a| {
                ops::residual_layer_norm(
                    &a[0],
                    &a[1],
                    &Dropout::new(0.3, "x", &TRAIN),
                    &a[2],
                    &a[3],
                    1e-12,
                )
            },
        ),
        row(
            "residual_layer_norm of itself",
            &[&[1, 3, 5], &[5], &[5]],
            |a| {
                ops::residual_layer_norm(
                    &a[0],
                    &a[0].tanh()?,
                    &Dropout::none(),
                    &a[1],
                    &a[2],
                    1e-12,
                )
            },
        ),
        row("embedding, repeated ids", &[&[5, 3]], |a| {
            ops::embedding(&ids(&[1, 4, 1, 0, 1, 2], &[2, 3]), &a[0])
        }),
        row("embedding, strided ids", &[&[5, 3]], |a| {
            ops::embedding(&ids(&[1, 4, 1, 0, 1, 2], &[2, 3]).t()?, &a[0])
        }),
        row(
            "embedding_layer_norm",
            &[&[6, 4], &[5, 4], &[2, 4], &[4], &[4]],
            |a| {
                let tables = EmbeddingTables {
                    words: &a[0],
                    positions: &a[1],
                    token_types: &a[2],
                };
                let (words, types) = (
                    ids(&[1, 5, 5, 0, 2, 2], &[2, 3]),
                    ids(&[0, 0, 1, 0, 1, 1], &[2, 3]),
                );
                let dropout = Dropout::new(0.2, "e", &TRAIN);
                embedding_layer_norm(&words, &types, &tables, [&a[3], &a[4]], 1e-12, &dropout)
            },
        ),
        row("dropout", &[&[4, 9]], |a| {
            ops::dropout(&a[0], &Dropout::new(0.4, "d", &TRAIN))
        }),
        row("mse", &[&[5]], |a| ops::mse(&a[0], &normal("target", &[5]))),
        attention_row("attention", [2, 3, 4, 5], None, false, 0.0),
        attention_row(
            "attention, batch 1, one head, one position",
            [1, 1, 1, 3],
            None,
            false,
            0.0,
        ),
        attention_row(
            "attention, padding",
            [2, 2, 3, 2],
            Some(vec![1, 1, 0, 1, 0, 0]),
            false,
            0.0,
        ),
        attention_row(
            "attention, a row of padding only",
            [2, 1, 3, 2],
            Some(vec![0, 0, 0, 1, 1, 0]),
            false,
            0.0,
        ),
        attention_row("attention, causal", [1, 2, 5, 3], None, true, 0.0),
        attention_row(
            "attention, causal, padding first",
            [2, 2, 3, 2],
            Some(vec![0, 1, 1, 0, 0, 1]),
            true,
            0.0,
        ),
        attention_row(
            "attention, dropout",
            [2, 2, 3, 3],
            Some(vec![1, 1, 0, 1, 1, 1]),
            false,
            0.25,
        ),
    ];
    for (smoothing, ignore) in [(0.0, None), (0.1, None), (0.0, Some(2)), (0.3, Some(2))] {
        let name = format!("cross_entropy, smoothing {smoothing}, ignoring {ignore:?}");
        rows.push(row(&name, &[&[4, 3]], move |a| {
            ops::cross_entropy(&a[0], &ids(&[2, 0, 1, 2], &[4]), smoothing, ignore)
        }));
    }
    rows
}

#[test]
fn gradients_and_hessians_of_every_operation() {
    for (name, shapes, op) in table() {
        let var = |(i, shape): (usize, &Vec<usize>)| {
            Var::from_tensor(&normal(&format!("{name}/{i}"), shape)).unwrap()
        };
        let vars = NamedVars::from(shapes.iter().enumerate().map(var).collect::<Vec<_>>());
        let arguments: Vec<Tensor> = vars.iter().map(|(_, v)| v.as_tensor().clone()).collect();
        let loss = || to_loss(&op(&arguments)?);
        check::all_reached(&vars, loss).unwrap_or_else(|e| panic!("{name}: {e}"));
        check::gradient(&vars, 1e-7, loss).unwrap_or_else(|e| panic!("{name}: {e}"));
        check::hessian(&vars, 1e-7, loss).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
fn grouped_linear_is_a_sum_over_its_group() {
    for (groups, rows, inputs, outputs) in [(1, 4, 3, 5), (2, 3, 6, 4), (4, 5, 8, 12)] {
        let part = inputs / groups;
        let (x, w, b) = (
            normal("x", &[rows, inputs]),
            normal("w", &[outputs, part]),
            normal("b", &[outputs]),
        );
        let (xs, ws, bs) = (vec(&x), vec(&w), vec(&b));
        let mut expected = Vec::new();
        for row in 0..rows {
            for o in 0..outputs {
                let first = o / (outputs / groups) * part;
                let terms = (0..part).map(|i| xs[row * inputs + first + i] * ws[o * part + i]);
                expected.push(bs[o] + terms.sum::<f64>());
            }
        }
        let flat = grouped_linear(&x, &w, Some(&b), groups).unwrap();
        assert_close("flat", &vec(&flat), &expected);
        let batch = x.reshape((1, rows, inputs)).unwrap();
        let kernel = w.reshape((outputs, part, 1)).unwrap();
        let y = grouped_linear(&batch, &kernel, Some(&b), groups).unwrap();
        assert_eq!(y.dims(), [1, rows, outputs]);
        assert_close("as a convolution", &vec(&y), &expected);
    }
}

/// Simpson's rule on 2/√π ∫ exp(-t²).
fn erf(x: f64) -> f64 {
    let (n, f) = (2000, |t: f64| (-t * t).exp());
    let h = x / f64::from(n);
    let inner = (1..n).map(|i| f64::from(2 + 2 * (i % 2)) * f(f64::from(i) * h));
    std::f64::consts::FRAC_2_SQRT_PI * h / 3.0 * (f(0.0) + f(x) + inner.sum::<f64>())
}

#[test]
fn activations_have_their_textbook_values() {
    let x: [f64; 7] = [-3.0, -1.0, -0.1, 0.0, 0.5, 1.0, 4.0];
    let tensor = Tensor::new(&x, &CPU).unwrap();
    let values = |a: Activation| vec(&ops::activation(&tensor, a).unwrap());
    let map = |f: fn(f64) -> f64| x.iter().map(|v| f(*v)).collect::<Vec<_>>();
    assert_close(
        "gelu",
        &values(Activation::Gelu),
        &map(|v| 0.5 * v * (1.0 + erf(v / 2f64.sqrt()))),
    );
    assert_close("relu", &values(Activation::Relu), &map(|v| v.max(0.0)));
    assert_close("tanh", &values(Activation::Tanh), &map(f64::tanh));
    assert_close("identity", &values(Activation::Identity), &x);
    for name in ["gelu", "relu", "tanh", "silu", "linear"] {
        assert_eq!(name.parse::<Activation>().unwrap().to_string(), name);
    }
    assert!(
        "gelu_new"
            .parse::<Activation>()
            .unwrap_err()
            .to_string()
            .contains("gelu_new")
    );
}

fn layer_norm_of(row: &[f64], w: &[f64], b: &[f64], eps: f64) -> Vec<f64> {
    let n = row.len() as f64;
    let mean = row.iter().sum::<f64>() / n;
    let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    let unit = row.iter().map(|x| (x - mean) / (variance + eps).sqrt());
    unit.zip(w).zip(b).map(|((u, w), b)| u * w + b).collect()
}

#[test]
fn layer_norms_and_embeddings_row_by_row() {
    let (words, positions, types) = (
        normal("words", &[6, 4]),
        normal("positions", &[5, 4]),
        normal("types", &[2, 4]),
    );
    let (w, b) = (normal("w", &[4]), normal("b", &[4]));
    let (tokens, kinds): ([u32; 6], [u32; 6]) = ([1, 5, 5, 0, 2, 2], [0, 0, 1, 0, 1, 1]);
    let mut expected = Vec::new();
    let row = |t: &Tensor, i: u32| vec(&t.get(i as usize).unwrap());
    for i in 0..6 {
        let sum = row(&words, tokens[i])
            .into_iter()
            .zip(row(&types, kinds[i]))
            .zip(row(&positions, i as u32 % 3));
        let sum: Vec<f64> = sum.map(|((a, b), c)| a + b + c).collect();
        expected.extend(layer_norm_of(&sum, &vec(&w), &vec(&b), 1e-6));
    }
    let tables = EmbeddingTables {
        words: &words,
        positions: &positions,
        token_types: &types,
    };
    let (tokens, kinds) = (ids(&tokens, &[2, 3]), ids(&kinds, &[2, 3]));
    let y =
        embedding_layer_norm(&tokens, &kinds, &tables, [&w, &b], 1e-6, &Dropout::none()).unwrap();
    assert_eq!(y.dims(), [2, 3, 4]);
    assert_close("embedding_layer_norm", &vec(&y), &expected);

    let (x, r) = (normal("x", &[3, 4]), normal("r", &[3, 4]));
    let sum = (&x + &r).unwrap();
    let expected: Vec<f64> = (0..3)
        .flat_map(|i| layer_norm_of(&row(&sum, i), &vec(&w), &vec(&b), 0.1))
        .collect();
    let y = ops::residual_layer_norm(&x, &r, &Dropout::none(), &w, &b, 0.1).unwrap();
    assert_close("residual_layer_norm", &vec(&y), &expected);
    let short = ops::layer_norm(
        &x.to_dtype(DType::BF16).unwrap(),
        &w.to_dtype(DType::BF16).unwrap(),
        &b.to_dtype(DType::BF16).unwrap(),
        1e-6,
    );
    assert_eq!(short.unwrap().dtype(), DType::BF16);
}

/// One head of one sequence, query by query; `visible(i, j)`.
fn attention_of(
    q: &[Vec<f64>],
    k: &[Vec<f64>],
    v: &[Vec<f64>],
    visible: impl Fn(usize, usize) -> bool,
) -> Vec<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let width = q[0].len();
    let mut all = Vec::new();
    for (i, q) in q.iter().enumerate() {
        let seen: Vec<usize> = (0..k.len()).filter(|j| visible(i, *j)).collect();
        let weights: Vec<f64> = seen
            .iter()
            .map(|j| (dot(q, &k[*j]) / (width as f64).sqrt()).exp())
            .collect();
        let total: f64 = weights.iter().sum();
        all.extend((0..width).map(|c| {
            let terms = seen.iter().zip(&weights).map(|(j, w)| w * v[*j][c]);
            if seen.is_empty() {
                0.0
            } else {
                terms.sum::<f64>() / total
            }
        }));
    }
    all
}

#[test]
fn attention_query_by_query() {
    let (batch, heads, length, width) = (3, 2, 4, 3);
    let masks = [1u32, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0]; // the last sequence is padding only
    let draw = |name: &str| normal(name, &[batch, heads, length, width]);
    let (q, k, v) = (draw("q"), draw("k"), draw("v"));
    let part = |t: &Tensor, b: usize, h: usize| {
        t.get(b).unwrap().get(h).unwrap().to_vec2::<f64>().unwrap()
    };
    for (masked, causal) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut expected = Vec::new();
        for b in 0..batch {
            for h in 0..heads {
                let visible = |i: usize, j: usize| {
                    (!causal || j <= i) && (!masked || masks[b * length + j] == 1)
                };
                expected.extend(attention_of(
                    &part(&q, b, h),
                    &part(&k, b, h),
                    &part(&v, b, h),
                    visible,
                ));
            }
        }
        let mask = masked.then(|| ids(&masks, &[batch, length]));
        let y = attention(&q, &k, &v, mask.as_ref(), causal, &Dropout::none()).unwrap();
        assert_close("attention", &vec(&y), &expected);
        let f32 = |t: &Tensor| t.to_dtype(DType::F32).unwrap();
        let short = attention(
            &f32(&q),
            &f32(&k),
            &f32(&v),
            mask.as_ref(),
            causal,
            &Dropout::none(),
        );
        let short = vec(&short.unwrap().to_dtype(DType::F64).unwrap());
        assert!(
            short
                .iter()
                .zip(&expected)
                .all(|(a, b)| (a - b).abs() < 1e-5)
        );
    }
    // Other numbers of keys than queries.
    let few = k.narrow(2, 0, 2).unwrap();
    let y = attention(
        &q,
        &few,
        &v.narrow(2, 0, 2).unwrap(),
        None,
        false,
        &Dropout::none(),
    )
    .unwrap();
    assert_eq!(y.dims(), q.dims());
    let error = attention(&q, &few, &few, None, true, &Dropout::none());
    assert!(error.unwrap_err().to_string().contains("causal"));
    assert!(attention(&q, &k, &few, None, false, &Dropout::none()).is_err());
    assert!(
        attention(
            &q,
            &k,
            &v,
            Some(&ids(&[1, 1], &[1, 2])),
            false,
            &Dropout::none()
        )
        .is_err()
    );
}

#[test]
fn cross_entropy_row_by_row() {
    let logits = normal("logits", &[4, 3]);
    let rows = logits.to_vec2::<f64>().unwrap();
    let targets = [2u32, 0, 1, 2];
    for (smoothing, ignore) in [(0.0, None), (0.1, None), (0.25, Some(2i64)), (1.0, Some(0))] {
        let (mut sum, mut count) = (0.0, 0.0);
        for (row, target) in rows.iter().zip(targets) {
            if Some(i64::from(target)) == ignore {
                continue;
            }
            let log_total = row.iter().map(|x| x.exp()).sum::<f64>().ln();
            for (class, x) in row.iter().enumerate() {
                let q = smoothing / 3.0
                    + if class == target as usize {
                        1.0 - smoothing
                    } else {
                        0.0
                    };
                sum += q * (log_total - x);
            }
            count += 1.0;
        }
        let loss = ops::cross_entropy(&logits, &ids(&targets, &[4]), smoothing, ignore).unwrap();
        assert_close("cross entropy", &vec(&loss), &[sum / count]);
        let signed = ids(&targets, &[4]).to_dtype(DType::I64).unwrap();
        let again = ops::cross_entropy(&logits, &signed, smoothing, ignore).unwrap();
        assert_eq!(vec(&again), vec(&loss));
    }
    // Logits far out do not overflow.
    let far = Tensor::new(&[[1e4f64, -1e4], [0.0, 800.0]], &CPU).unwrap();
    assert_close(
        "far",
        &vec(&ops::cross_entropy(&far, &ids(&[1, 1], &[2]), 0.0, None).unwrap()),
        &[1e4],
    );
}

#[test]
fn losses_refuse_what_does_not_fit_and_say_where() {
    let logits = normal("logits", &[3, 2]);
    let text = |targets: &Tensor, smoothing, ignore| {
        ops::cross_entropy(&logits, targets, smoothing, ignore)
            .unwrap_err()
            .to_string()
    };
    let wrong = text(&ids(&[0, 1, 2], &[3]), 0.0, None);
    assert!(
        wrong.contains("2 in row 2") && wrong.contains("0 to 1"),
        "{wrong}"
    );
    let negative = Tensor::new(&[0i64, -100, -1], &CPU).unwrap();
    assert!(text(&negative, 0.0, Some(-100)).contains("-1 in row 2"));
    assert!(text(&ids(&[1, 1, 1], &[3]), 0.0, Some(1)).contains("all of them ignored"));
    assert!(text(&ids(&[0, 1], &[2]), 0.0, None).contains("[3]"));
    assert!(text(&normal("t", &[3]), 0.0, None).contains("integers"));
    assert!(text(&ids(&[0, 1, 1], &[3]), 1.5, None).contains("1.5"));
    assert!(ops::cross_entropy(&normal("l", &[3]), &ids(&[0], &[1]), 0.0, None).is_err());

    let (p, t) = (normal("p", &[3]), normal("t", &[3]));
    let expected = vec(&p)
        .iter()
        .zip(vec(&t))
        .map(|(a, b)| (a - b).powi(2))
        .sum::<f64>()
        / 3.0;
    assert_close("mse", &vec(&ops::mse(&p, &t).unwrap()), &[expected]);
    assert!(
        ops::mse(&p, &t.unsqueeze(1).unwrap())
            .unwrap_err()
            .to_string()
            .contains("[3, 1]")
    );
    let none = Tensor::zeros(0, DType::F64, &CPU).unwrap();
    assert!(ops::mse(&none, &none).is_err());
}

#[test]
fn an_operand_of_another_type_is_named() {
    let x = normal("x", &[2, 6]).to_dtype(DType::F32).unwrap();
    let mixed = linear(&x, &normal("w", &[4, 6]), None);
    let error = mixed.unwrap_err().to_string();
    for part in [
        "F32",
        "got F64",
        "operand 2",
        "`linear`",
        "[4, 6]",
        "to_dtype",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn linear_maps_and_norms_refuse_shapes_that_do_not_fit() {
    let x = normal("x", &[2, 6]);
    let grouped = |w: &[usize], b: &[usize], groups| {
        grouped_linear(&x, &normal("w", w), Some(&normal("b", b)), groups)
            .unwrap_err()
            .to_string()
    };
    assert!(grouped(&[4, 5], &[4], 1).contains("5 entries"));
    assert!(grouped(&[4, 6], &[3], 1).contains("bias"));
    assert!(grouped(&[4, 3], &[4], 3).contains("divisor"));
    assert!(grouped(&[4, 3], &[4], 0).contains("divisor"));
    assert!(grouped(&[4, 6], &[4], 2).contains("12 entries"));
    assert!(grouped(&[4, 2, 3], &[4], 1).contains("[out, in/groups]"));
    assert!(ops::layer_norm(&x, &normal("w", &[5]), &normal("b", &[6]), 1e-5).is_err());
    assert!(ops::embedding(&ids(&[0], &[1]), &normal("w", &[5])).is_err());
    assert!(ops::embedding(&ids(&[9], &[1]), &normal("w", &[5, 2])).is_err());
}

#[test]
fn dropout_is_a_function_of_its_name_and_step() {
    let x = Tensor::ones((100, 100), DType::F64, &CPU).unwrap();
    let draw =
        |p, name: &str, mode: Mode| vec(&ops::dropout(&x, &Dropout::new(p, name, &mode)).unwrap());
    let first = draw(0.25, "a", TRAIN);
    assert_eq!(first, draw(0.25, "a", TRAIN));
    let scale = 1.0 / 0.75;
    assert!(first.iter().all(|v| *v == 0.0 || (v - scale).abs() < 1e-12));
    let mean = first.iter().sum::<f64>() / 1e4;
    assert!(
        (mean - 1.0).abs() < 5.0 * (scale - 1.0f64).sqrt() / 100.0,
        "{mean}"
    );
    for (seed, step, micro, name) in [
        (4, 7, 1, "a"),
        (3, 8, 1, "a"),
        (3, 7, 0, "a"),
        (3, 7, 1, "b"),
    ] {
        assert_ne!(first, draw(0.25, name, Mode::Train { seed, step, micro }));
    }
    assert!(draw(0.25, "a", Mode::Eval).iter().all(|v| *v == 1.0));
    assert!(draw(0.0, "a", TRAIN).iter().all(|v| *v == 1.0));
    for p in [1.0, -0.1, f64::NAN] {
        for mode in [Mode::Eval, TRAIN] {
            assert!(matches!(
                ops::dropout(&x, &Dropout::new(p, "a", &mode)),
                Err(Error::Setting { .. })
            ));
        }
    }
}

fn one_var(dtype: DType, count: usize) -> (Var, NamedVars) {
    let var = Var::from_tensor(&normal("check", &[count]).to_dtype(dtype).unwrap()).unwrap();
    (
        var.clone(),
        NamedVars::new([("w".to_string(), var)]).unwrap(),
    )
}

#[test]
fn the_checks_find_a_cut_graph_and_name_the_variable() {
    for count in [3, 100] {
        let (var, vars) = one_var(DType::F64, count);
        let before = vec(&var);
        let cut = || Ok((var.sin()? + var.detach().sqr()?)?.sum_all()?);
        let error = check::gradient(&vars, 1e-3, cut).unwrap_err();
        assert!(
            matches!(&error, Error::Check { name, .. } if name == "w"),
            "{error}"
        );
        let all_cut = || Ok((var.detach().sqr()?.sum_all()? + 0.0)?);
        assert!(check::gradient(&vars, 1e-3, all_cut).is_err());
        let error = check::all_reached(&vars, all_cut).unwrap_err();
        assert!(
            matches!(&error, Error::NotReached { names, .. } if names == &["w"]),
            "{error}"
        );
        let right = || Ok(var.sin()?.sqr()?.sum_all()?);
        assert!(check::gradient(&vars, 1e-8, right).unwrap() < 1e-8);
        assert!(check::hessian(&vars, 1e-8, right).unwrap() < 1e-8);
        assert_eq!(vec(&var), before);
    }
}

/// sin x with a right gradient that cannot be differentiated again: the mistake of many own ops.
struct Sine;

impl CustomOp1 for Sine {
    fn name(&self) -> &'static str {
        "sine"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let values = storage.as_slice::<f64>()?.iter().map(|x| x.sin()).collect();
        Ok((CpuStorage::F64(values), layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        Ok(Some((gradient * x.detach().cos()?)?))
    }
}

#[test]
fn the_hessian_check_finds_a_gradient_that_is_a_constant() {
    let (var, vars) = one_var(DType::F64, 30);
    let loss = || Ok(var.apply_op1(Sine)?.sqr()?.sum_all()?);
    check::gradient(&vars, 1e-8, loss).unwrap();
    let error = check::hessian(&vars, 1e-3, loss).unwrap_err();
    assert!(
        matches!(&error, Error::Check { name, .. } if name == "w"),
        "{error}"
    );
}

#[test]
fn the_checks_do_not_take_rounding_for_an_error() {
    let (var, vars) = one_var(DType::F64, 5);
    let constant = || Ok(candle_nn::ops::softmax(var.as_tensor(), 0)?.sum_all()?);
    assert!(check::gradient(&vars, 1e-7, constant).unwrap() < 1e-7);
    assert!(check::hessian(&vars, 1e-7, constant).unwrap() < 1e-7);
}

#[test]
fn the_checks_restore_the_variables_after_an_error_and_refuse_f32() {
    let (var, vars) = one_var(DType::F64, 4);
    let before = vec(&var);
    let calls = std::cell::Cell::new(0);
    let failing = || {
        calls.set(calls.get() + 1);
        match calls.get() {
            1 | 2 => Ok(var.sqr()?.sum_all()?),
            _ => Err(Error::NotScalar { got: vec![] }),
        }
    };
    assert!(check::gradient(&vars, 1e-3, failing).is_err());
    assert_eq!(vec(&var), before);
    calls.set(0);
    assert!(check::hessian(&vars, 1e-3, failing).is_err());
    assert_eq!(vec(&var), before);
    let (var, vars) = one_var(DType::F32, 4);
    let error = check::gradient(&vars, 1e-3, || Ok(var.sqr()?.sum_all()?)).unwrap_err();
    assert!(error.to_string().contains("F64"), "{error}");
    let (var, vars) = one_var(DType::F64, 4);
    assert!(check::gradient(&vars, 1e-3, || Ok(var.sqr()?)).is_err());
    assert!(check::gradient(&vars, 1e-3, || Ok((var.sum(D::Minus1)? / 0.0)?)).is_err());
}
