//! Residual networks: against PyTorch, their checkpoints, and what they refuse.

use adahessian::ops::{Mode, cross_entropy};
use adahessian::random::Stream;
use adahessian::{
    AdaHessian, Block, FiniteDifference, Hessian, LinearOperator, NamedVars, Optim, VarVec, check,
};
use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use models::resnet::{Config, ResNet, Shortcut, Stem, Unit};
use models::{LoadReport, Model, Start};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use testing::twins::random;
use testing::{assert_close, assert_number, assert_says, load, reference, shared};

const CPU: Device = Device::Cpu;
const TRAIN: Mode = Mode::Train {
    seed: 0,
    step: 0,
    micro: 0,
};

fn start(dtype: DType) -> Start {
    Start {
        seed: 5,
        dtype,
        ..Start::default()
    }
}

fn f64s(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

// ---- against PyTorch ------------------------------------------------------------------------

/// What golden.json says of the network.
fn config_of(json: &Value) -> Result<Config> {
    if json["stages"].is_array() {
        return small_config_of(json);
    }
    let number = |key: &str| json[key].as_u64().map(|n| n as usize);
    let base = match number("depth") {
        Some(depth) => Config::cifar(depth)?,
        None => Config::imagenet(18)?,
    };
    Ok(Config {
        width: number("width").context("no width")?,
        classes: number("classes").context("no classes")?,
        shortcut: json["shortcut"].as_str().unwrap_or("B").parse()?,
        ..base
    })
}

/// The same of one whose stages are written down.
fn small_config_of(json: &Value) -> Result<Config> {
    let part = |key: &str| json[key].clone();
    Ok(Config {
        stem: serde_json::from_value(part("stem"))?,
        unit: serde_json::from_value(part("unit"))?,
        stages: serde_json::from_value(part("stages"))?,
        width: serde_json::from_value(part("width"))?,
        classes: serde_json::from_value(part("classes"))?,
        shortcut: json["shortcut"].as_str().context("no shortcut")?.parse()?,
    })
}

/// Writes a checkpoint as PyTorch would: the weights in half precision, the running statistics and
/// the counters that nothing here needs.
fn write_checkpoint(tensors: &HashMap<String, Tensor>, path: &Path) -> Result<()> {
    let mut all = BTreeMap::new();
    for (key, tensor) in tensors {
        if let Some(name) = key.strip_prefix("param.") {
            all.insert(name.to_string(), tensor.clone());
        }
        if let Some(norm) = key
            .strip_prefix("bn.")
            .and_then(|k| k.strip_suffix(".running_mean"))
        {
            all.insert(format!("{norm}.running_mean"), tensor.zeros_like()?);
            all.insert(format!("{norm}.running_var"), tensor.ones_like()?);
            all.insert(
                format!("{norm}.num_batches_tracked"),
                Tensor::new(7i64, &CPU)?,
            );
        }
    }
    safetensors::serialize_to_file(all, None, path)?;
    Ok(())
}

fn loaded(tensors: &HashMap<String, Tensor>, config: &Config) -> Result<(ResNet, LoadReport)> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("network.safetensors");
    write_checkpoint(tensors, &path)?;
    Ok(ResNet::load(&path, config, &start(DType::F64))?)
}

/// Logits, loss, running statistics, every gradient and every entry of Hz in f64.
fn against_golden(folder: &Path) -> Result<()> {
    let golden = load(&folder.join("golden.safetensors"))?;
    let json: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("golden.json"))?)?;
    let (model, report) = loaded(&golden, &config_of(&json)?)?;
    assert!(report.initialised.is_empty() && report.unused.is_empty());
    let get = |key: &str| golden.get(key).with_context(|| format!("no {key}"));
    let pixels = get("x")?.to_dtype(DType::F64)?;
    let logits = model.forward(&pixels, &TRAIN)?;
    assert_close("logits", &logits, get("logits")?, 1e-10)?;
    let loss = cross_entropy(&logits, get("y")?, 0.0, None)?;
    assert_close("loss", &loss, get("loss")?, 1e-10)?;
    let saved = model.saved_vars();
    let running = golden.iter().filter(|(key, _)| key.starts_with("bn."));
    for (key, theirs) in running {
        let ours = saved.get(&key["bn.".len()..])?;
        assert_close(key, ours, theirs, 1e-10)?;
    }

    if let Some(expected) = golden.get("logits_eval") {
        let logits = model.forward(&pixels, &Mode::Eval)?;
        assert_close("logits of an evaluation", &logits, expected, 1e-10)?;
    }
    let vars = model.vars();
    let probe = VarVec::from_fn(&vars, |name, _, dtype, _| {
        let bits = golden[&format!("z.{name}")].to_dtype(dtype)?;
        Ok(bits.affine(2.0, -1.0)?)
    })?;
    let hessian = Hessian::of(&loss, &vars)?;
    let (gradient, product) = (hessian.gradient()?, hessian.apply(&probe)?);
    for name in vars.names() {
        let z = probe.get(name)?;
        for (kind, ours) in [("grad", &gradient), ("hz", &product)] {
            let (ours, key) = (ours.get(name)?, format!("{kind}.{name}"));
            assert_close(&key, ours, get(&key)?, 1e-6)?;
            let sums = get(&format!("{kind}check.{name}"))?;
            checksums(ours, z, sums).with_context(|| key)?;
        }
    }
    Ok(())
}

