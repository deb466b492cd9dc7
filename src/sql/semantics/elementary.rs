//! Elementary functions of numbers: roots, logarithms, powers, angles. DataFusion computes those of REAL in 32 bits and answers NaN or
//! infinity where a function has no value; here all are functions of doubles, and an argument outside the domain or a result
//! outside the range is an error, as in PostgreSQL.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::sql::types::sql_name;
use crate::sql::{Code, Error};

/// What a function of doubles does.
#[derive(Debug, Clone, Copy)]
enum Formula {
    /// Of one argument.
    One(fn(f64) -> Result<f64, Error>),
    /// Of two arguments.
    Two(fn(f64, f64) -> Result<f64, Error>),
    /// Of one argument, or of a base and an argument.
    Logarithm,
}

/// Names, the first of which is the function's own, and what it does.
const FUNCTIONS: [(&[&str], Formula); 24] = [
    (&["sqrt"], Formula::One(sqrt)),
    (&["cbrt"], Formula::One(|x| Ok(x.cbrt()))),
    (&["exp"], Formula::One(|x| in_range(x.exp(), &[x], false))),
    (&["ln"], Formula::One(|x| logarithm(x, f64::ln))),
    (&["log10"], Formula::One(|x| logarithm(x, f64::log10))),
    (&["log2"], Formula::One(|x| logarithm(x, f64::log2))),
    (&["log"], Formula::Logarithm),
    (&["power", "pow"], Formula::Two(power)),
    (&["sin"], Formula::One(|x| of_finite(x, f64::sin))),
    (&["cos"], Formula::One(|x| of_finite(x, f64::cos))),
    (&["tan"], Formula::One(|x| of_finite(x, f64::tan))),
    (&["cot"], Formula::One(|x| of_finite(x, |x| x.tan().recip()))),
    (&["asin"], Formula::One(|x| within(x, -1.0, 1.0, f64::asin))),
    (&["acos"], Formula::One(|x| within(x, -1.0, 1.0, f64::acos))),
    (&["atan"], Formula::One(|x| Ok(x.atan()))),
    (&["atan2"], Formula::Two(|y, x| Ok(y.atan2(x)))),
    (&["sinh"], Formula::One(|x| Ok(x.sinh()))),
    (&["cosh"], Formula::One(|x| Ok(x.cosh()))),
    (&["tanh"], Formula::One(|x| Ok(x.tanh()))),
    (&["asinh"], Formula::One(|x| Ok(x.asinh()))),
    (&["acosh"], Formula::One(|x| within(x, 1.0, f64::INFINITY, f64::acosh))),
    (&["atanh"], Formula::One(|x| within(x, -1.0, 1.0, f64::atanh))),
    (&["degrees"], Formula::One(|x| in_range(x.to_degrees(), &[x], true))),
    (&["radians"], Formula::One(|x| in_range(x.to_radians(), &[x], true))),
];

/// The functions.
pub(crate) fn functions() -> impl Iterator<Item = Arc<ScalarUDF>> {
    let elementary = FUNCTIONS.into_iter().map(|(names, formula)| {
        let signature = Signature::user_defined(Volatility::Immutable);
        ScalarUDF::from(Elementary { names, formula, signature }).with_aliases(names[1..].to_vec())
    });
    elementary.chain([ScalarUDF::from(Sign::default())]).map(Arc::new)
}

fn out_of_range(what: &str) -> Error {
    Error::new(Code::NumericValueOutOfRange, format!("value out of range: {what}"))
}

/// A result of finite arguments is finite; and it is not zero, unless it may be.
fn in_range(y: f64, arguments: &[f64], zero: bool) -> Result<f64, Error> {
    let finite = arguments.iter().all(|x| x.is_finite());
    if finite && y.is_infinite() {
        Err(out_of_range("overflow"))
    } else if finite && y == 0.0 && !zero {
        Err(out_of_range("underflow"))
    } else {
        Ok(y)
    }
}

fn sqrt(x: f64) -> Result<f64, Error> {
    if x < 0.0 {
        let message = "cannot take square root of a negative number";
        return Err(Error::new(Code::InvalidArgumentForPowerFunction, message));
    }
    Ok(x.sqrt())
}

fn logarithm(x: f64, of: fn(f64) -> f64) -> Result<f64, Error> {
    let fault = |message| Err(Error::new(Code::InvalidArgumentForLogarithm, message));
    if x == 0.0 {
        fault("cannot take logarithm of zero")
    } else if x < 0.0 {
        fault("cannot take logarithm of a negative number")
    } else {
        Ok(of(x))
    }
}

fn to_base(base: f64, x: f64) -> Result<f64, Error> {
    let divisor = logarithm(base, f64::ln)?;
    let dividend = logarithm(x, f64::ln)?;
    if divisor == 0.0 {
        return Err(Error::new(Code::DivisionByZero, "division by zero"));
    }
    // The logarithms to 2 and 10 are exact where the result is a whole number.
    Ok(if base == 2.0 {
        x.log2()
    } else if base == 10.0 {
        x.log10()
    } else {
        dividend / divisor
    })
}

