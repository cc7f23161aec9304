//! What is known of failures: how CRIU (3.19 to 4.2) words them, what they mean, and what
//! helps. One file for each side, and one for what can go wrong on both.

mod dump;
mod node;
mod restore;

/// Something that goes wrong, as people meet it.
#[derive(Debug)]
pub(super) struct Cause {
    /// What CRIU's line contains, one of them; `*` stands for anything.
    signs: &'static [&'static str],
    /// `{}` in it is what the sign's last `*` stands for.
    pub(super) sentence: &'static str,
    pub(super) remedy: &'static str,
}

impl Cause {
    /// The first that fits, and the detail.
    pub(super) fn of(line: &str) -> Option<(&'static Cause, String)> {
        all().find_map(|cause| {
            let detail = cause.signs.iter().find_map(|sign| matched(line, sign))?;
            Some((cause, detail.to_owned()))
        })
    }
}

/// In the order of their say: a shortage of the node ends up in the words of whatever met it.
fn all() -> impl Iterator<Item = &'static Cause> {
    node::SHORTAGES.iter().chain(dump::CAUSES).chain(restore::CAUSES).chain(node::CAUSES)
}

const fn cause(signs: &'static [&'static str], sentence: &'static str, remedy: &'static str) -> Cause {
    Cause { signs, sentence, remedy }
}

/// What the last `*` stands for, if the line fits; nothing if the sign has none.
fn matched<'a>(line: &'a str, sign: &str) -> Option<&'a str> {
    let mut parts = sign.split('*');
    let first = parts.next()?;
    let mut rest = &line[line.find(first)? + first.len()..];
    let mut star = "";
    for part in parts {
        let end = if part.is_empty() { rest.len() } else { rest.find(part)? };
        star = &rest[..end];
        rest = &rest[end + part.len()..];
    }
    Some(star)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_a_sentence_and_a_remedy_that_fit_into_a_message() {
        let mut count = 0;
        for Cause { signs, sentence, remedy } in all() {
            count += 1;
            assert!(!signs.is_empty() && !sentence.is_empty() && !remedy.is_empty(), "{signs:?}");
            // The rest is for the log's path and what `{}` stands for.
            assert!(sentence.len() + remedy.len() <= 170, "{sentence}; {remedy}");
            assert!(!sentence.ends_with('.') && !remedy.ends_with('.'), "{sentence}; {remedy}");
            assert!(sentence.matches("{}").count() <= 1, "{sentence}");
            for sign in *signs {
                assert!(sign.len() >= 5, "{sign}");
                assert!(!sentence.contains("{}") || sign.contains('*'), "{sign} has nothing for {sentence}");
            }
        }
        assert!(count >= 45, "{count} causes");
    }

    #[test]
    fn no_sign_is_hidden_by_an_earlier_one() {
        for cause in all() {
            for sign in cause.signs {
                let line = sign.replace('*', "7");
                let (found, _) = Cause::of(&line).unwrap();
                assert!(std::ptr::eq(found, cause), "{sign} is taken for {}", found.sentence);
            }
        }
    }

    #[test]
    fn a_star_stands_for_the_detail() {
        assert_eq!(matched("Can't dump ghost file /a b of 7 size", "ghost file * of"), Some("/a b"));
        assert_eq!(matched("of that type [600] (anon x)", "type [*] (*)"), Some("anon x"));
        assert_eq!(matched("name: a; peer name: /run/b", "peer name: *"), Some("/run/b"));
        assert_eq!(matched("plain", "plain"), Some(""));
        assert_eq!(matched("plain", "plain*x"), None);
        assert_eq!(matched("", "*"), Some(""));
    }
}
