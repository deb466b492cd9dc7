//! Casts of numbers to integers round, as in PostgreSQL: doubles to the nearest, halves to even, decimals halves away from zero.
//! DataFusion cuts the fraction off. `round` of a double rounds halves to even too. A double that REAL cannot hold is an error, and so is a
//! text of a number that is too large or too small for its type, of which Arrow makes infinity and zero. A text of a decimal may have an
//! exponent, which Arrow does not read.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, StringArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use super::plans::{input_schema, rewrite_expressions};
use super::time_zone::is_text;
use crate::sql::{Code, Error};

/// Rounds before what cuts.
#[derive(Debug)]
pub(crate) struct RoundingCasts;

impl AnalyzerRule for RoundingCasts {
    fn name(&self) -> &str {
        "RoundingCasts"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|node| {
            let schema = input_schema(&node)?;
            rewrite_expressions(node, &schema, rounded)
        })?;
        Ok(plan.data)
    }
}

fn rounded(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::Cast(mut cast) => {
            let function = before(&cast.expr.get_type(schema)?, cast.field.data_type());
            match function {
                Some(function) if !is_call(&cast.expr, function) => {
                    cast.expr = Box::new(function.call(vec![*cast.expr]));
                    Transformed::yes(Expr::Cast(cast))
                }
                _ => Transformed::no(Expr::Cast(cast)),
            }
        }
        Expr::TryCast(mut cast) => {
            let function = before(&cast.expr.get_type(schema)?, cast.field.data_type());
            match function {
                Some(function) if function.name() == NEAREST && !is_call(&cast.expr, function) => {
                    cast.expr = Box::new(function.call(vec![*cast.expr]));
                    Transformed::yes(Expr::TryCast(cast))
                }
                _ => Transformed::no(Expr::TryCast(cast)),
            }
        }
        Expr::ScalarFunction(mut call) if call.name() == "round" && call.args.len() == 1 => {
            if call.args[0].get_type(schema)?.is_floating() {
                call.func = Arc::clone(&NEAREST_FUNCTION);
                Transformed::yes(Expr::ScalarFunction(call))
            } else {
                Transformed::no(Expr::ScalarFunction(call))
            }
        }
        other => Transformed::no(other),
    })
}

/// What a value passes through before it is cast.
fn before(from: &DataType, to: &DataType) -> Option<&'static Arc<ScalarUDF>> {
    let fraction = match from {
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => *scale > 0,
        other => other.is_floating(),
    };
    if fraction && to.is_integer() {
        Some(&NEAREST_FUNCTION)
    } else if (from, to) == (&DataType::Float64, &DataType::Float32) {
        Some(&REAL_FUNCTION)
    } else if is_text(from) && to.is_decimal() {
        Some(&DIGITS_FUNCTION)
    } else if is_text(from) && to.is_floating() {
        Some(if *to == DataType::Float64 { &DOUBLE_TEXT_FUNCTION } else { &REAL_TEXT_FUNCTION })
    } else {
        None
    }
}

fn is_call(expr: &Expr, function: &ScalarUDF) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if call.name() == function.name())
}

const NEAREST: &str = "nearest";

static NEAREST_FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| of(Step::Nearest));
static REAL_FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| of(Step::FitsReal));
static DIGITS_FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| of(Step::Digits));
static REAL_TEXT_FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| of(Step::TextFitsReal));
static DOUBLE_TEXT_FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| of(Step::TextFitsDouble));

fn of(step: Step) -> Arc<ScalarUDF> {
    let signature = Signature::any(1, Volatility::Immutable);
    Arc::new(ScalarUDF::from(BeforeCast { step, signature }))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    /// The nearest whole number.
    Nearest,
    /// The same double, if it fits REAL.
    FitsReal,
    /// The same text, without an exponent.
    Digits,
    /// The same text, if the number that it says fits REAL.
    TextFitsReal,
    /// The same text, if the number that it says fits DOUBLE PRECISION.
    TextFitsDouble,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct BeforeCast {
    step: Step,
    signature: Signature,
}

impl ScalarUDFImpl for BeforeCast {
    fn name(&self) -> &str {
        match self.step {
            Step::Nearest => NEAREST,
            Step::FitsReal => "fits_real",
            Step::Digits => "text_digits",
            Step::TextFitsReal => "text_fits_real",
            Step::TextFitsDouble => "text_fits_double",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(match types {
            // Rounding 9.9 to a whole number takes a digit more than the type may have.
            [DataType::Decimal128(precision, _)] => {
                DataType::Decimal128((precision + 1).min(38), 0)
            }
            [DataType::Decimal256(precision, _)] => {
                DataType::Decimal256((precision + 1).min(76), 0)
            }
            [other] => other.clone(),
            _ => return Err(Error::internal("what comes before a cast has one argument").into()),
        })
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [values] = arrays.as_slice() else {
            return Err(Error::internal("what comes before a cast has one argument").into());
        };
        let made = match self.step {
            Step::Nearest => nearest(values, args.return_field.data_type())?,
            Step::FitsReal => fits_real(values)?,
            Step::Digits => without_exponents(values)?,
            Step::TextFitsReal => {
                text_fits(values, "REAL", |text| text.parse::<f32>().ok().map(f64::from))?
            }
            Step::TextFitsDouble => {
                text_fits(values, "DOUBLE PRECISION", |text| text.parse().ok())?
            }
        };
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?));
        }
        Ok(ColumnarValue::Array(made))
    }
}

