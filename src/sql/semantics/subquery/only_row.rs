//! The one value of a scalar subquery, or the error that it has several.

use std::sync::{Arc, LazyLock};

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use crate::sql::{Code, Error};

static ONLY_ROW: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::new_from_impl(OnlyRow::new())));

static OR_NULL: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::new_from_impl(OrNull::new())));

/// `value`, which `count` rows were found for: an error where these are several. It stands where the subquery stood, so that
/// nobody is told of rows that he did not ask for.
pub(super) fn only_row(count: Expr, value: Expr) -> Expr {
    ONLY_ROW.call(vec![count, value])
}

/// `value` as one that may be NULL: a subquery without rows is NULL, whatever its column is.
pub(super) fn or_null(value: Expr) -> Expr {
    OR_NULL.call(vec![value])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OnlyRow {
    signature: Signature,
}

impl OnlyRow {
    fn new() -> Self {
        // Volatile, though it is not: no rule may ask it about other rows than those of the expression it stands in.
        Self { signature: Signature::any(2, Volatility::Volatile) }
    }
}

impl ScalarUDFImpl for OnlyRow {
    fn name(&self) -> &str {
        "__only_row"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments.get(1).cloned().unwrap_or(DataType::Null))
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let data_type = arguments.arg_fields.get(1).map(|f| f.data_type().clone());
        Ok(Arc::new(Field::new(self.name(), data_type.unwrap_or(DataType::Null), true)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let counts = arrays[0].as_primitive::<Int64Type>();
        // A NULL count is that of an outer row without any.
        if counts.iter().flatten().any(|count| count > 1) {
            let message = "more than one row returned by a subquery used as an expression";
            return Err(Error::new(Code::CardinalityViolation, message).into());
        }
        Ok(ColumnarValue::Array(Arc::clone(&arrays[1])))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OrNull {
    signature: Signature,
}

impl OrNull {
    fn new() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for OrNull {
    fn name(&self) -> &str {
        "__or_null"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments.first().cloned().unwrap_or(DataType::Null))
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let data_type = arguments.arg_fields.first().map(|f| f.data_type().clone());
        Ok(Arc::new(Field::new(self.name(), data_type.unwrap_or(DataType::Null), true)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match arguments.args.into_iter().next() {
            Some(value) => Ok(value),
            None => Err(Error::internal("a value is missing").into()),
        }
    }
}
