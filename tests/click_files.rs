//! Click logs and stores that are damaged, made twice at once, or begin with a mark.

use datasets::criteo::{
    CATEGORIES, Malformed, Phase, Preprocessing, Store, generate, prepare, prepare_noting,
};
use datasets::{Error, Result};
use std::fs;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use testing::assert_says;

fn text(rows: u64) -> Vec<u8> {
    let mut text = Vec::new();
    generate(rows, 3, &mut text).unwrap();
    text
}

fn put(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn make(dir: &Path, name: &str, bytes: &[u8]) -> Result<Store> {
    let source = put(dir, name, bytes);
    prepare(
        &[source],
        &dir.join(format!("{name}.clicks")),
        &Preprocessing::default(),
        |_| (),
    )
}

#[test]
fn a_second_preparation_of_a_store_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let source = put(dir.path(), "train.txt", &text(50));
    let (out, other) = (dir.path().join("a.clicks"), dir.path().join("b.clicks"));
    let settings = Preprocessing::default();
    let sources = [source];
    let mut seen = 0;
    let store = prepare(&sources, &out, &settings, |_| {
        seen += 1;
        // From another thread, and so from another process, as from this one.
        let second = std::thread::scope(|scope| {
            let second = scope.spawn(|| prepare(&sources, &out, &settings, |_| ()));
            second.join().unwrap()
        });
        assert!(matches!(second, Err(Error::InUse { .. })));
        assert_says(second, &["a.clicks", "another preparation"]);
        assert_eq!(
            prepare(&sources, &other, &settings, |_| ()).unwrap().len(),
            50
        );
    });
    assert_eq!(store.unwrap().len(), 50);
    assert!(seen > 0);
    let (one, other) = (Store::open(&out).unwrap(), Store::open(&other).unwrap());
    assert!((0..50).all(|row| one.ids(row) == other.ids(row)));
    // Afterwards, and after an error or a panic, the next one may.
    let again = |act: fn()| prepare(&sources, &out, &settings, move |_| act()).is_ok();
    assert!(catch_unwind(|| again(|| std::panic::resume_unwind(Box::new("interrupted")))).is_err());
    assert!(again(|| ()));
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_click_log() {
    let dir = tempfile::tempdir().unwrap();
    let plain = text(20);
    let marked = [b"\xef\xbb\xbf".as_slice(), &plain].concat();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&marked).unwrap();
    let wanted = make(dir.path(), "plain", &plain).unwrap();
    for (name, bytes) in [
        ("marked", marked.clone()),
        ("packed.gz", packed.finish().unwrap()),
    ] {
        let store = make(dir.path(), name, &bytes).unwrap();
        assert_eq!(store.len(), 20);
        for row in 0..20 {
            assert_eq!(store.ids(row), wanted.ids(row), "{name}");
            assert_eq!(store.label(row), wanted.label(row), "{name}");
        }
    }
    // In the middle it is a fault of its line, and lines are counted as an editor does.
    let twice = [plain.as_slice(), &marked].concat();
    assert_says(
        make(dir.path(), "twice", &twice),
        &["twice, line 21", "label"],
    );
    assert_says(
        make(dir.path(), "nothing", b"\xef\xbb\xbf"),
        &["no data rows"],
    );
}

#[test]
fn a_preparation_of_a_marked_log_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    // Several groups of chunks of 1 MiB.
    let whole = [b"\xef\xbb\xbf".as_slice(), &text(45_000)].concat();
    let wanted = make(dir.path(), "whole", &whole).unwrap();
    let sources = [put(dir.path(), "train.txt", &whole)];
    let out = dir.path().join("a.clicks");
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap();
    let run = |interrupt: bool| {
        let progress = |_| {
            if interrupt {
                std::panic::resume_unwind(Box::new("interrupted"));
            }
        };
        let settings = Preprocessing::default();
        let prepare = || prepare_noting(&sources, &out, &settings, None, 1, progress);
        catch_unwind(AssertUnwindSafe(|| {
            pool.install(|| prepare().unwrap().len())
        }))
    };
    assert!(run(true).is_err());
    assert!(dir.path().join("a.clicks.journal").exists());
    assert_eq!(run(false).unwrap(), 45_000);
    let store = Store::open(&out).unwrap();
    for row in [0, 1, 20_000, 44_999] {
        assert_eq!(store.ids(row), wanted.ids(row));
    }
}

