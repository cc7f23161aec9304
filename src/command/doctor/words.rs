//! What other programs say about themselves, read from their own words.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

pub(super) const STOCK_NAME: &str = "io.containerd.runc.v2";

/// A version, as far as it decides anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u32, pub(super) u32);

impl Version {
    pub(super) fn parse(text: &str) -> Option<Version> {
        let mut numbers = text.trim_start_matches('v').split(|c: char| !c.is_ascii_digit());
        let first = numbers.next()?.parse().ok()?;
        let second = numbers.next().and_then(|number| number.parse().ok());
        Some(Version(first, second.unwrap_or(0)))
    }
}

/// `containerd --version`: its name, its source, its version and perhaps a commit.
pub(super) fn containerd(text: &str) -> Option<&str> {
    Some(text.split_whitespace().nth(2)?.trim_start_matches('v'))
}

/// `runc --version` and `crun --version`.
pub(super) fn runtime(text: &str) -> Option<&str> {
    text.lines().next()?.split_once(" version ").map(|(_, version)| version.trim())
}

/// `criu --version`.
pub(super) fn criu(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("Version: ")).map(str::trim)
}

/// Whether `runc features` or `crun features` claims to checkpoint; nothing if it doesn't say.
pub(super) fn checkpoints(features: &str, annotation: &str) -> Option<bool> {
    let features: Value = serde_json::from_str(features).ok()?;
    Some(features["annotations"][annotation].as_str()? == "true")
}

/// How pods of a RuntimeClass are run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Handler {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) path: String,
    pub(super) pod_annotations: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Described {
    pub(super) default: String,
    pub(super) handlers: Vec<Handler>,
}