fn nearest(values: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    Ok(match values.data_type() {
        DataType::Float32 => Arc::new(
            values.as_primitive::<Float32Type>().unary::<_, Float32Type>(f32::round_ties_even),
        ),
        DataType::Float64 => Arc::new(
            values.as_primitive::<Float64Type>().unary::<_, Float64Type>(f64::round_ties_even),
        ),
        // Arrow rounds halves of decimals away from zero.
        _ => arrow::compute::cast(values, to)?,
    })
}

/// Texts of decimals with the point where their exponents put it.
fn without_exponents(values: &ArrayRef) -> Result<ArrayRef> {
    let texts = arrow::compute::cast(values, &DataType::Utf8)?;
    let texts = texts.as_string::<i32>();
    if !texts.iter().flatten().any(|text| text.contains(['e', 'E'])) {
        return Ok(Arc::clone(values));
    }
    let plain: StringArray =
        texts.iter().map(|text| text.map(|t| digits(t).unwrap_or_else(|| t.to_owned()))).collect();
    Ok(arrow::compute::cast(&plain, values.data_type())?)
}

/// A number without its exponent; `None` where the text is none, or one of more digits than any decimal has.
fn digits(text: &str) -> Option<String> {
    let (number, exponent) = text.trim().split_once(['e', 'E'])?;
    let exponent: i32 = exponent.parse().ok().filter(|e| (-100..=100).contains(e))?;
    let unsigned = number.strip_prefix(['-', '+']).unwrap_or(number);
    let sign = if number.starts_with('-') { "-" } else { "" };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let all = format!("{whole}{fraction}");
    if all.is_empty() || !all.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let point = whole.len() as i32 + exponent;
    let zeros = |count: i32| "0".repeat(count.max(0) as usize);
    let padded = format!("{}{all}{}", zeros(1 - point), zeros(point - all.len() as i32));
    let (whole, fraction) = padded.split_at(point.max(1) as usize);
    Some(match fraction {
        "" => format!("{sign}{whole}"),
        fraction => format!("{sign}{whole}.{fraction}"),
    })
}

fn text_fits(
    values: &ArrayRef,
    name: &str,
    read: impl Fn(&str) -> Option<f64>,
) -> Result<ArrayRef> {
    let texts = arrow::compute::cast(values, &DataType::Utf8)?;
    for text in texts.as_string::<i32>().iter().flatten() {
        // What is no number is for the cast to say.
        let Some(number) = read(text.trim()) else { continue };
        let digits = text.split(['e', 'E']).next().unwrap_or_default();
        let beyond = number.is_infinite() && digits.contains(|c: char| c.is_ascii_digit());
        let below = number == 0.0 && digits.contains(|c: char| ('1'..='9').contains(&c));
        if beyond || below {
            let message = format!("\"{text}\" is out of range for type {name}");
            return Err(Error::new(Code::NumericValueOutOfRange, message).into());
        }
    }
    Ok(Arc::clone(values))
}

fn fits_real(values: &ArrayRef) -> Result<ArrayRef> {
    let narrow: Float32Array =
        values.as_primitive::<Float64Type>().unary::<_, Float32Type>(|x| x as f32);
    let wide = values.as_primitive::<Float64Type>();
    let beyond = wide.iter().zip(narrow.iter()).flat_map(|(wide, narrow)| wide.zip(narrow)).any(
        |(wide, narrow)| {
            (narrow.is_infinite() && wide.is_finite()) || (narrow == 0.0 && wide != 0.0)
        },
    );
    if beyond {
        let message = "a value is out of range for type REAL";
        return Err(Error::new(Code::NumericValueOutOfRange, message).into());
    }
    Ok(Arc::clone(values))
}

#[cfg(test)]
mod tests {
    use super::digits;

    #[test]
    fn exponents_move_the_point() {
        for (text, plain) in [
            ("1e3", "1000"),
            ("-1.25e1", "-12.5"),
            ("1.25E-3", "0.00125"),
            (" 12e0 ", "12"),
            (".5e1", "5"),
            ("5.e-1", "0.5"),
        ] {
            assert_eq!(digits(text).as_deref(), Some(plain), "{text}");
        }
        for text in ["12", "e3", "1e", "1ex", "1e1000"] {
            assert_eq!(digits(text), None, "{text}");
        }
    }
}
