//! GLUE from folders, parquet files and the embedded samples: counts, columns, malformed input.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datasets::glue::{
    GlueCorpus, GlueTask, Label, Ragged, Row, Split, load, load_folder, load_folder_with,
    load_parquet, load_parquet_folder,
};
use datasets::{Error, Place, sample};
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::file::metadata::{ParquetMetaDataReader, ParquetMetaDataWriter};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use tempfile::TempDir;
use testing::assert_says;

fn fixtures(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(name)
}

/// The folder of real GLUE data that has `inside`, or `None` with a printed reason.
fn shared(inside: &str) -> Option<PathBuf> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared"));
    let found = ["data-restricted/glue", "data/glue"]
        .iter()
        .map(|part| root.join(part))
        .find(|dir| dir.join(inside).exists());
    if found.is_none() {
        println!("skipped: no real {inside} here");
    }
    found
}

fn class(row: &Row) -> u32 {
    match row.label {
        Some(Label::Class(class)) => class,
        other => panic!("{other:?} is no class"),
    }
}

fn pair(first: &str, second: &str, class: u32) -> Row {
    Row {
        first: first.to_string(),
        second: Some(second.to_string()),
        label: Some(Label::Class(class)),
    }
}

fn single(first: &str, class: u32) -> Row {
    Row {
        first: first.to_string(),
        second: None,
        label: Some(Label::Class(class)),
    }
}

/// `DIR/FOLDER/FILE` with these bytes.
fn folder_with(folder: &str, file: &str, bytes: &[u8]) -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join(folder)).unwrap();
    fs::write(dir.path().join(folder).join(file), bytes).unwrap();
    dir
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn task_names_are_read_in_any_style() {
    for &task in GlueTask::all() {
        assert_eq!(task.to_string().parse::<GlueTask>().unwrap(), task);
        assert_eq!(
            task.name().to_uppercase().parse::<GlueTask>().unwrap(),
            task
        );
        assert_eq!(task.labels().is_empty(), task.is_regression());
    }
    assert_eq!("SST-2".parse::<GlueTask>().unwrap(), GlueTask::Sst2);
    assert_eq!("sts_b".parse::<GlueTask>().unwrap(), GlueTask::Stsb);
    assert_eq!(
        "MNLI_MM".parse::<GlueTask>().unwrap(),
        GlueTask::MnliMismatched
    );
    let message = "wnli".parse::<GlueTask>().unwrap_err().to_string();
    assert!(
        message.contains("\"wnli\"") && message.contains("rte, mrpc, stsb"),
        "{message}"
    );
}

#[test]
fn every_task_is_read_in_its_original_format() {
    let dir = fixtures("glue");
    let train = |task| load_folder(&dir, task, Split::Train).unwrap();
    assert_eq!(
        train(GlueTask::Rte),
        [
            pair("The ferry left the harbour at noon.", "A boat departed.", 0),
            pair("She said \"no\" twice.", "She agreed at once.", 1),
            pair(
                "\"Half a quote opens here and never closes.",
                "It rained.",
                1
            ),
        ]
    );
    assert_eq!(
        train(GlueTask::Mrpc)[0],
        pair(
            "\" The talks went well , \" the envoy said .",
            "The envoy said \" the talks went well .",
            1
        )
    );
    assert_eq!(
        train(GlueTask::Sst2)[2],
        single("it 's \"fine ", 1),
        "blanks at the end belong to the text"
    );
    assert_eq!(train(GlueTask::Qnli)[1].label, Some(Label::Class(1)));
    assert_eq!(train(GlueTask::Qqp)[1], pair("What is \"rust\"?", "", 0));
    let mnli: Vec<u32> = train(GlueTask::Mnli).iter().map(class).collect();
    assert_eq!(mnli, [0, 2, 1], "gold_label, not label1");
    assert_eq!(train(GlueTask::MnliMismatched), train(GlueTask::Mnli));
    assert_eq!(
        train(GlueTask::Cola),
        [
            single("The cat sat on the mat.", 1),
            single("The cat sat mat the on.", 0),
            single("\"Go,\" she said.", 1),
        ]
    );
    let scores: Vec<_> = train(GlueTask::Stsb).iter().map(|row| row.label).collect();
    assert_eq!(
        scores,
        [4.8, 0.0, 5.0].map(|score| Some(Label::Score(score)))
    );

    for &task in GlueTask::all() {
        let dev = load(Some(&dir), task, Split::Validation).unwrap();
        assert_eq!(dev.len(), 1, "{task}");
        assert_eq!(dev[0].second.is_some(), task.is_pair(), "{task}");
        let test = load_folder(&dir, task, Split::Test).unwrap();
        assert_eq!(test.len(), 1, "{task}");
        assert_eq!(test[0].label, None, "{task}");
    }
    let matched = load_folder(&dir, GlueTask::Mnli, Split::Validation).unwrap();
    let mismatched = load_folder(&dir, GlueTask::MnliMismatched, Split::Validation).unwrap();
    assert_eq!((class(&matched[0]), class(&mismatched[0])), (1, 2));
    // The task's own folder will do as well.
    let own = load_folder(&dir.join("RTE"), GlueTask::Rte, Split::Train).unwrap();
    assert_eq!(own, train(GlueTask::Rte));
}

