//! What keeps the values of a percentile until all are there.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, ListArray, PrimitiveArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};

use super::{Between, Wanted, plain, raw_type};
use crate::sql::Error;
use crate::sql::semantics::sum::valid;

/// The values of all rows, or of a window's.
#[derive(Debug)]
pub(super) struct Values<T: Between> {
    values: Vec<T::Native>,
    raw: DataType,
    wanted: Wanted,
}

impl<T: Between> Values<T> {
    pub(super) fn boxed(data_type: &DataType, wanted: Wanted) -> Box<dyn Accumulator> {
        Box::new(Self { values: Vec::new(), raw: raw_type(data_type), wanted })
    }

    fn add(&mut self, values: &PrimitiveArray<T>) {
        match values.null_count() {
            0 => self.values.extend_from_slice(values.values()),
            _ => self.values.extend(values.iter().flatten()),
        }
    }
}

impl<T: Between> Accumulator for Values<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(plain::<T>(&values[0])?.as_primitive());
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for gone in plain::<T>(&values[0])?.as_primitive::<T>().iter().flatten() {
            if let Some(at) = self.values.iter().position(|v| T::order(v, &gone).is_eq()) {
                self.values.swap_remove(at);
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
        let list = lists::<T>(vec![std::mem::take(&mut self.values)], &self.raw)?;
        Ok(vec![ScalarValue::List(Arc::new(list))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        // Values that come twice may leave a window one by one.
        let value = match self.wanted.distinct {
            true => self.wanted.of::<T>(&mut self.values.clone())?,
            false => self.wanted.of::<T>(&mut self.values)?,
        };
        let array = results::<T>(vec![value], &self.wanted.data_type)?;
        ScalarValue::try_from_array(&array, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * size_of::<T::Native>()
    }
}

/// The values of groups.
#[derive(Debug)]
pub(super) struct Groups<T: Between> {
    groups: Vec<Vec<T::Native>>,
    /// Bytes of all values.
    bytes: usize,
    raw: DataType,
    wanted: Wanted,
}

impl<T: Between> Groups<T> {
    pub(super) fn boxed(data_type: &DataType, wanted: Wanted) -> Box<dyn GroupsAccumulator> {
        Box::new(Self { groups: Vec::new(), bytes: 0, raw: raw_type(data_type), wanted })
    }

    fn take(&mut self, emit_to: EmitTo) -> Vec<Vec<T::Native>> {
        let taken = emit_to.take_needed(&mut self.groups);
        self.bytes -= taken.iter().map(Vec::len).sum::<usize>() * size_of::<T::Native>();
        taken
    }
}

impl<T: Between> GroupsAccumulator for Groups<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        group_count: usize,
    ) -> Result<()> {
        self.groups.resize_with(group_count, Vec::new);
        let values = plain::<T>(&values[0])?;
        let values = values.as_primitive::<T>();
        let rows = match valid(values.nulls(), filter) {
            None => {
                for (group, value) in groups.iter().zip(values.values()) {
                    self.groups[*group].push(*value);
                }
                values.len()
            }
            Some(valid) => {
                for row in valid.valid_indices() {
                    self.groups[groups[row]].push(values.value(row));
                }
                valid.len() - valid.null_count()
            }
        };
        self.bytes += rows * size_of::<T::Native>();
        Ok(())
    }

    fn merge_batch(
        &mut self,
        states: &[ArrayRef],
        groups: &[usize],
        group_count: usize,
    ) -> Result<()> {
        self.groups.resize_with(group_count, Vec::new);
        let lists = states[0].as_list::<i32>();
        for (group, values) in groups.iter().zip(lists.iter()) {
            let Some(values) = values else { continue };
            self.groups[*group].extend_from_slice(values.as_primitive::<T>().values());
            self.bytes += values.len() * size_of::<T::Native>();
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let values = self
            .take(emit_to)
            .iter_mut()
            .map(|values| self.wanted.of::<T>(values))
            .collect::<Result<Vec<_>>>()?;
        results::<T>(values, &self.wanted.data_type)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let groups = self.take(emit_to);
        Ok(vec![Arc::new(lists::<T>(groups, &self.raw)?)])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let values = plain::<T>(&values[0])?;
        let values = values.as_primitive::<T>();
        let valid = valid(values.nulls(), filter);
        let one = |row| match valid.as_ref().is_none_or(|v| v.is_valid(row)) {
            true => vec![values.value(row)],
            false => Vec::new(),
        };
        Ok(vec![Arc::new(lists::<T>((0..values.len()).map(one).collect(), &self.raw)?)])
    }

    fn size(&self) -> usize {
        // Vectors grow to twice what they hold at most.
        2 * self.bytes + self.groups.capacity() * size_of::<Vec<T::Native>>()
    }
}

/// A list of each group's values.
fn lists<T: ArrowPrimitiveType>(groups: Vec<Vec<T::Native>>, raw: &DataType) -> Result<ListArray> {
    if groups.iter().map(Vec::len).sum::<usize>() > i32::MAX as usize {
        return Err(Error::unsupported("a percentile of 2^31 rows or more").into());
    }
    let offsets = OffsetBuffer::from_lengths(groups.iter().map(Vec::len));
    let values = PrimitiveArray::<T>::from_iter_values(groups.into_iter().flatten());
    let item = Arc::new(Field::new_list_field(raw.clone(), true));
    let values = Arc::new(values.with_data_type(raw.clone()));
    Ok(ListArray::try_new(item, offsets, values, None)?)
}

/// Results in their type.
fn results<T: Between>(values: Vec<Option<T::Native>>, data_type: &DataType) -> Result<ArrayRef> {
    let values = PrimitiveArray::<T>::from_iter(values);
    Ok(match data_type {
        DataType::Decimal128(..) => Arc::new(values.with_data_type(data_type.clone())),
        other => arrow::compute::cast(&values, other)?,
    })
}
