//! BERT and SqueezeBERT: against transformers, their checkpoints, and what they refuse.

use adahessian::ops::{self, Mode, cross_entropy};
use adahessian::{Block, Hessian, LinearOperator, NamedVars, VarVec, check};
use candle_core::{DType, Device, Tensor};
use candle_nn::Optimizer;
use models::{
    Architecture, Error, LoadReport, MaskedLanguageModel, Model, SequenceClassifier, Start, auto,
    bert, squeezebert,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const CPU: Device = Device::Cpu;
const TRAIN: Mode = Mode::Train {
    seed: 1,
    step: 2,
    micro: 0,
};

fn start(dtype: DType) -> Start {
    seeded(0, dtype)
}

fn seeded(seed: u64, dtype: DType) -> Start {
    Start {
        seed,
        dtype,
        device: CPU,
        ..Start::default()
    }
}

fn f64s(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor.to_dtype(DType::F64).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

// ---- against transformers -------------------------------------------------------------------

fn golden_folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("reference/huggingface")
        .join(case)
}

/// max |a - b| ≤ tolerance · max |b|, or ≤ tolerance where b is zero in exact arithmetic.
fn assert_close(name: &str, got: &Tensor, expected: &Tensor, tolerance: f64) {
    if !name.ends_with("key.bias") {
        return testing::assert_close(name, got, expected, tolerance).unwrap();
    }
    assert_eq!(got.dims(), expected.dims(), "{name}");
    for (got, expected) in f64s(got).iter().zip(f64s(expected)) {
        assert!(
            (got - expected).abs() <= tolerance,
            "{name}: {got}, {expected}"
        );
    }
}

fn against_golden(case: &str, dtype: DType, tolerance: f64) {
    let folder = golden_folder(case);
    let read = |file: &str| candle_core::safetensors::load(folder.join(file), &CPU).unwrap();
    let (golden, inputs, z) = (
        read("f64.safetensors"),
        read("inputs.safetensors"),
        read("z.safetensors"),
    );
    let (model, report) = auto::sequence_classifier(&folder, None, &start(dtype)).unwrap();
    assert_eq!(
        (report.initialised.len(), report.unused.len()),
        (0, 0),
        "{report:?}"
    );
    assert_eq!(report.loaded.len(), z.len());
    let (types, mask) = (&inputs["token_type_ids"], &inputs["attention_mask"]);
    let outputs = model
        .outputs(&inputs["input_ids"], Some(types), Some(mask), &Mode::Eval)
        .unwrap();
    assert_eq!(outputs.hidden_states.len(), 3);
    for (i, state) in outputs.hidden_states.iter().enumerate() {
        let name = format!("hidden_states.{i}");
        assert_close(&name, state, &golden[&name], tolerance);
    }
    assert_close("pooled", &outputs.pooled, &golden["pooled"], tolerance);
    assert_close("logits", &outputs.logits, &golden["logits"], tolerance);
    let loss = cross_entropy(&outputs.logits, &inputs["labels"], 0.0, None).unwrap();
    assert_close("loss", &loss, &golden["loss"], tolerance);

    // The last layer for every position, and for the first alone.
    let ids = &inputs["input_ids"];
    let first = model.forward(ids, Some(types), Some(mask), &Mode::Eval);
    let first = cross_entropy(&first.unwrap(), &inputs["labels"], 0.0, None).unwrap();
    assert_close("loss", &first, &golden["loss"], tolerance);
    let vars = model.vars();
    let probe = VarVec::from_fn(&vars, |name, _, dtype, _| Ok(z[name].to_dtype(dtype)?)).unwrap();
    for loss in [loss, first] {
        let hessian = Hessian::of(&loss, &vars).unwrap();
        let products = hessian.apply(&probe).unwrap();
        let zhz = Tensor::new(probe.dot(&products).unwrap(), &CPU).unwrap();
        assert_close("zhz", &zhz, &golden["zhz"], tolerance);
        for (kind, vector) in [("grad", hessian.gradient().unwrap()), ("hz", products)] {
            for (name, got) in vector.iter() {
                let name = format!("{kind}.{name}");
                assert_close(&name, got, &golden[&name], tolerance);
            }
        }
    }
}

#[test]
fn bert_agrees_with_transformers() {
    against_golden("bert_tiny", DType::F64, 1e-10);
    against_golden("bert_tiny", DType::F32, 1e-4);
}

#[test]
fn squeezebert_agrees_with_transformers() {
    against_golden("squeezebert_a", DType::F64, 1e-10);
    against_golden("squeezebert_a", DType::F32, 1e-4);
}

#[test]
fn masked_language_models_agree_with_transformers() {
    for (case, unused) in [("masked_bert", 0), ("masked_squeezebert", 2)] {
        let folder = golden_folder(case);
        let golden =
            candle_core::safetensors::load(folder.join("expected.safetensors"), &CPU).unwrap();
        let (model, report) = auto::masked_language_model(&folder, &start(DType::F64)).unwrap();
        // A pooler, where there is one, has nothing to do here.
        assert_eq!(
            (report.initialised.len(), report.unused.len()),
            (0, unused),
            "{report:?}"
        );
        let (ids, mask) = (&golden["input_ids"], &golden["attention_mask"]);
        let logits = model.forward(ids, None, Some(mask), &Mode::Eval).unwrap();
        assert_close("logits", &logits, &golden["logits"], 1e-10);
    }
}

// ---- derivatives and training ---------------------------------------------------------------

fn architectures() -> [Architecture; 2] {
    let dense = bert::Config::tiny().architecture().unwrap();
    [dense, squeezebert::Config::tiny().architecture().unwrap()]
}

/// Small enough for differences over every variable.
fn minute() -> [Architecture; 2] {
    let dense = bert::Config {
        vocab_size: 9,
        hidden_size: 8,
        intermediate_size: 12,
        max_position_embeddings: 5,
        initializer_range: 0.4,
        ..bert::Config::tiny()
    };
    let grouped = squeezebert::Config {
        vocab_size: 9,
        hidden_size: 8,
        embedding_size: 8,
        intermediate_size: 12,
        max_position_embeddings: 5,
        initializer_range: 0.4,
        post_attention_groups: 2,
        ..squeezebert::Config::tiny()
    };
    [
        dense.architecture().unwrap(),
        grouped.architecture().unwrap(),
    ]
}

fn batch() -> [Tensor; 3] {
    let ids = [[2u32, 5, 8, 3], [2, 7, 3, 0]];
    let types = [[0u32, 0, 1, 1], [0, 1, 1, 0]];
    let mask = [[1u32, 1, 1, 1], [1, 1, 1, 0]];
    [ids, types, mask].map(|t| Tensor::new(&t, &CPU).unwrap())
}

#[test]
fn classifiers_are_reached_and_differentiated_everywhere() {
    let [ids, types, mask] = batch();
    let labels = Tensor::new(&[1u32, 0], &CPU).unwrap();
    for architecture in minute() {
        let model = SequenceClassifier::new(&architecture, 2, &seeded(7, DType::F64)).unwrap();
        let loss = || {
            let logits = model.forward(&ids, Some(&types), Some(&mask), &TRAIN)?;
            cross_entropy(&logits, &labels, 0.0, None)
        };
        let vars = model.vars();
        check::all_reached(&vars, loss).unwrap();
        check::gradient(&vars, 1e-6, loss).unwrap();
        check::hessian(&vars, 1e-6, loss).unwrap();
    }
}

#[test]
fn masked_language_models_are_reached_and_differentiated_everywhere() {
    let [ids, types, mask] = batch();
    // u32::MAX marks what is not to be predicted.
    let none = u32::MAX;
    let targets = Tensor::new(&[none, 4, none, none, 1, none, none, none], &CPU).unwrap();
    for architecture in minute() {
        let model = MaskedLanguageModel::new(&architecture, &seeded(7, DType::F64)).unwrap();
        let loss = || {
            let logits = model.forward(&ids, Some(&types), Some(&mask), &TRAIN)?;
            cross_entropy(&logits.flatten_to(1)?, &targets, 0.0, Some(none.into()))
        };
        let vars = model.vars();
        assert!(vars.get("cls.predictions.decoder.weight").is_err());
        check::all_reached(&vars, loss).unwrap();
        check::gradient(&vars, 1e-6, loss).unwrap();
        check::hessian(&vars, 1e-6, loss).unwrap();
    }
}

#[test]
fn padding_does_not_change_the_logits_and_dropout_does() {
    let [ids, types, mask] = batch();
    let longer = |t: &Tensor, fill: u32| {
        let tail = Tensor::full(fill, (2, 3), &CPU).unwrap();
        Tensor::cat(&[t, &tail], 1).unwrap()
    };
    for architecture in architectures() {
        let model = SequenceClassifier::new(&architecture, 3, &seeded(7, DType::F64)).unwrap();
        let logits = |ids: &Tensor, types: &Tensor, mask: &Tensor, mode| {
            f64s(&model.forward(ids, Some(types), Some(mask), &mode).unwrap())
        };
        let short = logits(&ids, &types, &mask, Mode::Eval);
        let long = logits(
            &longer(&ids, 9),
            &longer(&types, 1),
            &longer(&mask, 0),
            Mode::Eval,
        );
        assert!(short.iter().zip(&long).all(|(a, b)| (a - b).abs() < 1e-12));
        let trained = logits(&ids, &types, &mask, TRAIN);
        assert_ne!(short, trained);
        assert_eq!(trained, logits(&ids, &types, &mask, TRAIN));
        assert_ne!(
            trained,
            logits(
                &ids,
                &types,
                &mask,
                Mode::Train {
                    seed: 1,
                    step: 3,
                    micro: 0
                }
            )
        );
        // Neither types nor mask: zeros and ones.
        let (zeros, ones) = (types.zeros_like().unwrap(), mask.ones_like().unwrap());
        let plain = f64s(&model.forward(&ids, None, None, &Mode::Eval).unwrap());
        assert_eq!(plain, logits(&ids, &zeros, &ones, Mode::Eval));
    }
}

#[test]
fn a_small_batch_overfits() {
    let [ids, types, mask] = batch();
    let targets = Tensor::new(&[0.8f32, -0.5], &CPU).unwrap();
    for architecture in architectures() {
        let model = SequenceClassifier::new(&architecture, 1, &seeded(3, DType::F32)).unwrap();
        let vars: Vec<_> = model.vars().iter().map(|(_, var)| var.clone()).collect();
        let mut optimizer = candle_nn::AdamW::new_lr(vars, 2e-3).unwrap();
        let loss = || {
            let logits = model
                .forward(&ids, Some(&types), Some(&mask), &Mode::Eval)
                .unwrap();
            ops::mse(&logits.squeeze(1).unwrap(), &targets).unwrap()
        };
        let before = f64s(&loss())[0];
        for _ in 0..80 {
            optimizer.backward_step(&loss()).unwrap();
        }
        let after = f64s(&loss())[0];
        assert!(
            before > 0.1 && after < 1e-2,
            "{}: {before} to {after}",
            architecture.model_type()
        );
    }
}

// ---- variables ------------------------------------------------------------------------------

#[test]
fn variables_are_a_function_of_seed_and_name() {
    for architecture in architectures() {
        let make = |labels, seed| {
            SequenceClassifier::new(&architecture, labels, &seeded(seed, DType::F32)).unwrap()
        };
        let (a, b, other) = (make(2, 5), make(3, 5), make(2, 6));
        for (name, var) in a.vars().iter() {
            let values = f64s(var);
            let rms = (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt();
            let is_norm = name.to_lowercase().contains("layernorm");
            match name.rsplit('.').next() {
                Some("bias") => assert!(values.iter().all(|v| *v == 0.0), "{name}"),
                _ if is_norm => assert!(values.iter().all(|v| *v == 1.0), "{name}"),
                _ => {
                    assert!((rms - 0.02).abs() < 0.006, "{name}: {rms}");
                    assert_ne!(values, f64s(other.vars().get(name).unwrap()), "{name}");
                }
            }
            if !name.starts_with("classifier") {
                assert_eq!(values, f64s(b.vars().get(name).unwrap()), "{name}");
            }
        }
        assert_eq!(b.labels(), 3);
        assert_eq!(b.vars().get("classifier.weight").unwrap().dims(), [3, 32]);
        assert!(SequenceClassifier::new(&architecture, 0, &seeded(5, DType::F32)).is_err());
    }
}

#[test]
fn names_and_shapes_are_those_of_the_hub() {
    let [dense, grouped] = architectures();
    let count = |a: &Architecture| {
        SequenceClassifier::new(a, 2, &seeded(0, DType::F32))
            .unwrap()
            .vars()
    };
    let vars = count(&dense);
    assert_eq!(
        vars.get("bert.encoder.layer.1.attention.self.query.weight")
            .unwrap()
            .dims(),
        [32, 32]
    );
    assert_eq!(
        vars.get("bert.encoder.layer.0.output.dense.weight")
            .unwrap()
            .dims(),
        [32, 64]
    );
    let vars = count(&grouped);
    let query = "transformer.encoder.layers.0.attention.query.weight";
    assert_eq!(vars.get(query).unwrap().dims(), [32, 8, 1]);
    assert_eq!(
        vars.get("transformer.encoder.layers.1.post_attention.conv1d.weight")
            .unwrap()
            .dims(),
        [32, 32, 1]
    );
    assert_eq!(
        vars.get("transformer.encoder.layers.1.output.conv1d.weight")
            .unwrap()
            .dims(),
        [32, 16, 1]
    );
    for blocks in [bert::blocks(), squeezebert::blocks()] {
        assert_eq!(
            blocks.resolve(query, &[32, 8, 1]).unwrap(),
            Block::Chunks(4)
        );
        assert_eq!(
            blocks.resolve("classifier.bias", &[2]).unwrap(),
            Block::Single
        );
    }
    let sizes = |c: Architecture| (c.layers, c.width, c.heads, c.intermediate, c.vocabulary);
    assert_eq!(
        sizes(bert::Config::base().architecture().unwrap()),
        (12, 768, 12, 3072, 30522)
    );
    assert_eq!(
        sizes(bert::Config::mini_lm().architecture().unwrap()),
        (6, 384, 12, 1536, 30522)
    );
    assert_eq!(
        sizes(bert::Config::mini().architecture().unwrap()),
        (4, 256, 4, 1024, 30522)
    );
    assert_eq!(
        sizes(squeezebert::Config::mini().architecture().unwrap()),
        (4, 256, 4, 1024, 30528)
    );
    let base = squeezebert::Config::base().architecture().unwrap();
    let groups = base.groups;
    assert_eq!(
        (groups.query, groups.post_attention, groups.output),
        (4, 1, 4)
    );
    assert_eq!(sizes(base), (12, 768, 12, 3072, 30528));
}

// ---- checkpoints ----------------------------------------------------------------------------

type Tensors = BTreeMap<String, Tensor>;

/// A checkpoint of the first architecture, edited.
fn checkpoint(edit: impl FnOnce(&mut Tensors, &mut Value)) -> TempDir {
    checkpoint_of(&architectures()[0], edit)
}

fn checkpoint_of(
    architecture: &Architecture,
    edit: impl FnOnce(&mut Tensors, &mut Value),
) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let model = SequenceClassifier::new(architecture, 2, &seeded(9, DType::F32)).unwrap();
    model.save(folder.path()).unwrap();
    let (weights, config) = (
        folder.path().join("model.safetensors"),
        folder.path().join("config.json"),
    );
    let mut tensors: Tensors = candle_core::safetensors::load(&weights, &CPU)
        .unwrap()
        .into_iter()
        .collect();
    let mut value: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    edit(&mut tensors, &mut value);
    save(&tensors, &weights);
    std::fs::write(&config, value.to_string()).unwrap();
    folder
}

fn save(tensors: &Tensors, path: &Path) {
    let tensors: HashMap<String, Tensor> = tensors.clone().into_iter().collect();
    candle_core::safetensors::save(&tensors, path).unwrap();
}

fn open(folder: &TempDir) -> models::Result<(SequenceClassifier, LoadReport)> {
    auto::sequence_classifier(folder.path(), None, &start(DType::F32))
}

fn open_error(edit: impl FnOnce(&mut Tensors, &mut Value)) -> Error {
    match open(&checkpoint(edit)) {
        Ok((_, report)) => panic!("opened with {report:?}"),
        Err(error) => error,
    }
}

/// Every variable but the named ones is that of `checkpoint`'s model.
fn assert_loaded(model: &SequenceClassifier, architecture: &Architecture, tolerance: f64) {
    let original = SequenceClassifier::new(architecture, 2, &seeded(9, DType::F32)).unwrap();
    for (name, var) in original.vars().iter() {
        let got = f64s(model.vars().get(name).unwrap());
        let close = got
            .iter()
            .zip(f64s(var))
            .all(|(a, b)| (a - b).abs() <= tolerance);
        assert!(close, "{name}");
    }
}

const QUERY: &str = "bert.encoder.layer.0.attention.self.query.weight";

#[test]
fn a_saved_model_opens_again() {
    for architecture in architectures() {
        let folder = checkpoint_of(&architecture, |_, _| {});
        let (model, report) = open(&folder).unwrap();
        assert_loaded(&model, &architecture, 0.0);
        assert_eq!(report.loaded.len(), model.vars().len());
        assert_eq!(model.labels(), 2);
        // The head of another task on the same file.
        let (masked, report) =
            auto::masked_language_model(folder.path(), &start(DType::F32)).unwrap();
        assert_eq!(report.initialised.len(), 5, "{:?}", report.initialised);
        assert_eq!(report.unused.len(), 4, "{:?}", report.unused);
        masked.save(folder.path()).unwrap();
        let (_, report) = auto::masked_language_model(folder.path(), &start(DType::F32)).unwrap();
        assert_eq!((report.initialised.len(), report.unused.len()), (0, 0));
        let (_, report) = open(&folder).unwrap();
        assert_eq!((report.initialised.len(), report.unused.len()), (4, 5));
    }
}

#[test]
fn a_checkpoint_without_prefix_opens() {
    for architecture in architectures() {
        let prefix = format!("{}.", architecture.prefix());
        let folder = checkpoint_of(&architecture, |tensors, _| {
            let renamed = std::mem::take(tensors).into_iter();
            tensors.extend(
                renamed.map(|(n, t)| (n.strip_prefix(&prefix).unwrap_or(&n).to_string(), t)),
            );
        });
        let (model, report) = open(&folder).unwrap();
        assert_loaded(&model, &architecture, 0.0);
        assert_eq!((report.initialised.len(), report.unused.len()), (0, 0));
    }
}

#[test]
fn norms_of_old_checkpoints_are_called_gamma_and_beta() {
    let folder = checkpoint(|tensors, _| {
        let renamed =
            std::mem::take(tensors)
                .into_iter()
                .map(|(n, t)| match n.contains("LayerNorm") {
                    true => (n.replace("weight", "gamma").replace("bias", "beta"), t),
                    false => (n, t),
                });
        tensors.extend(renamed);
    });
    let (model, report) = open(&folder).unwrap();
    assert_loaded(&model, &architectures()[0], 0.0);
    assert!(report.initialised.is_empty() && report.unused.is_empty());
}

#[test]
fn integer_buffers_are_skipped_and_other_spare_tensors_reported() {
    let folder = checkpoint(|tensors, _| {
        let positions = Tensor::arange(0i64, 32, &CPU).unwrap();
        tensors.insert("bert.embeddings.position_ids".into(), positions);
        tensors.insert(
            "cls.seq_relationship.bias".into(),
            Tensor::zeros(2, DType::F32, &CPU).unwrap(),
        );
    });
    let (_, report) = open(&folder).unwrap();
    assert_eq!(report.unused, ["cls.seq_relationship.bias"]);
}

#[test]
fn a_missing_pooler_and_classifier_are_initialised_and_reported() {
    let folder = checkpoint(|tensors, _| {
        tensors.retain(|name, _| !name.contains("pooler") && !name.starts_with("classifier"));
    });
    let start = Start {
        seed: 9,
        ..Start::default()
    };
    let (model, report) = auto::sequence_classifier(folder.path(), Some(2), &start).unwrap();
    let expected = [
        "bert.pooler.dense.bias",
        "bert.pooler.dense.weight",
        "classifier.bias",
        "classifier.weight",
    ];
    assert_eq!(report.initialised, expected);
    // The same seed as the checkpoint's model had.
    assert_loaded(&model, &architectures()[0], 0.0);
    let (other, _) = auto::sequence_classifier(folder.path(), Some(5), &start).unwrap();
    assert_eq!(
        other.vars().get("classifier.weight").unwrap().dims(),
        [5, 32]
    );
}

#[test]
fn half_precision_is_converted() {
    for (dtype, tolerance) in [(DType::F16, 1e-4), (DType::BF16, 1e-3), (DType::F64, 0.0)] {
        let folder = checkpoint(|tensors, _| {
            tensors
                .values_mut()
                .for_each(|t| *t = t.to_dtype(dtype).unwrap());
        });
        let (model, _) = open(&folder).unwrap();
        assert!(
            model
                .vars()
                .iter()
                .all(|(_, var)| var.dtype() == DType::F32)
        );
        assert_loaded(&model, &architectures()[0], tolerance);
    }
}

fn shard(folder: &TempDir, second: &str) {
    let path = |file: &str| folder.path().join(file);
    let tensors: Tensors = candle_core::safetensors::load(path("model.safetensors"), &CPU)
        .unwrap()
        .into_iter()
        .collect();
    std::fs::remove_file(path("model.safetensors")).unwrap();
    let (mut first, mut last) = (tensors.clone(), tensors.clone());
    first.retain(|name, _| name.as_str() < QUERY);
    last.retain(|name, _| name.as_str() >= QUERY);
    save(&first, &path("model-00001-of-00002.safetensors"));
    save(&last, &path("model-00002-of-00002.safetensors"));
    let file = |name: &String| {
        if name.as_str() < QUERY {
            "model-00001-of-00002.safetensors"
        } else {
            second
        }
    };
    let map: serde_json::Map<_, _> = tensors
        .keys()
        .map(|n| (n.clone(), json!(file(n))))
        .collect();
    std::fs::write(
        path("model.safetensors.index.json"),
        json!({ "weight_map": map }).to_string(),
    )
    .unwrap();
}

#[test]
fn shards_are_found_by_their_index() {
    let folder = checkpoint(|_, _| {});
    shard(&folder, "model-00002-of-00002.safetensors");
    let (model, report) = open(&folder).unwrap();
    assert_loaded(&model, &architectures()[0], 0.0);
    assert!(report.initialised.is_empty());
    for second in [
        "../elsewhere.safetensors",
        "/etc/passwd",
        "absent.safetensors",
    ] {
        let folder = checkpoint(|_, _| {});
        shard(&folder, second);
        assert!(matches!(open(&folder), Err(Error::File { .. })), "{second}");
    }
}

#[test]
fn a_wrong_shape_names_tensor_file_and_shapes() {
    let error = open_error(|tensors, _| {
        tensors.insert(
            QUERY.into(),
            Tensor::zeros((32, 31), DType::F32, &CPU).unwrap(),
        );
    });
    let text = error.to_string();
    assert!(matches!(error, Error::TensorShape { .. }), "{text}");
    for part in [QUERY, "[32, 32]", "[32, 31]", "model.safetensors"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_wrong_dtype_names_tensor_and_type() {
    let error = open_error(|tensors, _| {
        tensors.insert(
            QUERY.into(),
            Tensor::zeros((32, 32), DType::U8, &CPU).unwrap(),
        );
    });
    assert!(
        matches!(&error, Error::TensorType { name, got, .. } if name == QUERY && got == "U8"),
        "{error}"
    );
}

#[test]
fn a_missing_tensor_is_an_error() {
    let error = open_error(|tensors, _| drop(tensors.remove(QUERY)));
    let Error::MissingTensor { name, tried, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(name, QUERY);
    assert!(tried.contains(&QUERY.replace("bert.", "")));
    // More layers than there are.
    let error = open_error(|_, config| config["num_hidden_layers"] = json!(3));
    assert!(
        error.to_string().contains("bert.encoder.layer.2."),
        "{error}"
    );
}

#[test]
fn another_architecture_is_named() {
    let error = open_error(|_, config| config["model_type"] = json!("electra"));
    let text = error.to_string();
    let all = "`bert`, `distilbert`, `roberta` or `squeezebert`";
    assert!(text.contains("electra") && text.contains(all), "{text}");
    let folder = checkpoint(|_, _| {});
    let text = squeezebert::Config::read(folder.path())
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("`bert`") && text.contains("`squeezebert`"),
        "{text}"
    );
    assert_eq!(
        bert::Config::read(folder.path()).unwrap(),
        bert::Config::tiny()
    );
    let folder = checkpoint_of(&architectures()[1], |_, _| {});
    assert_eq!(
        squeezebert::Config::read(folder.path()).unwrap(),
        squeezebert::Config::tiny()
    );
    // Embedding and encoder agree, the checkpoint does not.
    let error = open_error(|_, config| config["model_type"] = json!("squeezebert"));
    assert!(
        matches!(
            error,
            Error::Config {
                field: "embedding_size",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn configurations_that_are_not_supported_name_the_field() {
    for (field, value) in [
        ("num_attention_heads", json!(5)),
        ("num_attention_heads", json!(0)),
        ("hidden_size", json!(0)),
        ("hidden_dropout_prob", json!(1.0)),
        ("position_embedding_type", json!("relative_key")),
        ("is_decoder", json!(true)),
        ("tie_word_embeddings", json!(false)),
        ("type_vocab_size", json!(0)),
        ("initializer_range", Value::Null),
    ] {
        let error = open_error(|_, config| config[field] = value);
        assert!(error.to_string().contains(field), "{error}");
    }
    let text = open_error(|_, config| config["hidden_act"] = json!("gelu_new")).to_string();
    assert!(text.contains("gelu_new"), "{text}");
    let text = open_error(|_, config| config["hidden_size"] = json!("wide")).to_string();
    assert!(
        text.contains("config.json") && text.contains("`hidden_size`") && text.contains("wide"),
        "{text}"
    );
    let without = |config: &mut Value, name: &str| {
        config.as_object_mut().unwrap().remove(name);
    };
    let text = open_error(|_, config| {
        without(config, "model_type");
        without(config, "architectures");
    });
    let text = text.to_string();
    assert!(
        text.contains("model_type") && text.contains("write it into the file"),
        "{text}"
    );
    // The class tells it, if it is one of these families'.
    open(&checkpoint(|_, config| without(config, "model_type"))).unwrap();
    let text = open_error(|_, config| {
        without(config, "model_type");
        config["architectures"] = json!(["BertGenerationEncoder"]);
    });
    assert!(text.to_string().contains("model_type"), "{text}");
    let groups = squeezebert::Config {
        k_groups: 3,
        ..squeezebert::Config::tiny()
    };
    assert!(
        groups
            .architecture()
            .unwrap_err()
            .to_string()
            .contains("k_groups")
    );
    // What is not there has the value of transformers.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("config.json"),
        r#"{"model_type": "squeezebert"}"#,
    )
    .unwrap();
    assert_eq!(
        squeezebert::Config::read(folder.path()).unwrap(),
        squeezebert::Config::default()
    );
}

#[test]
fn broken_files_are_named() {
    let folder = checkpoint(|_, _| {});
    let path = |file: &str| folder.path().join(file);
    let bytes = std::fs::read(path("model.safetensors")).unwrap();
    for broken in [&bytes[..bytes.len() - 7], &bytes[..5], &[], &[255; 64]] {
        std::fs::write(path("model.safetensors"), broken).unwrap();
        let text = open(&folder).err().unwrap().to_string();
        assert!(text.contains("model.safetensors"), "{text}");
    }
    std::fs::remove_file(path("model.safetensors")).unwrap();
    let text = open(&folder).err().unwrap().to_string();
    assert!(text.contains("neither model.safetensors"), "{text}");
    for config in ["", "{", "[]", "{\"model_type\": 3}"] {
        std::fs::write(path("config.json"), config).unwrap();
        assert!(open(&folder).is_err());
    }
    std::fs::remove_file(path("config.json")).unwrap();
    assert!(
        open(&folder)
            .err()
            .unwrap()
            .to_string()
            .contains("config.json")
    );
}

// ---- inputs ---------------------------------------------------------------------------------

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let [ids, types, mask] = batch();
    for architecture in architectures() {
        let model = SequenceClassifier::new(&architecture, 2, &seeded(0, DType::F32)).unwrap();
        let text = |ids: &Tensor, types: Option<&Tensor>, mask: Option<&Tensor>| {
            let error = model.forward(ids, types, mask, &Mode::Eval).unwrap_err();
            assert!(matches!(error, Error::Input { .. }), "{error}");
            error.to_string()
        };
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::U32, &CPU).unwrap();
        let long = text(&zeros(&[1, 33]), None, None);
        assert!(long.contains("32") && long.contains("33"), "{long}");
        assert!(
            model
                .forward(&zeros(&[1, 32]), None, None, &Mode::Eval)
                .is_ok()
        );
        assert!(text(&zeros(&[2, 0]), None, None).contains("[2, 0]"));
        assert!(text(&zeros(&[4]), None, None).contains("[4]"));
        let outside = Tensor::new(&[[1u32, 2], [3, 128]], &CPU).unwrap();
        let outside = text(&outside, None, None);
        assert!(
            outside.contains("128 in sequence 1 at position 1") && outside.contains("0 to 127"),
            "{outside}"
        );
        assert!(text(&Tensor::new(&[[-1i64]], &CPU).unwrap(), None, None).contains("-1"));
        assert!(text(&ids.to_dtype(DType::F32).unwrap(), None, None).contains("F32"));
        assert!(text(&ids, Some(&(&types + 1.0).unwrap()), None).contains("token_type_ids"));
        assert!(text(&ids, Some(&zeros(&[2, 3])), None).contains("token_type_ids"));
        assert!(text(&ids, None, Some(&zeros(&[1, 4]))).contains("attention_mask"));
        // A sequence of padding only gives numbers all the same.
        let logits = model.forward(
            &ids,
            Some(&types),
            Some(&mask.zeros_like().unwrap()),
            &Mode::Eval,
        );
        assert!(f64s(&logits.unwrap()).iter().all(|v| v.is_finite()));
    }
}

#[test]
fn errors_convert_and_variables_go_by_name() {
    let error = Error::Input {
        what: "x",
        expected: "a".into(),
        got: "b".into(),
    };
    let text = error.to_string();
    let error: adahessian::Error = error.into();
    assert!(error.to_string().contains(&text));
    let error: candle_core::Error = error.into();
    assert!(error.to_string().contains(&text));
    let model = SequenceClassifier::new(&architectures()[0], 2, &seeded(0, DType::F32)).unwrap();
    let names: Vec<String> = NamedVars::from(model.var_map())
        .names()
        .map(String::from)
        .collect();
    assert_eq!(names, model.vars().names().collect::<Vec<_>>());
}