/// Sum, sum of squares and dot with z of the unrounded tensor, relative to what went into each.
fn checksums(ours: &Tensor, z: &Tensor, theirs: &Tensor) -> Result<()> {
    let (ours, z, theirs) = (f64s(ours)?, f64s(z)?, f64s(theirs)?);
    let absolute: f64 = ours.iter().map(|x| x.abs()).sum();
    let squares: f64 = ours.iter().map(|x| x * x).sum();
    let dot: f64 = ours.iter().zip(&z).map(|(x, z)| x * z).sum();
    let sum: f64 = ours.iter().sum();
    assert_number("sum", (sum - theirs[0]) / absolute, 0.0, 1e-10)?;
    assert_number("squares", (squares - theirs[1]) / squares, 0.0, 1e-10)?;
    assert_number("dot with z", (dot - theirs[2]) / absolute, 0.0, 1e-10)
}

#[test]
fn resnet20_with_projections_agrees_with_pytorch() -> Result<()> {
    against_golden(&reference().join("resnet20_b_w8"))
}

/// The stride of a bottleneck, ImageNet's stem, and shortcuts without parameters.
#[test]
fn small_networks_of_every_kind_agree_with_pytorch() -> Result<()> {
    for name in ["bottleneck", "imagenet", "parameter_free"] {
        let folder = reference().join("resnets").join(name);
        against_golden(&folder).with_context(|| name)?;
    }
    Ok(())
}

#[test]
fn resnet20_without_projections_agrees_with_pytorch() -> Result<()> {
    shared("golden/models/resnet20_a").map_or(Ok(()), |folder| against_golden(&folder))
}

#[test]
fn resnet18_agrees_with_pytorch() -> Result<()> {
    shared("golden/models/resnet18").map_or(Ok(()), |folder| against_golden(&folder))
}

// ---- variables ------------------------------------------------------------------------------

#[test]
fn parameter_counts_are_the_published_ones() -> Result<()> {
    let option_a = Config {
        shortcut: Shortcut::ParameterFree,
        ..Config::cifar(20)?
    };
    let cases = [
        (Config::named("resnet20")?, 272_474),
        (option_a, 269_722),
        (Config::named("resnet18")?, 11_689_512),
        (Config::named("resnet34")?, 21_797_672),
        (Config::named("resnet50")?, 25_557_032),
    ];
    for (config, expected) in cases {
        let model = ResNet::new(&config, &start(DType::F32))?;
        assert_eq!(model.vars().elem_count(), expected, "{config:?}");
    }
    Ok(())
}

/// Small enough for differences: every stem, unit and shortcut.
fn minute() -> [Config; 4] {
    let basic = Config {
        stem: Stem::Cifar,
        unit: Unit::Basic,
        stages: vec![1, 1],
        width: 2,
        shortcut: Shortcut::Projection,
        classes: 3,
    };
    let free = Config {
        shortcut: Shortcut::ParameterFree,
        ..basic.clone()
    };
    let deep = Config {
        unit: Unit::Bottleneck,
        ..basic.clone()
    };
    let large = Config {
        stem: Stem::ImageNet,
        ..basic.clone()
    };
    [basic, free, deep, large]
}

