//! Number literals: one with a point is a decimal of the digits it has, one with an exponent a double. The planner is told to read
//! decimals, and would make one of an exponent too (`1e3` a decimal of the scale -3).

use std::ops::ControlFlow;

use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast::{self, VisitMut, visit_expressions_mut};

/// The most digits of a literal that is compared with keys without the planner.
const MAX_DIGITS: usize = 38;

/// Makes doubles of literals with exponents.
pub(super) fn exponents<T: VisitMut>(tree: &mut T) {
    let _: ControlFlow<()> = visit_expressions_mut(tree, |expr| {
        if let ast::Expr::Value(value) = expr
            && let ast::Value::Number(digits, _) = &value.value
            && has_exponent(digits)
        {
            let text = ast::Value::SingleQuotedString(digits.replace('_', ""));
            *expr = ast::Expr::Cast {
                kind: ast::CastKind::Cast,
                expr: Box::new(ast::Expr::value(text)),
                data_type: ast::DataType::DoublePrecision,
                array: false,
                format: None,
            };
        }
        ControlFlow::Continue(())
    });
}

fn has_exponent(digits: &str) -> bool {
    !digits.starts_with("0x") && digits.contains(['e', 'E'])
}

/// The value of a literal with a point or an exponent, with its sign; `None` where the planner must judge it.
pub(crate) fn fraction(text: &str) -> Option<ScalarValue> {
    if has_exponent(text) {
        return text.parse().ok().map(|value| ScalarValue::Float64(Some(value)));
    }
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = format!("{whole}{fraction}");
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if !plain || digits.len() > MAX_DIGITS {
        return None;
    }
    let value: i128 = digits.parse().ok()?;
    let value = if unsigned.len() < text.len() { -value } else { value };
    Some(ScalarValue::Decimal128(Some(value), digits.len() as u8, fraction.len() as i8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_makes_a_decimal_and_an_exponent_a_double() {
        let decimal = |v, p, s| Some(ScalarValue::Decimal128(Some(v), p, s));
        assert_eq!(fraction("45678.1234"), decimal(456_781_234, 9, 4));
        assert_eq!(fraction("-.5"), decimal(-5, 1, 1));
        assert_eq!(fraction("7."), decimal(7, 1, 0));
        assert_eq!(fraction("1.5e3"), Some(ScalarValue::Float64(Some(1500.0))));
        assert_eq!(fraction(&"9".repeat(39)), None);
        assert_eq!(fraction("."), None);
    }
}
