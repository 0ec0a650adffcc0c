//! Golden cases of daylight saving, and what holds of every recurrence.

use proptest::prelude::*;

use super::*;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// The local times of the occurrences that follow.
fn follow(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let recurrence = Recurrence::cron(expression, zone).unwrap();
    let zone = super::zone(zone).unwrap();
    let times = recurrence.after(at(after)).take(count);
    times.map(|time| local_time(time, zone).format("%m-%d %H:%M:%S %:z").to_string()).collect()
}

#[test]
fn a_skipped_local_time_fires_once_right_after_the_gap() {
    // Berlin, 29 March 2026: 02:00 +01:00 is 03:00 +02:00.
    let eve = "2026-03-28T12:00:00Z";
    assert_eq!(follow("30 2 * * *", "Europe/Berlin", eve, 2), ["03-29 03:00:00 +02:00", "03-30 02:30:00 +02:00"]);
    // However many are skipped; and what is due at the end of the gap anyway is not due twice.
    assert_eq!(
        follow("*/15 2,3 * * *", "Europe/Berlin", eve, 5)[..4],
        ["03-29 03:00:00 +02:00", "03-29 03:15:00 +02:00", "03-29 03:30:00 +02:00", "03-29 03:45:00 +02:00"]
    );
    // New York, 8 March 2026; the hour before the gap is as ever.
    assert_eq!(
        follow("0 1,2 * * *", "America/New_York", "2026-03-08T05:30:00Z", 3),
        ["03-08 01:00:00 -05:00", "03-08 03:00:00 -04:00", "03-09 01:00:00 -04:00"]
    );
    // Lord Howe skips half an hour, on 4 October 2026 at 02:00.
    assert_eq!(
        follow("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", 2),
        ["10-04 02:30:00 +11:00", "10-05 02:15:00 +11:00"]
    );
    // Beirut skips midnight, on 29 March 2026.
    assert_eq!(
        follow("@daily", "Asia/Beirut", "2026-03-28T12:00:00Z", 2),
        ["03-29 01:00:00 +03:00", "03-30 00:00:00 +03:00"]
    );
}

