use std::path::Path;
use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::OffsetBuffer;
use arrow::compute::concat_batches;
use arrow::datatypes::*;
use proptest::prelude::*;

use super::*;
use crate::engine::cache::CacheKey;
use crate::engine::error::ErrorKind;
use crate::engine::fs::fault::{Fault, FaultFs, Operation, Repeat};
use crate::engine::key::{KeyCodec, KeyColumn};
use crate::engine::schema::FIELD_ID_KEY;

mod damage;
mod filters;
mod keys;
mod speed;
mod stored_types;

const TABLE: TableId = TableId(7);
const ID: SegmentId = SegmentId(42);

/// A store over a file system in memory.
fn memory_store(cache_bytes: usize) -> (FaultFs, SegmentStore) {
    let fs = FaultFs::new();
    let store = SegmentStore {
        vfs: Arc::new(fs.clone()),
        dir: "/data/tables".into(),
        cache: Arc::new(Cache::new(cache_bytes)),
    };
    store.create_table_dir(TABLE).unwrap();
    (fs, store)
}

/// The same files behind an empty cache.
fn reopened(store: &SegmentStore) -> SegmentStore {
    SegmentStore { cache: Arc::new(Cache::new(64 << 20)), ..store.clone() }
}

/// A schema whose columns have the field ids 1, 2, ...
fn schema(columns: &[(&str, DataType, bool)]) -> SchemaRef {
    let fields = columns.iter().zip(1..).map(|((name, data_type, nullable), id)| {
        Field::new(*name, data_type.clone(), *nullable)
            .with_metadata([(FIELD_ID_KEY.to_owned(), id.to_string())].into())
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

struct Written {
    store: SegmentStore,
    codec: KeyCodec,
    meta: SegmentMeta,
    batch: RecordBatch,
    keys: KeyColumn,
}

impl Written {
    fn open(&self) -> Segment {
        Segment::open(&self.store, self.meta.clone(), &self.codec)
    }

    fn open_cold(&self) -> Segment {
        Segment::open(&reopened(&self.store), self.meta.clone(), &self.codec)
    }
}

fn options(key: &[u32], row_group_rows: usize, compact: bool) -> WriteOptions {
    let key = key.iter().map(|id| FieldId(*id)).collect();
    WriteOptions {
        row_group_rows,
        row_group_bytes: 256 << 20,
        key,
        compact,
        now_micros: 1_700_000_000_000_000,
    }
}

/// Writes `batch`, sorted by its columns `key` (positions), in pieces of `piece` rows.
fn write(
    store: &SegmentStore,
    batch: &RecordBatch,
    key: &[usize],
    options: &WriteOptions,
    piece: usize,
) -> crate::engine::Result<Written> {
    let types: Vec<DataType> = key.iter().map(|i| batch.column(*i).data_type().clone()).collect();
    let codec = KeyCodec::new(&types)?;
    let columns: Vec<ArrayRef> = key.iter().map(|i| batch.column(*i).clone()).collect();
    let keys = codec.encode(&columns)?;
    let mut writer = SegmentWriter::create(store, TABLE, ID, batch.schema(), &codec, options)?;
    for start in (0..batch.num_rows()).step_by(piece) {
        let rows = piece.min(batch.num_rows() - start);
        writer.write(&batch.slice(start, rows), &keys.slice(start, rows))?;
    }
    assert_eq!(writer.row_count(), batch.num_rows() as u64);
    let meta = writer.finish()?;
    store.sync_table_dir(TABLE)?;
    Ok(Written { store: store.clone(), codec, meta, batch: batch.clone(), keys })
}

/// Rows of an event table: a timestamp that repeats, a value with NULLs, text, a list.
fn events(rows: usize) -> RecordBatch {
    let schema = schema(&[
        ("at", DataType::Timestamp(TimeUnit::Second, Some("+02:00".into())), false),
        ("value", DataType::Float64, true),
        ("name", DataType::Utf8, true),
        ("tags", DataType::new_list(DataType::Int32, true), true),
    ]);
    let at = (0..rows as i64).map(|i| 1_700_000_000 + i / 3 * 5);
    let value = (0..rows).map(|i| (i % 7 != 3).then_some(i as f64 * 0.25));
    let name = (0..rows).map(|i| (i % 11 != 5).then(|| format!("name {}", i * 7919 % 1000)));
    let mut tags = ListBuilder::new(Int32Builder::new());
    for i in 0..rows {
        for tag in 0..i % 4 {
            tags.values().append_option((tag != 2).then_some((i + tag) as i32));
        }
        tags.append(i % 13 != 6);
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampSecondArray::from_iter_values(at).with_timezone("+02:00")),
        Arc::new(Float64Array::from_iter(value)),
        Arc::new(StringArray::from_iter(name)),
        Arc::new(tags.finish()),
    ];
    RecordBatch::try_new(schema, columns).unwrap()
}

fn write_events(store: &SegmentStore, rows: usize, group: usize, compact: bool) -> Written {
    write(store, &events(rows), &[0], &options(&[1], group, compact), 1000).unwrap()
}

/// Columns of the whole segment, group after group.
fn read_all(segment: &Segment, batch: &RecordBatch) -> RecordBatch {
    let groups = (0..segment.group_count()).map(|group| {
        let columns = segment
            .meta()
            .fields
            .iter()
            .map(|field| segment.column(*field, group).unwrap().unwrap())
            .collect();
        RecordBatch::try_new(batch.schema(), columns).unwrap()
    });
    concat_batches(&batch.schema(), &groups.collect::<Vec<_>>()).unwrap()
}

#[test]
fn gives_back_what_was_written() {
    for compact in [false, true] {
        let (_, store) = memory_store(64 << 20);
        let written = write_events(&store, 30_000, 10_240, compact);
        let segment = written.open();
        assert_eq!(segment.group_count(), 3);
        assert_eq!(segment.group_rows(2), 20_480..30_000);
        assert_eq!(read_all(&segment, &written.batch), written.batch);
        assert!(segment.is_cached(FieldId(2), 1));
        assert!(segment.column(FieldId(99), 0).unwrap().is_none());
        assert!(segment.column(FieldId(1), 3).is_err());
        segment.verify().unwrap();
        let meta = segment.meta();
        assert_eq!(
            (meta.min_key.clone(), meta.max_key.clone()),
            (written.keys.get(0), written.keys.get(29_999))
        );
        assert_eq!((meta.row_count, meta.row_group_rows), (30_000, 10_240));
        assert_eq!(meta.trained_at_micros, 1_700_000_000_000_000);
    }
}

#[test]
fn checksums_of_the_metadata_are_those_of_the_files() {
    let (fs, store) = memory_store(1 << 20);
    let written = write_events(&store, 20_000, 8192, false);
    let files = fs.files();
    assert_eq!(files, [Path::new("/data/tables/7/42.idx"), Path::new("/data/tables/7/42.parquet")]);
    let (index, data) = (fs.contents(&files[0]).unwrap(), fs.contents(&files[1]).unwrap());
    assert_eq!(
        (written.meta.data_bytes, written.meta.data_crc),
        (data.len() as u64, crc32c::crc32c(&data))
    );
    assert_eq!(
        (written.meta.index_bytes, written.meta.index_crc),
        (index.len() as u64, crc32c::crc32c(&index))
    );
}

#[test]
fn opening_does_no_io_and_a_cached_column_neither() {
    let (fs, store) = memory_store(64 << 20);
    let written = write_events(&store, 5000, 2048, false);
    let before = fs.operation_count();
    let segment = written.open();
    assert_eq!(fs.operation_count(), before);
    let first = segment.column(FieldId(1), 0).unwrap().unwrap();
    let before = fs.operation_count();
    let again = segment.column(FieldId(1), 0).unwrap().unwrap();
    assert_eq!(fs.operation_count(), before);
    assert!(Arc::ptr_eq(&first, &again));
}

#[test]
fn bounds_agree_with_the_sorted_keys() {
    let (_, store) = memory_store(64 << 20);
    // Learned u64, learned u128 and row-encoded keys.
    for key in [&[0][..], &[0, 1], &[2, 0]] {
        let mut batch = events(9000);
        let values =
            batch.column(1).as_primitive::<Float64Type>().iter().map(|v| v.unwrap_or(-1.0));
        let names: Vec<String> = (0..9000).map(|i| format!("n{:04}", i / 4)).collect();
        let columns: Vec<ArrayRef> = vec![
            batch.column(0).clone(),
            Arc::new(Float64Array::from_iter_values(values)),
            Arc::new(StringArray::from(names)),
        ];
        let types = [
            ("at", batch.column(0).data_type().clone(), false),
            ("value", DataType::Float64, false),
            ("name", DataType::Utf8, false),
        ];
        batch = RecordBatch::try_new(schema(&types), columns).unwrap();
        let encoded = KeyCodec::new(
            &key.iter().map(|i| batch.column(*i).data_type().clone()).collect::<Vec<_>>(),
        )
        .unwrap();
        let keys = encoded
            .encode(&key.iter().map(|i| batch.column(*i).clone()).collect::<Vec<_>>())
            .unwrap();
        let order = UInt32Array::from(keys.sort_indices());
        let batch = arrow::compute::take_record_batch(&batch, &order).unwrap();
        let ids: Vec<u32> = key.iter().map(|i| *i as u32 + 1).collect();
        let written = write(&store, &batch, key, &options(&ids, 4096, false), 777).unwrap();
        let segment = written.open();
        let probes: Vec<u32> = (0..9000).step_by(173).rev().collect();
        let (positions, found) = segment.find_batch(&written.keys.take(&probes).unwrap()).unwrap();
        for (i, probe) in probes.iter().enumerate() {
            let key = written.keys.get(*probe as usize);
            assert_eq!(segment.lower_bound(&key).unwrap(), written.keys.lower_bound(&key) as u64);
            assert_eq!(segment.upper_bound(&key).unwrap(), written.keys.upper_bound(&key) as u64);
            assert_eq!(u64::from(positions[i]), segment.lower_bound(&key).unwrap());
            assert!(found[i]);
        }
        let part = segment.keys(100..8000).unwrap();
        assert_eq!(
            (part.len(), part.get(0), part.get(7899)),
            (7900, written.keys.get(100), written.keys.get(7999))
        );
        assert!(segment.keys(0..9001).is_err());
        assert!(segment.keys(5..5).unwrap().is_empty());
        // Absent keys: beyond both ends.
        let last = written.keys.last().unwrap();
        let beyond = match last {
            EncodedKey::U64(k) => KeyColumn::U64(vec![k + 1, 0]),
            EncodedKey::U128(k) => KeyColumn::U128(vec![k + 1, 0]),
            EncodedKey::Bytes(k) => {
                KeyColumn::Bytes(BinaryArray::from_iter_values([[&*k, &[0]].concat(), vec![]]))
            }
        };
        assert_eq!(segment.find_batch(&beyond).unwrap(), (vec![9000, 0], vec![false, false]));
        store.remove(TABLE, ID).unwrap();
    }
}

#[test]
fn take_reads_only_some_pages_and_fills_no_cache_at_first() {
    let (_, store) = memory_store(64 << 20);
    let batch = events(200_000);
    let written = write(&store, &batch, &[0], &options(&[1], 100_000, false), 50_000).unwrap();
    let fields: Vec<FieldId> = written.meta.fields.clone();
    let whole = reopened(&store);
    let segment = Segment::open(&whole, written.meta.clone(), &written.codec);
    let footer_bytes = {
        segment.take(&fields, &[]).unwrap();
        whole.cache.used_bytes()
    };
    for (round, position) in (0..15).zip((0..5).flat_map(|_| [150_123_u32, 150_124, 199_999])) {
        let rows = segment.take(&fields, &[position]).unwrap();
        for (column, expected) in rows.iter().zip(batch.columns()) {
            assert_eq!(column.as_ref().unwrap(), &expected.slice(position as usize, 1));
        }
        assert!(!segment.is_cached(FieldId(1), 1), "round {round}");
    }
    assert_eq!(whole.cache.used_bytes(), footer_bytes);
    segment.take(&[FieldId(1)], &[150_000]).unwrap();
    assert!(segment.is_cached(FieldId(1), 1), "asked for often enough");
    assert!(!segment.is_cached(FieldId(2), 1));
    assert!(!segment.is_cached(FieldId(1), 0));
}

/// Rows of columns of fixed width, as loads write them plain: without NULLs, with some in some pages, and of NULLs alone.
fn numbers(rows: usize) -> RecordBatch {
    let schema = schema(&[
        ("key", DataType::Int64, false),
        ("none", DataType::Float64, true),
        ("some", DataType::Int32, true),
        ("all", DataType::Int64, true),
        ("at", DataType::Timestamp(TimeUnit::Second, None), true),
        ("name", DataType::Utf8, false),
    ]);
    let mixed = |i: &usize| 1_600_000_000_i64.wrapping_mul(*i as i64 * 0x9e37 + 1);
    let some = |i: usize| ((i / 8192).is_multiple_of(2) || i % 5 != 2).then_some(mixed(&i) as i32);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values((0..rows).map(|i| i as i64 * 3))),
        Arc::new(Float64Array::from_iter((0..rows).map(|i| Some(mixed(&i) as f64)))),
        Arc::new(Int32Array::from_iter((0..rows).map(some))),
        Arc::new(Int64Array::new_null(rows)),
        Arc::new(TimestampSecondArray::from_iter(
            (0..rows).map(|i| (i % 3 != 1).then_some(i as i64)),
        )),
        Arc::new(StringArray::from_iter_values((0..rows).map(|i| format!("name {i}")))),
    ];
    RecordBatch::try_new(schema, columns).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn take_of_plain_columns_agrees_with_the_rows(
        mut positions in prop::collection::vec(0u32..60_000, 1..40),
        cluster in 1u32..60_000,
        fields in prop::collection::vec(1u32..7, 1..6),
    ) {
        static WRITTEN: std::sync::OnceLock<Written> = std::sync::OnceLock::new();
        let written = WRITTEN.get_or_init(|| {
            let (_, store) = memory_store(64 << 20);
            write(&store, &numbers(60_000), &[0], &options(&[1], 25_000, false), 19_999).unwrap()
        });
        positions.iter_mut().for_each(|p| *p = 59_999 - *p % cluster);
        positions.sort_unstable();
        let segment = written.open_cold();
        let ids: Vec<FieldId> = fields.iter().map(|field| FieldId(*field)).collect();
        let taken = segment.take(&ids, &positions).unwrap();
        let one = positions[0];
        let mut row = Vec::new();
        segment.row(ids.iter().copied(), one, &mut row).unwrap();
        let rows = UInt32Array::from(positions);
        for (i, field) in fields.iter().enumerate() {
            let column = written.batch.column(*field as usize - 1);
            let expected = arrow::compute::take(column, &rows, None).unwrap();
            prop_assert_eq!(taken[i].as_ref().unwrap(), &expected);
            prop_assert_eq!(row[i].as_ref().unwrap(), &column.slice(one as usize, 1));
        }
    }
}

