//! Sequences in two parts: how they are cut, and the head that tells what they are to each other.

use crate::masked::{CPU, architectures, minute};
use adahessian::check;
use adahessian::ops::{Mode, cross_entropy};
use candle_core::{DType, Tensor};
use datasets::wordpiece::learn_wordpiece;
use datasets::{
    Batcher, Batches, LabelledBatch, MaskedBatch, MaskedBatches, Masking, Packed, Pairing,
    TextEncoder,
};
use models::{MaskedLanguageModel, Model, Start, auto};
use testing::{assert_close, assert_says};

fn flat(x: &Tensor) -> Vec<u32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// Sentences that are all different, so that a run of tokens tells where it is from.
fn sentences(count: usize) -> Vec<String> {
    let word = |n: usize| {
        format!(
            "{}{}",
            (b'a' + (n / 26) as u8) as char,
            (b'a' + (n % 26) as u8) as char
        )
    };
    let sentence = |i: usize| format!("{} {} {} .", word(i), word(i * 7 + 1), word(i * 3 + 2));
    (0..count).map(sentence).collect()
}

fn text(max_length: usize, count: usize) -> Packed {
    let lines = sentences(count);
    let tokenizer = learn_wordpiece(lines.iter().map(String::as_str), 400).unwrap();
    let encoder = TextEncoder::new(tokenizer, max_length).unwrap();
    Packed::encode(&encoder, &lines).unwrap()
}

/// Batches of which nothing is hidden but by chance: the smallest share there is.
fn batches(text: &Packed, pairing: Pairing, seed: u64) -> MaskedBatches {
    let masking = Masking::new(1e-9, false, seed).unwrap();
    let batcher = Batcher {
        batch_size: 6,
        shuffle: false,
        ..Batcher::default()
    };
    let batches = MaskedBatches::new(text.clone(), masking, batcher);
    batches.paired(pairing).unwrap()
}

/// A sequence as it was before a token was hidden.
struct Whole {
    first: Vec<u32>,
    second: Vec<u32>,
    label: u32,
}

/// All sequences of an epoch, in their order, put together again; and that the batches are made as they should be.
fn wholes(text: &Packed, batches: &MaskedBatches, epoch: usize) -> Vec<Whole> {
    let (pieces, length) = (text.pieces(), text.length());
    let mut all = Vec::new();
    for index in 0..batches.len(epoch) {
        let batch = batches.get(epoch, index).unwrap();
        let pairs = batch.pairs.as_ref().unwrap();
        let (mut ids, types) = (flat(&batch.input_ids), flat(&pairs.token_type_ids));
        let (places, stood) = (flat(&batch.positions), flat(&batch.labels));
        for (place, stood) in places.iter().zip(stood) {
            assert!(![pieces.first, pieces.last].contains(&stood));
            ids[*place as usize] = stood;
        }
        let labels = flat(&pairs.labels);
        let rows = ids.chunks(length).zip(types.chunks(length)).zip(labels);
        all.extend(rows.map(|((ids, types), label)| {
            let second = types.iter().position(|kind| *kind == 1).unwrap();
            assert!(types[second..].iter().all(|kind| *kind == 1));
            assert_eq!(
                (ids[0], ids[second - 1], ids[length - 1]),
                (pieces.first, pieces.last, pieces.last)
            );
            Whole {
                first: ids[1..second - 1].to_vec(),
                second: ids[second..length - 1].to_vec(),
                label,
            }
        }));
    }
    all
}

/// Half, within five standard deviations.
fn is_half(wholes: &[Whole]) {
    let (ones, all) = (
        wholes.iter().filter(|w| w.label == 1).count() as f64,
        wholes.len() as f64,
    );
    assert!(
        (ones / all - 0.5).abs() < 2.5 / all.sqrt(),
        "{ones} of {all}"
    );
}

#[test]
fn parts_in_order_are_the_text_and_others_exchanged() {
    let text = text(23, 500);
    let batches = batches(&text, Pairing::SentenceOrder, 3);
    let all = wholes(&text, &batches, 0);
    assert_eq!(all.len(), text.len());
    is_half(&all);
    for (index, whole) in all.iter().enumerate() {
        let (front, back) = match whole.label {
            0 => (&whole.first, &whole.second),
            _ => (&whole.second, &whole.first),
        };
        let body = text.body(index).unwrap();
        assert_eq!([&front[..], &back[..]].concat(), body[..body.len() - 1]);
        assert!(
            text.pieces().ends_sentence(*front.last().unwrap()),
            "cut behind a sentence"
        );
    }
}

