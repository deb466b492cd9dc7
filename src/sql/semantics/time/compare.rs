//! Comparisons of dates, times, timestamps, booleans and binary with each other and with texts, exactly.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Decimal128Array, Int64Array};
use arrow::compute::kernels::numeric::{add, sub};
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Between, InList};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, ScalarUDF, lit, not};

use super::calendar::{NANOS_PER_SECOND, SECONDS_PER_DAY, ticks_per_second};
use super::cast_function::failure_of;
use super::common_type::is_temporal;
use super::function::Function;
use super::rules::{Typed, Types};
use crate::sql::cast::{CastPolicy, cast_array};
use crate::sql::semantics::time_zone::is_text;
use crate::sql::types::UTC;

/// How two values meet.
enum Meeting {
    /// As DataFusion takes them.
    Plain,
    /// As these.
    Cast(Expr, Expr),
    /// As these, which are no longer the columns themselves.
    Keys(Expr, Expr),
    /// The right one lies past the end (`true`) or before the beginning of what the left one can be.
    Beyond(Typed, bool),
    /// The right one lies between this value and the next that the left one can be.
    Amid(Typed, ScalarValue),
}

impl Types {
    /// An operator with two operands.
    pub(super) fn binary(&self, binary: &BinaryExpr, schema: &DFSchema) -> Result<Option<Expr>> {
        let BinaryExpr { left, op, right } = binary;
        let compares = is_comparison(*op);
        if !compares && !matches!(op, Operator::Plus | Operator::Minus) {
            return Ok(None);
        }
        let (Some(left), Some(right)) = (Typed::new(left, schema), Typed::new(right, schema))
        else {
            return Ok(None);
        };
        if compares { self.comparison(left, *op, right) } else { self.sum(left, *op, right) }
    }

    fn comparison(&self, left: Typed, op: Operator, right: Typed) -> Result<Option<Expr>> {
        if left.literal().is_some()
            && right.literal().is_none()
            && let Some(op) = op.swap()
        {
            return self.comparison(right, op, left);
        }
        let plain = |l, r| Expr::BinaryExpr(BinaryExpr::new(Box::new(l), op, Box::new(r)));
        Ok(match self.meet(left, right)? {
            Meeting::Cast(l, r) | Meeting::Keys(l, r) => Some(plain(l, r)),
            Meeting::Beyond(value, later) => Some(beyond(value, op, later)?),
            Meeting::Amid(value, floor) => Some(amid(value, op, floor)?),
            Meeting::Plain => None,
        })
    }

    pub(super) fn between(&self, between: &Between, schema: &DFSchema) -> Result<Option<Expr>> {
        let Between { expr, negated, low, high } = between;
        let (at_least, at_most, both) = match negated {
            false => (Operator::GtEq, Operator::LtEq, Operator::And),
            true => (Operator::Lt, Operator::Gt, Operator::Or),
        };
        let side = |op, bound: &Expr| BinaryExpr::new(expr.clone(), op, Box::new(bound.clone()));
        let (low, high) = (side(at_least, low), side(at_most, high));
        let (new_low, new_high) = (self.binary(&low, schema)?, self.binary(&high, schema)?);
        if new_low.is_none() && new_high.is_none() {
            return Ok(None);
        }
        let low = new_low.unwrap_or(Expr::BinaryExpr(low));
        let high = new_high.unwrap_or(Expr::BinaryExpr(high));
        Ok(Some(Expr::BinaryExpr(BinaryExpr::new(Box::new(low), both, Box::new(high)))))
    }

