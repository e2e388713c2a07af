//! Optimizers against PyTorch, against closed forms, and each against its own saved state.

use adahessian::{
    AdaHessian, Adagrad, Adam, AdamW, Average, Block, Blocks, Builder, Common, Composite, Delay,
    Error, Group, Hessian, Hutchinson, Lamb, LinearOperator, NamedVars, Optim, RmsProp, Rule, Sgd,
    SophiaH, VarVec, backward,
};
use adahessian::{RULES, Rules, optimizer_by_name};
use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor, Var};
use serde_json::Value;
use testing::{assert_close, assert_number, assert_says, reference, variables};

fn start() -> Result<NamedVars> {
    variables(&[
        ("w", &[-1.0, 0.5, 0.3, -0.2, 1.5, 1.0], &[3, 2]),
        ("x.c", &[0.0, 5.0, -3.0], &[3]),
    ])
}

/// The objective of tests/reference/first_order/make.py.
fn objective(vars: &NamedVars) -> Result<Tensor> {
    let (w, c) = (vars.get("w")?, vars.get("x.c")?);
    let (a, b) = (w.narrow(1, 0, 1)?, w.narrow(1, 1, 1)?);
    let valley = ((1.0 - &a)?.sqr()? + ((b - a.sqr()?)?.sqr()? * 5.0)?)?.sum_all()?;
    Ok((valley + ((c.as_tensor() - 2.0)?.sqr()?.sum_all()? * 0.5)?)?)
}

fn flat(vars: &NamedVars) -> Result<Vec<f64>> {
    let mut all = Vec::new();
    for (_, var) in vars.iter() {
        all.extend(var.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?);
    }
    Ok(all)
}

type Make = fn(&NamedVars) -> adahessian::Result<Box<dyn Optim>>;

fn first_order(
    vars: &NamedVars,
    rule: impl Rule,
    lr: f64,
    decay: f64,
) -> adahessian::Result<Box<dyn Optim>> {
    let common = Common {
        weight_decay: decay,
        ..Common::new(lr)
    };
    Ok(Box::new(rule.with(common).build(vars)?))
}

/// One row an optimizer: name, how to make it. The rows that PyTorch has are held against its path.
const TABLE: &[(&str, Make)] = &[
    ("sgd", |v| {
        first_order(
            v,
            Sgd {
                momentum: 0.0,
                nesterov: false,
            },
            0.003,
            0.1,
        )
    }),
    ("sgd_momentum", |v| {
        first_order(v, Sgd::default(), 0.003, 0.1)
    }),
    ("sgd_nesterov", |v| {
        first_order(
            v,
            Sgd {
                momentum: 0.9,
                nesterov: true,
            },
            0.003,
            0.0,
        )
    }),
    ("rmsprop", |v| {
        first_order(
            v,
            RmsProp {
                alpha: 0.9,
                ..Default::default()
            },
            0.01,
            0.1,
        )
    }),
    ("rmsprop_momentum", |v| {
        first_order(
            v,
            RmsProp {
                momentum: 0.5,
                ..Default::default()
            },
            0.01,
            0.0,
        )
    }),
    ("adam", |v| {
        first_order(
            v,
            Adam {
                betas: (0.9, 0.99),
                eps: 1e-8,
            },
            0.02,
            0.1,
        )
    }),
    ("adamw", |v| {
        first_order(
            v,
            AdamW {
                betas: (0.9, 0.99),
                eps: 1e-8,
            },
            0.02,
            0.1,
        )
    }),
    ("adagrad", |v| first_order(v, Adagrad::default(), 0.1, 0.1)),
    ("lamb", |v| first_order(v, Lamb::default(), 0.01, 0.01)),
    ("adahessian", |v| {
        Ok(Box::new(AdaHessian::builder().seed(3).build(v)?))
    }),
    ("sophiah", |v| {
        Ok(Box::new(
            SophiaH::builder().lr(0.02).every(4).seed(3).build(v)?,
        ))
    }),
    ("adahessian_delayed_stale", |v| {
        let builder = AdaHessian::builder()
            .every(3)
            .always_first(2)
            .delay(Delay::Stale)
            .samples(2);
        Ok(Box::new(
            builder
                .weight_decay(0.01)
                .blocks(Blocks::matrices(Block::Rows))
                .build(v)?,
        ))
    }),
    ("composite", |v| {
        let (w, rest) = v.partition(|name| name == "w");
        let dense = AdaHessian::builder().every(2).build(&w)?;
        let other = Adagrad::default().lr(0.5).build(&rest)?;
        Ok(Box::new(
            Composite::new()
                .with("dense", dense)
                .with("sparse", other)
                .covering(v)?,
        ))
    }),
];

