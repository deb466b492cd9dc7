//! `floor` and `ceil` of decimals. DataFusion leaves the type as it is, which has no room for the 1 that `ceil(0.5)` is; here the result
//! has no digits after the point, and one more before it.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Decimal128Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions::math::{ceil, floor};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::sql::Error;

/// The functions.
pub(super) fn functions() -> [Arc<ScalarUDF>; 2] {
    [floor(), ceil()].map(|inner| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::from(Whole { inner, signature }))
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Whole {
    inner: Arc<ScalarUDF>,
    signature: Signature,
}

impl ScalarUDFImpl for Whole {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [t] if t.is_decimal() || t.is_floating() => Ok(types.to_vec()),
            [t] if t.is_integer() || t.is_null() || t.is_string() => Ok(vec![DataType::Float64]),
            _ => Err(Error::syntax(format!("{} takes one number", self.name())).into()),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(match types {
            [DataType::Decimal128(precision, scale)] => {
                let digits = i16::from(*precision) - i16::from(*scale) + 1;
                DataType::Decimal128(digits.clamp(1, 38) as u8, 0)
            }
            [other] => other.clone(),
            _ => return Err(Error::internal("a number is missing").into()),
        })
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let DataType::Decimal128(precision, _) = *args.return_field.data_type() else {
            return self.inner.invoke_with_args(args);
        };
        let Some(value) = args.args.first() else {
            return Err(Error::internal("a number is missing").into());
        };
        let constant = matches!(value, ColumnarValue::Scalar(_));
        let array = value.to_array(if constant { 1 } else { args.number_rows })?;
        // Optimizers ask what comes of NULLs without a type.
        let Some(values) = array.as_primitive_opt::<Decimal128Type>() else {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from(
                args.return_field.data_type(),
            )?));
        };
        let unit = 10_i128.pow(u32::from(values.scale().unsigned_abs()));
        let up = self.name() == "ceil";
        let whole = values.unary::<_, Decimal128Type>(|v| match up {
            true => -(-v).div_euclid(unit),
            false => v.div_euclid(unit),
        });
        let whole = whole.with_precision_and_scale(precision, 0)?;
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&whole, 0)?));
        }
        Ok(ColumnarValue::Array(Arc::new(whole)))
    }
}
