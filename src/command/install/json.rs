//! Changes single members of a JSON text and leaves every other byte as it is. The text has
//! to be valid JSON, which serde_json has found out before.

use std::ops::Range;

/// A member of an object: where its key begins and where its value is.
struct Member {
    key: String,
    start: usize,
    value: Range<usize>,
}

/// Gives a member its value, which is JSON, too. All but the last key name objects that exist.
pub(super) fn set(text: &str, keys: &[&str], value: &str) -> String {
    let Some((object, key)) = owner(text, keys) else { return text.to_owned() };
    let members = members(text, object.start);
    if let Some(member) = members.iter().find(|member| member.key == key) {
        return replaced(text, member.value.clone(), value);
    }
    let new = format!("\"{key}\": {value}");
    match members.last() {
        Some(last) => {
            // Written as its neighbours are.
            let before = members.iter().rev().nth(1).map_or(object.start + 1, |member| member.value.end + 1);
            let space = &text[before..last.start];
            let space = if space.trim().is_empty() { space } else { " " };
            replaced(text, last.value.end..last.value.end, &format!(",{space}{new}"))
        }
        None if keys.len() == 1 => replaced(text, object, &format!("{{\n  {new}\n}}")),
        None => replaced(text, object, &format!("{{ {new} }}")),
    }
}

/// Takes a member out, with the comma and the space that belong to it.
pub(super) fn remove(text: &str, keys: &[&str]) -> String {
    let Some((object, key)) = owner(text, keys) else { return text.to_owned() };
    let members = members(text, object.start);
    let Some(place) = members.iter().position(|member| member.key == key) else { return text.to_owned() };
    let gone = match (place.checked_sub(1), members.get(place + 1)) {
        (Some(before), _) => members[before].value.end..members[place].value.end,
        (None, Some(after)) => members[place].start..after.start,
        (None, None) => object.start + 1..object.end - 1,
    };
    replaced(text, gone, "")
}

fn replaced(text: &str, range: Range<usize>, by: &str) -> String {
    let mut text = text.to_owned();
    text.replace_range(range, by);
    text
}

/// The object that has the last key, or would have it.
fn owner<'a>(text: &str, keys: &[&'a str]) -> Option<(Range<usize>, &'a str)> {
    let (last, folders) = keys.split_last()?;
    let start = skip_space(text, 0);
    let mut object = start..value_end(text, start);
    for folder in folders {
        object = members(text, object.start).into_iter().find(|member| member.key == *folder)?.value;
    }
    text[object.clone()].starts_with('{').then_some((object, last))
}

fn members(text: &str, object: usize) -> Vec<Member> {
    let (mut found, mut at) = (Vec::new(), skip_space(text, object + 1));
    while text[at..].starts_with('"') {
        let start = at;
        let key_end = value_end(text, start);
        let colon = skip_space(text, key_end);
        let begin = skip_space(text, colon + 1);
        let value = begin..value_end(text, begin);
        let key = serde_json::from_str(&text[start..key_end]).unwrap_or_default();
        at = skip_space(text, value.end);
        if text[at..].starts_with(',') {
            at = skip_space(text, at + 1);
        }
        found.push(Member { key, start, value });
    }
    found
}

fn skip_space(text: &str, from: usize) -> usize {
    text.len() - text[from..].trim_start().len()
}

/// Where the value ends that begins here.
fn value_end(text: &str, start: usize) -> usize {
    let (mut depth, mut in_string, mut escaped) = (0_u32, false, false);
    for (at, byte) in text.bytes().enumerate().skip(start) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => {
                in_string = !in_string;
                if !in_string && depth == 0 {
                    return at + 1;
                }
            }
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            // A number or a word ends with what comes after it.
            b'}' | b']' | b',' | b' ' | b'\n' | b'\r' | b'\t' if depth == 0 => return at,
            b'}' | b']' if depth == 1 => return at + 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_looks_like_its_neighbours() {
        assert_eq!(set("{}\n", &["a"], "true"), "{\n  \"a\": true\n}\n");
        assert_eq!(set("{\"x\":{}}", &["x", "a"], "1"), "{\"x\":{ \"a\": 1 }}");
        assert_eq!(
            set("{\n\t\"x\": [1, {\"a\": 2}],\n\t\"y\": 3\n}\n", &["a"], "1"),
            "{\n\t\"x\": [1, {\"a\": 2}],\n\t\"y\": 3,\n\t\"a\": 1\n}\n"
        );
        assert_eq!(set(r#"{"q":"\"}","r":{"s":1}}"#, &["r", "t"], "2"), r#"{"q":"\"}","r":{"s":1,"t": 2}}"#);
        assert_eq!(set("{ \"a\" : false , \"b\": 1 }", &["a"], "true"), "{ \"a\" : true , \"b\": 1 }");
        assert_eq!(set("{ \"a\": 1 , \"b\": 1 }", &["c"], "2"), "{ \"a\": 1 , \"b\": 1, \"c\": 2 }");
    }

    #[test]
    fn what_is_removed_leaves_nothing_of_itself() {
        let three = "{\n  \"a\": 1,\n  \"b\": {\"a\": [\"}\"]},\n  \"c\": null\n}\n";
        assert_eq!(remove(three, &["a"]), "{\n  \"b\": {\"a\": [\"}\"]},\n  \"c\": null\n}\n");
        assert_eq!(remove(three, &["b"]), "{\n  \"a\": 1,\n  \"c\": null\n}\n");
        assert_eq!(remove(three, &["c"]), "{\n  \"a\": 1,\n  \"b\": {\"a\": [\"}\"]}\n}\n");
        assert_eq!(remove(three, &["b", "a"]), "{\n  \"a\": 1,\n  \"b\": {},\n  \"c\": null\n}\n");
        assert_eq!(remove(three, &["d"]), three);
    }

    #[test]
    fn removing_what_was_added_gives_the_same_bytes() {
        for text in
            ["{ \"a\" : 1 }", "{\"a\":{}}", "{\r\n    \"ö\": \"\\u00f6\\\\\"\r\n}", "\n{\"a\":[]\n,\"b\":2}"]
        {
            assert_eq!(remove(&set(text, &["new"], "{ \"x\": 1 }"), &["new"]), text);
        }
    }
}
