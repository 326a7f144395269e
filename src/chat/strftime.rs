//! `strftime_now`: the date in a template, from a clock that the caller gives. Universal time.

use minijinja::{Error, ErrorKind, Value};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
/// Years are kept to four digits.
const LAST_SECOND: i64 = 253_402_300_799;

/// The template function.
pub(super) fn function(now_secs: f64) -> Value {
    Value::from_function(move |format: String| -> Result<String, Error> { strftime(now_secs, &format) })
}

/// A moment, taken apart.
struct Moment {
    year: i64,
    /// 0-based.
    month: usize,
    day: i64,
    weekday: usize,
    day_of_year: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Moment {
    /// Civil date from days since 1970, in the proleptic Gregorian calendar (H. Hinnant, "chrono-compatible low-level
    /// date algorithms"). Eras of 400 years begin on 1 March, so that leap days come last.
    #[allow(clippy::arithmetic_side_effects, reason = "the seconds are clamped to the years 1970 to 9999")]
    fn new(now_secs: f64) -> Moment {
        let seconds = (now_secs as i64).clamp(0, LAST_SECOND);
        let (days, in_day) = (seconds / 86_400, seconds % 86_400);
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * from_march + 2) / 153;
        let day = from_march - (153 * march_month + 2) / 5 + 1;
        let month = (march_month + 2) % 12;
        let year = year_of_era + era * 400 + i64::from(month < 2);
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let day_of_year = if month < 2 { from_march - 305 } else { from_march + 60 + i64::from(is_leap) };
        Moment {
            year,
            month: usize::try_from(month).unwrap_or_default(),
            day,
            weekday: usize::try_from((days + 4) % 7).unwrap_or_default(),
            day_of_year,
            hour: in_day / 3600,
            minute: in_day / 60 % 60,
            second: in_day % 60,
        }
    }
}

fn strftime(now_secs: f64, format: &str) -> Result<String, Error> {
    let now = Moment::new(now_secs);
    let month = MONTHS.get(now.month).copied().unwrap_or_default();
    let weekday = DAYS.get(now.weekday).copied().unwrap_or_default();
    let short = |name: &str| name.get(..3).unwrap_or_default().to_owned();
    let hour12 = if now.hour.rem_euclid(12) == 0 { 12 } else { now.hour.rem_euclid(12) };
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let mut directive = letters.next();
        // `%-d` is `%d` without padding.
        let padded = directive != Some('-');
        if !padded {
            directive = letters.next();
        }
        let number = |value: i64, width: usize| if padded { format!("{value:0width$}") } else { value.to_string() };
        text.push_str(&match directive {
            Some('Y') => format!("{:04}", now.year),
            Some('y') => number(now.year.rem_euclid(100), 2),
            Some('m') => number(i64::try_from(now.month).unwrap_or_default().saturating_add(1), 2),
            Some('d') => number(now.day, 2),
            Some('e') => format!("{:2}", now.day),
            Some('H') => number(now.hour, 2),
            Some('I') => number(hour12, 2),
            Some('M') => number(now.minute, 2),
            Some('S') => number(now.second, 2),
            Some('j') => number(now.day_of_year, 3),
            Some('p') => (if now.hour < 12 { "AM" } else { "PM" }).to_owned(),
            Some('B') => month.to_owned(),
            Some('b') => short(month),
            Some('A') => weekday.to_owned(),
            Some('a') => short(weekday),
            Some('F') => format!(
                "{:04}-{}-{}",
                now.year,
                number(i64::try_from(now.month).unwrap_or_default().saturating_add(1), 2),
                number(now.day, 2)
            ),
            Some('T') => format!("{}:{}:{}", number(now.hour, 2), number(now.minute, 2), number(now.second, 2)),
            Some('%') => "%".to_owned(),
            other => {
                let letter = other.map_or_else(String::new, String::from);
                return Err(Error::new(ErrorKind::InvalidOperation, format!("strftime_now does not know %{letter}")));
            }
        });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let cases = [
            (0.0, "1970-01-01 Thursday 001"),
            (951_782_400.0, "2000-02-29 Tuesday 060"),
            (978_220_800.0, "2000-12-31 Sunday 366"),
            (1_772_323_199.0, "2026-02-28 Saturday 059"),
            (1_772_323_200.0, "2026-03-01 Sunday 060"),
            (4_107_542_400.0, "2100-03-01 Monday 060"),
            (-5.0, "1970-01-01 Thursday 001"),
            (f64::NAN, "1970-01-01 Thursday 001"),
            (f64::INFINITY, "9999-12-31 Friday 365"),
        ];
        let got: Vec<String> = cases.iter().map(|(at, _)| strftime(*at, "%F %A %j").unwrap()).collect();
        let expected: Vec<&str> = cases.iter().map(|(_, expected)| *expected).collect();
        assert_eq!(got, expected);
        assert_eq!(
            strftime(1_773_057_905.0, "%d %b %Y, %-I:%M %p, %e, %y%%").unwrap(),
            "09 Mar 2026, 12:05 PM,  9, 26%"
        );
        assert!(strftime(0.0, "%Q").is_err());
    }
}
