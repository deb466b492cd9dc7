use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use arrow::array::*;
use arrow::compute::{SortColumn, lexsort_to_indices, take};
use arrow::datatypes::*;
use proptest::prelude::*;

use super::*;
use crate::engine::error::ErrorKind;

/// Types of keys, one or more of each kind of encoding.
fn key_type() -> impl Strategy<Value = DataType> {
    use DataType::*;
    prop_oneof![
        3 => prop::sample::select(vec![
            Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64, Float32, Float64, Date32, Boolean,
        ]),
        1 => prop::sample::select(vec![
            Date64,
            Time32(TimeUnit::Second),
            Time32(TimeUnit::Millisecond),
            Time64(TimeUnit::Microsecond),
            Time64(TimeUnit::Nanosecond),
            Timestamp(TimeUnit::Second, None),
            Timestamp(TimeUnit::Millisecond, Some("+02:00".into())),
            Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Timestamp(TimeUnit::Nanosecond, None),
            Duration(TimeUnit::Second),
            Duration(TimeUnit::Nanosecond),
            Decimal32(9, 2),
            Decimal64(18, 3),
            Decimal128(38, 10),
        ]),
        1 => prop::sample::select(vec![
            Utf8, LargeUtf8, Utf8View, Binary, LargeBinary, BinaryView, FixedSizeBinary(5),
        ]),
    ]
}

/// An array of `data_type` made from arbitrary numbers; small ones, so that keys repeat, and extreme ones.
fn column(data_type: &DataType, seeds: &[i64]) -> ArrayRef {
    use DataType::*;
    let bytes = |s: &i64| -> Vec<u8> {
        let text = format!("{s}");
        // Long enough for several blocks of the row encoding, with zeros and 0xff inside.
        let mut out = text.repeat((*s as usize) % 9).into_bytes();
        out.extend_from_slice(&[0u8, 0xff][..(*s as usize) % 3 % 2 + usize::from(*s % 5 == 0) % 2]);
        out
    };
    let text = |s: &i64| format!("{s}ß").repeat((*s as usize) % 9);
    match data_type {
        Boolean => Arc::new(BooleanArray::from_iter(seeds.iter().map(|s| Some(s & 1 == 1)))),
        Float32 => Arc::new(Float32Array::from_iter_values(seeds.iter().map(|s| float(*s) as f32))),
        Float64 => Arc::new(Float64Array::from_iter_values(seeds.iter().map(|s| float(*s)))),
        Utf8 => Arc::new(StringArray::from_iter_values(seeds.iter().map(text))),
        LargeUtf8 => Arc::new(LargeStringArray::from_iter_values(seeds.iter().map(text))),
        Utf8View => Arc::new(StringViewArray::from_iter_values(seeds.iter().map(text))),
        Binary => Arc::new(BinaryArray::from_iter_values(seeds.iter().map(bytes))),
        LargeBinary => Arc::new(LargeBinaryArray::from_iter_values(seeds.iter().map(bytes))),
        BinaryView => Arc::new(BinaryViewArray::from_iter_values(seeds.iter().map(bytes))),
        FixedSizeBinary(n) => Arc::new(
            FixedSizeBinaryArray::try_from_iter(
                seeds.iter().map(|s| s.to_be_bytes()[8 - *n as usize..].to_vec()),
            )
            .unwrap(),
        ),
        Decimal128(_, _) => Arc::new(
            Decimal128Array::from_iter_values(seeds.iter().map(|s| i128::from(*s) << (s & 63)))
                .with_data_type(data_type.clone()),
        ),
        other => {
            // Reinterprets the low bytes, so that every bit pattern of the type occurs.
            let width = other.primitive_width().unwrap();
            let values: Vec<u8> =
                seeds.iter().flat_map(|s| s.to_le_bytes()[..width].to_vec()).collect();
            let data = ArrayData::builder(other.clone())
                .len(seeds.len())
                .add_buffer(values.into())
                .align_buffers(true)
                .build()
                .unwrap();
            make_array(data)
        }
    }
}

fn float(seed: i64) -> f64 {
    match seed {
        0 => -0.0,
        1 => 0.0,
        2 => f64::INFINITY,
        3 => f64::NEG_INFINITY,
        4 => f64::MIN_POSITIVE / 8.0,
        s => s as f64 / 3.0,
    }
}

fn seed() -> impl Strategy<Value = i64> {
    prop_oneof![4 => -3i64..6, 1 => any::<i64>(), 1 => Just(i64::MIN), 1 => Just(i64::MAX)]
}