#[test]
fn a_repeated_local_time_fires_once_the_first_time() {
    // Berlin, 25 October 2026: 03:00 +02:00 is 02:00 +01:00.
    assert_eq!(
        follow("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
        ["10-25 02:30:00 +02:00", "10-26 02:30:00 +01:00"]
    );
    assert_eq!(
        follow("0,30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 3),
        ["10-25 02:00:00 +02:00", "10-25 02:30:00 +02:00", "10-26 02:00:00 +01:00"]
    );
    // Asked within the second half, too.
    assert_eq!(follow("*/20 2,3 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", 1), ["10-25 03:00:00 +01:00"]);
}

#[test]
fn an_hour_field_with_a_star_goes_by_elapsed_hours() {
    assert_eq!(
        follow("@hourly", "Europe/Berlin", "2026-03-29T00:30:00Z", 2),
        ["03-29 03:00:00 +02:00", "03-29 04:00:00 +02:00"]
    );
    assert_eq!(
        follow("@hourly", "Europe/Berlin", "2026-10-24T23:30:00Z", 3),
        ["10-25 02:00:00 +02:00", "10-25 02:00:00 +01:00", "10-25 03:00:00 +01:00"]
    );
    assert_eq!(
        follow("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:15:00Z", 4),
        ["10-25 02:30:00 +02:00", "10-25 02:00:00 +01:00", "10-25 02:30:00 +01:00", "10-25 03:00:00 +01:00"]
    );
    assert_eq!(
        follow("0 */2 * * *", "Europe/Berlin", "2026-03-28T23:30:00Z", 2),
        ["03-29 04:00:00 +02:00", "03-29 06:00:00 +02:00"]
    );
}

#[test]
fn expressions_are_read_as_people_write_them() {
    for (expression, expected) in [
        ("30 9 * * FRI-SAT", vec!["01-02 09:30:00 +00:00", "01-03 09:30:00 +00:00"]),
        ("*/20 * * * * *", vec!["01-01 00:00:20 +00:00", "01-01 00:00:40 +00:00"]),
        ("0 12 L * *", vec!["01-31 12:00:00 +00:00", "02-28 12:00:00 +00:00"]),
        ("0 8 * * 1#2", vec!["01-12 08:00:00 +00:00", "02-09 08:00:00 +00:00"]),
        ("0 8 * * 5L", vec!["01-30 08:00:00 +00:00", "02-27 08:00:00 +00:00"]),
        ("0 0 13 * FRI", vec!["01-02 00:00:00 +00:00", "01-09 00:00:00 +00:00"]),
        ("0 0 13 * +FRI", vec!["02-13 00:00:00 +00:00", "03-13 00:00:00 +00:00"]),
        ("0 0 1 jan,jul 7", vec!["01-04 00:00:00 +00:00", "01-11 00:00:00 +00:00"]),
        ("@weekly", vec!["01-04 00:00:00 +00:00", "01-11 00:00:00 +00:00"]),
        ("@Midnight", vec!["01-02 00:00:00 +00:00", "01-03 00:00:00 +00:00"]),
        ("@monthly", vec!["02-01 00:00:00 +00:00", "03-01 00:00:00 +00:00"]),
        ("0 0 29 2 *", vec!["02-29 00:00:00 +00:00", "02-29 00:00:00 +00:00"]),
    ] {
        assert_eq!(follow(expression, "UTC", "2026-01-01T00:00:00Z", 2), expected, "{expression}");
    }
}

#[test]
fn what_cannot_be_read_is_refused_and_what_never_fires_says_so() {
    for wrong in ["", "* * * *", "* * * * * * *", "61 * * * *", "@reboot", "@every 5s", "a b c d e", "0 0 0 * *"] {
        assert!(matches!(Recurrence::cron(wrong, "UTC"), Err(WrongRecurrence::Cron(_))), "{wrong}");
    }
    for (wrong, told) in [
        ("61 * * * *", "cannot be read: minute `61`: number out of bounds"),
        ("0 61 * * * *", "cannot be read: minute `61`: number out of bounds"),
        ("0 0 * FOO *", "cannot be read: month `FOO`: "),
        ("0 0 é * *", "cannot be read: day of the month `é`: "),
    ] {
        let text = Recurrence::cron(wrong, "UTC").unwrap_err().to_string();
        assert!(text.starts_with(told), "{wrong}: {text}");
    }
    assert!(matches!(Recurrence::cron("@daily", "Mars/Olympus"), Err(WrongRecurrence::TimeZone)));
    for never in ["0 0 30 2 *", "0 0 31 4,6,9,11 *"] {
        assert_eq!(Recurrence::cron(never, "Europe/Berlin").unwrap().next(at("2026-01-01T00:00:00Z")), None, "{never}");
    }
}

#[test]
fn a_start_counts_and_so_does_an_end() {
    let every = Recurrence::every(10, at("2026-01-01T00:00:05Z"));
    let bounded = every.clone().between(Some(at("2026-01-01T00:00:05Z")), Some(at("2026-01-01T00:00:25Z")));
    let seconds: Vec<i64> = bounded.after(at("2025-01-01T00:00:00Z")).map(|time| time.timestamp() % 60).collect();
    assert_eq!(seconds, [5, 15, 25]);
    assert_eq!(every.next(at("2026-01-01T00:00:05Z")), Some(at("2026-01-01T00:00:15Z")));
}

#[test]
fn jitter_is_the_same_every_time_and_stays_within_its_bound() {
    let (id, start) = (Uuid::from_u128(7), at("2026-01-01T00:00:00Z"));
    let all: Vec<Duration> = (0..200).map(|i| jitter(id, start + TimeDelta::seconds(i), 30)).collect();
    assert!(all.iter().all(|jitter| *jitter <= Duration::from_secs(30)));
    assert!(
        all.iter().max().unwrap() > &Duration::from_secs(25) && all.iter().min().unwrap() < &Duration::from_secs(5)
    );
    assert_eq!(jitter(id, start, 30), all[0]);
    assert_eq!(jitter(id, start, 0), Duration::ZERO);
    assert_ne!(jitter(Uuid::from_u128(8), start, 30), all[0]);
}

const ZONES: [&str; 6] =
    ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Casablanca"];

fn expression() -> impl Strategy<Value = String> {
    let minute = prop_oneof!["[0-5]?[0-9]", Just("*".to_owned()), Just("*/7".to_owned()), Just("5-55/10".to_owned())];
    let hour = prop_oneof!["1?[0-9]", Just("*".to_owned()), Just("*/3".to_owned()), Just("1-3".to_owned())];
    let day = prop_oneof![Just("*".to_owned()), Just("1,15,28".to_owned()), Just("L".to_owned())];
    let weekday = prop_oneof![Just("*".to_owned()), "[0-6]", Just("1-5".to_owned())];
    (minute, hour, day, weekday).prop_map(|(minute, hour, day, weekday)| format!("{minute} {hour} {day} * {weekday}"))
}

proptest! {
    #[test]
    fn occurrences_rise_and_nothing_lies_between_two(text in expression(), zone in 0..ZONES.len(), days in 0..3_000_i64) {
        let recurrence = Recurrence::cron(&text, ZONES[zone]).unwrap();
        let start = at("2024-01-01T00:00:00Z") + TimeDelta::days(days);
        let times: Vec<_> = recurrence.after(start).take(20).collect();
        prop_assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
        for pair in times.windows(2) {
            // Asked from anywhere between, the next is the same.
            let between = pair[0] + (pair[1] - pair[0]) / 2;
            prop_assert_eq!(recurrence.next(between), Some(pair[1]));
            prop_assert_eq!(recurrence.next(pair[1] - TimeDelta::microseconds(1)), Some(pair[1]));
        }
        let (first, last) = (start, *times.last().unwrap());
        prop_assert_eq!(recurrence.last(first, last), Some(last));
        prop_assert_eq!(recurrence.last(first, last - TimeDelta::microseconds(1)), times.iter().rev().nth(1).copied());
        prop_assert_eq!(recurrence.count(first, last), times.len());
    }

    #[test]
    fn in_utc_the_occurrences_are_the_minutes_that_match(text in expression(), days in 0..3_000_i64) {
        let recurrence = Recurrence::cron(&text, "UTC").unwrap();
        let start = at("2024-01-01T00:00:00Z") + TimeDelta::days(days);
        let end = start + TimeDelta::days(2);
        let Beat::Cron { cron, .. } = &recurrence.beat else { panic!("a cron expression") };
        let matching = (1..=2 * 24 * 60).map(|minute| start + TimeDelta::minutes(minute));
        let matching: Vec<_> = matching.filter(|time| cron.is_time_matching(time).unwrap()).collect();
        prop_assert_eq!(recurrence.within(start, end).collect::<Vec<_>>(), matching);
    }

    #[test]
    fn a_day_has_one_run_of_a_daily_expression_whatever_the_clocks_do(hour in 0..24_u32, minute in 0..60_u32, zone in 0..ZONES.len()) {
        let recurrence = Recurrence::cron(&format!("{minute} {hour} * * *"), ZONES[zone]).unwrap();
        let zone = super::zone(ZONES[zone]).unwrap();
        let days: Vec<_> = recurrence.after(at("2026-01-02T12:00:00Z")).take(364)
            .map(|time| time.with_timezone(&zone).date_naive()).collect();
        prop_assert!(days.windows(2).all(|pair| pair[0].succ_opt() == Some(pair[1])), "{days:?}");
    }

    /// Strangers write expressions: whatever they write is read or refused, and what is read has occurrences or none, soon.
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,30}", likely in "@?[0-9*/,#LW+?A-Fa-u -]{0,24}", zone in 0..ZONES.len()) {
        for text in [text, likely] {
            if let Ok(recurrence) = Recurrence::cron(&text, ZONES[zone]) {
                let _ = recurrence.after(at("2026-03-28T12:00:00Z")).take(3).count();
            }
        }
    }

    /// As people nearly write them: fields at random.
    #[test]
    fn any_fields_are_read_or_refused(fields in proptest::collection::vec("[*?]|[0-9]{1,2}|[0-9]-[0-9]{1,2}|\\*/[0-9]{1,2}|L|[0-9]{1,2}W|[0-9]#[0-9]|[0-9]L|MON|jan|\\+[0-9]", 5..=6)) {
        if let Ok(recurrence) = Recurrence::cron(&fields.join(" "), "Europe/Berlin") {
            let times: Vec<_> = recurrence.after(at("2026-03-28T12:00:00Z")).take(3).collect();
            prop_assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }

    #[test]
    fn intervals_never_drift(seconds in 1..1_000_000_i64, anchor in 0..2_000_000_000_i64, steps in 1..200_000_i64, within in 0..1_000_000_i64) {
        let anchor = DateTime::from_timestamp(anchor, 0).unwrap();
        let after = anchor + TimeDelta::microseconds(within);
        let recurrence = Recurrence::every(seconds, anchor);
        prop_assert_eq!(recurrence.next(after + TimeDelta::seconds(seconds * (steps - 1))), Some(anchor + TimeDelta::seconds(seconds * steps)));
        let last = recurrence.last(anchor, after + TimeDelta::seconds(seconds * steps)).unwrap();
        prop_assert_eq!((last - anchor).num_seconds(), seconds * steps);
    }
}
