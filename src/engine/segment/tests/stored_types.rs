//! Every type that a column may have comes back as it was declared.

use super::*;

fn ints(n: usize) -> ArrayRef {
    Arc::new(Int32Array::from_iter(
        (0..n as i32).map(|i| (i % 5 != 2).then_some(i * 37 % 101 - 50)),
    ))
}

/// Values of `data_type` made from small integers, NULLs among them.
fn values(data_type: &DataType, rows: usize) -> ArrayRef {
    use DataType::*;
    match data_type {
        Null => Arc::new(NullArray::new(rows)),
        Interval(IntervalUnit::MonthDayNano) => {
            Arc::new(IntervalMonthDayNanoArray::from_iter((0..rows as i32).map(|i| {
                (i % 4 != 1).then_some(IntervalMonthDayNano::new(i, -i, i64::from(i) << 40))
            })))
        }
        Interval(IntervalUnit::DayTime) => Arc::new(IntervalDayTimeArray::from_iter(
            (0..rows as i32).map(|i| (i % 4 != 1).then_some(IntervalDayTime::new(i, i * 1000))),
        )),
        Interval(IntervalUnit::YearMonth) => Arc::new(IntervalYearMonthArray::from_iter(
            (0..rows as i32).map(|i| (i % 4 != 1).then_some(i)),
        )),
        FixedSizeBinary(n) => {
            let bytes = (0..rows).map(|i| (i % 4 != 1).then(|| vec![i as u8; *n as usize]));
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(bytes, *n).unwrap())
        }
        Struct(fields) => {
            let columns = fields.iter().map(|f| values(f.data_type(), rows)).collect();
            let nulls = (0..rows).map(|i| i % 6 != 4).collect::<Vec<_>>();
            Arc::new(StructArray::new(fields.clone(), columns, Some(nulls.into())))
        }
        List(item) => Arc::new(ListArray::new(
            item.clone(),
            OffsetBuffer::from_lengths((0..rows).map(|i| i % 3)),
            values(item.data_type(), (0..rows).map(|i| i % 3).sum()),
            Some((0..rows).map(|i| i % 7 != 6).collect::<Vec<_>>().into()),
        )),
        Map(entries, sorted) => {
            let Struct(fields) = entries.data_type() else { panic!() };
            let total: usize = (0..rows).map(|i| i % 3).sum();
            let keys: ArrayRef =
                Arc::new(StringArray::from_iter_values((0..total).map(|i| format!("k{i}"))));
            let columns = vec![keys, values(fields[1].data_type(), total)];
            Arc::new(MapArray::new(
                entries.clone(),
                OffsetBuffer::from_lengths((0..rows).map(|i| i % 3)),
                StructArray::new(fields.clone(), columns, None),
                None,
                *sorted,
            ))
        }
        FixedSizeList(item, n) => Arc::new(FixedSizeListArray::new(
            item.clone(),
            *n,
            values(item.data_type(), rows * *n as usize),
            None,
        )),
        LargeList(item) | ListView(item) | LargeListView(item) => {
            let list = values(&List(item.clone()), rows);
            arrow::compute::cast(&list, data_type).unwrap()
        }
        Dictionary(_, value) => arrow::compute::cast(&values(value, rows), data_type).unwrap(),
        Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView => {
            arrow::compute::cast(&arrow::compute::cast(&ints(rows), &Utf8).unwrap(), data_type)
                .unwrap()
        }
        Date64 => Arc::new(Date64Array::from_iter((0..rows as i64).map(|i| Some(i * 1001 - 7)))),
        Decimal32(..) | Decimal64(..) | Decimal128(..) | Decimal256(..) | Boolean | Float16 => {
            arrow::compute::cast(&ints(rows), data_type).unwrap()
        }
        primitive => {
            let wide = arrow::compute::cast(&ints(rows), &Int64).unwrap();
            match primitive.primitive_width() {
                Some(8) => arrow::compute::cast(&wide, primitive).unwrap(),
                _ => arrow::compute::cast(&ints(rows), primitive).unwrap(),
            }
        }
    }
}