    pub(super) fn in_list(&self, list: &InList, schema: &DFSchema) -> Result<Option<Expr>> {
        let Some(value) = Typed::new(&list.expr, schema) else { return Ok(None) };
        let mut items = Vec::with_capacity(list.list.len());
        let mut others = Vec::new();
        let mut changed = false;
        for item in &list.list {
            let Some(typed) = Typed::new(item, schema) else { return Ok(None) };
            match self.meet(value.clone(), typed)? {
                Meeting::Plain => items.push(item.clone()),
                Meeting::Cast(left, item) if left == value.expr => {
                    items.push(item);
                    changed = true;
                }
                Meeting::Cast(left, right) | Meeting::Keys(left, right) => {
                    let equal = BinaryExpr::new(Box::new(left), Operator::Eq, Box::new(right));
                    others.push(Expr::BinaryExpr(equal));
                }
                Meeting::Beyond(value, _) | Meeting::Amid(value, _) => {
                    // It is none of the values; one test that says so is enough.
                    let test = beyond(value, Operator::Eq, true)?;
                    if !others.contains(&test) {
                        others.push(test);
                    }
                }
            }
        }
        if !changed && others.is_empty() {
            return Ok(None);
        }
        let negated = list.negated;
        if others.is_empty() {
            return Ok(Some(Expr::InList(InList {
                expr: list.expr.clone(),
                list: items,
                negated,
            })));
        }
        if !items.is_empty() {
            let expr = list.expr.clone();
            others.push(Expr::InList(InList { expr, list: items, negated: false }));
        }
        let any = others.into_iter().reduce(Expr::or).unwrap_or_else(|| lit(false));
        Ok(Some(if negated { not(any) } else { any }))
    }

    /// The keys of a join.
    pub(super) fn join_keys(&self, left: Typed, right: Typed) -> Result<Option<(Expr, Expr)>> {
        Ok(match self.meet(left, right)? {
            Meeting::Cast(l, r) | Meeting::Keys(l, r) => Some((l, r)),
            Meeting::Plain | Meeting::Beyond(..) | Meeting::Amid(..) => None,
        })
    }

    /// Sums and differences with a timestamp in them.
    fn sum(&self, left: Typed, op: Operator, right: Typed) -> Result<Option<Expr>> {
        use DataType::*;
        let make = |l, r| Expr::BinaryExpr(BinaryExpr::new(Box::new(l), op, Box::new(r)));
        Ok(match (&left.data_type, &right.data_type) {
            (Timestamp(_, a), Timestamp(_, b)) if a.is_some() != b.is_some() => {
                let (l, r) = self.in_one_zone(left, right)?;
                Some(make(l.expr, r.expr))
            }
            (Date32 | Date64, Timestamp(u, z)) if op == Operator::Minus => {
                let to = Timestamp(*u, z.clone());
                Some(make(self.as_type(left, &to)?, right.expr))
            }
            (Timestamp(u, z), Date32 | Date64) if op == Operator::Minus => {
                let to = Timestamp(*u, z.clone());
                Some(make(left.expr.clone(), self.as_type(right, &to)?))
            }
            (Date32 | Date64, Interval(_)) => Some(self.midnight_sum(left, right, make)?),
            (Interval(_), Date32 | Date64) if op == Operator::Plus => {
                Some(self.midnight_sum(right, left, |day, length| make(length, day))?)
            }
            // Days and months are those of the session's calendar.
            (Timestamp(u, Some(label)), Interval(_)) if **label == *UTC && !self.zone.is_utc() => {
                let (utc, here) = (left.data_type.clone(), self.here(*u));
                let sum = make(self.as_type(left, &here)?, right.expr);
                Some(self.as_type(Typed { expr: sum, data_type: here }, &utc)?)
            }
            (Interval(_), Timestamp(u, Some(label))) if **label == *UTC && !self.zone.is_utc() => {
                let (utc, here) = (right.data_type.clone(), self.here(*u));
                let sum = make(left.expr, self.as_type(right, &here)?);
                Some(self.as_type(Typed { expr: sum, data_type: here }, &utc)?)
            }
            _ => None,
        })
    }

