//! `date_part` and `extract` without DataFusion's rewriting of conditions that it cannot make exactly: a year that nanoseconds
//! cannot hold became NULL (apache/datafusion#25135).

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use super::common_type::{Item, common_type};
use crate::sql::types::UTC;

/// DataFusion's function, under a name or its own.
#[derive(Debug)]
pub(crate) struct Wrapped {
    inner: Arc<ScalarUDF>,
    name: String,
    aliases: Vec<String>,
    /// Whether its value is one of its arguments.
    chooses: bool,
}

impl Wrapped {
    /// `date_part`.
    pub(crate) fn date_part() -> ScalarUDF {
        let inner = datafusion::functions::datetime::date_part();
        let aliases = inner.aliases().to_vec();
        let name = inner.name().to_owned();
        ScalarUDF::from(Self { name, aliases, inner, chooses: false })
    }

    /// Functions that choose among their arguments: these may be timestamps and texts of such.
    pub(crate) fn choices() -> Vec<ScalarUDF> {
        use datafusion::functions::core;
        let wrap = |inner: Arc<ScalarUDF>| {
            let (name, aliases) = (inner.name().to_owned(), inner.aliases().to_vec());
            ScalarUDF::from(Self { name, aliases, inner, chooses: true })
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
            inner,
        })
    }
}

impl PartialEq for Wrapped {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
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
        self.inner.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.inner.invoke_with_args(args)
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
