use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute::take;
use arrow::datatypes::*;
use proptest::prelude::*;

use super::*;
use crate::engine::{KeySpec, TableId};

fn cast(array: impl Array + 'static, to: DataType, policy: CastPolicy) -> Result<ArrayRef, String> {
    let array: ArrayRef = Arc::new(array);
    let out = cast_array(&array, &to, policy).map_err(|f| match f {
        Failure::Type => "type".to_owned(),
        Failure::Value { row, reason } => format!("row {row} {reason}"),
        Failure::TooLong { row } => format!("row {row} is too long"),
        Failure::Whole(reason) => reason,
    })?;
    assert_eq!(out.data_type(), &to);
    assert_eq!(out.len(), array.len());
    Ok(out)
}

fn lossless(array: impl Array + 'static, to: DataType) -> Result<ArrayRef, String> {
    cast(array, to, CastPolicy::Lossless)
}

fn assign(array: impl Array + 'static, to: DataType) -> Result<ArrayRef, String> {
    cast(array, to, CastPolicy::Assign)
}

#[test]
fn integers_narrow_where_they_fit_and_name_the_row_where_not() {
    let given = Int64Array::from(vec![Some(1), None, Some(-128)]);
    let out = lossless(given, DataType::Int8).unwrap();
    assert_eq!(out.as_primitive::<Int8Type>(), &Int8Array::from(vec![Some(1), None, Some(-128)]));
    let e = lossless(Int64Array::from(vec![Some(1), None, Some(128)]), DataType::Int8);
    assert_eq!(e.unwrap_err(), "row 2 does not fit");
    let e = lossless(Int64Array::from(vec![0, -1]), DataType::UInt64);
    assert_eq!(e.unwrap_err(), "row 1 does not fit");
    let e = lossless(UInt64Array::from(vec![u64::MAX]), DataType::Int64);
    assert_eq!(e.unwrap_err(), "row 0 does not fit");
}

#[test]
fn integers_become_floats_only_where_exact() {
    let exact = vec![1 << 53, -(1 << 53), i64::MIN];
    assert!(lossless(Int64Array::from(exact), DataType::Float64).is_ok());
    for value in [(1 << 53) + 1, i64::MAX] {
        let e = lossless(Int64Array::from(vec![0, value]), DataType::Float64).unwrap_err();
        assert_eq!(e, "row 1 cannot be held without loss");
        assert!(assign(Int64Array::from(vec![value]), DataType::Float64).is_ok());
    }
    assert!(lossless(Int32Array::from(vec![(1 << 24) + 1]), DataType::Float32).is_err());
}

#[test]
fn floats_become_integers_where_whole_and_are_rounded_on_assignment() {
    let e = lossless(Float64Array::from(vec![2.0, 2.5]), DataType::Int32).unwrap_err();
    assert_eq!(e, "row 1 cannot be held without loss");
    let out = assign(Float64Array::from(vec![2.5, 3.5, -1.5, 0.4]), DataType::Int32).unwrap();
    assert_eq!(out.as_primitive::<Int32Type>().values(), &[2, 4, -2, 0]);
    for bad in [f64::NAN, f64::INFINITY, 3e9] {
        let e = assign(Float64Array::from(vec![0.0, bad]), DataType::Int32).unwrap_err();
        assert_eq!(e, "row 1 does not fit");
    }
    let e = assign(Float64Array::from(vec![1e300]), DataType::Float32).unwrap_err();
    assert_eq!(e, "row 0 does not fit");
    assert!(assign(Float64Array::from(vec![f64::INFINITY, 0.1]), DataType::Float32).is_ok());
    let e = lossless(Float64Array::from(vec![f64::NAN, 0.1]), DataType::Float32).unwrap_err();
    assert_eq!(e, "row 1 cannot be held without loss");
}