#[test]
fn take_of_wrong_positions_is_refused() {
    let (_, store) = memory_store(1 << 20);
    let segment = write_events(&store, 100, 64, false).open();
    assert!(segment.take(&[FieldId(1)], &[100]).is_err());
    assert!(segment.take(&[FieldId(1)], &[5, 4]).is_err());
    assert_eq!(segment.take(&[FieldId(1), FieldId(9)], &[]).unwrap()[0].as_ref().unwrap().len(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn take_agrees_with_the_rows(
        mut positions in prop::collection::vec(0u32..40_000, 1..60),
        repeat in any::<bool>(),
        warm in any::<bool>(),
        cluster in 1u32..40_000,
    ) {
        static WRITTEN: std::sync::OnceLock<Written> = std::sync::OnceLock::new();
        let written = WRITTEN.get_or_init(|| {
            let (_, store) = memory_store(64 << 20);
            write(&store, &events(40_000), &[0], &options(&[1], 17_000, true), 9_999).unwrap()
        });
        positions.iter_mut().for_each(|p| *p %= cluster);
        positions.sort_unstable();
        if !repeat {
            positions.dedup();
        }
        let segment = written.open_cold();
        if warm {
            segment.column(FieldId(3), 0).unwrap();
        }
        let fields = [FieldId(4), FieldId(1), FieldId(77), FieldId(3), FieldId(2)];
        let taken = segment.take(&fields, &positions).unwrap();
        prop_assert!(taken[2].is_none());
        let rows = UInt32Array::from(positions);
        for (place, column) in [(0, 3), (1, 0), (3, 2), (4, 1)] {
            let expected = arrow::compute::take(written.batch.column(column), &rows, None).unwrap();
            prop_assert_eq!(taken[place].as_ref().unwrap(), &expected);
        }
    }
}

#[test]
fn every_damaged_block_is_named() {
    let (fs, store) = memory_store(64 << 20);
    let written = write_events(&store, 30_000, 10_240, false);
    let path = Path::new("/data/tables/7/42.parquet");
    let sound = fs.contents(path).unwrap();
    for at in (0..sound.len()).step_by(9973).chain([sound.len() - 1]) {
        let mut damaged = sound.clone();
        damaged[at] ^= 0x10;
        fs.set_contents(path, &damaged);
        let segment = written.open_cold();
        let mut errors = Vec::new();
        for group in 0..segment.group_count() {
            for (field, expected) in written.meta.fields.iter().zip(written.batch.columns()) {
                let rows = segment.group_rows(group);
                match segment.column(*field, group) {
                    Ok(column) => assert_eq!(
                        &column.unwrap(),
                        &expected.slice(rows.start as usize, (rows.end - rows.start) as usize)
                    ),
                    Err(e) => errors.push(e),
                }
            }
        }
        let offset = at / blocks::BLOCK_BYTES * blocks::BLOCK_BYTES;
        assert!(!errors.is_empty(), "offset {at}");
        for e in errors {
            assert_eq!(e.kind(), ErrorKind::Corruption);
            assert!(e.message().contains("42.parquet"), "{e}");
            assert!(e.message().contains(&format!("offset {offset} ")), "{e}");
        }
        assert_eq!(segment.verify().unwrap_err().kind(), ErrorKind::Corruption);
    }
    fs.set_contents(path, &sound[..sound.len() - 1]);
    let error = written.open_cold().column(FieldId(1), 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
}

#[test]
fn a_lost_or_damaged_index_is_rebuilt() {
    let (fs, store) = memory_store(64 << 20);
    let written = write_events(&store, 30_000, 10_240, false);
    let path = Path::new("/data/tables/7/42.idx");
    let sound = fs.contents(path).unwrap();
    let mut damages: Vec<Option<Vec<u8>>> =
        vec![None, Some(Vec::new()), Some(sound[..sound.len() / 2].to_vec())];
    for at in (0..sound.len()).step_by(sound.len() / 23).chain(sound.len() - 80..sound.len()) {
        let mut damaged = sound.clone();
        damaged[at] ^= 1;
        damages.push(Some(damaged));
    }
    for damage in damages {
        match &damage {
            None => store.vfs.remove(path).unwrap(),
            Some(bytes) => fs.set_contents(path, bytes),
        }
        let segment = written.open_cold();
        let key = written.keys.get(12_345);
        assert_eq!(segment.lower_bound(&key).unwrap(), written.keys.lower_bound(&key) as u64);
        assert_eq!(read_all(&segment, &written.batch), written.batch);
        assert_eq!(fs.contents(path).unwrap(), sound, "written anew as it was");
        segment.verify().unwrap();
    }
}

#[test]
fn an_index_is_not_rebuilt_from_a_damaged_file() {
    let (fs, store) = memory_store(64 << 20);
    let written = write_events(&store, 3000, 1024, false);
    let path = Path::new("/data/tables/7/42.parquet");
    let mut damaged = fs.contents(path).unwrap();
    damaged[1000] ^= 1;
    fs.set_contents(path, &damaged);
    store.vfs.remove(Path::new("/data/tables/7/42.idx")).unwrap();
    let segment = written.open_cold();
    for error in [
        segment.column(FieldId(3), 2).unwrap_err(),
        segment.lower_bound(&written.keys.get(0)).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Corruption);
        assert!(error.message().contains("42.parquet"), "{error}");
    }
    assert_eq!(fs.files().len(), 1);
}

#[test]
fn a_newer_index_is_refused() {
    let (fs, store) = memory_store(64 << 20);
    let written = write_events(&store, 300, 1024, false);
    let path = Path::new("/data/tables/7/42.idx");
    let mut newer = fs.contents(path).unwrap();
    let trailer = newer.len() - 80;
    newer[8] = 9;
    newer[trailer + 48] = 9;
    let crc = crc32c::crc32c(&newer[trailer..trailer + 68]);
    newer[trailer + 68..trailer + 72].copy_from_slice(&crc.to_le_bytes());
    fs.set_contents(path, &newer);
    let error = written.open_cold().lower_bound(&written.keys.get(0)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("version 9"), "{error}");
}

#[test]
fn an_index_of_another_segment_is_not_used() {
    let (fs, store) = memory_store(64 << 20);
    let first = write_events(&store, 3000, 1024, false);
    let path = Path::new("/data/tables/7/42.idx");
    let index = fs.contents(path).unwrap();
    store.remove(TABLE, ID).unwrap();
    assert!(fs.files().is_empty());
    let second = write_events(&store, 2000, 1024, false);
    fs.set_contents(path, &index);
    let key = first.keys.get(1500);
    assert_eq!(second.open_cold().lower_bound(&key).unwrap(), second.keys.lower_bound(&key) as u64);
}

#[test]
fn lists_segments_and_removes_unfinished_ones() {
    let (fs, store) = memory_store(1 << 20);
    write_events(&store, 100, 64, false);
    let batch = events(10);
    let codec = KeyCodec::new(&[batch.column(0).data_type().clone()]).unwrap();
    let mut writer = SegmentWriter::create(
        &store,
        TABLE,
        SegmentId(43),
        batch.schema(),
        &codec,
        &options(&[1], 64, false),
    )
    .unwrap();
    assert_eq!(store.list(TABLE).unwrap(), [SegmentId(42), SegmentId(43)]);
    let keys = codec.encode(&[batch.column(0).clone()]).unwrap();
    writer.write(&batch, &keys).unwrap();
    drop(writer);
    assert_eq!(store.list(TABLE).unwrap(), [SegmentId(42)]);
    store.remove(TABLE, ID).unwrap();
    store.remove(TABLE, ID).unwrap();
    assert!(fs.files().is_empty());
}

#[test]
fn groups_cut_by_bytes_may_end_where_a_batch_does() {
    let batch = events(60);
    for piece in [1, 4, 5, 60] {
        for bytes in (60..3000).step_by(60) {
            let (_, store) = memory_store(1 << 20);
            let options = WriteOptions { row_group_bytes: bytes, ..options(&[1], 64, false) };
            let written = write(&store, &batch, &[0], &options, piece).unwrap();
            assert_eq!(written.open().meta().row_count, 60, "{bytes} bytes, {piece} rows a batch");
        }
    }
}

#[test]
fn rows_out_of_order_are_refused() {
    let (_, store) = memory_store(1 << 20);
    let batch = events(30);
    let codec = KeyCodec::new(&[batch.column(0).data_type().clone()]).unwrap();
    let keys = codec.encode(&[batch.column(0).clone()]).unwrap();
    let new = || {
        SegmentWriter::create(&store, TABLE, ID, batch.schema(), &codec, &options(&[1], 64, false))
            .unwrap()
    };
    {
        let mut writer = new();
        writer.write(&batch.slice(10, 5), &keys.slice(10, 5)).unwrap();
        assert!(writer.write(&batch.slice(5, 5), &keys.slice(5, 5)).is_err());
    }
    {
        let reversed = UInt32Array::from((0..30).rev().collect::<Vec<u32>>());
        let backwards = arrow::compute::take_record_batch(&batch, &reversed).unwrap();
        assert!(new().write(&backwards, &keys.take(reversed.values()).unwrap()).is_err());
    }
    assert!(new().write(&batch, &keys.slice(0, 5)).is_err());
    assert!(new().finish().is_err(), "a segment without rows");
}

#[test]
fn hidden_row_ids_are_the_key_of_a_table_without_one() {
    let (_, store) = memory_store(1 << 20);
    let id = |name: &str, data_type, id: u32| {
        Field::new(name, data_type, false)
            .with_metadata([(FIELD_ID_KEY.to_owned(), id.to_string())].into())
    };
    let schema =
        Arc::new(Schema::new(vec![id("v", DataType::Int32, 1), id("row", DataType::UInt64, 0)]));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from_iter_values((0..5000).rev())),
        Arc::new(UInt64Array::from_iter_values(100..5100)),
    ];
    let batch = RecordBatch::try_new(schema, columns).unwrap();
    let written = write(&store, &batch, &[1], &options(&[], 1024, false), 600).unwrap();
    assert_eq!(written.meta.row_ids, Some((100, 5099)));
    store.vfs.remove(Path::new("/data/tables/7/42.idx")).unwrap();
    assert_eq!(written.open_cold().lower_bound(&EncodedKey::U64(4100)).unwrap(), 4000);
}

