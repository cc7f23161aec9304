//! containerd's `config.toml`: how Cryo gets into it as a handler for pods, and out again.

use std::path::{Path, PathBuf};

use toml_edit::{Array, DocumentMut, Item, Table, value};

use crate::command::doctor::matches;
use crate::command::root::SHIM;

/// What a RuntimeClass calls it.
pub(super) const HANDLER: &str = "cryo";
/// What containerd describes by itself as long as nothing else is described.
const BUILT_IN: &str = "runc";
const RUNTIME_TYPE: &str = "io.containerd.runc.v2";
const ANNOTATIONS: &str = "cryo.*";
const OURS: &str = "# By `cryo install kubernetes`: pods of RuntimeClass \"cryo\" run on Cryo.\n";

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Error {
    #[error("{0} isn't TOML ({1}): mend it and run this again")]
    Invalid(PathBuf, String),
    #[error(
        "{0} says no version of its form: begin it with `version = 2`, after `containerd config migrate` \
         if it is of version 1, and run this again"
    )]
    NoVersion(PathBuf),
    #[error("{0} is of version {1}, and Cryo knows 2 and 3: add the handler by hand, see deploy/containerd")]
    OtherVersion(PathBuf, i64),
    #[error(
        "{0} has {1:?} in a form that can't be added to: write it as a table of its own and run this again"
    )]
    WrongForm(PathBuf, &'static str),
    #[error(
        "{0} already has a handler \"cryo\" that isn't this one: give it another name and run this again"
    )]
    Foreign(PathBuf),
    #[error("{0} names \"cryo\" as default_runtime_name: change that before you remove the handler")]
    Default(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// containerd 1 knows no other. There a file that is imported takes the place of the whole
    /// section that it adds to, so that the handler has to be in the main file.
    Two,
    /// containerd 2 merges what is imported, if that is of version 3, too.
    Three,
}

impl Version {
    /// The tables around a handler.
    pub(super) fn handlers(self) -> [&'static str; 4] {
        let cri = match self {
            Version::Two => "io.containerd.grpc.v1.cri",
            Version::Three => "io.containerd.cri.v1.runtime",
        };
        ["plugins", cri, "containerd", "runtimes"]
    }

    fn number(self) -> i64 {
        match self {
            Version::Two => 2,
            Version::Three => 3,
        }
    }
}

/// What pods are run with.
#[derive(Clone, Debug)]
pub(super) struct Handler {
    pub(super) shim: PathBuf,
    /// As other pods are: the kubelet has one way for all.
    pub(super) systemd_cgroups: bool,
}

/// The texts that give containerd the handler: of its main file, and of one that is imported.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Texts {
    pub(super) main: String,
    pub(super) drop_in: Option<String>,
}

/// The main file with the handler in it, or with a drop-in imported that has it.
pub(super) fn add(main: &Path, text: &str, drop_in: &Path, handler: &Handler) -> Result<Texts, Error> {
    let mut document = parse(main, text)?;
    let version = version(main, &document)?;
    if let Some(there) = find(&document, version, HANDLER) {
        let path = there.get("runtime_path").and_then(Item::as_str);
        return match path == handler.shim.to_str() {
            true => Ok(Texts { main: text.to_owned(), drop_in: None }),
            false => Err(Error::Foreign(main.to_owned())),
        };
    }
    match version {
        Version::Two => describe(main, &mut document, handler)?,
        Version::Three => import(main, &mut document, drop_in)?,
    }
    let drop_in = (version == Version::Three).then(|| self::drop_in(handler));
    Ok(Texts { main: document.to_string(), drop_in })
}

/// A main file that there isn't yet.
pub(super) fn fresh(version: Version) -> String {
    format!("version = {}\n", version.number())
}

/// The text without what was added to the older one; all else stays, whoever wrote it.
pub(super) fn take_out(main: &Path, text: &str, before: Option<&str>) -> Result<Option<String>, Error> {
    let mut document = parse(main, text)?;
    let old = parse(main, before.unwrap_or_default())?;
    for version in [Version::Two, Version::Three] {
        if find(&document, version, HANDLER).is_some_and(is_ours) && find(&old, version, HANDLER).is_none() {
            if is_default(&document, version) {
                return Err(Error::Default(main.to_owned()));
            }
            forget(&mut document, &old, version, HANDLER);
            if find(&document, version, BUILT_IN).is_some_and(|there| there.len() == 1) {
                forget(&mut document, &old, version, BUILT_IN);
            }
        }
    }
    forget_import(&mut document, &old);
    let nothing_left = before.is_none() && document.iter().all(|(key, _)| key == "version");
    Ok((!nothing_left).then(|| document.to_string()))
}

/// In a file of its own. Of version 3 alone: beside a main file of version 2 it would take the
/// place of what that says.
fn drop_in(handler: &Handler) -> String {
    let mut document = DocumentMut::new();
    document.insert("version", value(Version::Three.number()));
    // A new document has nothing in another form.
    if let Ok(handlers) = handlers(Path::new(""), &mut document, Version::Three) {
        handlers.insert(HANDLER, Item::Table(table(handler)));
    }
    format!("{OURS}{document}")
}

fn describe(main: &Path, document: &mut DocumentMut, handler: &Handler) -> Result<(), Error> {
    let handlers = handlers(main, document, Version::Two)?;
    let alone = handlers.is_empty();
    let mut ours = table(handler);
    ours.decor_mut().set_prefix(format!("\n{OURS}"));
    handlers.insert(HANDLER, Item::Table(ours));
    // containerd 1 forgets its own description as soon as there is another.
    if alone {
        let mut built_in = Table::new();
        built_in.insert("runtime_type", value(RUNTIME_TYPE));
        handlers.insert(BUILT_IN, Item::Table(built_in));
    }
    Ok(())
}

