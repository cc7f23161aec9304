//! The files of a checkpoint archive, in the layout of Kubernetes and Podman, into one flat
//! folder: CRIU's, and those that lie beside their folder.

use std::io::Read;

use super::draft::{Draft, Files};
use super::import::Error;
use super::layout::{BESIDE, CONFIG_FILE, ContainerConfig, IMAGE_FOLDER, SPEC_FILE};
use super::members::{Member, Members};
use super::verify;
use crate::checkpoint::manifest::{self, Manifest};
use crate::criu::images::MOST_BYTES;

/// Of what is left out, so many are named.
const MOST_NAMES: usize = 32;
/// The store's own word about a checkpoint, which no archive may say for it.
const RESERVED: &str = "entry.json";

pub(super) struct Unpacking {
    pub(super) draft: Draft,
    pub(super) manifest: Option<Manifest>,
    pub(super) config: Option<ContainerConfig>,
    pub(super) files: Files,
    pub(super) beside: Files,
    pub(super) left_out: Vec<String>,
}

/// Where a member goes.
enum Place<'a> {
    Image(&'a str),
    Beside(&'a str),
    Nowhere,
}

impl Unpacking {
    pub(super) fn new(draft: Draft) -> Unpacking {
        let (files, beside) = (Files::new(), Files::new());
        Unpacking { draft, manifest: None, config: None, files, beside, left_out: Vec::new() }
    }

    pub(super) fn layer<R: Read>(&mut self, members: &mut Members<'_, R>) -> Result<(), Error> {
        while let Some(member) = members.next()? {
            self.member(&member, members)?;
        }
        Ok(())
    }

    /// Tells whether the member was kept.
    pub(super) fn member(&mut self, member: &Member, content: &mut dyn Read) -> Result<bool, Error> {
        match Place::of(member)? {
            Place::Image(name) => self.image_file(name, member.size, content)?,
            Place::Beside(name) => self.file_beside(name, member.size, content)?,
            Place::Nowhere => {
                if !member.is_folder && self.left_out.len() < MOST_NAMES {
                    self.left_out.push(member.name.clone());
                }
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn image_file(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Result<(), Error> {
        if name == manifest::FILE_NAME {
            small(name, size)?;
        } else if let Some(manifest) = &self.manifest {
            // Found out before it is written.
            verify::size(manifest, name, size)?;
        }
        let stored = self.draft.write(name, size, content)?;
        self.files.insert(name.to_owned(), stored);
        if name == manifest::FILE_NAME {
            let read = Manifest::read(&self.draft.place());
            self.manifest = Some(read.map_err(|error| Error::json(name, &error))?);
        }
        Ok(())
    }

    fn file_beside(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Result<(), Error> {
        if name == CONFIG_FILE || name == SPEC_FILE {
            small(name, size)?;
        }
        let stored = self.draft.write(name, size, content)?;
        self.beside.insert(name.to_owned(), stored);
        if name == CONFIG_FILE {
            let text = std::fs::read(self.draft.place().join(name)).map_err(Error::reading)?;
            let config = serde_json::from_slice(&text).map_err(|error| Error::json(name, &error))?;
            self.config = Some(config);
        }
        Ok(())
    }
}

impl Place<'_> {
    fn of(member: &Member) -> Result<Place<'_>, Error> {
        let hostile = |problem| Err(Error::hostile(&member.name, problem));
        let Some((folder, name)) = member.name.split_once('/') else {
            let is_beside = !member.is_folder && BESIDE.contains(&&*member.name);
            return Ok(if is_beside { Place::Beside(&member.name) } else { Place::Nowhere });
        };
        if folder != IMAGE_FOLDER {
            return Ok(Place::Nowhere);
        }
        if member.is_folder || name.contains('/') {
            return hostile("is in a folder of its own, and images have none");
        }
        if name.starts_with('.') || name == RESERVED || name.len() > 255 {
            return hostile("has a name that no file of an image has");
        }
        Ok(Place::Image(name))
    }
}

pub(super) fn small(name: &str, size: u64) -> Result<(), Error> {
    if size > MOST_BYTES { Err(Error::too_big(name, size, MOST_BYTES)) } else { Ok(()) }
}
