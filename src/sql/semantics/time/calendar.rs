//! Days of the proleptic Gregorian calendar in 64 bits, and the units of timestamps: no year is too far.

use arrow::datatypes::TimeUnit;

pub(crate) const NANOS_PER_SECOND: i64 = 1_000_000_000;
pub(crate) const SECONDS_PER_DAY: i64 = 86_400;
pub(crate) const NANOS_PER_DAY: i64 = SECONDS_PER_DAY * NANOS_PER_SECOND;

/// Ticks of a unit in a second.
pub(crate) fn ticks_per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => NANOS_PER_SECOND,
    }
}

/// Decimal digits of a second that a unit holds.
pub(crate) fn digits_of(unit: TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

/// Year (0 is 1 BC), month and day of the month of a day counted from 1970-01-01.
pub(crate) fn civil_from_days(days: i64) -> (i64, u32, u32) {
    // Years that begin in March, in eras of 400 of them.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as u32, day as u32)
}

/// The inverse of [`civil_from_days`].
pub(crate) fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month = i64::from(month);
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Days of a month.
pub(crate) fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        2 if year.rem_euclid(4) == 0
            && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0) =>
        {
            29
        }
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The day some months later; the last of the month where there is no such day.
pub(crate) fn add_months(days: i64, months: i64) -> i64 {
    let (year, month, day) = civil_from_days(days);
    let count = year * 12 + i64::from(month) - 1 + months;
    let (year, month) = (count.div_euclid(12), count.rem_euclid(12) as u32 + 1);
    days_from_civil(year, month, day.min(days_in_month(year, month)))
}

/// 2000-01-01, from which PostgreSQL counts, in seconds from 1970.
const EPOCH_SECONDS: i128 = 946_684_800;

/// `value / unit` of a moment in ticks of which `second` make a second, rounded as PostgreSQL rounds timestamps: halves away
/// from the year 2000. A unit is no longer than a second.
pub(crate) fn round_moment(value: i128, unit: i128, second: i128) -> i128 {
    let epoch = EPOCH_SECONDS * second;
    round_div(value - epoch, unit) + epoch / unit
}

/// `value / unit`, rounded to the nearest; halves away from zero, as PostgreSQL rounds times to a precision.
pub(crate) fn round_div(value: i128, unit: i128) -> i128 {
    let half = unit / 2;
    if value >= 0 { (value + half) / unit } else { -((half - value) / unit) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_are_inverse() {
        for days in (-4_000_000i64..4_000_000).step_by(97).chain([0, -1, 59, 60, 106_000_000]) {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
            assert!((1..=days_in_month(year, month)).contains(&day));
        }
        assert_eq!(civil_from_days(0), (1970, 1, 1));
        // Half a second after a midnight in 1985, and in 2005.
        let half = |days: i128| (days * 86_400) * 1_000 + 500;
        assert_eq!(round_moment(half(5_479), 1_000, 1_000), 5_479 * 86_400);
        assert_eq!(round_moment(half(12_784), 1_000, 1_000), 12_784 * 86_400 + 1);
        assert_eq!(days_from_civil(2000, 2, 29), 11_016);
        assert_eq!(civil_from_days(add_months(days_from_civil(2024, 1, 31), 1)), (2024, 2, 29));
    }
}
