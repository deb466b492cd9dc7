//! Unary plus: it changes nothing. DataFusion refuses it before what is no number, NULL among it.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, VisitMut, visit_expressions_mut};

/// Leaves out every plus sign before an expression, but for texts and truth values, which have none in PostgreSQL either.
pub(super) fn without_plus<T: VisitMut>(tree: &mut T) {
    let _: ControlFlow<()> = visit_expressions_mut(tree, |expr| {
        while let ast::Expr::UnaryOp { op: ast::UnaryOperator::Plus, expr: inner } = expr {
            let signless = match inner.as_ref() {
                ast::Expr::Value(value) => {
                    !matches!(value.value, ast::Value::Number(..) | ast::Value::Null)
                }
                _ => false,
            };
            if signless {
                break;
            }
            *expr = std::mem::replace(inner.as_mut(), ast::Expr::value(ast::Value::Null));
        }
        // NULL has no sign.
        if let ast::Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr: inner } = expr
            && is_null(inner)
        {
            *expr = ast::Expr::value(ast::Value::Null);
        }
        ControlFlow::Continue(())
    });
}

fn is_null(expr: &ast::Expr) -> bool {
    match expr {
        ast::Expr::Nested(inner) => is_null(inner),
        ast::Expr::Value(value) => value.value == ast::Value::Null,
        _ => false,
    }
}