fn all_types() -> Vec<DataType> {
    use DataType::*;
    let item = |data_type| Arc::new(Field::new("item", data_type, true));
    let seconds = Timestamp(TimeUnit::Second, None);
    let mut types = vec![
        Null,
        Boolean,
        Int8,
        Int16,
        Int32,
        Int64,
        UInt8,
        UInt16,
        UInt32,
        UInt64,
        Float16,
        Float32,
        Float64,
        Date32,
        Date64,
        Utf8,
        LargeUtf8,
        Utf8View,
        Binary,
        LargeBinary,
        BinaryView,
        FixedSizeBinary(3),
        Time32(TimeUnit::Second),
        Time32(TimeUnit::Millisecond),
        Time64(TimeUnit::Microsecond),
        Time64(TimeUnit::Nanosecond),
        Interval(IntervalUnit::YearMonth),
        Interval(IntervalUnit::DayTime),
        Interval(IntervalUnit::MonthDayNano),
        Decimal32(9, 2),
        Decimal64(18, 2),
        Decimal128(38, 10),
        Decimal256(76, 5),
        Dictionary(Box::new(Int32), Box::new(Utf8)),
        Dictionary(Box::new(UInt32), Box::new(LargeBinary)),
        Dictionary(Box::new(Int64), Box::new(Utf8View)),
        Dictionary(Box::new(Int32), Box::new(Int64)),
        List(item(Int32)),
        List(Arc::new(Field::new("odd name", seconds.clone(), true))),
        LargeList(item(Utf8View)),
        ListView(item(Int64)),
        LargeListView(item(Utf8)),
        FixedSizeList(item(Float32), 3),
        Struct(
            vec![Field::new("a", Int64, true), Field::new("b", List(item(Date64)), true)].into(),
        ),
        List(item(Struct(vec![Field::new("x", Utf8, true)].into()))),
        Map(
            Arc::new(Field::new(
                "entries",
                Struct(
                    vec![Field::new("keys", Utf8, false), Field::new("values", seconds, true)]
                        .into(),
                ),
                false,
            )),
            false,
        ),
    ];
    for unit in
        [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond]
    {
        types.push(Timestamp(unit, None));
        types.push(Timestamp(unit, Some("UTC".into())));
        types.push(Timestamp(unit, Some("Asia/Tokyo".into())));
        types.push(Duration(unit));
    }
    types
}

#[test]
fn every_type_comes_back_as_declared() {
    const ROWS: usize = 400;
    for data_type in all_types() {
        for compact in [false, true] {
            check_column_type(&data_type).unwrap_or_else(|e| panic!("{data_type}: {e}"));
            let (_, store) = memory_store(64 << 20);
            let schema = schema(&[("k", DataType::Int64, false), ("v", data_type.clone(), true)]);
            let columns: Vec<ArrayRef> = vec![
                Arc::new(Int64Array::from_iter_values(0..ROWS as i64)),
                values(&data_type, ROWS),
            ];
            let batch = RecordBatch::try_new(schema, columns).unwrap();
            let written = write(&store, &batch, &[0], &options(&[1], 150, compact), 70)
                .unwrap_or_else(|e| panic!("{data_type}: {e:?}"));
            let segment = written.open();
            for group in 0..segment.group_count() {
                let rows = segment.group_rows(group);
                let expected =
                    batch.column(1).slice(rows.start as usize, (rows.end - rows.start) as usize);
                let column = segment
                    .column(FieldId(2), group)
                    .unwrap_or_else(|e| panic!("{data_type}: {e:?}"))
                    .unwrap();
                same(&column, &expected);
            }
            let cold = written.open_cold();
            let taken = cold
                .take(&[FieldId(2)], &[3, 149, 150, 399])
                .unwrap_or_else(|e| panic!("{data_type}: {e:?}"));
            let rows = UInt32Array::from(vec![3, 149, 150, 399]);
            let expected = arrow::compute::take(batch.column(1), &rows, None);
            if let (Ok(expected), Some(taken)) = (expected, &taken[0]) {
                same(taken, &expected);
            }
        }
    }
}

