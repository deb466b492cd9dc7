//! Predicates on key columns as key ranges, exactly.
//!
//! A predicate on one key column becomes a set of intervals of that column's values. Values of numbers,
//! dates and times are mapped to integers in order, so that an interval is a pair of cuts between neighbours and a comparison
//! with a literal of another type (1.5 against an integer, a timestamp against a date) finds its cut
//! exactly, without a cast of either side.

use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, StringArray, new_empty_array};
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{BinaryExpr, InList};
use datafusion::logical_expr::{Between, Expr, Operator};

use super::error::{Error, Result};
use crate::engine::{KeyCodec, KeyKind, KeyRange, TableMeta};

/// Ranges that the points of several key columns may be multiplied out to.
const MAX_RANGES: usize = 10_000;

/// A place between two neighbouring values of a column. One column has cuts of one kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cut {
    /// Before all values.
    Low,
    /// Before this integer.
    Int(i128),
    /// Before these bytes, or (`true`) right after them.
    Bytes(Vec<u8>, bool),
    /// After all values.
    High,
}

/// Values of one column: disjoint intervals between cuts, ascending, none empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ValueSet(Vec<(Cut, Cut)>);

impl ValueSet {
    /// Every value.
    pub(crate) fn all() -> Self {
        Self(vec![(Cut::Low, Cut::High)])
    }

    /// No value.
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }

    fn between(low: Cut, high: Cut) -> Self {
        if low < high { Self(vec![(low, high)]) } else { Self::none() }
    }

    /// Values in both sets.
    pub(crate) fn intersect(&self, other: &Self) -> Self {
        let (mut i, mut j) = (0, 0);
        let mut out = Vec::new();
        while let (Some(a), Some(b)) = (self.0.get(i), other.0.get(j)) {
            let low = (&a.0).max(&b.0);
            let high = (&a.1).min(&b.1);
            if low < high {
                out.push((low.clone(), high.clone()));
            }
            if a.1 <= b.1 {
                i += 1;
            } else {
                j += 1;
            }
        }
        Self(out)
    }

    /// Values in one set or the other.
    pub(crate) fn union(self, other: Self) -> Self {
        let mut all = self.0;
        all.extend(other.0);
        Self::normalized(all)
    }

    /// Values outside the set.
    pub(crate) fn complement(&self) -> Self {
        let mut out = Vec::with_capacity(self.0.len() + 1);
        let mut from = Cut::Low;
        for (low, high) in &self.0 {
            if from < *low {
                out.push((from, low.clone()));
            }
            from = high.clone();
        }
        if from < Cut::High {
            out.push((from, Cut::High));
        }
        Self(out)
    }

    fn normalized(mut all: Vec<(Cut, Cut)>) -> Self {
        all.sort_unstable();
        let mut out: Vec<(Cut, Cut)> = Vec::with_capacity(all.len());
        for (low, high) in all {
            match out.last_mut() {
                Some(last) if low <= last.1 => {
                    if high > last.1 {
                        last.1 = high;
                    }
                }
                _ => out.push((low, high)),
            }
        }
        Self(out)
    }

    /// The set without intervals past the first or last value of a type.
    fn within_type(&self, data_type: &DataType) -> Self {
        let Some((min, max)) = integer_range(data_type) else { return self.clone() };
        let holds = |(low, high): &&(Cut, Cut)| match (low, high) {
            (Cut::Int(low), _) if *low > max => false,
            (_, Cut::Int(high)) if *high <= min => false,
            _ => true,
        };
        Self(self.0.iter().filter(holds).cloned().collect())
    }

    /// Whether every interval holds just one value.
    fn is_points(&self) -> bool {
        self.0.iter().all(|(low, high)| match (low, high) {
            (Cut::Int(a), Cut::Int(b)) => a.checked_add(1) == Some(*b),
            (Cut::Bytes(a, false), Cut::Bytes(b, true)) => a == b,
            _ => false,
        })
    }

    /// Number of intervals.
    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_all(&self) -> bool {
        matches!(self.0.as_slice(), [(Cut::Low, Cut::High)])
    }
}