#[test]
fn a_task_has_a_corpus_and_mnli_two_validation_sets() {
    let dir = fixtures("glue");
    let rte = GlueCorpus::load(Some(&dir), GlueTask::Rte).unwrap();
    assert_eq!(
        rte.train,
        load(Some(&dir), GlueTask::Rte, Split::Train).unwrap()
    );
    assert_eq!(rte.mismatched, None);
    let texts: Vec<&str> = rte.texts().collect();
    assert_eq!(texts.len(), 2 * rte.train.len());
    assert_eq!(texts[0], rte.train[0].first);

    let copy = TempDir::new().unwrap();
    fs::create_dir(copy.path().join("MNLI")).unwrap();
    for name in ["train.tsv", "dev_matched.tsv", "dev_mismatched.tsv"] {
        fs::copy(
            dir.join("MNLI").join(name),
            copy.path().join("MNLI").join(name),
        )
        .unwrap();
    }
    let mut both = GlueCorpus::load(Some(copy.path()), GlueTask::Mnli).unwrap();
    assert_eq!(both.mismatched.as_ref().map(Vec::len), Some(1));
    both.truncate(Some(2), Some(0));
    assert_eq!((both.train.len(), both.validation.len()), (2, 0));
    assert_eq!(both.mismatched, Some(Vec::new()));

    // A folder may lack it, but what is there must be whole.
    let other = copy.path().join("MNLI/dev_mismatched.tsv");
    fs::write(&other, "index\tsentence1\n0\ta").unwrap();
    assert_says(
        GlueCorpus::load(Some(copy.path()), GlueTask::Mnli),
        &["dev_mismatched.tsv"],
    );
    fs::remove_file(&other).unwrap();
    let one = GlueCorpus::load(Some(copy.path()), GlueTask::Mnli).unwrap();
    assert_eq!((one.validation.len(), one.mismatched), (1, None));

    let sample = sample::glue_corpus(GlueTask::Sst2).unwrap().unwrap();
    assert_eq!((sample.train.len(), sample.validation.len()), (1600, 400));
    assert_eq!(sample::glue_corpus(GlueTask::Rte).unwrap(), None);
}

#[test]
fn tasks_come_in_lists() {
    let list = GlueTask::list("rte,sst-2").unwrap();
    assert_eq!(list, [GlueTask::Rte, GlueTask::Sst2]);
    let all = GlueTask::list("all").unwrap();
    assert_eq!(all.len(), GlueTask::all().len() - 1);
    assert!(!all.contains(&GlueTask::MnliMismatched));
    assert_eq!(GlueTask::list("sst2,sst-2,all").unwrap().len(), all.len());
    assert_says(GlueTask::list("rte,snli"), &["snli", "rte, mrpc"]);
}

