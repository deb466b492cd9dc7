//! Ranks and equal parts, compared with a sorted list: keys of every form, unique and repeating, over overlapping segments,
//! memtables and deleted rows.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use omendb::engine::{
    EncodedKey, Engine, ErrorKind, KeyRange, KeySpec, OnConflict, RowAddress, ScanRequest,
    TableSnapshot,
};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::small;

/// Key columns made of a number, in its order.
#[derive(Debug, Clone, Copy)]
enum Form {
    One,
    Pair,
    Text,
    Wide,
}

impl Form {
    fn fields(self) -> Vec<Field> {
        let types = match self {
            Self::One => vec![DataType::Int64],
            Self::Pair => vec![DataType::Int32, DataType::Int64],
            Self::Text => vec![DataType::Utf8],
            Self::Wide => vec![DataType::Utf8, DataType::Int64],
        };
        let field = |(i, t)| Field::new(format!("k{i}"), t, false);
        types.into_iter().enumerate().map(field).collect()
    }

    fn columns(self, keys: &[i64]) -> Vec<ArrayRef> {
        let text = || -> ArrayRef {
            let digits = keys.iter().map(|k| format!("key {:06}", k / 10 + 1000));
            Arc::new(StringArray::from_iter_values(digits))
        };
        let low = || Arc::new(Int64Array::from_iter_values(keys.iter().map(|k| k.rem_euclid(10))));
        match self {
            Self::One => vec![Arc::new(Int64Array::from(keys.to_vec()))],
            Self::Pair => {
                let high = keys.iter().map(|k| k.div_euclid(10) as i32);
                vec![Arc::new(Int32Array::from_iter_values(high)), low()]
            }
            Self::Text => {
                let digits = keys.iter().map(|k| format!("{:08}", k + 10_000));
                vec![Arc::new(StringArray::from_iter_values(digits))]
            }
            Self::Wide => vec![text(), low()],
        }
    }
}

#[derive(Debug, Clone)]
struct Case {
    form: Form,
    unique: bool,
    /// Rows of each write; the last few stay in the memtable.
    writes: Vec<Vec<i64>>,
    flushed: usize,
    deleted: Vec<Index>,
    /// Ends of ranges: each pair is one.
    ends: Vec<i64>,
    parts: usize,
    ranks: Vec<Index>,
}

fn case() -> impl Strategy<Value = Case> {
    let form = prop_oneof![Just(Form::One), Just(Form::Pair), Just(Form::Text), Just(Form::Wide)];
    // Few distinct keys make long runs of equal ones.
    let keys = prop_oneof![
        3 => prop::collection::vec(0_i64..2_000, 1..300),
        2 => prop::collection::vec(0_i64..12, 1..200),
        1 => (0_i64..2_000, 1_i64..300).prop_map(|(from, n)| (from..from + n).collect()),
    ];
    (
        form,
        any::<bool>(),
        prop::collection::vec(keys, 1..6),
        0_usize..6,
        prop::collection::vec(any::<Index>(), 0..120),
        prop::collection::vec(-5_i64..2_200, 0..7),
        1_usize..12,
        prop::collection::vec(any::<Index>(), 0..20),
    )
        .prop_map(|(form, unique, writes, flushed, deleted, ends, parts, ranks)| Case {
            form,
            unique,
            writes,
            flushed,
            deleted,
            ends,
            parts,
            ranks,
        })
}

/// A table of the case's rows and its live rows in order: key, and a number that tells rows apart.
fn build(case: &Case) -> (tempfile::TempDir, TableSnapshot, Vec<(i64, i64)>) {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path(), small()).unwrap();
    let mut fields = case.form.fields();
    let names: Vec<String> = fields.iter().map(|f| f.name().clone()).collect();
    fields.push(Field::new("row", DataType::Int64, false));
    let schema = Arc::new(Schema::new(fields));
    let names = names.iter().map(String::as_str).collect::<Vec<_>>();
    let spec = if case.unique { KeySpec::primary(names) } else { KeySpec::cluster(names) };
    engine.create_table("t", &schema, &spec).unwrap();
    let table = engine.table("t").unwrap();
    let mut model: Vec<(i64, i64)> = Vec::new();
    let mut next = 0;
    for (i, keys) in case.writes.iter().enumerate() {
        let rows: Vec<i64> = (next..next + keys.len() as i64).collect();
        next += keys.len() as i64;
        let mut columns = case.form.columns(keys);
        columns.push(Arc::new(Int64Array::from(rows.clone())));
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        engine.write(|txn| txn.insert(table.id(), &batch, OnConflict::Ignore)).unwrap();
        let mut kept: BTreeMap<i64, ()> = model.iter().map(|r| (r.0, ())).collect();
        for (key, row) in keys.iter().zip(rows) {
            if !case.unique || kept.insert(*key, ()).is_none() {
                model.push((*key, row));
            }
        }
        if i < case.flushed {
            engine.flush(None).unwrap();
        }
    }
    model.sort();
    let gone: Vec<i64> = case.deleted.iter().map(|i| i.get(&model).1).collect();
    engine
        .write(|txn| {
            let mut write = txn.write(table.id(), OnConflict::Error)?;
            let rows = read(write.table(), KeyRange::all());
            let gone: Vec<RowAddress> =
                rows.iter().filter(|r| gone.contains(&r.0)).map(|r| r.1).collect();
            write.delete(&gone)?;
            txn.apply(write)
        })
        .unwrap();
    model.retain(|r| !gone.contains(&r.1));
    (dir, table.snapshot().unwrap(), model)
}

