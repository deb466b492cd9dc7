//! What arrays take once their values are written out. All sums saturate: a few bytes can stand for any number.

use arrow::array::{Array, AsArray, GenericListViewArray, OffsetSizeTrait};
use arrow::datatypes::{ByteViewType, DataType};

/// Bytes of a value of `data_type` where there is none: what a NULL takes.
pub(crate) fn null_bytes(data_type: &DataType) -> u64 {
    use DataType::*;
    match data_type {
        Null => 0,
        Boolean => 1,
        FixedSizeBinary(size) => u64::try_from(*size).unwrap_or(0),
        FixedSizeList(item, size) => {
            null_bytes(item.data_type()).saturating_mul(u64::try_from(*size).unwrap_or(0))
        }
        Struct(fields) => fields
            .iter()
            .fold(1, |sum: u64, field| sum.saturating_add(null_bytes(field.data_type()))),
        Dictionary(_, values) => null_bytes(values),
        RunEndEncoded(_, values) => null_bytes(values.data_type()),
        Utf8 | Binary | List(_) | Map(_, _) => 4,
        LargeUtf8 | LargeBinary | LargeList(_) | ListView(_) => 8,
        other => other.primitive_width().unwrap_or(16) as u64,
    }
}

/// Whether a few bytes of such an array can stand for many: values that it shares, or that are not there.
#[cfg(any(feature = "server", test))]
pub(crate) fn may_expand(data_type: &DataType) -> bool {
    use DataType::*;
    match data_type {
        Null | Dictionary(_, _) | RunEndEncoded(_, _) | Utf8View | BinaryView => true,
        ListView(_) | LargeListView(_) => true,
        List(item) | LargeList(item) | FixedSizeList(item, _) | Map(item, _) => {
            may_expand(item.data_type())
        }
        Struct(fields) => fields.iter().any(|field| may_expand(field.data_type())),
        _ => false,
    }
}

/// Bytes of all values of an array, each written out.
pub(crate) fn written_bytes(array: &dyn Array) -> u64 {
    use DataType::*;
    let rows = array.len() as u64;
    let own = rows.saturating_mul(null_bytes(array.data_type()));
    match array.data_type() {
        Utf8 => own + between(array.as_string::<i32>().value_offsets()),
        LargeUtf8 => own + between(array.as_string::<i64>().value_offsets()),
        Binary => own + between(array.as_binary::<i32>().value_offsets()),
        LargeBinary => own + between(array.as_binary::<i64>().value_offsets()),
        Utf8View => own + viewed(array.as_string_view()),
        BinaryView => own + viewed(array.as_binary_view()),
        List(_) => {
            let list = array.as_list::<i32>();
            own.saturating_add(listed(list.values().as_ref(), list.value_offsets()))
        }
        LargeList(_) => {
            let list = array.as_list::<i64>();
            own.saturating_add(listed(list.values().as_ref(), list.value_offsets()))
        }
        Map(_, _) => {
            let map = array.as_map();
            own.saturating_add(listed(map.entries(), map.value_offsets()))
        }
        ListView(_) => own.saturating_add(list_viewed(array.as_list_view::<i32>())),
        LargeListView(_) => own.saturating_add(list_viewed(array.as_list_view::<i64>())),
        FixedSizeList(_, _) => own.max(written_bytes(array.as_fixed_size_list().values().as_ref())),
        Struct(_) => sum(array.as_struct().columns().iter().map(|c| written_bytes(c.as_ref()))),
        Dictionary(_, _) => {
            let dictionary = array.as_any_dictionary();
            let values = each(dictionary.values().as_ref());
            if values.is_empty() {
                return own;
            }
            let keys = dictionary.normalized_keys();
            sum(keys.into_iter().map(|key| values[key]))
        }
        // No more than if all runs had the largest value.
        RunEndEncoded(_, _) => array
            .as_any_run_values()
            .map_or(own, |values| each(values).into_iter().max().unwrap_or(0).saturating_mul(rows)),
        _ => own,
    }
}

/// The values of runs, whatever the type of their ends.
trait RunValues {
    fn as_any_run_values(&self) -> Option<&dyn Array>;
}

impl RunValues for dyn Array + '_ {
    fn as_any_run_values(&self) -> Option<&dyn Array> {
        use arrow::datatypes::{Int16Type, Int32Type, Int64Type};
        let values = self
            .as_run_opt::<Int32Type>()
            .map(|run| run.values())
            .or_else(|| self.as_run_opt::<Int16Type>().map(|run| run.values()))
            .or_else(|| self.as_run_opt::<Int64Type>().map(|run| run.values()))?;
        Some(values.as_ref())
    }
}

