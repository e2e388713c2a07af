//! CIFAR-10 and ImageNet from every layout: contents, order, malformed input.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datasets::limits::LARGEST_PAGE;
use datasets::{
    Augment, Error, Hub, Image, ImageDataset, OnCorrupt, Place, Split, cifar10, imagenet,
};
use image::{DynamicImage, ImageFormat, RgbImage};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use tempfile::TempDir;
use testing::assert_says;

/// A picture that differs from every other `salt`'s, as an [`Image`].
pub(crate) fn picture(height: usize, width: usize, salt: usize) -> Image {
    let value = |y: usize, x: usize, c: usize| (y * 7 + x * 3 + c * 50 + salt * 31) as u8;
    let mut pixels = Vec::new();
    for y in 0..height {
        for x in 0..width {
            pixels.extend([0, 1, 2].map(|c| value(y, x, c)));
        }
    }
    Image {
        height,
        width,
        pixels,
    }
}

fn encode(picture: DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn rgb(image: &Image) -> DynamicImage {
    let (width, height) = (image.width as u32, image.height as u32);
    RgbImage::from_raw(width, height, image.pixels.clone())
        .unwrap()
        .into()
}

pub(crate) fn png(image: &Image) -> Vec<u8> {
    encode(rgb(image), ImageFormat::Png)
}

fn jpeg(image: &Image) -> Vec<u8> {
    encode(rgb(image), ImageFormat::Jpeg)
}

/// Writes a file, making the folders above it.
pub(crate) fn put(path: PathBuf, bytes: &[u8]) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    path
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A record of the binary version: the label, then all of red, green and blue.
fn record(label: u8, image: &Image) -> Vec<u8> {
    let plane = |c: usize| image.pixels.iter().skip(c).step_by(3).copied();
    let mut bytes = vec![label];
    for channel in 0..3 {
        bytes.extend(plane(channel));
    }
    bytes
}

fn labels(data: &ImageDataset) -> Vec<u32> {
    (0..data.len()).map(|i| data.label(i).unwrap()).collect()
}

/// The error of loading a split of CIFAR-10 from a folder.
fn refused(dir: &Path, split: Split) -> Result<(), Error> {
    cifar10::load(Some(dir), split).map(|_| ())
}

#[test]
fn cifar_binary_files_are_read_in_the_order_of_their_names() {
    let dir = TempDir::new().unwrap();
    let pictures: Vec<Image> = (0..5).map(|salt| picture(32, 32, salt)).collect();
    let records = |range: std::ops::Range<usize>| -> Vec<u8> {
        range
            .flat_map(|i| record(9 - i as u8, &pictures[i]))
            .collect()
    };
    for folder in [dir.path().to_path_buf(), dir.path().join("x")] {
        let files = match folder.ends_with("x") {
            true => folder.join("cifar-10-batches-bin"),
            false => folder.clone(),
        };
        put(files.join("data_batch_2.bin"), &records(2..3));
        put(
            files.join("data_batch_1.first2.bin.gz"),
            &gzip(&records(0..2)),
        );
        // The plain file counts, its gzipped twin does not.
        put(files.join("data_batch_2.bin.gz"), &gzip(&records(2..3)));
        put(files.join("test_batch.bin"), &records(3..5));
        put(files.join("batches.meta.txt"), b"airplane\n");
        let train = cifar10::load(Some(&folder), Split::Train).unwrap();
        assert_eq!(labels(&train), [9, 8, 7]);
        assert_eq!(train.classes(), cifar10::CLASSES);
        for (index, picture) in pictures[..3].iter().enumerate() {
            assert_eq!(train.image(index).unwrap(), *picture, "{index}");
        }
        for split in [Split::Validation, Split::Test] {
            let test = cifar10::load(Some(&folder), split).unwrap();
            assert_eq!(labels(&test), [6, 5]);
            assert_eq!(test.image(1).unwrap(), pictures[4]);
        }
    }
    let one = cifar10::load_binary(&[dir.path().join("data_batch_1.first2.bin.gz")]).unwrap();
    assert_eq!(one.len(), 2);
    // An unpacking that was interrupted.
    put(dir.path().join("data_batch_5.bin"), &records(0..1));
    assert_says(
        cifar10::load(Some(dir.path()), Split::Train),
        &["no data_batch_3.bin"],
    );
}

#[test]
fn cifar_binary_files_that_are_damaged_name_the_record() {
    let dir = TempDir::new().unwrap();
    let good = record(3, &picture(32, 32, 0));
    let path = dir.path().join("data_batch_1.bin");
    let load = |bytes: &[u8]| {
        put(path.clone(), bytes);
        refused(dir.path(), Split::Train)
    };
    let mut cut = good.repeat(3);
    cut.truncate(2 * 3073 + 100);
    assert_says(
        load(&cut),
        &["data_batch_1.bin, record 3: cut off after 100 of 3073 bytes; the file has 6246 bytes"],
    );
    let mut wrong = good.repeat(2);
    wrong[3073] = 10;
    assert_says(
        load(&wrong),
        &[
            "data_batch_1.bin, record 2, column \"label\": label \"10\", expected a class number in 0..10",
        ],
    );
    assert_says(
        load(b""),
        &["data_batch_1.bin: no data rows", "3073 bytes of CIFAR-10"],
    );
    fs::remove_file(&path).unwrap();
    // Bytes that do not compress, so that half the file holds about half the records.
    let mut state = 1u32;
    let noise = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let mut many: Vec<u8> = (0..10 * 3073).map(noise).collect();
    many.iter_mut().step_by(3073).for_each(|label| *label = 1);
    let whole = gzip(&many);
    put(
        dir.path().join("data_batch_1.bin.gz"),
        &whole[..whole.len() / 2],
    );
    let error = refused(dir.path(), Split::Train).unwrap_err();
    assert!(
        matches!(&error, Error::Damaged { place: Place::Record(4..=6), reason, .. } if reason.contains("gzip")),
        "{error}"
    );
}

#[test]
fn a_missing_data_set_says_what_to_fetch_and_whence() {
    let dir = TempDir::new().unwrap();
    for folder in [dir.path().to_path_buf(), dir.path().join("nowhere")] {
        assert_says(
            refused(&folder, Split::Train),
            &[
                "no train split of CIFAR-10",
                folder.to_str().unwrap(),
                "data_batch_*.bin[.gz], cifar-10-batches-bin/data_batch_*.bin[.gz], train/CLASS/*.png",
                "plain_text/train-NNNNN-of-NNNNN.parquet",
                "https://www.cs.toronto.edu/~kriz/cifar.html",
            ],
        );
        assert_says(
            imagenet::load(Some(&folder), Split::Validation, OnCorrupt::Fail).map(|_| ()),
            &[
                "no validation split of ImageNet",
                folder.to_str().unwrap(),
                "val or validation/CLASS/*.JPEG",
                "data/validation-NNNNN-of-NNNNN.parquet",
                "https://image-net.org",
            ],
        );
    }
    assert_says(
        imagenet::load(Some(dir.path()), Split::Test, OnCorrupt::Fail).map(|_| ()),
        &["split = test", "not published"],
    );
}

/// CIFAR-10 in class folders: two pictures a class for training, one for testing.
fn cifar_folders() -> TempDir {
    let dir = TempDir::new().unwrap();
    for (label, class) in cifar10::CLASSES.iter().enumerate() {
        let train = dir.path().join("train").join(class);
        put(train.join("0001.png"), &png(&picture(32, 32, label)));
        put(train.join("0002.PNG"), &png(&picture(32, 32, label + 10)));
        put(train.join("notes.txt"), b"not a picture");
        let test = dir.path().join("test").join(class);
        put(test.join("1.jpg"), &jpeg(&picture(32, 32, label)));
    }
    dir
}

#[test]
fn cifar_class_folders_have_the_standard_numbers() {
    let dir = cifar_folders();
    let train = cifar10::load(Some(dir.path()), Split::Train).unwrap();
    assert_eq!(train.histogram(), [2; 10]);
    for index in 0..20 {
        let (label, second) = (index / 2, index % 2);
        assert_eq!(train.label(index).unwrap() as usize, label);
        assert_eq!(
            train.image(index).unwrap(),
            picture(32, 32, label + 10 * second)
        );
    }
    let test = cifar10::load(Some(dir.path()), Split::Test).unwrap();
    assert_eq!(labels(&test), (0..10).collect::<Vec<u32>>());
    let (lossy, exact) = (test.image(4).unwrap(), picture(32, 32, 4));
    assert_eq!((lossy.height, lossy.width), (32, 32));
    let error: u32 = lossy
        .pixels
        .iter()
        .zip(&exact.pixels)
        .map(|(a, b)| u32::from(a.abs_diff(*b)))
        .sum();
    assert!(error < 20 * 3072, "a JPEG is near its picture: {error}");
    // Without `test`, `val` will do.
    fs::rename(dir.path().join("test"), dir.path().join("val")).unwrap();
    assert_eq!(
        cifar10::load(Some(dir.path()), Split::Test).unwrap().len(),
        10
    );
}

#[test]
fn cifar_class_folders_that_are_damaged_name_the_path() {
    let dir = cifar_folders();
    let train = dir.path().join("train");
    let bird = train.join("bird");
    let says = |pieces: &[&str]| assert_says(refused(dir.path(), Split::Train), pieces);

    let path = put(bird.join("0003.png"), b"these are no pixels");
    says(&[path.to_str().unwrap(), "not a readable picture"]);
    let whole = png(&picture(32, 32, 0));
    put(path.clone(), &whole[..whole.len() / 2]);
    says(&[path.to_str().unwrap(), "not a readable picture"]);
    put(path.clone(), b"");
    says(&[path.to_str().unwrap(), "not a readable picture"]);
    put(path.clone(), &png(&picture(16, 48, 0)));
    says(&[
        path.to_str().unwrap(),
        ": 16 x 48 pixels, expected 32 x 32; is this the right data set?",
    ]);
    fs::remove_file(&path).unwrap();
    let whole = jpeg(&picture(32, 32, 0));
    let path = put(bird.join("0003.jpg"), &whole[..whole.len() - 20]);
    says(&[
        path.to_str().unwrap(),
        "not a readable picture (the JPEG ends before its end marker)",
    ]);
    fs::remove_file(&path).unwrap();
    cifar10::load(Some(dir.path()), Split::Train).unwrap();

    fs::create_dir(train.join("plane")).unwrap();
    says(&[
        train.join("plane").to_str().unwrap(),
        "not a class of CIFAR-10; the classes are airplane, automobile, bird",
    ]);
    fs::remove_dir(train.join("plane")).unwrap();
    for name in ["0001.png", "0002.PNG"] {
        fs::remove_file(bird.join(name)).unwrap();
    }
    says(&[
        bird.to_str().unwrap(),
        "no pictures in this class folder; expected files ending in .jpg, .jpeg or .png",
    ]);
    fs::remove_dir_all(&bird).unwrap();
    says(&[
        "no folder of the class bird in",
        train.to_str().unwrap(),
        "airplane, automobile",
    ]);
}

/// Pictures (or nulls) and labels (or nulls) of one row group of a parquet file.
pub(crate) type Group = Vec<(Option<Vec<u8>>, Option<i64>)>;

/// A parquet file in the Hub's layout; `footer` is what it says about its columns.
pub(crate) fn parquet(column: &str, groups: &[Group], footer: Option<&str>) -> Vec<u8> {
    let schema = format!(
        "message m {{ OPTIONAL group {column} {{ OPTIONAL BYTE_ARRAY bytes; \
         OPTIONAL BYTE_ARRAY path (UTF8); }} OPTIONAL INT64 label; }}"
    );
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let pair = footer.map(|text| vec![KeyValue::new("huggingface".to_string(), text.to_string())]);
    // Small pages, so that a group has several.
    let properties = WriterProperties::builder()
        .set_compression(parquet::basic::Compression::SNAPPY)
        .set_data_page_row_count_limit(2)
        .set_write_batch_size(1)
        .set_key_value_metadata(pair)
        .build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    for rows in groups {
        let mut group = writer.next_row_group().unwrap();
        let pictures: Vec<ByteArray> = rows
            .iter()
            .filter_map(|(p, _)| p.clone().map(Into::into))
            .collect();
        let levels: Vec<i16> = rows
            .iter()
            .map(|(p, _)| 2 * i16::from(p.is_some()))
            .collect();
        let mut bytes = group.next_column().unwrap().unwrap();
        let typed = bytes.typed::<ByteArrayType>();
        typed.write_batch(&pictures, Some(&levels), None).unwrap();
        bytes.close().unwrap();
        let mut path = group.next_column().unwrap().unwrap();
        let nothing = vec![1; rows.len()];
        let typed = path.typed::<ByteArrayType>();
        typed.write_batch(&[], Some(&nothing), None).unwrap();
        path.close().unwrap();
        let values: Vec<i64> = rows.iter().filter_map(|(_, label)| *label).collect();
        let levels: Vec<i16> = rows.iter().map(|(_, l)| i16::from(l.is_some())).collect();
        let mut label = group.next_column().unwrap().unwrap();
        let typed = label.typed::<Int64Type>();
        typed.write_batch(&values, Some(&levels), None).unwrap();
        label.close().unwrap();
        group.close().unwrap();
    }
    writer.into_inner().unwrap()
}

fn row(image: &Image, label: i64) -> (Option<Vec<u8>>, Option<i64>) {
    (Some(png(image)), Some(label))
}

#[test]
fn cifar_parquet_comes_from_a_folder_or_the_hubs_cache() {
    let groups: Vec<Group> = vec![
        (0..7)
            .map(|i| row(&picture(32, 32, i), i as i64 + 1))
            .collect(),
        (7..9).map(|i| row(&picture(32, 32, i), 0)).collect(),
    ];
    let file = parquet("img", &groups, None);
    let cache = TempDir::new().unwrap();
    let repo = cache.path().join("datasets--uoft-cs--cifar10");
    put(repo.join("refs/main"), b"c0ffee");
    let snapshot = repo.join("snapshots/c0ffee");
    let name = "plain_text/train-00000-of-00001.parquet";
    put(snapshot.join(name), &file);
    let hub = Hub {
        offline: true,
        ..Hub::new(cache.path())
    };
    let from_hub = cifar10::load_hub(&hub, Split::Train).unwrap();
    let from_folder = cifar10::load(Some(&snapshot), Split::Train).unwrap();
    for data in [from_hub, from_folder] {
        assert_eq!(labels(&data), [1, 2, 3, 4, 5, 6, 7, 0, 0]);
        for index in 0..9 {
            assert_eq!(
                data.image(index).unwrap(),
                picture(32, 32, index),
                "{index}"
            );
        }
    }
    assert_says(
        cifar10::load_hub(&hub, Split::Test).map(|_| ()),
        &["uoft-cs/cifar10/plain_text/test-00000-of-00001.parquet"],
    );
    put(
        snapshot.join("plain_text/train-00002-of-00003.parquet"),
        &file,
    );
    assert_says(
        refused(&snapshot, Split::Train),
        &["expected numbers 0 to", "fetch the missing ones"],
    );
}

#[test]
fn cifar_parquet_that_is_damaged_names_the_row() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("plain_text/test-00000-of-00001.parquet");
    let name = path.to_str().unwrap();
    let load = |bytes: &[u8]| {
        put(path.clone(), bytes);
        refused(dir.path(), Split::Test)
    };
    let good = || row(&picture(32, 32, 1), 1);
    let file = |column: &str, third| {
        parquet(
            column,
            &[vec![good(), good()], vec![third, good(), good()]],
            None,
        )
    };
    load(&file("img", good())).unwrap();
    for (third, pieces) in [
        (
            row(&picture(32, 32, 1), 10),
            ["row 3, column \"label\": label \"10\"", "0..10"],
        ),
        (
            row(&picture(32, 32, 1), -1),
            ["row 3, column \"label\": label \"-1\"", "secret"],
        ),
        (
            (Some(png(&picture(32, 32, 1))), None),
            ["row 3, column \"label\"", "expected an integer"],
        ),
        (
            (None, Some(1)),
            ["row 3, column \"img.bytes\"", "expected an encoded picture"],
        ),
        (
            (Some(b"no pixels".to_vec()), Some(1)),
            ["row 3: not a readable picture", "fetch it again"],
        ),
        (
            row(&picture(31, 32, 1), 1),
            ["row 3: 31 x 32 pixels", "expected 32 x 32"],
        ),
    ] {
        assert_says(
            load(&file("img", third)),
            &[&format!("{name}, {}", pieces[0]), pieces[1]],
        );
    }
    assert_says(
        load(&file("image", good())),
        &[
            name,
            "no column \"img.bytes\" for CIFAR-10; the columns are image.bytes, image.path, label",
        ],
    );
    let whole = file("img", good());
    assert_says(
        load(&whole[..whole.len() - 9]),
        &[name, "unreadable parquet"],
    );
    assert_says(load(&parquet("img", &[], None)), &[name, "no data rows"]);
}