#[test]
fn paths_of_pytorch() -> Result<()> {
    let text = std::fs::read_to_string(reference().join("first_order/golden.json"))?;
    let golden: Value = serde_json::from_str(&text)?;
    let mut compared = 0;
    for (name, make) in TABLE {
        let Some(path) = golden["paths"][name].as_array() else {
            continue;
        };
        let vars = start()?;
        let mut opt = make(&vars)?;
        for (step, expected) in path.iter().enumerate() {
            opt.backward_step(&objective(&vars)?)?;
            let (ours, theirs) = (flat(&vars)?, expected.as_array().expect("numbers"));
            assert_eq!(ours.len(), theirs.len(), "{name}");
            for (ours, theirs) in ours.iter().zip(theirs) {
                assert_number(
                    &format!("{name} step {step}"),
                    *ours,
                    theirs.as_f64().unwrap_or(f64::NAN),
                    1e-11,
                )?;
            }
        }
        compared += 1;
    }
    assert_eq!(compared, 8);
    Ok(())
}

/// LAMB by hand: the first step from zero moments has the direction sign(g) (bias correction), the
/// length of every variable's step is lr·‖θ‖.
#[test]
fn lamb_steps_by_the_length_of_the_variable() -> Result<()> {
    let vars = start()?;
    let before = vars.snapshot()?;
    let mut opt = first_order(
        &vars,
        Lamb {
            eps: 1e-12,
            ..Lamb::default()
        },
        0.01,
        0.0,
    )?;
    opt.backward_step(&objective(&vars)?)?;
    for ((_, old), (name, new)) in before.iter().zip(vars.iter()) {
        let norm =
            |t: &Tensor| -> Result<f64> { Ok(t.sqr()?.sum_all()?.to_scalar::<f64>()?.sqrt()) };
        let moved = norm(&(new.as_tensor() - old)?)?;
        assert_number(name, moved, 0.01 * norm(old)?, 1e-9)?;
    }
    Ok(())
}

/// Every optimizer goes downhill on this objective, whichever way it takes.
#[test]
fn every_optimizer_descends() -> Result<()> {
    for (name, make) in TABLE {
        let vars = start()?;
        let mut opt = make(&vars)?;
        let first = objective(&vars)?.to_scalar::<f64>()?;
        for _ in 0..60 {
            opt.backward_step(&objective(&vars)?)?;
        }
        let last = objective(&vars)?.to_scalar::<f64>()?;
        assert!(last < 0.8 * first, "{name}: {first} -> {last}");
    }
    Ok(())
}

/// Save after 7 steps, load into a fresh optimizer, five more steps on both: the same bits.
#[test]
fn state_resumes_bit_for_bit() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for (name, make) in TABLE {
        let vars = start()?;
        let mut opt = make(&vars)?;
        for _ in 0..7 {
            opt.backward_step(&objective(&vars)?)?;
        }
        let path = folder.path().join(name);
        opt.state()?.save(&path)?;
        let copy = NamedVars::new(
            vars.snapshot()?
                .iter()
                .map(|(n, t)| (n.to_string(), Var::from_tensor(t).unwrap())),
        )?;
        let mut resumed = make(&copy)?;
        resumed.load_state(&adahessian::State::load(&path)?)?;
        for _ in 0..5 {
            opt.backward_step(&objective(&vars)?)?;
            resumed.backward_step(&objective(&copy)?)?;
        }
        assert_eq!(flat(&vars)?, flat(&copy)?, "{name}");
    }
    Ok(())
}