#[test]
fn mrpc_from_the_corpus_equals_mrpc_of_the_download() {
    let (corpus, download) = (fixtures("glue-msr"), fixtures("glue"));
    for split in [Split::Train, Split::Validation] {
        assert_eq!(
            load_folder(&corpus, GlueTask::Mrpc, split).unwrap(),
            load_folder(&download, GlueTask::Mrpc, split).unwrap()
        );
    }
    let test = load_folder(&corpus, GlueTask::Mrpc, Split::Test).unwrap();
    assert_eq!(test, [pair("Rain is expected .", "Snow is likely .", 0)]);

    let dir = TempDir::new().unwrap();
    let mrpc = dir.path().join("MRPC");
    fs::create_dir(&mrpc).unwrap();
    let name = "msr_paraphrase_train.txt";
    fs::copy(corpus.join("MRPC").join(name), mrpc.join(name)).unwrap();
    let train = || load_folder(dir.path(), GlueTask::Mrpc, Split::Train).unwrap_err();
    assert!(train().to_string().contains("dev_ids.tsv"), "{}", train());
    for end in ["", "\n", "\n\n"] {
        fs::write(mrpc.join("dev_ids.tsv"), format!("15\t16\n98\t99{end}")).unwrap();
        assert_says(Err::<(), _>(train()), &["1 of 2 pairs, first 98 99"]);
    }
    fs::write(mrpc.join("dev_ids.tsv"), "15\t16\n\n98\t99\n").unwrap();
    assert_says(Err::<(), _>(train()), &["line 2"]);
    fs::write(mrpc.join("dev_ids.tsv"), "15\t16\n98\n").unwrap();
    assert!(
        train()
            .to_string()
            .contains("line 2: 1 tab-separated fields, expected 2")
    );
}

#[test]
fn line_ends_marks_compression_and_samples() {
    let text = "\u{feff}Sentence\tLABEL\r\na b\t1\r\nc\rd\t0\r\n\r\n";
    let expected = [single("a b", 1), single("c\rd", 0)];
    for (file, bytes) in [
        ("train.tsv", text.as_bytes().to_vec()),
        ("train.tsv.gz", gzip(text.as_bytes())),
        ("train.sample.tsv", text.trim_end().as_bytes().to_vec()),
    ] {
        let dir = folder_with("SST-2", file, &bytes);
        let rows = load_folder(dir.path(), GlueTask::Sst2, Split::Train).unwrap();
        assert_eq!(rows, expected, "{file}");
    }
}

/// As the Hub's tables have it where the server keeps a label; elsewhere it is none.
#[test]
fn a_secret_label_of_a_test_file() {
    for secret in ["-1", "-1.0"] {
        let text = format!("sentence\tlabel\na b\t{secret}\nc\t0\n");
        let dir = folder_with("SST-2", "test.tsv", text.as_bytes());
        let rows = load_folder(dir.path(), GlueTask::Sst2, Split::Test).unwrap();
        assert_eq!(rows[0].label, None);
        assert_eq!(rows[1], single("c", 0));
        let error = refused("train.tsv", text.as_bytes());
        assert!(matches!(&error, Error::BadLabel { got, .. } if got == secret));
    }
}

/// Loads SST-2's training split from a file with these bytes and gives the error.
fn refused(file: &str, bytes: &[u8]) -> Error {
    let dir = folder_with("SST-2", file, bytes);
    let error = load_folder(dir.path(), GlueTask::Sst2, Split::Train).unwrap_err();
    assert!(error.to_string().contains(file), "names the file: {error}");
    error
}

