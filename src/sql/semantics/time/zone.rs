//! Wall clocks and instants: what an instant is on the clocks of a zone, and which instant a wall clock shows.

use arrow::array::temporal_conversions::as_datetime_with_timezone;
use arrow::datatypes::TimestampSecondType;

use super::calendar::{SECONDS_PER_DAY, civil_from_days, days_from_civil};
use super::text::{NamedZone, zone_by_name, zone_of_offset};

/// The zone of the label that an Arrow type carries, or that a statement names: an offset such as +09:00 lies east of
/// Greenwich, as in ISO 8601.
pub(crate) fn zone(label: &str) -> Option<NamedZone> {
    if label.starts_with(['+', '-']) { zone_of_offset(label) } else { zone_by_name(label) }
}

impl NamedZone {
    /// Seconds that the clocks of the zone are ahead of UTC at an instant; `None` beyond the years that are known.
    pub(crate) fn offset_at(&self, utc_seconds: i64) -> Option<i32> {
        match self {
            Self::Offset(offset) => Some(*offset),
            Self::Place(place) => {
                let known = within_tables(utc_seconds);
                let there = as_datetime_with_timezone::<TimestampSecondType>(known, *place)?;
                i32::try_from(there.naive_local().and_utc().timestamp() - known).ok()
            }
        }
    }

    /// The offset of the instant at which the clocks show `wall_seconds`. Of two such instants it is the later, as the clocks
    /// were set back; where clocks were set forward past it, they are taken as not set yet. PostgreSQL chooses so.
    pub(crate) fn offset_of_wall(&self, wall_seconds: i64) -> Option<i32> {
        if let Self::Offset(offset) = self {
            return Some(*offset);
        }
        let before = self.offset_at(wall_seconds.checked_sub(SECONDS_PER_DAY)?)?;
        let after = self.offset_at(wall_seconds.checked_add(SECONDS_PER_DAY)?)?;
        if before == after {
            return Some(before);
        }
        let shows = self.offset_at(wall_seconds - i64::from(after))? == after;
        Some(if shows { after } else { before })
    }
}

/// The tables of zones end with this year. The rules that hold at their end go on (RFC 9636, section 3.3).
const FIRST_UNKNOWN_YEAR: i64 = 2100;

/// An instant beyond the tables as the same one in a year of the tables with the same calendar.
fn within_tables(utc_seconds: i64) -> i64 {
    let days = utc_seconds.div_euclid(SECONDS_PER_DAY);
    if days < days_from_civil(FIRST_UNKNOWN_YEAR, 1, 1) {
        return utc_seconds;
    }
    let (year, ..) = civil_from_days(days);
    let calendar = |year: i64| {
        let first = days_from_civil(year, 1, 1);
        (first.rem_euclid(7), days_from_civil(year + 1, 1, 1) - first)
    };
    // All calendars come up in 28 years.
    let known = (FIRST_UNKNOWN_YEAR - 28..FIRST_UNKNOWN_YEAR).rev();
    let same = known.into_iter().find(|known| calendar(*known) == calendar(year));
    let Some(same) = same else { return utc_seconds };
    let moved = days_from_civil(year, 1, 1) - days_from_civil(same, 1, 1);
    utc_seconds - moved * SECONDS_PER_DAY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_are_set_are_read_as_postgresql_reads_them() {
        let berlin = zone("Europe/Berlin").unwrap();
        // 2024-03-31 02:30 is skipped, 2024-10-27 02:30 comes twice.
        let wall = |days: i64, hour: i64, minute: i64| days * 86_400 + hour * 3_600 + minute * 60;
        assert_eq!(berlin.offset_of_wall(wall(19_813, 1, 59)), Some(3_600));
        assert_eq!(berlin.offset_of_wall(wall(19_813, 2, 30)), Some(3_600));
        assert_eq!(berlin.offset_of_wall(wall(19_813, 3, 0)), Some(7_200));
        assert_eq!(berlin.offset_of_wall(wall(20_023, 1, 59)), Some(7_200));
        assert_eq!(berlin.offset_of_wall(wall(20_023, 2, 30)), Some(3_600));
        assert_eq!(berlin.offset_of_wall(wall(20_023, 3, 0)), Some(3_600));
        assert_eq!(zone("+09:30").unwrap().offset_at(0), Some(34_200));
        assert!(zone("Mars/Base").is_none());
    }

    #[test]
    fn the_last_rules_go_on() {
        let (new_york, sydney) =
            (zone("America/New_York").unwrap(), zone("Australia/Sydney").unwrap());
        for year in [2_090, 2_099, 2_100, 2_101, 2_500, 2_501, 9_999, 250_000] {
            let noon = |month, day| days_from_civil(year, month, day) * 86_400 + 43_200;
            assert_eq!(new_york.offset_at(noon(6, 15)), Some(-14_400), "{year}");
            assert_eq!(new_york.offset_at(noon(12, 15)), Some(-18_000), "{year}");
            assert_eq!(sydney.offset_at(noon(1, 1)), Some(39_600), "{year}");
            assert_eq!(sydney.offset_at(noon(7, 1)), Some(36_000), "{year}");
        }
    }
}
