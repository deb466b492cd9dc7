//! Long chains of AND, OR and UNION become balanced trees: the parser nests a chain of n as n levels, which every walk then has
//! to descend. These operators are associative, and their operands keep their order, so the answer stays.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, BinaryOperator, SetExpr, SetOperator, SetQuantifier};
use datafusion::sql::sqlparser::ast::{Expr, VisitMut, VisitorMut};

/// Chains shorter than this stay as they are written.
const LONG: usize = 32;

/// Balances the chains of a statement.
pub(crate) fn balance(statement: &mut ast::Statement) {
    let _: ControlFlow<()> = statement.visit(&mut Chains);
}

struct Chains;

impl VisitorMut for Chains {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::BinaryOp { op: op @ (BinaryOperator::And | BinaryOperator::Or), .. } = expr {
            let op = op.clone();
            balance_operator(expr, &op);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<()> {
        balance_sets(&mut query.body);
        ControlFlow::Continue(())
    }
}

fn balance_operator(expr: &mut Expr, wanted: &BinaryOperator) {
    let (mut length, mut left) = (1, &*expr);
    while let Expr::BinaryOp { left: next, op, .. } = left
        && op == wanted
    {
        (length, left) = (length + 1, next);
    }
    if length < LONG {
        return;
    }
    let mut operands = Vec::with_capacity(length);
    let mut rest = std::mem::replace(expr, Expr::Value(ast::Value::Null.into()));
    loop {
        match rest {
            Expr::BinaryOp { left, op, right } if op == *wanted => {
                operands.push(*right);
                rest = *left;
            }
            first => {
                operands.push(first);
                break;
            }
        }
    }
    operands.reverse();
    let join = |left, right| Expr::BinaryOp {
        left: Box::new(left),
        op: wanted.clone(),
        right: Box::new(right),
    };
    if let Some(balanced) = joined(operands, &join) {
        *expr = balanced;
    }
}

fn balance_sets(body: &mut SetExpr) {
    let SetExpr::SetOperation { op, set_quantifier, left, right } = body else { return };
    let (op, quantifier) = (*op, *set_quantifier);
    let associative = op == SetOperator::Union
        && matches!(quantifier, SetQuantifier::All | SetQuantifier::Distinct | SetQuantifier::None);
    if !associative {
        balance_sets(right);
        return balance_sets(left);
    }
    let mut operands = Vec::new();
    let nothing = || {
        SetExpr::Values(ast::Values { explicit_row: false, value_keyword: false, rows: Vec::new() })
    };
    let mut rest = std::mem::replace(body, nothing());
    loop {
        match rest {
            SetExpr::SetOperation { op: o, set_quantifier: q, left, right }
                if o == op && q == quantifier =>
            {
                operands.push(*right);
                rest = *left;
            }
            first => {
                operands.push(first);
                break;
            }
        }
    }
    operands.reverse();
    operands.iter_mut().for_each(balance_sets);
    let join = |left, right| SetExpr::SetOperation {
        op,
        set_quantifier: quantifier,
        left: Box::new(left),
        right: Box::new(right),
    };
    let whole = match operands.len() {
        LONG.. => joined(operands, &join),
        _ => operands.into_iter().reduce(join),
    };
    if let Some(whole) = whole {
        *body = whole;
    }
}

/// The operands in their order under a tree of the least depth.
fn joined<T>(mut operands: Vec<T>, join: &impl Fn(T, T) -> T) -> Option<T> {
    if operands.len() <= 1 {
        return operands.pop();
    }
    let right = operands.split_off(operands.len() / 2);
    match (joined(operands, join), joined(right, join)) {
        (Some(left), Some(right)) => Some(join(left, right)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::dialect::OmenDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    fn balanced(sql: &str) -> String {
        let mut statements = Parser::parse_sql(&OmenDialect, sql).unwrap();
        balance(&mut statements[0]);
        statements[0].to_string()
    }

    /// Chains of EXCEPT stay as deep as they are, and printing one takes more stack than a test has.
    #[test]
    fn operands_keep_their_order() {
        let checks = || {
            for joiner in [" OR ", " AND "] {
                let terms: Vec<String> = (0..100).map(|i| format!("a = {i}")).collect();
                let sql = format!("SELECT a FROM t WHERE {}", terms.join(joiner));
                assert_eq!(balanced(&sql), sql);
            }
            for joiner in [" UNION ALL ", " UNION ", " EXCEPT "] {
                let terms: Vec<String> = (0..100).map(|i| format!("SELECT {i}")).collect();
                assert_eq!(balanced(&terms.join(joiner)), terms.join(joiner));
            }
        };
        let thread = std::thread::Builder::new().stack_size(32 << 20).spawn(checks).unwrap();
        thread.join().unwrap();
    }
}
