//! Errors of SQL: an engine error, or one of parsing, planning and executing. Carries no gRPC status.

use std::fmt;

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
    /// The statement was cancelled or ran out of time.
    Cancelled,
    /// As the engine says.
    Engine(EngineKind),
}

/// An error of a SQL statement. The message is lower case and names what is at fault.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// [`ErrorKind::Unsupported`].
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// What a client can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
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
        Self {
            kind: ErrorKind::Engine(e.kind()),
            message: e.message().to_owned(),
            source: Some(Box::new(e)),
        }
    }
}
