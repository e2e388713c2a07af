//! Language models: what they see, what they say of a text, and how their text is read.

use adahessian::ops::Mode;
use adahessian::{Block, Hessian, check};
use anyhow::Result;
use candle_core::{D, DType, Device, IndexOp, Tensor};
use datasets::words::{WordStore, WordVocabulary, WordWindows};
use datasets::{Batcher, Batches, LabelledBatch};
use models::language_model::{Attention, Config};
use models::{LanguageModel, Model, Start};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use testing::{assert_close, assert_number, assert_says};

const CPU: Device = Device::Cpu;
const TRAIN: Mode = Mode::Train {
    seed: 3,
    step: 5,
    micro: 0,
};

fn start() -> Start {
    Start {
        dtype: DType::F64,
        ..Start::default()
    }
}

/// Every form.
fn forms() -> Vec<(&'static str, Config)> {
    let tiny = Config::tiny;
    vec![
        ("block-term", tiny()),
        (
            "two cores, normalising before",
            Config {
                cores: 2,
                normalize_before: true,
                ..tiny()
            },
        ),
        (
            "adaptive",
            Config {
                cutoffs: vec![4, 9],
                ..tiny()
            },
        ),
        (
            "standard",
            Config {
                attention: Attention::Standard,
                ..tiny()
            },
        ),
        (
            "unmasked",
            Config {
                reference_unmasked: true,
                ..tiny()
            },
        ),
    ]
}

fn words(rows: usize, length: usize, vocabulary: usize) -> Result<[Tensor; 2]> {
    let id = |i: usize| ((i * 7 + i * i * 3 + 1) % vocabulary) as u32;
    let of = |shift: usize| {
        let ids = (0..rows * length)
            .map(|i| id(i + shift))
            .collect::<Vec<_>>();
        Tensor::from_vec(ids, (rows, length), &CPU)
    };
    Ok([of(0)?, of(1)?])
}

/// Weights that matter, where the first ones are small.
fn model(config: &Config) -> Result<LanguageModel> {
    let model = LanguageModel::new(config, &start())?;
    for (name, var) in model.vars().iter() {
        let noise = adahessian::random::Stream::new(5, name, 0, 0);
        let noise = noise.normal_tensor(var.dims(), DType::F64, &CPU)?;
        var.set(&(var.as_detached_tensor() + (noise * 0.2)?)?)?;
    }
    Ok(model)
}

#[test]
fn a_later_word_changes_no_earlier_one() -> Result<()> {
    for (name, config) in forms() {
        let model = model(&config)?;
        let [ids, _] = words(1, 6, 20)?;
        let first = model.forward(&ids, &Mode::Eval)?;
        let mut other = ids.flatten_all()?.to_vec1::<u32>()?;
        other[4] = (other[4] + 3) % 20;
        let other = Tensor::from_vec(other, (1, 6), &CPU)?;
        let second = model.forward(&other, &Mode::Eval)?;
        let same = |at: usize| -> Result<bool> {
            let difference = (first.i((0, at))? - second.i((0, at))?)?;
            Ok(testing::largest(&difference)? == 0.0)
        };
        let earlier = (0..4).map(same).collect::<Result<Vec<_>>>()?;
        match config.reference_unmasked {
            false => assert!(earlier.iter().all(|&same| same), "{name}: {earlier:?}"),
            true => assert!(earlier.iter().all(|&same| !same), "{name} sees all words"),
        }
        assert!(!same(4)? && !same(5)?, "{name}");
        // What was not seen yet is not needed.
        if !config.reference_unmasked {
            let part = model.forward(&ids.narrow(1, 0, 4)?, &Mode::Eval)?;
            assert_close(name, &part, &first.narrow(1, 0, 4)?, 1e-12)?;
        }
    }
    Ok(())
}

