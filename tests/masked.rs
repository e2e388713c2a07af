//! Text without labels: what is hidden, what batches hold, and the model's logits at hidden places alone.

use crate::language_model::parquet_of;
use adahessian::ops::{Mode, cross_entropy};
use adahessian::{Hessian, Hutchinson, LinearOperator, check};
use candle_core::{DType, Device, Tensor};
use datasets::masked::{Pieces, TextFile};
use datasets::wordpiece::{BertConfig, WordCounts, bert_tokenizer, learn_wordpiece};
use datasets::{
    Batcher, Batches, LabelledBatch, MaskedBatches, Masking, Packed, Split, TextEncoder, UNLABELLED,
};
use models::{Architecture, MaskedLanguageModel, Model, Start, bert, roberta, squeezebert};
use std::collections::HashSet;
use std::fs;
use testing::{assert_close, assert_says};

pub(crate) const CPU: Device = Device::Cpu;

/// A byte-level vocabulary in the manner of RoBERTa's.
pub(crate) const BYTE_LEVEL: &str = r###"{"version":"1.0","truncation":null,"padding":null,
"added_tokens":[{"id":0,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
{"id":1,"content":"</s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
{"id":2,"content":"<mask>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
"normalizer":null,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},
"post_processor":{"type":"RobertaProcessing","sep":["</s>",1],"cls":["<s>",0],"trim_offsets":true,"add_prefix_space":false},
"decoder":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},
"model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"ignore_merges":false,
"vocab":{"<s>":0,"</s>":1,"<mask>":2,"a":3,"Ġ":4,"Ġa":5,"#":6,"##":7},"merges":[["Ġ","a"],["#","#"]]}}"###;

const WORDS: [&str; 8] = [
    "harbour",
    "lighthouse",
    "old",
    "keepers",
    "walk",
    "slowly",
    "home",
    "harbourmaster",
];

/// Lines whose words are of one piece and of several.
fn lines(count: usize) -> Vec<String> {
    let line = |i: usize| {
        let words = (0..9).map(|w| WORDS[(i * 7 + w * w + w) % WORDS.len()]);
        words.collect::<Vec<_>>().join(" ")
    };
    (0..count).map(line).collect()
}

fn encoder(max_length: usize) -> TextEncoder {
    let lines = lines(40);
    let tokenizer = learn_wordpiece(lines.iter().map(String::as_str), 60).unwrap();
    TextEncoder::new(tokenizer, max_length).unwrap()
}

fn packed(max_length: usize, count: usize) -> Packed {
    Packed::encode(&encoder(max_length), &lines(count)).unwrap()
}

#[test]
fn a_text_is_cut_into_sequences_and_nothing_is_lost_but_its_end() {
    let encoder = encoder(12);
    let text = packed(12, 7);
    let whole = encoder.pieces(&lines(7)).unwrap().concat();
    assert_eq!((text.tokens(), text.length()), (whole.len(), 12));
    assert_eq!(text.len(), whole.len() / 10);
    let cut: Vec<u32> = (0..text.len())
        .flat_map(|i| text.body(i).unwrap().to_vec())
        .collect();
    assert_eq!(cut, whole[..text.len() * 10]);
    assert_says(text.body(text.len()), &["sequence", "of a text of"]);
    assert_says(text.body(usize::MAX), &["sequence"]);
    // The tokenizer's own ids, of a text that is longer than the encoder's maximum.
    let ids = encoder.tokenizer().clone();
    let one = ids.encode("lighthouse keepers", false).unwrap();
    assert_eq!(
        encoder.pieces(&["lighthouse keepers".into()]).unwrap(),
        [one.get_ids()]
    );
    let short = Packed::encode(&encoder, &["old".into()]);
    assert_says(short, &["max_length", "12 for a text of", "give more text"]);
}

fn ids(text: &Packed) -> Vec<Vec<u32>> {
    (0..text.len()).map(|at| text.body(at).unwrap()).collect()
}