#[test]
fn a_state_that_does_not_fit_is_refused_and_changes_nothing() -> Result<()> {
    let vars = start()?;
    let mut opt = AdaHessian::builder().build(&vars)?;
    opt.backward_step(&objective(&vars)?)?;
    let good = opt.state()?;
    let adam = first_order(&vars, Adam::default(), 0.1, 0.0)?.state()?;
    assert_says(opt.load_state(&adam), &["kind", "adahessian", "adam"]);
    let mut missing = good.clone();
    missing.tensors.remove("exp_avg.w");
    assert_says(
        opt.load_state(&missing),
        &["exp_avg.w", "[3, 2]", "nothing"],
    );
    let mut shape = good.clone();
    shape.tensors.insert(
        "exp_avg.w".into(),
        Tensor::zeros((2, 3), DType::F64, &Device::Cpu)?,
    );
    assert_says(opt.load_state(&shape), &["exp_avg.w", "[3, 2]", "[2, 3]"]);
    let mut dtype = good.clone();
    dtype.tensors.insert(
        "exp_avg.w".into(),
        Tensor::zeros((3, 2), DType::F32, &Device::Cpu)?,
    );
    assert_says(opt.load_state(&dtype), &["exp_avg.w", "F64", "F32"]);
    let mut more = good.clone();
    more.tensors.insert(
        "exp_avg.other".into(),
        Tensor::zeros(1, DType::F64, &Device::Cpu)?,
    );
    assert_says(opt.load_state(&more), &["exp_avg.other", "another model"]);
    let mut count = good.clone();
    count.put("count.w", "many");
    assert_says(opt.load_state(&count), &["count.w", "`many`"]);
    assert_eq!(opt.state()?.meta, good.meta);
    Ok(())
}

/// Sophia-H by hand (arXiv 2305.14342, Algorithm 3), with the library's probes.
#[test]
fn sophia_is_the_papers_algorithm() -> Result<()> {
    let (lr, decay, rho, gamma) = (0.03, 0.1, 0.5, 20.0);
    let (vars, by_hand) = (start()?, start()?);
    let rule = SophiaH {
        rho,
        gamma, // so large that not all entries are clipped
        ..SophiaH::default()
    };
    let mut opt = rule.lr(lr).every(3).seed(7).build(&vars)?;
    let mut theta = flat(&by_hand)?;
    let (mut m, mut h) = (vec![0.0; theta.len()], vec![0.0; theta.len()]);
    let (mut clipped, mut free) = (0, 0);
    for step in 0..30 {
        let hessian = Hessian::of(&objective(&by_hand)?, &by_hand)?;
        let numbers = |v: &VarVec| -> Result<Vec<f64>> {
            let parts = v.tensors().iter().map(|t| t.flatten_all()?.to_vec1());
            Ok(parts.collect::<candle_core::Result<Vec<_>>>()?.concat())
        };
        let g = numbers(&hessian.gradient()?)?;
        let d = numbers(&Hutchinson::new(1, 7).at(step).diagonal(&hessian)?)?;
        for i in 0..theta.len() {
            m[i] = 0.96 * m[i] + 0.04 * g[i];
            if step % 3 == 0 {
                h[i] = 0.99 * h[i] + 0.01 * d[i];
            }
            let ratio = m[i] / f64::max(gamma * h[i], 1e-12);
            (clipped, free) = match ratio.abs() > rho {
                true => (clipped + 1, free),
                false => (clipped, free + 1),
            };
            theta[i] -= lr * decay * theta[i];
            theta[i] -= lr * ratio.clamp(-rho, rho);
        }
        let mut rest = theta.as_slice();
        for (_, var) in by_hand.iter() {
            let (own, later) = rest.split_at(var.elem_count());
            var.set(&Tensor::from_slice(own, var.shape(), var.device())?)?;
            rest = later;
        }
        opt.backward_step(&objective(&vars)?)?;
        for (ours, theirs) in flat(&vars)?.iter().zip(&theta) {
            assert_number(&format!("step {step}"), *ours, *theirs, 1e-12)?;
        }
    }
    assert!(clipped > 10 && free > 10, "{clipped} {free}");
    let curvature = opt.diagonal()?.context("no curvature")?;
    let kept = curvature
        .tensors()
        .iter()
        .map(|t| t.flatten_all()?.to_vec1());
    let kept: Vec<f64> = kept.collect::<candle_core::Result<Vec<_>>>()?.concat();
    for (ours, theirs) in kept.iter().zip(&h) {
        assert_number("h", *ours, *theirs, 1e-12)?;
    }
    Ok(())
}