fn power(base: f64, exponent: f64) -> Result<f64, Error> {
    let fault = |message| Err(Error::new(Code::InvalidArgumentForPowerFunction, message));
    if base == 0.0 && exponent < 0.0 {
        return fault("zero raised to a negative power is undefined");
    }
    if base < 0.0 && base.is_finite() && exponent.is_finite() && exponent.fract() != 0.0 {
        return fault("a negative number raised to a non-integer power yields a complex result");
    }
    in_range(base.powf(exponent), &[base, exponent], base == 0.0)
}

fn outside() -> Error {
    Error::new(Code::NumericValueOutOfRange, "input is out of range")
}

fn of_finite(x: f64, of: fn(f64) -> f64) -> Result<f64, Error> {
    if x.is_infinite() { Err(outside()) } else { Ok(of(x)) }
}

fn within(x: f64, low: f64, high: f64, of: fn(f64) -> f64) -> Result<f64, Error> {
    if x < low || x > high { Err(outside()) } else { Ok(of(x)) }
}

/// A function of doubles.
#[derive(Debug)]
struct Elementary {
    names: &'static [&'static str],
    formula: Formula,
    signature: Signature,
}

// There is one function of a name.
impl PartialEq for Elementary {
    fn eq(&self, other: &Self) -> bool {
        self.names == other.names
    }
}

impl Eq for Elementary {}

impl std::hash::Hash for Elementary {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.names.hash(state);
    }
}

/// Refuses what is neither a number nor untyped.
fn numbers(name: &str, types: &[DataType]) -> Result<()> {
    match types.iter().find(|t| !t.is_numeric() && !t.is_null()) {
        Some(other) => {
            let message = format!("{name} takes numbers, not {}", sql_name(other));
            Err(Error::new(Code::UndefinedFunction, message).into())
        }
        None => Ok(()),
    }
}

impl ScalarUDFImpl for Elementary {
    fn name(&self) -> &str {
        self.names[0]
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let fits = match self.formula {
            Formula::One(_) => types.len() == 1,
            Formula::Two(_) => types.len() == 2,
            Formula::Logarithm => matches!(types.len(), 1 | 2),
        };
        if !fits {
            let message = format!("{} does not take {} arguments", self.name(), types.len());
            return Err(Error::new(Code::UndefinedFunction, message).into());
        }
        numbers(self.name(), types)?;
        Ok(vec![DataType::Float64; types.len()])
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let arrays: Vec<ArrayRef> =
            args.args.iter().map(|arg| arg.to_array(rows)).collect::<Result<_>>()?;
        let values = match (self.formula, arrays.as_slice()) {
            (Formula::One(of), [x]) => unary(x, of)?,
            (Formula::Two(of), [x, y]) => binary(x, y, of)?,
            (Formula::Logarithm, [x]) => unary(x, |x| logarithm(x, f64::log10))?,
            (Formula::Logarithm, [base, x]) => binary(base, x, to_base)?,
            _ => return Err(Error::internal("an elementary function without arguments").into()),
        };
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?));
        }
        Ok(ColumnarValue::Array(Arc::new(values)))
    }
}

fn unary(x: &ArrayRef, of: fn(f64) -> Result<f64, Error>) -> Result<Float64Array, Error> {
    x.as_primitive::<Float64Type>().try_unary(of)
}

fn binary(
    x: &ArrayRef,
    y: &ArrayRef,
    of: fn(f64, f64) -> Result<f64, Error>,
) -> Result<Float64Array, Error> {
    let pairs = x.as_primitive::<Float64Type>().iter().zip(y.as_primitive::<Float64Type>());
    pairs.map(|(x, y)| x.zip(y).map(|(x, y)| of(x, y)).transpose()).collect()
}

/// `sign`: -1, 0 or 1, of a decimal as a decimal, of another number as a double.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Sign {
    signature: Signature,
}

impl Default for Sign {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Sign {
    fn name(&self) -> &str {
        "sign"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        numbers(self.name(), types)?;
        match types {
            [decimal @ DataType::Decimal128(..)] => Ok(vec![decimal.clone()]),
            [_] => Ok(vec![DataType::Float64]),
            _ => Err(Error::new(Code::UndefinedFunction, "sign takes one number").into()),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(match types {
            [DataType::Decimal128(..)] => DataType::Decimal128(1, 0),
            _ => DataType::Float64,
        })
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [x] = arrays.as_slice() else {
            return Err(Error::internal("sign has one argument").into());
        };
        let signs: ArrayRef =
            match x.data_type() {
                DataType::Decimal128(..) => {
                    let digits = x.as_primitive::<arrow::datatypes::Decimal128Type>();
                    Arc::new(
                        digits
                            .unary::<_, arrow::datatypes::Decimal128Type>(i128::signum)
                            .with_precision_and_scale(1, 0)?,
                    )
                }
                _ => Arc::new(x.as_primitive::<Float64Type>().unary::<_, Float64Type>(|x| {
                    if x == 0.0 || x.is_nan() { x } else { x.signum() }
                })),
            };
        if args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_))) {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&signs, 0)?));
        }
        Ok(ColumnarValue::Array(signs))
    }
}
