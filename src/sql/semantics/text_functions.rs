//! Functions of texts and of the session that DataFusion lacks: `like_escape`, `format`, `pg_typeof`, `version`, who and where one is;
//! and `encode` and `decode`, whose base64 DataFusion writes without the signs that fill up its end.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, ListBuilder, StringArray, StringBuilder,
};
use arrow::datatypes::{DataType, Field};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::bounded::Allowance;
use super::time::function::Function;
use super::time::text::put_hex;
use crate::sql::context::CATALOG;
use crate::sql::error::quote;
use crate::sql::types::sql_name;
use crate::sql::{Code, Error, Result as SqlResult};

/// The name of the user, of whom there is one.
const USER: &str = "omendb";

/// What `version()` says: clients look for the word and the number of the PostgreSQL whose catalogs they may expect.
pub(crate) fn version() -> String {
    format!(
        "PostgreSQL 15.0 (OmenDB {}) on {}-{}, 64-bit",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        std::env::consts::OS
    )
}

/// The functions of this file.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    let mut functions = vec![like_escape(), format_function(), type_of(), encode(), decode()];
    functions.extend(
        [
            Info::Version,
            Info::User("current_user"),
            Info::User("session_user"),
            Info::User("user"),
            Info::User("current_role"),
            Info::Catalog("current_catalog"),
            Info::Catalog("current_database"),
            Info::Schema,
            Info::Schemas,
        ]
        .map(|info| ScalarUDF::from(SessionInfo::new(info))),
    );
    functions
}

/// `like_escape(pattern, escape)`: the pattern with the backslash in the place of another escape. LIKE ... ESCAPE becomes it.
fn like_escape() -> ScalarUDF {
    Function::udf(
        "like_escape",
        |types| Ok(vec![DataType::Utf8; types.len()]),
        |_| Ok(DataType::Utf8),
        |arrays, _| {
            let [patterns, escapes] = arrays else {
                return Err(Error::data("the function is like_escape(pattern, escape)").into());
            };
            let (patterns, escapes) = (patterns.as_string::<i32>(), escapes.as_string::<i32>());
            let out = patterns
                .iter()
                .zip(escapes)
                .map(|pair| match pair {
                    (Some(pattern), Some(escape)) => escaped(pattern, escape).map(Some),
                    _ => Ok(None),
                })
                .collect::<SqlResult<StringArray>>()?;
            Ok(Arc::new(out))
        },
    )
}

fn escaped(pattern: &str, escape: &str) -> SqlResult<String> {
    let mut chars = escape.chars();
    let escape = chars.next();
    if chars.next().is_some() {
        return Err(Error::new(
            Code::InvalidEscapeCharacter,
            "ESCAPE takes one character, or none",
        ));
    }
    let mut out = String::with_capacity(pattern.len() + 4);
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if Some(c) == escape {
            let Some(next) = chars.next() else {
                return Err(Error::new(
                    Code::InvalidEscapeSequence,
                    "the pattern of LIKE ends with its escape character",
                ));
            };
            if matches!(next, '%' | '_' | '\\') {
                out.push('\\');
            }
            out.push(next);
        } else {
            if c == '\\' {
                out.push('\\');
            }
            out.push(c);
        }
    }
    Ok(out)
}

/// Bytes of a line of base64, as in MIME.
const BASE64_LINE: usize = 76;

/// `encode(bytes, format)` as a text.
fn encode() -> ScalarUDF {
    Function::udf(
        "encode",
        |types| match types {
            [_, _] => Ok(vec![DataType::Binary, DataType::Utf8]),
            _ => Err(Error::data("the function is encode(bytes, format)").into()),
        },
        |_| Ok(DataType::Utf8),
        |arrays, _| {
            let (bytes, formats) = (arrays[0].as_binary::<i32>(), arrays[1].as_string::<i32>());
            let mut out = StringBuilder::new();
            for (bytes, format) in bytes.iter().zip(formats) {
                let (Some(bytes), Some(format)) = (bytes, format) else {
                    out.append_null();
                    continue;
                };
                room(out.values_slice().len(), 4 * bytes.len())?;
                out.append_value(encoded(bytes, format)?);
            }
            Ok(Arc::new(out.finish()))
        },
    )
}