#[test]
fn a_store_that_claims_too_much_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let whole = fs::read(make(dir.path(), "a", &text(3)).unwrap().path()).unwrap();
    let open = |bytes: &[u8]| Store::open(&put(dir.path(), "x.clicks", bytes));
    assert_eq!(open(&whole).unwrap().len(), 3);
    // The offset of the records has 64 bits: the upper ones count.
    let mut changed = whole.clone();
    changed[20] = 1;
    assert_says(open(&changed), &["x.clicks", "cut off"]);
    changed[16..24].copy_from_slice(&8u64.to_le_bytes());
    assert_says(open(&changed), &["x.clicks", "within its head"]);
    // Numbers in its text, with a length that fits.
    let length = u32::from_le_bytes(whole[12..16].try_into().unwrap()) as usize;
    let json = String::from_utf8(whole[24..24 + length].to_vec()).unwrap();
    let with = |from: &str, to: &str| {
        let json = json.replacen(from, to, 1);
        assert!(json.contains(to), "{json}");
        let mut bytes = whole.clone();
        bytes[12..16].copy_from_slice(&(json.len() as u32).to_le_bytes());
        bytes[24..24 + json.len()].copy_from_slice(json.as_bytes());
        open(&bytes)
    };
    assert_says(
        with("\"rows\":3", "\"rows\":18446744073709551615"),
        &["18446744073709551615 rows"],
    );
    assert_says(with("\"rows\":3", "\"rows\":-1"), &["its head is damaged"]);
    assert_says(
        with("\"table_sizes\":[", "\"table_sizes\":[1,"),
        &["27 tables"],
    );
    let sizes = json.split_once("\"table_sizes\":[").unwrap().1;
    let first = format!("\"table_sizes\":[{},", sizes.split_once(',').unwrap().0);
    let huge = with(&first, "\"table_sizes\":[1000000000000,");
    assert_says(huge, &["a table of 1000000000000 ids"]);
    let quoted = format!("\"rows\":\"{}\"", "x".repeat(2000));
    let message = with("\"rows\":3", &quoted).unwrap_err().to_string();
    assert!(message.len() < 1000, "{}", message.len());
}

/// Positions wait in the records for their ids; those of an earlier run come from the disk.
#[test]
fn damaged_records_of_an_interrupted_preparation_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let sources = [put(dir.path(), "train.txt", &text(50))];
    let out = dir.path().join("a.clicks");
    let settings = Preprocessing {
        minimum_count: 2,
        ..Preprocessing::default()
    };
    let run = |interrupt: bool| {
        prepare_noting(&sources, &out, &settings, None, 1, |now| {
            if interrupt && now.phase == Phase::Numbering {
                std::panic::resume_unwind(Box::new("interrupted"));
            }
        })
    };
    assert!(catch_unwind(AssertUnwindSafe(|| run(true).map(drop))).is_err());
    let partial = dir.path().join("a.clicks.partial");
    let mut bytes = fs::read(&partial).unwrap();
    let end = bytes.len();
    bytes[end - 4 * CATEGORIES..].fill(0xff);
    fs::write(&partial, bytes).unwrap();
    assert_says(
        run(false),
        &["a.clicks.partial", "damaged", "prepare again"],
    );
    assert!(!out.exists());
    fs::remove_file(&partial).unwrap();
    assert_eq!(run(false).unwrap().len(), 50);
}

#[test]
fn a_log_of_line_ends_alone_is_counted_and_refused() {
    let dir = tempfile::tempdir().unwrap();
    let source = put(dir.path(), "ends.txt", &vec![b'\n'; 3 << 20]);
    let out = dir.path().join("ends.clicks");
    let skipping = Preprocessing {
        malformed: Malformed::Skip,
        ..Preprocessing::default()
    };
    assert_says(
        prepare(&[source], &out, &skipping, |_| ()),
        &["ends.txt", "no data rows"],
    );
    let odd = [vec![b'\n'; 1 << 20], text(2)].concat();
    let source = put(dir.path(), "odd.txt", &odd);
    let store = prepare(std::slice::from_ref(&source), &out, &skipping, |_| ()).unwrap();
    assert_eq!((store.len(), store.summary().skipped.count), (2, 1 << 20));
    let outcome = prepare(&[source], &out, &Preprocessing::default(), |_| ());
    assert_says(
        outcome,
        &[
            "odd.txt, line 1",
            "1 field",
            "skipped and counted",
            "--skip-malformed",
        ],
    );
}

/// A hole of zeros, after a loss of power, say: one line of any length, in text that is plain or packed.
#[test]
fn a_line_of_megabytes_is_skipped_and_counted_wherever_it_lies() {
    let dir = tempfile::tempdir().unwrap();
    let skipping = Preprocessing {
        malformed: Malformed::Skip,
        ..Preprocessing::default()
    };
    let mark = b"\xef\xbb\xbf".as_slice();
    for (number, zeros, before) in [
        (0, 1 << 20, 1),
        (1, (1 << 20) - 1, 0),
        (2, 5 << 19, 30),
        (3, 9 << 18, 0),
    ] {
        let hole = vec![0; zeros];
        let whole = [mark, &text(before), &hole, b"\n", &text(40)].concat();
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&whole).unwrap();
        for (kind, bytes) in [("txt", whole), ("gz", packed.finish().unwrap())] {
            let name = format!("{number}.{kind}");
            let (source, out) = (put(dir.path(), &name, &bytes), dir.path().join("a.clicks"));
            let store = prepare(std::slice::from_ref(&source), &out, &skipping, |_| ()).unwrap();
            let skipped = &store.summary().skipped;
            assert_eq!((store.len(), skipped.count), (before as usize + 40, 1));
            assert_eq!(skipped.first, [(name.clone(), before as usize + 1)]);
            let refused = prepare(&[source], &out, &Preprocessing::default(), |_| ());
            let line = format!("{name}, line {}", before + 1);
            assert_says(refused, &[&line, "1 field"]);
        }
    }
    // Without an end.
    let cut = [text(3), vec![0; 3 << 20]].concat();
    let source = put(dir.path(), "cut.txt", &cut);
    let out = dir.path().join("cut.clicks");
    let store = prepare(&[source], &out, &skipping, |_| ()).unwrap();
    assert_eq!((store.len(), store.summary().skipped.count), (3, 1));
}