/// Equal in type and in every value; how dictionaries and runs are cut is free.
fn same(found: &ArrayRef, expected: &ArrayRef) {
    assert_eq!(found.data_type(), expected.data_type());
    assert_eq!(found.len(), expected.len());
    let plain = |array: &ArrayRef| match array.data_type() {
        DataType::Dictionary(_, value) => arrow::compute::cast(array, value).unwrap(),
        DataType::ListView(item) => {
            arrow::compute::cast(array, &DataType::List(item.clone())).unwrap()
        }
        DataType::LargeListView(item) => {
            arrow::compute::cast(array, &DataType::LargeList(item.clone())).unwrap()
        }
        _ => array.clone(),
    };
    assert_eq!(&plain(found), &plain(expected));
}

#[test]
fn types_that_cannot_be_kept_are_refused_by_name() {
    use DataType::*;
    let union = UnionFields::try_new([0], [Field::new("a", Int32, true)]).unwrap();
    for refused in [
        Union(union, UnionMode::Dense),
        Decimal128(10, -2),
        Struct(Fields::empty()),
        FixedSizeBinary(0),
        RunEndEncoded(
            Arc::new(Field::new("run_ends", Int32, false)),
            Arc::new(Field::new("values", Int64, true)),
        ),
        Dictionary(Box::new(Int32), Box::new(Timestamp(TimeUnit::Second, None))),
        Dictionary(Box::new(Int8), Box::new(Utf8)),
        List(Arc::new(Field::new("item", Interval(IntervalUnit::MonthDayNano), true))),
    ] {
        let error = check_column_type(&refused).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains(&refused.to_string()), "{error}");
    }
}

#[test]
fn a_timestamp_beyond_what_parquet_holds_is_refused_by_column() {
    let (_, store) = memory_store(1 << 20);
    let schema = schema(&[
        ("k", DataType::Int64, false),
        ("at", DataType::Timestamp(TimeUnit::Second, None), true),
    ]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![1])),
        Arc::new(TimestampSecondArray::from(vec![i64::MAX / 10])),
    ];
    let batch = RecordBatch::try_new(schema, columns).unwrap();
    let error = write(&store, &batch, &[0], &options(&[1], 150, false), 70).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Constraint);
    assert!(error.message().contains("\"at\""), "{error}");
}

/// Writes a file with a column of every type for other readers to try; run by hand with `OMENDB_SAMPLE_DIR`.
#[test]
#[ignore = "writes files for other readers"]
fn sample_for_other_readers() {
    let dir = std::env::var("OMENDB_SAMPLE_DIR").unwrap();
    for compact in [false, true] {
        let store = SegmentStore {
            vfs: Arc::new(crate::engine::fs::OsFs),
            dir: Path::new(&dir).join(if compact { "compact" } else { "load" }),
            cache: Arc::new(Cache::new(1 << 20)),
        };
        store.create_table_dir(TABLE).unwrap();
        let types = all_types();
        let names: Vec<String> = (0..types.len()).map(|i| format!("c{i}")).collect();
        let mut columns = vec![("k", DataType::Int64, false)];
        columns.extend(names.iter().zip(&types).map(|(n, t)| (n.as_str(), t.clone(), true)));
        let schema = schema(&columns);
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(Int64Array::from_iter_values(0..20_000))];
        arrays.extend(types.iter().map(|t| values(t, 20_000)));
        let batch = RecordBatch::try_new(schema, arrays).unwrap();
        write(&store, &batch, &[0], &options(&[1], 8192, compact), 5000).unwrap();
    }
}
