//! Criteo's click logs: every malformed line, ids against a plain implementation, the store.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use candle_core::Device;
use datasets::Batches;
use datasets::criteo::{
    CATEGORIES, ClickBatches, INTEGERS, Malformed, Part, Phase, Planted, Preprocessing, Progress,
    Store, Vocabularies, generate, generate_rows, generate_store, prepare, prepare_noting,
    prepare_with,
};
use datasets::{Error, Place, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;
use testing::assert_says;

/// More than chunks of 1 MiB, so that chunks are cut and merged.
const ROWS: u64 = 25_000;

fn put(dir: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// A line of equal integers and equal categorical values.
fn line(label: &str, integer: &str, category: &str) -> String {
    let fields = [vec![integer; INTEGERS], vec![category; CATEGORIES]].concat();
    match label {
        "" => fields.join("\t"),
        label => format!("{label}\t{}", fields.join("\t")),
    }
}

fn generated(rows: u64, seed: u64) -> Vec<u8> {
    let mut text = Vec::new();
    generate(rows, seed, &mut text).unwrap();
    text
}

fn make(source: &Path, preprocessing: &Preprocessing) -> Result<Store> {
    let out = source.with_extension("clicks");
    prepare(&[source.to_path_buf()], &out, preprocessing, |_| ())
}

fn skipping() -> Preprocessing {
    Preprocessing {
        malformed: Malformed::Skip,
        ..Preprocessing::default()
    }
}

/// What a categorical field says; two ways to write a value are one value.
fn hexadecimal(field: &str) -> Option<u32> {
    u32::from_str_radix(field, 16).ok()
}

/// Labels, numbers and ids by the plainest program, on one thread.
fn plainly(text: &[u8], minimum_count: u32) -> Vec<(bool, Vec<f32>, Vec<u32>)> {
    let text = std::str::from_utf8(text).unwrap();
    let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split('\t').collect()).collect();
    let mut ids: Vec<HashMap<Option<u32>, u32>> = vec![HashMap::new(); CATEGORIES];
    for (table, ids) in ids.iter_mut().enumerate() {
        let mut counts: HashMap<Option<u32>, u32> = HashMap::new();
        for line in &lines {
            *counts.entry(hexadecimal(line[14 + table])).or_default() += 1;
        }
        let mut next = u32::from(minimum_count > 1);
        for line in &lines {
            let value = hexadecimal(line[14 + table]);
            if counts[&value] < minimum_count {
                ids.insert(value, 0);
            } else if let Entry::Vacant(new) = ids.entry(value) {
                new.insert(next);
                next += 1;
            }
        }
    }
    let row = |line: &Vec<&str>| {
        let dense = line[1..14].iter().map(|field| {
            let integer: i64 = field.parse().unwrap_or(0);
            ((integer.max(0) + 1) as f64).ln() as f32
        });
        let ids = (0..CATEGORIES).map(|table| ids[table][&hexadecimal(line[14 + table])]);
        (line[0] == "1", dense.collect(), ids.collect())
    };
    lines.iter().map(row).collect()
}

fn assert_rows(store: &Store, rows: &[(bool, Vec<f32>, Vec<u32>)]) {
    assert_eq!(store.len(), rows.len());
    for (index, (label, dense, ids)) in rows.iter().enumerate() {
        assert_eq!(store.label(index), Some(*label), "row {index}");
        for (got, wanted) in store.dense(index).unwrap().iter().zip(dense) {
            // Two ways to round a logarithm.
            assert!((got - wanted).abs() <= 1e-6 * wanted, "{got} {wanted}");
        }
        assert_eq!(store.ids(index).unwrap(), ids[..], "row {index}");
    }
}

fn with_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.build().unwrap().install(work)
}

#[test]
fn ids_are_those_of_a_plain_program_whatever_the_threads() {
    let dir = TempDir::new().unwrap();
    let text = generated(ROWS, 3);
    let source = put(&dir, "train.txt", &text);
    for minimum_count in [1, 4] {
        let wanted = plainly(&text, minimum_count);
        let preprocessing = Preprocessing {
            minimum_count,
            ..Preprocessing::default()
        };
        let mut files = Vec::new();
        for threads in [1, 2, 5] {
            let store = with_threads(threads, || make(&source, &preprocessing).unwrap());
            assert_rows(&store, &wanted);
            files.push((
                fs::read(store.path()).unwrap(),
                fs::read(dir.path().join("train.clicks.vocabulary")).unwrap(),
            ));
            for (table, &size) in store.table_sizes().iter().enumerate() {
                let largest = wanted.iter().map(|row| row.2[table]).max().unwrap() as usize;
                // One more than the values there are: for those to come, or the rare ones.
                let shared = usize::from(minimum_count == 1);
                assert_eq!(size, largest + 1 + shared, "table {table}");
            }
        }
        assert!(files.windows(2).all(|two| two[0] == two[1]));
    }
}