#[test]
fn malformed_files_are_refused_with_their_line() {
    let error = refused("train.tsv", b"sentence\tlabel\na\t1\nb c 0\n");
    assert!(
        matches!(
            error,
            Error::FieldCount {
                place: Place::Line(3),
                expected: 2,
                got: 1,
                ..
            }
        ),
        "{error}"
    );
    let error = refused("train.tsv", b"sentence\tlabel\na\tb\t1\n");
    assert!(
        matches!(
            error,
            Error::FieldCount {
                place: Place::Line(2),
                got: 3,
                ..
            }
        ),
        "{error}"
    );
    let error = refused("train.tsv", b"sentence\tlabel\na\t1\n\nb\t0\n");
    assert!(
        matches!(
            error,
            Error::FieldCount {
                place: Place::Line(3),
                ..
            }
        ),
        "{error}"
    );
    for bad in ["2", "-1", "", "positive", "1 "] {
        let error = refused(
            "train.tsv",
            format!("sentence\tlabel\na\t{bad}\n").as_bytes(),
        );
        assert!(
            matches!(&error, Error::BadLabel { place: Place::Line(2), got, .. } if got == bad),
            "{error}"
        );
        assert!(error.to_string().contains("one of 0, 1"), "{error}");
    }
    let error = refused("train.tsv", b"sentence\tlabel\na\t1\nb\xff\t1\n");
    assert!(
        matches!(
            error,
            Error::InvalidUtf8 {
                place: Place::Line(3),
                ..
            }
        ),
        "{error}"
    );
    for empty in ["", "sentence\tlabel\n", "sentence\tlabel\n\n"] {
        let error = refused("train.tsv", empty.as_bytes());
        assert!(matches!(error, Error::Empty { .. }), "{error}");
    }
    let error = refused("train.tsv", b"index\tsentence\n0\ta\n");
    assert!(
        matches!(&error, Error::MissingColumn { column, found, .. }
            if column == "label" && found == "index, sentence"),
        "{error}"
    );
    // Long enough that a cut leaves some whole lines.
    let mut text = "sentence\tlabel\n".to_string();
    for i in 0..5000 {
        text.push_str(&format!("sentence {}\t{}\n", i * i % 7919, i % 2));
    }
    let whole = gzip(text.as_bytes());
    let error = refused("train.tsv.gz", &whole[..whole.len() / 2]);
    assert!(matches!(error, Error::Gzip { line: 1.., .. }), "{error}");
    let error = refused("train.tsv.gz", text.as_bytes());
    assert!(matches!(error, Error::Gzip { line: 0, .. }), "{error}");
}

#[test]
fn scores_must_be_numbers_up_to_five() {
    for bad in ["5.1", "-0.2", "NaN", "inf", "", "four"] {
        let text = format!("sentence1\tsentence2\tscore\na\tb\t1.5\na\tb\t{bad}\n");
        let dir = folder_with("STS-B", "dev.tsv", text.as_bytes());
        let error = load_folder(dir.path(), GlueTask::Stsb, Split::Validation).unwrap_err();
        assert!(
            matches!(&error, Error::BadLabel { place: Place::Line(3), column, .. } if *column == "score"),
            "{error}"
        );
    }
}

#[test]
fn ragged_rows_are_skipped_only_on_request() {
    let text = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n\
                0\t1\t2\tWhy?\tHow?\t0\n1\t3\t4\tcut\n2\t5\t6\tWhat?\tWhich?\t1\n";
    let dir = folder_with("QQP", "train.tsv", text.as_bytes());
    let error = load_folder(dir.path(), GlueTask::Qqp, Split::Train).unwrap_err();
    assert!(error.to_string().contains("skipped and counted"), "{error}");
    let loaded = load_folder_with(
        dir.path(),
        GlueTask::Qqp,
        Split::Train,
        Ragged::SkipAndCount,
    )
    .unwrap();
    assert_eq!(
        loaded.rows,
        [pair("Why?", "How?", 0), pair("What?", "Which?", 1)]
    );
    assert_eq!(loaded.skipped, 1);
    // What is trained on: QQP's own rows of this kind, as published, do not stop it; those of others do.
    fs::copy(
        dir.path().join("QQP/train.tsv"),
        dir.path().join("QQP/dev.tsv"),
    )
    .unwrap();
    let corpus = GlueCorpus::load(Some(dir.path()), GlueTask::Qqp).unwrap();
    assert_eq!(
        (corpus.train.len(), corpus.validation.len(), corpus.skipped),
        (2, 2, 2)
    );
    let rte = "index\tsentence1\tsentence2\tlabel\n0\tWhy\n";
    let dir = folder_with("RTE", "train.tsv", rte.as_bytes());
    let error = GlueCorpus::load(Some(dir.path()), GlueTask::Rte).unwrap_err();
    assert!(error.to_string().contains("train.tsv"), "{error}");
}

