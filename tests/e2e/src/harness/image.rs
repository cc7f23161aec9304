//! The image of all containers, made without a network: busybox and the guest.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::failure::{During, Failure, Outcome};
use super::settings::settings;
use super::slot::{BASE, Slot};

pub(crate) const NAME: &str = "cryo.test/guest:1";

/// Of a pod's first container.
pub(crate) const PAUSE: &str = "cryo.test/pause:1";

/// The root file system alone, as `docker import` takes it.
pub(crate) const ROOT: &str = "root.tar";

static LAYER: OnceLock<String> = OnceLock::new();

/// The snapshot that containers stand on: the digest of the image's one layer.
pub(crate) fn layer() -> &'static str {
    LAYER.get().expect("the image is built before the first slot is made")
}

/// Writes OCI archives into `folder`.
pub(crate) fn build(folder: &Path) -> Outcome {
    let layer = root_filesystem()?;
    write(
        &layer,
        NAME,
        json!({ "Env": ["PATH=/bin"], "Cmd": ["guest", "idle"] }),
        &folder.join("image.tar"),
    )?;
    write(&layer, PAUSE, json!({ "Entrypoint": ["/bin/guest", "pause"] }), &folder.join("pause.tar"))?;
    fs::write(folder.join(ROOT), &layer)?;
    LAYER.set(digest(&layer)).map_err(|_| Failure::new("the image was built twice"))
}

/// An archive of an image that has Cryo's programs from a folder, and nothing else.
pub(crate) fn write_installer(programs: &Path, name: &str, file: &Path) -> Outcome {
    let mut root = Builder::new(Vec::new());
    for program in ["cryo", "containerd-shim-cryo-v2"] {
        add(&mut root, program, &fs::read(programs.join(program))?, 0o755)?;
    }
    write(&root.into_inner()?, name, json!({ "Entrypoint": ["/cryo"] }), file)
}

fn write(layer: &[u8], name: &str, defaults: Value, file: &Path) -> Outcome {
    let config = encode(&json!({
        "architecture": std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64"),
        "os": "linux",
        "config": defaults,
        "rootfs": { "type": "layers", "diff_ids": [digest(layer)] },
    }));
    let manifest = encode(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
    }));
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    entry["annotations"] = json!({ "io.containerd.image.name": name });
    let index = encode(&json!({ "schemaVersion": 2, "manifests": [entry] }));

    let mut archive = Builder::new(File::create(file)?);
    add(&mut archive, "oci-layout", &encode(&json!({ "imageLayoutVersion": "1.0.0" })), 0o644)?;
    add(&mut archive, "index.json", &index, 0o644)?;
    for blob in [layer, &config, &manifest] {
        add(&mut archive, &format!("blobs/{}", digest(blob).replace(':', "/")), blob, 0o644)?;
    }
    Ok(archive.finish()?)
}

fn root_filesystem() -> Outcome<Vec<u8>> {
    let busybox = fs::read("/bin/busybox").during(|| "the test host needs a static busybox".into())?;
    let applets = Command::new("/bin/busybox").arg("--list").output()?;
    let mut root = Builder::new(Vec::new());
    for folder in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "var"] {
        let mut header = header(EntryType::Directory, 0, 0o755);
        root.append_data(&mut header, folder, std::io::empty())?;
    }
    add(&mut root, "bin/busybox", &busybox, 0o755)?;
    add(&mut root, "bin/guest", &fs::read(&settings().guest)?, 0o755)?;
    for applet in String::from_utf8_lossy(&applets.stdout).lines().filter(|name| *name != "busybox") {
        root.append_link(&mut header(EntryType::Symlink, 0, 0o777), format!("bin/{applet}"), "busybox")?;
    }
    add(&mut root, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n", 0o644)?;
    Ok(root.into_inner()?)
}

fn add(archive: &mut Builder<impl Write>, path: &str, content: &[u8], mode: u32) -> Outcome {
    let mut header = header(EntryType::Regular, content.len(), mode);
    Ok(archive.append_data(&mut header, path, content)?)
}

fn header(kind: EntryType, size: usize, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size as u64);
    header.set_mode(mode);
    header
}

fn encode(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(blob), "size": blob.len() })
}

pub(super) fn digest(blob: &[u8]) -> String {
    let hash = Sha256::digest(blob);
    format!("sha256:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// Imports the guest's image into a containerd namespace and unpacks it.
pub(crate) fn import(slot: &Slot, namespace: &str) -> Outcome {
    import_archive(slot, namespace, "image.tar")
}

/// The same for what pods need besides.
pub(crate) fn import_pause(slot: &Slot, namespace: &str) -> Outcome {
    import_archive(slot, namespace, "pause.tar")
}

fn import_archive(slot: &Slot, namespace: &str, archive: &str) -> Outcome {
    import_file(slot, namespace, &Path::new(BASE).join(archive))
}

pub(crate) fn import_file(slot: &Slot, namespace: &str, archive: &Path) -> Outcome {
    let output = slot
        .command("ctr")
        .args(["--namespace", namespace, "images", "import"])
        .arg(archive)
        .output()
        .during(|| "ctr images import".into())?;
    if !output.status.success() {
        return Err(Failure::new(format!("ctr images import: {}", String::from_utf8_lossy(&output.stderr))));
    }
    Ok(())
}