#[test]
fn modulo_makes_ids_without_a_vocabulary() {
    let dir = TempDir::new().unwrap();
    let text = [line("1", "5", "0000000f"), line("0", "", "")].join("\n");
    let source = put(&dir, "train.txt", text.as_bytes());
    let preprocessing = Preprocessing {
        hash_modulo: Some(10),
        ..Preprocessing::default()
    };
    let store = make(&source, &preprocessing).unwrap();
    assert_eq!(store.ids(0), Some([5; CATEGORIES]));
    assert_eq!(store.ids(1), Some([0; CATEGORIES]));
    assert_eq!(store.table_sizes(), [10; CATEGORIES]);
    assert!(store.vocabularies().unwrap().is_none());
    assert!(!dir.path().join("train.clicks.vocabulary").exists());
}

#[test]
fn fields_at_their_limits() {
    let dir = TempDir::new().unwrap();
    let text = [
        line("1", "2147483647", "ffffffff"),
        line("0", "-2147483648", ""),
        line("0", "", "00000000"),
        line("1", "0", "FFFFFFFF"),
        line("0", "4096", "0"),
    ]
    .join("\r\n");
    let store = make(
        &put(&dir, "t.txt", text.as_bytes()),
        &Preprocessing::default(),
    );
    let store = store.unwrap();
    let ids: Vec<u32> = (0..5).map(|row| store.ids(row).unwrap()[25]).collect();
    assert_eq!(ids, [0, 1, 2, 0, 2]);
    let dense: Vec<f32> = (0..5).map(|row| store.dense(row).unwrap()[12]).collect();
    assert_eq!(
        dense,
        [
            2147483648f64.ln() as f32,
            0.0,
            0.0,
            0.0,
            4097f64.ln() as f32
        ]
    );
    assert_eq!(store.summary().clicks, 2);
}

#[test]
fn malformed_lines_name_their_line_or_are_counted() {
    let good = line("0", "1", "68fd1e64");
    let bad = [
        (line("", "1", "68fd1e64"), "39 fields"),
        (format!("{good}\t1"), "41 fields"),
        (String::new(), "1 field"),
        (line("2", "1", "68fd1e64"), "label \"2\""),
        (line("0", "2147483648", "68fd1e64"), "integer 1"),
        (line("0", "-2147483649", "68fd1e64"), "integer 1"),
        (line("0", "1.5", "68fd1e64"), "integer 1"),
        (line("0", "-", "68fd1e64"), "integer 1"),
        (line("0", "1", "68fd1e6g"), "categorical value 1"),
        (line("0", "1", "068fd1e64"), "categorical value 1"),
        (line("0", "1", "\u{e4}"), "categorical value 1"),
    ];
    let dir = TempDir::new().unwrap();
    for (bad, says) in &bad {
        let text = [&good, &good, bad, &good].map(String::as_str).join("\n");
        let source = put(&dir, "train.txt", text.as_bytes());
        let error = make(&source, &Preprocessing::default()).err().unwrap();
        let line = matches!(
            error,
            Error::ClickLine {
                place: Place::Line(3),
                ..
            }
        );
        assert!(line && error.to_string().contains(says), "{error}");
        assert!(error.to_string().contains("train.txt, line 3"), "{error}");
        assert!(!dir.path().join("train.clicks").exists());
        assert!(!dir.path().join("train.clicks.partial").exists());
        let store = make(&source, &skipping()).unwrap();
        assert_eq!(store.len(), 3);
        let skipped = &store.summary().skipped;
        assert_eq!(skipped.count, 1);
        assert_eq!(skipped.first, [("train.txt".to_string(), 3)]);
        assert!(store.expect(&Preprocessing::default()).is_err());
        store.expect(&skipping()).unwrap();
        fs::remove_file(store.path()).unwrap();
    }
}

/// Fields of all kinds at every place among usual ones: those of a chunk's inner lines are read
/// eight bytes at once, which must not accept or refuse anything that a plain program does not.
#[test]
fn fields_are_read_as_by_a_plain_program() {
    let is_integer = |field: &str| {
        let digits = field.strip_prefix('-').unwrap_or(field);
        let decimal =
            (1..=10).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        field.is_empty() || (decimal && field.parse::<i32>().is_ok())
    };
    let is_category =
        |field: &str| field.len() <= 8 && field.bytes().all(|b| b.is_ascii_hexdigit());
    let integers = "|0|-0|-1|7|-|--1|1-|+1| 1|1 |1.5|a|12345|123456|1234567|12345678|-123456|\
        -1234567|0000000|0000000001|00000000001|2147483647|2147483648|-2147483648|-2147483649|\u{e4}";
    let mut integers: Vec<String> = integers.split('|').map(String::from).collect();
    let mut categories: Vec<String> = ["", "0", "ABCDEF01", "abcdefab", "1234567", "123456789"]
        .map(String::from)
        .to_vec();
    // Every character at every place of usual fields; tabs and line ends are none of a field.
    for byte in (0..128u8).filter(|byte| !b"\t\n\r".contains(byte)) {
        for place in 0..8 {
            for (usual, fields) in [("00f9Ea83", &mut categories), ("1234567", &mut integers)] {
                let mut field = usual.as_bytes().to_vec();
                if let Some(at) = field.get_mut(place) {
                    *at = byte;
                    fields.push(String::from_utf8(field).unwrap());
                }
            }
        }
    }
    let mut lines = Vec::new();
    let mut put_in = |column: usize, field: &str, good: bool| {
        let mut fields = [
            vec!["1"],
            vec!["-7"; INTEGERS],
            vec!["12345678"; CATEGORIES],
        ]
        .concat();
        fields[column] = field;
        let end = ["\n", "\r\n"][lines.len() % 2];
        lines.push((fields.join("\t") + end, good));
    };
    for column in [1, 5, 13] {
        integers
            .iter()
            .for_each(|f| put_in(column, f, is_integer(f)));
    }
    for column in [14, 20, 39] {
        categories
            .iter()
            .for_each(|f| put_in(column, f, is_category(f)));
    }
    let dir = TempDir::new().unwrap();
    let text: String = lines.iter().map(|line| line.0.as_str()).collect();
    let store = make(&put(&dir, "t.txt", text.as_bytes()), &skipping()).unwrap();
    let good: String = lines
        .iter()
        .filter(|line| line.1)
        .map(|line| line.0.as_str())
        .collect();
    assert_rows(&store, &plainly(good.as_bytes(), 1));
    let bad = lines.iter().enumerate().filter(|(_, line)| !line.1);
    let bad: Vec<_> = bad.map(|(at, _)| ("t.txt".to_string(), at + 1)).collect();
    let skipped = &store.summary().skipped;
    assert_eq!(skipped.count as usize, bad.len());
    assert_eq!(skipped.first, bad[..10]);
}

