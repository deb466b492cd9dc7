//! Functions whose arguments say how large their result is: what they would make is reckoned before they make it. A value has at
//! most so many bytes (`max_value`), and the values of one batch a few times that. While a statement is planned, constants are
//! worked out only where they are small: a large one would be copied with every plan.
//!
//! Functions that take long for a row work on few rows at a time, and look in between whether their statement was stopped.

use std::any::Any;
use std::cell::Cell;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::common::config::{ConfigEntry, ConfigExtension, ExtensionOptions};
use datafusion::error::Result as DfResult;
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use crate::sql::queries::Query;
use crate::sql::{Code, Error, Result};

/// Bytes of a value, unless the options say otherwise.
pub(crate) const MAX_VALUE_BYTES: usize = 64 << 20;

/// The values of one batch may have this many times the bytes of the largest value.
const VALUES_PER_BATCH: u64 = 4;

/// Bytes of a constant that is worked out while the statement is planned.
const MAX_FOLDED_BYTES: u64 = 16 << 10;

/// Work after which a function looks whether it was stopped: about a tenth of a second.
const SLICE: u64 = 50_000_000;

/// Work for one value at most, in steps: some ten seconds.
const MAX_STEPS: u64 = 5_000_000_000;

thread_local! {
    static FOLDING: Cell<bool> = const { Cell::new(false) };
}

/// Does a part of planning, in which functions work out small constants only.
pub(crate) fn folding<T>(work: impl FnOnce() -> T) -> T {
    let before = FOLDING.replace(true);
    let result = work();
    FOLDING.set(before);
    result
}

/// What functions must know of the statement that they work for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Running {
    /// Bytes of a value at most.
    pub(crate) max_value_bytes: Option<usize>,
    /// What runs.
    pub(crate) query: Option<Arc<Query>>,
}

impl ConfigExtension for Running {
    const PREFIX: &'static str = "omendb";
}

impl ExtensionOptions for Running {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, _value: &str) -> DfResult<()> {
        Err(Error::new(Code::UndefinedObject, format!("there is no setting omendb.{key}")).into())
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        Vec::new()
    }
}

/// Puts the bounded functions in the place of those without bounds, whoever made them.
pub(super) fn register(mut builder: SessionStateBuilder) -> SessionStateBuilder {
    let functions = builder.scalar_functions().get_or_insert_default();
    for (name, bound) in BOUNDS {
        let found = functions.iter().rev().find(|f| f.name() == *name);
        if let Some(function) = found.cloned() {
            let inner = Arc::clone(function.inner());
            functions.push(Arc::new(ScalarUDF::new_from_impl(Bounded { inner, bound: *bound })));
        }
    }
    builder
}