#[test]
fn what_does_not_follow_is_from_elsewhere_and_begins_a_sentence() {
    let text = text(23, 500);
    let all = wholes(&text, &batches(&text, Pairing::NextSentence, 3), 0);
    is_half(&all);
    let stream: Vec<u32> = (0..text.len())
        .flat_map(|i| text.body(i).unwrap().to_vec())
        .collect();
    let body = text.length() - 2;
    for (index, whole) in all.iter().enumerate() {
        let own = text.body(index).unwrap();
        assert_eq!(whole.first, own[..whole.first.len()]);
        if whole.label == 0 {
            assert_eq!(whole.second, own[whole.first.len()..own.len() - 1]);
            continue;
        }
        let len = whole.second.len();
        let places = (0..=stream.len() - len).filter(|at| stream[*at..at + len] == whole.second);
        let from: Vec<usize> = places.collect();
        let begins =
            |at: &usize| text.pieces().ends_sentence(stream[at - 1]) || at + len == stream.len();
        let far = |at: &usize| (at / body).abs_diff(index) > 1;
        // At the very end of the text the last tokens that there are.
        let rest = text.tokens() - stream.len();
        assert!(
            from.iter().any(|at| begins(at) && far(at)) || from.is_empty() && rest > 0,
            "{index}: {from:?}"
        );
    }
}

#[test]
fn an_excerpt_is_words_of_its_passage_and_others_are_not() {
    // Five sentences on each of thirty topics, over and over, with twelve words a topic that are its own.
    let syllable = |n: usize| {
        format!(
            "{}{}",
            &"bdfgklmnpr"[n % 10..][..1],
            &"aeo"[n / 10 % 3..][..1]
        )
    };
    let sentence = |i: usize| {
        let word = |k: usize| syllable(i / 5 % 30) + &syllable((i * 7 + k * k) % 12);
        (0..8).map(word).collect::<Vec<_>>().join(" ") + " ."
    };
    let lines: Vec<String> = (0..4000).map(sentence).collect();
    let tokenizer = learn_wordpiece(lines.iter().map(String::as_str), 1000).unwrap();
    let encoder = TextEncoder::new(tokenizer, 43).unwrap();
    let text = Packed::encode(&encoder, &lines).unwrap();
    assert_eq!(text.tokens(), 9 * lines.len(), "a token is a word");
    let all = wholes(&text, &batches(&text, Pairing::Excerpt, 3), 0);
    is_half(&all);
    let inside = |part: &[u32], passage: &[u32]| {
        let words = part.iter().filter(|id| !text.pieces().ends_sentence(**id));
        let (count, found) = words.fold((0, 0), |(count, found), id| {
            (count + 1, found + usize::from(passage.contains(id)))
        });
        f64::from(found as u32) / f64::from(count)
    };
    let mut shares = [0.0; 2];
    for (index, whole) in all.iter().enumerate() {
        let body = text.body(index).unwrap();
        let first = (body.len() - 1) / 4;
        assert_eq!(whole.first.len(), first);
        assert_eq!(
            whole.second,
            body[first..body.len() - 1],
            "the passage is the text's"
        );
        let share = inside(&whole.first, &whole.second);
        shares[whole.label as usize] += share / (all.len() as f64 / 2.0);
    }
    // Of ten words two thirds are the passage's own, and some of the others by chance.
    assert!(shares[0] > 0.62 && shares[1] < 0.5, "{shares:?}");
    // Not the passage's own beginning or run: words are left out between.
    let gaps = all.iter().filter(|whole| {
        let len = whole.first.len();
        whole.label == 0 && !whole.second.windows(len).any(|run| run == whole.first)
    });
    assert!(gaps.count() as f64 > 0.45 * all.len() as f64);
}

#[test]
fn parts_are_a_function_of_seed_epoch_and_sequence() {
    let text = text(23, 300);
    let labels = |seed, epoch| {
        let batches = batches(&text, Pairing::NextSentence, seed);
        wholes(&text, &batches, 1);
        let all = wholes(&text, &batches, epoch);
        all.into_iter()
            .map(|w| (w.label, w.first, w.second))
            .collect::<Vec<_>>()
    };
    assert_eq!(labels(1, 0), labels(1, 0));
    assert_ne!(labels(1, 0), labels(1, 2));
    assert_ne!(labels(1, 0), labels(2, 0));
}

