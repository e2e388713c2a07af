//! Files that claim too much: they cost an error that names them, and neither memory nor the process.

use crate::glue_data::sst2_parquet;
use crate::image_data::{parquet, picture, png, put};
use datasets::image::{Augment, Crop, Image, ImageBatches};
use datasets::limits::{LONGEST_LINE, LONGEST_SIDE, MOST_AHEAD};
use datasets::{
    Ahead, Batcher, Batches, Error, GlueTask, OnCorrupt, Prefetch, Split, cifar10, glue, imagenet,
};
use parquet::basic::Compression;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::path::Path;
use std::sync::Arc;
use testing::assert_says;

fn sst2(text: &[u8]) -> Result<usize, Error> {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path().join("SST-2/train.tsv"), text);
    glue::load_folder(dir.path(), GlueTask::Sst2, Split::Train).map(|rows| rows.len())
}

#[test]
fn an_error_shows_a_line_of_the_file_and_not_the_file() {
    let label = "\u{1b}[2J".repeat(100_000);
    let long_label = format!("sentence\tlabel\ngood\t{label}\n");
    let long_header = format!("{}\tlabel\ngood\t1\n", "x".repeat(500_000));
    let returns = "sentence\tlabel\rgood\t1\r".repeat(20_000);
    for (text, piece) in [
        (long_label, "line 2"),
        (long_header, "no column"),
        (returns, "end in CR alone"),
    ] {
        let message = sst2(text.as_bytes()).unwrap_err().to_string();
        assert!(
            message.contains(piece) && message.contains('…'),
            "{message}"
        );
        assert!(message.len() < 1000, "{} bytes", message.len());
        assert!(!message.contains(['\u{1b}', '\r']), "{message:?}");
    }
    let unknown = "x".repeat(100_000).parse::<GlueTask>().unwrap_err();
    assert!(unknown.to_string().len() < 1000);
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_file() {
    assert_eq!(sst2(b"\xef\xbb\xbfsentence\tlabel\ngood\t1\n").unwrap(), 1);
    // In a file without header it would be part of the first field.
    let dir = tempfile::tempdir().unwrap();
    put(
        dir.path().join("CoLA/train.tsv"),
        b"\xef\xbb\xbfgj04\t1\t\tGood.\n",
    );
    let rows = glue::load_folder(dir.path(), GlueTask::Cola, Split::Train).unwrap();
    assert_eq!(rows.len(), 1);
    let list = "\u{feff}a.png\tn1\t0\t0\t1\t1\n";
    put(dir.path().join("val_annotations.txt"), list.as_bytes());
    put(dir.path().join("images/a.png"), &png(&picture(3, 3, 0)));
    let data = imagenet::load_folder(dir.path(), None, OnCorrupt::Fail).unwrap();
    assert_eq!((data.len(), data.classes()), (1, &["n1".to_string()][..]));
}

#[test]
fn a_line_of_annotations_is_cut_in_the_error() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path().join("images/a.png"), &png(&picture(3, 3, 0)));
    for line in ["x".repeat(100_000), format!("{}\tn1", "x".repeat(100_000))] {
        put(dir.path().join("val_annotations.txt"), line.as_bytes());
        let data = imagenet::load_folder(dir.path(), None, OnCorrupt::Fail);
        let message = data.map(|data| data.len()).unwrap_err().to_string();
        assert!(
            message.contains("line 1") && message.len() < 1000,
            "{}",
            message.len()
        );
    }
}

#[test]
fn a_text_of_a_parquet_file_has_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let load = |length: usize| {
        let text = vec![b'x'; length];
        let file = sst2_parquet(&[(b"good", 1), (&text, 0)], Compression::SNAPPY);
        let path = put(dir.path().join("x.parquet"), &file);
        glue::load_parquet(&path, GlueTask::Sst2, Split::Train).map(|rows| rows.len())
    };
    assert_eq!(load(LONGEST_LINE).unwrap(), 2);
    assert_says(
        load(LONGEST_LINE + 1),
        &["x.parquet", "row 2", "sentence", "1048577 bytes"],
    );
}

/// A number as Thrift's compact protocol has it.
fn varint(value: i64) -> Vec<u8> {
    let mut left = ((value << 1) ^ (value >> 63)) as u64;
    let mut bytes = Vec::new();
    while left > 127 {
        bytes.push(left as u8 | 128);
        left >>= 7;
    }
    bytes.push(left as u8);
    bytes
}

