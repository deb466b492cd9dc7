use std::collections::HashMap;

use arrow::array::{
    ArrayRef, Decimal128Array, DictionaryArray, Int64Array, RecordBatch, StringArray,
    StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, TimeUnit};
use proptest::prelude::*;

use super::*;
use crate::engine::ErrorKind;
use crate::engine::schema::{KeySpec, TableName};

/// A definition that uses everything a definition can have.
pub(in crate::engine) fn table_meta(id: u64, name: &str) -> TableMeta {
    let metadata = HashMap::from([("unit".to_owned(), "kelvin".to_owned())]);
    let zone = DataType::Timestamp(TimeUnit::Microsecond, Some("Europe/Zurich".into()));
    let schema = Schema::new(vec![
        Field::new("time", zone, false),
        Field::new("sensor", DataType::Utf8View, true).with_metadata(metadata),
        Field::new("value", DataType::Decimal128(38, 10), true),
        Field::new_list("tags", Field::new("item", DataType::Utf8, true), true),
    ]);
    let key = KeySpec { kind: KeyKind::Cluster, columns: Vec::new() };
    // The key is set by hand: these tests do not depend on which types can be keys.
    let mut table = TableMeta {
        id: TableId(id),
        name: TableName::from(name),
        columns: Vec::new(),
        key_kind: key.kind,
        key: vec![FieldId(1)],
        next_field_id: FieldId(9),
        version: 3,
    };
    for (i, field) in schema.fields().iter().enumerate() {
        table.columns.push(Column {
            id: FieldId(i as u32 * 2 + 1),
            field: Arc::clone(field),
            default_sql: (i == 2).then(|| "1.5 + 2".to_owned()),
            initial: (i == 2).then(|| -> ArrayRef {
                let value = Decimal128Array::from(vec![35_000_000_000]);
                Arc::new(value.with_precision_and_scale(38, 10).unwrap())
            }),
        });
    }
    table
}

pub(in crate::engine) fn assert_same_table(a: &TableMeta, b: &TableMeta) {
    assert_eq!(
        (a.id, &a.name, a.key_kind, &a.key, a.next_field_id, a.version, a.columns.len()),
        (b.id, &b.name, b.key_kind, &b.key, b.next_field_id, b.version, b.columns.len())
    );
    for (a, b) in a.columns.iter().zip(&b.columns) {
        assert_eq!((a.id, &a.field, &a.default_sql), (b.id, &b.field, &b.default_sql));
        assert_eq!(
            a.initial.as_ref().map(|v| v.to_data()),
            b.initial.as_ref().map(|v| v.to_data())
        );
    }
}

pub(in crate::engine) fn any_key() -> impl Strategy<Value = EncodedKey> {
    prop_oneof![
        any::<u64>().prop_map(EncodedKey::U64),
        any::<u128>().prop_map(EncodedKey::U128),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|b| EncodedKey::Bytes(b.into())),
    ]
}

pub(in crate::engine) fn any_keys() -> impl Strategy<Value = KeyColumn> {
    let bytes = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..20);
    prop_oneof![
        prop::collection::vec(any::<u64>(), 0..20).prop_map(KeyColumn::U64),
        prop::collection::vec(any::<u128>(), 0..20).prop_map(KeyColumn::U128),
        (bytes, 0..3_usize).prop_map(|(keys, skip)| {
            let keys = BinaryArray::from_iter_values(&keys);
            let skip = skip.min(keys.len());
            KeyColumn::Bytes(keys.slice(skip, keys.len() - skip))
        }),
    ]
}

pub(in crate::engine) fn any_bitmap(rows: u32) -> impl Strategy<Value = RoaringBitmap> {
    let range = (0..rows, 0..rows).prop_map(|(a, b)| RoaringBitmap::from_iter(a.min(b)..a.max(b)));
    prop_oneof![
        prop::collection::vec(0..rows, 0..50).prop_map(|rows| rows.into_iter().collect()),
        range.prop_map(|mut bitmap| {
            bitmap.optimize();
            bitmap
        }),
    ]
}

pub(in crate::engine) fn any_segment() -> impl Strategy<Value = SegmentMeta> {
    let numbers = any::<(u64, u64, u64, u64, u64, u64, u64, i64)>();
    let small = any::<(u32, u32, u32, f64)>();
    (numbers, small, any_key(), any_key(), any::<Option<(u64, u64)>>()).prop_map(
        |(n, s, min_key, max_key, row_ids)| SegmentMeta {
            id: SegmentId(n.0),
            table: TableId(n.1),
            row_count: 200_000 + n.2 % 1_000_000,
            min_key,
            max_key,
            row_ids,
            row_group_rows: s.0,
            data_bytes: n.3,
            data_crc: s.1,
            index_bytes: n.4,
            index_crc: s.2,
            fields: vec![FieldId(3), FieldId(1), FieldId(0)],
            leaf_count: n.5,
            max_error: n.6,
            mean_error: if s.3.is_nan() { 0.5 } else { s.3 },
            train_nanos: n.6,
            trained_at_micros: n.7,
        },
    )
}