#[test]
fn a_missing_file_names_what_was_looked_for() {
    let dir = TempDir::new().unwrap();
    let error = load(Some(dir.path()), GlueTask::Mnli, Split::Validation).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, Error::NotFound { .. }));
    assert!(message.contains("MNLI/dev_matched.tsv[.gz]"), "{message}");
    assert!(
        message.contains("mnli/validation_matched-NNNNN-of-NNNNN.parquet"),
        "{message}"
    );
    let nowhere = dir.path().join("nowhere");
    assert!(load(Some(&nowhere), GlueTask::Rte, Split::Train).is_err());
}

/// An SST-2 parquet file with these rows, uncompressed or snappy.
pub(crate) fn sst2_parquet(rows: &[(&[u8], i64)], compression: Compression) -> Vec<u8> {
    let schema = "message m { REQUIRED BYTE_ARRAY sentence (UTF8); REQUIRED INT64 label; REQUIRED INT32 idx; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_compression(compression)
        .build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let texts: Vec<ByteArray> = rows.iter().map(|(text, _)| text.to_vec().into()).collect();
    let labels: Vec<i64> = rows.iter().map(|(_, label)| *label).collect();
    let indices: Vec<i32> = (0..rows.len() as i32).collect();
    let mut column = group.next_column().unwrap().unwrap();
    column
        .typed::<ByteArrayType>()
        .write_batch(&texts, None, None)
        .unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column
        .typed::<Int64Type>()
        .write_batch(&labels, None, None)
        .unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column
        .typed::<Int32Type>()
        .write_batch(&indices, None, None)
        .unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.into_inner().unwrap()
}

/// The same file, with a footer that says its pages are compressed with zstd.
fn claim_zstd(file: &[u8]) -> Vec<u8> {
    let tail = file.len() - 8;
    let footer = u32::from_le_bytes(file[tail..tail + 4].try_into().unwrap()) as usize;
    let bytes = bytes_of(file);
    let metadata = ParquetMetaDataReader::new()
        .parse_and_finish(&bytes)
        .unwrap();
    let groups = metadata.row_groups().iter().map(|group| {
        let columns = group.columns().iter().map(|column| {
            let zstd = Compression::ZSTD(ZstdLevel::default());
            column
                .clone()
                .into_builder()
                .set_compression(zstd)
                .build()
                .unwrap()
        });
        let columns = columns.collect();
        group
            .clone()
            .into_builder()
            .set_column_metadata(columns)
            .build()
            .unwrap()
    });
    let groups = groups.collect();
    let metadata = metadata
        .clone()
        .into_builder()
        .set_row_groups(groups)
        .build();
    let mut out = file[..tail - footer].to_vec();
    ParquetMetaDataWriter::new(&mut out, &metadata)
        .finish()
        .unwrap();
    out
}

/// The parquet reader wants a file or its own buffer type.
fn bytes_of(file: &[u8]) -> fs::File {
    let mut copy = tempfile::tempfile().unwrap();
    copy.write_all(file).unwrap();
    copy
}