/// `decode(text, format)` as bytes.
fn decode() -> ScalarUDF {
    Function::udf(
        "decode",
        |types| match types {
            [_, _] => Ok(vec![DataType::Utf8, DataType::Utf8]),
            _ => Err(Error::data("the function is decode(text, format)").into()),
        },
        |_| Ok(DataType::Binary),
        |arrays, _| {
            let (texts, formats) = (arrays[0].as_string::<i32>(), arrays[1].as_string::<i32>());
            let mut out = BinaryBuilder::new();
            for (text, format) in texts.iter().zip(formats) {
                let (Some(text), Some(format)) = (text, format) else {
                    out.append_null();
                    continue;
                };
                out.append_value(decoded(text, format)?);
            }
            Ok(Arc::new(out.finish()))
        },
    )
}

/// The values of one array have 31 bits of bytes.
fn room(taken: usize, more: usize) -> SqlResult<()> {
    match taken.saturating_add(more) <= i32::MAX as usize {
        true => Ok(()),
        false => Err(Error::new(
            Code::ProgramLimitExceeded,
            "encode: the texts that are made at once take more than 2 GiB",
        )),
    }
}

fn unknown_format(format: &str) -> Error {
    let message = format!("unrecognized encoding: \"{format}\"; there are hex, base64 and escape");
    Error::new(Code::InvalidParameterValue, message)
}

fn encoded(bytes: &[u8], format: &str) -> SqlResult<String> {
    if format.eq_ignore_ascii_case("hex") {
        let mut out = String::with_capacity(2 * bytes.len());
        put_hex(&mut out, bytes);
        return Ok(out);
    }
    if format.eq_ignore_ascii_case("base64") {
        let whole = BASE64.encode(bytes);
        let mut out = String::with_capacity(whole.len() + whole.len() / BASE64_LINE);
        for (i, c) in whole.chars().enumerate() {
            if i > 0 && i % BASE64_LINE == 0 {
                out.push('\n');
            }
            out.push(c);
        }
        return Ok(out);
    }
    if format.eq_ignore_ascii_case("escape") {
        let mut out = String::with_capacity(bytes.len());
        for byte in bytes {
            match byte {
                b'\\' => out.push_str("\\\\"),
                1..=127 => out.push(char::from(*byte)),
                _ => out.push_str(&format!("\\{byte:03o}")),
            }
        }
        return Ok(out);
    }
    Err(unknown_format(format))
}

fn decoded(text: &str, format: &str) -> SqlResult<Vec<u8>> {
    let wrong = |what: String| Error::new(Code::InvalidParameterValue, what);
    let dense = || text.bytes().filter(|b| !b.is_ascii_whitespace()).collect::<Vec<u8>>();
    if format.eq_ignore_ascii_case("hex") {
        let digits = dense();
        if digits.len() % 2 == 1 {
            return Err(wrong("invalid hexadecimal data: odd number of digits".to_owned()));
        }
        let digit = |b: u8| {
            let value = char::from(b).to_digit(16).map(|d| d as u8);
            value.ok_or_else(|| wrong(format!("invalid hexadecimal digit: \"{}\"", char::from(b))))
        };
        return digits.chunks(2).map(|pair| Ok(digit(pair[0])? << 4 | digit(pair[1])?)).collect();
    }
    if format.eq_ignore_ascii_case("base64") {
        return BASE64.decode(dense()).map_err(|e| wrong(format!("invalid base64 text: {e}")));
    }
    if format.eq_ignore_ascii_case("escape") {
        let mut out = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((byte, after)) = rest.split_first() {
            rest = after;
            match (byte, after) {
                (b'\\', [b'\\', after @ ..]) => {
                    out.push(b'\\');
                    rest = after;
                }
                (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                    out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                    rest = after;
                }
                (b'\\', _) => {
                    return Err(wrong(
                        "after a backslash come another or three octal digits".to_owned(),
                    ));
                }
                (byte, _) => out.push(*byte),
            }
        }
        return Ok(out);
    }
    Err(unknown_format(format))
}