pub(in crate::engine) fn batch(first: i64, rows: usize) -> RecordBatch {
    let time: TimestampMicrosecondArray = (first..).take(rows).map(Some).collect();
    let text = (0..rows).map(|i| (i % 3 != 0).then(|| format!("a longer text, number {i}")));
    let value: Int64Array = (0..rows as i64).map(|i| (i % 5 != 0).then_some(i)).collect();
    RecordBatch::try_from_iter([
        ("time", Arc::new(time.with_timezone("UTC")) as ArrayRef),
        ("text", Arc::new(text.clone().collect::<StringArray>())),
        ("view", Arc::new(text.collect::<StringViewArray>())),
        ("value", Arc::new(value)),
    ])
    .unwrap()
}

#[test]
fn a_definition_comes_back_as_it_was() {
    let table = table_meta(7, "measurements");
    let decoded = decode_table(encode_table(&table).unwrap()).unwrap();
    assert_same_table(&table, &decoded);
}

#[test]
fn a_definition_that_makes_no_sense_is_refused() {
    let good = encode_table(&table_meta(7, "measurements")).unwrap();
    let spoil = |spoil: fn(&mut generated::Table)| {
        let mut table = good.clone();
        spoil(&mut table);
        assert_eq!(decode_table(table).unwrap_err().kind(), ErrorKind::Corruption);
    };
    spoil(|t| t.name = None);
    spoil(|t| t.key_kind = 0);
    spoil(|t| t.key_kind = 99);
    spoil(|t| t.key = vec![2]);
    spoil(|t| t.key = Vec::new());
    spoil(|t| t.columns.truncate(1));
    spoil(|t| t.arrow_schema = Vec::new());
    spoil(|t| t.columns[0].initial = t.columns[2].initial.clone());
}

#[test]
fn batches_come_back_as_they_were() {
    let whole = batch(100, 50);
    let dictionary: DictionaryArray<Int32Type> =
        vec![Some("a"), None, Some("b"), Some("a")].into_iter().collect();
    let dictionary = RecordBatch::try_from_iter([("d", Arc::new(dictionary) as ArrayRef)]).unwrap();
    let field = Field::new("x", DataType::Int64, true)
        .with_metadata(HashMap::from([("PARQUET:field_id".to_owned(), "4".to_owned())]));
    let nothing = RecordBatch::new_empty(Arc::new(Schema::new(vec![field])));
    for batch in [whole.slice(0, 0), whole.slice(13, 20), whole, dictionary, nothing] {
        assert_eq!(decode_batch(encode_batch(&batch).unwrap()).unwrap(), batch);
    }
}

#[test]
fn a_row_of_a_large_batch_takes_little_room() {
    let batch = batch(0, 10_000);
    let bytes = encode_batch(&batch.slice(5_000, 1)).unwrap();
    assert!(bytes.len() < 1_500, "{} bytes", bytes.len());
}

#[test]
fn a_compressed_batch_is_refused_before_it_is_decoded() {
    use arrow::ipc::CompressionType;
    use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
    let batch = batch(0, 1_000);
    let options =
        IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME)).unwrap();
    let mut writer =
        StreamWriter::try_new_with_options(Vec::new(), batch.schema_ref(), options).unwrap();
    writer.write(&batch).unwrap();
    let error = decode_batch(writer.into_inner().unwrap()).unwrap_err();
    assert!(error.message().contains("compressed"), "{error}");
}

proptest! {
    #[test]
    fn segments_keys_and_bitmaps_come_back(
        segment in any_segment(),
        keys in any_keys(),
        bitmap in any_bitmap(300_000),
    ) {
        prop_assert_eq!(&decode_segment(Some(encode_segment(&segment))).unwrap(), &segment);
        let decoded = decode_keys(Some(encode_keys(&keys).unwrap())).unwrap();
        prop_assert_eq!(decoded.len(), keys.len());
        for i in 0..keys.len() {
            prop_assert_eq!(decoded.get(i), keys.get(i));
        }
        prop_assert_eq!(decode_bitmap(&encode_bitmap(&bitmap).unwrap()).unwrap(), bitmap);
    }

    /// Damaged streams end in an error or in some batch, never in a panic.
    #[test]
    fn damaged_batches_do_no_harm(at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = encode_batch(&batch(1, 20)).unwrap();
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] = with;
        }
        if let Err(e) = decode_batch(bytes) {
            prop_assert_eq!(e.kind(), ErrorKind::Corruption);
        }
    }
}

#[test]
fn few_rows_and_many_are_written_alike() {
    let few = batch(5, 200);
    let by_writer = {
        use arrow::ipc::MetadataVersion;
        use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
        let options = IpcWriteOptions::try_new(16, false, MetadataVersion::V5).unwrap();
        let mut writer =
            StreamWriter::try_new_with_options(Vec::new(), few.schema_ref(), options).unwrap();
        writer.write(&few).unwrap();
        writer.into_inner().unwrap()
    };
    for _ in 0..2 {
        assert_eq!(encode_batch(&few).unwrap(), by_writer);
    }
    let schema = |bytes: Vec<u8>| decode_batch(bytes).unwrap().schema();
    assert!(Arc::ptr_eq(&schema(by_writer.clone()), &schema(by_writer)), "a schema is parsed once");
}
