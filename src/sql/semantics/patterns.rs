//! SIMILAR TO, `~` of an integer, and `every`. DataFusion takes the pattern of SIMILAR TO for a regular expression that may match
//! anywhere; the standard's has `%` and `_`, and stands for the whole text.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::bool_and_or::bool_and_udaf;
use datafusion::logical_expr::{
    AggregateUDF, ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::sql::sqlparser::ast::{self, BinaryOperator, Expr, UnaryOperator, VisitMut};
use datafusion::sql::sqlparser::ast::{
    Function, FunctionArg, FunctionArgExpr, visit_expressions_mut,
};

use crate::sql::{Code, Error};

const SIMILAR: &str = "similar_to_escape";

/// Writes `a SIMILAR TO b` as a match of a regular expression, and `~a` as `-1 - a`.
pub(crate) fn rewrite<T: VisitMut>(tree: &mut T) {
    let _: ControlFlow<()> = visit_expressions_mut(tree, |expr| {
        match expr {
            Expr::SimilarTo { negated, expr: text, pattern, escape_char } => {
                let op = if *negated {
                    BinaryOperator::PGRegexNotMatch
                } else {
                    BinaryOperator::PGRegexMatch
                };
                let mut arguments = vec![std::mem::replace(&mut **pattern, null())];
                arguments.extend(escape_char.take().map(Expr::Value));
                let left = Box::new(std::mem::replace(&mut **text, null()));
                *expr = nested(Expr::BinaryOp { left, op, right: Box::new(call(arguments)) });
            }
            Expr::UnaryOp { op: UnaryOperator::BitwiseNot, expr: number } => {
                let right = Box::new(std::mem::replace(&mut **number, null()));
                let left = Box::new(nested(Expr::UnaryOp {
                    op: UnaryOperator::Minus,
                    expr: Box::new(Expr::value(ast::Value::Number("1".into(), false))),
                }));
                *expr = nested(Expr::BinaryOp { left, op: BinaryOperator::Minus, right });
            }
            _ => {}
        }
        ControlFlow::Continue(())
    });
}

fn null() -> Expr {
    Expr::value(ast::Value::Null)
}

fn nested(expr: Expr) -> Expr {
    Expr::Nested(Box::new(expr))
}

fn call(arguments: Vec<Expr>) -> Expr {
    let args = arguments.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg)));
    Expr::Function(Function {
        name: ast::ObjectName::from(vec![ast::Ident::new(SIMILAR)]),
        uses_odbc_syntax: false,
        parameters: ast::FunctionArguments::None,
        args: ast::FunctionArguments::List(ast::FunctionArgumentList {
            duplicate_treatment: None,
            args: args.collect(),
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// The standard's name of `bool_and`.
pub(crate) fn every() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::clone(&bool_and_udaf()).with_aliases(["every"]))
}

/// `similar_to_escape(pattern [, escape])`: the regular expression of a pattern of SIMILAR TO.
pub(crate) fn similar_to_escape() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(SimilarToEscape {
        signature: Signature::one_of(
            vec![
                datafusion::logical_expr::TypeSignature::String(1),
                datafusion::logical_expr::TypeSignature::String(2),
            ],
            Volatility::Immutable,
        ),
    }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SimilarToEscape {
    signature: Signature,
}

impl ScalarUDFImpl for SimilarToEscape {
    fn name(&self) -> &str {
        SIMILAR
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let texts: Vec<ArrayRef> = args
            .args
            .iter()
            .map(|arg| Ok(arrow::compute::cast(&arg.to_array(rows)?, &DataType::Utf8)?))
            .collect::<Result<_>>()?;
        let patterns = texts[0].as_string::<i32>();
        let regexes: Result<StringArray, Error> = match texts.get(1) {
            None => patterns.iter().map(|p| p.map(|p| regex(p, Some('\\'))).transpose()).collect(),
            Some(escapes) => {
                let pairs = patterns.iter().zip(escapes.as_string::<i32>());
                let of = |(pattern, escape): (Option<&str>, Option<&str>)| {
                    pattern.zip(escape).map(|(p, e)| regex(p, escape_of(e)?)).transpose()
                };
                pairs.map(of).collect()
            }
        };
        let regexes = regexes?;
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&regexes, 0)?));
        }
        Ok(ColumnarValue::Array(Arc::new(regexes)))
    }
}

/// An escape is one character, or none.
fn escape_of(text: &str) -> Result<Option<char>, Error> {
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (first, None) => Ok(first),
        _ => Err(Error::new(
            Code::InvalidEscapeCharacter,
            "the escape of SIMILAR TO is one character",
        )),
    }
}

/// A pattern of SIMILAR TO as a regular expression of the whole text.
fn regex(pattern: &str, escape: Option<char>) -> Result<String, Error> {
    let mut out = String::from("^(?s:");
    let mut characters = pattern.chars();
    let mut in_class = false;
    while let Some(c) = characters.next() {
        match c {
            _ if Some(c) == escape => {
                let Some(next) = characters.next() else {
                    let message = "a pattern of SIMILAR TO must not end with its escape";
                    return Err(Error::new(Code::InvalidEscapeSequence, message));
                };
                literal(&mut out, next);
            }
            ']' if in_class => {
                in_class = false;
                out.push(c);
            }
            '^' | '-' if in_class => out.push(c),
            _ if in_class => literal(&mut out, c),
            '[' => {
                in_class = true;
                out.push(c);
            }
            '%' => out.push_str(".*"),
            '_' => out.push('.'),
            '(' => out.push_str("(?:"),
            ')' | '|' | '*' | '+' | '?' | '{' | '}' | ',' => out.push(c),
            _ => literal(&mut out, c),
        }
    }
    out.push_str(")$");
    Ok(out)
}

/// A character that stands for itself.
fn literal(out: &mut String, c: char) {
    if !c.is_alphanumeric() && !c.is_whitespace() && c.is_ascii() {
        out.push('\\');
    }
    out.push(c);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_become_expressions_of_the_whole_text() {
        let of = |pattern| regex(pattern, Some('\\')).expect("a pattern");
        assert_eq!(of("(a|b)%"), "^(?s:(?:a|b).*)$");
        assert_eq!(of("a.c_"), r"^(?s:a\.c.)$");
        assert_eq!(of(r"100\%"), r"^(?s:100\%)$");
        assert_eq!(of("[^a-c.]{2,3}"), r"^(?s:[^a-c\.]{2,3})$");
        assert!(regex(r"a\", Some('\\')).is_err());
        assert_eq!(regex("a!_", Some('!')).expect("a pattern"), r"^(?s:a\_)$");
    }
}
