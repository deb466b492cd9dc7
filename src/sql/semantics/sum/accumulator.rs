//! What adds up: one sum, a sum of values that differ, the sums of groups.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, ListArray, PrimitiveArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};

use super::{Summand, TotalOf, result, sum_of, valid};

/// The sum of all rows, or of a window's.
#[derive(Debug)]
pub(super) struct Total<T: Summand> {
    pub(super) total: TotalOf<T>,
    /// Values in it.
    pub(super) count: usize,
    data_type: DataType,
}

impl<T: Summand> Total<T> {
    pub(super) fn new(data_type: &DataType) -> Self {
        Self { total: TotalOf::<T>::default(), count: 0, data_type: data_type.clone() }
    }

    pub(super) fn boxed(data_type: &DataType) -> Box<dyn Accumulator> {
        Box::new(Self::new(data_type))
    }
}

fn count(values: &dyn Array) -> usize {
    values.len() - values.null_count()
}

impl<T: Summand> Accumulator for Total<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.count += count(&values[0]);
        self.total = T::merge(self.total, sum_of::<T>(values[0].as_primitive()));
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.count -= count(&values[0]);
        for value in values[0].as_primitive::<T>().iter().flatten() {
            self.total = T::subtract(self.total, value);
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.count += count(&states[0]);
        for total in states[0].as_primitive::<T::Total>().iter().flatten() {
            self.total = T::merge(self.total, total);
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let total = (self.count > 0).then_some(self.total);
        let data_type = T::total_type(&self.data_type);
        Ok(vec![ScalarValue::new_primitive::<T::Total>(total, &data_type)?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let total = (self.count > 0).then(|| result::<T>(self.total, &self.data_type));
        ScalarValue::new_primitive::<T>(total.transpose()?, &self.data_type)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// The sum of values that differ.
#[derive(Debug)]
pub(super) struct Distinct<T: Summand> {
    /// How often each one is there.
    pub(super) counts: HashMap<T::Native, usize>,
    pub(super) total: TotalOf<T>,
    data_type: DataType,
}

impl<T: Summand> Distinct<T> {
    pub(super) fn new(data_type: &DataType) -> Self {
        let data_type = data_type.clone();
        Self { counts: HashMap::new(), total: TotalOf::<T>::default(), data_type }
    }

    pub(super) fn boxed(data_type: &DataType) -> Box<dyn Accumulator> {
        Box::new(Self::new(data_type))
    }

    fn add(&mut self, values: &PrimitiveArray<T>) {
        for value in values.iter().flatten() {
            let count = self.counts.entry(value).or_insert(0);
            *count += 1;
            if *count == 1 {
                self.total = T::add(self.total, value);
            }
        }
    }
}

impl<T: Summand> Accumulator for Distinct<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(values[0].as_primitive());
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values[0].as_primitive::<T>().iter().flatten() {
            let Some(count) = self.counts.get_mut(&value) else { continue };
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&value);
                self.total = T::subtract(self.total, value);
            }
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for values in states[0].as_list::<i32>().iter().flatten() {
            self.add(values.as_primitive());
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = PrimitiveArray::<T>::from_iter_values(self.counts.keys().copied())
            .with_data_type(self.data_type.clone());
        let item = Arc::new(Field::new_list_field(self.data_type.clone(), true));
        let offsets = OffsetBuffer::from_lengths([values.len()]);
        let list = ListArray::try_new(item, offsets, Arc::new(values), None)?;
        Ok(vec![ScalarValue::List(Arc::new(list))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let total = (!self.counts.is_empty()).then(|| result::<T>(self.total, &self.data_type));
        ScalarValue::new_primitive::<T>(total.transpose()?, &self.data_type)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.counts.capacity() * size_of::<(T::Native, usize)>()
    }
}

/// The sums of groups.
#[derive(Debug)]
pub(super) struct Groups<T: Summand> {
    totals: Vec<TotalOf<T>>,
    /// Whether a group has a value.
    seen: Vec<bool>,
    data_type: DataType,
}

impl<T: Summand> Groups<T> {
    pub(super) fn new(data_type: &DataType) -> Self {
        Self { totals: Vec::new(), seen: Vec::new(), data_type: data_type.clone() }
    }

    pub(super) fn boxed(data_type: &DataType) -> Box<dyn GroupsAccumulator> {
        Box::new(Self::new(data_type))
    }

    /// Adds the values that are not NULL and pass the filter to their groups.
    fn accumulate<V: ArrowPrimitiveType>(
        &mut self,
        values: &PrimitiveArray<V>,
        groups: &[usize],
        filter: Option<&BooleanArray>,
        group_count: usize,
        add: impl Fn(TotalOf<T>, V::Native) -> TotalOf<T>,
    ) {
        self.totals.resize(group_count, TotalOf::<T>::default());
        self.seen.resize(group_count, false);
        let (totals, seen) = (&mut self.totals, &mut self.seen);
        let mut put = |group: usize, value: V::Native| {
            totals[group] = add(totals[group], value);
            seen[group] = true;
        };
        match valid(values.nulls(), filter) {
            None => groups.iter().zip(values.values()).for_each(|(g, v)| put(*g, *v)),
            Some(valid) => {
                let values = values.values();
                valid.valid_indices().for_each(|row| put(groups[row], values[row]));
            }
        }
    }

    pub(super) fn take(&mut self, emit_to: EmitTo) -> (Vec<TotalOf<T>>, NullBuffer) {
        let totals = emit_to.take_needed(&mut self.totals);
        (totals, NullBuffer::from(emit_to.take_needed(&mut self.seen)))
    }

    fn totals(&self, totals: Vec<TotalOf<T>>, nulls: Option<NullBuffer>) -> ArrayRef {
        let totals = PrimitiveArray::<T::Total>::new(totals.into(), nulls);
        Arc::new(totals.with_data_type(T::total_type(&self.data_type)))
    }
}

impl<T: Summand> GroupsAccumulator for Groups<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        group_count: usize,
    ) -> Result<()> {
        self.accumulate(values[0].as_primitive::<T>(), groups, filter, group_count, T::add);
        Ok(())
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        group_count: usize,
    ) -> Result<()> {
        let values = values[0].as_primitive::<T::Total>();
        self.accumulate(values, groups, None, group_count, T::merge);
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (totals, seen) = self.take(emit_to);
        let values: Vec<T::Native> = totals
            .into_iter()
            .map(|total| result::<T>(total, &self.data_type))
            .collect::<Result<_>>()?;
        let values = PrimitiveArray::<T>::new(values.into(), Some(seen));
        Ok(Arc::new(values.with_data_type(self.data_type.clone())))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (totals, seen) = self.take(emit_to);
        Ok(vec![self.totals(totals, Some(seen))])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let values = values[0].as_primitive::<T>();
        let zero = TotalOf::<T>::default();
        let totals = values.values().iter().map(|value| T::add(zero, *value)).collect();
        Ok(vec![self.totals(totals, valid(values.nulls(), filter))])
    }

    fn size(&self) -> usize {
        self.totals.capacity() * size_of::<TotalOf<T>>() + self.seen.capacity()
    }
}
