//! What systemd's files say about the PATH of a service.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::root::{BIN, Root, USUAL_PATH};

/// Where units are, the most important first.
const FOLDERS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
/// Drop-ins are read in the order of their names and the last one wins, so where a later one
/// sets PATH, ours has to come after it.
pub(crate) const DROP_INS: [&str; 2] = ["cryo.conf", "zz-cryo.conf"];

/// A service, as far as it matters here. Our own drop-in is left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Unit {
    path: Option<String>,
    /// The last drop-in that sets PATH.
    path_set_by: Option<String>,
    environment_files: Vec<PathBuf>,
    /// The command lines, and what the environment files say.
    words: String,
}

pub(crate) fn exists(root: &Root, unit: &str) -> bool {
    // One that is masked leads to /dev/null, which is no file.
    file(root, unit).is_some_and(|path| path.is_file())
}

/// The unit's own file: the one in the most important folder hides the others.
fn file(root: &Root, unit: &str) -> Option<PathBuf> {
    let mut places = FOLDERS.iter().map(|folder| root.at(folder).join(unit));
    places.find(|path| fs::symlink_metadata(path).is_ok())
}

/// PATH as the service has it now, our drop-in included.
pub(crate) fn path_in_force(root: &Root, unit: &str) -> String {
    let unit = read(root, unit, &[]);
    unit.path.unwrap_or_else(|| USUAL_PATH.to_owned())
}

impl Unit {
    pub(crate) fn without_ours(root: &Root, unit: &str) -> Unit {
        read(root, unit, &DROP_INS)
    }

    /// PATH with our folder before what the service has.
    pub(crate) fn path_with_ours(&self) -> String {
        let old = self.path.as_deref().unwrap_or(USUAL_PATH);
        let rest: Vec<_> = old.split(':').filter(|folder| *folder != BIN).collect();
        format!("{BIN}:{}", rest.join(":"))
    }

    pub(crate) fn drop_in(&self) -> &'static str {
        let later = self.path_set_by.as_deref().is_some_and(|name| name > DROP_INS[0]);
        DROP_INS[usize::from(later)]
    }

    /// A file whose PATH wins over every drop-in's.
    pub(crate) fn overruled_by(&self, root: &Root) -> Option<&Path> {
        let sets_path = |file: &&PathBuf| {
            let text = fs::read_to_string(root.at(file)).unwrap_or_default();
            text.lines().any(|line| line.trim_start().starts_with("PATH="))
        };
        self.environment_files.iter().find(sets_path).map(PathBuf::as_path)
    }

    /// Whether the daemon is started with this flag.
    pub(crate) fn has_flag(&self, flag: &str) -> bool {
        let separators = |c: char| c.is_whitespace() || c == '"' || c == '\'';
        self.words.split(separators).any(|word| word.split('=').next() == Some(flag))
    }

    fn add(&mut self, root: &Root, text: &str, drop_in: Option<&str>) {
        for (key, value) in settings(text) {
            match key.as_str() {
                "Environment" if value.is_empty() => self.path = None,
                "Environment" => {
                    for word in words(&value) {
                        if let Some(path) = word.strip_prefix("PATH=") {
                            self.path = Some(path.to_owned());
                            self.path_set_by = drop_in.map(str::to_owned);
                        }
                    }
                }
                "EnvironmentFile" if value.is_empty() => self.environment_files.clear(),
                "EnvironmentFile" => {
                    let file = PathBuf::from(value.trim_start_matches('-'));
                    let text = fs::read_to_string(root.at(&file)).unwrap_or_default();
                    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
                        self.words.extend([line.split_once('=').map_or(line, |(_, value)| value), "\n"]);
                    }
                    self.environment_files.push(file);
                }
                "ExecStart" if value.is_empty() => self.words.clear(),
                "ExecStart" => self.words.extend([&value, "\n"]),
                _ => {}
            }
        }
    }
}

fn read(root: &Root, name: &str, without: &[&str]) -> Unit {
    let mut unit = Unit::default();
    let main = file(root, name).and_then(|path| fs::read_to_string(path).ok());
    unit.add(root, &main.unwrap_or_default(), None);
    let mut drop_ins = BTreeMap::new();
    // One of the same name in a more important folder hides the others.
    for folder in FOLDERS.iter().rev() {
        for entry in fs::read_dir(root.at(folder).join(format!("{name}.d"))).into_iter().flatten().flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            if file.ends_with(".conf") && !without.contains(&file.as_str()) {
                drop_ins.insert(file, entry.path());
            }
        }
    }
    for (name, path) in drop_ins {
        unit.add(root, &fs::read_to_string(path).unwrap_or_default(), Some(&name));
    }
    unit
}