#[test]
fn lines_are_counted_over_chunks_and_by_file() {
    let dir = TempDir::new().unwrap();
    let mut text = generated(ROWS, 1);
    let first = put(&dir, "day_0", &text);
    text.extend(b"x\n");
    text.extend(line("0", "", "").as_bytes());
    let second = put(&dir, "day_1", &text);
    let sources = [first, second];
    let out = dir.path().join("days.clicks");
    let error = prepare(&sources, &out, &Preprocessing::default(), |_| ());
    let error = error.err().unwrap().to_string();
    assert!(error.contains("day_1, line 25001: 1 field"), "{error}");
    let mut last = None;
    let store = prepare(&sources, &out, &skipping(), |now| last = Some(now)).unwrap();
    assert_eq!(store.len() as u64, 2 * ROWS + 1);
    assert_eq!(
        store.summary().skipped.first,
        [("day_1".to_string(), 25001)]
    );
    let last = last.unwrap();
    assert_eq!(last.phase, Phase::Numbering);
    assert_eq!(last.rows, 2 * ROWS + 1);
    assert_eq!(last.bytes, last.bytes_in_all);
    store.expect_sources(&sources).unwrap();
    let error = store.expect_sources(&sources[..1]).err().unwrap();
    assert!(error.to_string().contains("2 files, wanted 1"), "{error}");
}