#[test]
fn every_failing_call_is_an_error_and_leaves_nothing_behind() {
    let attempt = |fs: &FaultFs, store: &SegmentStore| -> crate::engine::Result<()> {
        let written = write(store, &events(20_000), &[0], &options(&[1], 8192, false), 5000)?;
        let segment = Segment::open(&reopened(store), written.meta.clone(), &written.codec);
        segment.lower_bound(&written.keys.get(77))?;
        segment.column(FieldId(4), 1)?;
        segment.take(&[FieldId(2)], &[9000])?;
        let _ = fs;
        Ok(())
    };
    let (fs, store) = memory_store(64 << 20);
    let start = fs.operation_count();
    attempt(&fs, &store).unwrap();
    let calls = fs.operation_count() - start;
    assert!(calls > 20);
    for at in start..start + calls {
        let (fs, store) = memory_store(64 << 20);
        fs.inject(at, Fault::Device, Repeat::Once);
        let (failed, _) = (attempt(&fs, &store), ());
        let struck = fs.trace()[at as usize].0;
        // A failed removal of an unfinished file is only logged, and write-back may be refused.
        match failed {
            Err(e) => assert_eq!(e.kind(), ErrorKind::Io, "{struck:?}: {e}"),
            Ok(()) => panic!("{struck:?} failed unnoticed"),
        }
        if matches!(
            struck,
            Operation::Write | Operation::Sync | Operation::Create | Operation::Rename
        ) {
            assert!(fs.files().is_empty(), "{struck:?}: {:?}", fs.files());
        }
    }
}