/// The numbers and addresses of the rows of a range, by a scan.
fn read(table: &TableSnapshot, range: KeyRange) -> Vec<(i64, RowAddress)> {
    let mut request = ScanRequest::new(range);
    request.row_address = true;
    let mut rows = Vec::new();
    for batch in table.scan(&request).unwrap() {
        let batch = batch.unwrap();
        let last = batch.num_columns() - 1;
        let addresses = batch.column(last).as_any().downcast_ref::<UInt64Array>().unwrap();
        let numbers = batch.column(last - 1).as_primitive::<Int64Type>();
        rows.extend(
            numbers.values().iter().copied().zip(addresses.values().iter().map(|a| RowAddress(*a))),
        );
    }
    rows
}

fn encoded(table: &TableSnapshot, form: Form, key: i64) -> EncodedKey {
    table.codec().encode(&form.columns(&[key])).unwrap().get(0)
}

/// Disjoint ranges between the ends of the case, ascending, in the table and in numbers.
fn ranges(table: &TableSnapshot, case: &Case) -> Vec<(KeyRange, std::ops::Range<i64>)> {
    if case.ends.is_empty() {
        return vec![(KeyRange::all(), i64::MIN..i64::MAX)];
    }
    let mut ends = case.ends.clone();
    ends.sort_unstable();
    let mut ranges = Vec::new();
    for pair in ends.chunks(2) {
        let (low, high) = (pair[0].max(0), pair.get(1).copied().unwrap_or(i64::MAX).max(0));
        let lower = Bound::Included(encoded(table, case.form, low));
        let upper = match pair.get(1) {
            Some(_) => Bound::Excluded(encoded(table, case.form, high)),
            None => Bound::Unbounded,
        };
        ranges.push((KeyRange { lower, upper }, low..high));
    }
    ranges
}