#[test]
fn probabilities_sum_to_one_and_the_loss_is_theirs() -> Result<()> {
    for (name, config) in forms() {
        let model = model(&config)?;
        let [ids, next] = words(3, 5, 20)?;
        let logits = model.forward(&ids, &Mode::Eval)?;
        assert_eq!(logits.dims(), [3, 5, 20]);
        let log_p = candle_nn::ops::log_softmax(&logits, D::Minus1)?;
        if !config.cutoffs.is_empty() {
            assert_close(name, &logits, &log_p, 1e-12)?;
        }
        let picked = log_p.gather(&next.unsqueeze(2)?, D::Minus1)?;
        let expected = picked.mean_all()?.to_scalar::<f64>()?;
        let loss = model
            .loss(&ids, &next, 0.0, &Mode::Eval)?
            .to_scalar::<f64>()?;
        assert_number(name, loss, -expected, 1e-12)?;
    }
    let adaptive = model(&forms()[2].1)?;
    let [ids, next] = words(1, 3, 20)?;
    assert_says(
        adaptive.loss(&ids, &next, 0.1, &Mode::Eval),
        &["label smoothing", "adaptive"],
    );
    Ok(())
}

#[test]
fn gradients_and_curvature_are_those_of_differences() -> Result<()> {
    for (name, config) in forms() {
        for dropout in [0.0, 0.2] {
            let config = Config {
                vocab_size: 11,
                d_model: 4,
                rank: 2,
                ffn_dim: 5,
                window: 3,
                dropout,
                ..config.clone()
            };
            let model = model(&config)?;
            let [ids, next] = words(2, 3, 11)?;
            let smoothing = if config.cutoffs.is_empty() { 0.1 } else { 0.0 };
            let loss = || {
                let loss = model.loss(&ids, &next, smoothing, &TRAIN);
                loss.map_err(|e| candle_core::Error::msg(format!("{name}: {e}")).into())
            };
            check::gradient(&model.vars(), 1e-6, loss)?;
            check::hessian(&model.vars(), 1e-5, loss)?;
        }
    }
    Ok(())
}

#[test]
fn blocks_saving_and_what_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for (name, config) in forms() {
        let model = model(&config)?;
        model.save(folder.path())?;
        let (again, report) = LanguageModel::load(folder.path(), &start())?;
        assert!(
            report.initialised.is_empty() && report.unused.is_empty(),
            "{name}: {report:?}"
        );
        let [ids, _] = words(2, 6, 20)?;
        assert_close(
            name,
            &again.forward(&ids, &Mode::Eval)?,
            &model.forward(&ids, &Mode::Eval)?,
            0.0,
        )?;
    }
    let model = LanguageModel::new(&Config::tiny(), &start())?;
    let blocks = model.blocks();
    let of =
        |name: &str| -> Result<Block> { Ok(blocks.resolve(name, model.vars().get(name)?.dims())?) };
    assert_eq!(of("layers.0.attention.output.weight")?, Block::Chunks(4));
    assert_eq!(of("words.weight")?, Block::Chunks(4));
    assert_eq!(of("content_bias")?, Block::Single);
    let ids = |rows: &[&[u32]]| Tensor::new(rows.concat(), &CPU)?.reshape((rows.len(), ()));
    assert_says(
        model.forward(&ids(&[&[1, 2, 20]])?, &Mode::Eval),
        &["words", "below 20", "20"],
    );
    assert_says(
        model.forward(&ids(&[&[1; 7]])?, &Mode::Eval),
        &["1 to 6 words", "[1, 7]"],
    );
    let (a, b) = (ids(&[&[1, 2]])?, ids(&[&[1], &[2]])?);
    assert_says(
        model.loss(&a, &b, 0.0, &Mode::Eval),
        &["targets", "[1, 2]", "[2, 1]"],
    );
    for (config, pieces) in [
        (
            Config {
                d_model: 5,
                ..Config::tiny()
            },
            ["d_model", "even"],
        ),
        (
            Config {
                window: 0,
                ..Config::tiny()
            },
            ["window", "0"],
        ),
        // The sines of its positions alone would be 8 GB.
        (
            Config {
                attention: Attention::Standard,
                d_model: 1 << 16,
                window: 1 << 14,
                ..Config::tiny()
            },
            ["window", "1 to 4096"],
        ),
        (
            Config {
                cutoffs: vec![5, 5],
                ..Config::tiny()
            },
            ["cutoffs", "rise"],
        ),
        (
            Config {
                cutoffs: vec![20],
                ..Config::tiny()
            },
            ["cutoffs", "below vocab_size"],
        ),
        (
            Config {
                cutoffs: vec![0, 3],
                ..Config::tiny()
            },
            ["cutoffs", "above 0"],
        ),
        (
            Config {
                attention: Attention::Standard,
                reference_unmasked: true,
                ..Config::tiny()
            },
            ["reference_unmasked", "block-term"],
        ),
    ] {
        assert_says(LanguageModel::new(&config, &start()), &pieces);
    }
    Ok(())
}