#[test]
fn decimals() {
    let cents = |v: Vec<i128>| Decimal128Array::from(v).with_precision_and_scale(10, 2).unwrap();
    let to = DataType::Decimal128(38, 10);
    let out = lossless(cents(vec![123, -5]), to.clone()).unwrap();
    assert_eq!(out.as_primitive::<Decimal128Type>().value(0), 12_300_000_000);
    let e = lossless(cents(vec![120, 123]), DataType::Decimal128(10, 1)).unwrap_err();
    assert_eq!(e, "row 1 cannot be held without loss");
    let out = assign(cents(vec![120, 125]), DataType::Decimal128(10, 1)).unwrap();
    assert_eq!(out.as_primitive::<Decimal128Type>().values(), &[12, 13]);
    let out = assign(cents(vec![250, -250, 999]), DataType::Int64).unwrap();
    assert_eq!(out.as_primitive::<Int64Type>().values(), &[3, -3, 10]);
    assert!(lossless(cents(vec![250]), DataType::Int64).is_err());
    assert!(lossless(cents(vec![300]), DataType::Int64).is_ok());
    let e = assign(Int64Array::from(vec![99, 100]), DataType::Decimal128(4, 2)).unwrap_err();
    assert_eq!(e, "row 1 does not fit");
    let text = StringArray::from(vec!["12345678901234567890.0123456789"]);
    let out = assign(text, to.clone()).unwrap();
    assert_eq!(out.as_primitive::<Decimal128Type>().value(0), 123456789012345678900123456789);
    let e = lossless(StringArray::from(vec!["1.5", "1.00000000001"]), to).unwrap_err();
    assert_eq!(e, "row 1 cannot be held without loss");
}

#[test]
fn timestamps_change_units_where_exact() {
    let us = |tz: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, tz.map(Into::into));
    let out = lossless(TimestampNanosecondArray::from(vec![-1000, 2000]), us(None)).unwrap();
    assert_eq!(out.as_primitive::<TimestampMicrosecondType>().values(), &[-1, 2]);
    let e = lossless(TimestampNanosecondArray::from(vec![1000, 1]), us(None)).unwrap_err();
    assert_eq!(e, "row 1 cannot be held without loss");
    assert!(assign(TimestampNanosecondArray::from(vec![1]), us(None)).is_ok());
    let e = lossless(
        TimestampSecondArray::from(vec![0, i64::MAX / 1000]),
        DataType::Timestamp(TimeUnit::Nanosecond, None),
    );
    assert_eq!(e.unwrap_err(), "row 1 does not fit");
    // The instant stays where the zone changes.
    let berlin = TimestampMicrosecondArray::from(vec![7]).with_timezone("Europe/Berlin");
    let out = lossless(berlin.clone(), us(Some("UTC"))).unwrap();
    assert_eq!(out.as_primitive::<TimestampMicrosecondType>().value(0), 7);
    assert_eq!(lossless(berlin.clone(), us(None)).unwrap_err(), "type");
    assert!(assign(berlin, us(None)).is_ok());
    let utc = TimestampMillisecondArray::from(vec![7]).with_timezone("UTC");
    let out = lossless(utc, us(None)).unwrap();
    assert_eq!(out.as_primitive::<TimestampMicrosecondType>().value(0), 7000);
    let out =
        lossless(TimestampMicrosecondArray::from(vec![7]), us(Some("Europe/Berlin"))).unwrap();
    assert_eq!(out.as_primitive::<TimestampMicrosecondType>().value(0), 7);
}

#[test]
fn dates_and_times() {
    let us = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let out = lossless(Date32Array::from(vec![1]), us.clone()).unwrap();
    assert_eq!(out.as_primitive::<TimestampMicrosecondType>().value(0), 86_400_000_000);
    let noon = TimestampMicrosecondArray::from(vec![0, 43_200_000_000]);
    let e = lossless(noon.clone(), DataType::Date32).unwrap_err();
    assert_eq!(e, "row 1 cannot be held without loss");
    let out = assign(noon, DataType::Date32).unwrap();
    assert_eq!(out.as_primitive::<Date32Type>().values(), &[0, 0]);
    let e = lossless(
        Date32Array::from(vec![i32::MAX]),
        DataType::Timestamp(TimeUnit::Nanosecond, None),
    );
    assert!(e.is_err());
    let e = lossless(Time64MicrosecondArray::from(vec![1]), DataType::Time32(TimeUnit::Second));
    assert_eq!(e.unwrap_err(), "row 0 cannot be held without loss");
    assert_eq!(lossless(Int64Array::from(vec![1]), us.clone()).unwrap_err(), "type");
    assert_eq!(assign(Int64Array::from(vec![1]), us).unwrap_err(), "type");
    assert_eq!(assign(BooleanArray::from(vec![true]), DataType::Int32).unwrap_err(), "type");
}

