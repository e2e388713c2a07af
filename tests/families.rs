//! DistilBERT and RoBERTa, and what all families of encoders have in common: heads, blocks, files.

use adahessian::ops::{Mode, cross_entropy, mse};
use adahessian::{Block, Blocks, Hessian, LinearOperator, VarVec, check};
use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use models::dlrm::{self, Dlrm};
use models::{
    Architecture, MaskedLanguageModel, Model, Problem, ResNet, SequenceClassifier, Start,
    TokenClassifier, auto, bert, distilbert, resnet, roberta, squeezebert, weights,
};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use testing::twins::random;
use testing::{assert_close, assert_says};

const CPU: Device = Device::Cpu;
const TRAIN: Mode = Mode::Train {
    seed: 1,
    step: 2,
    micro: 0,
};

fn start(dtype: DType) -> Start {
    Start {
        seed: 7,
        dtype,
        ..Start::default()
    }
}

/// Small models of every family.
pub fn tiny() -> Result<[Architecture; 4]> {
    Ok([
        bert::Config::tiny().architecture()?,
        squeezebert::Config::tiny().architecture()?,
        distilbert::Config::tiny().architecture()?,
        roberta::Config::tiny().architecture()?,
    ])
}

/// Small enough for differences over every variable.
fn minute() -> Result<[Architecture; 2]> {
    let distilled = distilbert::Config {
        vocab_size: 9,
        dim: 8,
        hidden_dim: 12,
        max_position_embeddings: 5,
        initializer_range: 0.4,
        ..distilbert::Config::tiny()
    };
    let roberta = roberta::Config {
        vocab_size: 9,
        hidden_size: 8,
        intermediate_size: 12,
        max_position_embeddings: 7,
        initializer_range: 0.4,
        ..roberta::Config::tiny()
    };
    Ok([distilled.architecture()?, roberta.architecture()?])
}

/// Two texts, the second one padded (1 is RoBERTa's padding), and the mask of the padding.
fn batch() -> Result<(Tensor, Tensor)> {
    let ids = Tensor::new(&[[2u32, 5, 8, 3], [2, 7, 3, 1]], &CPU)?;
    let mask = Tensor::new(&[[1u32, 1, 1, 1], [1, 1, 1, 0]], &CPU)?;
    Ok((ids, mask))
}

// ---- against transformers -------------------------------------------------------------------

/// The folder that scripts/huggingface_families.py wrote, opened for its task, and its logits.
#[test]
fn every_head_agrees_with_transformers() -> Result<()> {
    for family in ["bert", "roberta", "distilbert"] {
        for task in ["SequenceClassification", "TokenClassification", "MaskedLM"] {
            let name = format!("{family}_For{task}");
            let folder = testing::reference()
                .join("huggingface/families")
                .join(&name);
            let golden = testing::load(&folder.join("expected.safetensors"))?;
            let (ids, mask) = (&golden["input_ids"], Some(&golden["attention_mask"]));
            for (dtype, tolerance) in [(DType::F64, 1e-10), (DType::F32, 1e-4)] {
                let start = start(dtype);
                let (logits, report) = match task {
                    "SequenceClassification" => {
                        let (model, report) = auto::sequence_classifier(&folder, None, &start)?;
                        (model.forward(ids, None, mask, &Mode::Eval)?, report)
                    }
                    "TokenClassification" => {
                        let (model, report) = auto::token_classifier(&folder, None, &start)?;
                        (model.forward(ids, None, mask, &Mode::Eval)?, report)
                    }
                    _ => {
                        let (model, report) = auto::masked_language_model(&folder, &start)?;
                        (model.forward(ids, None, mask, &Mode::Eval)?, report)
                    }
                };
                assert!(report.initialised.is_empty(), "{name}: {report:?}");
                assert!(report.unused.is_empty(), "{name}: {report:?}");
                assert_close(&name, &logits, &golden["logits"], tolerance)?;
            }
        }
    }
    Ok(())
}

/// Every group of SqueezeBERT's is another one, and no epsilon the usual one; a RoBERTa has two types of tokens.
#[test]
fn settings_that_can_be_mixed_up_agree_with_transformers() -> Result<()> {
    for name in ["squeezebert", "bert", "roberta"] {
        let folder = testing::reference().join("huggingface/odd").join(name);
        let golden = testing::load(&folder.join("expected.safetensors"))?;
        let (model, report) = auto::sequence_classifier(&folder, None, &start(DType::F64))?;
        assert!(report.initialised.is_empty() && report.unused.is_empty());
        let (ids, types) = (&golden["input_ids"], &golden["token_type_ids"]);
        let mask = &golden["attention_mask"];
        let logits = model.forward(ids, Some(types), Some(mask), &Mode::Eval)?;
        assert_close(name, &logits, &golden["logits"], 1e-10)?;
    }
    Ok(())
}

// ---- derivatives and training ---------------------------------------------------------------

#[test]
fn classifiers_of_sequences_are_reached_and_differentiated_everywhere() -> Result<()> {
    let (ids, mask) = batch()?;
    let labels = Tensor::new(&[1u32, 0], &CPU)?;
    for architecture in minute()? {
        let model = SequenceClassifier::new(&architecture, 2, &start(DType::F64))?;
        let loss = || {
            let logits = model.forward(&ids, None, Some(&mask), &TRAIN)?;
            cross_entropy(&logits, &labels, 0.0, None)
        };
        check::all_reached(&model.vars(), loss)?;
        check::gradient(&model.vars(), 1e-6, loss)?;
        check::hessian(&model.vars(), 1e-6, loss)?;
    }
    Ok(())
}