/// Whatever the form of a text, its store holds what its lines in memory make; it is made once, and of its text alone.
#[test]
fn a_store_of_tokens_is_that_of_the_lines() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let path = |name: &str| dir.path().join(name);
    // More than a portion of text, and a rest.
    let lines = lines(30_000);
    let encoder = encoder(16);
    let whole = Packed::encode(&encoder, &lines)?;
    fs::write(path("train.txt"), format!("\n{}\n", lines.join("\n\n")))?;
    let text = TextFile::find(dir.path(), Split::Train)?;
    assert_eq!(text.path, path("train.txt"));
    let store = path("train.pieces");
    let stored = Packed::of_file(&encoder, &text, &store)?;
    assert_eq!(
        (stored.len(), stored.tokens()),
        (whole.len(), whole.tokens())
    );
    assert_eq!(stored.checksum(), whole.checksum());
    assert!(ids(&stored) == ids(&whole));
    assert_says(stored.body(stored.len()), &["sequence"]);

    // As the Hub has it: with headings, in shards.
    let rows: Vec<String> = lines.iter().map(|line| format!(" {line} \n")).collect();
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let shard = |i: usize| path(&format!("validation-0000{i}-of-00002.parquet"));
    let (front, back) = rows.split_at(7);
    let first = parquet_of("text", &[&[" = Harbour = \n", ""], front])?;
    fs::write(shard(0), first)?;
    fs::write(shard(1), parquet_of("text", &[back])?)?;
    let shards = TextFile::find(dir.path(), Split::Validation)?;
    let of_shards = Packed::of_file(&encoder, &shards, &path("valid.pieces"))?;
    assert_eq!(of_shards.checksum(), whole.checksum());

    // The same file, not made again, for sequences of another length; not for another text, tokenizer or number of lines.
    let made = fs::metadata(&store)?.modified()?;
    let longer = Packed::of_file(&self::encoder(32), &text, &store)?;
    assert_eq!((longer.length(), longer.checksum()), (32, whole.checksum()));
    assert_eq!(fs::metadata(&store)?.modified()?, made);
    let few = TextFile {
        most: Some(9),
        ..text.clone()
    };
    let nine = Packed::of_file(&encoder, &few, &path("few.pieces"))?;
    assert_eq!(
        nine.checksum(),
        Packed::encode(&encoder, &lines[..9])?.checksum()
    );
    let other = learn_wordpiece(lines.iter().map(String::as_str), 40)?;
    let other = TextEncoder::new(other, 16)?;
    let refused = ["train.pieces", "another text", "delete the file"];
    assert_says(Packed::of_file(&encoder, &few, &store), &refused);
    assert_says(Packed::of_file(&other, &text, &store), &refused);
    assert_says(Packed::of_file(&encoder, &shards, &store), &refused);
    // The same bytes under a name that says that they are WikiText's are read otherwise.
    fs::copy(path("train.txt"), path("wiki.train.tokens"))?;
    let renamed = TextFile::new(path("wiki.train.tokens"));
    assert_says(Packed::of_file(&encoder, &renamed, &store), &refused);
    let mut bytes = fs::read(&store)?;
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&store, bytes)?;
    assert_says(
        Packed::of_file(&encoder, &text, &store),
        &["damaged", "delete the file"],
    );
    Ok(())
}

#[test]
fn words_that_are_counted_line_by_line_make_the_same_tokenizer() -> anyhow::Result<()> {
    let lines = lines(50);
    let mut counts = WordCounts::default();
    lines.iter().try_for_each(|line| counts.add(line))?;
    let json = |tokenizer: tokenizers::Tokenizer| tokenizer.to_string(false).unwrap();
    let at_once = learn_wordpiece(lines.iter().map(String::as_str), 60)?;
    assert_eq!(json(counts.tokenizer(60)?), json(at_once));
    assert_says(counts.tokenizer(5), &["vocab_size", "5 for 8"]);
    assert_says(counts.add(&"a".repeat(1 << 21)), &["2097152 bytes"]);
    Ok(())
}