/// ImageNet in class folders: `tench` before `zebra`, two and one pictures, one each for validation.
fn imagenet_folders() -> TempDir {
    let dir = TempDir::new().unwrap();
    let files = [
        ("train/n02391049/n02391049_7.JPEG", 0),
        ("train/n01440764/n01440764_10026.JPEG", 1),
        ("train/n01440764/n01440764_10027.JPEG", 2),
        ("val/n02391049/ILSVRC2012_val_00000001.JPEG", 3),
    ];
    for (name, salt) in files {
        put(dir.path().join(name), &png(&picture(20 + salt, 30, salt)));
    }
    dir
}

fn fails(dir: &Path, split: Split) -> Result<(), Error> {
    imagenet::load(Some(dir), split, OnCorrupt::Fail).map(|_| ())
}

#[test]
fn imagenet_classes_are_the_sorted_folders_of_the_training_split() {
    let dir = imagenet_folders();
    let load = |split| imagenet::load(Some(dir.path()), split, OnCorrupt::Fail).unwrap();
    let train = load(Split::Train);
    assert_eq!(train.classes(), ["n01440764", "n02391049"]);
    assert_eq!(labels(&train), [0, 0, 1]);
    // The files are PNG under another name: the content decides.
    for (index, salt) in [1, 2, 0].into_iter().enumerate() {
        assert_eq!(train.image(index).unwrap(), picture(20 + salt, 30, salt));
    }
    assert!(train.path(2).unwrap().ends_with("n02391049_7.JPEG"));
    let validation = load(Split::Validation);
    assert_eq!(labels(&validation), [1], "numbered as in training");
    assert_eq!(validation.classes(), train.classes());

    let stranger = put(
        dir.path().join("val/n99999999/1.JPEG"),
        &png(&picture(9, 9, 0)),
    );
    assert_says(
        fails(dir.path(), Split::Validation),
        &[
            stranger.to_str().unwrap(),
            "its class \"n99999999\" is not among the 2 of the training split",
        ],
    );
}