/// Every rule is found by its name, and only by that.
#[test]
fn optimizers_by_name() -> Result<()> {
    let vars = start()?;
    for name in RULES {
        let opt = optimizer_by_name(name, &Rules::default(), &vars, |common, curvature| {
            common.lr = 0.5;
            curvature.seed = 3;
        })?;
        assert_eq!(opt.state()?.meta["kind"], *name);
        assert_eq!(opt.lr(), 0.5);
    }
    let unknown = optimizer_by_name("sdg", &Rules::default(), &vars, |_, _| {});
    let mut pieces = RULES.to_vec();
    pieces.push("sdg");
    assert_says(unknown.map(drop), &pieces);
    // A file a rule: none is forgotten.
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../adahessian/src/optim/rules");
    let files = std::fs::read_dir(folder)?.map(|file| Ok(file?.file_name()));
    let files = files.collect::<std::io::Result<Vec<_>>>()?;
    let rules = files.iter().filter(|f| *f != "mod.rs" && *f != "tests.rs");
    assert_eq!(rules.count(), RULES.len());
    Ok(())
}

#[test]
fn settings_of_the_hessian_need_a_rule_that_asks_for_it() -> Result<()> {
    let error = AdamW::default().lr(0.1).every(5).build(&start()?);
    assert_says(error.map(drop), &["Hessian", "adamw"]);
    Ok(())
}

/// If one part must not step, none does, and all count it; if one must give up, none does.
#[test]
fn a_composite_skips_jointly() -> Result<()> {
    let vars = start()?;
    let (w, rest) = vars.partition(|name| name == "w");
    let before = flat(&vars)?;
    let mut opt = Composite::new()
        .with("w", AdaHessian::builder().max_skipped(1).build(&w)?)
        .with("rest", Adam::default().lr(0.1).build(&rest)?);
    let bad = |vars: &NamedVars| -> Result<Tensor> {
        let c = vars.get("x.c")?;
        Ok((vars.get("w")?.sqr()?.sum_all()? + (c.sum_all()? * f64::NAN)?)?)
    };
    let info = opt.backward_step(&bad(&vars)?)?;
    assert_eq!(info.skipped.as_deref(), Some("x.c"));
    assert_eq!((info.update_norm, flat(&vars)?), (0.0, before.clone()));
    let counts = |opt: &Composite| -> Result<Vec<String>> {
        let state = opt.state()?;
        let keys = ["w/skipped", "rest/skipped", "w/step", "rest/step"];
        Ok(keys.map(|key| state.meta[key].clone()).to_vec())
    };
    assert_eq!(counts(&opt)?, ["1", "1", "1", "1"]);
    // One part gives up: the other has not stepped either.
    assert_says(
        opt.backward_step(&bad(&vars)?).map(drop),
        &["2 steps", "x.c"],
    );
    assert_eq!(flat(&vars)?, before);
    assert_eq!(counts(&opt)?, ["1", "1", "1", "1"]);
    assert_eq!(opt.backward_step(&objective(&vars)?)?.skipped, None);
    assert_ne!(flat(&vars)?, before);
    Ok(())
}