/// All that are to be trained are reached.
#[test]
fn every_variable_has_a_gradient() -> Result<()> {
    for (name, config) in forms() {
        let model = model(&config)?;
        let [ids, next] = words(4, 6, 20)?;
        let loss = model.loss(&ids, &next, 0.0, &TRAIN)?;
        let gradient = Hessian::of(&loss, &model.vars())?.gradient()?;
        for (variable, gradient) in gradient.iter() {
            let largest = testing::largest(gradient)?;
            assert!(
                largest > 0.0 || variable.ends_with("key.bias"),
                "{name}: {variable}"
            );
        }
    }
    Ok(())
}

// ---- text -----------------------------------------------------------------------------------

const TEXT: &str = " the cat sat on the mat \n\n the dog and the <unk> cat \n";

fn put(folder: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn words_are_numbered_by_how_often_they_come() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let text = put(folder.path(), "train.txt", TEXT);
    let vocabulary = WordVocabulary::of_file(&text, None)?;
    // Three ends of lines; words that come as often in their alphabet's order.
    let expected = [
        "the", "<eos>", "cat", "<unk>", "and", "dog", "mat", "on", "sat",
    ];
    assert_eq!(vocabulary.words(), expected);
    assert_eq!((vocabulary.end(), vocabulary.unknown()), (1, 3));
    let few = WordVocabulary::of_file(&text, Some(4))?;
    // Five words of one place each are unknown ones, too.
    assert_eq!(few.words(), ["<unk>", "the", "<eos>", "cat"]);
    assert_eq!(few.id("dog"), few.unknown());
    assert_eq!((few.end(), few.unknown()), (2, 0));
    let fewest = WordVocabulary::of_file(&text, Some(2))?;
    assert_eq!(fewest.words(), ["<unk>", "<eos>"]);
    let file = folder.path().join("vocabulary.txt");
    vocabulary.write(&file)?;
    assert_eq!(WordVocabulary::read(&file)?, vocabulary);
    let plain = put(folder.path(), "plain.txt", "a b\n");
    assert_eq!(
        WordVocabulary::of_file(&plain, None)?.words(),
        ["<eos>", "a", "b", "<unk>"]
    );
    for (text, pieces) in [
        ("a\n<eos>\n", vec!["<unk>", "among 2 words"]),
        ("a\n<unk>\n", vec!["<eos>"]),
        ("a\nb c\n", vec!["line 2", "\"b c\"", "one word"]),
        ("a\n\n", vec!["line 2", "one word"]),
        (
            "a\nb\na\n<eos>\n<unk>\n",
            vec!["line 3", "line 1", "every word once"],
        ),
    ] {
        let path = put(folder.path(), "wrong.txt", text);
        assert_says(WordVocabulary::read(&path), &pieces);
    }
    for empty in ["", "\n \n"] {
        let path = put(folder.path(), "empty.txt", empty);
        assert_says(
            WordVocabulary::of_file(&path, None),
            &["empty.txt", "no data rows"],
        );
    }
    assert_says(WordVocabulary::of_file(&text, Some(1)), &["at least 2"]);
    Ok(())
}