/// What filters say of a table's key.
#[derive(Debug, Clone)]
pub(crate) struct KeyFilter {
    /// Disjoint ranges, ascending: every row that passes the filters lies in one of them.
    pub(crate) ranges: Vec<KeyRange>,
    /// For each filter, whether the ranges hold just the rows that pass it (given the others).
    pub(crate) exact: Vec<bool>,
    /// For each filter, whether it is about a key column at all.
    pub(crate) relevant: Vec<bool>,
    /// Whether columns were left out because their points multiply out to too many ranges.
    pub(crate) overflow: bool,
}

impl KeyFilter {
    /// Reduces `filters` (all must hold) to key ranges.
    pub(crate) fn new(meta: &TableMeta, codec: &KeyCodec, filters: &[&Expr]) -> Result<Self> {
        let columns = KeyColumns::new(meta);
        let sets: Vec<Option<(usize, ValueSet)>> =
            filters.iter().map(|f| columns.value_set(f)).collect();
        let mut by_column = vec![ValueSet::all(); columns.names.len()];
        for (column, set) in sets.iter().flatten() {
            by_column[*column] = by_column[*column].intersect(set);
        }
        let (ranges, covered, overflow) = columns.ranges(codec, &by_column)?;
        Ok(Self {
            ranges,
            overflow,
            exact: sets.iter().map(|s| s.as_ref().is_some_and(|(c, _)| *c < covered)).collect(),
            relevant: sets.iter().map(Option::is_some).collect(),
        })
    }
}

/// Names and types of a table's key columns, in key order.
pub(crate) struct KeyColumns<'a> {
    names: Vec<&'a str>,
    types: Vec<&'a DataType>,
}

impl<'a> KeyColumns<'a> {
    /// The key columns of a table: none where it has a row id only.
    pub(crate) fn new(meta: &'a TableMeta) -> Self {
        let indices = if meta.key_kind == KeyKind::RowId { vec![] } else { meta.key_indices() };
        Self {
            names: indices.iter().map(|i| meta.columns[*i].field.name().as_str()).collect(),
            types: indices.iter().map(|i| meta.columns[*i].field.data_type()).collect(),
        }
    }

    /// Types of the key columns, in key order.
    pub(crate) fn types(&self) -> &[&'a DataType] {
        &self.types
    }