#[test]
fn classifiers_of_tokens_are_reached_and_differentiated_everywhere() -> Result<()> {
    let (ids, mask) = batch()?;
    let none = u32::MAX;
    let labels = Tensor::new(&[0u32, 2, 1, none, 1, 0, 2, none], &CPU)?;
    let [bert, squeezebert, ..] = tiny()?;
    for architecture in minute()?.into_iter().chain([bert, squeezebert]) {
        let model = TokenClassifier::new(&architecture, 3, &start(DType::F64))?;
        let loss = || {
            let logits = model.forward(&ids, None, Some(&mask), &TRAIN)?; // [2, 4, 3]
            cross_entropy(&logits.flatten_to(1)?, &labels, 0.0, Some(none.into()))
        };
        check::all_reached(&model.vars(), loss)?;
        if architecture.width == 8 {
            check::gradient(&model.vars(), 1e-6, loss)?;
            check::hessian(&model.vars(), 1e-6, loss)?;
        }
    }
    Ok(())
}

#[test]
fn masked_language_models_are_reached_and_differentiated_everywhere() -> Result<()> {
    let (ids, mask) = batch()?;
    let none = u32::MAX;
    let targets = Tensor::new(&[none, 4, none, none, 1, none, none, none], &CPU)?;
    for architecture in minute()? {
        let model = MaskedLanguageModel::new(&architecture, &start(DType::F64))?;
        let loss = || {
            let logits = model.forward(&ids, None, Some(&mask), &TRAIN)?; // [2, 4, 9]
            cross_entropy(&logits.flatten_to(1)?, &targets, 0.0, Some(none.into()))
        };
        check::all_reached(&model.vars(), loss)?;
        check::gradient(&model.vars(), 1e-6, loss)?;
        check::hessian(&model.vars(), 1e-6, loss)?;
    }
    Ok(())
}

#[test]
fn a_small_batch_overfits() -> Result<()> {
    let (ids, mask) = batch()?;
    let targets = Tensor::new(&[0.8f32, -0.5], &CPU)?;
    for architecture in tiny()?.into_iter().skip(2) {
        let model = SequenceClassifier::new(&architecture, 1, &start(DType::F32))?;
        let builder = adahessian::AdaHessian::builder().lr(0.05);
        let mut optimizer = builder.blocks(model.blocks()).build(model.vars())?;
        let loss = || {
            let logits = model.forward(&ids, None, Some(&mask), &Mode::Eval)?;
            mse(&logits.squeeze(1)?, &targets)
        };
        let before = loss()?.to_scalar::<f32>()?;
        for _ in 0..60 {
            optimizer.backward_step(&loss()?)?;
        }
        let after = loss()?.to_scalar::<f32>()?;
        let name = architecture.model_type();
        assert!(before > 0.1 && after < 1e-2, "{name}: {before} to {after}");
    }
    Ok(())
}

// ---- one family as another ------------------------------------------------------------------

/// A convolution of kernel 1 in one group is a linear map, so a SqueezeBERT without groups is a BERT: the same logits
/// with the same dropout, the same gradients and Hz.
#[test]
fn a_squeezebert_of_one_group_is_a_bert() -> Result<()> {
    let config = squeezebert::Config {
        q_groups: 1,
        k_groups: 1,
        v_groups: 1,
        intermediate_groups: 1,
        output_groups: 1,
        ..squeezebert::Config::tiny()
    };
    let derivatives = |architecture: &Architecture, name: &dyn Fn(&str) -> String| {
        let model = SequenceClassifier::new(architecture, 3, &start(DType::F64))?;
        let numbers = |kind: &str, variable: &str, shape: &[usize]| {
            random(&format!("{kind} of {}", name(variable)), shape)
        };
        for (variable, var) in model.vars().iter() {
            var.set(&numbers("value", variable, var.dims())?.affine(0.3, 0.0)?)?;
        }
        let z: Vec<_> = model
            .vars()
            .iter()
            .map(|(variable, var)| numbers("direction", variable, var.dims()))
            .collect::<Result<_>>()?;
        let (ids, mask) = batch()?;
        let types = Tensor::new(&[[0u32, 0, 1, 1], [0, 1, 1, 0]], &CPU)?;
        let logits = model.forward(&ids, Some(&types), Some(&mask), &TRAIN)?;
        let labels = Tensor::new(&[1u32, 0], &CPU)?;
        let loss = cross_entropy(&logits, &labels, 0.0, None)?;
        let hessian = Hessian::of(&loss, &model.vars())?;
        let gradient = hessian.gradient()?;
        let product = hessian.apply(&VarVec::new(&model.vars(), z)?)?;
        let derivatives = gradient.iter().zip(product.iter());
        let derivatives: BTreeMap<_, _> = derivatives
            .map(|((variable, g), (_, hz))| (name(variable), [g.clone(), hz.clone()]))
            .collect();
        anyhow::Ok((logits, derivatives))
    };
    let (expected, theirs) = derivatives(&bert::Config::tiny().architecture()?, &str::to_string)?;
    let (logits, ours) = derivatives(&config.architecture()?, &name_in_bert)?;
    assert_close("logits", &logits, &expected, 1e-12)?;
    assert!(theirs.keys().eq(ours.keys()), "{theirs:?}, {ours:?}");
    for (name, expected) in &theirs {
        for (i, what) in ["gradient", "Hz"].into_iter().enumerate() {
            let got = ours[name][i].reshape(expected[i].dims())?;
            match name.ends_with("key.bias") {
                // Scores of a query that are all the same more: zero but for rounding.
                true => assert!(testing::largest(&got)? < 1e-12),
                false => assert_close(&format!("{what} of {name}"), &got, &expected[i], 1e-10)?,
            }
        }
    }
    Ok(())
}