#[test]
fn a_store_is_made_once_and_only_of_its_text() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let text = put(folder.path(), "train.txt", TEXT);
    let vocabulary = WordVocabulary::of_file(&text, None)?;
    let path = folder.path().join("train.words");
    let open = || WordStore::of_file(&text, &vocabulary, &path);
    let store = open()?;
    let expected = [0, 2, 8, 7, 0, 6, 1, 1, 0, 5, 4, 0, 3, 2, 1];
    assert_eq!(store.words(0, store.len())?, expected);
    assert_eq!(store.words(3, 2)?, [7, 0]);
    assert_says(store.words(14, 2), &["14", "15"]);
    assert_says(store.words(usize::MAX, 2), &["15"]);
    let made = fs::metadata(&path)?.modified()?;
    assert_eq!(open()?.checksum(), store.checksum());
    assert_eq!(fs::metadata(&path)?.modified()?, made);
    assert_eq!(
        WordStore::in_memory(expected.to_vec()).checksum(),
        store.checksum()
    );
    // A damaged one: every byte matters.
    let bytes = fs::read(&path)?;
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        fs::write(&path, damaged)?;
        assert_says(open(), &["train.words", "delete the file"]);
    }
    for length in 0..bytes.len() {
        fs::write(&path, &bytes[..length])?;
        assert_says(open(), &["train.words", "delete the file"]);
    }
    fs::write(&path, &bytes)?;
    open()?;
    // Another text, or other words.
    let few = WordVocabulary::of_file(&text, Some(4))?;
    assert_says(
        WordStore::of_file(&text, &few, &path),
        &["another text", "delete the file"],
    );
    fs::write(&text, format!("{TEXT} more \n"))?;
    assert_says(open(), &["another text", "delete the file"]);
    fs::remove_file(&path)?;
    assert_eq!(open()?.len(), store.len() + 2);
    Ok(())
}

#[test]
fn windows_foretell_every_word_once() -> Result<()> {
    let ids: Vec<u32> = (10..33).collect();
    let store = WordStore::in_memory(ids.clone());
    let all = |windows: &WordWindows, epoch: usize| -> Result<Vec<(Vec<u32>, Vec<u32>)>> {
        let mut rows = Vec::new();
        for index in 0..windows.len(epoch) {
            let batch = windows.get(epoch, index)?;
            let (words, next) = (
                batch.inputs.to_vec2::<u32>()?,
                batch.labels.to_vec2::<u32>()?,
            );
            assert_eq!(batch.weight()?, batch.labels.elem_count() as f64);
            rows.extend(words.into_iter().zip(next));
        }
        Ok(rows)
    };
    let expected = all(&WordWindows::in_order(store.clone(), 7, 5, 1)?, 0)?;
    for size in [1, 2, 3, 4, 5, 100] {
        let windows = WordWindows::in_order(store.clone(), 7, 5, size)?;
        assert_eq!(windows.words(), 23);
        let rows = all(&windows, 0)?;
        assert_eq!(rows, expected, "{size}");
        let told: Vec<u32> = rows.iter().flat_map(|(_, next)| next.clone()).collect();
        assert_eq!(told, ids);
        let seen: Vec<u32> = rows.iter().flat_map(|(words, _)| words.clone()).collect();
        assert_eq!((seen[0], &seen[1..]), (7, &ids[..22]));
    }
    let batcher = Batcher {
        batch_size: 2,
        seed: 3,
        ..Batcher::default()
    };
    let shuffled = WordWindows::shuffled(store.clone(), 7, 5, batcher)?;
    let mut firsts = std::collections::BTreeSet::new();
    for epoch in 0..40 {
        let rows = all(&shuffled, epoch)?;
        assert_eq!(rows, all(&shuffled, epoch)?);
        assert_eq!((rows.len(), shuffled.words()), (3, 15));
        let mut starts: Vec<u32> = rows.iter().map(|(_, next)| next[0]).collect();
        starts.sort_unstable();
        assert!(
            starts.windows(2).all(|pair| pair[1] - pair[0] == 5),
            "{starts:?}"
        );
        for (words, next) in &rows {
            assert_eq!(words[1..], next[..4]);
            assert_eq!(words[0], if next[0] == 10 { 7 } else { next[0] - 1 });
        }
        firsts.insert(starts[0]);
    }
    assert_eq!(firsts.into_iter().collect::<Vec<_>>(), [10, 11, 12, 13, 14]);
    let short = WordStore::in_memory(vec![1, 2]);
    for windows in [
        WordWindows::in_order(short.clone(), 0, 3, 1).err(),
        WordWindows::shuffled(short.clone(), 0, 3, batcher).err(),
        WordWindows::in_order(short, 0, 0, 1).err(),
    ] {
        assert!(
            windows.is_some_and(|e| e.to_string().contains("window")),
            "refused"
        );
    }
    Ok(())
}