/// The file with other unpacked bytes in the head of its first page.
fn claiming(file: &[u8], unpacked: i64) -> Vec<u8> {
    // After the file's magic: field 1, the kind of page; field 2, the unpacked bytes.
    assert_eq!((file[4], file[6]), (0x15, 0x15));
    let end = 7 + file[7..].iter().position(|byte| byte & 128 == 0).unwrap() + 1;
    [&file[..7], &varint(unpacked), &file[end..]].concat()
}

/// 2 GiB of zeros would be made, and then found to be wrong.
#[test]
fn a_page_that_claims_to_be_large_is_refused_before_it_is_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    let texts = sst2_parquet(&[(b"a good film", 1), (b"bad", 0)], Compression::SNAPPY);
    let load = |file: &[u8]| {
        let path = put(dir.path().join("x.parquet"), file);
        glue::load_parquet(&path, GlueTask::Sst2, Split::Train).map(|rows| rows.len())
    };
    assert_eq!(load(&texts).unwrap(), 2);
    let huge = i64::from(i32::MAX);
    assert_says(
        load(&claiming(&texts, huge)),
        &["x.parquet", "2147483647 unpacked bytes"],
    );
    let group = [(Some(png(&picture(2, 2, 0))), Some(0))];
    let pictures = parquet("image", &[group.to_vec()], None);
    let path = put(dir.path().join("y.parquet"), &claiming(&pictures, huge));
    let data = imagenet::load_parquet(&[&path], OnCorrupt::Fail).map(|data| data.len());
    assert_says(data, &["y.parquet", "2147483647 unpacked bytes"]);
}

/// Each level is a call within a call where the schema is read: a deep one ends the stack, and no error
/// comes back from there.
#[test]
fn a_schema_of_many_levels_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let nested = |levels: usize| {
        let open = "optional group a { ".repeat(levels);
        let text = format!(
            "message m {{ {open} optional int32 b; {}}}",
            "} ".repeat(levels)
        );
        let schema = Arc::new(parse_message_type(&text).unwrap());
        let writer = SerializedFileWriter::new(Vec::new(), schema, Default::default());
        let path = put(
            dir.path().join("x.parquet"),
            &writer.unwrap().into_inner().unwrap(),
        );
        glue::load_parquet(&path, GlueTask::Sst2, Split::Train).map(|rows| rows.len())
    };
    assert_says(nested(3), &["no column", "sentence"]);
    assert_says(nested(100), &["x.parquet", "too many levels"]);
}

/// The parquet crate takes memory for as many children as an element of the schema claims.
#[test]
fn a_schema_that_claims_many_children_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = sst2_parquet(&[(b"good", 1), (b"bad", 0)], Compression::SNAPPY);
    let length = file.len();
    let footer = u32::from_le_bytes(file[length - 8..length - 4].try_into().unwrap()) as usize;
    // The root's name, with its length before it, and behind it field 5: how many children it has.
    let root = b"\x01m\x15";
    let mut places = file.windows(root.len());
    let at = places.position(|bytes| bytes == root).unwrap() + root.len();
    let claiming = |children: i64| {
        let claim = varint(children);
        let head = [&file[..at], &claim].concat();
        let body = &file[at + 1..length - 8]; // a small number has one byte
        let length = (footer + claim.len() - 1) as u32;
        let bytes = [&head, body, &length.to_le_bytes(), b"PAR1"].concat();
        let path = put(dir.path().join("x.parquet"), &bytes);
        glue::load_parquet(&path, GlueTask::Sst2, Split::Train).map(|rows| rows.len())
    };
    let own = file[at] as i64 / 2;
    assert_eq!(claiming(own).unwrap(), 2);
    for children in [i64::from(i32::MAX), own + 1, -1] {
        assert_says(
            claiming(children),
            &["x.parquet", "more children than there are elements"],
        );
    }
}

/// A picture's head with other numbers, and for a PNG the checksum that makes them believed.
fn sized(file: &[u8], height: u32, width: u32) -> Vec<u8> {
    let mut file = file.to_vec();
    if file.starts_with(b"\x89PNG") {
        file[16..20].copy_from_slice(&width.to_be_bytes());
        file[20..24].copy_from_slice(&height.to_be_bytes());
        let mut crc = flate2::Crc::new();
        crc.update(&file[12..29]);
        file[29..33].copy_from_slice(&crc.sum().to_be_bytes());
        return file;
    }
    let frame = file
        .windows(2)
        .position(|pair| pair == [0xff, 0xc0])
        .unwrap();
    file[frame + 5..frame + 7].copy_from_slice(&(height as u16).to_be_bytes());
    file[frame + 7..frame + 9].copy_from_slice(&(width as u16).to_be_bytes());
    file
}