fn name_in_bert(name: &str) -> String {
    let in_layer = [
        ("attention.output.dense", "post_attention.conv1d"),
        ("attention.output.LayerNorm", "post_attention.layernorm"),
        ("intermediate.dense", "intermediate.conv1d"),
        ("output.dense", "output.conv1d"),
        ("output.LayerNorm", "output.layernorm"),
        ("attention.self.query", "attention.query"),
        ("attention.self.key", "attention.key"),
        ("attention.self.value", "attention.value"),
        ("encoder.layer.", "encoder.layers."),
        ("bert.", "transformer."),
    ];
    in_layer
        .iter()
        .fold(name.to_string(), |name, (bert, squeezebert)| {
            name.replace(squeezebert, bert)
        })
}

// ---- positions ------------------------------------------------------------------------------

/// RoBERTa counts the text's tokens, so padding in front or behind changes nothing; BERT counts places.
#[test]
fn robertas_positions_skip_padding() -> Result<()> {
    let text = [5u32, 9, 3, 17];
    let logits = |architecture: &Architecture, before: usize, after: usize| -> Result<Tensor> {
        let model = TokenClassifier::new(architecture, 3, &start(DType::F64))?;
        let padded = |value: u32, fill: u32, text: &[u32]| {
            let text = text.iter().map(|id| if fill == 1 { *id } else { value });
            let mut row = vec![fill; before];
            row.extend(text);
            row.extend(vec![fill; after]);
            Tensor::from_vec(row, (1, before + 4 + after), &CPU)
        };
        let (ids, mask) = (padded(0, 1, &text)?, padded(1, 0, &text)?);
        let all = model.forward(&ids, None, Some(&mask), &Mode::Eval)?;
        Ok(all.narrow(1, before, 4)?)
    };
    let [bert, _, _, roberta] = tiny()?;
    let plain = logits(&roberta, 0, 0)?;
    for (before, after) in [(0, 3), (3, 0), (2, 5)] {
        let padded = logits(&roberta, before, after)?;
        assert_close("padded RoBERTa", &padded, &plain, 1e-12)?;
    }
    let moved = testing::relative_error(&logits(&bert, 3, 0)?, &logits(&bert, 0, 0)?)?;
    assert!(moved > 1e-3, "BERT: {moved}");
    Ok(())
}

#[test]
fn robertas_first_token_has_the_position_behind_the_padding() -> Result<()> {
    let architecture = roberta::Config::tiny().architecture()?;
    let model = MaskedLanguageModel::new(&architecture, &start(DType::F64))?;
    let ids = Tensor::new(&[[5u32, 1, 7]], &CPU)?;
    let forward = || model.forward(&ids, None, None, &Mode::Eval);
    let before = forward()?;
    let vars = model.vars();
    let table = vars.get("roberta.embeddings.position_embeddings.weight")?;
    let origin = table.as_detached_tensor().copy()?;
    // Rows 2 and 3 are the text's, row 1 the padding's; the others do nothing.
    for row in 0..6 {
        let mut factor = vec![1f64; 34];
        factor[row] = 2.0;
        let factor = Tensor::from_vec(factor, (34, 1), &CPU)?;
        table.set(&origin.broadcast_mul(&factor)?)?;
        let moved = testing::relative_error(&forward()?, &before)? > 1e-6;
        assert_eq!(moved, (1..4).contains(&row), "row {row}");
    }
    table.set(&origin)?;
    // 34 rows of positions are 32 tokens.
    let long = |length: usize| {
        let ids = Tensor::full(5u32, (1, length), &CPU)?;
        model.forward(&ids, None, None, &Mode::Eval)
    };
    assert!(long(32).is_ok());
    assert_says(long(33), &["input_ids", "1 to 32", "[1, 33]"]);
    Ok(())
}

// ---- names, blocks, files -------------------------------------------------------------------