/// `containerd config dump`: all of its configuration, migrated to the version it has itself.
/// Nothing if it leaves the CRI out.
pub(crate) fn handlers(text: &str) -> Option<Described> {
    #[derive(Deserialize)]
    struct Dump {
        #[serde(default)]
        disabled_plugins: Vec<String>,
        #[serde(default)]
        plugins: BTreeMap<String, toml::Value>,
    }
    #[derive(Deserialize)]
    struct Cri {
        containerd: Runtimes,
    }
    #[derive(Deserialize)]
    struct Runtimes {
        default_runtime_name: String,
        #[serde(default)]
        runtimes: BTreeMap<String, Runtime>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Runtime {
        runtime_type: String,
        runtime_path: String,
        pod_annotations: Vec<String>,
    }
    let mut dump: Dump = toml::from_str(text).ok()?;
    let name = ["io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"]
        .into_iter()
        .find(|name| dump.plugins.get(*name).is_some_and(|section| section.get("containerd").is_some()))?;
    let off = |wanted: &str| dump.disabled_plugins.iter().any(|plugin| plugin == wanted);
    if off(name) || off("cri") || off("io.containerd.grpc.v1.cri") {
        return None;
    }
    let cri: Cri = dump.plugins.remove(name)?.try_into().ok()?;
    let handlers = cri.containerd.runtimes.into_iter().map(|(name, runtime)| Handler {
        name,
        kind: runtime.runtime_type,
        path: runtime.runtime_path,
        pod_annotations: runtime.pod_annotations,
    });
    Some(Described { default: cri.containerd.default_runtime_name, handlers: handlers.collect() })
}

/// `docker version --format '{{json .}}'`.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Docker {
    pub(super) client: Part,
    /// Absent if the daemon doesn't answer.
    pub(super) server: Option<Part>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Part {
    pub(super) version: String,
    #[serde(default)]
    pub(super) experimental: bool,
}

/// It comes first; a complaint about the daemon may follow.
pub(super) fn docker(text: &str) -> Option<Docker> {
    serde_json::Deserializer::from_str(text).into_iter().next()?.ok()
}

/// Why `criu check` isn't content, in its own words.
pub(super) fn complaint(text: &str) -> Option<&str> {
    let line = text.lines().find(|line| line.contains("Error")).or_else(|| text.lines().last())?;
    Some(line.split_once("): ").map_or(line, |(_, said)| said).trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_programs_print_them() {
        let one = "containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24~ds1-6+deb13u1\n";
        let two = "containerd github.com/containerd/containerd/v2 2.1.9+unknown \n";
        let upstream = "containerd github.com/containerd/containerd/v2 v2.0.5 fb4c30d4ede3531652d86197bf3fc9515e5276d9\n";
        assert_eq!(
            [one, two, upstream].map(containerd),
            [Some("1.7.24~ds1"), Some("2.1.9+unknown"), Some("2.0.5")]
        );
        let runc = "runc version 1.1.15+ds1\ncommit: 1.1.15+ds1-2+b4\nspec: 1.2.0\ngo: go1.24.4\nlibseccomp: 2.6.0\n";
        let crun =
            "crun version 1.21\ncommit: 10269840aa\nrundir: /run/crun\nspec: 1.0.0\n+SYSTEMD +CRIU +YAJL\n";
        assert_eq!([runc, crun].map(runtime), [Some("1.1.15+ds1"), Some("1.21")]);
        assert_eq!(criu("Version: 4.2.1\nGitID: v4.2.1\n"), Some("4.2.1"));
        assert_eq!(criu("criu: not found"), None);
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(Version::parse("1.10").unwrap() > Version(1, 9));
        assert_eq!(Version::parse("v6.18.44-fc").unwrap(), Version(6, 18));
        assert_eq!(Version::parse("4").unwrap(), Version(4, 0));
        assert_eq!(Version::parse("unknown"), None);
    }

    #[test]
    fn features_say_yes_no_or_nothing() {
        let name = "org.opencontainers.runc.checkpoint.enabled";
        let with = |value: &str| format!("{{\"annotations\": {{\"{name}\": \"{value}\"}}}}");
        assert_eq!(checkpoints(&with("true"), name), Some(true));
        assert_eq!(checkpoints(&with("false"), name), Some(false));
        assert_eq!(checkpoints("{\"annotations\": {}}", name), None);
        assert_eq!(checkpoints("No help topic for 'features'", name), None);
    }

    #[test]
    fn docker_answers_with_and_without_its_daemon() {
        let alone = r#"{"Client":{"Version":"26.1.5+dfsg1","ApiVersion":"1.45","Os":"linux"},"Server":null}
Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"#;
        let both = r#"{"Client":{"Version":"28.5.2"},"Server":{"Version":"28.5.2","Experimental":true,"Components":[]}}"#;
        let part = |version: &str, experimental| Part { version: version.into(), experimental };
        assert_eq!(docker(alone), Some(Docker { client: part("26.1.5+dfsg1", false), server: None }));
        let server = Some(part("28.5.2", true));
        assert_eq!(docker(both), Some(Docker { client: part("28.5.2", false), server }));
        assert_eq!(docker("permission denied"), None);
    }

    #[test]
    fn handlers_are_found_in_either_version_of_a_configuration() {
        let text = |section: &str| {
            format!(
                "version = 3\ndisabled_plugins = []\n[plugins.'io.containerd.{section}'.containerd]\n\
                 default_runtime_name = 'runc'\n\
                 [plugins.'io.containerd.{section}'.containerd.runtimes.cryo]\n\
                 runtime_type = 'io.containerd.runc.v2'\nruntime_path = '/x'\npod_annotations = ['cryo.*']\n\
                 [plugins.'io.containerd.{section}'.containerd.runtimes.cryo.options]\nBinaryName = 'crun'\n"
            )
        };
        for section in ["cri.v1.runtime", "grpc.v1.cri"] {
            let found = handlers(&text(section)).unwrap();
            assert_eq!(found.default, "runc");
            let handler = &found.handlers[0];
            let said = [handler.name.as_str(), &handler.kind, &handler.path, &handler.pod_annotations[0]];
            assert_eq!(said, ["cryo", STOCK_NAME, "/x", "cryo.*"]);
        }
        let off = text("grpc.v1.cri").replace("= []", "= ['cri']");
        assert_eq!([handlers(&off), handlers("version = 3"), handlers("no = ")], [None, None, None]);
    }

    #[test]
    fn the_reason_of_criu_is_found() {
        let said = "Warn  (criu/kerndat.c:10): something\nError (criu/cr-check.c:1223): UFFD is not supported\nLooks good but some kernel features are missing\n";
        assert_eq!(complaint(said), Some("UFFD is not supported"));
        assert_eq!(complaint("it broke\n"), Some("it broke"));
    }
}