fn pack(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn gzip_is_read_in_members_and_not_when_cut_off() {
    let dir = TempDir::new().unwrap();
    let text = generated(2000, 9);
    let plain = make(&put(&dir, "a.txt", &text), &Preprocessing::default()).unwrap();
    // Members need not end with lines.
    let (one, other) = text.split_at(text.len() / 2);
    let packed = [pack(one), pack(other)].concat();
    let store = make(&put(&dir, "b.gz", &packed), &Preprocessing::default()).unwrap();
    assert_eq!(store.len(), 2000);
    for row in 0..2000 {
        assert_eq!(store.ids(row), plain.ids(row));
    }
    let cut = put(&dir, "c.gz", &packed[..packed.len() * 3 / 4]);
    let error = make(&cut, &Preprocessing::default()).err().unwrap();
    assert!(matches!(error, Error::Gzip { line: 1000.., .. }), "{error}");
    assert!(!dir.path().join("c.clicks").exists());
}

#[test]
fn files_that_are_no_store_are_refused() {
    let dir = TempDir::new().unwrap();
    let source = put(&dir, "train.txt", &generated(100, 2));
    let store = make(&source, &Preprocessing::default()).unwrap();
    let bytes = fs::read(store.path()).unwrap();
    let refused = |bytes: &[u8], says: &str| {
        let error = Store::open(&put(&dir, "other", bytes)).err().unwrap();
        assert!(error.to_string().contains(says), "{error}");
    };
    let mut older = bytes.clone();
    older[8] = 0;
    refused(&older, "version 0 of the click store format");
    refused(&bytes[..bytes.len() - 1], "cut off");
    refused(&bytes[..100], "cut off");
    refused(&bytes[..10], "shorter than the head");
    refused(b"", "shorter than the head");
    refused(&fs::read(&source).unwrap(), "begins with other bytes");
    let path = dir.path().join("train.clicks.vocabulary");
    let mut vocabulary = fs::read(&path).unwrap();
    vocabulary[100] ^= 1;
    fs::write(&path, &vocabulary).unwrap();
    let error = store.vocabularies().err().unwrap().to_string();
    assert!(error.contains("checksum"), "{error}");
    vocabulary[8] = 0;
    fs::write(&path, &vocabulary).unwrap();
    let error = store.vocabularies().err().unwrap().to_string();
    assert!(error.contains("version 0"), "{error}");
}

#[test]
fn other_preprocessing_is_refused_by_name() {
    let dir = TempDir::new().unwrap();
    let source = put(&dir, "train.txt", &generated(100, 2));
    let own = Preprocessing::default();
    let store = make(&source, &own).unwrap();
    store.expect(&own).unwrap();
    store.expect(&skipping()).unwrap();
    let other = Preprocessing {
        hash_modulo: Some(7),
        labelled: false,
        ..own
    };
    let error = store.expect(&other).err().unwrap().to_string();
    assert!(error.contains("hash_modulo is none, wanted 7"), "{error}");
    assert!(error.contains("labelled is true, wanted false"), "{error}");
    let zero = Preprocessing {
        minimum_count: 0,
        ..own
    };
    let both = Preprocessing {
        minimum_count: 2,
        hash_modulo: Some(2),
        ..own
    };
    for wrong in [zero, both] {
        let error = make(&source, &wrong).err().unwrap();
        assert!(matches!(error, Error::Setting { .. }), "{error}");
    }
    let error = make(&put(&dir, "empty", b""), &own).err().unwrap();
    assert!(matches!(error, Error::Empty { .. }), "{error}");
    assert!(prepare(&[], &dir.path().join("x"), &own, |_| ()).is_err());
    let error = prepare(std::slice::from_ref(&source), &source, &own, |_| ());
    let error = error.err().unwrap().to_string();
    assert!(error.contains("another file than the sources"), "{error}");
    // The vocabulary of another text under the same name.
    make(&put(&dir, "train.csv", &generated(50, 3)), &own).unwrap();
    let error = store.vocabularies().err().unwrap().to_string();
    assert!(error.contains("not the vocabulary of"), "{error}");
}

#[test]
fn an_interruption_leaves_nothing_that_opens() {
    let dir = TempDir::new().unwrap();
    let source = put(&dir, "train.txt", &generated(ROWS, 5));
    let (out, copy) = (dir.path().join("s"), dir.path().join("copy"));
    for phase in [Phase::Reading, Phase::Numbering] {
        let interrupted = catch_unwind(AssertUnwindSafe(|| {
            prepare(
                std::slice::from_ref(&source),
                &out,
                &Preprocessing::default(),
                |now| {
                    // As after a crash: what lies on the disk at this moment.
                    fs::copy(dir.path().join("s.partial"), &copy).unwrap();
                    let error = Store::open(&copy).err().unwrap().to_string();
                    assert!(error.contains("interrupted"), "{error}");
                    if now.phase == phase {
                        std::panic::resume_unwind(Box::new("interrupted"));
                    }
                },
            )
            .is_ok()
        }));
        assert!(interrupted.is_err());
        assert!(!out.exists());
    }
    fs::copy(&copy, dir.path().join("s.partial")).unwrap();
    let store = prepare(&[source], &out, &Preprocessing::default(), |_| ()).unwrap();
    assert_eq!(store.len() as u64, ROWS);
    assert!(!dir.path().join("s.partial").exists());
}

/// A preparation with an entry of the journal for every group of chunks.
struct Noting<'a> {
    sources: &'a [PathBuf],
    preprocessing: Preprocessing,
    vocabularies: Option<&'a Vocabularies>,
}

impl Noting<'_> {
    /// One thread, so that groups are four chunks.
    fn run(&self, out: &Path, progress: impl FnMut(Progress) + Send) -> Result<Store> {
        let (sources, preprocessing) = (self.sources, &self.preprocessing);
        with_threads(1, || {
            prepare_noting(sources, out, preprocessing, self.vocabularies, 1, progress)
        })
    }

    /// Store and vocabulary of an uninterrupted preparation, in a folder of its own.
    fn whole(&self) -> Vec<Option<Vec<u8>>> {
        let dir = TempDir::new().unwrap();
        let out = dir.path().join("s");
        match self.vocabularies {
            None => prepare(self.sources, &out, &self.preprocessing, |_| ()).unwrap(),
            Some(known) => {
                prepare_with(self.sources, &out, &self.preprocessing, known, |_| ()).unwrap()
            }
        };
        made(&out)
    }

    /// Interrupts a preparation at its first call to `progress` that `here` is true of.
    fn interrupt(&self, out: &Path, here: impl Fn(Progress) -> bool + Send + Sync) -> bool {
        let progress = |now| {
            if here(now) {
                std::panic::resume_unwind(Box::new("interrupted"));
            }
        };
        let interrupted = catch_unwind(AssertUnwindSafe(|| self.run(out, progress).is_ok()));
        assert!(interrupted.is_err() != out.exists());
        interrupted.is_err()
    }

    /// Prepares to the end and compares; the rows at the first call to `progress`.
    fn resume(&self, out: &Path, wanted: &[Option<Vec<u8>>]) -> (Phase, u64) {
        let mut first = None;
        let begun = &mut first;
        self.run(out, |now| {
            begun.get_or_insert((now.phase, now.rows));
        })
        .unwrap();
        assert!(made(out) == wanted, "other bytes than without interruption");
        for ending in ["partial", "journal"] {
            assert!(!beside(out, ending).exists(), "{ending}");
        }
        remove(out);
        first.unwrap()
    }
}

