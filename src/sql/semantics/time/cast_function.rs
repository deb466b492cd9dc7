//! The casts of [`super::cast`] as an expression.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use super::cast::{Unfit, cast_time};
use crate::sql::Error;
use crate::sql::cast::{Failure, failure_code, show};
use crate::sql::modifier::Modifier;
use crate::sql::types::sql_name;

/// A cast to a type.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct TimeCast {
    to: DataType,
    /// Length or precision.
    modifier: Option<Modifier>,
    unfit: Unfit,
    signature: Signature,
}

impl TimeCast {
    /// `expr` as `to`, which must be a cast of [`super::cast::is_time_cast`], or to the same type with a modifier.
    pub(crate) fn expr(
        expr: Expr,
        to: &DataType,
        modifier: Option<Modifier>,
        unfit: Unfit,
    ) -> Expr {
        let signature = Signature::any(1, Volatility::Immutable);
        let cast = Self { to: to.clone(), modifier, unfit, signature };
        ScalarUDF::from(cast).call(vec![expr])
    }

    fn cast(&self, array: &arrow::array::ArrayRef) -> Result<arrow::array::ArrayRef> {
        let cast = if array.data_type() == &self.to {
            Ok(Arc::clone(array))
        } else if array.data_type().is_null() {
            Ok(arrow::array::new_null_array(&self.to, array.len()))
        } else {
            cast_time(array, &self.to, self.unfit)
        };
        let fitted = cast.and_then(|out| match self.modifier {
            Some(modifier) => modifier.cast(&out),
            None => Ok(out),
        });
        fitted.map_err(|failure| failure_of(array, &self.to, &failure).into())
    }
}

/// The error for a value that a cast cannot make.
pub(crate) fn failure_of(
    given: &arrow::array::ArrayRef,
    to: &DataType,
    failure: &Failure,
) -> Error {
    let name = sql_name(to);
    let message = match failure {
        Failure::Type => {
            format!("a value of type {} cannot be cast to {name}", sql_name(given.data_type()))
        }
        Failure::Value { row, reason } => {
            format!("{name}: the value {} {reason}", show(given, *row))
        }
        Failure::TooLong { row } => format!("{name}: the value {} is too long", show(given, *row)),
        Failure::Whole(reason) => format!("{name}: {reason}"),
    };
    Error::new(failure_code(given.data_type(), to, failure), message)
}

impl ScalarUDFImpl for TimeCast {
    fn name(&self) -> &str {
        "time_cast"
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        let mut name = String::new();
        for arg in args {
            let _ = write!(name, "CAST({arg} AS {})", sql_name(&self.to));
        }
        Ok(name)
    }

    /// As that of a cast: the name of what is cast.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.iter().map(|arg| arg.schema_name().to_string()).collect())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(self.to.clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let nullable =
            self.unfit == Unfit::IsNull || args.arg_fields.iter().any(|f| f.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.to.clone(), nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.as_slice() {
            [ColumnarValue::Array(array)] => Ok(ColumnarValue::Array(self.cast(array)?)),
            [ColumnarValue::Scalar(value)] => {
                let array = self.cast(&value.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?))
            }
            _ => Err(Error::internal("a cast has one argument").into()),
        }
    }
}

/// A literal of the type that a literal is cast to, where it has a value there.
pub(crate) fn cast_literal(value: &ScalarValue, to: &DataType) -> Result<Expr> {
    let array = value.to_array()?;
    let cast = if array.data_type().is_null() {
        arrow::array::new_null_array(to, 1)
    } else {
        cast_time(&array, to, Unfit::Fails).map_err(|f| failure_of(&array, to, &f))?
    };
    Ok(Expr::Literal(ScalarValue::try_from_array(&cast, 0)?, None::<FieldMetadata>))
}