#[test]
fn a_part_of_a_batch_is_its_sequences() {
    let text = text(16, 60);
    let masking = Masking::new(0.2, false, 5).unwrap();
    let batches = MaskedBatches::new(
        text,
        masking,
        Batcher {
            batch_size: 5,
            ..Batcher::default()
        },
    );
    let batch = batches
        .paired(Pairing::SentenceOrder)
        .unwrap()
        .get(0, 0)
        .unwrap();
    let [front, back] = [(0, 2), (2, 3)].map(|(start, len)| batch.narrow(start, len).unwrap());
    let both = |of: fn(&MaskedBatch) -> &Tensor| {
        assert_eq!(
            [flat(of(&front)), flat(of(&back))].concat(),
            flat(of(&batch))
        );
    };
    both(|batch| &batch.input_ids);
    both(|batch| &batch.pairs.as_ref().unwrap().token_type_ids);
    both(|batch| &batch.pairs.as_ref().unwrap().labels);
}

/// No word goes from one part into the other.
#[test]
fn whole_words_end_with_their_part() {
    let text = text(23, 500);
    let masking = Masking::new(0.3, true, 3).unwrap();
    let pieces = text.pieces();
    let batcher = Batcher {
        shuffle: false,
        ..Batcher::default()
    };
    for pairing in [Pairing::SentenceOrder, Pairing::Excerpt] {
        let batches = MaskedBatches::new(text.clone(), masking, batcher).paired(pairing);
        let batches = batches.unwrap();
        let mut inside = 0;
        for index in 0..batches.len(0) {
            let batch = batches.get(0, index).unwrap();
            let mut ids = flat(&batch.input_ids);
            let places: Vec<usize> = flat(&batch.positions)
                .iter()
                .map(|at| *at as usize)
                .collect();
            for (place, stood) in places.iter().zip(flat(&batch.labels)) {
                ids[*place] = stood;
            }
            // Behind each end of a part, a piece that goes on with a word is hidden or not whatever stands before the end.
            for end in 1..ids.len() - 1 {
                let hidden = |at: usize| places.contains(&at);
                let goes_on = ids[end] == pieces.last && !pieces.begins(ids[end + 1]);
                inside += usize::from(goes_on && hidden(end - 1) != hidden(end + 1));
            }
        }
        assert!(inside > 0, "{pairing:?}");
    }
}

/// Of a tokenizer whose pairs have one special token less than ours have, a text may be shorter than two parts.
#[test]
fn sequences_that_have_no_room_for_two_parts_are_refused() -> anyhow::Result<()> {
    let lines = sentences(40);
    let tokenizer = learn_wordpiece(lines.iter().map(String::as_str), 200)?;
    let json = tokenizer.to_string(false).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&json)?;
    let special =
        |id: &str, kind: u32| serde_json::json!({"SpecialToken": {"id": id, "type_id": kind}});
    let part = |id: &str| serde_json::json!({"Sequence": {"id": id, "type_id": 0}});
    let token = |name: &str| {
        let id = tokenizer.token_to_id(name).unwrap();
        serde_json::json!({"id": name, "ids": [id], "tokens": [name]})
    };
    json["post_processor"] = serde_json::json!({
        "type": "TemplateProcessing",
        "single": [special("[CLS]", 0), part("A"), special("[SEP]", 0)],
        "pair": [special("[CLS]", 0), part("A"), part("B"), special("[SEP]", 0)],
        "special_tokens": {"[CLS]": token("[CLS]"), "[SEP]": token("[SEP]")},
    });
    let tokenizer = tokenizers::Tokenizer::from_bytes(json.to_string()).unwrap();
    let text = Packed::encode(&TextEncoder::new(tokenizer, 4)?, &lines)?;
    for pairing in [Pairing::Excerpt, Pairing::NextSentence] {
        let masking = Masking::new(0.15, false, 0)?;
        let batches = MaskedBatches::new(text.clone(), masking, Batcher::default());
        assert_says(
            batches.paired(pairing).map(drop),
            &["max_length", "4 for", "at least 5"],
        );
    }
    Ok(())
}