#[test]
fn a_tokenizer_without_a_mask_is_refused() {
    let tokenizer =
        bert_tokenizer(b"[PAD]\n[UNK]\n[CLS]\n[SEP]\na", BertConfig::default()).unwrap();
    let encoder = TextEncoder::new(tokenizer, 8).unwrap();
    assert_says(
        Packed::encode(&encoder, &["a a a a a a a".into()]),
        &["[MASK]", "masked language model"],
    );
}

#[test]
fn of_ten_hidden_tokens_eight_are_masked_and_one_is_another() {
    let text = packed(102, 4000);
    let pieces = text.pieces();
    let masking = Masking::new(0.15, false, 3).unwrap();
    let (mut chosen, mut masked, mut kept, mut replaced) = (0, 0, 0, 0);
    let mut places = [0usize; 100];
    for index in 0..text.len() {
        let original = text.body(index).unwrap();
        let mut body = original.to_vec();
        let said = masking.apply(pieces, &mut body, 0, index);
        assert_eq!(said.len(), 15);
        assert!(said.is_sorted() && said.iter().all(|(place, id)| original[*place] == *id));
        let hidden: HashSet<usize> = said.iter().map(|(place, _)| *place).collect();
        for place in 0..original.len() {
            match (hidden.contains(&place), body[place] == original[place]) {
                (false, same) => assert!(same, "what is not chosen stays"),
                (true, _) if body[place] == pieces.mask => masked += 1,
                (true, true) => kept += 1,
                (true, false) => {
                    assert!(pieces.is_plain(body[place]));
                    replaced += 1;
                }
            }
        }
        said.iter().for_each(|(place, _)| places[*place] += 1);
        chosen += said.len();
    }
    // Of n draws with probability p the share is off by more than 5 √(p (1 - p) / n) once in two million times.
    let share = |count: usize, p: f64| {
        let (n, got) = (chosen as f64, count as f64 / chosen as f64);
        assert!(
            (got - p).abs() < 5.0 * (p * (1.0 - p) / n).sqrt(),
            "{got} and {p} of {n}"
        );
    };
    // A drawn token may be the one that stood there: one in as many as there are.
    let same = 0.1 / pieces.plain().len() as f64;
    share(masked, 0.8);
    share(kept, 0.1 + same);
    share(replaced, 0.1 - same);
    places.iter().for_each(|count| share(*count, 0.01));
}

#[test]
fn what_is_hidden_is_a_function_of_seed_epoch_and_sequence() {
    let text = packed(34, 200);
    let hidden = |seed, epoch, index: usize| {
        let mut body = text.body(index).unwrap().to_vec();
        let masking = Masking::new(0.2, true, seed).unwrap();
        (masking.apply(text.pieces(), &mut body, epoch, index), body)
    };
    let first = hidden(1, 0, 3);
    hidden(2, 5, 9);
    assert_eq!(hidden(1, 0, 3), first);
    assert_ne!(hidden(1, 1, 3).0, first.0);
    assert_ne!(hidden(2, 0, 3).0, first.0);
    for share in [0.0, -0.1, 1.1, f64::NAN] {
        assert_says(
            Masking::new(share, false, 0),
            &["share of masked tokens", "0.15"],
        );
    }
}

#[test]
fn whole_words_are_hidden_or_not_at_all() {
    let text = packed(66, 300);
    let pieces = text.pieces();
    let masking = Masking::new(0.15, true, 5).unwrap();
    let mut of_several = 0;
    for index in 0..text.len() {
        let original = text.body(index).unwrap();
        let said = masking.apply(pieces, &mut original.to_vec(), 2, index);
        let hidden: HashSet<usize> = said.iter().map(|(place, _)| *place).collect();
        for (place, id) in original.iter().enumerate().skip(1) {
            if !pieces.begins(*id) {
                let both = (hidden.contains(&(place - 1)), hidden.contains(&place));
                assert_eq!(both.0, both.1, "{index}, {place}");
                of_several += usize::from(both.1);
            }
        }
        // 64 · 0.15 is 9.6: ten, and what the last word has beyond that.
        assert!((10..20).contains(&said.len()), "{}", said.len());
    }
    assert!(of_several > 100, "{of_several}");
}