#[test]
fn a_full_disk_is_named() {
    let (fs, store) = memory_store(64 << 20);
    // Both files are created, then the rows are written.
    fs.inject(fs.operation_count() + 2, Fault::NoSpace, Repeat::Once);
    let error =
        write(&store, &events(20_000), &[0], &options(&[1], 8192, false), 5000).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
    assert!(error.message().contains("42.parquet.tmp"), "{error}");
}

#[test]
fn the_parquet_file_says_what_it_is() {
    let (fs, store) = memory_store(64 << 20);
    write_events(&store, 30_000, 10_240, false);
    let bytes =
        prost::bytes::Bytes::from(fs.contents(Path::new("/data/tables/7/42.parquet")).unwrap());
    let builder =
        parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    let metadata = builder.metadata();
    assert_eq!(metadata.file_metadata().created_by(), Some("omendb"));
    let groups: Vec<i64> = metadata.row_groups().iter().map(|g| g.num_rows()).collect();
    assert_eq!(groups, [10_240, 10_240, 9520]);
    let group = metadata.row_group(0);
    assert_eq!(group.sorting_columns().unwrap()[0].column_idx, 0);
    assert!(group.column(0).statistics().is_some());
    let at = &metadata.file_metadata().schema_descr().column(0);
    assert_eq!(at.self_type().get_basic_info().id(), 1, "field ids are kept");
    assert_eq!(
        builder.schema().field(0).data_type(),
        &DataType::Timestamp(TimeUnit::Millisecond, Some("+02:00".into()))
    );
    let rows: usize = builder.build().unwrap().map(|batch| batch.unwrap().num_rows()).sum();
    assert_eq!(rows, 30_000);
}
