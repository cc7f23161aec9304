//! The runtime goes by `config.json`: what has to be different for a restore is said there.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::bundle::{self, edit_config, set};
use crate::checkpoint::injected::{Injected, below_source, has_hooks};

/// A bind mount whose source isn't there.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot restore: {source_path}, mounted at {destination}, is missing: bring it back, or mount something else there"
)]
pub struct Missing {
    source_path: String,
    destination: String,
}

/// Says how the container is to come back: with the terminal it had, into this network.
pub(super) fn config(bundle: &Path, terminal: bool, network: Option<&Path>) -> Result<(), bundle::Error> {
    edit_config(bundle, |config| {
        set(config, "process", "terminal", terminal.into())?;
        mounts(config).for_each(resolve_source);
        let Some(network) = network else { return Ok(()) };
        let namespaces = config.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut);
        for namespace in namespaces.into_iter().flatten() {
            if namespace["type"] == "network" {
                namespace["path"] = network.to_string_lossy().into();
            }
        }
        Ok(())
    })
}

/// Lists mounts that the configuration didn't list at the checkpoint. What lies below a
/// source comes from the new one; what hooks mounted, they would mount here, too.
pub(super) fn list(bundle: &Path, injected: &[Injected]) -> Result<(), bundle::Error> {
    if injected.is_empty() {
        return Ok(());
    }
    edit_config(bundle, |config| {
        let hooks = has_hooks(&config["hooks"]);
        let Some(mounts) = config.get_mut("mounts").filter(|mounts| mounts.is_array()) else { return Ok(()) };
        let listed = mounts.clone();
        let is_listed = |mount: &&Injected| {
            let mut all = listed.as_array().into_iter().flatten();
            all.any(|other| other["destination"].as_str().map(Path::new) == Some(&mount.destination))
        };
        for mount in injected.iter().filter(|mount| !is_listed(mount)) {
            let recorded = hooks.then(|| mount.source.clone());
            let Some(source) = below_source(&listed, &mount.destination).or(recorded) else { continue };
            let Injected { destination, options, .. } = mount;
            mounts.as_array_mut().into_iter().for_each(|mounts| {
                mounts.push(json!({
                    "destination": destination, "type": "bind", "source": source, "options": options,
                }));
            });
        }
        Ok(())
    })
}

/// CRIU says of a source that isn't there only that some mount failed.
pub(super) fn check_mounts(bundle: &Path) -> Result<(), Missing> {
    // A configuration that can't be read is told of when it is edited.
    let text = fs::read(bundle.join(bundle::CONFIG)).unwrap_or_default();
    let mut config: Value = serde_json::from_slice(&text).unwrap_or_default();
    let missing = mounts(&mut config).find(|mount| {
        bind_source(mount)
            .is_some_and(|source| Path::new(source).is_absolute() && !Path::new(source).exists())
    });
    match missing {
        None => Ok(()),
        Some(mount) => Err(Missing {
            source_path: bind_source(mount).unwrap_or_default().to_owned(),
            destination: mount["destination"].as_str().unwrap_or_default().to_owned(),
        }),
    }
}

fn mounts(config: &mut Value) -> impl Iterator<Item = &mut Value> {
    config.get_mut("mounts").and_then(Value::as_array_mut).into_iter().flatten()
}

fn bind_source(mount: &Value) -> Option<&str> {
    let options = mount["options"].as_array();
    let binds = options.is_some_and(|options| options.iter().any(|word| word == "bind" || word == "rbind"));
    if binds { mount["source"].as_str() } else { None }
}

/// A mount follows links, CRIU doesn't: it would mount the link.
fn resolve_source(mount: &mut Value) {
    let resolved = bind_source(mount)
        .filter(|source| Path::new(source).is_absolute())
        .and_then(|source| fs::canonicalize(source).ok())
        .and_then(|path| path.to_str().map(str::to_owned));
    if let Some(resolved) = resolved {
        mount["source"] = resolved.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle_with(source: &Path) -> tempfile::TempDir {
        let bundle = tempfile::tempdir().unwrap();
        let config = serde_json::json!({
            "process": {}, "mounts": [
                {"destination": "/proc", "type": "proc", "source": "no-such-thing"},
                {"destination": "/data", "type": "bind", "source": source, "options": ["rbind", "ro"]},
            ],
        });
        fs::write(bundle.path().join(bundle::CONFIG), config.to_string()).unwrap();
        bundle
    }

    #[test]
    fn a_source_that_is_a_link_becomes_what_it_leads_to() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/etc", &link).unwrap();
        let bundle = bundle_with(&link);
        check_mounts(bundle.path()).unwrap();
        config(bundle.path(), true, None).unwrap();
        let text = fs::read_to_string(bundle.path().join(bundle::CONFIG)).unwrap();
        let config: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(config["mounts"][1]["source"], "/etc");
        assert_eq!(config["mounts"][0]["source"], "no-such-thing");
        assert_eq!(config["process"]["terminal"], true);
    }

    #[test]
    fn what_was_injected_is_listed_with_the_source_that_holds_now() {
        let bundle = bundle_with(Path::new("/new"));
        let mount = |destination: &str, source: &str| Injected {
            destination: destination.into(),
            source: source.into(),
            options: vec!["bind".into()],
        };
        let injected =
            [mount("/data/sub", "/old/sub"), mount("/driver", "/opt/driver"), mount("/data", "/x")];
        list(bundle.path(), &injected).unwrap();
        let sources = || -> Vec<Value> {
            let text = fs::read(bundle.path().join(bundle::CONFIG)).unwrap();
            let config: Value = serde_json::from_slice(&text).unwrap();
            config["mounts"].as_array().unwrap().iter().map(|mount| mount["source"].clone()).collect()
        };
        // Nothing tells here who would have mounted the driver.
        assert_eq!(sources(), ["no-such-thing", "/new", "/new/sub"]);
        edit_config(bundle.path(), |config| {
            config["hooks"] = json!({ "prestart": [{ "path": "/bin/true" }] });
            Ok(())
        })
        .unwrap();
        list(bundle.path(), &injected).unwrap();
        assert_eq!(sources(), ["no-such-thing", "/new", "/new/sub", "/opt/driver"]);
    }

    #[test]
    fn a_source_that_is_missing_is_named() {
        let bundle = bundle_with(Path::new("/no/such/folder"));
        let error = check_mounts(bundle.path()).unwrap_err().to_string();
        assert!(error.contains("/no/such/folder, mounted at /data, is missing"), "{error}");
    }
}