#[test]
fn parquet_rows_labels_and_shards() {
    let dir = TempDir::new().unwrap();
    let sst2 = dir.path().join("sst2");
    fs::create_dir(&sst2).unwrap();
    let shard = |index: usize, rows: &[(&[u8], i64)]| {
        let path = sst2.join(format!("train-{index:05}-of-00002.parquet"));
        fs::write(&path, sst2_parquet(rows, Compression::SNAPPY)).unwrap();
        path
    };
    shard(1, &[(b"c", 1)]);
    let error = load_parquet_folder(dir.path(), GlueTask::Sst2, Split::Train).unwrap_err();
    assert!(
        error.to_string().contains("expected numbers 0 to 1"),
        "{error}"
    );
    shard(0, &[(b"a ", 1), ("b\u{e9}".as_bytes(), 0)]);
    let rows = load(Some(dir.path()), GlueTask::Sst2, Split::Train).unwrap();
    assert_eq!(
        rows,
        [single("a ", 1), single("b\u{e9}", 0), single("c", 1)]
    );

    let path = shard(0, &[(b"a", 0), (b"b", -1)]);
    let test = load_parquet(&path, GlueTask::Sst2, Split::Test).unwrap();
    assert_eq!(
        (test[0].label, test[1].label),
        (Some(Label::Class(0)), None)
    );
    let error = load_parquet(&path, GlueTask::Sst2, Split::Train).unwrap_err();
    assert!(
        matches!(&error, Error::BadLabel { place: Place::Row(2), got, .. } if got == "-1"),
        "{error}"
    );
    let error = load_parquet(&path, GlueTask::Rte, Split::Train).unwrap_err();
    assert!(matches!(error, Error::MissingColumn { .. }), "{error}");
}

/// As pandas writes small numbers, or truths.
#[test]
fn parquet_labels_are_numbers_of_any_type() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.parquet");
    for label in [
        "BOOLEAN label",
        "INT32 label (UINT_8)",
        "INT32 label (INT_8)",
        "INT32 label (UINT_16)",
        "INT32 label (UINT_32)",
        "INT64 label (UINT_64)",
    ] {
        let schema =
            format!("message m {{ REQUIRED BYTE_ARRAY sentence (UTF8); REQUIRED {label}; }}");
        let schema = Arc::new(parse_message_type(&schema).unwrap());
        let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let texts: [ByteArray; 2] = [b"a".to_vec().into(), b"b".to_vec().into()];
        let typed = column.typed::<ByteArrayType>();
        typed.write_batch(&texts, None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let written = match label.split(' ').next() {
            Some("BOOLEAN") => column
                .typed::<BoolType>()
                .write_batch(&[true, false], None, None),
            Some("INT32") => column.typed::<Int32Type>().write_batch(&[1, 0], None, None),
            _ => column.typed::<Int64Type>().write_batch(&[1, 0], None, None),
        };
        written.unwrap();
        column.close().unwrap();
        group.close().unwrap();
        fs::write(&path, writer.into_inner().unwrap()).unwrap();
        let rows = load_parquet(&path, GlueTask::Sst2, Split::Train).unwrap();
        assert_eq!(rows, [single("a", 1), single("b", 0)], "{label}");
    }
}

#[test]
fn damaged_parquet_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.parquet");
    let load = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        load_parquet(&path, GlueTask::Sst2, Split::Train)
    };
    let whole = sst2_parquet(&[(b"a", 0), (b"b", 1)], Compression::UNCOMPRESSED);
    assert_eq!(load(&whole).unwrap().len(), 2);
    for cut in [0, 3, 8, whole.len() / 2, whole.len() - 1] {
        let error = load(&whole[..cut]).unwrap_err();
        assert!(
            matches!(error, Error::Parquet { .. }),
            "cut at {cut}: {error}"
        );
    }
    let error = load(&claim_zstd(&whole)).unwrap_err();
    let Error::Parquet { reason, hint, .. } = &error else {
        panic!("{error}");
    };
    assert!(
        !reason.contains("Disabled") || hint.contains("--features zstd"),
        "{error}"
    );
    assert!(load(&sst2_parquet(&[(b"\xff\xfe", 0)], Compression::SNAPPY)).is_err());
    assert!(matches!(
        load(&sst2_parquet(&[], Compression::SNAPPY)),
        Err(Error::Empty { .. })
    ));
}