fn beside(out: &Path, ending: &str) -> PathBuf {
    let name = out.file_name().unwrap().to_str().unwrap();
    out.with_file_name(format!("{name}.{ending}"))
}

fn made(out: &Path) -> Vec<Option<Vec<u8>>> {
    let files = [out.to_path_buf(), beside(out, "vocabulary")];
    files.map(|file| fs::read(file).ok()).to_vec()
}

fn remove(out: &Path) {
    fs::remove_file(out).unwrap();
    // With hashes there is none.
    fs::remove_file(beside(out, "vocabulary")).ok();
}

/// Rows of a file of several.
const DAY: u64 = 15_000;

/// Three files, of which one is packed; some three groups of chunks.
fn three_files(dir: &TempDir) -> Vec<PathBuf> {
    let text = generated(DAY, 6);
    let (one, other) = text.split_at(text.len() / 3);
    let packed = [pack(one), pack(other)].concat();
    vec![
        put(dir, "day_0", &generated(DAY, 5)),
        put(dir, "day_1.gz", &packed),
        // Its last line has no end.
        put(dir, "day_2", &text[..text.len() - 1]),
    ]
}

#[test]
fn an_interrupted_preparation_goes_on_where_it_was() {
    let dir = TempDir::new().unwrap();
    let sources = three_files(&dir);
    let known = make(&sources[0], &Preprocessing::default()).unwrap();
    let known = known.vocabularies().unwrap().unwrap();
    let own = Preprocessing::default();
    let (mut rare, mut hashed) = (own, own);
    (rare.minimum_count, hashed.hash_modulo) = (4, Some(1000));
    let settings = [
        (own, None),
        (rare, None),
        (hashed, None),
        (own, Some(&known)),
    ];
    for (preprocessing, vocabularies) in settings {
        let noting = Noting {
            sources: &sources,
            preprocessing,
            vocabularies,
        };
        let (wanted, out) = (noting.whole(), dir.path().join("s"));
        let end = wanted[0].as_ref().unwrap().len();
        // After each group, again and again.
        let (mut rows, mut runs) = (AtomicU64::new(0), 0);
        while noting.interrupt(&out, |now| {
            let before = rows.swap(now.rows, Ordering::Relaxed);
            assert!(now.rows > before || now.rows == 3 * DAY, "{before} {now:?}");
            now.phase == Phase::Reading && now.rows < 3 * DAY
        }) {
            runs += 1;
            let partial = beside(&out, "partial");
            assert!(fs::metadata(&partial).unwrap().len() < end as u64);
            let error = Store::open(&partial).err().unwrap().to_string();
            assert!(error.contains("interrupted"), "{error}");
        }
        assert!((2..6).contains(&runs), "{runs}");
        assert_eq!(*rows.get_mut(), 3 * DAY);
        assert!(made(&out) == wanted);
        remove(&out);
        // In a file that is packed, and on the way to the end.
        for rows in [DAY + DAY / 2, 3 * DAY] {
            assert!(noting.interrupt(&out, |now| now.rows >= rows));
            let (_, first) = noting.resume(&out, &wanted);
            assert!(first > rows || first == 3 * DAY, "{first}");
        }
    }
}

