"""When two answers are the same: a notion of equality for each type.

Every engine's values are brought to one form first: integers and decimals to Decimal, dates to days, times and timestamps to
microseconds (nanoseconds where there are any become fractions), intervals to PostgreSQL's length of them (a month is 30 days,
a day 24 hours), lists to tuples. Floats stay floats: the sign of zero and the payload of NaN are no differences.
"""

import dataclasses
import math
import re
from decimal import Decimal
from fractions import Fraction

# What a float may differ by, relatively, where an operation is not exact (sums, averages, logarithms, ...).
TOLERANCE = 1e-9
# Of averages and quotients of decimals, PostgreSQL keeps at least 16 digits, OmenDB those of the type.
DIGITS = Decimal("1e-4")

DAY = 86_400_000_000
MONTH = 30 * DAY


@dataclasses.dataclass
class Answer:
    """Rows of an engine in the common form, or the error."""

    names: list = dataclasses.field(default_factory=list)
    rows: list = dataclasses.field(default_factory=list)
    error: str | None = None
    sqlstate: str | None = None

    @property
    def failed(self) -> bool:
        return self.error is not None

    def text(self, limit: int = 12) -> str:
        """One line for a report."""
        if self.failed:
            return f"ERROR {self.sqlstate or '-----'}: {self.error}"
        rows = ", ".join("(" + ", ".join(map(show, row)) + ")" for row in self.rows[:limit])
        more = f", ... {len(self.rows)} rows" if len(self.rows) > limit else ""
        return (rows + more) or "no row"


@dataclasses.dataclass(frozen=True)
class Moment:
    """A date, time, timestamp or interval: its kind, so that a date is no timestamp, and its length."""

    kind: str
    at: object

    def __lt__(self, other):
        return (self.kind, self.at) < (other.kind, other.at)


def show(value) -> str:
    """A value as a report shows it."""
    match value:
        case None:
            return "NULL"
        case bool():
            return str(value).lower()
        case Decimal():
            return format(value.normalize(), "f") if value.is_finite() and abs(value.adjusted()) < 40 else str(value)
        case Moment():
            return f"{value.kind} {moment(value)}"
        case tuple():
            return "[" + ", ".join(map(show, value)) + "]"
        case _:
            return repr(value)


def moment(value: Moment) -> str:
    """A moment as text; what Python's calendar does not hold is shown as its number."""
    import datetime

    try:
        at = int(value.at)
        if value.kind == "date":
            return str(datetime.date(1970, 1, 1) + datetime.timedelta(days=at))
        if value.kind == "interval":
            return f"{at // DAY} days {datetime.timedelta(microseconds=at % DAY)}"
        return str(datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=at))
    except (OverflowError, ValueError):
        return str(value.at)


# ---- PostgreSQL's texts

_DATE = re.compile(r"(\d{4,})-(\d\d)-(\d\d)(?: (\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?([+-]\d\d(?::\d\d){0,2})?)?( BC)?$")
_TIME = re.compile(r"(\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?$")


