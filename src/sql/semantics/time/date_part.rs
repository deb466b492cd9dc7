//! `date_part` and `extract` without DataFusion's rewriting of conditions that it cannot make exactly: a year that nanoseconds
//! cannot hold became NULL (apache/datafusion#25135). And with the fractions of seconds and milliseconds, which DataFusion cuts.

use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array};
use arrow::compute::cast;
use arrow::compute::kernels::cast_utils::IntervalUnit;
use arrow::datatypes::{DataType, FieldRef, Int32Type, Int64Type, IntervalMonthDayNano};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use super::calendar::{NANOS_PER_SECOND, digits_of};
use super::cast::{Unfit, cast_time};
use super::cast_function::failure_of;
use super::common_type::{Item, common_type};
use super::interval::{INTERVAL, intervals, is_interval};
use crate::sql::types::UTC;

/// DataFusion's function, under a name or its own.
#[derive(Debug)]
pub(crate) struct Wrapped {
    inner: Arc<ScalarUDF>,
    name: String,
    aliases: Vec<String>,
    /// Whether its value is one of its arguments.
    chooses: bool,
    fractions: Fractions,
}

/// What the seconds and milliseconds of a time are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fractions {
    /// What DataFusion's function answers.
    Inner,
    /// `date_part`: doubles.
    Doubles,
    /// `extract`: decimals, with as many digits as the time has.
    Decimals,
}

impl Wrapped {
    /// `date_part`.
    pub(crate) fn date_part() -> ScalarUDF {
        Self::part(Fractions::Doubles)
    }

    /// `EXTRACT(part FROM time)`.
    pub(crate) fn extract() -> ScalarUDF {
        Self::part(Fractions::Decimals)
    }

    fn part(fractions: Fractions) -> ScalarUDF {
        let inner = datafusion::functions::datetime::date_part();
        let aliases = inner.aliases().to_vec();
        let name = inner.name().to_owned();
        ScalarUDF::from(Self { name, aliases, inner, chooses: false, fractions })
    }

    /// Functions that choose among their arguments: these may be timestamps and texts of such.
    pub(crate) fn choices() -> Vec<ScalarUDF> {
        use datafusion::functions::core;
        let wrap = |inner: Arc<ScalarUDF>| {
            let (name, aliases) = (inner.name().to_owned(), inner.aliases().to_vec());
            ScalarUDF::from(Self {
                name,
                aliases,
                inner,
                chooses: true,
                fractions: Fractions::Inner,
            })
        };
        [core::coalesce(), core::greatest(), core::least()].map(wrap).into()
    }

    /// The function with patterns such as `%Y-%m-%d`.
    pub(crate) fn strftime() -> ScalarUDF {
        let inner = datafusion::functions::datetime::to_char();
        ScalarUDF::from(Self {
            name: "strftime".to_owned(),
            aliases: vec!["date_format".to_owned()],
            chooses: false,
            fractions: Fractions::Inner,
            inner,
        })
    }

    /// The digits after the point of the part, where it has any.
    fn scale(&self, part: Option<&ScalarValue>, of: &DataType) -> Option<i8> {
        let part = part?.try_as_str()??;
        let finer = moved_digits(part).filter(|moved| *moved < 6 || is_interval(of))?;
        let digits = match of {
            DataType::Timestamp(unit, _) | DataType::Time32(unit) | DataType::Time64(unit) => {
                digits_of(*unit).max(6)
            }
            _ => 6,
        };
        (self.fractions != Fractions::Inner).then_some(digits as i8 - finer as i8)
    }

    fn fraction_type(&self, scale: i8) -> DataType {
        match self.fractions {
            Fractions::Decimals => DataType::Decimal128(FRACTION_DIGITS, scale),
            _ => DataType::Float64,
        }
    }