#[test]
fn a_journal_that_is_torn_or_of_something_else_is_not_believed() {
    let dir = TempDir::new().unwrap();
    let mut sources = three_files(&dir);
    let noting = Noting {
        sources: &sources,
        preprocessing: Preprocessing::default(),
        vocabularies: None,
    };
    let (wanted, out) = (noting.whole(), dir.path().join("s"));
    let (journal, partial) = (beside(&out, "journal"), beside(&out, "partial"));
    let groups = Mutex::new(Vec::new());
    assert!(noting.interrupt(&out, |now| {
        let mut groups = groups.lock().unwrap();
        groups.push(now.rows);
        groups.len() == 2
    }));
    let groups = groups.into_inner().unwrap();
    let (first_group, second_group) = (groups[0], groups[1]);
    let (notes, records) = (fs::read(&journal).unwrap(), fs::read(&partial).unwrap());
    let put_back = |notes: &[u8], records: &[u8]| {
        fs::write(&journal, notes).unwrap();
        fs::write(&partial, records).unwrap();
    };
    let anew = (Phase::Reading, first_group);
    // Whole, with a torn entry or more records behind: goes on.
    for (more_notes, more_records) in [(0, 0), (1, 0), (100, 160), (0, 7)] {
        put_back(
            &[&notes[..], &vec![0; more_notes]].concat(),
            &[&records[..], &vec![255; more_records]].concat(),
        );
        assert!(noting.resume(&out, &wanted).1 > second_group);
    }
    // Its last entry torn or damaged: goes on before it.
    let length = notes.len();
    let mut damaged = notes.clone();
    damaged[length - 1000] ^= 1;
    for notes in [&notes[..length - 1], &damaged] {
        put_back(notes, &records);
        let (_, rows) = noting.resume(&out, &wanted);
        assert!(rows > first_group && rows <= second_group, "{rows}");
    }
    // Nothing, or nothing that is whole, or damage at the beginning.
    for at in [4, 8, 20, 150, 500] {
        put_back(&notes[..at], &records);
        assert_eq!(noting.resume(&out, &wanted), anew, "{at}");
        let mut damaged = notes.clone();
        damaged[at] ^= 1;
        put_back(&damaged, &records);
        assert_eq!(noting.resume(&out, &wanted), anew, "{at}");
    }
    // Less records than the journal says.
    put_back(&notes, &records[..records.len() / 2]);
    assert_eq!(noting.resume(&out, &wanted), anew);
    put_back(&notes, &records);
    fs::remove_file(&partial).unwrap();
    assert_eq!(noting.resume(&out, &wanted), anew);
    // Other preprocessing; other order, change, or length of the sources.
    let rare = Preprocessing {
        minimum_count: 4,
        ..Preprocessing::default()
    };
    put_back(&notes, &records);
    let other = Noting {
        preprocessing: rare,
        ..noting
    };
    assert_eq!(other.resume(&out, &other.whole()), anew);
    for change in 0..3 {
        put_back(&notes, &records);
        match change {
            0 => sources.swap(0, 2),
            1 => {
                sources.swap(0, 2);
                let file = fs::File::options().write(true).open(&sources[2]).unwrap();
                file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
            }
            _ => _ = put(&dir, "day_2", &generated(DAY, 8)),
        }
        let other = Noting {
            sources: &sources,
            preprocessing: Preprocessing::default(),
            vocabularies: None,
        };
        // Other files, other chunks, but for some rows.
        let (_, rows) = other.resume(&out, &other.whole());
        assert!(rows.abs_diff(first_group) < 100, "{change}: {rows}");
    }
}

#[test]
fn the_pass_over_the_records_goes_on_from_any_page() {
    let dir = TempDir::new().unwrap();
    let sources = three_files(&dir);
    let noting = Noting {
        sources: &sources,
        preprocessing: Preprocessing {
            minimum_count: 4,
            ..Preprocessing::default()
        },
        vocabularies: None,
    };
    let (wanted, out) = (noting.whole(), dir.path().join("s"));
    let (journal, partial) = (beside(&out, "journal"), beside(&out, "partial"));
    // What lies on the disk after the text, and after the records.
    assert!(noting.interrupt(&out, |now| now.rows == 3 * DAY));
    assert!(noting.interrupt(&out, |now| {
        if now.phase == Phase::Reading {
            fs::copy(&partial, dir.path().join("before")).unwrap();
        }
        now.phase == Phase::Numbering
    }));
    let (before, after) = (fs::read(dir.path().join("before")), fs::read(&partial));
    let (before, after) = (before.unwrap(), after.unwrap());
    assert_eq!(before.len(), after.len());
    let notes = fs::read(&journal).unwrap();
    for odd in [0, 1] {
        // The system may have written any of the pages.
        let pages = before.chunks(4096).zip(after.chunks(4096)).enumerate();
        let mixed = pages.map(|(at, (old, new))| if at % 2 == odd { old } else { new });
        fs::write(&partial, mixed.collect::<Vec<_>>().concat()).unwrap();
        fs::write(&journal, &notes).unwrap();
        let first = noting.resume(&out, &wanted);
        assert_eq!(first, (Phase::Numbering, 3 * DAY));
    }
}

#[test]
fn after_an_error_a_preparation_goes_on_without_the_line() {
    let dir = TempDir::new().unwrap();
    let (before, after) = (generated(2 * DAY, 4), generated(DAY, 5));
    let text = [&before[..], b"x\n", &after].concat();
    let sources = [put(&dir, "day_0", &text)];
    let noting = |preprocessing| Noting {
        sources: &sources,
        preprocessing,
        vocabularies: None,
    };
    let (wanted, out) = (noting(skipping()).whole(), dir.path().join("s"));
    let error = noting(Preprocessing::default()).run(&out, |_| ());
    let error = error.err().unwrap().to_string();
    assert!(error.contains("day_0, line 30001"), "{error}");
    assert!(beside(&out, "partial").exists());
    let (_, first) = noting(skipping()).resume(&out, &wanted);
    assert!(first > DAY && first < 3 * DAY, "{first}");
    // With lines left out the other way round is another store.
    assert!(noting(skipping()).interrupt(&out, |now| now.rows > 2 * DAY));
    let error = noting(Preprocessing::default()).run(&out, |_| ());
    let error = error.err().unwrap().to_string();
    assert!(error.contains("day_0, line 30001"), "{error}");
    // The same file with the line mended is another one.
    put(&dir, "day_0", &[before, after].concat());
    let wanted = noting(Preprocessing::default()).whole();
    noting(Preprocessing::default()).resume(&out, &wanted);
}

