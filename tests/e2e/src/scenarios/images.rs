//! Images that are not what they should be: refused, and nothing is left of the try.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::harness::*;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let follows = "the stock shim follows it";
    let unnamed = "the stock shim's error names nothing";
    vec![
        scenario!(an_empty_image_is_refused),
        scenario!(an_image_that_is_not_there_is_refused),
        scenario!(a_file_in_place_of_an_image_is_refused),
        scenario!(an_image_with_a_garbled_inventory_is_refused),
        scenario!(an_image_with_truncated_pages_is_refused)
            .cryo_only("CRIU waits for ever for the rest, and the stock shim for CRIU"),
        scenario!(an_image_with_a_missing_part_is_refused),
        scenario!(an_image_without_descriptors_is_refused),
        scenario!(an_image_with_garbled_descriptors_is_refused),
        scenario!(a_folder_of_something_else_is_refused),
        scenario!(a_refusal_names_what_is_wrong_with_the_image).cryo_only(unnamed),
        scenario!(a_link_in_an_image_is_refused).cryo_only(follows),
        scenario!(a_link_out_of_an_image_is_refused).cryo_only(follows),
        scenario!(a_path_with_dots_in_it_is_refused).cryo_only(follows),
        scenario!(an_unfinished_image_of_ours_is_refused).cryo_only("our own seal"),
    ]
    .into_iter()
    .map(|scenario| scenario.fifo_only().restores())
    .collect()
}

/// Damages an image, and tells how the restore was refused.
fn refusal_of(bench: &Bench, damage: impl FnOnce(&Path) -> Outcome<PathBuf>) -> Outcome<String> {
    let task = bench.run(&["count"])?;
    let image = task.end_as_image()?;
    let path = damage(&image)?;
    let (again, answer) = task.again_from(&path).try_create()?;
    let text = match answer {
        // Nothing was made, so there is nothing to delete.
        Err(status) => {
            refused(again.state(), &[Code::NotFound])?;
            status.message().to_owned()
        }
        Ok(_) => {
            let text = refused(again.start(), &[])?;
            if settings().shim.is_cryo() {
                ensure_eq!(again.status()?, Status::Stopped, "after the refusal");
            }
            again.delete()?;
            text
        }
    };
    // The container itself is as good as before.
    let fresh = task.blueprint.clone().start()?;
    fresh.stdout().wait_for_line("1")?;
    fresh.end()?;
    Ok(text)
}

fn is_refused(bench: &Bench, damage: impl FnOnce(&Path) -> Outcome<PathBuf>) -> Outcome {
    let text = refusal_of(bench, damage)?;
    ensure!(!text.is_empty(), "the refusal says nothing");
    Ok(())
}

fn an_empty_image_is_refused(bench: &Bench) -> Outcome {
    is_refused(bench, |_| bench.fresh_folder("empty"))
}

fn an_image_that_is_not_there_is_refused(bench: &Bench) -> Outcome {
    is_refused(bench, |image| Ok(image.join("nowhere")))
}

fn a_file_in_place_of_an_image_is_refused(bench: &Bench) -> Outcome {
    is_refused(bench, |image| Ok(image.join("inventory.img")))
}

fn an_image_with_a_garbled_inventory_is_refused(bench: &Bench) -> Outcome {
    is_refused(bench, |image| {
        fs::write(image.join("inventory.img"), [0xa5; 64])?;
        Ok(image.into())
    })
}

fn an_image_with_truncated_pages_is_refused(bench: &Bench) -> Outcome {
    is_refused(bench, |image| {
        let pages = fs::File::options().write(true).open(image.join("pages-1.img"))?;
        pages.set_len(pages.metadata()?.len() / 2)?;
        Ok(image.into())
    })
}

fn an_image_with_a_missing_part_is_refused(bench: &Bench) -> Outcome {
    is_refused(bench, |image| {
        fs::remove_file(image.join("pages-1.img"))?;
        Ok(image.into())
    })
}

fn an_image_without_descriptors_is_refused(bench: &Bench) -> Outcome {
    is_refused(bench, |image| {
        fs::remove_file(image.join("descriptors.json"))?;
        Ok(image.into())
    })
}

fn an_image_with_garbled_descriptors_is_refused(bench: &Bench) -> Outcome {
    is_refused(bench, |image| {
        fs::write(image.join("descriptors.json"), "[\"pipe:[1]\", 7")?;
        Ok(image.into())
    })
}

fn a_folder_of_something_else_is_refused(bench: &Bench) -> Outcome {
    is_refused(bench, |_| {
        let folder = bench.fresh_folder("holiday")?;
        fs::write(folder.join("beach.jpg"), [7; 1000])?;
        Ok(folder)
    })
}

fn a_refusal_names_what_is_wrong_with_the_image(bench: &Bench) -> Outcome {
    let text = refusal_of(bench, |image| {
        fs::remove_file(image.join("inventory.img"))?;
        Ok(image.into())
    })?;
    ensure!(text.contains("inventory"), "the missing part isn't named: {text}");
    let text = refusal_of(bench, |image| Ok(image.join("nowhere")))?;
    ensure!(text.contains("nowhere"), "the missing folder isn't named: {text}");
    Ok(())
}

fn a_link_in_an_image_is_refused(bench: &Bench) -> Outcome {
    let text = refusal_of(bench, |image| {
        fs::rename(image.join("pages-1.img"), image.join("real"))?;
        symlink("real", image.join("pages-1.img"))?;
        Ok(image.into())
    })?;
    ensure!(text.contains("link"), "the cause isn't named: {text}");
    Ok(())
}

fn a_link_out_of_an_image_is_refused(bench: &Bench) -> Outcome {
    let text = refusal_of(bench, |image| {
        let elsewhere = bench.fresh_folder("elsewhere")?.join("inventory.img");
        fs::rename(image.join("inventory.img"), &elsewhere)?;
        symlink(elsewhere, image.join("inventory.img"))?;
        Ok(image.into())
    })?;
    ensure!(text.contains("link"), "the cause isn't named: {text}");
    Ok(())
}

fn a_path_with_dots_in_it_is_refused(bench: &Bench) -> Outcome {
    let text = refusal_of(bench, |image| {
        let name = image.file_name().ok_or_else(|| Failure::new("an image without a name"))?;
        Ok(image.join("..").join(name))
    })?;
    ensure!(text.contains(".."), "the cause isn't named: {text}");
    Ok(())
}

fn an_unfinished_image_of_ours_is_refused(bench: &Bench) -> Outcome {
    let text = refusal_of(bench, |image| {
        // Written last: with our description but without a whole one the dump never ended.
        let description = image.join(cryo::DESCRIPTION);
        let whole = fs::read(&description)?;
        fs::write(description, &whole[..whole.len() / 2])?;
        Ok(image.into())
    })?;
    ensure!(text.contains(cryo::DESCRIPTION), "the cause isn't named: {text}");
    Ok(())
}
