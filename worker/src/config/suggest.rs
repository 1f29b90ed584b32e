//! The known name that a wrong one was probably meant to be.

/// The nearest of the known names, if one is near enough to be worth saying.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_ascii_lowercase();
    let scored = known.into_iter().filter_map(|name| Some((distance(&wrong, &name.to_ascii_lowercase())?, name)));
    scored.min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// How far apart two names are, or `None` where nobody would take one for the other.
fn distance(wrong: &str, name: &str) -> Option<usize> {
    let edits = strsim::damerau_levenshtein(wrong, name);
    let bearable = 1 + wrong.len().max(name.len()) / 5;
    if edits <= bearable {
        return Some(edits);
    }
    // A name that lacks its beginning or end, such as `checkpointing.interval`, is far by letters and near by sense.
    let part = wrong.len() >= 4 && (bounded(name, wrong) || bounded(wrong, name));
    part.then_some(100 + edits)
}

/// Whether `part` is the beginning or the end of `whole`, cut at a separator.
fn bounded(whole: &str, part: &str) -> bool {
    let separator = |rest: Option<char>| rest.is_some_and(|c| matches!(c, '.' | '-' | '_'));
    whole.strip_suffix(part).is_some_and(|rest| separator(rest.chars().next_back()))
        || whole.strip_prefix(part).is_some_and(|rest| separator(rest.chars().next()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 4] =
        ["execution.checkpointing.interval", "execution.checkpointing.mode", "rest.port", "state.checkpoints.dir"];

    #[test]
    fn typing_errors_and_missing_parts_are_recognised() {
        for (wrong, meant) in [
            ("execution.checkpointing.intervall", "execution.checkpointing.interval"),
            ("checkpointing.mode", "execution.checkpointing.mode"),
            ("REST.PROT", "rest.port"),
            ("state.checkpoint.dir", "state.checkpoints.dir"),
        ] {
            assert_eq!(nearest(wrong, KNOWN), Some(meant), "{wrong}");
        }
    }

    #[test]
    fn what_is_like_nothing_gets_no_suggestion() {
        assert_eq!(nearest("web.submit.enable", KNOWN), None);
        assert_eq!(nearest("x", KNOWN), None);
    }
}