/// What `decode` gives back: -0 as +0.
fn positive_zeros(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float32 => {
            Arc::new(column.as_primitive::<Float32Type>().unary::<_, Float32Type>(|v| v + 0.0))
        }
        DataType::Float64 => {
            Arc::new(column.as_primitive::<Float64Type>().unary::<_, Float64Type>(|v| v + 0.0))
        }
        _ => Arc::clone(column),
    }
}

/// Compares two rows value by value, as Arrow does.
fn compare_values(columns: &[ArrayRef], i: usize, j: usize) -> Ordering {
    columns.iter().fold(Ordering::Equal, |order, c| {
        order.then_with(|| arrow::array::make_comparator(c, c, Default::default()).unwrap()(i, j))
    })
}

fn key_columns() -> impl Strategy<Value = (Vec<DataType>, Vec<ArrayRef>)> {
    (prop::collection::vec(key_type(), 1..4), 1usize..24).prop_flat_map(|(types, rows)| {
        prop::collection::vec(prop::collection::vec(seed(), rows), types.len()).prop_map(
            move |seeds| {
                let columns =
                    types.iter().zip(&seeds).map(|(t, s)| positive_zeros(&column(t, s))).collect();
                (types.clone(), columns)
            },
        )
    })
}

proptest! {
    #[test]
    fn order_of_encodings_is_order_of_values((types, columns) in key_columns()) {
        let codec = KeyCodec::new(&types).unwrap();
        let keys = codec.encode(&columns).unwrap();
        prop_assert_eq!(keys.form(), codec.form());
        for i in 0..keys.len() {
            for j in 0..keys.len() {
                let expected = compare_values(&columns, i, j);
                prop_assert_eq!(compare(&keys, i, &keys, j), expected);
                prop_assert_eq!(keys.get(i).cmp(&keys.get(j)), expected);
            }
        }
    }

    #[test]
    fn decode_gives_back_what_was_encoded((types, columns) in key_columns()) {
        let codec = KeyCodec::new(&types).unwrap();
        let decoded = codec.decode(&codec.encode(&columns).unwrap()).unwrap();
        prop_assert_eq!(decoded, columns);
    }

    #[test]
    fn range_is_the_naive_filter(
        (types, columns) in key_columns(),
        prefix_len in 0usize..3,
        pick in (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        kinds in (0u8..3, 0u8..3),
    ) {
        let codec = KeyCodec::new(&types).unwrap();
        let keys = codec.encode(&columns).unwrap();
        let rows = keys.len();
        let prefix_len = prefix_len.min(types.len());
        let bounded = prefix_len < types.len();
        let (p, low, high) = (pick.0.index(rows), pick.1.index(rows), pick.2.index(rows));
        let prefix: Vec<ArrayRef> = columns[..prefix_len].iter().map(|c| c.slice(p, 1)).collect();
        let bound = |kind: u8, row: usize| match kind {
            0 => Bound::Unbounded,
            _ if !bounded => Bound::Unbounded,
            1 => Bound::Included(columns[prefix_len].slice(row, 1)),
            _ => Bound::Excluded(columns[prefix_len].slice(row, 1)),
        };
        let (lower, upper) = (bound(kinds.0, low), bound(kinds.1, high));
        let range = codec.range(&prefix, lower.clone(), upper.clone()).unwrap();
        let mut any = false;
        for row in 0..rows {
            let mut inside = compare_values(&columns[..prefix_len], row, p) == Ordering::Equal;
            if bounded {
                let next = &columns[prefix_len..=prefix_len];
                inside &= match lower {
                    Bound::Included(_) => compare_values(next, row, low).is_ge(),
                    Bound::Excluded(_) => compare_values(next, row, low).is_gt(),
                    Bound::Unbounded => true,
                };
                inside &= match upper {
                    Bound::Included(_) => compare_values(next, row, high).is_le(),
                    Bound::Excluded(_) => compare_values(next, row, high).is_lt(),
                    Bound::Unbounded => true,
                };
            }
            prop_assert_eq!(range.contains(&keys.get(row)), inside, "row {} of {:?}", row, range);
            any |= inside;
        }
        prop_assert!(!(any && range.is_empty()));
    }

    #[test]
    fn sort_indices_is_the_stable_sort((types, columns) in key_columns()) {
        let codec = KeyCodec::new(&types).unwrap();
        let keys = codec.encode(&columns).unwrap();
        let mut expected: Vec<u32> = (0..keys.len() as u32).collect();
        expected.sort_by(|a, b| compare_values(&columns, *a as usize, *b as usize));
        prop_assert_eq!(keys.sort_indices(), expected.clone());
        let sorted = keys.take(&expected).unwrap();
        prop_assert!(sorted.is_sorted());
        prop_assert_eq!(sorted.is_strictly_sorted(), sorted.first_repeat().is_none());
        // Bounds of every key, and of keys between, against a count.
        for i in 0..keys.len() {
            let key = keys.get(i);
            let below = (0..keys.len()).filter(|j| keys.get(*j) < key).count();
            let not_above = (0..keys.len()).filter(|j| keys.get(*j) <= key).count();
            prop_assert_eq!(sorted.lower_bound(&key), below);
            prop_assert_eq!(sorted.upper_bound(&key), not_above);
        }
        let ends = sorted.last_of_runs();
        let distinct: std::collections::BTreeSet<_> = (0..keys.len()).map(|i| keys.get(i)).collect();
        prop_assert_eq!(ends.len(), distinct.len());
        for (end, key) in ends.iter().zip(&distinct) {
            prop_assert_eq!(sorted.upper_bound(key), *end as usize + 1);
        }
    }

    #[test]
    fn radix_sorts_as_comparison_does(
        seeds in prop::collection::vec(any::<u64>(), 500..2000), shift in 0u32..60, mask in any::<u64>(),
    ) {
        let narrow: Vec<u64> = seeds.iter().map(|s| (s & mask) >> shift).collect();
        let mut expected: Vec<u32> = (0..narrow.len() as u32).collect();
        expected.sort_by_key(|i| narrow[*i as usize]);
        prop_assert_eq!(KeyColumn::U64(narrow).sort_indices(), expected);
        let wide: Vec<u128> = seeds.iter().map(|s| u128::from(s & mask) << shift | 1 << 127).collect();
        let mut expected: Vec<u32> = (0..wide.len() as u32).collect();
        expected.sort_by_key(|i| wide[*i as usize]);
        prop_assert_eq!(KeyColumn::U128(wide).sort_indices(), expected);
    }

    #[test]
    fn intersect_is_the_conjunction(a in number_range(), b in number_range()) {
        let both = a.intersect(&b);
        for k in (0..12).chain([u64::MAX - 1, u64::MAX]) {
            let key = EncodedKey::U64(k);
            prop_assert_eq!(both.contains(&key), a.contains(&key) && b.contains(&key));
        }
        let some = (0..12).chain([u64::MAX - 1, u64::MAX]).any(|k| both.contains(&EncodedKey::U64(k)));
        // Between 11 and MAX - 1 there are keys too, so that only one direction holds in general.
        prop_assert!(!(some && both.is_empty()));
    }
}

fn number_range() -> impl Strategy<Value = KeyRange> {
    let bound = || {
        (0u8..3, prop_oneof![0u64..10, Just(u64::MAX)]).prop_map(|(kind, key)| match kind {
            0 => Bound::Unbounded,
            1 => Bound::Included(EncodedKey::U64(key)),
            _ => Bound::Excluded(EncodedKey::U64(key)),
        })
    };
    (bound(), bound()).prop_map(|(lower, upper)| KeyRange { lower, upper })
}

#[test]
fn forms() {
    use DataType::*;
    let form = |types: &[DataType]| KeyCodec::new(types).unwrap().form();
    assert_eq!(form(&[Int64]), KeyForm::U64);
    assert_eq!(form(&[Boolean]), KeyForm::U64);
    assert_eq!(form(&[Int32, Int32]), KeyForm::U128);
    assert_eq!(form(&[Int64, Float64]), KeyForm::U128);
    assert_eq!(form(&[Decimal128(38, 0)]), KeyForm::U128);
    assert_eq!(form(&[Decimal128(38, 0), Boolean]), KeyForm::Bytes);
    assert_eq!(form(&[Int64, Utf8]), KeyForm::Bytes);
    assert_eq!(form(&[FixedSizeBinary(4)]), KeyForm::Bytes);
    for refused in [Null, Decimal256(76, 0), Interval(IntervalUnit::DayTime)] {
        let error = check_key_type(&refused).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains(&refused.to_string()));
    }
}