#[test]
fn real_files_have_the_published_counts() {
    // task, split, rows, rows of class 1 (not_entailment, paraphrase, positive)
    let published: [(&str, &str, Split, usize, usize); 7] = [
        ("rte", "RTE/train.tsv.gz", Split::Train, 2490, 1241),
        ("rte", "RTE/dev.tsv.gz", Split::Validation, 277, 131),
        ("mrpc", "MRPC/train.tsv.gz", Split::Train, 3668, 2474),
        ("mrpc", "MRPC/dev.tsv.gz", Split::Validation, 408, 279),
        ("sst2", "SST-2/train.tsv.gz", Split::Train, 67349, 37569),
        ("sst2", "SST-2/dev.tsv.gz", Split::Validation, 872, 444),
        ("qnli", "QNLI/dev.tsv.gz", Split::Validation, 5463, 2761),
    ];
    for (task, file, split, rows, ones) in published {
        let Some(dir) = shared(file) else { continue };
        let loaded = load_folder(&dir, task.parse().unwrap(), split).unwrap();
        let found = loaded.iter().filter(|row| class(row) == 1).count();
        assert_eq!(loaded.len(), rows, "{file}");
        // QNLI's 2702 / 2761 are published without saying which is which.
        assert!(
            found == ones || (task == "qnli" && found == rows - ones),
            "{file}: {found}"
        );
    }
    for (file, split, rows) in [
        ("STS-B/train.tsv.gz", Split::Train, 5749),
        ("STS-B/dev.tsv.gz", Split::Validation, 1500),
        ("STS-B/test.tsv.gz", Split::Test, 1379),
    ] {
        let Some(dir) = shared(file) else { continue };
        assert_eq!(
            load_folder(&dir, GlueTask::Stsb, split).unwrap().len(),
            rows,
            "{file}"
        );
    }
    for (task, file, rows) in [
        (GlueTask::Mnli, "MNLI/train.sample.tsv.gz", 8999),
        (GlueTask::Qqp, "QQP/train.sample.tsv.gz", 8999),
        (GlueTask::Qnli, "QNLI/train.sample.tsv.gz", 8999),
    ] {
        let Some(dir) = shared(file) else { continue };
        assert_eq!(
            load_folder(&dir, task, Split::Train).unwrap().len(),
            rows,
            "{file}"
        );
    }
}

#[test]
fn real_mrpc_is_the_corpus_split_by_ids() {
    let Some(dir) = shared("MRPC/msr_paraphrase_train.txt.gz") else {
        return;
    };
    let corpus = TempDir::new().unwrap();
    let mrpc = corpus.path().join("MRPC");
    fs::create_dir(&mrpc).unwrap();
    for file in [
        "msr_paraphrase_train.txt.gz",
        "msr_paraphrase_test.txt.gz",
        "dev_ids.tsv",
    ] {
        fs::copy(dir.join("MRPC").join(file), mrpc.join(file)).unwrap();
    }
    for split in [Split::Train, Split::Validation] {
        assert_eq!(
            load_folder(corpus.path(), GlueTask::Mrpc, split).unwrap(),
            load_folder(&dir, GlueTask::Mrpc, split).unwrap()
        );
    }
    assert_eq!(
        load_folder(corpus.path(), GlueTask::Mrpc, Split::Test)
            .unwrap()
            .len(),
        1725
    );
}