#[test]
fn names_and_shapes_are_those_of_the_hub() -> Result<()> {
    let [_, _, distilled, roberta] = tiny()?;
    let start = start(DType::F32);
    let shape = |model: &dyn Model, name: &str| -> Result<Vec<usize>> {
        Ok(model.vars().get(name)?.dims().to_vec())
    };
    let model = SequenceClassifier::new(&distilled, 3, &start)?;
    for (name, expected) in [
        (
            "distilbert.embeddings.word_embeddings.weight",
            vec![128, 32],
        ),
        (
            "distilbert.embeddings.position_embeddings.weight",
            vec![32, 32],
        ),
        ("distilbert.embeddings.LayerNorm.bias", vec![32]),
        (
            "distilbert.transformer.layer.1.attention.q_lin.weight",
            vec![32, 32],
        ),
        (
            "distilbert.transformer.layer.0.attention.out_lin.bias",
            vec![32],
        ),
        (
            "distilbert.transformer.layer.0.sa_layer_norm.weight",
            vec![32],
        ),
        (
            "distilbert.transformer.layer.0.ffn.lin1.weight",
            vec![64, 32],
        ),
        (
            "distilbert.transformer.layer.0.ffn.lin2.weight",
            vec![32, 64],
        ),
        (
            "distilbert.transformer.layer.1.output_layer_norm.bias",
            vec![32],
        ),
        ("pre_classifier.weight", vec![32, 32]),
        ("classifier.weight", vec![3, 32]),
    ] {
        assert_eq!(shape(&model, name)?, expected, "{name}");
    }
    assert_eq!(model.vars().len(), 4 + 2 * 16 + 4);
    let model = MaskedLanguageModel::new(&distilled, &start)?;
    assert_eq!(shape(&model, "vocab_transform.weight")?, [32, 32]);
    assert_eq!(shape(&model, "vocab_layer_norm.bias")?, [32]);
    assert_eq!(shape(&model, "vocab_projector.bias")?, [128]);
    assert!(model.vars().get("vocab_projector.weight").is_err());
    let model = SequenceClassifier::new(&roberta, 3, &start)?;
    for (name, expected) in [
        (
            "roberta.embeddings.position_embeddings.weight",
            vec![34, 32],
        ),
        (
            "roberta.embeddings.token_type_embeddings.weight",
            vec![1, 32],
        ),
        (
            "roberta.encoder.layer.1.attention.self.query.weight",
            vec![32, 32],
        ),
        (
            "roberta.encoder.layer.1.attention.output.LayerNorm.bias",
            vec![32],
        ),
        ("classifier.dense.weight", vec![32, 32]),
        ("classifier.out_proj.weight", vec![3, 32]),
    ] {
        assert_eq!(shape(&model, name)?, expected, "{name}");
    }
    let model = MaskedLanguageModel::new(&roberta, &start)?;
    assert_eq!(shape(&model, "lm_head.dense.weight")?, [32, 32]);
    assert_eq!(shape(&model, "lm_head.layer_norm.weight")?, [32]);
    assert_eq!(shape(&model, "lm_head.bias")?, [128]);
    let sizes = |a: Architecture| (a.layers, a.width, a.positions, a.vocabulary);
    let base = distilbert::Config::base().architecture()?;
    assert_eq!(sizes(base), (6, 768, 512, 30522));
    let base = roberta::Config::base().architecture()?;
    assert_eq!(sizes(base), (12, 768, 512, 50265));
    Ok(())
}

/// A variable's first numbers are a function of the seed and its name, and stay what they are: results and
/// resumed runs depend on them.
#[test]
fn first_numbers_are_those_of_the_stream() -> Result<()> {
    use adahessian::random::Stream;
    let start = start(DType::F32);
    let drawn = |name: &str| Stream::new(7, &format!("weight/{name}"), 0, 0);
    let normal = |var: &Tensor, name: &str, deviation: f64| -> Result<()> {
        let unit = drawn(name).normal_tensor(var.dims(), DType::F32, &CPU)?;
        assert_close(name, var, &(unit * deviation)?, 0.0)
    };
    for architecture in tiny()? {
        let model = SequenceClassifier::new(&architecture, 2, &start)?;
        for (name, var) in model.vars().iter().filter(|(_, var)| var.rank() > 1) {
            normal(var, name, 0.02)?;
        }
    }
    let model = ResNet::new(&resnet::Config::named("resnet20")?, &start)?;
    let (name, vars) = ("layer2.0.conv1.weight", model.vars());
    normal(vars.get(name)?, name, (2.0 / (9.0 * 32.0_f64)).sqrt())?;
    let fc = vars.get("fc.weight")?;
    let bound = 1.0 / 64f64.sqrt();
    let numbers = drawn("fc.weight").uniform(640).into_iter();
    let numbers = numbers.map(|u| bound * (2.0 * u - 1.0)).collect::<Vec<_>>();
    let expected = Tensor::from_vec(numbers, (10, 64), &CPU)?.to_dtype(DType::F32)?;
    assert_close("fc.weight", fc, &expected, 0.0)?;
    let config = dlrm::Config {
        bottom: vec![3, 4, 2],
        tables: vec![5, 4],
        top: vec![4, 1],
    };
    let model = Dlrm::new(&config, &start, adahessian::sparse::Precision::F32)?;
    let (name, vars) = ("bot_l.2.bias", model.vars());
    normal(vars.get(name)?, name, (1.0 / 2f64).sqrt())
}