/// `format('%s %I %L', ...)`.
fn format_function() -> ScalarUDF {
    Function::udf(
        "format",
        |types| match types {
            [] => Err(Error::data("the function is format(pattern, values...)").into()),
            types => Ok(vec![DataType::Utf8; types.len()]),
        },
        |_| Ok(DataType::Utf8),
        |arrays, args| {
            let mut allowance = Allowance::new("format", args);
            let arrays: Vec<&StringArray> = arrays.iter().map(|a| a.as_string::<i32>()).collect();
            let mut out = StringBuilder::new();
            for row in 0..arrays[0].len() {
                if arrays[0].is_null(row) {
                    out.append_null();
                    continue;
                }
                let value = |i: usize| {
                    let array = arrays.get(i)?;
                    Some(array.is_valid(row).then(|| array.value(row)))
                };
                out.append_value(formatted(arrays[0].value(row), value, &mut allowance)?);
            }
            Ok(Arc::new(out.finish()))
        },
    )
}

/// One text. `value` gives the i-th argument, the pattern being the 0th.
fn formatted<'a>(
    pattern: &str,
    value: impl Fn(usize) -> Option<Option<&'a str>>,
    allowance: &mut Allowance,
) -> SqlResult<String> {
    let wrong = |what: &str| Error::data(format!("format: {what}"));
    let mut out = String::new();
    allowance.take(0, pattern.len())?;
    let mut next = 1;
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let number = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            match digits.is_empty() {
                true => Ok(None),
                false => digits.parse::<u32>().map(|n| Some(n as usize)).map_err(|_| {
                    let message = format!("format: the number {digits} is out of range");
                    Error::new(Code::NumericValueOutOfRange, message)
                }),
            }
        };
        let mut first = number(&mut chars)?;
        if chars.next_if_eq(&'$').is_some() {
            next = first.filter(|n| *n > 0).ok_or_else(|| wrong("arguments are counted from 1"))?;
            first = None;
        }
        let left = chars.next_if_eq(&'-').is_some();
        let width = match first {
            Some(width) if !left => width,
            _ => number(&mut chars)?.unwrap_or(0),
        };
        if chars.peek() == Some(&'*') {
            return Err(Error::unsupported("format: a width of * is not supported"));
        }
        let kind = chars.next().ok_or_else(|| wrong("the pattern ends within a field"))?;
        let given = value(next).ok_or_else(|| wrong("there are too few arguments"))?;
        next += 1;
        let text = match (kind, given) {
            ('s', given) => given.unwrap_or_default().to_owned(),
            ('I', Some(name)) => identifier(name),
            ('I', None) => return Err(wrong("NULL is no identifier")),
            ('L', Some(text)) => format!("'{}'", text.replace('\'', "''")),
            ('L', None) => "NULL".to_owned(),
            (other, _) => return Err(wrong(&format!("the field %{other} is not known"))),
        };
        let missing = width.saturating_sub(text.chars().count());
        allowance.take(out.len(), missing.saturating_add(text.len()))?;
        let blanks = " ".repeat(missing);
        if left {
            out.push_str(&text);
            out.push_str(&blanks);
        } else {
            out.push_str(&blanks);
            out.push_str(&text);
        }
    }
    Ok(out)
}

/// A name, quoted where it must be.
fn identifier(name: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c == '_';
    let bare = name.starts_with(plain) && name.chars().all(|c| plain(c) || c.is_ascii_digit());
    if bare { name.to_owned() } else { quote(name) }
}