#[test]
fn imagenet_empty_class_folders_fail_or_are_counted() {
    let dir = imagenet_folders();
    let empty = dir.path().join("train/n01500000");
    put(empty.join("list.txt"), b"");
    assert_says(
        fails(dir.path(), Split::Train),
        &[empty.to_str().unwrap(), "no pictures in this class folder"],
    );
    let data = imagenet::load(Some(dir.path()), Split::Train, OnCorrupt::SkipAndCount).unwrap();
    assert_eq!(data.empty_classes(), ["n01500000"]);
    assert_eq!(data.histogram(), [2, 0, 1], "it keeps its number");
    assert_eq!(data.left_out(), 0);
    put(empty.join("deep/1.JPEG"), b"");
    put(empty.join("2.webp"), b"");
    let data = imagenet::load(Some(dir.path()), Split::Train, OnCorrupt::SkipAndCount).unwrap();
    assert_eq!((data.len(), data.left_out()), (3, 2));

    let bare = TempDir::new().unwrap();
    fs::create_dir(bare.path().join("train")).unwrap();
    assert_says(
        fails(bare.path(), Split::Train),
        &["no pictures of ImageNet in", "a folder for each class"],
    );
    fs::create_dir(bare.path().join("train/n01500000")).unwrap();
    for on_corrupt in [OnCorrupt::Fail, OnCorrupt::SkipAndCount] {
        let outcome = imagenet::load(Some(bare.path()), Split::Train, on_corrupt);
        assert_says(outcome.map(|_| ()), &["no pictures"]);
    }
    put(bare.path().join("train/cat.jpg"), b"");
    fs::remove_dir(bare.path().join("train/n01500000")).unwrap();
    assert_says(
        fails(bare.path(), Split::Train),
        &["cat.jpg", "a picture without a class", "development kit"],
    );
}