fn check(case: &Case) {
    let (_dir, table, model) = build(case);
    let ranges = ranges(&table, case);
    let within = |row: &&(i64, i64)| ranges.iter().any(|(_, r)| r.contains(&row.0));
    let rows: Vec<(i64, i64)> = model.iter().filter(within).copied().collect();
    let ranges: Vec<KeyRange> = ranges.iter().map(|r| r.0.clone()).collect();

    // Ranks, some of them past the end.
    let mut ranks: Vec<u64> = case.ranks.iter().map(|i| i.index(rows.len() + 3) as u64).collect();
    ranks.sort_unstable();
    ranks.dedup();
    let expected: Vec<(i64, i64)> =
        ranks.iter().filter_map(|r| rows.get(*r as usize).copied()).collect();
    let keys = table.nth_keys(&ranges, &ranks).unwrap();
    let expected_keys: Vec<EncodedKey> =
        expected.iter().map(|r| encoded(&table, case.form, r.0)).collect();
    assert_eq!(keys, expected_keys);
    let addresses = table.nth_rows(&ranges, &ranks).unwrap();
    let taken = table.take(&addresses, None).unwrap();
    let numbers = taken.column(taken.num_columns() - 1).as_primitive::<Int64Type>();
    assert_eq!(numbers.values().to_vec(), expected.iter().map(|r| r.1).collect::<Vec<_>>());
    for range in &ranges {
        let all = read(&table, range.clone());
        for n in [0, all.len() / 2, all.len().saturating_sub(1)] {
            let nth = table.nth_rows(std::slice::from_ref(range), &[n as u64]).unwrap();
            assert_eq!(nth.first(), all.get(n).map(|r| &r.1));
        }
    }

    // All rows of some keys, and how many these are.
    let some: Vec<i64> = (0..2_000).rev().filter(|k| k % 3 < 2).chain([7, 7]).collect();
    let mut expected: Vec<i64> =
        model.iter().filter(|r| r.0 < 2_000 && r.0 % 3 < 2).map(|r| r.1).collect();
    let some = table.codec().encode(&case.form.columns(&some)).unwrap();
    let found = table.take(&table.locate_all(&some).unwrap(), None).unwrap();
    let numbers = found.column(found.num_columns() - 1).as_primitive::<Int64Type>();
    let mut numbers = numbers.values().to_vec();
    numbers.sort_unstable();
    expected.sort_unstable();
    assert_eq!(numbers, expected);
    let points: Vec<KeyRange> = (0..some.len()).map(|i| KeyRange::point(some.get(i))).collect();
    let each = points.iter().map(|range| table.count(range).unwrap()).sum::<u64>();
    assert_eq!(table.count_all(&points).unwrap(), each);

    // Parts: all rows in order, no key in two of them, as equal as keys allow.
    let parts = table.split(&ranges, case.parts).unwrap();
    assert!(parts.len() <= case.parts);
    let mut joined = Vec::new();
    let mut last_key = None;
    for part in &parts {
        let read: Vec<i64> =
            part.ranges.iter().flat_map(|r| read(&table, r.clone())).map(|r| r.0).collect();
        assert_eq!(read.len() as u64, part.row_count);
        assert!(part.row_count > 0);
        for range in &part.ranges {
            assert!(table.count(range).unwrap() > 0, "a range without rows");
        }
        let key = |row: i64| model.iter().find(|r| r.1 == row).unwrap().0;
        assert!(last_key.is_none_or(|last| last < key(read[0])), "a key in two parts");
        last_key = read.last().map(|row| key(*row));
        joined.extend(read);
    }
    assert_eq!(joined, rows.iter().map(|r| r.1).collect::<Vec<_>>());
    let runs = rows.chunk_by(|a, b| a.0 == b.0).map(|run| run.len() as u64);
    let longest = runs.clone().max().unwrap_or(0);
    let share = (rows.len() as u64).div_ceil(case.parts as u64);
    for part in &parts {
        assert!(part.row_count < share + longest.max(1), "{parts:?} of {} rows", rows.len());
    }
    if case.unique {
        assert_eq!(parts.len(), case.parts.min(rows.len()));
        let least = parts.iter().map(|p| p.row_count).min().unwrap_or(0);
        assert!(parts.iter().all(|p| p.row_count <= least + 1), "{parts:?}");
    } else {
        assert!(parts.len() <= runs.count());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn equal_a_sorted_list(case in case()) {
        check(&case);
    }
}

/// Keys in any order, many at once, are found as they are one by one.
fn located_together(form: Form, flushed: usize, ordered: bool) {
    let all: Vec<i64> = (0..12_000).map(|i| if ordered { i } else { i * 7_919 % 12_000 }).collect();
    let case = Case {
        form,
        unique: true,
        writes: all.chunks(3_000).map(<[i64]>::to_vec).collect(),
        flushed,
        deleted: Vec::new(),
        ends: Vec::new(),
        parts: 1,
        ranks: Vec::new(),
    };
    let (_dir, table, _) = build(&case);
    let wanted: Vec<i64> = (0..9_000).map(|i| i * 31 % 13_000).chain([-5, 3, 3]).collect();
    let wanted = table.codec().encode(&form.columns(&wanted)).unwrap();
    let together = table.locate(&wanted).unwrap();
    let one = |i| table.locate_one(&wanted.get(i)).unwrap();
    assert_eq!(together, (0..wanted.len()).map(one).collect::<Vec<_>>());
    let mut each: Vec<RowAddress> = together.into_iter().flatten().collect();
    each.sort_unstable();
    each.dedup();
    assert_eq!(table.locate_all(&wanted).unwrap(), each);
}

#[test]
fn keys_in_any_order_are_located_together() {
    for form in [Form::One, Form::Pair, Form::Text] {
        located_together(form, 4, true);
        located_together(form, 3, false);
        located_together(form, 0, true);
    }
}

#[test]
fn ranks_that_do_not_ascend_are_refused() {
    let case = Case {
        form: Form::One,
        unique: true,
        writes: vec![vec![1, 2, 3]],
        flushed: 1,
        deleted: Vec::new(),
        ends: Vec::new(),
        parts: 2,
        ranks: Vec::new(),
    };
    let (_dir, table, _) = build(&case);
    for ranks in [[1, 1], [2, 0]] {
        let error = table.nth_keys(&[KeyRange::all()], &ranks).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(table.nth_rows(&[KeyRange::all()], &ranks).is_err());
    }
}