/// `pg_typeof(value)`.
fn type_of() -> ScalarUDF {
    Function::udf(
        "pg_typeof",
        |types| match types {
            [one] => Ok(vec![one.clone()]),
            _ => Err(Error::data("the function is pg_typeof(value)").into()),
        },
        |_| Ok(DataType::Utf8),
        |arrays, args| {
            let name = postgres_name(arrays[0].data_type());
            Ok(Arc::new(StringArray::from(vec![name; args.number_rows.min(arrays[0].len())])))
        },
    )
}

/// PostgreSQL's name of a type.
fn postgres_name(data_type: &DataType) -> String {
    use DataType::*;
    match data_type {
        Timestamp(_, None) => "timestamp without time zone".to_owned(),
        Timestamp(_, Some(_)) => "timestamp with time zone".to_owned(),
        Time32(_) | Time64(_) => "time without time zone".to_owned(),
        Decimal128(..) | Decimal256(..) => "numeric".to_owned(),
        Duration(_) => "interval".to_owned(),
        Null => "unknown".to_owned(),
        List(item) | LargeList(item) => format!("{}[]", postgres_name(item.data_type())),
        other => sql_name(other).to_lowercase(),
    }
}

/// What a function tells of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Info {
    Version,
    User(&'static str),
    Catalog(&'static str),
    Schema,
    Schemas,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SessionInfo {
    info: Info,
    signature: Signature,
}

impl SessionInfo {
    fn new(info: Info) -> Self {
        // The schema may change from statement to statement.
        let signature = match info {
            Info::Schema => Signature::nullary(Volatility::Stable),
            Info::Schemas => Signature::exact(vec![DataType::Boolean], Volatility::Stable),
            _ => Signature::nullary(Volatility::Immutable),
        };
        Self { info, signature }
    }
}

impl ScalarUDFImpl for SessionInfo {
    fn name(&self) -> &str {
        match self.info {
            Info::Version => "version",
            Info::User(name) | Info::Catalog(name) => name,
            Info::Schema => "current_schema",
            Info::Schemas => "current_schemas",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(match self.info {
            Info::Schemas => DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
            _ => DataType::Utf8,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let schema = || args.config_options.catalog.default_schema.clone();
        let text = match self.info {
            Info::Version => version(),
            Info::User(_) => USER.to_owned(),
            Info::Catalog(_) => CATALOG.to_owned(),
            Info::Schema => schema(),
            Info::Schemas => {
                let mut list = ListBuilder::new(StringBuilder::new());
                list.values().append_value(schema());
                list.append(true);
                let list: ArrayRef = Arc::new(list.finish());
                return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&list, 0)?));
            }
        };
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8(Some(text))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowance() -> Allowance {
        Allowance::of("format", 1_000)
    }

    #[test]
    fn patterns_get_the_backslash_for_their_escape() {
        for (pattern, escape, expected) in [
            ("7!%", "!", Ok("7\\%")),
            ("a#_b", "#", Ok("a\\_b")),
            ("a\\b", "!", Ok("a\\\\b")),
            ("a!!b%", "!", Ok("a!b%")),
            ("a\\%", "", Ok("a\\\\%")),
            ("a!", "!", Err(Code::InvalidEscapeSequence)),
            ("a", "!!", Err(Code::InvalidEscapeCharacter)),
        ] {
            let found = escaped(pattern, escape).map_err(|e| e.code());
            assert_eq!(found.as_deref().map_err(|c| *c), expected, "{pattern} {escape}");
        }
    }

    #[test]
    fn format_fills_fields() {
        let values = [Some("a b"), None, Some("o'k")];
        let value = |i: usize| values.get(i - 1).copied();
        for (pattern, expected) in [
            ("%s|%s|%s", "a b||o'k"),
            ("%I %3$L %%", "\"a b\" 'o''k' %"),
            ("[%5s] [%-5s]", "[  a b] [     ]"),
            ("%2$L", "NULL"),
        ] {
            assert_eq!(formatted(pattern, value, &mut allowance()).unwrap(), expected, "{pattern}");
        }
        assert!(formatted("%s %s %s %s", value, &mut allowance()).is_err());
        assert!(formatted("%d", value, &mut allowance()).is_err());
    }
}
