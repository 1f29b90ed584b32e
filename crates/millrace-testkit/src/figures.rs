//! Figures that several measurements have in common.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

/// Median and worst of some durations; zero of none.
pub fn median_and_worst(durations: impl IntoIterator<Item = Duration>) -> (Duration, Duration) {
    let mut sorted: Vec<_> = durations.into_iter().collect();
    sorted.sort();
    let median = sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or_default();
    (median, sorted.last().copied().unwrap_or_default())
}

/// Of moments in their order: the longest gap that ended between `from` and `until`; one that began before counts from
/// there on. When outputs came is measured so: shortly after a fault, some that were on their way still come, and the
/// silence begins behind them. Where a fault stops nothing, it is the longest of the pauses that there always are.
pub fn longest_silence(moments: &[Instant], from: Instant, until: Instant) -> Option<Range<Instant>> {
    let within = &moments[moments.partition_point(|at| *at <= from)..moments.partition_point(|at| *at <= until)];
    let starts = std::iter::once(&from).chain(within);
    starts.zip(within).map(|(start, end)| *start..*end).max_by_key(|gap| gap.end - gap.start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_the_longest_gap() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let moments = [10, 20, 30, 500, 510, 900, 910].map(at);
        assert_eq!(longest_silence(&moments, at(25), at(1000)), Some(at(30)..at(500)));
        assert_eq!(longest_silence(&moments, at(400), at(1000)), Some(at(510)..at(900)));
        assert_eq!(longest_silence(&moments, at(25), at(400)), Some(at(25)..at(30)));
        assert_eq!(longest_silence(&moments, at(950), at(1000)), None);
    }

    #[test]
    fn the_median_is_one_of_the_durations() {
        let ms = Duration::from_millis;
        assert_eq!(median_and_worst([3, 1, 2, 9].map(ms)), (ms(2), ms(9)));
        assert_eq!(median_and_worst([]), (ms(0), ms(0)));
    }
}