#[test]
fn text_is_read() {
    let us = DataType::Timestamp(TimeUnit::Microsecond, None);
    let out = assign(StringArray::from(vec!["1970-01-01 00:00:01"]), us.clone()).unwrap();
    assert_eq!(out.as_primitive::<TimestampMicrosecondType>().value(0), 1_000_000);
    let e =
        assign(StringArray::from(vec![Some("1970-01-01"), None, Some("soon")]), us).unwrap_err();
    assert_eq!(e, "row 2 cannot be read as this type");
    let e = assign(StringArray::from(vec!["300"]), DataType::Int8).unwrap_err();
    assert_eq!(e, "row 0 cannot be read as this type");
    let out = assign(StringArray::from(vec!["\\xDEad", "\\x"]), DataType::Binary).unwrap();
    assert_eq!(out.as_binary::<i32>().value(0), [0xde, 0xad]);
    assert_eq!(out.as_binary::<i32>().value(1), [0u8; 0]);
    let e = assign(StringArray::from(vec!["\\xab", "\\xa"]), DataType::Binary).unwrap_err();
    assert_eq!(e, "row 1 is not hexadecimal");
    let e = lossless(BinaryArray::from(vec![b"a".as_ref(), b"\xff"]), DataType::Utf8).unwrap_err();
    assert_eq!(e, "row 1 is not UTF-8");
    let out = assign(Int64Array::from(vec![42]), DataType::Utf8).unwrap();
    assert_eq!(out.as_string::<i32>().value(0), "42");
}

#[test]
fn encodings_are_unwrapped() {
    let dictionary: DictionaryArray<Int32Type> =
        vec![Some("b"), None, Some("a"), Some("b")].into_iter().collect();
    let out = lossless(dictionary, DataType::Utf8).unwrap();
    let wanted = StringArray::from(vec![Some("b"), None, Some("a"), Some("b")]);
    assert_eq!(out.as_string::<i32>(), &wanted);
    // A value that no row uses must not matter; one that a row uses is named.
    let values = Int64Array::from(vec![1, 1000]);
    let unused = DictionaryArray::new(Int8Array::from(vec![0, 0]), Arc::new(values.clone()));
    assert!(lossless(unused, DataType::Int8).is_ok());
    let used = DictionaryArray::new(Int8Array::from(vec![0, 1]), Arc::new(values));
    assert_eq!(lossless(used, DataType::Int8).unwrap_err(), "row 1 does not fit");
    let runs = RunArray::<Int32Type>::try_new(
        &Int32Array::from(vec![2, 3]),
        &Int64Array::from(vec![5, 6]),
    )
    .unwrap();
    let out = lossless(runs, DataType::Int32).unwrap();
    assert_eq!(out.as_primitive::<Int32Type>().values(), &[5, 5, 6]);
    let views = StringViewArray::from(vec![Some("x"), None]);
    assert_eq!(lossless(views, DataType::Utf8).unwrap().null_count(), 1);
    assert_eq!(lossless(NullArray::new(3), DataType::Int64).unwrap().null_count(), 3);
}

#[test]
fn nested_values_are_cast_and_the_outer_row_is_named() {
    let item = |t| Arc::new(Field::new_list_field(t, true));
    let list = LargeListArray::new(
        item(DataType::Int64),
        OffsetBuffer::new(vec![0, 1, 3].into()),
        Arc::new(Int64Array::from(vec![1, 2, 300])),
        None,
    );
    let out = lossless(list.clone(), DataType::List(item(DataType::Int16))).unwrap();
    assert_eq!(out.as_list::<i32>().value(1).as_primitive::<Int16Type>().values(), &[2, 300]);
    let e = lossless(list.clone(), DataType::List(item(DataType::Int8))).unwrap_err();
    assert_eq!(e, "row 1 does not fit");
    let e = lossless(list.slice(1, 1), DataType::List(item(DataType::Int8))).unwrap_err();
    assert_eq!(e, "row 0 does not fit");
    let fields = Fields::from(vec![
        Field::new("a", DataType::Int8, true),
        Field::new("b", DataType::Utf8, true),
    ]);
    let given = StructArray::from(vec![(
        Arc::new(Field::new("a", DataType::Int64, true)),
        Arc::new(Int64Array::from(vec![1])) as ArrayRef,
    )]);
    let out = lossless(given, DataType::Struct(fields)).unwrap();
    assert_eq!(out.as_struct().column(1).null_count(), 1);
}

fn table() -> TableMeta {
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("small", DataType::Int8, true),
        Field::new("name", DataType::Utf8, false),
    ]);
    TableMeta {
        key: Vec::new(),
        ..TableMeta::new(TableId(1), "t".into(), &schema, &KeySpec::row_id()).unwrap()
    }
}