/// The settings of the section [Service], continued lines joined.
fn settings(text: &str) -> Vec<(String, String)> {
    let (mut found, mut service, mut begun) = (Vec::new(), false, String::new());
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(start) = line.strip_suffix('\\') {
            begun.extend([start, " "]);
            continue;
        }
        let line = std::mem::take(&mut begun) + line;
        if line.starts_with('[') {
            service = line == "[Service]";
        } else if let Some((key, value)) = line.split_once('=').filter(|_| service) {
            found.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    found
}

/// Splits a value as systemd does, with its quotes.
fn words(value: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut letters) = (Vec::new(), String::new(), None, value.chars());
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', _) => word.extend(letters.next()),
            (_, Some(open)) if letter == open => quote = None,
            ('"' | '\'', None) => quote = Some(letter),
            (_, None) if letter.is_whitespace() => words.push(std::mem::take(&mut word)),
            _ => word.push(letter),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

/// A setting for a unit file; systemd's quotes go around what needs them.
pub(crate) fn environment(path: &str) -> String {
    if path.contains([' ', '\t', '"', '\'', '\\']) {
        let quoted = path.replace('\\', "\\\\").replace('"', "\\\"");
        return format!("Environment=\"PATH={quoted}\"");
    }
    format!("Environment=PATH={path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root_with(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(Some(folder.path())).unwrap();
        for (path, text) in files {
            fs::create_dir_all(root.at(path).parent().unwrap()).unwrap();
            fs::write(root.at(path), text).unwrap();
        }
        (folder, root)
    }

    #[test]
    fn a_service_that_says_nothing_has_the_usual_path() {
        let (_folder, root) =
            root_with(&[("/lib/systemd/system/docker.service", "[Service]\nExecStart=/usr/sbin/dockerd\n")]);
        let unit = Unit::without_ours(&root, "docker.service");
        assert_eq!(unit.path_with_ours(), format!("{BIN}:{USUAL_PATH}"));
        assert_eq!(unit.drop_in(), "cryo.conf");
        assert!(exists(&root, "docker.service") && !exists(&root, "containerd.service"));
    }

    #[test]
    fn a_masked_service_is_not_there() {
        let (_folder, root) = root_with(&[("/lib/systemd/system/containerd.service", "[Service]\n")]);
        fs::create_dir_all(root.at("/etc/systemd/system")).unwrap();
        std::os::unix::fs::symlink("/dev/null", root.at("/etc/systemd/system/containerd.service")).unwrap();
        assert!(!exists(&root, "containerd.service"));
    }

    #[test]
    fn a_path_of_the_unit_is_kept_after_ours() {
        let unit =
            "[Unit]\nEnvironment=PATH=/no\n[Service]\nEnvironment=A=b \\\n \"PATH=/opt/my tools:/bin\"\n";
        let (_folder, root) = root_with(&[("/lib/systemd/system/docker.service", unit)]);
        let unit = Unit::without_ours(&root, "docker.service");
        assert_eq!(unit.path_with_ours(), format!("{BIN}:/opt/my tools:/bin"));
        assert_eq!(environment("/opt/my tools"), "Environment=\"PATH=/opt/my tools\"");
    }

    #[test]
    fn a_later_drop_in_that_sets_path_makes_ours_come_after_it() {
        let (_folder, root) = root_with(&[
            ("/etc/systemd/system/docker.service.d/a.conf", "[Service]\nEnvironment=PATH=/a\n"),
            ("/etc/systemd/system/docker.service.d/cryo.conf", "[Service]\nEnvironment=PATH=/ours\n"),
            ("/lib/systemd/system/docker.service.d/override.conf", "[Service]\nEnvironment=PATH=/hidden\n"),
            ("/run/systemd/system/docker.service.d/override.conf", "[Service]\nEnvironment=PATH=/o\n"),
        ]);
        let unit = Unit::without_ours(&root, "docker.service");
        assert_eq!((unit.path_with_ours(), unit.drop_in()), (format!("{BIN}:/o"), "zz-cryo.conf"));
        assert_eq!(path_in_force(&root, "docker.service"), "/o");
    }

    #[test]
    fn an_environment_file_may_overrule_and_may_bring_flags() {
        let unit =
            "[Service]\nEnvironmentFile=-/etc/default/docker\nExecStart=/usr/sbin/dockerd $DOCKER_OPTS\n";
        let (_folder, root) = root_with(&[
            ("/lib/systemd/system/docker.service", unit),
            ("/etc/default/docker", "#DOCKER_OPTS=\"--debug\"\nDOCKER_OPTS=\"--experimental\"\nPATH=/x\n"),
        ]);
        let unit = Unit::without_ours(&root, "docker.service");
        assert_eq!(unit.overruled_by(&root), Some(Path::new("/etc/default/docker")));
        assert!(unit.has_flag("--experimental") && !unit.has_flag("--debug"));
    }
}
