//! The transformer for translation: against fairseq's layout in PyTorch, under padding, token by token.

use adahessian::ops::{Mode, cross_entropy};
use adahessian::{Block, Hessian, LinearOperator, NamedVars, VarVec, check};
use anyhow::Result;
use candle_core::{DType, Device, IndexOp, Tensor};
use models::transformer::{Config, Transformer};
use models::{Model, Start};
use std::collections::HashMap;
use testing::{assert_says, load, reference, relative_error};

const CPU: Device = Device::Cpu;
const PAD: i64 = 1;
const TRAIN: Mode = Mode::Train {
    seed: 3,
    step: 5,
    micro: 0,
};

fn start(seed: u64, dtype: DType) -> Start {
    Start {
        seed,
        dtype,
        ..Start::default()
    }
}

/// The mean over the tokens that are text.
fn loss(logits: &Tensor, targets: &Tensor, smoothing: f64) -> Result<Tensor> {
    let rows = logits.reshape(((), logits.dim(2)?))?;
    Ok(cross_entropy(
        &rows,
        &targets.flatten_all()?,
        smoothing,
        Some(PAD),
    )?)
}

// ---- against PyTorch ------------------------------------------------------------------------

fn golden(dtype: DType) -> Result<(Transformer, HashMap<String, Tensor>)> {
    let golden = load(&reference().join("nmt/golden.safetensors"))?;
    let model = Transformer::new(&Config::tiny(), &start(0, dtype))?;
    let vars = model.vars();
    let given = golden.keys().filter(|name| name.starts_with("param."));
    assert_eq!(given.count(), vars.len());
    for (name, var) in vars.iter() {
        var.set(&golden[&format!("param.{name}")].to_dtype(dtype)?)?;
    }
    Ok((model, golden))
}

/// Key biases have neither gradient nor curvature: they move all scores of a query alike.
fn assert_close(name: &str, got: &Tensor, expected: &Tensor, tolerance: f64) -> Result<()> {
    let error = match name.ends_with("k_proj.bias") {
        true => testing::largest(&(got.to_dtype(DType::F64)? - expected)?)?,
        false => relative_error(&got.to_dtype(DType::F64)?, expected)?,
    };
    assert!(error <= tolerance, "{name}: {error:e}");
    Ok(())
}

fn against_golden(dtype: DType, tolerance: f64) -> Result<()> {
    let (model, golden) = golden(dtype)?;
    let (source, previous) = (&golden["src_tokens"], &golden["prev_output_tokens"]);
    let logits = model.forward(source, previous, &Mode::Eval)?;
    // Behind the end of a target there is nothing that anyone reads.
    let text = golden["target"].ne(PAD)?.unsqueeze(2)?;
    let seen = |logits: &Tensor| -> Result<Tensor> {
        Ok(logits.broadcast_mul(&text.to_dtype(logits.dtype())?)?)
    };
    assert_close(
        "logits",
        &seen(&logits)?,
        &seen(&golden["logits"])?,
        tolerance,
    )?;
    let vars = model.vars();
    let probe = VarVec::from_fn(&vars, |name, _, dtype, _| {
        let z = golden[&format!("z.{name}")].to_dtype(dtype)?;
        Ok(((z * 2.0)? - 1.0)?)
    })?;
    // Of the logits, and of what makes them part by part.
    let sides = (source, previous, &golden["target"]);
    for loss in [
        loss(&logits, &golden["target"], 0.1)?,
        model.loss(sides, 0.1, Some(PAD), &Mode::Eval)?,
    ] {
        assert_close("loss", &loss, &golden["loss"], tolerance)?;
        let hessian = Hessian::of(&loss, &vars)?;
        let products = hessian.apply(&probe)?;
        for (kind, vector) in [("grad", hessian.gradient()?), ("hz", products)] {
            for (name, got) in vector.iter() {
                let name = format!("{kind}.{name}");
                assert_close(&name, got, &golden[&name], tolerance)?;
            }
        }
    }
    Ok(())
}

#[test]
fn loss_gradients_and_products_are_pytorchs() -> Result<()> {
    against_golden(DType::F64, 1e-10)?;
    against_golden(DType::F32, 1e-4)
}

// ---- derivatives ----------------------------------------------------------------------------