#[test]
fn null_and_nan_are_refused_by_row_and_column() {
    let codec = KeyCodec::new(&[DataType::Int32, DataType::Float64]).unwrap();
    let ints: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), Some(2), None]));
    let whole: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![0.5, f64::NAN, 1.0]));
    let error = codec.encode(&[ints, Arc::clone(&floats)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Constraint);
    assert_eq!(error.message(), "key column 1 is NULL in row 2 (from 0)");
    let error = codec.encode(&[Arc::clone(&whole), floats]).unwrap_err();
    assert_eq!(error.message(), "key column 2 is NaN in row 1 (from 0)");
    let text = KeyCodec::new(&[DataType::Utf8]).unwrap();
    let error = text.encode(&[Arc::new(StringArray::from(vec![None::<&str>]))]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Constraint);
    assert!(text.encode(&[whole]).is_err());
}

#[test]
fn ranges_with_null_and_nan() {
    let codec = KeyCodec::new(&[DataType::Float64]).unwrap();
    let bound = |v: Option<f64>| -> ArrayRef { Arc::new(Float64Array::from(vec![v])) };
    let none = codec.range(&[], Bound::Included(bound(None)), Bound::Unbounded).unwrap();
    assert!(none.is_empty());
    let above = codec.range(&[], Bound::Included(bound(Some(f64::NAN))), Bound::Unbounded).unwrap();
    let infinity = codec.encode(&[bound(Some(f64::INFINITY))]).unwrap().get(0);
    assert!(!above.contains(&infinity));
    let below = codec.range(&[], Bound::Unbounded, Bound::Excluded(bound(Some(f64::NAN)))).unwrap();
    assert!(below.contains(&infinity));
    let negative_zero =
        codec.range(&[bound(Some(-0.0))], Bound::Unbounded, Bound::Unbounded).unwrap();
    assert_eq!(negative_zero, KeyRange::point(codec.encode(&[bound(Some(0.0))]).unwrap().get(0)));
}