def days_from_civil(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the proleptic Gregorian calendar, for any year."""
    year -= month <= 2
    era, of_era = divmod(year, 400)
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


def _clock(hours, minutes, seconds, fraction) -> int:
    return ((int(hours) * 60 + int(minutes)) * 60 + int(seconds)) * 1_000_000 + int((fraction or "0").ljust(6, "0"))


def moment_from_text(kind: str, text: str):
    """A date, time or timestamp as PostgreSQL writes it (DateStyle ISO)."""
    if text in ("infinity", "-infinity"):
        return Moment(kind, math.inf if text == "infinity" else -math.inf)
    if kind == "time":
        return Moment(kind, _clock(*_TIME.match(text).groups()))
    year, month, day, hours, minutes, seconds, fraction, zone, before = _DATE.match(text).groups()
    days = days_from_civil(1 - int(year) if before else int(year), int(month), int(day))
    if kind == "date":
        return Moment(kind, days)
    at = days * DAY + _clock(hours, minutes, seconds, fraction)
    if zone:
        parts = [int(p) for p in zone[1:].split(":")] + [0, 0]
        offset = ((parts[0] * 60 + parts[1]) * 60 + parts[2]) * 1_000_000
        at += offset if zone[0] == "-" else -offset
    return Moment(kind, at)


def interval_from_text(text: str) -> Moment:
    """An interval as PostgreSQL writes it (IntervalStyle postgres)."""
    months = days = micros = 0
    for number, unit in re.findall(r"([+-]?\d+) (year|mon|day)s?", text):
        match unit:
            case "year":
                months += 12 * int(number)
            case "mon":
                months += int(number)
            case "day":
                days += int(number)
    if clock := re.search(r"([+-]?)(\d+):(\d\d):(\d\d)(?:\.(\d{1,6}))?", text):
        sign, *parts = clock.groups()
        micros = _clock(*parts) * (-1 if sign == "-" else 1)
    return interval(months, days, micros)


def interval(months: int, days: int, micros) -> Moment:
    return Moment("interval", months * MONTH + days * DAY + micros)


def exact(count: int, per_micro: int):
    """A count of units that are `per_micro` to the microsecond, as microseconds."""
    return count // per_micro if count % per_micro == 0 else Fraction(count, per_micro)


# ---- comparison

def same_value(a, b, inexact: bool) -> bool:
    """Whether two values in the common form are the same."""
    if a is None or b is None:
        return a is b
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, (Decimal, float)) and isinstance(b, (Decimal, float)):
        return same_number(a, b, inexact)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(same_value(x, y, inexact) for x, y in zip(a, b))
    if isinstance(a, Moment) and isinstance(b, Moment) and inexact:
        return a.kind == b.kind and (a.at == b.at or abs(a.at - b.at) <= 1)
    return type(a) is type(b) and a == b


def same_number(a, b, inexact: bool) -> bool:
    if isinstance(a, Decimal) and isinstance(b, Decimal):
        if a == b or (a.is_nan() and b.is_nan()):
            return True
        if not inexact or not (a.is_finite() and b.is_finite()):
            return False
        return abs(a - b) <= max(DIGITS * min(1, max(abs(a), abs(b))), Decimal(TOLERANCE) * max(abs(a), abs(b)))
    x, y = float(a), float(b)
    if x == y or (math.isnan(x) and math.isnan(y)):
        return True
    if not inexact:
        # A decimal beside a float: the same number to the digits that a float has.
        return type(a) is not type(b) and math.isclose(x, y, rel_tol=1e-15)
    # Of an inexact difference of two large numbers, what is left may be noise about zero.
    return math.isclose(x, y, rel_tol=TOLERANCE if type(a) is type(b) else 1e-4, abs_tol=1e-9)


def sort_key(value):
    """An order over all values in the common form, so that rows without an ORDER BY can be paired."""
    match value:
        case None:
            return (9, 0)
        case bool():
            return (0, value)
        case float() if math.isnan(value):
            return (1, math.inf, 1)
        case Decimal() if value.is_nan():
            return (1, math.inf, 1)
        case float() | Decimal():
            # Coarse: values that differ by less than the tolerance must not change the order of rows.
            return (1, float(f"{float(value):.4e}"), 0)
        case Moment():
            return (2, value.kind, value.at)
        case bytes():
            return (3, value)
        case tuple():
            return (4, tuple(map(sort_key, value)))
        case _:
            return (5, str(value))


def row_key(row):
    return tuple(map(sort_key, row))


def same_rows(a: list, b: list, ordered: bool, inexact: bool) -> bool:
    """Whether two lists of rows are the same: as sequences where the statement orders them wholly, else as multisets."""
    if len(a) != len(b) or (a and len(a[0]) != len(b[0])):
        return False
    if not ordered:
        a, b = sorted(a, key=row_key), sorted(b, key=row_key)
    if all(same_value(x, y, inexact) for r, s in zip(a, b) for x, y in zip(r, s)):
        return True
    return not ordered and paired(a, b, inexact)


def paired(a: list, b: list, inexact: bool) -> bool:
    """The slow way, for rows whose order hangs on a digit that the sort does not look at."""
    left = list(b)
    for row in a:
        for i, other in enumerate(left):
            if all(same_value(x, y, inexact) for x, y in zip(row, other)):
                del left[i]
                break
        else:
            return False
    return True