#[test]
fn a_picture_that_claims_to_be_large_is_refused_by_its_head() {
    let image = picture(16, 16, 1);
    let rgb = image::RgbImage::from_raw(16, 16, image.pixels.clone()).unwrap();
    let mut jpeg = std::io::Cursor::new(Vec::new());
    rgb.write_to(&mut jpeg, image::ImageFormat::Jpeg).unwrap();
    let (png, jpeg) = (png(&image), jpeg.into_inner());
    let path = Path::new("x.png");
    for file in [&png, &jpeg] {
        let whole = Image::decode(&sized(file, 16, 16), path, None).unwrap();
        assert_eq!((whole.height, whole.width), (16, 16));
        let large = Image::decode(&sized(file, 60_000, 50_000), path, None);
        assert_says(large, &["x.png", "60000 x 50000 pixels"]);
    }
    let larger = Image::decode(&sized(&png, 1 << 30, 1 << 30), path, None);
    assert_says(larger, &["x.png", "not a readable picture"]);
}

#[test]
fn no_crop_asks_for_more_than_there_is() {
    let image = picture(4, 4, 0);
    let with = |crop| Augment {
        crop,
        ..Augment::cifar_test()
    };
    let size = LONGEST_SIDE + 1;
    for crop in [
        Crop::RandomResized { size },
        Crop::Center {
            resize: size,
            size: 4,
        },
        Crop::Padded {
            size: 4,
            padding: usize::MAX,
        },
        Crop::Padded {
            size: usize::MAX,
            padding: 1,
        },
    ] {
        assert_says(with(crop).apply(&image, 0, 0, 0), &["at most 16384 pixels"]);
    }
    let data = cifar_like(4);
    let batch = data.batch(
        &[0],
        0,
        0,
        &with(Crop::RandomResized { size }),
        &candle_core::Device::Cpu,
    );
    assert_says(batch, &["16385 x 16385", "at most 16384"]);
    // Values that are no picture of that size.
    let wrong = Image { height: 5, ..image };
    assert_says(
        with(Crop::Padded {
            size: 4,
            padding: 1,
        })
        .apply(&wrong, 0, 0, 0),
        &["48 values"],
    );
}

fn cifar_like(count: usize) -> datasets::ImageDataset {
    let pixels = (0..count).flat_map(|n| picture(4, 4, n).pixels).collect();
    let classes = vec!["a".to_string()];
    datasets::ImageDataset::from_pixels(classes, (4, 4), pixels, vec![0; count]).unwrap()
}

#[test]
fn sides_that_overflow_are_no_panic() {
    let huge = datasets::ImageDataset::from_pixels(
        vec!["a".to_string()],
        (usize::MAX, usize::MAX),
        vec![0; 3],
        vec![0],
    );
    assert_says(huge.map(|data| data.len()), &["3 bytes", "expected more"]);
}

#[test]
fn batches_are_made_ahead_up_to_a_number() {
    let start = |ahead| Prefetch::start(3, ahead, Ok).map(|batches| batches.count());
    assert_eq!(start(MOST_AHEAD).unwrap(), 3);
    for ahead in [MOST_AHEAD + 1, 1_000_000_000, usize::MAX] {
        assert_says(
            start(ahead),
            &["prefetch", &ahead.to_string(), "at most 1024"],
        );
    }
    let (batcher, augment) = (Batcher::default(), Augment::cifar_test());
    let batches = ImageBatches::new(cifar_like(4), batcher, augment, &candle_core::Device::Cpu);
    let ahead = Ahead::new(batches, 1 << 30);
    assert_says(ahead.get(0, 0), &["prefetch", "at most 1024"]);
}

/// Longer than any memory, and without a byte on the disk.
#[test]
fn files_are_measured_before_they_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let sparse = |name: &str| {
        let path = dir.path().join(name);
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(1 << 42).unwrap();
        path
    };
    let bin = sparse("data_batch_1.bin");
    let outcome = cifar10::load_binary(&[&bin]).map(|data| data.len());
    assert_says(
        outcome,
        &["data_batch_1.bin", "record 1", "more than 184380000 bytes"],
    );
    assert_says(Image::open(&sparse("x.png")), &["x.png", "more than"]);
    sparse("val_annotations.txt");
    let outcome = imagenet::load_folder(dir.path(), None, OnCorrupt::Fail).map(|data| data.len());
    assert_says(outcome, &["val_annotations.txt", "more than"]);
    for name in ["vocab.txt", "tokenizer.json"] {
        sparse(name);
        let outcome = datasets::TextEncoder::from_folder(dir.path(), 16);
        assert_says(outcome, &[name, "more than"]);
    }
}
