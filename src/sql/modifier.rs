//! What a SQL type says beyond its Arrow type: VARCHAR(3), CHAR(3), VARBINARY(3), TIMESTAMP(4). A column keeps it in the metadata of
//! its field, a cast in that of the type it casts to.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, StringArray};
use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::sql::sqlparser::ast::{
    BinaryLength, CharacterLength, DataType as SqlType, TimezoneInfo,
};

use super::cast::Failure;
use super::error::{Error, Result};
use super::semantics::time::calendar::digits_of;
use super::semantics::time::cast::round_to;
use super::types::sql_name;

/// The key of the metadata.
pub(crate) const MODIFIER: &str = "omendb.modifier";

/// Longest VARCHAR and CHAR, in characters, as in PostgreSQL; also of VARBINARY in bytes.
const MAX_LENGTH: u64 = 10_485_760;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Modifier {
    /// At most so many characters.
    Varchar(u32),
    /// At most so many characters. PostgreSQL fills up with blanks that mean nothing where values are compared, measured or joined;
    /// here blanks at the end are left out, which compares as that does.
    Char(u32),
    /// At most so many bytes.
    Binary(u32),
    /// So many digits of a second, fewer than the unit has.
    Digits(u8),
}

impl Modifier {
    /// What a SQL type says.
    pub(crate) fn of_type(sql: &SqlType) -> Result<Option<Self>> {
        use SqlType as S;
        let characters = |length: &Option<CharacterLength>| match length {
            None => Ok(None),
            Some(CharacterLength::IntegerLength { length, .. }) => checked(sql, *length).map(Some),
            Some(CharacterLength::Max) => Ok(None),
        };
        Ok(match sql {
            S::Varchar(length)
            | S::CharacterVarying(length)
            | S::CharVarying(length)
            | S::Nvarchar(length) => characters(length)?.map(Self::Varchar),
            S::Char(length) | S::Character(length) => {
                // CHAR is CHAR(1).
                Some(Self::Char(characters(length)?.unwrap_or(1)))
            }
            S::Varbinary(Some(BinaryLength::IntegerLength { length }))
            | S::Binary(Some(length)) => Some(Self::Binary(checked(sql, *length)?)),
            S::Timestamp(Some(digits), _)
            | S::Datetime(Some(digits))
            | S::Time(Some(digits), TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
                let unit = unit(sql, Some(*digits))?;
                let digits = *digits as u8;
                (digits < digits_of(unit)).then_some(Self::Digits(digits))
            }
            _ => None,
        })
    }

    /// What a field says.
    pub(crate) fn of_field(field: &Field) -> Option<Self> {
        field.metadata().get(MODIFIER)?.parse().ok()
    }

    /// The SQL name of a type with this modifier.
    pub(crate) fn sql_name(self, data_type: &DataType) -> String {
        match self {
            Self::Varchar(n) => format!("VARCHAR({n})"),
            Self::Char(n) => format!("CHAR({n})"),
            Self::Binary(n) => format!("VARBINARY({n})"),
            Self::Digits(n) => {
                let name = sql_name(data_type);
                let (head, tail) = name.split_once(' ').unwrap_or((&name, ""));
                let head = head.split('(').next().unwrap_or(head);
                let gap = if tail.is_empty() { "" } else { " " };
                format!("{head}({n}){gap}{tail}")
            }
        }
    }

    /// The field with this modifier.
    pub(crate) fn on(self, field: Field) -> Field {
        let mut metadata = field.metadata().clone();
        metadata.insert(MODIFIER.to_owned(), self.to_string());
        field.with_metadata(metadata)
    }
}

fn checked(sql: &SqlType, length: u64) -> Result<u32> {
    match u32::try_from(length) {
        Ok(n) if (1..=MAX_LENGTH).contains(&length) => Ok(n),
        _ => Err(Error::data(format!("the length of {sql} is not 1 to {MAX_LENGTH}"))),
    }
}

/// The unit that holds so many digits of a second.
pub(crate) fn unit(sql: &SqlType, digits: Option<u64>) -> Result<TimeUnit> {
    match digits {
        Some(0) => Ok(TimeUnit::Second),
        Some(1..=3) => Ok(TimeUnit::Millisecond),
        None | Some(4..=6) => Ok(TimeUnit::Microsecond),
        Some(7..=9) => Ok(TimeUnit::Nanosecond),
        Some(_) => Err(Error::data(format!("the precision of {sql} is not 0 to 9"))),
    }
}

impl fmt::Display for Modifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Varchar(n) => write!(f, "varchar({n})"),
            Self::Char(n) => write!(f, "char({n})"),
            Self::Binary(n) => write!(f, "binary({n})"),
            Self::Digits(n) => write!(f, "digits({n})"),
        }
    }
}