#[test]
fn later_files_get_the_same_ids() {
    let dir = TempDir::new().unwrap();
    let lines = |values: &[&str], label| {
        let lines: Vec<String> = values.iter().map(|v| line(label, "1", v)).collect();
        lines.join("\n").into_bytes()
    };
    let train = put(
        &dir,
        "train.txt",
        &lines(&["a", "b", "", "b", "", "c"], "1"),
    );
    let test = put(&dir, "test.txt", &lines(&["c", "", "d", "b", "a"], ""));
    for (minimum_count, size, wanted) in [(1, 5, [3, 2, 4, 1, 0]), (2, 3, [0, 2, 0, 1, 0])] {
        let mut preprocessing = Preprocessing {
            minimum_count,
            ..Preprocessing::default()
        };
        let store = make(&train, &preprocessing).unwrap();
        assert_eq!(store.table_sizes(), [size; CATEGORIES]);
        let vocabularies = store.vocabularies().unwrap().unwrap();
        assert_eq!(vocabularies.sizes(), [size; CATEGORIES]);
        assert_eq!(vocabularies.id(25, Some(0xb)), Some(1));
        assert_eq!(vocabularies.id(26, None), None);
        preprocessing.labelled = false;
        let sources = [test.clone()];
        let out = dir.path().join("test.clicks");
        let later = prepare_with(&sources, &out, &preprocessing, &vocabularies, |_| ()).unwrap();
        let ids: Vec<u32> = (0..5).map(|row| later.ids(row).unwrap()[7]).collect();
        assert_eq!(ids, wanted);
        assert_eq!(later.label(0), None);
        assert_eq!(later.table_sizes(), store.table_sizes());
        assert!(later.vocabularies().unwrap().is_some());
        let labels = later.batch(&[0, 1], &Device::Cpu).unwrap().labels;
        assert!(labels.to_vec1::<f32>().unwrap()[1].is_nan());
        preprocessing.minimum_count = 9;
        let refused = prepare_with(&sources, &out, &preprocessing, &vocabularies, |_| ());
        assert!(matches!(refused.err(), Some(Error::Setting { .. })));
    }
    let path = dir.path().join("train.clicks.vocabulary");
    assert_eq!(Vocabularies::open(&path).unwrap().minimum_count(), 2);
}

#[test]
fn days_and_fractions() {
    let dir = TempDir::new().unwrap();
    let source = put(&dir, "train.txt", &generated(107, 2));
    let store = make(&source, &Preprocessing::default()).unwrap();
    let days = store.days(7).unwrap();
    let lengths: Vec<usize> = days.each.iter().map(|day| day.len()).collect();
    assert_eq!(lengths, [16, 16, 15, 15, 15, 15, 15]);
    assert_eq!(
        (days.train, days.test, days.validation),
        (0..92, 92..100, 100..107)
    );
    assert!(store.days(1).is_err());
    assert!(store.days(107).is_ok());
    for count in [108, usize::MAX] {
        assert_says(store.days(count), &["107 rows"]);
    }
    let split = store.split(&[0.8, 0.1, 0.1]).unwrap();
    assert_eq!(split, [0..86, 86..96, 96..107]);
    assert_eq!(store.split(&[0.5]).unwrap()[0], 0..54);
    assert!(store.split(&[0.8, 0.3]).is_err());
    assert!(store.split(&[f64::NAN]).is_err());
}

#[test]
fn batches_hold_their_rows_in_a_reproducible_order() {
    let dir = TempDir::new().unwrap();
    let source = put(&dir, "train.txt", &generated(107, 2));
    let store = make(&source, &Preprocessing::default()).unwrap();
    let batch = store.batch(&[5, 0, 106], &Device::Cpu).unwrap();
    assert_eq!((batch.len(), batch.ids.len()), (3, 3 * CATEGORIES));
    let (dense, labels) = (batch.dense.to_vec2::<f32>(), batch.labels.to_vec1::<f32>());
    let (dense, labels) = (dense.unwrap(), labels.unwrap());
    for (at, row) in [5, 0, 106].into_iter().enumerate() {
        assert_eq!(dense[at], store.dense(row).unwrap());
        assert_eq!(labels[at] == 1.0, store.label(row).unwrap());
        let ids = &batch.ids[at * CATEGORIES..(at + 1) * CATEGORIES];
        assert_eq!(ids, store.ids(row).unwrap());
    }
    for wrong in [&[][..], &[107]] {
        let error = store.batch(wrong, &Device::Cpu).err().unwrap();
        assert!(matches!(error, Error::Batch { .. }), "{error}");
    }
    let mut batches = ClickBatches {
        store,
        rows: 3..103,
        batch_size: 32,
        shuffle: None,
        drop_last: false,
        device: Device::Cpu,
    };
    let epoch = |of: &ClickBatches, epoch| -> Vec<usize> {
        (0..of.len(epoch))
            .flat_map(|i| of.order(epoch, i))
            .collect()
    };
    let sequence: Vec<usize> = (3..103).collect();
    assert_eq!(epoch(&batches, 0), sequence);
    batches.shuffle = Some(4);
    let orders = [epoch(&batches, 0), epoch(&batches, 1)];
    assert_ne!(orders[0], orders[1]);
    assert_eq!(orders[0], epoch(&batches, 0));
    for mut order in orders {
        assert_ne!(order, sequence);
        order.sort_unstable();
        assert_eq!(order, sequence);
    }
    assert!(batches.get(0, 4).is_err());
    batches.drop_last = true;
    assert_eq!(batches.len(0), 3);
    batches.drop_last = false;
    for count in [1, 2, 3, 4, 5, 63, 64, 65, 1000, 5000] {
        batches.rows = 0..count;
        let mut order = epoch(&batches, 7);
        order.sort_unstable();
        assert!(order.into_iter().eq(0..count), "{count}");
    }
}