/// Newton's step: on a diagonal quadratic the probe gives the diagonal exactly, so lr 1 and no
/// momentum land in the minimum.
#[test]
fn a_diagonal_quadratic_takes_one_step() -> Result<()> {
    let vars = variables(&[("x", &[3.0, -2.0, 0.7], &[3])])?;
    let mut opt = AdaHessian::builder()
        .lr(1.0)
        .betas(0.0, 0.999)
        .eps(0.0)
        .build(&vars)?;
    let scales = Tensor::new(&[10f64, 1.0, 0.01], &Device::Cpu)?;
    opt.backward_step(&(vars.get("x")?.sqr()? * scales)?.sum_all()?)?;
    for value in flat(&vars)? {
        assert_number("x", value, 0.0, 1e-14)?;
    }
    Ok(())
}

/// The appendix of the paper: for α ≤ H ≤ β and step α^k/β, f falls by at least
/// α^k / (2 β^(1+k)) ‖g‖², for Δ = diag(H)^-k g and for its block average.
#[test]
fn descent_bound_of_the_appendix() -> Result<()> {
    let curvature = [4.0, 1.0, 2.5, 1.5];
    let (alpha, beta) = (1.0f64, 4.0f64);
    for block in [Block::Single, Block::Chunks(2), Block::Whole] {
        for k in [0.0, 0.5, 1.0] {
            let vars = variables(&[("x", &[1.0, -2.0, 0.5, 3.0], &[4])])?;
            let diagonal = Tensor::new(&curvature, &Device::Cpu)?;
            let f = |vars: &NamedVars| -> Result<Tensor> {
                Ok((vars.get("x")?.sqr()? * (&diagonal * 0.5)?)?.sum_all()?)
            };
            let before = f(&vars)?.to_scalar::<f64>()?;
            let mut opt = AdaHessian::builder()
                .lr(alpha.powf(k) / beta)
                .betas(0.0, 0.0)
                .eps(0.0)
                .hessian_power(k)
                .blocks(Blocks::single().rule("x", block))
                .build(&vars)?;
            let info = opt.backward_step(&f(&vars)?)?;
            let bound = alpha.powf(k) / (2.0 * beta.powf(1.0 + k)) * info.gradient_norm.powi(2);
            let fall = before - f(&vars)?.to_scalar::<f64>()?;
            assert!(
                fall >= bound * (1.0 - 1e-12),
                "{block} k {k}: {fall} < {bound}"
            );
        }
    }
    Ok(())
}

/// Two micro-batches: the mean of each one's own gradient and own z ⊙ Hz. (Taking the product from
/// the running sum of gradients counts the first micro-batch twice.)
#[test]
fn accumulation_takes_each_micro_batch_by_itself() -> Result<()> {
    let part = |vars: &NamedVars, scale: f64| -> Result<Tensor> {
        let w = vars.get("w")?;
        Ok(((w.powf(4.0)? * scale)?.sum_all()? + w.sin()?.sum_all()?)?)
    };
    let build = |vars: &NamedVars| {
        AdaHessian::builder()
            .samples(3)
            .seed(5)
            .average(Average::Signed)
            .allow_unreached(["x.c"])
            .build(vars)
    };
    let vars = start()?;
    let mut opt = build(&vars)?;
    opt.accumulate_loss(&part(&vars, 1.0)?, 0.25)?;
    opt.accumulate_loss(&part(&vars, 3.0)?, 0.75)?;
    let info = opt.apply()?;

    // By hand, with the library's probes.
    let by_hand = start()?;
    let (mut g, mut d) = (VarVec::zeros(&by_hand)?, VarVec::zeros(&by_hand)?);
    for (scale, weight) in [(1.0, 0.25), (3.0, 0.75)] {
        let hessian = Hessian::of(&part(&by_hand, scale)?, &by_hand)?;
        g = g.add_scaled(&hessian.gradient()?, weight)?;
        d = d.add_scaled(&Hutchinson::new(3, 5).diagonal(&hessian)?, weight)?;
    }
    let state = opt.state()?;
    assert_close(
        "m",
        &state.tensors["exp_avg.w"],
        &(g.get("w")? * 0.1)?,
        1e-12,
    )?;
    let expected = (d.get("w")?.sqr()? * 0.001)?;
    assert_close(
        "s",
        &state.tensors["exp_hessian_diag_sq.w"],
        &expected,
        1e-12,
    )?;
    assert_number("norm", info.gradient_norm, g.norm()?, 1e-12)?;
    // x.c is not reached: left alone.
    assert_eq!(vars.get("x.c")?.to_vec1::<f64>()?, [0.0, 5.0, -3.0]);
    Ok(())
}