/// Small enough for differences over every variable.
fn minute(before: bool) -> Config {
    Config {
        vocab_size: 9,
        d_model: 8,
        encoder_layers: 1,
        decoder_layers: 1,
        attention_heads: 2,
        ffn_dim: 12,
        normalize_before: before,
        dropout: 0.1,
        attention_dropout: 0.2,
        activation_dropout: 0.1,
        ..Config::tiny()
    }
}

/// Three sentences of different lengths, the sources padded at the left as fairseq does.
fn batch() -> Result<[Tensor; 3]> {
    let source = [[4u32, 5, 6, 7, 2], [1, 1, 8, 3, 2], [1, 6, 6, 4, 2]];
    let previous = [[2u32, 5, 7, 1], [2, 8, 4, 3], [2, 6, 1, 1]];
    let target = [[5u32, 7, 2, 1], [8, 4, 3, 2], [6, 2, 1, 1]];
    Ok([
        Tensor::new(&source, &CPU)?,
        Tensor::new(&previous, &CPU)?,
        Tensor::new(&target, &CPU)?,
    ])
}

#[test]
fn derivatives_are_those_of_differences() -> Result<()> {
    let [source, previous, target] = batch()?;
    for before in [true, false] {
        let model = Transformer::new(&minute(before), &start(7, DType::F64))?;
        let vars = model.vars();
        let value = || -> adahessian::Result<Tensor> {
            let logits = model.forward(&source, &previous, &TRAIN);
            let logits = logits.map_err(candle_core::Error::wrap)?;
            loss(&logits, &target, 0.1).map_err(|e| candle_core::Error::wrap(e).into())
        };
        check::gradient(&vars, 1e-6, value)?;
        check::hessian(&vars, 1e-6, value)?;
    }
    Ok(())
}

#[test]
fn the_first_step_reaches_every_variable() -> Result<()> {
    let [source, previous, target] = batch()?;
    let model = Transformer::new(&Config::tiny(), &start(0, DType::F32))?;
    let logits = model.forward(&source, &previous, &TRAIN)?;
    let gradients = adahessian::backward(&loss(&logits, &target, 0.1)?)?;
    for (name, var) in model.vars().iter() {
        assert!(gradients.get(var).is_some(), "{name}");
    }
    Ok(())
}

// ---- padding --------------------------------------------------------------------------------

/// The loss, its gradient, and the product with one probe.
fn derivatives(vars: &NamedVars, loss: &Tensor) -> Result<(f64, VarVec, VarVec)> {
    let hessian = Hessian::of(loss, vars)?;
    let probe = VarVec::from_fn(vars, |name, shape, dtype, _| {
        let sign = |i: usize| {
            if (i * i + name.len()).is_multiple_of(3) {
                1f64
            } else {
                -1.0
            }
        };
        let signs = (0..shape.iter().product()).map(sign).collect();
        Ok(Tensor::from_vec::<_, f64>(signs, shape, &CPU)?.to_dtype(dtype)?)
    })?;
    let product = hessian.apply(&probe)?;
    Ok((loss.to_scalar::<f64>()?, hessian.gradient()?, product))
}

/// A row without its padding, [1, T].
fn text(rows: &Tensor, row: usize) -> Result<Tensor> {
    let ids = rows.i(row)?.to_vec1::<u32>()?;
    let ids: Vec<u32> = ids.into_iter().filter(|&id| i64::from(id) != PAD).collect();
    Ok(Tensor::from_vec(ids.clone(), (1, ids.len()), &CPU)?)
}

#[test]
fn a_padded_batch_is_its_sentences_one_by_one() -> Result<()> {
    let [source, previous, target] = batch()?;
    for before in [true, false] {
        let model = Transformer::new(&minute(before), &start(7, DType::F64))?;
        let vars = model.vars();
        let sides = (&source, &previous, &target);
        let together = derivatives(&vars, &model.loss(sides, 0.1, Some(PAD), &Mode::Eval)?)?;
        let mut sum = (0.0, VarVec::zeros(&vars)?, VarVec::zeros(&vars)?);
        for row in 0..3 {
            let target = text(&target, row)?;
            let share = target.elem_count() as f64 / 9.0;
            let logits =
                model.forward(&text(&source, row)?, &text(&previous, row)?, &Mode::Eval)?;
            let (value, gradient, product) = derivatives(&vars, &loss(&logits, &target, 0.1)?)?;
            sum.0 += share * value;
            sum.1 = sum.1.add_scaled(&gradient, share)?;
            sum.2 = sum.2.add_scaled(&product, share)?;
        }
        assert!((together.0 - sum.0).abs() < 1e-12);
        for (a, b) in [(&together.1, &sum.1), (&together.2, &sum.2)] {
            for ((name, a), (_, b)) in a.iter().zip(b.iter()) {
                let difference = testing::largest(&(a - b)?)?;
                assert!(difference < 1e-12, "{name}: {difference:e}");
            }
        }
    }
    Ok(())
}