/// Byte-level vocabularies mark what begins a word, and may hold WordPiece's mark as text.
#[test]
fn words_are_told_by_the_marks_of_their_kind_of_vocabulary() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), BYTE_LEVEL).unwrap();
    let encoder = TextEncoder::from_folder(folder.path(), 8).unwrap();
    let pieces = Pieces::of(&encoder).unwrap();
    assert_eq!((pieces.first, pieces.last, pieces.mask), (0, 1, 2));
    assert_eq!(pieces.plain(), [3, 4, 5, 6, 7]);
    let begins = [3, 5, 7].map(|id| pieces.begins(id));
    assert_eq!(begins, [false, true, false]);
}

/// Of a SentencePiece vocabulary words begin with `▁`, whatever letters are in it.
#[test]
fn words_of_a_sentencepiece_vocabulary_with_a_dotted_g() {
    let vocabulary = r#""Ġ":4,"▁":5,"▁a":6},"merges":[["▁","a"]]}}"#;
    let (start, _) = BYTE_LEVEL.split_once(r#""Ġ":4"#).unwrap();
    let pre_tokenizer =
        r#"{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}"#;
    let metaspace =
        r#"{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true}"#;
    let text = format!("{start}{vocabulary}").replace(pre_tokenizer, metaspace);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), text).unwrap();
    let encoder = TextEncoder::from_folder(folder.path(), 8).unwrap();
    let pieces = Pieces::of(&encoder).unwrap();
    let begins = [3, 4, 5, 6].map(|id| pieces.begins(id));
    assert_eq!(begins, [false, false, true, true]);
}