    /// Instants as the clocks of their zone show them, but for their distance from 1970: Arrow's tables of zones end in 2100.
    fn on_clocks(&self, mut args: ScalarFunctionArgs) -> Result<ScalarFunctionArgs> {
        let [_, field] = args.arg_fields.as_slice() else { return Ok(args) };
        let DataType::Timestamp(unit, Some(label)) = field.data_type() else { return Ok(args) };
        if self.fractions == Fractions::Inner || is_epoch(&args) || **label == *UTC {
            return Ok(args);
        }
        let to = DataType::Timestamp(*unit, None);
        let cast = |array: &ArrayRef| {
            let cast = cast_time(array, &to, Unfit::Fails);
            cast.map_err(|failure| failure_of(array, &to, &failure))
        };
        let clocks = match &args.args[1] {
            ColumnarValue::Array(array) => ColumnarValue::Array(cast(array)?),
            ColumnarValue::Scalar(value) => {
                let one = cast(&value.to_array()?)?;
                ColumnarValue::Scalar(ScalarValue::try_from_array(&one, 0)?)
            }
        };
        args.arg_fields[1] = Arc::new(field.as_ref().clone().with_data_type(to));
        args.args[1] = clocks;
        Ok(args)
    }

    /// Seconds, milliseconds or microseconds: nanoseconds with the point moved.
    fn fractions(&self, mut args: ScalarFunctionArgs, scale: i8) -> Result<ColumnarValue> {
        let part = match &args.args[0] {
            ColumnarValue::Scalar(part) => part.try_as_str().flatten().and_then(moved_digits),
            ColumnarValue::Array(_) => None,
        };
        let moved = part.unwrap_or_default();
        let to = args.return_field.data_type().clone();
        let rows = args.number_rows;
        let is_scalar = matches!(args.args[1], ColumnarValue::Scalar(_));
        let values = args.args[1].to_array(if is_scalar { 1 } else { rows })?;
        let nanos: ArrayRef = match values.data_type() {
            DataType::Date32 | DataType::Date64 => {
                let days = cast(&cast(&values, &DataType::Date32)?, &DataType::Int32)?;
                let none: Int64Array = days.as_primitive::<Int32Type>().unary(|_| 0);
                Arc::new(none)
            }
            data_type if is_interval(data_type) => {
                let of_minute = |i: IntervalMonthDayNano| i.nanoseconds % (60 * NANOS_PER_SECOND);
                let nanos: Int64Array = intervals(&values)?.unary(of_minute);
                Arc::new(nanos)
            }
            _ => {
                args.args[0] = ColumnarValue::Scalar(ScalarValue::from("nanosecond"));
                args.return_field =
                    Arc::new(args.return_field.as_ref().clone().with_data_type(DataType::Int64));
                self.inner.invoke_with_args(args)?.to_array(values.len())?
            }
        };
        let nanos = nanos.as_primitive::<Int64Type>();
        let digits = u32::from(scale.unsigned_abs()) + moved;
        let divisor = 10_i64.pow(9_u32.saturating_sub(digits));
        let out: ArrayRef = match &to {
            DataType::Decimal128(precision, scale) => {
                let ticks: Decimal128Array = nanos.unary(|n| i128::from(n / divisor));
                Arc::new(ticks.with_precision_and_scale(*precision, *scale)?)
            }
            _ => {
                let per_unit = 10_f64.powi(9 - moved as i32);
                let values: Float64Array = nanos.unary(|n| (n - n % divisor) as f64 / per_unit);
                Arc::new(values)
            }
        };
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&out, 0)?),
            false => ColumnarValue::Array(out),
        })
    }
}

/// Differences of timestamps as intervals of days and time: of a day and an hour the hour is 1.
fn in_days(mut args: ScalarFunctionArgs) -> Result<ScalarFunctionArgs> {
    let [_, field] = args.arg_fields.as_slice() else { return Ok(args) };
    let DataType::Duration(_) = field.data_type() else { return Ok(args) };
    let is_scalar = matches!(args.args[1], ColumnarValue::Scalar(_));
    let values = args.args[1].to_array(if is_scalar { 1 } else { args.number_rows })?;
    let intervals: ArrayRef = Arc::new(intervals(&values)?);
    args.arg_fields[1] = Arc::new(field.as_ref().clone().with_data_type(INTERVAL));
    args.args[1] = match is_scalar {
        true => ColumnarValue::Scalar(ScalarValue::try_from_array(&intervals, 0)?),
        false => ColumnarValue::Array(intervals),
    };
    Ok(args)
}