fn no_default(_: usize) -> super::Result<ColumnDefault> {
    Ok(ColumnDefault::Constant(ScalarValue::Null))
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true)))
        .unwrap()
}

#[test]
fn batches_match_by_name_and_take_defaults() {
    let meta = table();
    let given = batch(vec![
        ("name", Arc::new(StringViewArray::from(vec!["a", "b"]))),
        ("id", Arc::new(Int32Array::from(vec![1, 2]))),
    ]);
    let default = |_| Ok(ColumnDefault::Constant(ScalarValue::Int8(Some(7))));
    let mut caster =
        BatchCaster::by_name(&meta, &given.schema(), CastPolicy::Lossless, default).unwrap();
    let out = caster.cast(&given).unwrap();
    assert_eq!(out.schema(), meta.arrow_schema());
    assert_eq!(out.column(1).as_primitive::<Int8Type>().values(), &[7, 7]);
}

#[test]
fn errors_name_table_column_row_and_value() {
    let meta = table();
    let given = |small: i64, name: Option<&str>| {
        batch(vec![
            ("id", Arc::new(Int64Array::from(vec![1]))),
            ("small", Arc::new(Int64Array::from(vec![small]))),
            ("name", Arc::new(StringArray::from(vec![name]))),
        ])
    };
    let mut caster =
        BatchCaster::by_name(&meta, &given(1, None).schema(), CastPolicy::Lossless, no_default)
            .unwrap();
    caster.cast(&given(1, Some("x"))).unwrap();
    let e = caster.cast(&given(1000, Some("x"))).unwrap_err();
    assert_eq!(e.code(), Code::NumericValueOutOfRange);
    for part in ["public.t", "\"small\"", "row 2", "1000"] {
        assert!(e.to_string().contains(part), "{e} lacks {part}");
    }
    let e = caster.cast(&given(1, None)).unwrap_err();
    assert_eq!(e.code(), Code::NotNullViolation);
    assert!(e.to_string().contains("\"name\"") && e.to_string().contains("row 2"), "{e}");

    let unknown = batch(vec![("nam", Arc::new(Int64Array::from(vec![1])))]);
    let e = BatchCaster::by_name(&meta, &unknown.schema(), CastPolicy::Lossless, no_default)
        .unwrap_err();
    assert!(e.to_string().contains("\"nam\"") && e.to_string().contains("\"small\""), "{e}");
}

#[test]
fn stored_types_are_plain() {
    let schema = Schema::new(vec![
        Field::new(
            "d",
            DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8View)),
            false,
        ),
        Field::new("n", DataType::Null, true),
    ]);
    let plain = storable_schema(&schema).unwrap();
    assert_eq!(plain.field(0), &Field::new("d", DataType::Utf8, false));
    assert_eq!(plain.field(1).data_type(), &DataType::Utf8);
    let interval = DataType::Interval(IntervalUnit::MonthDayNano);
    let e = storable_schema(&Schema::new(vec![Field::new("i", interval, true)])).unwrap_err();
    assert!(e.to_string().contains("\"i\""), "{e}");
}

proptest! {
    /// Whatever the numbers and types: a lossless cast is refused, or can be undone.
    #[test]
    fn lossless_number_casts_can_be_undone(
        values in prop::collection::vec(prop::option::of(prop_oneof![
            any::<i64>(), -300i64..300, Just(i64::MAX), Just(i64::MIN), Just(1i64 << 53),
        ]), 0..20),
        to in prop::sample::select(vec![
            DataType::Int8, DataType::Int16, DataType::Int32, DataType::UInt8, DataType::UInt64,
            DataType::Float32, DataType::Float64, DataType::Decimal128(38, 10),
            DataType::Decimal128(10, 2), DataType::Utf8,
        ]),
    ) {
        let given = Int64Array::from(values);
        let cast = lossless(given.clone(), to.clone());
        let fits = |v: i64| match &to {
            DataType::Int8 => i8::try_from(v).is_ok(),
            DataType::Int16 => i16::try_from(v).is_ok(),
            DataType::Int32 => i32::try_from(v).is_ok(),
            DataType::UInt8 => u8::try_from(v).is_ok(),
            DataType::UInt64 => u64::try_from(v).is_ok(),
            DataType::Float32 => i128::from(v) == v as f32 as i128,
            DataType::Float64 => i128::from(v) == v as f64 as i128,
            DataType::Decimal128(10, 2) => v.unsigned_abs() < 100_000_000,
            _ => true,
        };
        prop_assert_eq!(cast.is_ok(), given.iter().flatten().all(fits), "{:?}", cast);
        if let Ok(cast) = cast {
            let back = arrow::compute::cast(&cast, &DataType::Int64).unwrap();
            prop_assert_eq!(back.as_primitive::<Int64Type>(), &given);
        }
    }
}