#[test]
fn groups_freeze_scale_and_decay() -> Result<()> {
    let vars = start()?;
    let groups = vec![
        Group::new("*").lr_scale(0.5),
        Group::new(".c").frozen(true),
        Group::new("w")
            .lr_scale(2.0)
            .weight_decay(0.1)
            .block(Block::Whole),
    ];
    let mut opt = AdaHessian::builder().groups(groups).build(&vars)?;
    assert_eq!(opt.vars().names().collect::<Vec<_>>(), ["w"]);
    let plain = start()?;
    let by_hand = AdaHessian::builder()
        .lr(0.3)
        .weight_decay(0.1)
        .blocks(Blocks::matrices(Block::Whole));
    // The same probes: they go by name, not by what else there is.
    let mut other = by_hand.build(&plain.partition(|n| n == "w").0)?;
    for _ in 0..3 {
        opt.backward_step(&objective(&vars)?)?;
        other.backward_step(&objective(&plain)?)?;
    }
    assert_close("w", vars.get("w")?, plain.get("w")?, 1e-13)?;
    assert_eq!(vars.get("x.c")?.to_vec1::<f64>()?, [0.0, 5.0, -3.0]);
    let error = AdaHessian::builder()
        .groups(vec![Group::new("w").block(Block::Trailing(3))])
        .build(&vars);
    assert_says(error.map(drop), &["`w`", "trailing:3"]);
    Ok(())
}

#[test]
fn clipping() -> Result<()> {
    let vars = variables(&[("x", &[3.0, 4.0], &[2])])?;
    let common = Common {
        clip_norm: Some(1.0),
        ..Common::new(1.0)
    };
    let plain = Sgd {
        momentum: 0.0,
        nesterov: false,
    };
    let mut opt = plain.with(common.clone()).build(&vars)?;
    let half =
        |vars: &NamedVars| -> Result<Tensor> { Ok((vars.get("x")?.sqr()?.sum_all()? * 0.5)?) };
    let info = opt.backward_step(&half(&vars)?)?;
    assert_number("norm before", info.gradient_norm, 5.0, 1e-12)?;
    assert_number("norm of the step", info.update_norm, 1.0, 1e-12)?;
    let value = Common {
        clip_value: Some(0.5),
        clip_norm: None,
        ..common
    };
    let before = flat(&vars)?;
    plain
        .with(value)
        .build(&vars)?
        .backward_step(&half(&vars)?)?;
    assert_number("by value", before[0] - flat(&vars)?[0], 0.5, 1e-12)
}