fn table(handler: &Handler) -> Table {
    let mut table = Table::new();
    table.insert("runtime_type", value(RUNTIME_TYPE));
    table.insert("runtime_path", value(handler.shim.display().to_string()));
    for list in ["pod_annotations", "container_annotations"] {
        table.insert(list, value(Array::from_iter([ANNOTATIONS])));
    }
    if handler.systemd_cgroups {
        let mut options = Table::new();
        options.insert("SystemdCgroup", value(true));
        table.insert("options", Item::Table(options));
    }
    table
}

/// The table of all handlers, made if it isn't there.
fn handlers<'a>(
    main: &Path,
    document: &'a mut DocumentMut,
    version: Version,
) -> Result<&'a mut Table, Error> {
    version.handlers().into_iter().try_fold(document.as_table_mut(), |table, key| {
        let inner = table.entry(key).or_insert_with(|| {
            let mut table = Table::new();
            table.set_implicit(true);
            Item::Table(table)
        });
        inner.as_table_mut().ok_or_else(|| Error::WrongForm(main.to_owned(), key))
    })
}

fn import(main: &Path, document: &mut DocumentMut, drop_in: &Path) -> Result<(), Error> {
    let path = drop_in.display().to_string();
    let imports = document.entry("imports").or_insert_with(|| value(Array::new()));
    let imports = imports.as_array_mut().ok_or_else(|| Error::WrongForm(main.to_owned(), "imports"))?;
    if !imports.iter().filter_map(|pattern| pattern.as_str()).any(|pattern| matches(pattern, &path)) {
        imports.push(path);
    }
    Ok(())
}

fn find<'a>(document: &'a DocumentMut, version: Version, name: &str) -> Option<&'a dyn toml_edit::TableLike> {
    let handlers = version.handlers().into_iter().try_fold(document.as_item(), |item, key| item.get(key));
    handlers?.get(name)?.as_table_like()
}

fn is_ours(handler: &dyn toml_edit::TableLike) -> bool {
    let path = handler.get("runtime_path").and_then(Item::as_str);
    path.is_some_and(|path| Path::new(path).file_name().is_some_and(|name| name == SHIM))
}

fn is_default(document: &DocumentMut, version: Version) -> bool {
    let [plugins, cri, containerd, _] = version.handlers();
    let keys = [plugins, cri, containerd, "default_runtime_name"];
    let name = keys.into_iter().try_fold(document.as_item(), |item, key| item.get(key));
    name.and_then(Item::as_str) == Some(HANDLER)
}

/// Takes a handler out, and the tables around it that are empty then and were not there before.
fn forget(document: &mut DocumentMut, old: &DocumentMut, version: Version, name: &str) {
    let mut keys = version.handlers().to_vec();
    if get(old.as_item(), &keys).is_some_and(|handlers| handlers.get(name).is_some()) {
        return;
    }
    let mut gone = name;
    while let Some(table) = get_mut(document.as_item_mut(), &keys).and_then(Item::as_table_like_mut) {
        table.remove(gone);
        let kept = !table.is_empty() || get(old.as_item(), &keys).is_some();
        match keys.pop() {
            Some(key) if !kept => gone = key,
            _ => return,
        }
    }
}

fn get<'a>(item: &'a Item, keys: &[&str]) -> Option<&'a Item> {
    keys.iter().try_fold(item, |item, key| item.get(key))
}

fn get_mut<'a>(item: &'a mut Item, keys: &[&str]) -> Option<&'a mut Item> {
    keys.iter().try_fold(item, |item, key| item.get_mut(key))
}

fn forget_import(document: &mut DocumentMut, old: &DocumentMut) {
    let names_ours = |path: &str| is_drop_in(Path::new(path));
    let texts = |document: &DocumentMut| -> Vec<String> {
        let imports = document.get("imports").and_then(Item::as_array);
        imports.into_iter().flatten().filter_map(|path| path.as_str()).map(str::to_owned).collect()
    };
    if texts(old).iter().any(|path| names_ours(path)) {
        return;
    }
    let Some(imports) = document.get_mut("imports").and_then(Item::as_array_mut) else { return };
    imports.retain(|path| !path.as_str().is_some_and(names_ours));
    if imports.is_empty() && old.get("imports").is_none() {
        document.remove("imports");
    }
}

/// Where the drop-in for a main file is.
pub(super) fn drop_in_of(main: &Path) -> PathBuf {
    main.with_file_name("conf.d").join("cryo.toml")
}

pub(super) fn is_drop_in(path: &Path) -> bool {
    path.ends_with("conf.d/cryo.toml")
}

fn parse(main: &Path, text: &str) -> Result<DocumentMut, Error> {
    let invalid = |error: toml_edit::TomlError| {
        let line = error.span().map(|span| text[..span.start.min(text.len())].lines().count().max(1));
        let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        Error::Invalid(
            main.to_owned(),
            format!("{line}{}", error.message().lines().next().unwrap_or_default()),
        )
    };
    text.parse().map_err(invalid)
}

fn version(main: &Path, document: &DocumentMut) -> Result<Version, Error> {
    match document.get("version").map(Item::as_integer) {
        Some(Some(2)) => Ok(Version::Two),
        Some(Some(3)) => Ok(Version::Three),
        Some(Some(other)) => Err(Error::OtherVersion(main.to_owned(), other)),
        Some(None) => Err(Error::WrongForm(main.to_owned(), "version")),
        None => Err(Error::NoVersion(main.to_owned())),
    }
}