/// What a model says of a text is no matter of how much it is asked at once.
#[test]
fn perplexity_does_not_depend_on_the_batches() -> Result<()> {
    let ids: Vec<u32> = (0..47u32).map(|i| (i * i + 3 * i) % 20).collect();
    for (name, config) in forms() {
        let model = model(&config)?;
        let mean = |size: usize| -> Result<f64> {
            let windows = WordWindows::in_order(WordStore::in_memory(ids.clone()), 1, 6, size)?;
            let mut sum = 0.0;
            for index in 0..windows.len(0) {
                let batch = windows.get(0, index)?;
                let loss = model.loss(&batch.inputs, &batch.labels, 0.0, &Mode::Eval)?;
                sum += loss.to_scalar::<f64>()? * batch.labels.elem_count() as f64;
            }
            Ok(sum / windows.words() as f64)
        };
        let alone = mean(1)?;
        for size in [2, 3, 7, 50] {
            assert_number(name, mean(size)?, alone, 1e-12)?;
        }
    }
    Ok(())
}

/// A file with a column of texts, a group of rows each.
pub(crate) fn parquet_of(column: &str, groups: &[&[&str]]) -> Result<Vec<u8>> {
    let schema = format!("message m {{ REQUIRED BYTE_ARRAY {column} (UTF8); }}");
    let schema = Arc::new(parse_message_type(&schema)?);
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::default())?;
    for rows in groups {
        let mut group = writer.next_row_group()?;
        let texts: Vec<ByteArray> = rows.iter().map(|text| text.as_bytes().into()).collect();
        let mut column = group.next_column()?.unwrap();
        let typed = column.typed::<ByteArrayType>();
        typed.write_batch(&texts, None, None)?;
        column.close()?;
        group.close()?;
    }
    Ok(writer.into_inner()?)
}

/// The Hub's files are the text that they were made of, in as many shards as there are.
#[test]
fn parquet_is_read_as_the_text_it_was_made_of() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = |name: &str| dir.path().join(name);
    fs::write(path("train.txt"), " = A b = \n\na c c\nb b\nc\n")?;
    let shard = |i: usize| format!("validation-0000{i}-of-00002.parquet");
    // Rows with their ends, as WikiText's are, an empty one, and two lines in one.
    let first = parquet_of("text", &[&[" = A b = \n", ""], &["a c c\n"]])?;
    fs::write(path(&shard(0)), first)?;
    fs::write(path(&shard(1)), parquet_of("text", &[&["b b\nc\n"]])?)?;

    let text = datasets::words::file(dir.path(), datasets::Split::Train)?;
    let shards = datasets::words::file(dir.path(), datasets::Split::Validation)?;
    assert_eq!(shards, path(&shard(0)));
    let vocabulary = WordVocabulary::of_file(&text, None)?;
    assert_eq!(vocabulary, WordVocabulary::of_file(&shards, None)?);
    let of_text = WordStore::of_file(&text, &vocabulary, &path("a.words"))?;
    let of_shards = WordStore::of_file(&shards, &vocabulary, &path("b.words"))?;
    assert_eq!(
        of_text.words(0, of_text.len())?,
        of_shards.words(0, of_shards.len())?
    );
    // Another shard is another text.
    fs::write(path(&shard(1)), parquet_of("text", &[&["b c\n"]])?)?;
    assert_says(
        WordStore::of_file(&shards, &vocabulary, &path("b.words")),
        &["b.words", "another text"],
    );
    fs::remove_file(path(&shard(1)))?;
    assert_says(
        WordVocabulary::of_file(&shards, None),
        &["1 files validation", "fetch the missing"],
    );
    assert_says(
        datasets::words::file(dir.path(), datasets::Split::Validation),
        &["1 files validation", "fetch the missing"],
    );
    // No shard of anything, for all its name.
    let alone = path("tales-and-songs-of-old.parquet");
    fs::write(&alone, parquet_of("text", &[&["a b c"]])?)?;
    assert_eq!(WordVocabulary::of_file(&alone, None)?.len(), 5);
    let other = path("test-00000-of-00001.parquet");
    fs::write(&other, parquet_of("line", &[&["a"]])?)?;
    assert_says(WordVocabulary::of_file(&other, None), &["\"text\"", "line"]);
    let half = parquet_of("text", &[&["a b c"]])?;
    fs::write(&other, &half[..half.len() / 2])?;
    assert_says(
        WordVocabulary::of_file(&other, None),
        &["test-00000-of-00001.parquet"],
    );
    Ok(())
}