/// What a row costs.
#[derive(Debug, Clone, Copy)]
enum Bound {
    /// Bytes of its value.
    Bytes(fn(&Arguments<'_>, usize) -> u64),
    /// Steps to its value.
    Steps(fn(&Arguments<'_>, usize) -> u64),
}

const BOUNDS: &[(&str, Bound)] = &[
    ("repeat", Bound::Bytes(|a, row| a.bytes(0, row).saturating_mul(a.count(1, row)))),
    ("lpad", Bound::Bytes(padded)),
    ("rpad", Bound::Bytes(padded)),
    ("concat", Bound::Bytes(|a, row| a.sum(row))),
    ("overlay", Bound::Bytes(|a, row| a.sum(row))),
    (
        "concat_ws",
        Bound::Bytes(|a, row| {
            a.sum(row).saturating_add(a.bytes(0, row).saturating_mul(a.len() as u64))
        }),
    ),
    ("replace", Bound::Bytes(replaced)),
    ("regexp_replace", Bound::Bytes(replaced_everywhere)),
    ("array_repeat", Bound::Bytes(|a, row| a.bytes(0, row).max(8).saturating_mul(a.count(1, row)))),
    (
        "array_resize",
        Bound::Bytes(|a, row| {
            a.bytes(2, row).max(8).saturating_mul(a.count(1, row)).saturating_add(a.bytes(0, row))
        }),
    ),
    (
        "array_to_string",
        Bound::Bytes(|a, row| {
            // An element of eight bytes has some twenty letters.
            let list = a.bytes(0, row);
            list.saturating_mul(3).saturating_add((list / 4 + 1).saturating_mul(a.bytes(1, row)))
        }),
    ),
    // A letter of a pattern stands for ten of a text at most, but for a few words.
    ("to_char", Bound::Bytes(|a, row| a.bytes(1, row).saturating_mul(16))),
    ("strftime", Bound::Bytes(|a, row| a.bytes(1, row).saturating_mul(16))),
    // A letter has four bytes at most.
    ("translate", Bound::Bytes(|a, row| a.bytes(0, row).saturating_mul(4))),
    ("encode", Bound::Bytes(|a, row| a.bytes(0, row).saturating_mul(4))),
    ("like_escape", Bound::Bytes(|a, row| a.bytes(0, row).saturating_mul(2))),
    ("make_array", Bound::Bytes(|a, row| a.sum(row))),
    ("array_append", Bound::Bytes(|a, row| a.sum(row))),
    ("array_prepend", Bound::Bytes(|a, row| a.sum(row))),
    ("array_concat", Bound::Bytes(|a, row| a.sum(row))),
    ("range", Bound::Bytes(ranged)),
    ("generate_series", Bound::Bytes(ranged)),
    ("levenshtein", Bound::Steps(|a, row| a.bytes(0, row).saturating_mul(a.bytes(1, row)))),
    ("regexp_match", Bound::Steps(|a, row| a.scanned(row))),
    ("regexp_count", Bound::Steps(|a, row| a.scanned(row))),
    ("regexp_instr", Bound::Steps(|a, row| a.scanned(row))),
];

fn padded(a: &Arguments<'_>, row: usize) -> u64 {
    a.bytes(0, row).max(a.count(1, row))
}

fn replaced(a: &Arguments<'_>, row: usize) -> u64 {
    let (text, from, to) = (a.bytes(0, row), a.bytes(1, row), a.bytes(2, row));
    let places = text.checked_div(from).unwrap_or(text + 1);
    let most = text.saturating_add(places.saturating_mul(to));
    match (most > MAX_FOLDED_BYTES, a.text(0, row), a.text(1, row)) {
        // Few texts are nothing but what is replaced in them.
        (true, Some(text), Some(from)) if !from.is_empty() => {
            (text.len() as u64).saturating_add(to.saturating_mul(text.matches(from).count() as u64))
        }
        _ => most,
    }
}

fn replaced_everywhere(a: &Arguments<'_>, row: usize) -> u64 {
    let (text, to) = (a.bytes(0, row), a.bytes(2, row));
    let everywhere = a.text(3, row).is_some_and(|flags| flags.contains('g'));
    let groups = a.text(2, row).map_or(0, |to| to.matches(['\\', '$']).count() as u64);
    let most = to.saturating_add(groups.saturating_mul(text));
    text.saturating_add(if everywhere { most.saturating_mul(text + 1) } else { most })
}

/// Bytes of the numbers or times from the first argument to the second.
fn ranged(a: &Arguments<'_>, row: usize) -> u64 {
    const NANOS_PER_DAY: i128 = 86_400_000_000_000;
    let (first, last) = match a.len() {
        1 => (Some(0), a.number(0, row)),
        _ => (a.number(0, row), a.number(1, row)),
    };
    let (Some(first), Some(last)) = (first, last) else { return 0 };
    let step = match a.len() {
        0..3 => 1,
        _ => match a.interval(2, row) {
            // A month has at least 28 days.
            Some((months, days, nanos)) => {
                i128::from(nanos) + NANOS_PER_DAY * (i128::from(days) + 28 * i128::from(months))
            }
            None => a.number(2, row).unwrap_or(1),
        },
    };
    let unit = match a.data_type(0) {
        DataType::Date32 => NANOS_PER_DAY,
        DataType::Timestamp(unit, _) => match unit {
            arrow::datatypes::TimeUnit::Second => 1_000_000_000,
            arrow::datatypes::TimeUnit::Millisecond => 1_000_000,
            arrow::datatypes::TimeUnit::Microsecond => 1_000,
            arrow::datatypes::TimeUnit::Nanosecond => 1,
        },
        _ => 1,
    };
    let span = (last - first).unsigned_abs() * unit.unsigned_abs();
    let count = span.checked_div(step.unsigned_abs()).unwrap_or(0).saturating_add(1);
    u64::try_from(count).unwrap_or(u64::MAX).saturating_mul(8)
}

/// The arguments of a call.
struct Arguments<'a>(&'a [ColumnarValue]);

impl Arguments<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn data_type(&self, i: usize) -> DataType {
        self.0.get(i).map_or(DataType::Null, ColumnarValue::data_type)
    }

    /// Bytes of a text; of lists and the like their share of the column.
    fn bytes(&self, i: usize, row: usize) -> u64 {
        if let Some(text) = self.raw(i, row) {
            return text.len() as u64;
        }
        match self.0.get(i) {
            None => 0,
            Some(ColumnarValue::Scalar(value)) if value.is_null() => 0,
            Some(ColumnarValue::Scalar(ScalarValue::List(list))) => {
                list.get_buffer_memory_size() as u64
            }
            Some(ColumnarValue::Scalar(value)) => value.size() as u64,
            Some(ColumnarValue::Array(array)) if array.is_null(row) => 0,
            Some(ColumnarValue::Array(array)) => match array.as_list_opt::<i32>() {
                Some(list) => {
                    let values = list.values();
                    let each = values.get_buffer_memory_size() / values.len().max(1);
                    (each as u64 + 1).saturating_mul(list.value_length(row) as u64)
                }
                None => 16,
            },
        }
    }

    fn raw(&self, i: usize, row: usize) -> Option<&[u8]> {
        match self.0.get(i)? {
            ColumnarValue::Scalar(value) => match value {
                ScalarValue::Binary(bytes)
                | ScalarValue::LargeBinary(bytes)
                | ScalarValue::BinaryView(bytes) => Some(bytes.as_deref().unwrap_or_default()),
                other => other.try_as_str().map(|text| text.unwrap_or_default().as_bytes()),
            },
            ColumnarValue::Array(array) if array.is_null(row) => None,
            ColumnarValue::Array(array) => match array.data_type() {
                DataType::Utf8 => Some(array.as_string::<i32>().value(row).as_bytes()),
                DataType::LargeUtf8 => Some(array.as_string::<i64>().value(row).as_bytes()),
                DataType::Utf8View => Some(array.as_string_view().value(row).as_bytes()),
                DataType::Binary => Some(array.as_binary::<i32>().value(row)),
                DataType::LargeBinary => Some(array.as_binary::<i64>().value(row)),
                DataType::BinaryView => Some(array.as_binary_view().value(row)),
                _ => None,
            },
        }
    }

    fn text(&self, i: usize, row: usize) -> Option<&str> {
        self.raw(i, row).and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// A number, date or time in the units of its type.
    fn number(&self, i: usize, row: usize) -> Option<i128> {
        let value = match self.0.get(i)? {
            ColumnarValue::Scalar(value) => value.clone(),
            ColumnarValue::Array(array) => {
                if let Some(integers) = array.as_primitive_opt::<Int64Type>() {
                    return integers.is_valid(row).then(|| i128::from(integers.value(row)));
                }
                ScalarValue::try_from_array(array, row).ok()?
            }
        };
        match value {
            ScalarValue::Date32(days) => days.map(i128::from),
            ScalarValue::TimestampSecond(t, _)
            | ScalarValue::TimestampMillisecond(t, _)
            | ScalarValue::TimestampMicrosecond(t, _)
            | ScalarValue::TimestampNanosecond(t, _) => t.map(i128::from),
            ScalarValue::UInt64(n) => n.map(i128::from),
            other => match other.cast_to(&DataType::Int64).ok()? {
                ScalarValue::Int64(n) => n.map(i128::from),
                _ => None,
            },
        }
    }

    /// How many, where an argument says that.
    fn count(&self, i: usize, row: usize) -> u64 {
        self.number(i, row).map_or(0, |n| u64::try_from(n.max(0)).unwrap_or(u64::MAX))
    }

    /// Months, days and nanoseconds.
    fn interval(&self, i: usize, row: usize) -> Option<(i32, i32, i64)> {
        let value = match self.0.get(i)? {
            ColumnarValue::Scalar(value) => value.clone(),
            ColumnarValue::Array(array) => ScalarValue::try_from_array(array, row).ok()?,
        };
        match value {
            ScalarValue::IntervalMonthDayNano(Some(i)) => Some((i.months, i.days, i.nanoseconds)),
            _ => None,
        }
    }

    fn sum(&self, row: usize) -> u64 {
        (0..self.len()).fold(0, |sum: u64, i| sum.saturating_add(self.bytes(i, row)))
    }

    /// Steps of a regular expression over a text.
    fn scanned(&self, row: usize) -> u64 {
        self.bytes(0, row).saturating_mul(self.bytes(1, row).max(16))
    }
}

/// A function within bounds.
#[derive(Debug)]
struct Bounded {
    inner: Arc<dyn ScalarUDFImpl>,
    bound: Bound,
}

impl PartialEq for Bounded {
    fn eq(&self, other: &Self) -> bool {
        self.inner.name() == other.inner.name()
    }
}

impl Eq for Bounded {}

impl std::hash::Hash for Bounded {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.inner.name().hash(state);
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> DfResult<DataType> {
        self.inner.return_type(arg_types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> DfResult<Vec<DataType>> {
        self.inner.coerce_types(arg_types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let running = args.config_options.extensions.get::<Running>().cloned().unwrap_or_default();
        let arguments = Arguments(&args.args);
        match self.bound {
            Bound::Bytes(bytes) => {
                check_made(self.name(), &args, (0..rows).map(|row| bytes(&arguments, row)))?;
                self.inner.invoke_with_args(args)
            }
            Bound::Steps(steps) => {
                let steps: Vec<u64> = (0..rows).map(|row| steps(&arguments, row)).collect();
                let (most, all) = steps
                    .iter()
                    .fold((0, 0u64), |(most, all), n| ((*n).max(most), all.saturating_add(*n)));
                let limit = if FOLDING.get() { SLICE } else { MAX_STEPS };
                if most > limit {
                    let message = format!("{} of values so long would take too long", self.name());
                    return Err(Error::new(Code::ProgramLimitExceeded, message).into());
                }
                match all > SLICE && !constant {
                    true => self.in_slices(&args, &steps, &running),
                    false => self.inner.invoke_with_args(args),
                }
            }
        }
    }
}

impl Bounded {
    /// Works on some rows after the other.
    fn in_slices(
        &self,
        args: &ScalarFunctionArgs,
        steps: &[u64],
        running: &Running,
    ) -> DfResult<ColumnarValue> {
        let mut done: Vec<ArrayRef> = Vec::new();
        let mut first = 0;
        while first < steps.len() {
            if let Some(query) = &running.query {
                query.check()?;
            }
            let (mut last, mut work) = (first, 0u64);
            while last < steps.len() && (last == first || work.saturating_add(steps[last]) <= SLICE)
            {
                work = work.saturating_add(steps[last]);
                last += 1;
            }
            let rows = last - first;
            let sliced = args.args.iter().map(|argument| match argument {
                ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(first, rows)),
                scalar => scalar.clone(),
            });
            let slice = ScalarFunctionArgs {
                args: sliced.collect(),
                arg_fields: args.arg_fields.clone(),
                number_rows: rows,
                return_field: Arc::clone(&args.return_field),
                config_options: Arc::clone(&args.config_options),
            };
            done.push(self.inner.invoke_with_args(slice)?.into_array(rows)?);
            first = last;
        }
        let parts: Vec<&dyn Array> = done.iter().map(|part| part.as_ref()).collect();
        Ok(ColumnarValue::Array(arrow::compute::concat(&parts)?))
    }
}

/// Bytes that the values of one call may have, where they are known only as they are made.
pub(super) struct Allowance {
    function: &'static str,
    value: usize,
    left: usize,
}

impl Allowance {
    /// What a call may make.
    pub(super) fn new(function: &'static str, args: &ScalarFunctionArgs) -> Self {
        let running = args.config_options.extensions.get::<Running>();
        let value = running.and_then(|running| running.max_value_bytes).unwrap_or(MAX_VALUE_BYTES);
        Self::of(function, value)
    }

    /// Values of so many bytes.
    pub(super) fn of(function: &'static str, value: usize) -> Self {
        let left = match FOLDING.get() {
            true => MAX_FOLDED_BYTES as usize,
            false => value.saturating_mul(VALUES_PER_BATCH as usize),
        };
        Self { function, value, left }
    }

    /// Refuses a part of a value that is too much; `so_far` are the bytes of the value before it.
    pub(super) fn take(&mut self, so_far: usize, more: usize) -> Result<()> {
        if so_far.saturating_add(more) > self.value || more > self.left {
            let (function, value) = (self.function, self.value);
            return Err(too_large(format!(
                "{function} would make more bytes than are allowed: {value} for a value, {VALUES_PER_BATCH} times that at once"
            )));
        }
        self.left -= more;
        Ok(())
    }
}

/// Refuses values beyond the limit before they are made. Says how many bytes there are.
pub(super) fn check_made(
    function: &str,
    args: &ScalarFunctionArgs,
    values: impl Iterator<Item = u64>,
) -> Result<u64> {
    let running = args.config_options.extensions.get::<Running>();
    let largest = running.and_then(|running| running.max_value_bytes).unwrap_or(MAX_VALUE_BYTES);
    check_bytes(function, largest as u64, values)
}

fn check_bytes(function: &str, largest: u64, values: impl Iterator<Item = u64>) -> Result<u64> {
    let mut all = 0u64;
    for bytes in values {
        all = all.saturating_add(bytes);
        if FOLDING.get() && all > MAX_FOLDED_BYTES {
            // The planner leaves it to be worked out when the statement runs.
            return Err(too_large("a constant is too large to be worked out before it is needed"));
        }
        if bytes > largest {
            return Err(too_large(format!(
                "{function} would make a value of {bytes} bytes; at most {largest} are allowed"
            )));
        }
    }
    match all > largest.saturating_mul(VALUES_PER_BATCH) {
        true => Err(too_large(format!(
            "{function} would make {all} bytes at once; at most {VALUES_PER_BATCH} times {largest} are allowed"
        ))),
        false => Ok(all),
    }
}

fn too_large(message: impl Into<String>) -> Error {
    Error::new(Code::ProgramLimitExceeded, message)
}