#[test]
fn imagenet_corrupt_pictures_fail_or_are_replaced_and_counted() {
    let dir = imagenet_folders();
    let whole = jpeg(&picture(40, 40, 5));
    let cut = put(
        dir.path().join("train/n01440764/n01440764_10028.JPEG"),
        &whole[..whole.len() / 2],
    );
    let load = |on_corrupt| imagenet::load(Some(dir.path()), Split::Train, on_corrupt).unwrap();
    let augment = Augment::imagenet_train(8);
    let device = candle_core::Device::Cpu;
    let batch =
        |data: &ImageDataset, indices: &[usize]| data.batch(indices, 0, 1, &augment, &device);
    let strict = load(OnCorrupt::Fail);
    assert_says(
        batch(&strict, &[0, 2, 1]).map(|_| ()),
        &[cut.to_str().unwrap(), "not a readable picture"],
    );
    batch(&strict, &[0, 1, 3]).unwrap();
    let lenient = load(OnCorrupt::SkipAndCount);
    assert!(
        lenient.image(2).is_err(),
        "the picture itself stays an error"
    );
    let made = batch(&lenient, &[2, 0, 2]).unwrap();
    assert_eq!((made.len(), made.replaced), (3, 2));
    assert_eq!(
        made.labels.to_vec1::<u32>().unwrap(),
        [1, 0, 1],
        "the next picture's label"
    );
    // The last picture's replacement is the first.
    fs::write(dir.path().join("train/n02391049/n02391049_7.JPEG"), b"").unwrap();
    let made = batch(&load(OnCorrupt::SkipAndCount), &[2, 3]).unwrap();
    assert_eq!(
        (made.labels.to_vec1::<u32>().unwrap(), made.replaced),
        (vec![0, 0], 3)
    );
    for file in fs::read_dir(dir.path().join("train/n01440764")).unwrap() {
        fs::write(file.unwrap().path(), b"").unwrap();
    }
    assert_says(
        batch(&load(OnCorrupt::SkipAndCount), &[0]).map(|_| ()),
        &["none of 4 pictures in a row, from 0 on, can be decoded"],
    );
    // A file that has gone is no corrupt picture.
    let data = load(OnCorrupt::SkipAndCount);
    fs::remove_file(&cut).unwrap();
    assert_says(batch(&data, &[2]).map(|_| ()), &[cut.to_str().unwrap()]);
}