#[test]
fn real_parquet_equals_real_text() {
    for (task, split) in [
        (GlueTask::Rte, Split::Train),
        (GlueTask::Rte, Split::Validation),
        (GlueTask::Mrpc, Split::Train),
        (GlueTask::Mrpc, Split::Validation),
        (GlueTask::Stsb, Split::Train),
        (GlueTask::Stsb, Split::Validation),
        (GlueTask::Sst2, Split::Validation),
        (GlueTask::Qnli, Split::Validation),
    ] {
        let file = format!("parquet-derived/{task}/{split}-00000-of-00001.parquet");
        let Some(dir) = shared(&file) else { continue };
        let parquet = load(Some(&dir.join("parquet-derived")), task, split).unwrap();
        let text = load_folder(&dir, task, split).unwrap();
        assert_eq!(parquet.len(), text.len(), "{file}");
        for (index, (a, b)) in parquet.iter().zip(&text).enumerate() {
            assert_eq!(a, b, "{file}, row {}", index + 1);
        }
    }
}

#[test]
fn samples_are_balanced_and_disjoint() {
    for (task, train, validation) in [(GlueTask::Sst2, 1600, 400), (GlueTask::Qnli, 2000, 400)] {
        let load = |split| sample::rows(task, split).unwrap();
        let parts = [
            load(Split::Train).unwrap(),
            load(Split::Validation).unwrap(),
        ];
        assert_eq!(
            (parts[0].len(), parts[1].len()),
            (train, validation),
            "{task}"
        );
        for part in &parts {
            assert_eq!(
                part.iter().filter(|row| class(row) == 1).count(),
                part.len() / 2
            );
            assert!(
                part.iter()
                    .all(|row| row.second.is_some() == task.is_pair())
            );
        }
        assert!(parts[1].iter().all(|row| !parts[0].contains(row)), "{task}");
        assert_eq!(
            load(Split::Train).unwrap(),
            parts[0],
            "{task}: the same every time"
        );
        assert!(load(Split::Test).is_none());
    }
    assert!(sample::rows(GlueTask::Rte, Split::Train).unwrap().is_none());
    assert_eq!(sample::sentiment(3, 10), sample::sentiment(3, 20)[..10]);
    assert_ne!(sample::sentiment(3, 10), sample::sentiment(4, 10));
}

/// The accuracy of a naive Bayes classifier over `features` on the sentiment sample.
fn naive_bayes(features: impl Fn(&str) -> Vec<String>) -> f64 {
    use std::collections::HashMap;
    let load = |split| sample::rows(GlueTask::Sst2, split).unwrap().unwrap();
    let mut counts: HashMap<String, [f64; 2]> = HashMap::new();
    for row in load(Split::Train) {
        for feature in features(&row.first) {
            counts.entry(feature).or_insert([1.0; 2])[class(&row) as usize] += 1.0;
        }
    }
    let validation = load(Split::Validation);
    let right = validation.iter().filter(|row| {
        let weigh = |feature: &String| counts.get(feature).map_or(0.0, |c| (c[1] / c[0]).ln());
        let score: f64 = features(&row.first).iter().map(weigh).sum();
        u32::from(score > 0.0) == class(row)
    });
    right.count() as f64 / validation.len() as f64
}

/// The sample's rule, written a second time.
fn rule(text: &str) -> bool {
    let verdict = text
        .split(" , ")
        .find(|clause| {
            !["although ", "even though ", "while "]
                .iter()
                .any(|c| clause.starts_with(c))
        })
        .unwrap();
    let good = "good great gripping charming clever moving funny fresh honest brilliant lively warm thrilling touching graceful smart";
    let negated = [" not ", " never ", " hardly ", " by no means "];
    let positive = verdict
        .split(' ')
        .any(|word| good.split(' ').any(|g| g == word));
    positive != negated.iter().any(|n| verdict.contains(n))
}

#[test]
fn word_counts_do_not_solve_the_sentiment_sample_but_its_rule_does() {
    let words = |text: &str| text.split(' ').map(str::to_string).collect();
    let accuracy = naive_bayes(words);
    println!("naive Bayes on words: {accuracy:.3}");
    assert!((0.55..0.78).contains(&accuracy), "{accuracy}");
    for split in [Split::Train, Split::Validation] {
        for row in sample::rows(GlueTask::Sst2, split).unwrap().unwrap() {
            assert_eq!(u32::from(rule(&row.first)), class(&row), "{}", row.first);
        }
    }
}