// ---- token by token -------------------------------------------------------------------------

#[test]
fn token_by_token_is_all_at_once() -> Result<()> {
    let [source, ..] = batch()?;
    let previous = Tensor::new(&[[2u32, 5, 7, 4], [2, 8, 4, 3], [2, 6, 5, 5]], &CPU)?;
    for before in [true, false] {
        let model = Transformer::new(&minute(before), &start(5, DType::F64))?;
        let all = model.forward(&source, &previous, &Mode::Eval)?;
        let mut decoding = model.decode(&source)?;
        for position in 0..4 {
            if position == 2 {
                decoding.select(&[2, 0, 0, 1])?;
            }
            let order: &[u32] = if position < 2 {
                &[0, 1, 2]
            } else {
                &[2, 0, 0, 1]
            };
            let order = Tensor::new(order, &CPU)?;
            let tokens = previous.i((.., position))?.contiguous()?;
            let tokens = tokens.index_select(&order, 0)?;
            let logits = decoding.step(&tokens.to_vec1::<u32>()?)?;
            let expected = all.i((.., position, ..))?.contiguous()?;
            let expected = expected.index_select(&order, 0)?;
            assert!(relative_error(&logits, &expected)? < 1e-12, "{position}");
        }
        assert_eq!((decoding.rows(), decoding.length()), (4, 4));
        assert_says(decoding.select(&[4]), &["below 4", "[4]"]);
        assert_says(decoding.select(&[]), &["at least one"]);
        assert_says(decoding.step(&[2]), &["4, one for each row", "got 1"]);
        assert_says(
            decoding.step(&[2, 2, 9, 2]),
            &["ids below 9", "9 in sentence 2"],
        );
    }
    Ok(())
}

#[test]
fn later_tokens_change_nothing_earlier() -> Result<()> {
    let model = Transformer::new(&Config::tiny(), &start(5, DType::F64))?;
    let source = Tensor::new(&[[7u32, 8, 2]], &CPU)?;
    let logits = |previous: [u32; 4]| -> Result<Tensor> {
        let previous = Tensor::new(&[previous], &CPU)?;
        Ok(model.forward(&source, &previous, &Mode::Eval)?)
    };
    let (a, b) = (logits([2, 9, 10, 11])?, logits([2, 9, 30, 31])?);
    let first = |x: &Tensor| x.narrow(1, 0, 2)?.flatten_all()?.to_vec1::<f64>();
    assert_eq!(first(&a)?, first(&b)?);
    assert!(relative_error(&a, &b)? > 1e-3);
    Ok(())
}

// ---- files and refusals ---------------------------------------------------------------------