#[test]
fn generated_logs_are_reproducible_and_their_probabilities_calibrated() {
    let mut text = Vec::new();
    let sum = with_threads(1, || generate(ROWS, 8, &mut text).unwrap());
    assert_eq!(text, with_threads(2, || generated(ROWS, 8)));
    assert_ne!(text, generated(ROWS, 9));
    let model = Planted::new(8);
    let mut tail = Vec::new();
    generate_rows(&model, ROWS - 1000..ROWS, &mut tail).unwrap();
    assert!(text.ends_with(&tail));
    assert_eq!(sum.rows, ROWS);

    let rows: Vec<_> = (0..ROWS).map(|index| model.row(index)).collect();
    let mut tenths = [(0.0, 0.0, 0.0); 10];
    let (mut log_loss, mut variance) = (0.0, 0.0);
    for row in &rows {
        let (p, clicked) = (model.probability(row), row.label.unwrap());
        let tenth = &mut tenths[(p * 10.0) as usize];
        tenth.0 += p;
        tenth.1 += p * (1.0 - p);
        tenth.2 += f64::from(u8::from(clicked));
        log_loss -= if clicked { p } else { 1.0 - p }.ln();
        variance += p * (1.0 - p) * model.logit(row).powi(2);
    }
    // Clicks are a sum of independent draws: four of its standard deviations, and one click.
    for (expected, variance, clicks) in tenths {
        let (expected, variance): (f64, f64) = (expected, variance);
        let difference: f64 = expected - clicks;
        assert!(
            difference.abs() <= 4.0 * variance.sqrt() + 1.0,
            "{tenths:?}"
        );
    }
    let count = ROWS as f64;
    assert!((sum.log_loss - log_loss / count).abs() < 1e-9);
    let deviation = variance.sqrt() / count;
    assert!((sum.log_loss - sum.expected_log_loss).abs() < 4.0 * deviation);
    let rate = sum.clicks as f64 / count;
    assert!((0.24..0.26).contains(&rate), "{rate}");
    // Better than the rate alone, and not certain.
    let entropy = -rate * rate.ln() - (1.0 - rate) * (1.0 - rate).ln();
    assert!(
        sum.log_loss < entropy - 0.05 && sum.log_loss > 0.3,
        "{sum:?}"
    );
}

#[test]
fn a_generated_store_is_made_once_and_knows_what_its_model_reaches() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("planted.clicks");
    // What an interrupted call left behind.
    let text = put(&dir, "planted.clicks.generated.txt", b"1\t2");
    // What is somebody's.
    let own = put(&dir, "planted.txt", b"mine");
    let store = generate_store(&path, 2000, 8).unwrap();
    assert!(!text.exists());
    assert_eq!(fs::read(&own).unwrap(), b"mine");
    let made = fs::metadata(&path).unwrap().modified().unwrap();
    let again = generate_store(&path, 2000, 8).unwrap();
    assert_eq!(again.len(), 2000);
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), made);
    assert_says(
        generate_store(&path, 1999, 8),
        &["1999", "2000", "remove it"],
    );

    let (logits, labels) = Planted::new(8).logits(&store, 500..700).unwrap();
    let model = Planted::new(8);
    for (row, (logit, label)) in (500..700).zip(logits.into_iter().zip(labels)) {
        let drawn = model.row(row);
        assert_eq!((logit, Some(label)), (model.logit(&drawn), drawn.label));
    }
    assert_says(
        Planted::new(9).logits(&store, 0..2000),
        &["9", "planted.clicks", "row"],
    );
}

#[test]
fn parts_of_the_days_have_names() {
    let dir = TempDir::new().unwrap();
    let store = generate_store(&dir.path().join("a.clicks"), 1001, 0).unwrap();
    let days = store.days(7).unwrap();
    let rows = |name: &str| days.rows(name.parse().unwrap());
    assert_eq!(rows("all"), 0..1001);
    assert_eq!(rows("train"), 0..858);
    assert_eq!(rows("test"), 858..930);
    assert_eq!(rows("validation"), 930..1001);
    assert_eq!(rows("last-day"), 858..1001);
    assert_says(
        "tests".parse::<Part>(),
        &["tests", "test, validation, last-day, train or all"],
    );
    let batches = ClickBatches::in_order(&store, rows("test"), 10);
    assert_eq!(batches.clone().first(None).rows, 858..930);
    assert_eq!(batches.clone().first(Some(25)).rows, 858..883);
    assert_eq!(batches.clone().first(Some(1000)).rows, 858..930);
    assert_eq!(batches.first(Some(25)).len(0), 3);
}