#[test]
fn text_types_encode_alike() {
    let values =
        vec!["", "a", "a\0", "ab", "a longer text of several blocks, more than thirty-two bytes"];
    let encode = |array: ArrayRef| {
        KeyCodec::new(&[array.data_type().clone()]).unwrap().encode(&[array]).unwrap()
    };
    let KeyColumn::Bytes(utf8) = encode(Arc::new(StringArray::from(values.clone()))) else {
        panic!()
    };
    let KeyColumn::Bytes(large) = encode(Arc::new(LargeStringArray::from(values.clone()))) else {
        panic!()
    };
    let KeyColumn::Bytes(view) = encode(Arc::new(StringViewArray::from(values))) else { panic!() };
    assert_eq!(utf8, large);
    assert_eq!(utf8, view);
}

#[test]
fn sliced_columns_encode_their_rows() {
    let all: ArrayRef = Arc::new(Int64Array::from(vec![5, 6, 7, 8]));
    let flags: ArrayRef = Arc::new(BooleanArray::from(vec![true, false, true, true]));
    let codec = KeyCodec::new(&[DataType::Int64, DataType::Boolean]).unwrap();
    let whole = codec.encode(&[Arc::clone(&all), Arc::clone(&flags)]).unwrap();
    let part = codec.encode(&[all.slice(1, 2), flags.slice(1, 2)]).unwrap();
    assert_eq!(part.get(0), whole.get(1));
    assert_eq!(part.get(1), whole.slice(2, 1).get(0));
    let joined = KeyColumn::concat(&[&part, &whole.slice(0, 1)]).unwrap();
    assert_eq!((joined.len(), joined.last()), (3, whole.first()));
}

#[test]
fn bytes_columns_slice_and_join() {
    let text: ArrayRef = Arc::new(StringArray::from(vec!["c", "a", "b"]));
    let keys = KeyCodec::new(&[DataType::Utf8]).unwrap().encode(&[text]).unwrap();
    let joined = KeyColumn::concat(&[&keys.slice(1, 2), &keys.slice(0, 1)]).unwrap();
    assert!(joined.is_strictly_sorted());
    assert_eq!(keys.sort_indices(), [1, 2, 0]);
    assert_eq!(joined.slice(1, 2).sort_indices(), [0, 1]);
    let single = KeyColumn::from_keys(KeyForm::Bytes, [&keys.get(2)]).unwrap();
    assert_eq!(single.get(0), keys.get(2));
    assert!(KeyColumn::from_keys(KeyForm::U64, [&keys.get(2)]).is_err());
    assert!(KeyColumn::empty(KeyForm::Bytes).first().is_none());
}

/// Agrees with Arrow's own sort where Arrow sorts several columns.
#[test]
fn agrees_with_lexsort() {
    let a: ArrayRef =
        Arc::new(Int32Array::from_iter_values((0..4000).map(|i| (i * 7919) % 101 - 50)));
    let b: ArrayRef = Arc::new(Float64Array::from_iter_values(
        (0..4000).map(|i| f64::from(i * 31 % 997) - 500.0),
    ));
    let codec = KeyCodec::new(&[DataType::Int32, DataType::Float64]).unwrap();
    let keys = codec.encode(&[Arc::clone(&a), Arc::clone(&b)]).unwrap();
    let ours = UInt32Array::from(keys.sort_indices());
    let sort = |values: &ArrayRef| SortColumn { values: Arc::clone(values), options: None };
    let theirs = lexsort_to_indices(&[sort(&a), sort(&b)], None).unwrap();
    assert_eq!(&take(&a, &ours, None).unwrap(), &take(&a, &theirs, None).unwrap());
    assert_eq!(&take(&b, &ours, None).unwrap(), &take(&b, &theirs, None).unwrap());
}