/// A loss that is not finite changes nothing, is counted, and ends in an error that names the
/// variable; a finite one in between starts the count anew.
#[test]
fn non_finite_steps_are_skipped_and_counted() -> Result<()> {
    let vars = start()?;
    let mut builder = AdaHessian::builder().every(4);
    builder.common.max_skipped = 2;
    let mut opt = builder.build(&vars)?;
    let nan = |vars: &NamedVars| -> Result<Tensor> { Ok((objective(vars)? * f64::NAN)?) };
    let before = flat(&vars)?;
    let info = opt.backward_step(&nan(&vars)?)?;
    assert_eq!(info.skipped.as_deref(), Some("w"));
    assert_eq!((info.update_norm, opt.skipped()), (0.0, 1));
    assert_eq!(flat(&vars)?, before);
    // The Hessian was due at step 0 and did not come: it still is at step 1.
    assert!(opt.needs_graph());
    assert!(opt.backward_step(&objective(&vars)?)?.curvature.is_some());
    assert!(!opt.needs_graph());
    opt.backward_step(&nan(&vars)?)?;
    opt.backward_step(&nan(&vars)?)?;
    let error = opt.backward_step(&nan(&vars)?);
    assert_says(
        error.as_ref().map(drop),
        &["3 steps in a row", "gradient of `w`"],
    );
    assert!(matches!(error, Err(Error::NonFinite { skipped: 3, .. })));
    // That step was not taken: it is to be taken again, with its own probes.
    assert_eq!(
        (opt.state()?.meta["step"].as_str(), opt.skipped()),
        ("4", 3)
    );
    assert_eq!(opt.backward_step(&objective(&vars)?)?.step, 4);
    Ok(())
}

/// sqrt at 0 has an infinite slope that the gradient never sees here: only Hz is not finite.
#[test]
fn a_hessian_that_is_not_finite_is_named() -> Result<()> {
    let vars = variables(&[("x", &[0.0, 1.0], &[2])])?;
    let mut opt = AdaHessian::builder().build(&vars)?;
    let info = opt.backward_step(&vars.get("x")?.powf(1.5)?.sum_all()?)?;
    assert_eq!(info.skipped.as_deref(), Some("x"));
    assert!(info.gradient_norm.is_finite());
    Ok(())
}

#[test]
fn gradients_without_graph_are_refused() -> Result<()> {
    let vars = start()?;
    let mut opt = AdaHessian::builder().build(&vars)?;
    let plain = objective(&vars)?.backward()?;
    assert!(matches!(opt.step(&plain), Err(Error::NoGraph)));
    let detached = adahessian::backward_detached(&objective(&vars)?)?;
    assert_says(opt.step(&detached), &["adahessian::backward"]);
    // Nothing is left of the refused ones.
    let info = opt.step(&backward(&objective(&vars)?)?)?;
    assert!(info.curvature.is_some());
    Ok(())
}

#[test]
fn settings_out_of_range() -> Result<()> {
    let vars = start()?;
    let refused = |builder: Builder<AdaHessian>, what: &str| {
        assert_says(builder.build(&vars).map(drop), &[what, "expected"])
    };
    refused(AdaHessian::builder().lr(-1.0), "learning rate");
    refused(AdaHessian::builder().lr(f64::NAN), "learning rate");
    refused(AdaHessian::builder().betas(1.0, 0.9), "beta1");
    refused(AdaHessian::builder().hessian_power(1.5), "hessian_power");
    refused(AdaHessian::builder().samples(0), "samples");
    refused(AdaHessian::builder().every(0), "every");
    refused(AdaHessian::builder().weight_decay(-0.1), "weight decay");
    refused(AdaHessian::builder().clip_norm(0.0), "clip_norm");
    Ok(())
}

#[test]
fn composite_covers_every_variable_exactly_once() -> Result<()> {
    let vars = start()?;
    let (w, rest) = vars.partition(|n| n == "w");
    let one = || AdaHessian::builder().build(&w);
    assert_says(
        Composite::new().with("a", one()?).covering(&vars).map(drop),
        &["in no part [\"x.c\"]"],
    );
    let twice = Composite::new()
        .with("a", one()?)
        .with("b", AdaHessian::builder().build(&vars)?);
    assert_says(twice.covering(&vars).map(drop), &["in two [\"w\"]"]);
    let good = Composite::new()
        .with("a", one()?)
        .with("b", AdaHessian::builder().build(&rest)?);
    assert_eq!(good.covering(&vars)?.vars().len(), 2);
    Ok(())
}