/// Merges that a tokenizer leaves out by lot while it trains are made here: a text has the same tokens each time.
#[test]
fn a_text_has_the_same_tokens_each_time() {
    let tokens = |dropout: &str| {
        let text = BYTE_LEVEL.replace(r#""dropout":null"#, &format!(r#""dropout":{dropout}"#));
        assert_eq!(text != BYTE_LEVEL, dropout != "null");
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tokenizer.json"), text).unwrap();
        let encoder = TextEncoder::from_folder(folder.path(), 8).unwrap();
        encoder
            .pieces(&["a".to_string() + &" a".repeat(50)])
            .unwrap()
    };
    assert_eq!(tokens("0.5"), tokens("null"));
}

/// WikiText's unknown word is the tokenizer's own, whatever it calls it.
#[test]
fn the_unknown_word_is_the_tokenizers() {
    let named = |name: &str| {
        let folder = tempfile::tempdir().unwrap();
        encoder(6).save(folder.path()).unwrap();
        let path = folder.path().join("tokenizer.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("[UNK]", name)).unwrap();
        let encoder = TextEncoder::from_folder(folder.path(), 6).unwrap();
        let unknown = encoder.tokenizer().token_to_id(name).unwrap();
        let lines = ["[UNK] [UNK] [UNK] [UNK]".to_string()];
        let packed = Packed::encode(&encoder, &lines).unwrap();
        assert_eq!(packed.body(0).unwrap(), [unknown; 4], "{name}");
    };
    named("[UNK]");
    named("<unk>");
}

#[test]
fn special_tokens_are_not_said_unless_there_are_no_others() {
    let encoder = encoder(10);
    let pieces = Pieces::of(&encoder).unwrap();
    let unknown = encoder.tokenizer().token_to_id("[UNK]").unwrap();
    let old = encoder.pieces(&["old".into()]).unwrap()[0][0];
    let masking = Masking::new(0.5, true, 0).unwrap();
    for index in 0..50 {
        let mut body = [unknown, unknown, old, unknown];
        assert_eq!(masking.apply(&pieces, &mut body, 0, index), [(2, old)]);
        let said = masking.apply(&pieces, &mut [unknown; 4], 0, index);
        assert!(said.len() == 2 && said.iter().all(|(_, id)| *id == unknown));
    }
}

fn batches(text: &Packed, batch_size: usize, shuffle: bool) -> MaskedBatches {
    let batcher = Batcher {
        batch_size,
        seed: 4,
        shuffle,
        ..Batcher::default()
    };
    MaskedBatches::new(text.clone(), Masking::new(0.15, false, 4).unwrap(), batcher)
}

#[test]
fn a_batch_has_its_sequences_and_what_stood_in_them() {
    let text = packed(18, 60);
    let (pieces, ordered) = (text.pieces(), batches(&text, 5, false));
    assert_eq!(ordered.len(0), text.len().div_ceil(5));
    for index in [0, 1, ordered.len(0) - 1] {
        let batch = ordered.get(1, index).unwrap();
        let mut ids = batch.input_ids.to_vec2::<u32>().unwrap();
        let positions = batch.positions.to_vec1::<u32>().unwrap();
        let labels = batch.labels.to_vec1::<u32>().unwrap();
        assert_eq!(batch.weight().unwrap(), positions.len() as f64);
        // With what stood there in its place each row is its sequence again.
        for (position, label) in positions.iter().zip(labels) {
            ids[*position as usize / 18][*position as usize % 18] = label;
        }
        for (row, ids) in ids.iter().enumerate() {
            assert_eq!((ids[0], ids[17]), (pieces.first, pieces.last));
            assert_eq!(&ids[1..17], text.body(index * 5 + row).unwrap());
        }
    }
    // In another order the same sequences, each once; the same batch however often it is asked for.
    let shuffled = batches(&text, 5, true);
    let sum = |batches: &MaskedBatches, epoch| -> usize {
        (0..batches.len(epoch))
            .map(|i| batches.get(epoch, i).unwrap().size())
            .sum()
    };
    assert_eq!(sum(&shuffled, 3), text.len());
    let ids = |epoch, index| {
        shuffled
            .get(epoch, index)
            .unwrap()
            .input_ids
            .to_vec2::<u32>()
            .unwrap()
    };
    assert_eq!(ids(3, 2), ids(3, 2));
    assert_ne!(ids(3, 2), ids(4, 2));
}

#[test]
fn parts_of_a_batch_are_batches() {
    let text = packed(18, 60);
    let batch = batches(&text, 6, true).get(0, 1).unwrap();
    let (front, back) = (batch.narrow(0, 2).unwrap(), batch.narrow(2, 4).unwrap());
    assert_eq!(front.size() + back.size(), 6);
    let both = |a: &Tensor, b: &Tensor| Tensor::cat(&[a, b], 0).unwrap().flatten_all().unwrap();
    let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<u32>().unwrap();
    assert_eq!(
        flat(&both(&front.input_ids, &back.input_ids)),
        flat(&batch.input_ids)
    );
    assert_eq!(
        flat(&both(&front.labels, &back.labels)),
        flat(&batch.labels)
    );
    let moved: Vec<u32> = flat(&back.positions).iter().map(|at| at + 2 * 18).collect();
    assert_eq!(
        [flat(&front.positions), moved].concat(),
        flat(&batch.positions)
    );
    for (start, len) in [(5, 2), (0, 0), (usize::MAX, 2)] {
        assert_says(batch.narrow(start, len), &["of a batch of 6"]);
    }
}

pub(crate) fn architectures() -> [Architecture; 3] {
    [
        bert::Config::tiny().architecture().unwrap(),
        squeezebert::Config::tiny().architecture().unwrap(),
        roberta::Config::tiny().architecture().unwrap(),
    ]
}

/// One layer, and few enough numbers for a difference in each.
pub(crate) fn minute() -> Architecture {
    let config = squeezebert::Config {
        vocab_size: 12,
        hidden_size: 8,
        embedding_size: 8,
        intermediate_size: 16,
        num_hidden_layers: 1,
        initializer_range: 0.4,
        ..squeezebert::Config::tiny()
    };
    config.architecture().unwrap()
}

/// The loss at hidden places alone is the one over all places of which the others have no label: its value, its gradient
/// and its product with the Hessian.
#[test]
fn logits_at_hidden_places_are_those_of_all_places() -> anyhow::Result<()> {
    for architecture in architectures() {
        let start = Start {
            dtype: DType::F64,
            ..Start::default()
        };
        let model = MaskedLanguageModel::new(&architecture, &start)?;
        let ids = Tensor::new(&[[2u32, 17, 5, 9, 3], [2, 9, 30, 11, 3]], &CPU)?;
        let (places, labels) = ([1u32, 3, 7], [4u32, 21, 90]);
        let mut all = [UNLABELLED; 10];
        places
            .iter()
            .zip(labels)
            .for_each(|(place, label)| all[*place as usize] = label);
        let (places, labels) = (Tensor::new(&places, &CPU)?, Tensor::new(&labels, &CPU)?);
        let mode = Mode::Train {
            seed: 1,
            step: 2,
            micro: 0,
        };
        let whole = model.forward(&ids, None, None, &mode)?.flatten_to(1)?;
        let some = model.forward_at(&ids, None, None, &places, &mode)?;
        assert_close("logits", &some, &whole.index_select(&places, 0)?, 1e-12)?;
        let whole = cross_entropy(
            &whole,
            &Tensor::new(&all, &CPU)?,
            0.0,
            Some(UNLABELLED.into()),
        )?;
        let of_logits = cross_entropy(&some, &labels, 0.0, None)?;
        assert_close("loss of logits", &of_logits, &whole, 1e-13)?;
        let some = model.loss_at(&ids, None, None, (&places, &labels), &mode)?;
        assert_close("loss", &some, &whole, 1e-13)?;
        let vars = model.vars();
        let probe = Hutchinson::new(1, 5).probe(&vars, 0)?;
        let (a, b) = (Hessian::of(&some, &vars)?, Hessian::of(&whole, &vars)?);
        let pairs = [
            (a.gradient()?, b.gradient()?, 1e-11),
            (a.apply(&probe)?, b.apply(&probe)?, 1e-9),
        ];
        for (some, whole, tolerance) in pairs {
            for ((name, some), whole) in vars.names().zip(some.tensors()).zip(whole.tensors()) {
                // What is added to all keys alike changes no softmax: zero, but for rounding.
                let zero = name.ends_with("key.bias");
                let (some, whole) = match zero {
                    true => ((some + 1.0)?, (whole + 1.0)?),
                    false => (some.clone(), whole.clone()),
                };
                assert_close(name, &some, &whole, tolerance)?;
            }
        }
        let outside = Tensor::new(&[10u32], &CPU)?;
        assert_says(
            model.forward_at(&ids, None, None, &outside, &mode),
            &["0 to 9", "10"],
        );
    }
    Ok(())
}

#[test]
fn hidden_places_are_differentiated_rightly_twice() -> anyhow::Result<()> {
    let start = Start {
        dtype: DType::F64,
        ..Start::default()
    };
    let model = MaskedLanguageModel::new(&minute(), &start)?;
    let ids = Tensor::new(&[[2u32, 7, 5, 3], [2, 9, 4, 3]], &CPU)?;
    // One place twice: its gradients add.
    let places = Tensor::new(&[1u32, 6, 1], &CPU)?;
    let labels = Tensor::new(&[4u32, 11, 8], &CPU)?;
    let loss = || {
        let logits = model.forward_at(&ids, None, None, &places, &Mode::Eval);
        let logits = logits.map_err(|e| candle_core::Error::msg(e.to_string()))?;
        cross_entropy(&logits, &labels, 0.0, None)
    };
    check::gradient(&model.vars(), 1e-6, loss)?;
    check::hessian(&model.vars(), 1e-6, loss)?;
    Ok(())
}