/// What the layers say is what the shapes say, for every variable of every model.
#[test]
fn blocks_by_kind_are_the_blocks_by_shape() -> Result<()> {
    let same = |model: &dyn Model, by_shape: Blocks| -> Result<()> {
        let blocks = model.blocks();
        for (name, var) in model.vars().iter() {
            let expected = by_shape.resolve(name, var.dims())?;
            assert_eq!(blocks.resolve(name, var.dims())?, expected, "{name}");
            assert!(model.variables().kinds().get(name).is_some(), "{name}");
        }
        Ok(())
    };
    let start = start(DType::F32);
    for architecture in tiny()? {
        let matrices = || Blocks::matrices(Block::Chunks(4));
        let model = SequenceClassifier::new(&architecture, 2, &start)?;
        same(&model, matrices())?;
        same(&TokenClassifier::new(&architecture, 2, &start)?, matrices())?;
        same(
            &MaskedLanguageModel::new(&architecture, &start)?,
            matrices(),
        )?;
    }
    for name in ["resnet20", "resnet18", "resnet50"] {
        let config = resnet::Config {
            width: 4,
            ..resnet::Config::named(name)?
        };
        same(&ResNet::new(&config, &start)?, Blocks::spatial())?;
    }
    let config = dlrm::Config {
        bottom: vec![3, 4, 2],
        tables: vec![5, 4],
        top: vec![4, 1],
    };
    let precision = adahessian::sparse::Precision::F32;
    same(&Dlrm::new(&config, &start, precision)?, Blocks::single())
}

#[test]
fn every_model_opens_again_by_its_folder() -> Result<()> {
    let (ids, mask) = batch()?;
    for architecture in tiny()? {
        let folder = tempfile::tempdir()?;
        let other = Start {
            seed: 99,
            ..start(DType::F32)
        };
        let start = start(DType::F32);
        let model = SequenceClassifier::new(&architecture, 3, &start)?;
        model.save(folder.path())?;
        let (again, report) = auto::sequence_classifier(folder.path(), None, &other)?;
        assert!(report.initialised.is_empty() && report.unused.is_empty());
        assert_eq!(again.config(), model.config());
        let forward =
            |model: &SequenceClassifier| model.forward(&ids, None, Some(&mask), &Mode::Eval);
        assert_close("logits", &forward(&again)?, &forward(&model)?, 0.0)?;

        let model = TokenClassifier::new(&architecture, 5, &start)?;
        model.save(folder.path())?;
        let (again, report) = auto::token_classifier(folder.path(), None, &other)?;
        assert!(report.initialised.is_empty() && report.unused.is_empty());
        assert_eq!(again.labels(), 5);
        let forward = |model: &TokenClassifier| model.forward(&ids, None, Some(&mask), &Mode::Eval);
        assert_eq!(forward(&model)?.dims(), [2, 4, 5]);
        assert_close("logits", &forward(&again)?, &forward(&model)?, 0.0)?;

        let model = MaskedLanguageModel::new(&architecture, &start)?;
        model.save(folder.path())?;
        let (again, report) = auto::masked_language_model(folder.path(), &other)?;
        assert!(report.initialised.is_empty() && report.unused.is_empty());
        let forward =
            |model: &MaskedLanguageModel| model.forward(&ids, None, Some(&mask), &Mode::Eval);
        assert_close("logits", &forward(&again)?, &forward(&model)?, 0.0)?;
        let class = model.config()["architectures"][0]
            .as_str()
            .map(String::from);
        assert!(class.is_some_and(|class| class.ends_with("ForMaskedLM")));
        // Another task on the same file: the encoder is loaded, the head is fresh.
        let (_, report) = auto::token_classifier(folder.path(), Some(2), &other)?;
        assert_eq!(report.initialised, ["classifier.bias", "classifier.weight"]);
        assert_eq!(report.unused.len(), 5, "{:?}", report.unused);
    }
    Ok(())
}

#[test]
fn a_fresh_head_replaces_the_checkpoints() -> Result<()> {
    let fresh = |new_head| Start {
        seed: 99,
        new_head,
        ..Start::default()
    };
    let heads = [
        vec!["classifier.bias", "classifier.weight"],
        vec![
            "classifier.dense.bias",
            "classifier.dense.weight",
            "classifier.out_proj.bias",
            "classifier.out_proj.weight",
        ],
    ];
    for (architecture, head) in tiny()?.into_iter().skip(2).zip(heads) {
        let folder = tempfile::tempdir()?;
        let model = SequenceClassifier::new(&architecture, 3, &start(DType::F32))?;
        model.save(folder.path())?;
        let outcome = auto::sequence_classifier(folder.path(), Some(2), &fresh(false));
        assert_says(outcome.map(drop), &["classifier.", "[2, 32]", "[3, 32]"]);
        let (_, report) = auto::sequence_classifier(folder.path(), Some(2), &fresh(true))?;
        assert_eq!(report.initialised, head);
        assert_eq!(report.unused, head);
    }
    Ok(())
}

#[test]
fn token_types_are_not_looked_at_where_there_are_none() -> Result<()> {
    let (ids, mask) = batch()?;
    let [bert, _, distilled, roberta] = tiny()?;
    let types = Tensor::new(&[[0u32, 0, 1, 1], [0, 1, 1, 0]], &CPU)?;
    let logits = |architecture: &Architecture, types: Option<&Tensor>| {
        let model = SequenceClassifier::new(architecture, 2, &start(DType::F64))?;
        model.forward(&ids, types, Some(&mask), &Mode::Eval)
    };
    let (without, with) = (logits(&distilled, None)?, logits(&distilled, Some(&types))?);
    assert_close("DistilBERT", &with, &without, 0.0)?;
    let (without, with) = (logits(&bert, None)?, logits(&bert, Some(&types))?);
    assert!(testing::relative_error(&with, &without)? > 1e-4);
    // Hugging Face's is never given any.
    let (without, with) = (logits(&roberta, None)?, logits(&roberta, Some(&types))?);
    assert_close("RoBERTa", &with, &without, 0.0)
}