#[test]
fn one_sequence_makes_no_pairs() {
    let paired = |length, count| {
        let masking = Masking::new(0.15, false, 0).unwrap();
        let batches = MaskedBatches::new(text(length, count), masking, Batcher::default());
        batches.paired(Pairing::NextSentence).map(drop)
    };
    assert_says(paired(14, 3), &["one sequence", "at least two"]);
    // The shortest that there can be: one token in each part, whatever the text.
    paired(5, 20).unwrap();
    let text = text(5, 20);
    assert!(
        wholes(&text, &batches(&text, Pairing::NextSentence, 0), 0)
            .iter()
            .all(|w| w.first.len() == 1)
    );
}

/// Ids, types and hidden places of two sequences in two parts.
fn inputs() -> anyhow::Result<[Tensor; 3]> {
    Ok([
        Tensor::new(&[[2u32, 7, 3, 5, 9, 3], [2, 9, 4, 3, 6, 3]], &CPU)?,
        Tensor::new(&[[0u32, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1]], &CPU)?,
        Tensor::new(&[1u32, 8, 10], &CPU)?,
    ])
}

#[test]
fn both_heads_are_saved_read_and_handed_on() -> anyhow::Result<()> {
    let [ids, types, places] = inputs()?;
    let start = Start {
        dtype: DType::F64,
        ..Start::default()
    };
    let other = Start {
        seed: 9,
        ..start.clone()
    };
    let [bert, squeeze, roberta] = architectures();
    for (architecture, class) in [
        (bert, "BertForPreTraining"),
        (squeeze, "SqueezeBertForMaskedLM"),
    ] {
        let model = MaskedLanguageModel::with_pairs(&architecture, &start)?;
        let said = model.forward_pairs(&ids, &types, None, &places, &Mode::Eval)?;
        assert_eq!(said.pairs.dims(), [2, 2]);
        let alone = model.forward_at(&ids, Some(&types), None, &places, &Mode::Eval)?;
        assert_close("words", &said.words, &alone, 1e-14)?;
        let labels = places.zeros_like()?;
        let hidden = (&places, &labels);
        let (loss, pairs) = model.loss_and_pairs(&ids, &types, None, hidden, &Mode::Eval)?;
        assert_close("pairs", &pairs, &said.pairs, 1e-14)?;
        let expected = cross_entropy(&said.words, &labels, 0.0, None)?;
        assert_close("loss", &loss, &expected, 1e-13)?;
        assert_eq!(model.config()["architectures"][0], class);

        let folder = tempfile::tempdir()?;
        model.save(folder.path())?;
        let (again, report) = auto::masked_language_model_with_pairs(folder.path(), &other)?;
        assert!(
            report.initialised.is_empty() && report.unused.is_empty(),
            "{report:?}"
        );
        let same = again.forward_pairs(&ids, &types, None, &places, &Mode::Eval)?;
        assert_close("pairs", &same.pairs, &said.pairs, 1e-14)?;

        // A classifier takes the pooler over, and draws its own last map.
        let (classifier, report) = auto::sequence_classifier(folder.path(), Some(2), &other)?;
        assert!(
            report
                .initialised
                .iter()
                .all(|name| name.starts_with("classifier"))
        );
        let pooler = format!("{}.pooler.dense.weight", architecture.prefix());
        let (ours, theirs) = (classifier.vars(), model.vars());
        let of = |vars: &adahessian::NamedVars| vars.get(&pooler).unwrap().as_detached_tensor();
        assert_close(&pooler, &of(&ours), &of(&theirs), 0.0)?;

        // Without the second head everything that the first needs is there; and a model that lacks it draws it.
        let (words, report) = auto::masked_language_model(folder.path(), &other)?;
        assert!(report.initialised.is_empty(), "{report:?}");
        let alone = words.forward_at(&ids, Some(&types), None, &places, &Mode::Eval)?;
        assert_close("words alone", &alone, &said.words, 1e-14)?;
        let refused = words.forward_pairs(&ids, &types, None, &places, &Mode::Eval);
        assert_says(refused, &["a head for pairs", "without"]);
        words.save(folder.path())?;
        let (_, report) = auto::masked_language_model_with_pairs(folder.path(), &other)?;
        assert_eq!(report.initialised.len(), 4, "{report:?}");
    }
    let refused = MaskedLanguageModel::with_pairs(&roberta, &start);
    assert_says(refused.map(drop), &["model_type", "squeezebert", "pairs"]);
    Ok(())
}