/// Whether the seconds from 1970 are asked for, or those of an interval.
fn is_epoch(args: &ScalarFunctionArgs) -> bool {
    matches!(args.args.first(), Some(ColumnarValue::Scalar(part))
        if part.try_as_str().flatten().is_some_and(|p| p.eq_ignore_ascii_case("epoch")))
}

/// The seconds of intervals: a year has 365.25 days, and a month beside years 30.
fn seconds_of_intervals(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    const SECONDS_PER_YEAR: f64 = 365.25 * 86_400.0;
    let is_scalar = matches!(args.args[1], ColumnarValue::Scalar(_));
    let values = args.args[1].to_array(if is_scalar { 1 } else { args.number_rows })?;
    let seconds: Float64Array = intervals(&values)?.unary(|interval| {
        let (years, months) = (interval.months / 12, interval.months % 12);
        let days = f64::from(months) * 30.0 + f64::from(interval.days);
        let time = interval.nanoseconds as f64 / NANOS_PER_SECOND as f64;
        f64::from(years) * SECONDS_PER_YEAR + days * 86_400.0 + time
    });
    Ok(match is_scalar {
        true => ColumnarValue::Scalar(ScalarValue::try_from_array(&seconds, 0)?),
        false => ColumnarValue::Array(Arc::new(seconds)),
    })
}

/// Digits of the seconds of a minute in nanoseconds.
const FRACTION_DIGITS: u8 = 11;

/// By how many digits a part of seconds is smaller than they are.
fn moved_digits(part: &str) -> Option<u32> {
    match IntervalUnit::from_str(part.trim_matches(['\'', '"'])).ok()? {
        IntervalUnit::Second => Some(0),
        IntervalUnit::Millisecond => Some(3),
        IntervalUnit::Microsecond => Some(6),
        _ => None,
    }
}

impl PartialEq for Wrapped {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.fractions == other.fractions
    }
}

impl Eq for Wrapped {}

impl Hash for Wrapped {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Wrapped {
    fn name(&self) -> &str {
        &self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        // Before the rules have seen them, texts may stand beside timestamps.
        let items = types.iter().map(|data_type| Item { data_type, literal: None });
        match common_type(items) {
            Some(common) if self.chooses => Ok(vec![common; types.len()]),
            _ => self.inner.coerce_types(types),
        }
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.inner.simplify(args, info)
    }

    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }

    fn conditional_arguments<'a>(
        &self,
        args: &'a [Expr],
    ) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.inner.conditional_arguments(args)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let field = self.inner.return_field_from_args(ReturnFieldArgs { ..args })?;
        Ok(match self.scale(args.scalar_arguments[0], args.arg_fields[1].data_type()) {
            Some(scale) => {
                Arc::new(field.as_ref().clone().with_data_type(self.fraction_type(scale)))
            }
            None => field,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let args = in_days(self.on_clocks(args)?)?;
        let part = match args.args.first() {
            Some(ColumnarValue::Scalar(part)) => Some(part),
            _ => None,
        };
        match args.arg_fields.get(1).and_then(|field| self.scale(part, field.data_type())) {
            Some(scale) => self.fractions(args, scale),
            None if is_epoch(&args) && is_interval(args.arg_fields[1].data_type()) => {
                seconds_of_intervals(&args)
            }
            None => self.inner.invoke_with_args(args),
        }
    }

    fn preimage(
        &self,
        args: &[Expr],
        literal: &Expr,
        info: &SimplifyContext,
    ) -> Result<PreimageResult> {
        // The year of an instant is that of its zone; the rewriting knows UTC's only.
        if let Some(column) = args.get(1)
            && let DataType::Timestamp(_, Some(label)) = info.get_data_type(column)?
            && *label != *UTC
        {
            return Ok(PreimageResult::None);
        }
        Ok(match self.inner.preimage(args, literal, info)? {
            PreimageResult::Range { interval, .. }
                if interval.lower().is_null() || interval.upper().is_null() =>
            {
                PreimageResult::None
            }
            other => other,
        })
    }
}