#[test]
fn unsupported_configurations_name_the_field() -> Result<()> {
    let read = |text: serde_json::Value| -> Result<Architecture> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("config.json"), text.to_string())?;
        Ok(auto::Config::read(folder.path())?.architecture()?)
    };
    for (field, value) in [
        ("sinusoidal_pos_embds", json!(true)),
        ("n_heads", json!(5)),
        ("dim", json!(0)),
        ("dropout", json!(1.0)),
        ("activation", json!("gelu_new")),
        ("tie_word_embeddings", json!(false)),
        ("initializer_range", json!(-0.1)),
    ] {
        let outcome = read(json!({ "model_type": "distilbert", field: value }));
        let says = if field == "activation" {
            "gelu_new"
        } else {
            field
        };
        assert_says(outcome.map(drop), &[says]);
    }
    for (field, value) in [
        ("position_embedding_type", json!("relative_key")),
        ("is_decoder", json!(true)),
        ("pad_token_id", json!(60000)),
        ("max_position_embeddings", json!(2)),
        ("layer_norm_eps", json!(-1.0)),
    ] {
        let outcome = read(json!({ "model_type": "roberta", field: value }));
        assert_says(outcome.map(drop), &[field]);
    }
    // What is not there has the value of transformers.
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("config.json");
    std::fs::write(&path, r#"{"model_type": "distilbert"}"#)?;
    let config = distilbert::Config::read(folder.path())?;
    assert_eq!(config, distilbert::Config::default());
    assert_says(
        roberta::Config::read(folder.path()).map(drop),
        &["`distilbert`", "`roberta`"],
    );
    Ok(())
}

/// A checkpoint's table of positions is taken as it is, whatever it began as; without one there would be no sines.
#[test]
fn a_distilbert_whose_positions_began_as_sines_is_loaded() -> Result<()> {
    let (folder, start) = (tempfile::tempdir()?, start(DType::F32));
    let folder = folder.path();
    let architecture = distilbert::Config::tiny().architecture()?;
    let model = SequenceClassifier::new(&architecture, 2, &start)?;
    model.save(folder)?;
    let path = folder.join("config.json");
    let mut config: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
    config["sinusoidal_pos_embds"] = true.into();
    std::fs::write(&path, config.to_string())?;
    let (again, _) = auto::sequence_classifier(folder, None, &start)?;
    for (name, var) in model.vars().iter() {
        assert_close(name, again.vars().get(name)?, var, 0.0)?;
    }
    assert_eq!(again.config()["sinusoidal_pos_embds"], false);
    let fresh = auto::Checkpoint::open(folder)?.config().architecture();
    assert_says(
        fresh.map(drop),
        &["sinusoidal_pos_embds", "auto::Checkpoint"],
    );
    Ok(())
}

/// A model of somebody else, on the public names alone.
#[test]
fn a_model_of_ones_own_is_drawn_and_loaded() -> Result<()> {
    use adahessian::nn::{self, Module};
    let make = |vb: nn::VarBuilder| -> models::Result<(nn::Linear, nn::Linear)> {
        let first = nn::linear(3, 4, vb.pp("encoder.first"))?;
        let last = weights::head(|| nn::linear(4, 2, vb.pp("last")))?;
        Ok((first, last))
    };
    let (_, variables) = weights::draw(&start(DType::F32), make)?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("any.safetensors");
    variables.map().save(&path)?;
    let other = Start::default();
    let ((first, _), again, report) = weights::load(&path, "encoder", &other, make)?;
    assert!(report.initialised.is_empty() && report.unused.is_empty());
    let x = Tensor::ones((1, 3), DType::F32, &CPU)?;
    assert_eq!(first.forward(&x)?.dims(), [1, 4]);
    for (name, var) in variables.saved().iter() {
        assert_close(name, again.saved().get(name)?, var, 0.0)?;
    }
    Ok(())
}

// ---- files ------------------------------------------------------------------------------------

/// A pipeline takes the sigmoid of one label, and the softmax of several, unless it is told what they are.
#[test]
fn classifiers_say_what_they_were_trained_for() -> Result<()> {
    let problem = |folder: &Path| -> Result<serde_json::Value> {
        let config = std::fs::read_to_string(folder.join("config.json"))?;
        let config: serde_json::Value = serde_json::from_str(&config)?;
        Ok(config["problem_type"].clone())
    };
    let (folder, start) = (tempfile::tempdir()?, start(DType::F32));
    let folder = folder.path();
    for architecture in tiny()? {
        SequenceClassifier::new(&architecture, 1, &start)?.save(folder)?;
        assert_eq!(problem(folder)?, "regression");
        SequenceClassifier::new(&architecture, 3, &start)?.save(folder)?;
        assert_eq!(problem(folder)?, "single_label_classification");
        TokenClassifier::new(&architecture, 3, &start)?.save(folder)?;
        assert!(problem(folder)?.is_null());
        // A head that is kept keeps what it says, a fresh one does not.
        SequenceClassifier::new(&architecture, 3, &start)?.save(folder)?;
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path)?;
        let several = text.replace("single_label", "multi_label");
        std::fs::write(&path, &several)?;
        let (model, _) = auto::sequence_classifier(folder, None, &start)?;
        model.save(folder)?;
        assert_eq!(problem(folder)?, "multi_label_classification");
        let fresh = Start {
            new_head: true,
            ..start.clone()
        };
        let (model, _) = auto::sequence_classifier(folder, None, &fresh)?;
        model.save(folder)?;
        assert_eq!(problem(folder)?, "single_label_classification");
    }
    Ok(())
}

