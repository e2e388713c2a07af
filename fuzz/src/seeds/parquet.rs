//! Parquet files: texts and pictures, in pages of both versions, with dictionaries and without.

use std::sync::Arc;

use parquet::basic::{Compression, Encoding};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::{Seed, pictures::png, with};

/// Values of a column.
pub(super) enum Values {
    Bytes(Vec<Option<Vec<u8>>>),
    Longs(Vec<i64>),
}

fn properties(which: usize) -> WriterProperties {
    let compression = [Compression::UNCOMPRESSED, Compression::SNAPPY][which % 2];
    let version = [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0][which / 2 % 2];
    let mut properties = WriterProperties::builder()
        .set_compression(compression)
        .set_writer_version(version)
        .set_dictionary_enabled(which != 1)
        .set_statistics_enabled(EnabledStatistics::Page);
    if which == 3 {
        // Else version 2 writes differences of texts.
        properties = properties.set_encoding(Encoding::PLAIN);
    }
    properties.build()
}

/// `nulls`: the level of a value that is not there; those that are have the next.
pub(super) fn write(schema: &str, groups: &[Vec<Values>], which: usize, nulls: i16) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(schema).expect("a schema"));
    let properties = Arc::new(properties(which));
    let writer = SerializedFileWriter::new(Vec::new(), schema, properties);
    let mut writer = writer.expect("a writer");
    for group in groups {
        let mut row_group = writer.next_row_group().expect("a group");
        for values in group {
            let mut column = row_group
                .next_column()
                .expect("a column")
                .expect("one more");
            put(column.untyped(), values, nulls);
            column.close().expect("the end of a column");
        }
        row_group.close().expect("the end of a group");
    }
    writer.into_inner().expect("the end of the file")
}

fn put(writer: &mut ColumnWriter<'_>, values: &Values, nulls: i16) {
    let written = match (writer, values) {
        (ColumnWriter::ByteArrayColumnWriter(writer), Values::Bytes(values)) => {
            let level = |v: &Option<Vec<u8>>| nulls + i16::from(v.is_some());
            let levels: Vec<i16> = values.iter().map(level).collect();
            let values: Vec<ByteArray> = values.iter().flatten().cloned().map(Into::into).collect();
            writer.write_batch(&values, Some(&levels), None)
        }
        (ColumnWriter::Int64ColumnWriter(writer), Values::Longs(values)) => {
            writer.write_batch(values, None, None)
        }
        _ => unreachable!("columns of these two kinds"),
    };
    written.expect("values of the column's kind");
}

/// SST-2 and RTE.
pub(super) fn texts() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let text =
        |texts: &[&str]| Values::Bytes(texts.iter().map(|t| Some(t.as_bytes().to_vec())).collect());
    for which in 0..4 {
        let one = "message m { optional binary sentence (UTF8); required int64 label; }";
        let groups = [vec![
            text(&["a good film", "bad", "", "bad"]),
            Values::Longs(vec![1, 0, 1, 0]),
        ]];
        let file = write(one, &groups, which, 0);
        seeds.push((
            "glue_parquet",
            format!("sst2-{which}"),
            with(&[3, 0], &file),
        ));
    }
    let two = "message m { required int64 idx; optional binary sentence1 (UTF8); optional binary sentence2; \
               required int64 label; }";
    let groups = [
        vec![
            Values::Longs(vec![0]),
            text(&["a man"]),
            text(&["he sleeps"]),
            Values::Longs(vec![-1]),
        ],
        vec![
            Values::Longs(vec![1]),
            text(&["a dog"]),
            text(&["it barks"]),
            Values::Longs(vec![1]),
        ],
    ];
    let file = write(two, &groups, 0, 0);
    seeds.push(("glue_parquet", "rte".to_string(), with(&[0, 2], &file)));
    seeds
}

/// A text word by word, a line in each row.
pub(super) fn words() -> Vec<Seed> {
    let rows = |rows: &[&str]| {
        let bytes = rows.iter().map(|row| Some(row.as_bytes().to_vec()));
        vec![Values::Bytes(bytes.collect())]
    };
    let groups = [
        rows(&[" = the game = \n", ""]),
        rows(&["the <unk> game\nbegan\n"]),
    ];
    let file = write("message m { required binary text (UTF8); }", &groups, 0, 0);
    vec![("word_text", "parquet".to_string(), with(&[2, 0], &file))]
}

/// Pictures as ImageNet's and CIFAR-10's files have them.
pub(super) fn pictures() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for (which, column, side) in [(0, "image", 3), (1, "img", 32)] {
        let schema = format!(
            "message m {{ optional group {column} {{ optional binary bytes; optional binary path (UTF8); }} \
             required int64 label; }}"
        );
        let paths = || Values::Bytes(vec![None, Some(b"a.png".to_vec())]);
        let picture = |n| Some(png(side, n));
        let group = |first| {
            vec![
                Values::Bytes(vec![picture(first), picture(first + 1)]),
                paths(),
                Values::Longs(vec![1, 0]),
            ]
        };
        for properties in [0, 2] {
            let file = write(&schema, &[group(1), group(3)], properties, 1);
            let name = format!("{column}-{properties}");
            seeds.push(("image_parquet", name, with(&[which], &file)));
        }
    }
    seeds
}