/// Logits of transformers' BertForPreTraining.
#[test]
fn both_heads_agree_with_transformers() -> anyhow::Result<()> {
    let reference = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/reference/huggingface/pretraining_bert"
    );
    let folder = std::path::Path::new(reference);
    let golden = candle_core::safetensors::load(folder.join("expected.safetensors"), &CPU)?;
    let start = Start {
        dtype: DType::F64,
        ..Start::default()
    };
    let (model, report) = auto::masked_language_model_with_pairs(folder, &start)?;
    assert!(
        report.initialised.is_empty() && report.unused.is_empty(),
        "{report:?}"
    );
    let (ids, types) = (&golden["input_ids"], &golden["token_type_ids"]);
    let all = Tensor::arange(0u32, ids.elem_count() as u32, &CPU)?;
    let said = model.forward_pairs(ids, types, None, &all, &Mode::Eval)?;
    let words = golden["words"].flatten_to(1)?;
    assert_close("words", &said.words, &words, 1e-10)?;
    assert_close("pairs", &said.pairs, &golden["pairs"], 1e-10)?;
    Ok(())
}

#[test]
fn both_heads_are_differentiated_rightly_twice() -> anyhow::Result<()> {
    let start = Start {
        dtype: DType::F64,
        ..Start::default()
    };
    let model = MaskedLanguageModel::with_pairs(&minute(), &start)?;
    let [ids, types, places] = inputs()?;
    let (stood, related) = (
        Tensor::new(&[4u32, 11, 8], &CPU)?,
        Tensor::new(&[1u32, 0], &CPU)?,
    );
    let loss = || {
        let said = model.forward_pairs(&ids, &types, None, &places, &Mode::Eval);
        let said = said.map_err(|e| candle_core::Error::msg(e.to_string()))?;
        let words = cross_entropy(&said.words, &stood, 0.0, None)?;
        Ok((words + cross_entropy(&said.pairs, &related, 0.0, None)?)?)
    };
    check::gradient(&model.vars(), 1e-6, loss)?;
    check::hessian(&model.vars(), 1e-6, loss)?;
    Ok(())
}

#[test]
fn half_precision_is_half_of_the_bytes_and_refuses_what_it_cannot_hold() -> anyhow::Result<()> {
    let [_, squeeze, _] = architectures();
    let model = MaskedLanguageModel::with_pairs(&squeeze, &Start::default())?;
    let (whole, half) = (tempfile::tempdir()?, tempfile::tempdir()?);
    model.save(whole.path())?;
    model.save_as(half.path(), DType::F16)?;
    let size = |folder: &tempfile::TempDir| {
        folder
            .path()
            .join("model.safetensors")
            .metadata()
            .map(|file| file.len())
    };
    // The names take as much in both.
    let numbers = model.vars().elem_count() as u64;
    assert_eq!(size(&whole)?.abs_diff(size(&half)? + 2 * numbers) / 100, 0);
    let (again, report) = auto::masked_language_model_with_pairs(half.path(), &Start::default())?;
    assert!(
        report.initialised.is_empty() && report.unused.is_empty(),
        "{report:?}"
    );
    for ((name, ours), (_, rounded)) in model.vars().iter().zip(again.vars().iter()) {
        let (ours, rounded) = (ours.as_detached_tensor(), rounded.as_detached_tensor());
        assert_eq!(rounded.dtype(), DType::F32);
        let same = ours.to_dtype(DType::F16)?.to_dtype(DType::F32)?;
        assert_close(name, &rounded, &same, 0.0)?;
        assert_close(name, &rounded, &ours, 1e-3)?;
    }
    let name = "cls.seq_relationship.bias";
    let vars = model.vars();
    let bias = vars.get(name).unwrap();
    bias.set(&Tensor::new(&[1f32, 7e4], &CPU)?)?;
    let before = std::fs::read(half.path().join("model.safetensors"))?;
    let refused = |expected: &[&str]| assert_says(model.save_as(half.path(), DType::F16), expected);
    refused(&[name, "F16", "1 of them would be infinite"]);
    bias.set(&Tensor::new(&[f32::INFINITY, 7e4], &CPU)?)?;
    refused(&[name, "1 of them"]);
    for dtype in [DType::U8, DType::F8E4M3] {
        let name = format!("{dtype:?}");
        assert_says(model.save_as(half.path(), dtype), &["F16, BF16", &name]);
    }
    assert_eq!(
        std::fs::read(half.path().join("model.safetensors"))?,
        before
    );
    // What is not finite before is not finite behind: saved as it is.
    bias.set(&Tensor::new(&[1f32, f32::INFINITY], &CPU)?)?;
    model.save_as(half.path(), DType::F16)?;
    Ok(())
}