/// An 8 x 8 JPEG of one colour in Adobe's inverted CMYK, coded by hand: of each component only the
/// constant, `8 (value - 128)`, which is 512, -512, 0 and 512 here.
fn cmyk_jpeg() -> Vec<u8> {
    let mut bytes = vec![0xff, 0xd8];
    let mut segment = |marker: u8, content: &[u8]| {
        bytes.extend([0xff, marker, 0, content.len() as u8 + 2]);
        bytes.extend(content);
    };
    segment(0xee, b"Adobe\x00\x64\x00\x00\x00\x00\x00"); // transform 0: CMYK
    segment(0xdb, &[&[0u8][..], &[1; 64]].concat()); // quantisation by 1
    let component = |id: u8| [id, 0x11, 0];
    let components: Vec<u8> = (1..5).flat_map(component).collect();
    segment(0xc0, &[&[8, 0, 8, 0, 8, 4][..], &components].concat());
    // Two codes of two bits for constants: 00 = zero, 01 = ten bits follow.
    let lengths = [0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    segment(0xc4, &[&[0x00][..], &lengths, &[0, 10]].concat());
    // One code of two bits for the rest: 00 = no more.
    let lengths = [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    segment(0xc4, &[&[0x10][..], &lengths, &[0]].concat());
    let components: Vec<u8> = (1..5).flat_map(|id| [id, 0]).collect();
    segment(0xda, &[&[4][..], &components, &[0, 63, 0]].concat());
    let bits = [
        "01",
        "1000000000",
        "00", // 512
        "01",
        "0111111111",
        "00", // -512
        "00",
        "00", // 0
        "01",
        "1000000000",
        "00", // 512
    ]
    .concat();
    let bits = format!("{bits:1<48}");
    for byte in bits.as_bytes().chunks(8) {
        let byte = u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap();
        bytes.push(byte);
        if byte == 0xff {
            bytes.push(0);
        }
    }
    bytes.extend([0xff, 0xd9]);
    bytes
}

#[test]
fn every_kind_of_colour_becomes_rgb() {
    let decode = |bytes: &[u8]| {
        let image = Image::decode(bytes, Path::new("x"), None).unwrap();
        assert_eq!(image.pixels.len(), image.height * image.width * 3);
        image.pixels
    };
    let rgb = rgb(&picture(8, 8, 2));
    let grey = DynamicImage::from(rgb.to_luma8());
    let values = grey.as_bytes().to_vec();
    let tripled: Vec<u8> = values.iter().flat_map(|&v| [v; 3]).collect();
    assert_eq!(decode(&encode(grey.clone(), ImageFormat::Png)), tripled);
    let lossy = decode(&encode(grey.clone(), ImageFormat::Jpeg));
    assert!(lossy.chunks(3).all(|p| p[0] == p[1] && p[1] == p[2]));
    let with_alpha = DynamicImage::from(rgb.to_luma_alpha8());
    assert_eq!(decode(&encode(with_alpha, ImageFormat::Png)), tripled);
    let mut transparent = rgb.to_rgba8();
    transparent.pixels_mut().for_each(|p| p.0[3] = 7);
    let transparent = encode(transparent.into(), ImageFormat::Png);
    assert_eq!(decode(&transparent), rgb.as_bytes());
    let deep = encode(rgb.to_rgb16().into(), ImageFormat::Png);
    assert_eq!(decode(&deep), rgb.as_bytes());
    // Inverted ink: red = C K / 255 with C, M, Y, K = 192, 64, 128, 192.
    let ink = decode(&cmyk_jpeg());
    assert_eq!(ink.len(), 8 * 8 * 3);
    for pixel in ink.chunks(3) {
        for (&got, wanted) in pixel.iter().zip([144.6f64, 48.2, 96.4]) {
            assert!((f64::from(got) - wanted).abs() <= 1.0, "{pixel:?}");
        }
    }
}

#[test]
fn tiny_imagenet_has_its_own_layout() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (name, salt) in [
        ("train/n02/images/n02_0.JPEG", 0),
        ("train/n01/images/n01_0.JPEG", 1),
        ("val/images/val_0.JPEG", 2),
        ("val/images/val_1.JPEG", 3),
    ] {
        put(at(name), &png(&picture(6, 6, salt)));
    }
    put(at("train/n01/n01_boxes.txt"), b"n01_0.JPEG\t0\t0\t6\t6\n");
    let list = at("val/val_annotations.txt");
    let write = |text: &str| put(list.clone(), text.as_bytes());
    write("val_1.JPEG\tn02\t0\t32\t44\t62\nval_0.JPEG\tn01\t1\t2\t3\t4\n");
    let load = |split| imagenet::load(Some(dir.path()), split, OnCorrupt::Fail).unwrap();
    let train = load(Split::Train);
    assert_eq!(labels(&train), [0, 1]);
    assert_eq!(train.image(1).unwrap(), picture(6, 6, 0));
    let validation = load(Split::Validation);
    assert_eq!(labels(&validation), [1, 0], "in the order of the list");
    assert_eq!(validation.image(0).unwrap(), picture(6, 6, 3));

    let says = |pieces: &[&str]| {
        let pieces = [&[list.to_str().unwrap()][..], pieces].concat();
        assert_says(fails(dir.path(), Split::Validation), &pieces);
    };
    write("val_0.JPEG\tn01\nval_1.JPEG n02\n");
    says(&["line 2: \"val_1.JPEG n02\", expected a file and a class"]);
    write("val_0.JPEG\tn01\nval_7.JPEG\tn02\n");
    says(&["line 2: there is no images/val_7.JPEG"]);
    write("val_0.JPEG\tn01\n");
    says(&["no line for", "val_1.JPEG"]);
    write("val_0.JPEG\tn01\nval_1.JPEG\tn02\nval_0.JPEG\tn02\n");
    says(&["two lines for", "val_0.JPEG"]);
    write("val_0.JPEG\tn01\nval_1.JPEG\tn03\n");
    assert_says(
        fails(dir.path(), Split::Validation),
        &["val_1.JPEG", "its class \"n03\" is not among the 2"],
    );
}

#[test]
fn pictures_named_by_their_class_need_no_folders() {
    let dir = TempDir::new().unwrap();
    for (name, salt) in [("n02391049_zebra.JPEG", 0), ("n01440764_tench.JPEG", 1)] {
        put(dir.path().join(name), &png(&picture(5, 5, salt)));
    }
    let data = imagenet::load_folder(dir.path(), None, OnCorrupt::Fail).unwrap();
    assert_eq!(data.classes(), ["n01440764", "n02391049"]);
    assert_eq!(data.image(0).unwrap(), picture(5, 5, 1));
}

/// The validation pictures may not have every class.
#[test]
fn classes_of_pictures_without_folders_are_numbered_by_training() {
    let dir = TempDir::new().unwrap();
    for (name, salt) in [
        ("train/n02391049_zebra.JPEG", 0),
        ("train/n01440764_tench.JPEG", 1),
        ("val/n02391049_other.JPEG", 2),
    ] {
        put(dir.path().join(name), &png(&picture(5, 5, salt)));
    }
    let data = imagenet::load(Some(dir.path()), Split::Validation, OnCorrupt::Fail).unwrap();
    assert_eq!(data.classes(), ["n01440764", "n02391049"]);
    assert_eq!(data.label(0).unwrap(), 1);
}

#[test]
fn imagenet_parquet_is_read_row_by_row() {
    let dir = TempDir::new().unwrap();
    let row = |i: usize| row(&picture(4 + i, 5, i), (i % 3) as i64);
    let rows = |range: std::ops::Range<usize>| range.map(row).collect::<Group>();
    let footer = r#"{"info":{"features":{"label":{"names":["tench","goldfish","shark"],"_type":"ClassLabel"}}}}"#;
    let first = parquet("image", &[rows(0..7), rows(7..8)], Some(footer));
    let second = parquet("image", &[rows(8..11)], Some(footer));
    let path = |i: usize| {
        dir.path()
            .join(format!("data/train-0000{i}-of-00002.parquet"))
    };
    put(path(0), &first);
    put(path(1), &second);
    let load = || imagenet::load(Some(dir.path()), Split::Train, OnCorrupt::Fail);
    let data = load().unwrap();
    assert_eq!(data.classes(), ["tench", "goldfish", "shark"]);
    assert_eq!(data.len(), 11);
    for index in [10, 0, 6, 7, 8, 3, 9, 1, 2, 4, 5] {
        assert_eq!(data.image(index).unwrap(), picture(4 + index, 5, index));
        assert_eq!(data.label(index).unwrap() as usize, index % 3);
    }
    // Many threads read the same file.
    let all: Vec<usize> = (0..11).cycle().take(110).collect();
    let (augment, device) = (Augment::imagenet_test(4), candle_core::Device::Cpu);
    let batch = data.batch(&all, 0, 0, &augment, &device).unwrap();
    let (once, tenth) = (
        batch.pixels.narrow(0, 0, 11).unwrap(),
        batch.pixels.narrow(0, 99, 11).unwrap(),
    );
    let values = |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(values(&once), values(&tenth));

    let bad: Group = vec![row(8), (Some(b"no pixels".to_vec()), Some(2)), row(10)];
    put(path(1), &parquet("image", &[bad], None));
    let data = load().unwrap();
    assert_says(
        data.image(9).map(|_| ()),
        &[path(1).to_str().unwrap(), "row 2: not a readable picture"],
    );
    assert_eq!(data.image(10).unwrap(), picture(14, 5, 10));
    let bad: Group = vec![row(8), (Some(Vec::new()), Some(3))];
    put(path(1), &parquet("image", &[bad], None));
    assert_says(
        load().map(|_| ()),
        &[path(1).to_str().unwrap(), "row 2", "\"3\"", "0..3"],
    );
    let unnamed = imagenet::load_parquet(&[path(1)], OnCorrupt::Fail).unwrap();
    assert_eq!(unnamed.classes(), ["0", "1", "2", "3"]);
}

/// Arrow looks at a dictionary's size only after each 1,024 values: the pictures of a whole row group lie in it.
#[test]
fn a_row_group_of_large_pictures_may_be_one_dictionary() {
    let dir = TempDir::new().unwrap();
    let noise = |salt: u32| {
        let hash = |i: u32| {
            let x = (i ^ salt << 24).wrapping_mul(0x9e37_79b1);
            (x ^ x >> 15).wrapping_mul(0x85eb_ca6b) >> 24
        };
        let pixels = (0..3 * 1400 * 1400).map(|i| hash(i) as u8).collect();
        let pixels = image::RgbImage::from_raw(1400, 1400, pixels).unwrap();
        let mut bytes = Vec::new();
        let encoder = image::codecs::png::PngEncoder::new_with_quality(
            &mut bytes,
            image::codecs::png::CompressionType::Fast,
            image::codecs::png::FilterType::NoFilter,
        );
        pixels.write_with_encoder(encoder).unwrap();
        bytes
    };
    let pictures: Vec<Vec<u8>> = (0..4).map(noise).collect();
    let schema =
        "message m { OPTIONAL group image { REQUIRED BYTE_ARRAY bytes; } REQUIRED INT64 label; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder()
        .set_dictionary_page_size_limit(LARGEST_PAGE)
        .build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let values: Vec<ByteArray> = pictures.iter().map(|p| p.clone().into()).collect();
    let typed = column.typed::<ByteArrayType>();
    typed.write_batch(&values, Some(&[1; 4]), None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let typed = column.typed::<Int64Type>();
    typed.write_batch(&[0, 1, 2, 0], None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    let file = writer.into_inner().unwrap();
    assert!(
        file.len() > 20 << 20,
        "noise that is packed: {}",
        file.len()
    );
    let path = put(dir.path().join("x.parquet"), &file);
    let data = imagenet::load_parquet(&[path], OnCorrupt::Fail).unwrap();
    assert_eq!((data.len(), data.label(2).unwrap()), (4, 2));
    assert_eq!(data.image(3).unwrap().height, 1400);
}

#[test]
fn real_cifar_pictures() {
    let Some(dir) = testing::shared("data-restricted/cifar10") else {
        return;
    };
    let train = cifar10::load(Some(&dir), Split::Train).unwrap();
    assert_eq!(train.len(), 4000);
    assert_eq!(labels(&train)[..10], [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]);
    assert!(train.histogram().iter().all(|n| (350..450).contains(n)));
    let frog = train.image(0).unwrap();
    let red: Vec<u8> = frog.pixels.iter().step_by(3).take(10).copied().collect();
    assert_eq!(red, [59, 43, 50, 68, 98, 119, 139, 145, 149, 149]);
    let test = cifar10::load(Some(&dir), Split::Test).unwrap();
    assert_eq!(test.histogram(), [100; 10]);
    // Normalised with the data set's own mean and deviation: near 0 and 1.
    let all: Vec<usize> = (0..4000).collect();
    let (augment, device) = (Augment::cifar_test(), candle_core::Device::Cpu);
    let batch = train.batch(&all, 0, 0, &augment, &device).unwrap();
    let pixels = batch.pixels.transpose(0, 1).unwrap().contiguous().unwrap();
    let channels = pixels.reshape((3, 4000 * 1024)).unwrap();
    for channel in 0..3 {
        let values = channels.get(channel).unwrap().to_vec1::<f32>().unwrap();
        let mean: f64 = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 0.05, "channel {channel}: mean {mean}");
    }
}