/// Four images, larger for ImageNet's stem, and their classes.
fn batch(config: &Config, dtype: DType) -> Result<(Tensor, Tensor)> {
    let size = match config.stem {
        Stem::Cifar => 6,
        Stem::ImageNet => 18,
    };
    let pixels = Stream::new(1, "pixels", 0, 0).normal_tensor(&[4, 3, size, size], dtype, &CPU)?;
    Ok((pixels, Tensor::new(&[0u32, 1, 2, 1], &CPU)?))
}

#[test]
fn names_are_torchvisions() -> Result<()> {
    let model = ResNet::new(&Config::named("resnet50")?, &start(DType::F32))?;
    let (vars, saved) = (model.vars(), model.saved_vars());
    let shapes: [(&str, &[usize]); 6] = [
        ("conv1.weight", &[64, 3, 7, 7]),
        ("bn1.weight", &[64]),
        ("layer1.0.conv3.weight", &[256, 64, 1, 1]),
        ("layer2.0.downsample.0.weight", &[512, 256, 1, 1]),
        ("layer4.2.bn3.bias", &[2048]),
        ("fc.weight", &[1000, 2048]),
    ];
    for (name, shape) in shapes {
        assert_eq!(vars.get(name)?.dims(), shape, "{name}");
    }
    // torchvision counts 161 parameters, and 53 norms with a mean and a variance each.
    assert_eq!((vars.len(), saved.len()), (161, 161 + 2 * 53));
    assert!(vars.get("bn1.running_mean").is_err());
    assert_eq!(
        saved.get("layer4.0.downsample.1.running_var")?.dims(),
        [2048]
    );
    let blocks = model.blocks();
    let block = |name: &str| blocks.resolve(name, vars.get(name)?.dims());
    assert_eq!(block("conv1.weight")?, Block::Trailing(2));
    assert_eq!(block("fc.weight")?, Block::Single);
    Ok(())
}

