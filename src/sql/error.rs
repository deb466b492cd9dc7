//! Errors of SQL: an engine error, or one of parsing, planning and executing. Carries no gRPC status.

use std::fmt;

use arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;

use super::code::Code;
use crate::engine::{self, ErrorKind as EngineKind};

/// Result of a SQL operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a client can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The text is not SQL that this database understands.
    Syntax,
    /// The statement is understood and not supported.
    Unsupported,
    /// A value does not fit where it is used: a cast, an overflow, a division by zero, a parameter.
    Data,
    /// The statement was refused for safety, or by a limit on its size.
    Refused,
    /// The statement was cancelled.
    Cancelled,
    /// The statement ran out of time.
    TimedOut,
    /// The session or its transaction is not in a state for it: the client must end the transaction first, say.
    State,
    /// As the engine says.
    Engine(EngineKind),
}

/// An error of a SQL statement. The message is lower case and names what is at fault.
#[derive(Debug)]
pub struct Error {
    code: Code,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of a [`Code`], or of an [`ErrorKind`] where no code says more.
    pub fn new(code: impl Into<Code>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), source: None }
    }

    /// [`ErrorKind::Unsupported`].
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// A defect of OmenDB itself.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::InternalError, message)
    }

    /// Names or types of the text do not fit together: [`ErrorKind::Syntax`]. Where a finer [`Code`] fits, say that.
    pub fn syntax(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Syntax, message)
    }

    /// A value does not fit where it is used.
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Data, message)
    }

    /// The message alone.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What a client can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.code.kind()
    }

    /// What is wrong, with its SQLSTATE.
    pub fn code(&self) -> Code {
        self.code
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|s| s as _)
    }
}

impl From<engine::Error> for Error {
    fn from(e: engine::Error) -> Self {
        Self { code: Code::from(&e), message: e.message().to_owned(), source: Some(Box::new(e)) }
    }
}

/// Lets an error pass through DataFusion and come out of it again as it was.
impl From<Error> for DataFusionError {
    fn from(e: Error) -> Self {
        Self::External(Box::new(e))
    }
}

impl From<engine::Error> for DataFusionError {
    fn from(e: engine::Error) -> Self {
        Error::from(e).into()
    }
}

impl From<ArrowError> for Error {
    fn from(e: ArrowError) -> Self {
        match e {
            ArrowError::ExternalError(inner) => external(inner),
            ArrowError::CastError(m)
            | ArrowError::ComputeError(m)
            | ArrowError::InvalidArgumentError(m) => Self::data(lower_first(&m)),
            ArrowError::ParseError(m) => {
                Self::new(Code::InvalidTextRepresentation, lower_first(&m))
            }
            ArrowError::ArithmeticOverflow(m) => {
                Self::new(Code::NumericValueOutOfRange, lower_first(&m))
            }
            ArrowError::DivideByZero => Self::new(Code::DivisionByZero, "division by zero"),
            ArrowError::NotYetImplemented(m) => Self::unsupported(lower_first(&m)),
            ArrowError::OffsetOverflowError(_) => Self::new(Code::ProgramLimitExceeded, TOO_LONG),
            other => Self::internal(format!("arrow: {other}")),
        }
    }
}

impl From<DataFusionError> for Error {
    fn from(e: DataFusionError) -> Self {
        use DataFusionError as D;
        match e {
            D::External(inner) => external(inner),
            D::ArrowError(inner, _) => (*inner).into(),
            D::Context(_, inner) | D::Diagnostic(_, inner) => (*inner).into(),
            D::Shared(inner) => shared(&inner),
            D::Collection(inner) => match inner.into_iter().next() {
                Some(first) => first.into(),
                None => Self::internal("planning failed without an error"),
            },
            D::SQL(inner, _) => Self::new(Code::SyntaxError, format!("syntax error: {inner}")),
            D::SchemaError(inner, _) => schema(&inner),
            D::Plan(m) => Self::syntax(lower_first(&m)),
            D::Configuration(m) => Self::new(Code::InvalidParameterValue, lower_first(&m)),
            D::NotImplemented(m) => Self::unsupported(lower_first(&m)),
            D::ResourcesExhausted(m) => Self::new(Code::OutOfMemory, lower_first(&m)),
            D::Execution(m) => Self::data(lower_first(&m)),
            other => Self::internal(other.strip_backtrace()),
        }
    }
}

/// What is said where the values of one column that are held together pass the 32 bits of their offsets.
const TOO_LONG: &str = "the values of a column that are held at once take more than 2 GiB: ask for fewer or shorter ones";

/// An error that went through DataFusion or Arrow as a box.
fn external(inner: Box<dyn std::error::Error + Send + Sync>) -> Error {
    match inner.downcast::<Error>() {
        Ok(own) => *own,
        Err(inner) => match inner.downcast::<DataFusionError>() {
            Ok(e) => (*e).into(),
            Err(inner) => match inner.downcast::<ArrowError>() {
                Ok(e) => (*e).into(),
                Err(other) => Error::internal(other.to_string()),
            },
        },
    }
}

/// An error that several partitions share cannot be taken apart: its kind and message are copied.
fn shared(error: &DataFusionError) -> Error {
    match error.find_root() {
        DataFusionError::External(inner) => match inner.downcast_ref::<Error>() {
            Some(own) => Error::new(own.code, own.message.clone()),
            None => Error::internal(inner.to_string()),
        },
        DataFusionError::ResourcesExhausted(m) => Error::new(Code::OutOfMemory, lower_first(m)),
        DataFusionError::Execution(m) => Error::data(lower_first(m)),
        other => Error::data(other.strip_backtrace()),
    }
}

fn schema(error: &SchemaError) -> Error {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let wanted = field.name.as_str();
            let mut message = format!("column \"{wanted}\" does not exist");
            let names: Vec<&str> = valid_fields.iter().map(|c| c.name.as_str()).collect();
            if let Some(near) = nearest(wanted, names.iter().copied()) {
                message.push_str(&format!("; did you mean {}?", quote(near)));
            }
            Error::new(Code::UndefinedColumn, message)
        }
        SchemaError::AmbiguousReference { field } => Error::new(
            Code::AmbiguousColumn,
            format!("column \"{}\" is ambiguous; put its table's name before it", field.name),
        ),
        other => Error::syntax(lower_first(&other.to_string())),
    }
}

/// The name most like `wanted`, if one is near enough to be meant.
pub(crate) fn nearest<'a>(
    wanted: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let lower = wanted.to_lowercase();
    names
        .into_iter()
        .map(|name| (distance(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= 1 + wanted.len().max(name.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Insertions, deletions and replacements that turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(256).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(256).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// An identifier as it must be written in SQL: quoted unless it is plain lower case.
pub(crate) fn quote(name: &str) -> String {
    let plain = name.chars().next().is_some_and(|c| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

fn lower_first(message: &str) -> String {
    let message = message.trim();
    let mut chars = message.chars();
    match (chars.next(), chars.next()) {
        // Names in capitals (CAST, NULL) stay.
        (Some(a), Some(b)) if a.is_uppercase() && b.is_lowercase() => {
            a.to_lowercase().chain(message.chars().skip(1)).collect()
        }
        _ => message.to_owned(),
    }
}