/// A few bytes that stand for many: each batch is cast in pieces, and one array that would take too much is refused.
#[test]
fn what_a_few_bytes_stand_for_is_reckoned_before_it_is_written_out() {
    let wide = "x".repeat(1 << 20);
    let keys = Int32Array::from(vec![0; 400]);
    let shared =
        DictionaryArray::<Int32Type>::new(keys, Arc::new(StringArray::from(vec![wide.as_str()])));
    let e = lossless(shared.clone(), DataType::Utf8).unwrap_err();
    assert!(e.contains("send fewer rows"), "{e}");
    let runs = RunArray::<Int32Type>::try_new(
        &Int32Array::from(vec![i32::MAX]),
        &StringArray::from(vec![wide.as_str()]),
    );
    assert!(lossless(runs.unwrap(), DataType::Utf8).is_err());
    let views = StringViewArray::from(vec![wide.as_str()]);
    let views = take(&views, &UInt32Array::from(vec![0; 400]), None).unwrap();
    assert!(lossless(views.as_string_view().clone(), DataType::Utf8).is_err());
    let item = Arc::new(Field::new_list_field(DataType::Int64, true));
    let lists = ListViewArray::new(
        item,
        ScalarBuffer::from(vec![0; 100_000]),
        ScalarBuffer::from(vec![1000; 100_000]),
        Arc::new(Int64Array::from_iter_values(0..1000)),
        None,
    );
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)));
    assert!(lossless(lists.clone(), list.clone()).is_err());
    assert!(lossless(lists.slice(0, 10), list).is_ok());
    let nulls = NullArray::new(1 << 20);
    assert!(lossless(nulls.clone(), DataType::FixedSizeBinary(i32::MAX)).is_err());
    assert!(lossless(nulls, DataType::FixedSizeBinary(8)).is_ok());

    let meta = table();
    let given = batch(vec![
        ("id", Arc::new(Int32Array::from_iter_values(0..400))),
        ("name", Arc::new(shared)),
    ]);
    let mut caster =
        BatchCaster::by_name(&meta, &given.schema(), CastPolicy::Lossless, no_default).unwrap();
    let (mut rows, mut pieces) = (0, 0);
    caster
        .cast_each(&given, |piece| {
            assert!(piece.num_rows() <= 64);
            let ids = piece.column(0).as_primitive::<Int64Type>();
            assert_eq!(ids.value(0), rows as i64);
            (rows, pieces) = (rows + piece.num_rows(), pieces + 1);
            Ok(())
        })
        .unwrap();
    assert!(rows == 400 && pieces >= 7, "{rows} rows in {pieces} pieces");
    caster
        .cast_each(&given.slice(0, 0), |piece| {
            assert_eq!(piece.num_rows(), 0);
            Ok(())
        })
        .unwrap();
}

#[test]
fn defaults_and_values_have_a_limit() {
    let meta = table();
    let given = batch(vec![("id", Arc::new(Int64Array::from_iter_values(0..600)))]);
    let default = |_| Ok(ColumnDefault::Constant(ScalarValue::from("x".repeat(1 << 20))));
    let small = |column| match column {
        1 => no_default(1),
        _ => default(column),
    };
    let mut caster =
        BatchCaster::by_name(&meta, &given.schema(), CastPolicy::Assign, small).unwrap();
    let e = caster.cast(&given).unwrap_err();
    assert!(e.to_string().contains("insert fewer rows"), "{e}");
    let mut rows = 0;
    caster
        .cast_each(&given, |piece| {
            rows += piece.num_rows();
            Ok(())
        })
        .unwrap();
    assert_eq!(rows, 600);
    let long = "x".repeat((64 << 20) + 1);
    let given = batch(vec![
        ("id", Arc::new(Int64Array::from(vec![1]))),
        ("name", Arc::new(StringArray::from(vec![long]))),
    ]);
    let mut caster =
        BatchCaster::by_name(&meta, &given.schema(), CastPolicy::Assign, no_default).unwrap();
    let e = caster.cast(&given).unwrap_err();
    assert!(e.to_string().contains("the most that one may take"), "{e}");
}
