//! Device nodes of a container with users of its own. It can't make any, so the runtime
//! binds the host's; crun doesn't tell CRIU about those, so we do.

use super::config::Config;
use crate::bundle::{DEFAULT_DEVICES, Sharing, Spec};

/// The same lines serve dump and restore: the key and the host's node have one name.
pub fn of_users_own(config: Config, spec: &Spec) -> Config {
    if spec.sharing("user") == Sharing::Host {
        return config;
    }
    let listed = spec.linux.devices.iter().map(|device| device.path.as_str());
    DEFAULT_DEVICES
        .into_iter()
        .chain(listed.filter(|path| !DEFAULT_DEVICES.contains(path)))
        .fold(config, |config, path| config.set("external", format!("mnt[{path}]:{path}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_users_of_its_own_make_a_difference() {
        let spec = Spec::default();
        assert_eq!(of_users_own(Config::default(), &spec), Config::default());
        let json = r#"{"linux":{"namespaces":[{"type":"user"}],"devices":[{"path":"/dev/fuse"},{"path":"/dev/null"}]}}"#;
        let spec: Spec = serde_json::from_str(json).unwrap();
        let config = format!("{:?}", of_users_own(Config::default(), &spec));
        assert!(
            config.contains("mnt[/dev/urandom]:/dev/urandom") && config.contains("mnt[/dev/fuse]"),
            "{config}"
        );
        assert_eq!(config.matches("mnt[/dev/null]").count(), 1);
    }
}