/// Bytes of each value.
fn each(values: &dyn Array) -> Vec<u64> {
    match values.data_type() {
        DataType::Utf8 => lengths(values.as_string::<i32>().value_offsets()),
        DataType::Binary => lengths(values.as_binary::<i32>().value_offsets()),
        _ => (0..values.len()).map(|i| written_bytes(values.slice(i, 1).as_ref())).collect(),
    }
}

fn lengths<O: OffsetSizeTrait>(offsets: &[O]) -> Vec<u64> {
    offsets.windows(2).map(|pair| (pair[1] - pair[0]).as_usize() as u64 + 4).collect()
}

/// What lies between the first and the last offset.
fn between<O: OffsetSizeTrait>(offsets: &[O]) -> u64 {
    match offsets {
        [first, .., last] => (*last - *first).as_usize() as u64,
        _ => 0,
    }
}

fn viewed<T: ByteViewType>(array: &arrow::array::GenericByteViewArray<T>) -> u64 {
    // The length of a value is in the lower half of its view.
    let views = array.views().iter().enumerate();
    sum(views.filter(|(i, _)| array.is_valid(*i)).map(|(_, view)| u64::from(*view as u32)))
}

fn listed<O: OffsetSizeTrait>(values: &dyn Array, offsets: &[O]) -> u64 {
    let first = offsets.first().map_or(0, |o| o.as_usize());
    written_bytes(values.slice(first, between(offsets) as usize).as_ref())
}

fn list_viewed<O: OffsetSizeTrait>(list: &GenericListViewArray<O>) -> u64 {
    let sizes = list.sizes().iter().map(|size| size.as_usize());
    let values = list.values();
    // Where no value is larger than another there is no need to look at each row.
    if values.data_type().is_primitive() {
        let width = null_bytes(values.data_type());
        return sum(sizes.map(|size| width.saturating_mul(size as u64)));
    }
    let offsets = list.offsets().iter().map(|offset| offset.as_usize());
    sum(offsets.zip(sizes).map(|(at, size)| written_bytes(values.slice(at, size).as_ref())))
}

fn sum(values: impl Iterator<Item = u64>) -> u64 {
    values.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow::array::*;
    use arrow::buffer::ScalarBuffer;
    use arrow::datatypes::{Field, Int32Type};

    #[test]
    fn shared_values_count_as_often_as_they_are_used() {
        let text = "x".repeat(1000);
        let values = StringArray::from(vec![text.as_str(), "y"]);
        let keys = Int32Array::from(vec![Some(0); 500]);
        let dictionary = DictionaryArray::<Int32Type>::new(keys, Arc::new(values.clone()));
        assert_eq!(written_bytes(&dictionary), 500 * 1004);
        assert!(may_expand(dictionary.data_type()));
        let runs = RunArray::try_new(&Int32Array::from(vec![700, 701]), &values).unwrap();
        assert_eq!(written_bytes(&runs), 701 * 1004);
        assert_eq!(written_bytes(&runs.slice(10, 3)), 3 * 1004);
        let views = StringViewArray::from(vec![Some(text.as_str()), None, Some("y")]);
        assert_eq!(written_bytes(&views), 3 * 16 + 1001);
        let item = Arc::new(Field::new_list_field(DataType::Int64, true));
        let list = ListViewArray::new(
            item,
            ScalarBuffer::from(vec![0; 100]),
            ScalarBuffer::from(vec![50; 100]),
            Arc::new(Int64Array::from_iter_values(0..50)),
            None,
        );
        assert_eq!(written_bytes(&list), 100 * 8 + 100 * 50 * 8);
        assert!(!may_expand(&DataType::Utf8) && may_expand(list.data_type()));
    }

    #[test]
    fn plain_values_count_what_they_are() {
        let text = StringArray::from(vec!["ab", "", "cde"]);
        assert_eq!(written_bytes(&text), 12 + 5);
        assert_eq!(written_bytes(&text.slice(2, 1)), 4 + 3);
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([
            Some(vec![Some(1), Some(2)]),
            None,
            Some(vec![Some(3)]),
        ]);
        assert_eq!(written_bytes(&lists), 12 + 12);
        assert_eq!(written_bytes(&lists.slice(0, 1)), 4 + 8);
        let nothing = Int32Array::from(Vec::<i32>::new());
        assert_eq!(written_bytes(&nothing), 0);
        assert_eq!(written_bytes(&StringArray::from(Vec::<&str>::new())), 0);
    }

    #[test]
    fn sizes_that_overflow_are_the_largest_number() {
        let huge = DataType::FixedSizeBinary(i32::MAX);
        assert_eq!(null_bytes(&huge), i32::MAX as u64);
        let nested = (0..3).fold(huge, |inner, _| {
            DataType::FixedSizeList(Arc::new(Field::new_list_field(inner, true)), i32::MAX)
        });
        assert_eq!(null_bytes(&nested), u64::MAX);
    }
}
