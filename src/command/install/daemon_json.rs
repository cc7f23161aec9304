//! Docker's `daemon.json`: what Cryo adds to it, and takes out again.

use serde_json::Value;

use super::json::{remove, set};

pub(super) const PATH: &str = "/etc/docker/daemon.json";
const RUNTIME_TYPE: &str = "io.containerd.runc.cryo.v2";
const RUNTIME: &str = r#"{ "runtimeType": "io.containerd.runc.cryo.v2" }"#;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Error {
    #[error("{PATH} isn't a JSON object ({0}): mend it and run this again")]
    Invalid(String),
    #[error(
        "{PATH} already has a runtime \"cryo\" that isn't this one: give it another name and run this again"
    )]
    ForeignRuntime,
    #[error("{PATH} has {0:?} in a form that Docker doesn't read: mend it and run this again")]
    WrongForm(&'static str),
    #[error("{PATH} names \"cryo\" as default-runtime: change that before you remove the runtime")]
    Default,
}

/// The text with Cryo in it. Docker doesn't start if a flag says the same as the file does, so
/// `experimental` is left out where a flag has switched it on.
pub(super) fn add(text: Option<&str>, experimental_by_flag: bool) -> Result<String, Error> {
    // Docker takes an empty file for an empty object.
    let text = text.filter(|text| !text.trim().is_empty()).unwrap_or("{}\n");
    let value = parse(text)?;
    let mut text = text.to_owned();
    match value.get("experimental") {
        Some(Value::Bool(true)) => {}
        Some(Value::Bool(false)) | None => {
            if !experimental_by_flag {
                text = set(&text, &["experimental"], "true");
            }
        }
        Some(_) => return Err(Error::WrongForm("experimental")),
    }
    let Some(runtimes) = value.get("runtimes") else {
        return Ok(set(&text, &["runtimes"], &format!("{{ \"cryo\": {RUNTIME} }}")));
    };
    let runtimes = runtimes.as_object().ok_or(Error::WrongForm("runtimes"))?;
    match runtimes.get("cryo") {
        None => Ok(set(&text, &["runtimes", "cryo"], RUNTIME)),
        Some(cryo) if is_ours(cryo) => Ok(text),
        Some(_) => Err(Error::ForeignRuntime),
    }
}

/// The text without what was added to the older one; all else stays, whoever wrote it.
pub(super) fn take_out(text: &str, before: Option<&str>) -> Result<Option<String>, Error> {
    let value = parse(text)?;
    let old = before.filter(|before| !before.trim().is_empty()).map(parse).transpose()?.unwrap_or_default();
    let mut text = text.to_owned();
    if value["experimental"] == true {
        match old.get("experimental") {
            None => text = remove(&text, &["experimental"]),
            Some(Value::Bool(true)) => {}
            Some(other) => text = set(&text, &["experimental"], &other.to_string()),
        }
    }
    if is_ours(&value["runtimes"]["cryo"]) && old["runtimes"]["cryo"].is_null() {
        if value["default-runtime"] == "cryo" {
            return Err(Error::Default);
        }
        text = remove(&text, &["runtimes", "cryo"]);
        if old["runtimes"].is_null()
            && parse(&text)?["runtimes"].as_object().is_some_and(|all| all.is_empty())
        {
            text = remove(&text, &["runtimes"]);
        }
    }
    let nothing_left = before.is_none() && parse(&text)?.as_object().is_some_and(|all| all.is_empty());
    Ok((!nothing_left).then_some(text))
}

/// Restarting Docker stops containers unless it is told to leave them alone.
pub(super) fn keeps_containers(text: &str) -> bool {
    parse(text).is_ok_and(|value| value["live-restore"] == true)
}

fn parse(text: &str) -> Result<Value, Error> {
    let value: Value = serde_json::from_str(text).map_err(|error| Error::Invalid(error.to_string()))?;
    if value.is_object() { Ok(value) } else { Err(Error::Invalid("it is something else".to_owned())) }
}

fn is_ours(runtime: &Value) -> bool {
    runtime["runtimeType"] == RUNTIME_TYPE && runtime.get("path").is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOREIGN: &str = "{\n    \"log-driver\": \"local\",\n    \"runtimes\": {\n        \"crun\": {\"path\": \"crun\"}\n    }\n}\n";

    #[test]
    fn a_new_file_is_the_one_that_is_shipped() {
        assert_eq!(add(None, false).unwrap(), include_str!("../../../deploy/docker/daemon.json"));
    }

    #[test]
    fn everything_else_stays_where_it_is() {
        let ours = add(Some(FOREIGN), false).unwrap();
        let expected = "{\n    \"log-driver\": \"local\",\n    \"runtimes\": {\n        \"crun\": {\"path\": \"crun\"},\
            \n        \"cryo\": { \"runtimeType\": \"io.containerd.runc.cryo.v2\" }\n    },\n    \"experimental\": true\n}\n";
        assert_eq!(ours, expected);
        assert_eq!(add(Some(&ours), false).unwrap(), ours);
        assert_eq!(take_out(&ours, Some(FOREIGN)).unwrap().as_deref(), Some(FOREIGN));
    }

    #[test]
    fn what_the_user_added_later_stays() {
        let edited = add(None, false).unwrap().replacen('{', "{\n  \"debug\": true,", 1);
        let rest = take_out(&edited, None).unwrap().unwrap();
        assert_eq!(parse(&rest).unwrap(), serde_json::json!({ "debug": true }));
        assert_eq!(take_out(&add(None, false).unwrap(), None).unwrap(), None);
    }

    #[test]
    fn experimental_goes_back_to_what_it_was() {
        let old = "{\"experimental\": false}";
        let edited = add(Some(old), false).unwrap().replacen('{', "{\"debug\": true, ", 1);
        let rest = take_out(&edited, Some(old)).unwrap().unwrap();
        assert_eq!(rest, "{\"debug\": true, \"experimental\": false}");
        let on = "{\"experimental\": true}";
        assert_eq!(take_out(&add(Some(on), false).unwrap(), Some(on)).unwrap().as_deref(), Some(on));
        assert!(!add(None, true).unwrap().contains("experimental"));
    }

    #[test]
    fn what_would_be_broken_is_refused() {
        assert!(matches!(add(Some("{\"a\": 1,}"), false), Err(Error::Invalid(_))));
        assert!(matches!(add(Some("[]"), false), Err(Error::Invalid(_))));
        let foreign = "{\"runtimes\": {\"cryo\": {\"path\": \"/usr/bin/other\"}}}";
        assert_eq!(add(Some(foreign), false), Err(Error::ForeignRuntime));
        assert_eq!(add(Some("{\"runtimes\": []}"), false), Err(Error::WrongForm("runtimes")));
        let default = add(Some("{\"default-runtime\": \"cryo\"}"), false).unwrap();
        assert_eq!(take_out(&default, Some("{}")), Err(Error::Default));
    }
}