/// A RoBERTa with two types of tokens has two functions for them, as transformers' has; one with one type is given none.
#[test]
fn a_roberta_of_two_types_looks_at_them() -> Result<()> {
    let logits = |types: usize| -> Result<[Tensor; 2]> {
        let config = roberta::Config {
            type_vocab_size: types,
            ..roberta::Config::tiny()
        };
        let model = SequenceClassifier::new(&config.architecture()?, 2, &start(DType::F64))?;
        let ids = Tensor::new(&[[0u32, 5, 8, 2]], &CPU)?;
        let types = Tensor::new(&[[0u32, 0, 1, 1]], &CPU)?;
        let run = |types| model.forward(&ids, types, None, &Mode::Eval);
        Ok([run(None)?, run(Some(&types))?])
    };
    let [none, given] = logits(1)?;
    assert_close("one type", &none, &given, 0.0)?;
    let [none, given] = logits(2)?;
    let apart = testing::largest(&(none - given)?)?;
    assert!(apart > 1e-6, "{apart}");
    Ok(())
}

/// What others read in a config.json is there after training, too, as far as it is true: of the encoder always, of the
/// outputs as long as the head is the same.
#[test]
fn what_others_say_in_config_json_stays() -> Result<()> {
    let (folder, start) = (tempfile::tempdir()?, start(DType::F32));
    let folder = folder.path();
    let path = folder.join("config.json");
    let read = || -> Result<serde_json::Value> {
        Ok(serde_json::from_str(&std::fs::read_to_string(&path)?)?)
    };
    for architecture in tiny()? {
        SequenceClassifier::new(&architecture, 1, &start)?.save(folder)?;
        let mut config = read()?;
        config["tokenizer_class"] = "BertTokenizer".into();
        config["pad_token_id"] = 0.into();
        config["sbert_ce_default_activation_function"] = "torch.nn.Identity".into();
        config["transformers_version"] = "4.57.0".into();
        config["_name_or_path"] = "somebody's".into();
        config
            .as_object_mut()
            .context("an object")?
            .remove("problem_type");
        std::fs::write(&path, config.to_string())?;
        let kept = auto::sequence_classifier(folder, None, &start)?.0;
        kept.save(folder)?;
        let after = read()?;
        for name in [
            "tokenizer_class",
            "pad_token_id",
            "sbert_ce_default_activation_function",
        ] {
            assert_eq!(after[name], config[name], "{name}");
        }
        for name in ["transformers_version", "_name_or_path", "problem_type"] {
            assert_eq!(after.get(name), None, "{name}");
        }
        let said = kept.with_problem(Problem::Regression).config();
        assert_eq!(said["problem_type"], "regression");
        let fresh = Start {
            new_head: true,
            ..start.clone()
        };
        let fresh = auto::sequence_classifier(folder, None, &fresh)?.0.config();
        assert_eq!(fresh["tokenizer_class"], "BertTokenizer");
        assert_eq!(fresh.get("sbert_ce_default_activation_function"), None);
        let words = auto::masked_language_model(folder, &start).map(|(model, _)| model.config());
        if let Ok(words) = words {
            assert_eq!(words["tokenizer_class"], "BertTokenizer");
            assert_eq!(words.get("sbert_ce_default_activation_function"), None);
        }
        let fresh = Start {
            new_head: true,
            ..start.clone()
        };
        let (tokens, _) = auto::token_classifier(folder, Some(3), &fresh)?;
        assert_eq!(tokens.config()["pad_token_id"], config["pad_token_id"]);
    }
    Ok(())
}

/// transformers takes both names of a size; one that is not understood would be the default, without a word.
#[test]
fn sizes_of_distilbert_have_two_names() -> Result<()> {
    let (folder, start) = (tempfile::tempdir()?, start(DType::F32));
    let architecture = distilbert::Config {
        n_heads: 4,
        ..distilbert::Config::tiny()
    };
    let model = SequenceClassifier::new(&architecture.architecture()?, 2, &start)?;
    model.save(folder.path())?;
    let path = folder.path().join("config.json");
    let text = std::fs::read_to_string(&path)?;
    let read = || distilbert::Config::read(folder.path());
    let own = read()?;
    let renamed = text
        .replace("\"n_heads\"", "\"num_attention_heads\"")
        .replace("\"n_layers\"", "\"num_hidden_layers\"")
        .replace("\"dim\"", "\"hidden_size\"");
    assert_ne!(renamed, text);
    std::fs::write(&path, &renamed)?;
    assert_eq!(read()?, own);
    let again = auto::sequence_classifier(folder.path(), None, &start)?.0;
    assert_eq!(again.encoder().architecture().heads, 4);
    let both = text.replacen('{', "{\"num_attention_heads\": 8,", 1);
    std::fs::write(&path, both)?;
    assert_says(read().map(drop), &["n_heads", "8", "num_attention_heads"]);
    Ok(())
}