    /// A date and an interval make a timestamp, at once where both are literals: a condition with it can be held against a key.
    fn midnight_sum(
        &self,
        date: Typed,
        interval: Typed,
        make: impl Fn(Expr, Expr) -> Expr,
    ) -> Result<Expr> {
        let literals = date.literal().is_some() && interval.literal().is_some();
        let midnight = self.as_type(date, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
        let sum = make(midnight, interval.expr);
        Ok(match &sum {
            Expr::BinaryExpr(binary) if literals => literal_sum(binary).unwrap_or(sum),
            _ => sum,
        })
    }

    fn in_one_zone(&self, left: Typed, right: Typed) -> Result<(Typed, Typed)> {
        let into = |typed: Typed, label: &Arc<str>| -> Result<Typed> {
            let DataType::Timestamp(unit, _) = typed.data_type else { return Ok(typed) };
            let to = DataType::Timestamp(unit, Some(Arc::clone(label)));
            Ok(Typed { expr: self.as_type(typed, &to)?, data_type: to })
        };
        Ok(match (&left.data_type, &right.data_type) {
            (DataType::Timestamp(_, Some(a)), DataType::Timestamp(_, b))
                if b.as_ref() != Some(a) =>
            {
                let label = Arc::clone(a);
                (left, into(right, &label)?)
            }
            (DataType::Timestamp(_, None), DataType::Timestamp(_, Some(b))) => {
                let label = Arc::clone(b);
                (into(left, &label)?, right)
            }
            _ => (left, right),
        })
    }

    /// Brings two values that are compared to types that DataFusion compares exactly.
    fn meet(&self, left: Typed, right: Typed) -> Result<Meeting> {
        use DataType::*;
        let (l, r) = (&left.data_type, &right.data_type);
        if l.is_null() || r.is_null() || (l == r && !matches!(l, Interval(_))) {
            return Ok(Meeting::Plain);
        }
        if let Some(meeting) = super::interval::meet(&left, &right)? {
            return Ok(Meeting::Keys(meeting.0, meeting.1));
        }
        let (left, right, changed) = match (is_text(l), is_text(r)) {
            (false, true) if is_readable(l, &right) => {
                let right = self.read(right, l)?;
                (left, right, true)
            }
            (true, false) if is_readable(r, &left) => {
                let left = self.read(left, r)?;
                (left, right, true)
            }
            _ => (left, right, false),
        };
        if let Some(meeting) = within_days(&left, &right)? {
            return Ok(meeting);
        }
        let day = |typed: Typed, beside: &DataType| -> Result<(Typed, bool)> {
            match (&typed.data_type, beside) {
                (Date32 | Date64, Timestamp(unit, zone)) => {
                    // No date is too far for microseconds.
                    let unit =
                        if *unit == TimeUnit::Nanosecond { TimeUnit::Microsecond } else { *unit };
                    let to = Timestamp(unit, zone.clone());
                    Ok((Typed { expr: self.as_type(typed, &to)?, data_type: to }, true))
                }
                _ => Ok((typed, false)),
            }
        };
        let (left, left_day) = day(left, &right.data_type)?;
        let (right, right_day) = day(right, &left.data_type)?;
        let changed = changed || left_day || right_day;
        let (Timestamp(_, a), Timestamp(_, b)) = (&left.data_type, &right.data_type) else {
            return Ok(match changed {
                true => Meeting::Cast(left.expr, right.expr),
                false => Meeting::Plain,
            });
        };
        let changed = changed || a != b;
        let (left, right) = self.in_one_zone(left, right)?;
        units(left, right, changed)
    }

    /// A text as a value beside one of type `beside`.
    fn read(&self, text: Typed, beside: &DataType) -> Result<Typed> {
        let Some(value) = text.literal() else {
            let expr = self.as_type(text, beside)?;
            return Ok(Typed { expr, data_type: beside.clone() });
        };
        if matches!(beside, DataType::Binary | DataType::LargeBinary | DataType::BinaryView) {
            return Ok(Typed { expr: read_binary(value, beside)?, data_type: beside.clone() });
        }
        let DataType::Timestamp(unit, zone) = beside else {
            let expr = self.as_type(text, beside)?;
            return Ok(Typed { expr, data_type: beside.clone() });
        };
        // It has the precision of microseconds, or finer beside what is finer.
        let micros = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
        if *unit == TimeUnit::Nanosecond
            && let Ok(expr) = self.as_type(text.clone(), beside)
        {
            return Ok(Typed { expr, data_type: beside.clone() });
        }
        Ok(Typed { expr: self.as_type(text, &micros)?, data_type: micros })
    }
}

/// A text as binary: hexadecimal after `\x`.
pub(super) fn read_binary(value: &ScalarValue, to: &DataType) -> Result<Expr> {
    let array = value.to_array()?;
    let bytes = cast_array(&array, &DataType::Binary, CastPolicy::Assign)
        .map_err(|f| failure_of(&array, to, &f))?;
    Ok(Expr::Literal(ScalarValue::try_from_array(&bytes, 0)?.cast_to(to)?, None))
}

/// Whether an operator compares.
pub(super) fn is_comparison(op: Operator) -> bool {
    use Operator as O;
    matches!(
        op,
        O::Eq
            | O::NotEq
            | O::Lt
            | O::LtEq
            | O::Gt
            | O::GtEq
            | O::IsDistinctFrom
            | O::IsNotDistinctFrom
    )
}

/// Whether a text beside a value of a type is read as one.
fn is_readable(beside: &DataType, text: &Typed) -> bool {
    use DataType::*;
    match beside {
        Boolean | Binary | LargeBinary | BinaryView => text.literal().is_some(),
        other => is_temporal(other),
    }
}

/// Timestamps of one zone and maybe different units.
fn units(left: Typed, right: Typed, changed: bool) -> Result<Meeting> {
    let (DataType::Timestamp(l, _), DataType::Timestamp(r, _)) =
        (&left.data_type, &right.data_type)
    else {
        return Ok(Meeting::Plain);
    };
    let plain = |left: Typed, right: Typed| match changed {
        true => Meeting::Cast(left.expr, right.expr),
        false => Meeting::Plain,
    };
    if l == r {
        return Ok(plain(left, right));
    }
    // A literal of the other's unit, where it has the same value there.
    match in_unit(&right, &left.data_type)? {
        Place::At(right) => return Ok(Meeting::Cast(left.expr, right)),
        Place::Amid(floor) => return Ok(Meeting::Amid(left, floor)),
        Place::Beyond(later) => return Ok(Meeting::Beyond(left, later)),
        Place::Unknown => {}
    }
    if let Place::At(left) = in_unit(&left, &right.data_type)? {
        return Ok(Meeting::Cast(left, right.expr));
    }
    // DataFusion would take its cast from the coarser one and cut a constant beside it to its unit.
    let key = |typed: Typed| instant().call(vec![typed.expr]);
    Ok(Meeting::Keys(key(left), key(right)))
}

/// Where a literal lies among the values of another type.
enum Place {
    /// It is none.
    Unknown,
    At(Expr),
    /// Between this value and the next.
    Amid(ScalarValue),
    /// Past the end (`true`) or before the beginning.
    Beyond(bool),
}

/// A timestamp among those of another unit.
fn in_unit(typed: &Typed, to: &DataType) -> Result<Place> {
    let Some(value) = typed.literal() else { return Ok(Place::Unknown) };
    if value.is_null() {
        return Ok(Place::At(Expr::Literal(ScalarValue::try_from(to)?, None)));
    }
    let (DataType::Timestamp(from, _), DataType::Timestamp(unit, _), Some(ticks)) =
        (&typed.data_type, to, ticks_of(value)?)
    else {
        return Ok(Place::Unknown);
    };
    let (from, unit) = (ticks_per_second(*from), ticks_per_second(*unit));
    let place = |ticks: i64| ScalarValue::Int64(Some(ticks)).cast_to(to);
    Ok(if unit >= from {
        match ticks.checked_mul(unit / from) {
            Some(ticks) => Place::At(Expr::Literal(place(ticks)?, None)),
            None => Place::Beyond(ticks > 0),
        }
    } else {
        let floor = place(ticks.div_euclid(from / unit))?;
        match ticks.rem_euclid(from / unit) {
            0 => Place::At(Expr::Literal(floor, None)),
            _ => Place::Amid(floor),
        }
    })
}

/// The number that a date or timestamp is kept as.
fn ticks_of(value: &ScalarValue) -> Result<Option<i64>> {
    match value.cast_to(&DataType::Int64)? {
        ScalarValue::Int64(ticks) => Ok(ticks),
        _ => Ok(None),
    }
}

/// A date beside a literal of a timestamp: the literal as a date, so that a key of dates can be held against it.
fn within_days(left: &Typed, right: &Typed) -> Result<Option<Meeting>> {
    let (DataType::Date32, DataType::Timestamp(unit, None)) = (&left.data_type, &right.data_type)
    else {
        return Ok(None);
    };
    let Some(value) = right.literal().filter(|value| !value.is_null()) else { return Ok(None) };
    let Some(ticks) = ticks_of(value)? else { return Ok(None) };
    let per_day = ticks_per_second(*unit) * SECONDS_PER_DAY;
    let left = left.clone();
    let Ok(day) = i32::try_from(ticks.div_euclid(per_day)) else {
        return Ok(Some(Meeting::Beyond(left, ticks > 0)));
    };
    let day = ScalarValue::Date32(Some(day));
    Ok(Some(match ticks.rem_euclid(per_day) {
        0 => Meeting::Cast(left.expr, Expr::Literal(day, None)),
        _ => Meeting::Amid(left, day),
    }))
}

/// The sum or difference of two literals; `None` where there is none, as the statement will say when it runs.
fn literal_sum(binary: &BinaryExpr) -> Option<Expr> {
    let (Expr::Literal(left, _), Expr::Literal(right, _)) =
        (binary.left.as_ref(), binary.right.as_ref())
    else {
        return None;
    };
    let (left, right) = (left.to_scalar().ok()?, right.to_scalar().ok()?);
    let sum = match binary.op {
        Operator::Plus => add(&left, &right),
        _ => sub(&left, &right),
    };
    Some(Expr::Literal(ScalarValue::try_from_array(&sum.ok()?, 0).ok()?, None))
}

/// `value op literal` where the literal lies between `floor` and the next value of the type.
fn amid(value: Typed, op: Operator, floor: ScalarValue) -> Result<Expr> {
    let test = match op {
        Operator::Lt | Operator::LtEq => Operator::LtEq,
        Operator::Gt | Operator::GtEq => Operator::Gt,
        _ => return beyond(value, op, true),
    };
    let (value, floor) = (Box::new(value.expr), Box::new(Expr::Literal(floor, None)));
    Ok(Expr::BinaryExpr(BinaryExpr::new(value, test, floor)))
}

/// `value op literal` where the literal is later (or earlier) than any value of the type.
fn beyond(value: Typed, op: Operator, later: bool) -> Result<Expr> {
    let last = match &value.data_type {
        DataType::Date32 => ScalarValue::Date32(Some(if later { i32::MAX } else { i32::MIN })),
        other => {
            ScalarValue::Int64(Some(if later { i64::MAX } else { i64::MIN })).cast_to(other)?
        }
    };
    // True of every value and NULL of NULL, and the like that is false.
    let (always, never) =
        if later { (Operator::LtEq, Operator::Gt) } else { (Operator::GtEq, Operator::Lt) };
    let test = match op {
        Operator::IsDistinctFrom => return Ok(lit(true)),
        Operator::IsNotDistinctFrom => return Ok(lit(false)),
        Operator::NotEq => always,
        Operator::Lt | Operator::LtEq if later => always,
        Operator::Gt | Operator::GtEq if !later => always,
        _ => never,
    };
    let last = Expr::Literal(last, None);
    Ok(Expr::BinaryExpr(BinaryExpr::new(Box::new(value.expr), test, Box::new(last))))
}

/// The number of nanoseconds since 1970 of a timestamp, however far: what timestamps of different units are compared by.
fn instant() -> ScalarUDF {
    Function::udf(
        "time_instant",
        |types| Ok(types.to_vec()),
        |_| Ok(DataType::Decimal128(38, 0)),
        |arrays, _| {
            let array: &ArrayRef = &arrays[0];
            let DataType::Timestamp(unit, _) = array.data_type() else {
                return Ok(arrow::array::new_null_array(&DataType::Decimal128(38, 0), array.len()));
            };
            let factor = i128::from(NANOS_PER_SECOND / ticks_per_second(*unit));
            let ticks = arrow::compute::cast(array, &DataType::Int64)?;
            let ticks = ticks.as_any().downcast_ref::<Int64Array>();
            let nanos: Decimal128Array =
                ticks.into_iter().flatten().map(|t| t.map(|t| i128::from(t) * factor)).collect();
            Ok(Arc::new(nanos.with_precision_and_scale(38, 0)?))
        },
    )
}