impl FromStr for Modifier {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let (name, rest) = text.split_once('(').ok_or(())?;
        let number: u32 = rest.strip_suffix(')').and_then(|n| n.parse().ok()).ok_or(())?;
        Ok(match name {
            "varchar" => Self::Varchar(number),
            "char" => Self::Char(number),
            "binary" => Self::Binary(number),
            "digits" => Self::Digits(u8::try_from(number).map_err(|_| ())?),
            _ => return Err(()),
        })
    }
}

impl Modifier {
    /// Values as a column with this modifier takes them: what is too long is an error, but for blanks at the end of texts.
    pub(crate) fn assign(self, array: &ArrayRef) -> Result<ArrayRef, Failure> {
        match self {
            Self::Varchar(n) => texts(array, |text| match cut(text, n) {
                short if text[short.len()..].bytes().all(|b| b == b' ') => Some(short.into()),
                _ => None,
            }),
            Self::Char(n) => texts(array, |text| match cut(text, n) {
                short if text[short.len()..].bytes().all(|b| b == b' ') => Some(trimmed(short)),
                _ => None,
            }),
            Self::Binary(n) => {
                let bytes = array.as_binary::<i32>();
                match bytes.iter().position(|b| b.is_some_and(|b| b.len() > n as usize)) {
                    Some(row) => Err(Failure::TooLong { row }),
                    None => Ok(Arc::clone(array)),
                }
            }
            Self::Digits(n) => round_to(array, n),
        }
    }

    /// Values as a cast makes them: what is too long is cut.
    pub(crate) fn cast(self, array: &ArrayRef) -> Result<ArrayRef, Failure> {
        match self {
            Self::Varchar(n) => texts(array, |text| Some(cut(text, n).into())),
            Self::Char(n) => texts(array, |text| Some(trimmed(cut(text, n)))),
            Self::Binary(n) => {
                let bytes = array.as_binary::<i32>();
                let cut = bytes.iter().map(|b| b.map(|b| &b[..b.len().min(n as usize)]));
                Ok(Arc::new(cut.collect::<BinaryArray>()))
            }
            Self::Digits(n) => round_to(array, n),
        }
    }
}

/// The first characters of a text.
fn cut(text: &str, characters: u32) -> &str {
    if text.len() <= characters as usize {
        return text;
    }
    text.char_indices().nth(characters as usize).map_or(text, |(end, _)| &text[..end])
}

fn trimmed(text: &str) -> Cow<'_, str> {
    text.trim_end_matches(' ').into()
}

/// Texts made anew, where any of them changes.
fn texts<'a>(
    array: &'a ArrayRef,
    make: impl Fn(&'a str) -> Option<Cow<'a, str>>,
) -> Result<ArrayRef, Failure> {
    let given = array.as_string::<i32>();
    let mut made = Vec::with_capacity(given.len());
    let mut changed = false;
    for (row, text) in given.iter().enumerate() {
        let text = match text {
            None => None,
            Some(text) => {
                let new = make(text).ok_or(Failure::TooLong { row })?;
                changed |= new != text;
                Some(new)
            }
        };
        made.push(text);
    }
    if !changed {
        return Ok(Arc::clone(array));
    }
    Ok(Arc::new(made.into_iter().collect::<StringArray>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(texts: &[&str]) -> ArrayRef {
        Arc::new(StringArray::from(texts.to_vec()))
    }

    #[test]
    fn lengths_are_of_characters() {
        let varchar = Modifier::Varchar(3);
        let assigned = varchar.assign(&given(&["ab", "äöü", "abc  "])).unwrap();
        assert_eq!(assigned.as_ref(), given(&["ab", "äöü", "abc"]).as_ref());
        assert!(matches!(
            varchar.assign(&given(&["ab", "abcd"])),
            Err(Failure::TooLong { row: 1 })
        ));
        assert_eq!(varchar.cast(&given(&["äöüß"])).unwrap().as_ref(), given(&["äöü"]).as_ref());
        let char = Modifier::Char(3);
        assert_eq!(
            char.assign(&given(&["a  ", "abc "])).unwrap().as_ref(),
            given(&["a", "abc"]).as_ref()
        );
    }

    #[test]
    fn modifiers_are_read_as_they_are_written() {
        for modifier in
            [Modifier::Varchar(7), Modifier::Char(1), Modifier::Binary(9), Modifier::Digits(4)]
        {
            assert_eq!(modifier.to_string().parse(), Ok(modifier));
        }
        assert!("varchar".parse::<Modifier>().is_err());
    }
}