/// The Hessian of a part is that over its own variables: mixed derivatives with the other part's
/// variables do not enter.
#[test]
fn a_part_sees_its_own_hessian_only() -> Result<()> {
    let vars = variables(&[("a", &[1.0], &[1]), ("b", &[2.0], &[1])])?;
    let (a, b) = vars.partition(|n| n == "a");
    let adagrad = Adagrad::default().lr(0.1).build(&b)?;
    let mut opt = Composite::new()
        .with("a", AdaHessian::builder().build(&a)?)
        .with("b", adagrad);
    // L = 3a² + 100ab: H_aa = 6.
    let (x, y) = (vars.get("a")?, vars.get("b")?);
    let loss = ((x.sqr()? * 3.0)? + ((x.as_tensor() * y.as_tensor())? * 100.0)?)?.sum_all()?;
    let info = opt.backward_step(&loss)?;
    assert_number(
        "mean |D|",
        info.curvature.map_or(0.0, |c| c.mean_abs),
        6.0,
        1e-12,
    )
}

/// What a candle application does: `candle_nn::Optimizer` in scope, both traits in scope.
#[test]
fn candle_trait() -> Result<()> {
    use candle_nn::Optimizer;
    let x = Var::new(&[3f32, -1.0], &Device::Cpu)?;
    let mut opt = <adahessian::Optimizer<AdaHessian> as Optimizer>::new(
        vec![x.clone()],
        AdaHessian::builder().lr(0.5),
    )?;
    for _ in 0..40 {
        opt.backward_step(&x.sqr()?.sum_all()?)?;
    }
    assert_eq!(opt.learning_rate(), 0.5);
    opt.set_learning_rate(0.1);
    assert_eq!(opt.learning_rate(), 0.1);
    assert!(x.to_vec1::<f32>()?.iter().all(|v| v.abs() < 0.5));
    let cut = x.sqr()?.sum_all()?.backward()?;
    assert_says(Optimizer::step(&mut opt, &cut), &["no graph"]);
    Ok(())
}

/// H v of a block-averaged, multi-sample, delayed run in f32 stays near the f64 run.
#[test]
fn single_precision_follows_double() -> Result<()> {
    let run = |dtype: DType| -> Result<Vec<f64>> {
        let vars = NamedVars::new(start()?.iter().map(|(n, v)| {
            (
                n.to_string(),
                Var::from_tensor(&v.to_dtype(dtype).unwrap()).unwrap(),
            )
        }))?;
        let mut opt = AdaHessian::builder()
            .lr(0.05)
            .samples(2)
            .every(2)
            .blocks(Blocks::matrices(Block::Chunks(4)))
            .build(&vars)?;
        for _ in 0..20 {
            opt.backward_step(&objective(&vars)?)?;
        }
        flat(&vars)
    };
    for (a, b) in run(DType::F32)?.iter().zip(run(DType::F64)?) {
        assert_number("f32", *a, b, 1e-4)?;
    }
    Ok(())
}

#[test]
fn operators_are_objects() -> Result<()> {
    let vars = start()?;
    let hessian: Box<dyn LinearOperator> = Box::new(Hessian::of(&objective(&vars)?, &vars)?);
    assert_eq!(hessian.vars().elem_count(), 9);
    Ok(())
}

/// Variables of two dtypes in one model: each keeps its own.
#[test]
fn mixed_dtypes() -> Result<()> {
    let half = Var::new(&[1f32, -2.0], &Device::Cpu)?;
    let double = Var::new(&[3f64], &Device::Cpu)?;
    let vars = NamedVars::new([
        ("a".to_string(), half.clone()),
        ("b".to_string(), double.clone()),
    ])?;
    let mut opt = AdaHessian::builder()
        .lr(1.0)
        .betas(0.0, 0.999)
        .eps(0.0)
        .build(&vars)?;
    let loss = (half.sqr()?.sum_all()?.to_dtype(DType::F64)? + double.sqr()?.sum_all()?)?;
    opt.backward_step(&loss)?;
    assert_eq!(
        (half.to_vec1::<f32>()?, double.to_vec1::<f64>()?),
        (vec![0.0, 0.0], vec![0.0])
    );
    Ok(())
}