    /// The position of a key column among them.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|n| *n == name)
    }

    /// The values of one key column that pass a filter; `None` where it is about anything else.
    fn value_set(&self, filter: &Expr) -> Option<(usize, ValueSet)> {
        match filter {
            Expr::BinaryExpr(BinaryExpr {
                left,
                op: op @ (Operator::And | Operator::Or),
                right,
            }) => {
                let (a, left) = self.value_set(left)?;
                let (b, right) = self.value_set(right)?;
                (a == b).then(|| match op {
                    Operator::And => (a, left.intersect(&right)),
                    _ => (a, left.union(right)),
                })
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => self
                .comparison(left, *op, right)
                .or_else(|| self.comparison(right, op.swap()?, left)),
            Expr::Not(inner) => {
                let (column, set) = self.value_set(inner)?;
                Some((column, set.complement()))
            }
            Expr::Between(Between { expr, negated, low, high }) => {
                let (column, above) = self.comparison(expr, Operator::GtEq, low)?;
                let (_, below) = self.comparison(expr, Operator::LtEq, high)?;
                let set = above.intersect(&below);
                Some((column, if *negated { set.complement() } else { set }))
            }
            Expr::InList(InList { expr, list, negated }) => {
                let (column, data_type, cast) = self.column(expr)?;
                let mut intervals = Vec::with_capacity(list.len());
                for item in list {
                    intervals
                        .extend(compare_cast(data_type, cast, Operator::Eq, literal(item)?)?.0);
                }
                let set = ValueSet::normalized(intervals);
                Some((column, if *negated { set.complement() } else { set }))
            }
            // Key columns are never NULL.
            Expr::IsNotNull(expr) => Some((self.column(expr)?.0, ValueSet::all())),
            Expr::IsNull(expr) => Some((self.column(expr)?.0, ValueSet::none())),
            _ => None,
        }
    }

    fn comparison(&self, column: &Expr, op: Operator, value: &Expr) -> Option<(usize, ValueSet)> {
        let (column, data_type, cast) = self.column(column)?;
        Some((column, compare_cast(data_type, cast, op, literal(value)?)?))
    }

    /// The key column that an expression is, without casts that keep every value, and its type; last, whether it is cast to a
    /// double, which need not.
    fn column(&self, expr: &Expr) -> Option<(usize, &'a DataType, bool)> {
        match expr {
            Expr::Column(column) => {
                let position = self.position(&column.name)?;
                Some((position, self.types[position], false))
            }
            Expr::Cast(cast) => {
                let (position, from, as_double) = self.column(&cast.expr)?;
                let bare = matches!(cast.expr.as_ref(), Expr::Column(_));
                match cast.field.data_type() {
                    to if !as_double && widens(from, to) => Some((position, from, false)),
                    DataType::Float64 if bare && is_exact_number(from) => {
                        Some((position, from, true))
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// The ranges of keys whose columns lie in these sets, how many of the first columns they
    /// account for wholly, and whether they would be too many to account for more.
    pub(crate) fn ranges(
        &self,
        codec: &KeyCodec,
        sets: &[ValueSet],
    ) -> Result<(Vec<KeyRange>, usize, bool)> {
        let sets: Vec<ValueSet> =
            sets.iter().zip(&self.types).map(|(set, t)| set.within_type(t)).collect();
        if sets.iter().any(|s| s.0.is_empty()) {
            return Ok((Vec::new(), sets.len(), false));
        }
        // Columns of points are multiplied out; the first that has longer intervals ends it.
        let mut prefix_len = 0;
        let mut count = 1usize;
        for set in &sets {
            let product = count.saturating_mul(set.len());
            if !set.is_points() || (product > MAX_RANGES && prefix_len > 0) {
                break;
            }
            count = product;
            prefix_len += 1;
        }
        let last = sets
            .get(prefix_len)
            .filter(|s| prefix_len == 0 || count.saturating_mul(s.len()) <= MAX_RANGES);
        let mut ranges = Vec::with_capacity(count);
        let mut prefix: Vec<ArrayRef> = Vec::with_capacity(prefix_len);
        self.multiply(codec, &sets[..prefix_len], last, &mut prefix, &mut ranges)?;
        let mut covered = prefix_len + usize::from(last.is_some());
        while sets.get(covered).is_some_and(ValueSet::is_all) {
            covered += 1;
        }
        let overflow = last.is_none() && prefix_len < sets.len();
        Ok((ranges, covered, overflow))
    }

    fn multiply(
        &self,
        codec: &KeyCodec,
        points: &[ValueSet],
        last: Option<&ValueSet>,
        prefix: &mut Vec<ArrayRef>,
        out: &mut Vec<KeyRange>,
    ) -> Result<()> {
        let depth = prefix.len();
        let Some((first, rest)) = points.split_first() else {
            let Some(last) = last else {
                out.push(codec.range(prefix, Bound::Unbounded, Bound::Unbounded)?);
                return Ok(());
            };
            for (low, high) in &last.0 {
                let lower = lower_bound(self.types[depth], low)?;
                let upper = upper_bound(self.types[depth], high)?;
                out.push(codec.range(prefix, lower, upper)?);
            }
            return Ok(());
        };
        for (low, _) in &first.0 {
            prefix.push(point(self.types[depth], low)?);
            self.multiply(codec, rest, last, prefix, out)?;
            prefix.pop();
        }
        Ok(())
    }
}

fn literal(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) if !value.is_null() => Some(value),
        _ => None,
    }
}

/// Whether a cast keeps every value and their order, so that it may be left out of a comparison.
pub(crate) fn widens(from: &DataType, to: &DataType) -> bool {
    use DataType as D;
    let utc = |zone: &Option<Arc<str>>| {
        zone.as_deref().is_none_or(|z| matches!(z, "UTC" | "+00:00" | "Z" | "Etc/UTC"))
    };
    match (from, to) {
        (a, b) if a == b => true,
        (
            D::Int8 | D::Int16 | D::Int32 | D::UInt8 | D::UInt16 | D::UInt32 | D::Float32,
            D::Float64,
        ) => true,
        (D::Int8 | D::Int16 | D::UInt8 | D::UInt16, D::Float32) => true,
        (D::Decimal128(p, s), D::Decimal128(q, t) | D::Decimal256(q, t)) => {
            t >= s && places(*q, *t) >= places(*p, *s)
        }
        (a, D::Decimal128(q, t) | D::Decimal256(q, t)) => {
            *t >= 0 && integer_digits(a).is_some_and(|digits| places(*q, *t) >= digits)
        }
        (a, b) if a.is_integer() && b.is_integer() => match (integer_range(a), integer_range(b)) {
            (Some((a_low, a_high)), Some((b_low, b_high))) => b_low <= a_low && a_high <= b_high,
            _ => false,
        },
        (D::Timestamp(a, None), D::Timestamp(b, None)) => exponent(*b) >= exponent(*a),
        // A zone does not move an instant.
        (D::Timestamp(a, Some(_)), D::Timestamp(b, Some(_))) => exponent(*b) >= exponent(*a),
        (D::Timestamp(a, x), D::Timestamp(b, y)) => {
            utc(x) && utc(y) && exponent(*b) >= exponent(*a)
        }
        (D::Date32, D::Date64) => true,
        (D::Date32 | D::Date64, D::Timestamp(_, zone)) => utc(zone),
        (D::Time32(a) | D::Time64(a), D::Time32(b) | D::Time64(b)) => exponent(*b) >= exponent(*a),
        (D::Utf8 | D::LargeUtf8 | D::Utf8View, D::Utf8 | D::LargeUtf8 | D::Utf8View) => true,
        (
            D::Binary | D::LargeBinary | D::BinaryView,
            D::Binary | D::LargeBinary | D::BinaryView,
        ) => true,
        _ => false,
    }
}

/// Whether a cast keeps the order of values, though it may make some of them equal.
pub(crate) fn keeps_order(from: &DataType, to: &DataType) -> bool {
    widens(from, to) || (is_exact_number(from) && *to == DataType::Float64)
}

/// Digits of a decimal before its point.
fn places(precision: u8, scale: i8) -> i32 {
    i32::from(precision) - i32::from(scale)
}

/// Decimal digits of the values of an integer type.
fn integer_digits(data_type: &DataType) -> Option<i32> {
    Some(match data_type {
        DataType::Int8 | DataType::UInt8 => 3,
        DataType::Int16 | DataType::UInt16 => 5,
        DataType::Int32 | DataType::UInt32 => 10,
        DataType::Int64 => 19,
        DataType::UInt64 => 20,
        _ => return None,
    })
}

fn is_exact_number(data_type: &DataType) -> bool {
    data_type.is_integer() || matches!(data_type, DataType::Decimal128(..))
}

fn integer_range(data_type: &DataType) -> Option<(i128, i128)> {
    use DataType as D;
    Some(match data_type {
        D::Int8 => (i8::MIN.into(), i8::MAX.into()),
        D::Int16 => (i16::MIN.into(), i16::MAX.into()),
        D::Int32 | D::Date32 | D::Time32(_) => (i32::MIN.into(), i32::MAX.into()),
        D::Int64 | D::Date64 | D::Time64(_) | D::Timestamp(..) => {
            (i64::MIN.into(), i64::MAX.into())
        }
        D::UInt8 => (0, u8::MAX.into()),
        D::UInt16 => (0, u16::MAX.into()),
        D::UInt32 => (0, u32::MAX.into()),
        D::UInt64 => (0, u64::MAX.into()),
        D::Decimal128(..) => (-(10i128.pow(38) - 1), 10i128.pow(38) - 1),
        // Order-preserving integers of -inf and +inf.
        D::Float32 => (float_32(f32::NEG_INFINITY), float_32(f32::INFINITY)),
        D::Float64 => (float_64(f64::NEG_INFINITY), float_64(f64::INFINITY)),
        _ => return None,
    })
}

/// Decimal digits of a second that a unit counts.
fn exponent(unit: TimeUnit) -> i32 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

/// Integers in the order of the floats; neighbours differ by one. -0 is +0.
fn float_64(value: f64) -> i128 {
    let bits = if value == 0.0 { 0 } else { value.to_bits() as i64 };
    i128::from(if bits < 0 { i64::MIN.wrapping_sub(bits) } else { bits })
}

fn float_32(value: f32) -> i128 {
    let bits = if value == 0.0 { 0 } else { value.to_bits() as i32 };
    i128::from(if bits < 0 { i32::MIN.wrapping_sub(bits) } else { bits })
}

fn to_float_64(integer: i64) -> f64 {
    f64::from_bits(if integer < 0 { i64::MIN.wrapping_sub(integer) } else { integer } as u64)
}

fn to_float_32(integer: i32) -> f32 {
    f32::from_bits(if integer < 0 { i32::MIN.wrapping_sub(integer) } else { integer } as u32)
}

/// Where a literal lies among the values of a column.
enum Place {
    /// Between the cuts: the literal is a value of the column.
    Value(Cut, Cut),
    /// At the cut: it lies between two neighbours, or beyond all values.
    Gap(Cut),
}

/// The values of a column of `data_type` for which `column op value` holds; `None` where the types do
/// not compare in order.
pub(crate) fn compare(data_type: &DataType, op: Operator, value: &ScalarValue) -> Option<ValueSet> {
    passing(op, place(data_type, value)?)
}

/// [`compare`] of a column that may be cast to a double first.
fn compare_cast(
    data_type: &DataType,
    as_double: bool,
    op: Operator,
    value: &ScalarValue,
) -> Option<ValueSet> {
    match as_double {
        true => passing(op, double_place(data_type, float_value(value)?)?),
        false => compare(data_type, op, value),
    }
}

/// The values for which a comparison with a literal holds.
fn passing(op: Operator, place: Place) -> Option<ValueSet> {
    let (before, after) = match place {
        Place::Value(before, after) => (before, after),
        Place::Gap(cut) => (cut.clone(), cut),
    };
    Some(match op {
        Operator::Eq | Operator::IsNotDistinctFrom => ValueSet::between(before, after),
        Operator::NotEq | Operator::IsDistinctFrom => ValueSet::between(before, after).complement(),
        Operator::Lt => ValueSet::between(Cut::Low, before),
        Operator::LtEq => ValueSet::between(Cut::Low, after),
        Operator::Gt => ValueSet::between(after, Cut::High),
        Operator::GtEq => ValueSet::between(before, Cut::High),
        _ => return None,
    })
}

fn place(data_type: &DataType, value: &ScalarValue) -> Option<Place> {
    use DataType as D;
    match data_type {
        D::Utf8 | D::LargeUtf8 | D::Utf8View => value.try_as_str().flatten().map(bytes),
        D::Binary | D::LargeBinary | D::BinaryView => match value {
            ScalarValue::Binary(Some(b))
            | ScalarValue::LargeBinary(Some(b))
            | ScalarValue::BinaryView(Some(b)) => Some(bytes(b)),
            _ => None,
        },
        D::Float64 => float_place(data_type, float_value(value)?),
        D::Float32 => float_place(data_type, float_value(value)?),
        _ => exact_place(data_type, value),
    }
}

fn bytes(value: impl AsRef<[u8]>) -> Place {
    let value = value.as_ref();
    Place::Value(Cut::Bytes(value.to_vec(), false), Cut::Bytes(value.to_vec(), true))
}

/// A number as the planner would give it to a comparison with a float column.
fn float_value(value: &ScalarValue) -> Option<f64> {
    match value {
        ScalarValue::Float64(Some(v)) => Some(*v),
        ScalarValue::Float32(Some(v)) => Some(f64::from(*v)),
        other if is_exact_number(&other.data_type()) => {
            match other.cast_to(&DataType::Float64).ok()? {
                ScalarValue::Float64(v) => v,
                _ => None,
            }
        }
        _ => None,
    }
}

fn float_place(data_type: &DataType, value: f64) -> Option<Place> {
    if value.is_nan() {
        // Sorts after every number, and keys are numbers.
        return Some(Place::Gap(Cut::High));
    }
    let at = |i: i128| Place::Value(Cut::Int(i), Cut::Int(i + 1));
    if matches!(data_type, DataType::Float64) {
        return Some(at(float_64(value)));
    }
    let near = value as f32;
    let back = f64::from(near);
    let integer = float_32(near);
    Some(if back == value {
        at(integer)
    } else if back < value {
        Place::Gap(Cut::Int(integer + 1))
    } else {
        Place::Gap(Cut::Int(integer))
    })
}

/// An exact decimal: `mantissa / (10^scale * divisor)`.
struct Exact {
    mantissa: i128,
    scale: i32,
}

/// Seconds of a day.
const DAY: i128 = 86_400;

/// Where a double lies among the values of a column of exact numbers that are cast to doubles: several of them may become the same
/// one. The cast keeps their order, so that both ends are found by halving.
fn double_place(data_type: &DataType, value: f64) -> Option<Place> {
    if value.is_nan() {
        return Some(Place::Gap(Cut::High));
    }
    // As arrow casts.
    let divisor = match data_type {
        DataType::Decimal128(_, scale) => 10_f64.powi(i32::from(*scale)),
        _ => 1.0,
    };
    let (min, max) = integer_range(data_type)?;
    let first = |reached: &dyn Fn(f64) -> bool| {
        let (mut low, mut high) = (min, max + 1);
        while low < high {
            // The mean, without an overflow on the way.
            let middle = (low & high) + ((low ^ high) >> 1);
            match reached(middle as f64 / divisor) {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        low
    };
    let (from, to) = (first(&|v| v >= value), first(&|v| v > value));
    Some(match from < to {
        true => Place::Value(Cut::Int(from), Cut::Int(to)),
        false => Place::Gap(Cut::Int(from)),
    })
}

fn exact_place(data_type: &DataType, value: &ScalarValue) -> Option<Place> {
    use DataType as D;
    // A decimal is compared with a double as one; an integer exactly.
    if let (D::Decimal128(..), ScalarValue::Float64(Some(_)) | ScalarValue::Float32(Some(_))) =
        (data_type, value)
    {
        return double_place(data_type, float_value(value)?);
    }
    let same_kind = matches!(
        (data_type, &value.data_type()),
        (D::Date32 | D::Date64 | D::Timestamp(..), D::Date32 | D::Date64 | D::Timestamp(..))
            | (D::Time32(_) | D::Time64(_), D::Time32(_) | D::Time64(_))
    ) || (is_exact_number(data_type)
        && (is_exact_number(&value.data_type()) || value.data_type().is_floating()));
    if !same_kind {
        return None;
    }
    if let Some(infinite) = infinity(value) {
        return Some(Place::Gap(infinite));
    }
    let (low, high) = integer_range(data_type)?;
    if let ScalarValue::Float64(Some(_)) | ScalarValue::Float32(Some(_)) = value {
        return Some(integer_place(float_value(value)?, low, high));
    }
    let exact = exact_value(value)?;
    // How many of the column's units make one of the literal's (10^power, and days in seconds).
    let (scale, day) = match data_type {
        D::Decimal128(_, s) => (i32::from(*s), 1),
        D::Timestamp(u, _) | D::Time32(u) | D::Time64(u) => (exponent(*u), 1),
        D::Date64 => (3, 1),
        D::Date32 => (0, DAY),
        _ => (0, 1),
    };
    let (floor, is_exact) = match floor(exact.mantissa, scale - exact.scale, day) {
        Some(found) => found,
        None => {
            return Some(Place::Gap(if exact.mantissa < 0 { Cut::Low } else { Cut::High }));
        }
    };
    Some(if floor < low {
        Place::Gap(Cut::Low)
    } else if floor > high {
        Place::Gap(Cut::High)
    } else if is_exact {
        Place::Value(Cut::Int(floor), Cut::Int(floor + 1))
    } else {
        Place::Gap(Cut::Int(floor + 1))
    })
}

/// Where a finite double lies among integers.
fn integer_place(value: f64, low: i128, high: i128) -> Place {
    // Beyond 128 bits this is the last integer, which is outside of every type.
    let floor = value.floor() as i128;
    if floor < low {
        Place::Gap(Cut::Low)
    } else if floor > high {
        Place::Gap(Cut::High)
    } else if value.fract() == 0.0 {
        Place::Value(Cut::Int(floor), Cut::Int(floor + 1))
    } else {
        Place::Gap(Cut::Int(floor + 1))
    }
}

fn infinity(value: &ScalarValue) -> Option<Cut> {
    let value = match value {
        ScalarValue::Float64(Some(v)) => *v,
        ScalarValue::Float32(Some(v)) => f64::from(*v),
        _ => return None,
    };
    match value {
        v if v.is_nan() || v == f64::INFINITY => Some(Cut::High),
        f64::NEG_INFINITY => Some(Cut::Low),
        _ => None,
    }
}

/// The largest integer that is not above `mantissa * 10^power / divisor`, and whether it is equal.
/// `None` where it is beyond 128 bits.
fn floor(mantissa: i128, power: i32, divisor: i128) -> Option<(i128, bool)> {
    let (dividend, divisor) = if power >= 0 {
        (mantissa.checked_mul(ten_to(power)?)?, divisor)
    } else {
        match ten_to(-power).and_then(|p| p.checked_mul(divisor)) {
            Some(divisor) => (mantissa, divisor),
            // Smaller than one in size.
            None => return Some((if mantissa < 0 { -1 } else { 0 }, mantissa == 0)),
        }
    };
    Some((dividend.div_euclid(divisor), dividend.rem_euclid(divisor) == 0))
}

fn ten_to(power: i32) -> Option<i128> {
    10i128.checked_pow(u32::try_from(power).ok()?)
}

/// A literal as an exact decimal; times and instants in seconds.
fn exact_value(value: &ScalarValue) -> Option<Exact> {
    use ScalarValue as S;
    let (mantissa, scale) = match value {
        S::Int8(Some(v)) => (i128::from(*v), 0),
        S::Int16(Some(v)) => (i128::from(*v), 0),
        S::Int32(Some(v)) => (i128::from(*v), 0),
        S::Int64(Some(v)) => (i128::from(*v), 0),
        S::UInt8(Some(v)) => (i128::from(*v), 0),
        S::UInt16(Some(v)) => (i128::from(*v), 0),
        S::UInt32(Some(v)) => (i128::from(*v), 0),
        S::UInt64(Some(v)) => (i128::from(*v), 0),
        S::Decimal128(Some(v), _, s) => (*v, i32::from(*s)),
        S::Date32(Some(v)) => (i128::from(*v) * DAY, 0),
        S::Date64(Some(v)) => (i128::from(*v), 3),
        S::Time32Second(Some(v)) => (i128::from(*v), 0),
        S::Time32Millisecond(Some(v)) => (i128::from(*v), 3),
        S::Time64Microsecond(Some(v)) => (i128::from(*v), 6),
        S::Time64Nanosecond(Some(v)) => (i128::from(*v), 9),
        S::TimestampSecond(Some(v), _) => (i128::from(*v), 0),
        S::TimestampMillisecond(Some(v), _) => (i128::from(*v), 3),
        S::TimestampMicrosecond(Some(v), _) => (i128::from(*v), 6),
        S::TimestampNanosecond(Some(v), _) => (i128::from(*v), 9),
        _ => return None,
    };
    Some(Exact { mantissa, scale })
}

/// The bound that a cut means as the lower end of an interval, as an array of one row.
fn lower_bound(data_type: &DataType, cut: &Cut) -> Result<Bound<ArrayRef>> {
    Ok(match cut {
        Cut::Low => Bound::Unbounded,
        Cut::Int(i) => match integer_range(data_type) {
            Some((low, _)) if *i <= low => Bound::Unbounded,
            _ => Bound::Included(integer(data_type, *i)?),
        },
        Cut::Bytes(b, false) => Bound::Included(byte_value(data_type, b)?),
        Cut::Bytes(b, true) => Bound::Excluded(byte_value(data_type, b)?),
        Cut::High => return Err(Error::internal("an interval of keys begins after all values")),
    })
}

/// The bound that a cut means as the upper end of an interval.
fn upper_bound(data_type: &DataType, cut: &Cut) -> Result<Bound<ArrayRef>> {
    Ok(match cut {
        Cut::High => Bound::Unbounded,
        Cut::Int(i) => match integer_range(data_type) {
            Some((_, high)) if *i > high => Bound::Unbounded,
            _ => Bound::Included(integer(data_type, *i - 1)?),
        },
        Cut::Bytes(b, false) => Bound::Excluded(byte_value(data_type, b)?),
        Cut::Bytes(b, true) => Bound::Included(byte_value(data_type, b)?),
        Cut::Low => return Err(Error::internal("an interval of keys ends before all values")),
    })
}

/// The value right after a cut.
fn point(data_type: &DataType, cut: &Cut) -> Result<ArrayRef> {
    match cut {
        Cut::Int(i) => integer(data_type, *i),
        Cut::Bytes(b, _) => byte_value(data_type, b),
        Cut::Low | Cut::High => Err(Error::internal("a point of a key is not finite")),
    }
}

fn byte_value(data_type: &DataType, value: &[u8]) -> Result<ArrayRef> {
    let array: ArrayRef = match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let text = std::str::from_utf8(value)
                .map_err(|_| Error::internal("a text key is not UTF-8"))?;
            Arc::new(StringArray::from(vec![text]))
        }
        _ => Arc::new(BinaryArray::from(vec![value])),
    };
    Ok(arrow::compute::cast(&array, data_type)?)
}

/// The value of a column that an integer stands for.
fn integer(data_type: &DataType, value: i128) -> Result<ArrayRef> {
    use DataType as D;
    let out_of_range =
        |_| Error::internal(format!("the key {value} is out of range of {data_type}"));
    let scalar = match data_type {
        D::Float64 => {
            ScalarValue::Float64(Some(to_float_64(value.try_into().map_err(out_of_range)?)))
        }
        D::Float32 => {
            ScalarValue::Float32(Some(to_float_32(value.try_into().map_err(out_of_range)?)))
        }
        D::Decimal128(p, s) => ScalarValue::Decimal128(Some(value), *p, *s),
        D::UInt64 => ScalarValue::UInt64(Some(value.try_into().map_err(out_of_range)?)),
        D::Int8 | D::Int16 | D::Int32 | D::UInt8 | D::UInt16 | D::UInt32 => {
            ScalarValue::Int64(Some(value.try_into().map_err(out_of_range)?)).cast_to(data_type)?
        }
        D::Int64 => ScalarValue::Int64(Some(value.try_into().map_err(out_of_range)?)),
        D::Date32 => ScalarValue::Date32(Some(value.try_into().map_err(out_of_range)?)),
        D::Date64 => ScalarValue::Date64(Some(value.try_into().map_err(out_of_range)?)),
        D::Time32(TimeUnit::Second) => {
            ScalarValue::Time32Second(Some(value.try_into().map_err(out_of_range)?))
        }
        D::Time32(_) => {
            ScalarValue::Time32Millisecond(Some(value.try_into().map_err(out_of_range)?))
        }
        D::Time64(TimeUnit::Microsecond) => {
            ScalarValue::Time64Microsecond(Some(value.try_into().map_err(out_of_range)?))
        }
        D::Time64(_) => {
            ScalarValue::Time64Nanosecond(Some(value.try_into().map_err(out_of_range)?))
        }
        D::Timestamp(unit, zone) => {
            let value = Some(value.try_into().map_err(out_of_range)?);
            let zone = zone.clone();
            match unit {
                TimeUnit::Second => ScalarValue::TimestampSecond(value, zone),
                TimeUnit::Millisecond => ScalarValue::TimestampMillisecond(value, zone),
                TimeUnit::Microsecond => ScalarValue::TimestampMicrosecond(value, zone),
                TimeUnit::Nanosecond => ScalarValue::TimestampNanosecond(value, zone),
            }
        }
        other => return Err(Error::internal(format!("a key of type {other} has no integers"))),
    };
    if scalar.is_null() {
        return Ok(new_empty_array(data_type));
    }
    Ok(scalar.to_array()?)
}

#[cfg(test)]
mod tests;