/// Other accounts may read what other accounts may read of any new file.
#[cfg(unix)]
#[test]
fn saved_files_have_the_rights_of_new_files() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir()?;
    let model = SequenceClassifier::new(&tiny()?[0], 2, &start(DType::F32))?;
    model.save(folder.path())?;
    let rights = |name: &str| -> Result<u32> {
        Ok(std::fs::metadata(folder.path().join(name))?
            .permissions()
            .mode())
    };
    std::fs::write(folder.path().join("new"), "")?;
    assert_eq!(rights("model.safetensors")?, rights("new")?);
    assert_eq!(rights("config.json")?, rights("new")?);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder.path())? {
        names.push(entry?.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["config.json", "model.safetensors", "new"]);
    Ok(())
}

// ---- labels -----------------------------------------------------------------------------------

/// What labels are called is written for other programs, read again, and not mixed up.
#[test]
fn labels_keep_their_names() -> Result<()> {
    let names = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
    let (nli, other_order) = (
        names("entailment neutral contradiction"),
        names("CONTRADICTION NEUTRAL ENTAILMENT"),
    );
    let start = start(DType::F32);
    for architecture in tiny()? {
        let folder = tempfile::tempdir()?;
        let model = SequenceClassifier::new(&architecture, 3, &start)?;
        assert_eq!(model.label_names(), names("LABEL_0 LABEL_1 LABEL_2"));
        // Without names of its own a checkpoint takes any.
        model.save(folder.path())?;
        let (nameless, _) = auto::sequence_classifier(folder.path(), None, &start)?;
        nameless.with_label_names(&nli)?.save(folder.path())?;
        let config = std::fs::read_to_string(folder.path().join("config.json"))?;
        let config: serde_json::Value = serde_json::from_str(&config)?;
        assert_eq!(config["id2label"]["2"], "contradiction");
        assert_eq!(config["label2id"]["neutral"], 1);

        let open = |start: &Start| auto::sequence_classifier(folder.path(), None, start);
        let (again, _) = open(&start)?;
        assert_eq!(again.label_names(), nli);
        let upper: Vec<String> = nli.iter().map(|name| name.to_uppercase()).collect();
        again.clone().with_label_names(&upper)?;
        assert_says(
            again.clone().with_label_names(&other_order).map(drop),
            &["ENTAILMENT", "entailment", "another order", "--new-head"],
        );
        assert_says(again.with_label_names(&nli[..2]).map(drop), &["3 names"]);
        // A fresh classifier means what it is told.
        let fresh = Start {
            new_head: true,
            ..start.clone()
        };
        let (fresh, _) = open(&fresh)?;
        assert_eq!(fresh.label_names(), names("LABEL_0 LABEL_1 LABEL_2"));
        fresh.with_label_names(&other_order)?;
    }
    Ok(())
}

#[test]
fn labels_of_tokens_keep_their_names() -> Result<()> {
    let start = start(DType::F32);
    let names = ["B-PER", "I-PER", "O"].map(String::from);
    for architecture in tiny()? {
        let folder = tempfile::tempdir()?;
        let model = TokenClassifier::new(&architecture, 3, &start)?.with_label_names(&names)?;
        model.save(folder.path())?;
        let (again, _) = auto::token_classifier(folder.path(), Some(3), &start)?;
        assert_eq!(again.label_names(), names);
        let turned = ["O", "B-PER", "I-PER"].map(String::from);
        assert_says(
            again.with_label_names(&turned).map(drop),
            &["B-PER", "order"],
        );
        let twice = ["O", "O", "I-PER"].map(String::from);
        let model = TokenClassifier::new(&architecture, 3, &start)?;
        assert_says(model.with_label_names(&twice).map(drop), &["no two alike"]);
        // Of another number they are none of its names.
        let fresh = Start {
            new_head: true,
            ..start.clone()
        };
        let (four, _) = auto::token_classifier(folder.path(), Some(4), &fresh)?;
        assert_eq!(four.label_names()[3], "LABEL_3");
    }
    Ok(())
}

/// The number of layers may be another than that of the configuration it was read from: what is saved has it.
#[test]
fn a_model_with_other_layers_is_saved_with_their_number() -> Result<()> {
    for (mut architecture, layers) in tiny()?.into_iter().zip([1, 3, 1, 3]) {
        architecture.layers = layers;
        let model = SequenceClassifier::new(&architecture, 2, &Start::default())?;
        let folder = tempfile::tempdir()?;
        model.save(folder.path())?;
        let (again, report) = auto::sequence_classifier(folder.path(), None, &Start::default())?;
        let what = architecture.model_type();
        assert_eq!(again.encoder().architecture().layers, layers, "{what}");
        assert!(
            report.unused.is_empty() && report.initialised.is_empty(),
            "{what}"
        );
        assert_eq!(model.vars().len(), again.vars().len(), "{what}");
    }
    Ok(())
}