#[test]
fn fresh_weights_are_a_function_of_seed_and_name() -> Result<()> {
    let config = Config::named("resnet20")?;
    let with_seed = |seed| {
        let start = Start {
            seed,
            ..Start::default()
        };
        ResNet::new(&config, &start)
    };
    let (a, again, other) = (with_seed(3)?, with_seed(3)?, with_seed(4)?);
    for (name, var) in a.saved_vars().iter() {
        let values = f64s(var)?;
        assert_eq!(values, f64s(again.saved_vars().get(name)?)?, "{name}");
        let squares: f64 = values.iter().map(|x| x * x).sum();
        let count = values.len() as f64;
        match var.dims() {
            [outputs, _, kernel, _] => {
                // The variance of n normal numbers has the relative deviation sqrt(2/n).
                let expected = 2.0 / (kernel * kernel * outputs) as f64;
                let error = (squares / count / expected - 1.0).abs();
                assert!(error < 5.0 * (2.0 / count).sqrt(), "{name}: {error}");
                assert_ne!(values, f64s(other.saved_vars().get(name)?)?, "{name}");
            }
            [_] if name != "fc.bias" => {
                let one = name.ends_with("weight") || name.ends_with("running_var");
                let expected = if one { 1.0 } else { 0.0 };
                assert!(values.iter().all(|x| *x == expected), "{name}");
            }
            _ => {
                let bound = 1.0 / 8.0; // 1/sqrt(64)
                let largest = values.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
                assert!(
                    largest <= bound && largest > 0.5 * bound,
                    "{name}: {largest}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn unknown_networks_are_refused_by_name() {
    for name in [
        "resnet",
        "resnet21",
        "resnet2",
        "resnet101",
        "resnet152",
        "resnet200",
        "vgg16",
    ] {
        assert_says(Config::named(name), &["model", name, "resnet18"]);
    }
    assert_says(Config::cifar(21), &["depth", "6 n + 2", "21"]);
    assert_says(Config::imagenet(20), &["depth", "18, 34 or 50", "20"]);
    assert_says("c".parse::<Shortcut>(), &["shortcut", "`c`"]);
    let [config, ..] = minute();
    let without = |change: fn(&mut Config)| {
        let mut config = config.clone();
        change(&mut config);
        ResNet::new(&config, &start(DType::F32))
    };
    assert_says(without(|c| c.classes = 0).map(drop), &["classes"]);
    assert_says(without(|c| c.width = 0).map(drop), &["width"]);
    assert_says(without(|c| c.stages = vec![]).map(drop), &["stages"]);
    assert_says(without(|c| c.stages = vec![1, 0]).map(drop), &["stages"]);
}

// ---- derivatives and training ---------------------------------------------------------------

/// Steps of differences: so short that no ReLU changes its side on the way (those of [`check`] are
/// not), so long that rounding stays below 1e-8.
const STEP: f64 = 1e-7;

/// The directional derivative of the loss along signs in one variable at a time, and Hz, against
/// differences.
fn differences(vars: &NamedVars, loss: impl Fn() -> adahessian::Result<Tensor>) -> Result<()> {
    check::all_reached(vars, &loss)?;
    let signs = VarVec::from_fn(vars, |name, shape, dtype, device| {
        Stream::new(4, name, 0, 0).rademacher_tensor(shape, dtype, device)
    })?;
    let hessian = Hessian::of(&loss()?, vars)?;
    let (gradient, product) = (hessian.gradient()?, hessian.apply(&signs)?);
    let value = || -> Result<f64> { Ok(loss()?.to_scalar()?) };
    for (name, var) in vars.iter() {
        let origin = var.as_detached_tensor().copy()?;
        let signs = signs.get(name)?;
        let at = |step: f64| -> Result<f64> {
            var.set(&(&origin + (signs * step)?)?)?;
            value()
        };
        let estimate = (at(STEP)? - at(-STEP)?) / (2.0 * STEP);
        var.set(&origin)?;
        let exact = (gradient.get(name)? * signs)?.sum_all()?.to_scalar()?;
        assert_number(&format!("gradient of {name}"), exact, estimate, 1e-7)?;
    }
    let estimate = FiniteDifference::new(vars, &loss)
        .epsilon(STEP)
        .apply(&signs)?;
    for (name, exact) in product.iter() {
        assert_close(&format!("Hz of {name}"), exact, estimate.get(name)?, 1e-6)?;
    }
    Ok(())
}

#[test]
fn networks_are_reached_and_differentiated_everywhere() -> Result<()> {
    for config in minute() {
        let model = ResNet::new(&config, &start(DType::F64))?;
        let (pixels, labels) = batch(&config, DType::F64)?;
        for mode in [TRAIN, Mode::Eval] {
            let loss = || cross_entropy(&model.forward(&pixels, &mode)?, &labels, 0.0, None);
            differences(&model.vars(), loss).with_context(|| format!("{config:?}, {mode:?}"))?;
        }
    }
    Ok(())
}

#[test]
fn a_batch_overfits() -> Result<()> {
    for config in minute() {
        let config = Config { width: 4, ..config };
        let model = ResNet::new(&config, &start(DType::F32))?;
        let (pixels, labels) = batch(&config, DType::F32)?;
        let mut optimizer = AdaHessian::builder()
            .lr(0.15)
            .blocks(model.blocks())
            .build(model.vars())?;
        let mut losses = Vec::new();
        for _ in 0..60 {
            let loss = cross_entropy(&model.forward(&pixels, &TRAIN)?, &labels, 0.0, None)?;
            let info = Optim::backward_step(&mut optimizer, &loss)?;
            losses.push(info.loss.context("no loss")?);
        }
        let (first, last) = (losses[0], losses[59]);
        assert!(first > 0.5 && last < 0.05, "{config:?}: {first} to {last}");
    }
    Ok(())
}

#[test]
fn evaluation_looks_at_each_image_alone_and_moves_nothing() -> Result<()> {
    for config in minute() {
        let model = ResNet::new(&config, &start(DType::F64))?;
        let (pixels, _) = batch(&config, DType::F64)?;
        model.forward(&pixels, &TRAIN)?; // statistics that are not 0 and 1
        let snapshot = |vars: &NamedVars| -> Result<Vec<Vec<f64>>> {
            vars.iter().map(|(_, var)| f64s(var)).collect()
        };
        let before = snapshot(&model.saved_vars())?;
        let together = model.forward(&pixels, &Mode::Eval)?;
        let alone = (0..4).map(|i| Ok(model.forward(&pixels.narrow(0, i, 1)?, &Mode::Eval)?));
        let alone = Tensor::cat(&alone.collect::<Result<Vec<_>>>()?, 0)?;
        assert_close("logits of one image", &alone, &together, 1e-12)?;
        assert_eq!(snapshot(&model.saved_vars())?, before);
        let trained = model.forward(&pixels, &TRAIN)?;
        assert!(testing::relative_error(&trained, &together)? > 1e-3);
        assert_ne!(snapshot(&model.saved_vars())?, before);
    }
    Ok(())
}

#[test]
fn images_of_another_kind_are_refused() -> Result<()> {
    let [config, ..] = minute();
    let model = ResNet::new(&config, &start(DType::F32))?;
    let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &CPU);
    for (pixels, got) in [
        (zeros(&[2, 4, 6, 6], DType::F32)?, "[2, 4, 6, 6]"),
        (zeros(&[3, 6, 6], DType::F32)?, "[3, 6, 6]"),
        (zeros(&[0, 3, 6, 6], DType::F32)?, "[0, 3, 6, 6]"),
        (zeros(&[2, 3, 6, 6], DType::F64)?, "F64"),
    ] {
        let outcome = model.forward(&pixels, &TRAIN);
        assert_says(outcome, &["images", "[N, 3, H, W]", got]);
    }
    Ok(())
}

// ---- checkpoints ----------------------------------------------------------------------------

/// A checkpoint like torchvision's, changed before it is written.
fn changed(
    change: impl Fn(&mut HashMap<String, Tensor>) -> Result<()>,
) -> Result<(tempfile::TempDir, std::path::PathBuf, Config)> {
    let golden = reference().join("resnet20_b_w8");
    let mut tensors = load(&golden.join("golden.safetensors"))?;
    change(&mut tensors)?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.safetensors");
    write_checkpoint(&tensors, &path)?;
    let json: Value = serde_json::from_str(&std::fs::read_to_string(golden.join("golden.json"))?)?;
    Ok((folder, path, config_of(&json)?))
}

#[test]
fn a_folder_and_its_file_load_alike_and_save_to_the_same() -> Result<()> {
    let (folder, path, config) = changed(|_| Ok(()))?;
    let (model, report) = ResNet::load(&path, &config, &start(DType::F32))?;
    assert_eq!(report.loaded.len(), model.saved_vars().len());
    let (from_folder, _) = ResNet::load(folder.path(), &config, &start(DType::F32))?;
    let copy = tempfile::tempdir()?;
    model.save(copy.path())?;
    let (again, report) = ResNet::load(copy.path(), &config, &start(DType::F32))?;
    assert!(report.unused.is_empty() && report.initialised.is_empty());
    for (name, var) in model.saved_vars().iter() {
        for other in [&from_folder, &again] {
            assert_eq!(f64s(var)?, f64s(other.saved_vars().get(name)?)?, "{name}");
        }
    }
    Ok(())
}

#[test]
fn a_saved_network_opens_with_its_sizes_and_its_classes_names() -> Result<()> {
    let config = Config {
        width: 3,
        classes: 2,
        shortcut: Shortcut::ParameterFree,
        ..Config::named("resnet8")?
    };
    let folder = tempfile::tempdir()?;
    let model = ResNet::new(&config, &start(DType::F32))?;
    model.save(folder.path())?;
    let (nameless, report) = ResNet::open(folder.path(), &start(DType::F32))?;
    assert!(report.unused.is_empty() && report.initialised.is_empty());
    assert_eq!(nameless.label_names(), ["LABEL_0", "LABEL_1"]);
    let file = folder.path().join("config.json");
    assert!(!std::fs::read_to_string(&file)?.contains("label"));

    let names = |names: [&str; 2]| names.map(String::from);
    let named = nameless.with_label_names(&names(["cat", "dog"]))?;
    assert_says(
        named.clone().with_label_names(&names(["cat", "cat"])),
        &["no two alike"],
    );
    named.save(folder.path())?;
    let (again, _) = ResNet::open(folder.path(), &start(DType::F32))?;
    assert_eq!(again.config(), &config);
    assert_eq!(again.label_names(), ["cat", "dog"]);
    for (name, var) in model.saved_vars().iter() {
        assert_eq!(f64s(var)?, f64s(again.saved_vars().get(name)?)?, "{name}");
    }
    // The classifier means what it meant; a fresh one means whatever is said.
    let turned = again.with_label_names(&names(["dog", "cat"]));
    assert_says(turned, &["cat", "dog"]);
    let fresh = Start {
        new_head: true,
        ..start(DType::F32)
    };
    let (fresh, _) = ResNet::open(folder.path(), &fresh)?;
    fresh.with_label_names(&names(["dog", "cat"]))?;

    let written = std::fs::read_to_string(&file)?;
    for (from, to, says) in [
        ("torchvision_resnet", "bert", "torchvision_resnet"),
        ("\"width\": 3", "\"width\": 0", "width"),
        ("\"stages\"", "\"steps\"", "stages"),
        ("\"basic\"", "\"simple\"", "simple"),
    ] {
        let changed = written.replacen(from, to, 1);
        assert_ne!(changed, written, "{from}");
        std::fs::write(&file, changed)?;
        assert_says(
            ResNet::open(folder.path(), &start(DType::F32)).map(drop),
            &[says],
        );
    }
    Ok(())
}

#[test]
fn what_a_checkpoint_lacks_is_named() -> Result<()> {
    let (_folder, path, config) = changed(|all| {
        all.remove("param.layer2.1.conv1.weight");
        Ok(())
    })?;
    let outcome = ResNet::load(&path, &config, &start(DType::F32)).map(drop);
    assert_says(outcome, &["layer2.1.conv1.weight", "model.safetensors"]);

    let (_folder, path, config) = changed(|all| {
        let name = "param.layer1.0.bn2.weight";
        all.insert(name.into(), Tensor::ones(9, DType::F32, &CPU)?);
        Ok(())
    })?;
    let outcome = ResNet::load(&path, &config, &start(DType::F32)).map(drop);
    assert_says(outcome, &["layer1.0.bn2.weight", "[8]", "[9]"]);

    // A deeper network than the file's.
    let (_folder, path, config) = changed(|_| Ok(()))?;
    let deeper = Config {
        stages: vec![4; 3],
        ..config
    };
    let outcome = ResNet::load(&path, &deeper, &start(DType::F32)).map(drop);
    assert_says(outcome, &["no tensor `layer1.3."]);
    Ok(())
}

#[test]
fn another_number_of_classes_takes_a_fresh_classifier() -> Result<()> {
    let (_folder, path, config) = changed(|_| Ok(()))?;
    let config = Config {
        classes: 3,
        ..config
    };
    let outcome = ResNet::load(&path, &config, &start(DType::F32)).map(drop);
    assert_says(outcome, &["fc.", "number of labels"]);
    let fresh = Start {
        new_head: true,
        ..start(DType::F32)
    };
    let (model, report) = ResNet::load(&path, &config, &fresh)?;
    assert_eq!(report.initialised, ["fc.bias", "fc.weight"]);
    assert_eq!(report.unused, ["fc.bias", "fc.weight"]);
    assert_eq!(model.vars().get("fc.weight")?.dims(), [3, 32]);
    Ok(())
}

/// Its running statistics are in f32 (`nn::variable`): a step, an evaluation, a file and back.
#[test]
fn a_network_in_half_precision_is_trained_saved_and_opened() -> Result<()> {
    let config = Config {
        width: 4,
        classes: 3,
        ..Config::cifar(8)?
    };
    for dtype in [DType::BF16, DType::F16] {
        let start = Start {
            dtype,
            ..Start::default()
        };
        let model = ResNet::new(&config, &start)?;
        let x = random("half", &[4, 3, 8, 8])?.to_dtype(dtype)?;
        let labels = Tensor::new(&[0u32, 2, 1, 1], &Device::Cpu)?;
        let mut optimizer = AdaHessian::builder().build(model.vars())?;
        let logits = model.forward(&x, &TRAIN)?.to_dtype(DType::F32)?;
        let info = optimizer.backward_step(&cross_entropy(&logits, &labels, 0.0, None)?)?;
        assert_eq!(info.skipped, None);
        let folder = tempfile::tempdir()?;
        model.save(folder.path())?;
        let (again, report) = ResNet::open(folder.path(), &start)?;
        assert!(report.initialised.is_empty(), "{report:?}");
        for ((name, var), (_, other)) in model.saved_vars().iter().zip(again.saved_vars().iter()) {
            let is_running = name.contains("running_");
            assert_eq!(
                var.dtype(),
                if is_running { DType::F32 } else { dtype },
                "{name}"
            );
            assert_eq!(var.dtype(), other.dtype(), "{name}");
            assert_close(name, other, var, 0.0)?;
        }
        let [said, expected] = [&again, &model].map(|model| model.forward(&x, &Mode::Eval));
        assert_close("logits", &said?, &expected?, 0.0)?;
    }
    Ok(())
}