#[test]
fn a_saved_translator_is_the_same_when_it_is_loaded() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let [source, previous, _] = batch()?;
    let model = Transformer::new(&minute(true), &start(5, DType::F32))?;
    model.save(dir.path())?;
    let (again, report) = Transformer::load(dir.path(), &start(6, DType::F32))?;
    assert!(
        report.initialised.is_empty() && report.unused.is_empty(),
        "{report:?}"
    );
    let logits = |model: &Transformer| model.forward(&source, &previous, &Mode::Eval);
    let bits = |x: Tensor| x.flatten_all()?.to_vec1::<f32>();
    assert_eq!(bits(logits(&model)?)?, bits(logits(&again)?)?);
    // Fairseq saves the table once for each use; one that is another is another model.
    let path = dir.path().join("model.safetensors");
    let mut tensors = candle_core::safetensors::load(&path, &CPU)?;
    let words = tensors["encoder.embed_tokens.weight"].clone();
    for (value, fits) in [(words.clone(), true), ((words * 2.0)?, false)] {
        tensors.insert("decoder.output_projection.weight".into(), value);
        candle_core::safetensors::save(&tensors, &path)?;
        let loaded = Transformer::load(dir.path(), &start(6, DType::F32)).map(drop);
        match fits {
            true => loaded?,
            false => assert_says(loaded, &["share_all_embeddings", "output_projection"]),
        }
    }
    model.save(dir.path())?;
    // A number that is finite in the file and would not be in the model.
    let half = || Transformer::load(dir.path(), &start(6, DType::F16)).map(drop);
    half()?;
    let scale = tensors["encoder.layers.0.fc1.bias"].ones_like()?;
    tensors.remove("decoder.output_projection.weight");
    tensors.insert("encoder.layers.0.fc1.bias".into(), (scale * 7e4)?);
    candle_core::safetensors::save(&tensors, &path)?;
    assert_says(
        half(),
        &["type to load in", "encoder.layers.0.fc1.bias", "F16"],
    );
    model.save(dir.path())?;
    let blocks = again.blocks();
    let name = "decoder.layers.0.encoder_attn.k_proj.weight";
    assert_eq!(blocks.resolve(name, &[8, 8])?, Block::Chunks(32));
    let bias = "decoder.layers.0.encoder_attn.k_proj.bias";
    assert_eq!(blocks.resolve(bias, &[8])?, Block::Single);
    // The same file says what it lacks where layers normalise what comes out.
    let path = dir.path().join("config.json");
    let other = std::fs::read_to_string(&path)?
        .replace("\"normalize_before\": true", "\"normalize_before\": false");
    std::fs::write(&path, other)?;
    let (_, report) = Transformer::load(dir.path(), &start(6, DType::F32))?;
    assert_eq!(report.unused.len(), 4, "{report:?}");
    Ok(())
}

#[test]
fn what_does_not_fit_is_refused() -> Result<()> {
    let model = Transformer::new(&Config::tiny(), &start(5, DType::F32))?;
    let ids = |rows: &[[u32; 2]]| Tensor::from_vec(rows.concat(), (rows.len(), 2), &CPU);
    let good = ids(&[[5, 2]])?;
    let forward = |source: &Tensor, previous: &Tensor| model.forward(source, previous, &Mode::Eval);
    assert_says(
        forward(&good, &ids(&[[2, 5], [2, 6]])?),
        &["previous", "1, as many", "got 2"],
    );
    assert_says(
        forward(&ids(&[[5, 40]])?, &good),
        &["source", "below 40", "40 in sentence 0 at token 1"],
    );
    assert_says(
        forward(&good.to_dtype(DType::F32)?, &good),
        &["source", "U32 or I64"],
    );
    assert_says(forward(&good.i(0)?, &good), &["[sentences, tokens]"]);
    let long = Tensor::full(5u32, (1, 65), &CPU)?;
    assert_says(forward(&good, &long), &["previous", "1 to 64 tokens"]);
    for (config, says) in [
        (
            Config {
                d_model: 33,
                attention_heads: 3,
                ..Config::tiny()
            },
            "even",
        ),
        (
            Config {
                attention_heads: 5,
                ..Config::tiny()
            },
            "attention_heads",
        ),
        (
            Config {
                dropout: 1.0,
                ..Config::tiny()
            },
            "dropout",
        ),
        (
            Config {
                pad_token_id: 40,
                ..Config::tiny()
            },
            "pad_token_id",
        ),
        (
            Config {
                pad_token_id: 2,
                eos_token_id: 2,
                ..Config::tiny()
            },
            "eos_token_id",
        ),
        (
            Config {
                layer_norm_eps: f64::NAN,
                ..Config::tiny()
            },
            "layer_norm_eps",
        ),
        // The sines of its positions alone would be 34 GB.
        (
            Config {
                vocab_size: 41,
                d_model: 1 << 16,
                attention_heads: 1,
                max_position_embeddings: 1 << 16,
                ..Config::tiny()
            },
            "max_position_embeddings",
        ),
        (
            Config {
                vocab_size: 1 << 24,
                d_model: 1 << 16,
                attention_heads: 1,
                ..Config::tiny()
            },
            "parameters",
        ),
    ] {
        assert_says(
            Transformer::new(&config, &start(0, DType::F32)).map(drop),
            &[says],
        );
    }
    assert_says(
        Config::preset("large"),
        &["base, iwslt or small", "`large`"],
    );
    Ok(())
}
